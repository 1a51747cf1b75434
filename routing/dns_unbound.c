/*
 * routing/dns_unbound.c - dns.h over libunbound's event API (unbound-event.h).
 *
 * That API runs libunbound's resolver on the shard's own loop (routing/dns_event.c): no thread, no
 * process, no pipe, and every socket non-blocking. Debian's library has it.
 *
 * Owns:     a resolver context with its cache; the lookups.
 * Runs on:  its shard; dns_create and dns_destroy of different shards take turns.
 * Contract: every query is answered once, from a timer in io_turn, unless it is cancelled; at the
 *           latest after timeout_ns, with what is known by then.
 * Failure:  dns_create says why. A lookup that fails for any reason but the DNS's own "no" is
 *           DNS_TEMPORARY.
 * Bounds:   DNS_LOOKUPS_MAX lookups. A lookup nobody waits for any more goes on until libunbound
 *           gives it up, so that its answer is in the cache when it is asked again.
 * Tests:    tests/unit/test_dns.c
 */
#include <assert.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unbound.h>

#include "gateway/base/slab.h"
#include "routing/dns_context.h"
#include "routing/dns_event.h"
#include "routing/dns_packet.h"
#include "routing/domain.h"

#define DNS_RCODE_NXDOMAIN           3
#define DNS_SECURE                   2 /* of ub_event_callback_type's `sec` */
#define DNS_SEC_BOGUS                1
#define CONTAINER(type, member, ptr) ((type *)((char *)(ptr)-offsetof(type, member)))

/* One of the questions of a lookup: MX, or A and AAAA. */
struct dns_part {
    struct dns_lookup *lookup;
    uint16_t type;
    bool asked, answered;
    struct {
        enum dns_status status;
        bool secure;
        uint32_t ttl_s, addr_count;
        struct io_addr addr[DNS_ADDR_MAX];
    } got;
};

struct dns_lookup {
    struct dns *dns;
    struct dns_query *query; /* NULL: nobody waits any more */
    uint32_t part_count;
    struct dns_part parts[2];
    struct dns_answer answer;
};

struct dns {
    struct io *io;
    struct ub_ctx *context;
    struct dns_loop *loop;
    uint64_t timeout_ns;
    struct slab slab;
    struct list queries; /* their owners wait */
    uint32_t delivering; /* callbacks running now */
    bool destroyed;      /* by one of them */
};

/* What dns_query.waiting says. */
enum { QUERY_IDLE, QUERY_WAITING, QUERY_LITERAL, QUERY_BUSY, QUERY_BAD_NAME };

/* ---- life ---- */

static void dns_free(struct dns *d)
{
    dns_context_destroy(d->context);
    dns_loop_destroy(d->loop);
    slab_destroy(&d->slab, true);
    free(d);
}

struct dns *dns_create(const struct dns_params *p, struct why *why)
{
    struct dns *d = calloc(1, sizeof *d);

    if (d)
        d->loop = dns_loop_create(p->io);
    if (!d || !d->loop) {
        free(d);
        why_set(why, 0, "", "dns: out of memory");
        return NULL;
    }
    d->io = p->io;
    d->timeout_ns = p->timeout_ns ? p->timeout_ns : DNS_TIMEOUT_NS;
    list_init(&d->queries);
    slab_init(&d->slab, "dns lookups", sizeof(struct dns_lookup), DNS_LOOKUPS_MAX);
    d->context = dns_context_create(dns_loop_base(d->loop), p, why);
    if (d->context)
        return d;
    dns_free(d);
    return NULL;
}

void dns_destroy(struct dns *d)
{
    if (!d)
        return;
    while (!list_empty(&d->queries))
        dns_cancel(CONTAINER(struct dns_query, link, d->queries.next));
    d->destroyed = true;
    if (!d->delivering)
        dns_free(d);
}

/* ---- a lookup ---- */

static bool lookup_is_complete(const struct dns_lookup *l)
{
    for (uint32_t i = 0; i < l->part_count; i++)
        if (!l->parts[i].answered)
            return false;
    return true;
}

/* Frees the lookup as soon as neither the owner nor libunbound will come back to it. */
static void lookup_release(struct dns_lookup *l)
{
    if (l->query || !lookup_is_complete(l))
        return;
    slab_free(&l->dns->slab, l);
}

/* Both families in turns, so that one that is broken here costs one attempt, not all. */
static void merge_addresses(struct dns_lookup *l)
{
    struct dns_answer *a = &l->answer;

    for (uint32_t turn = 0; turn < DNS_ADDR_MAX; turn++)
        for (uint32_t i = 0; i < l->part_count; i++) {
            const struct dns_part *p = &l->parts[i];
            if (p->answered && turn < p->got.addr_count && a->addr_count < DNS_ADDR_MAX)
                a->addr[a->addr_count++] = p->got.addr[turn];
        }
}

/* One answer out of those of the parts that are there. */
static void lookup_conclude(struct dns_lookup *l)
{
    struct dns_answer *a = &l->answer;
    uint32_t count[DNS_BOGUS + 1] = {0};
    bool secure = true;

    a->ttl_s = UINT32_MAX;
    for (uint32_t i = 0; i < l->part_count; i++) {
        const struct dns_part *p = &l->parts[i];
        enum dns_status status = p->answered ? p->got.status : DNS_TEMPORARY;
        count[status]++;
        if (status == DNS_TEMPORARY || status == DNS_BOGUS)
            continue;
        secure = secure && p->got.secure;
        a->ttl_s = p->got.ttl_s < a->ttl_s ? p->got.ttl_s : a->ttl_s;
    }
    if (l->parts[0].type != DNS_TYPE_MX)
        merge_addresses(l);
    if (count[DNS_OK])
        a->status = DNS_OK;
    else if (count[DNS_BOGUS])
        a->status = DNS_BOGUS;
    else if (count[DNS_TEMPORARY])
        a->status = DNS_TEMPORARY;
    else
        a->status = count[DNS_NODATA] ? DNS_NODATA : DNS_NXDOMAIN;
    a->secure = secure && !count[DNS_TEMPORARY] && !count[DNS_BOGUS];
    if (a->ttl_s == UINT32_MAX)
        a->ttl_s = 0;
    if (a->status == DNS_OK)
        a->text[0] = '\0';
    else if (a->text[0] == '\0')
        snprintf(a->text, sizeof a->text, "%s",
                 a->status == DNS_NXDOMAIN ? "the name does not exist"
                 : a->status == DNS_NODATA ? "no such record"
                 : a->status == DNS_BOGUS  ? "DNSSEC validation failed"
                                           : "the name server does not answer");
}

static void part_failed(struct dns_part *p, int rcode, bool limited)
{
    static const char *const words[] = {"no usable answer", "FORMERR", "SERVFAIL",
                                        "NXDOMAIN",         "NOTIMP",  "REFUSED"};
    struct dns_answer *a = &p->lookup->answer;

    p->got.status = rcode == DNS_RCODE_NXDOMAIN ? DNS_NXDOMAIN : DNS_TEMPORARY;
    if (limited)
        snprintf(a->text, sizeof a->text, "too many questions at once");
    else if (rcode >= 0 && rcode < (int)(sizeof words / sizeof words[0]))
        snprintf(a->text, sizeof a->text, "the name server said %s", words[rcode]);
    else
        snprintf(a->text, sizeof a->text, "the name server said code %d", rcode);
}

static void part_read(struct dns_part *p, const uint8_t *packet, size_t len)
{
    struct dns_answer *a = &p->lookup->answer;

    if (!dns_packet_read(packet, len, p->type, a) || a->status == DNS_TEMPORARY) {
        part_failed(p, len > 3 ? packet[3] & 0xf : 0, false);
    } else {
        p->got.status = a->status;
        p->got.ttl_s = a->ttl_s;
        p->got.addr_count = a->addr_count;
        memcpy(p->got.addr, a->addr, a->addr_count * sizeof a->addr[0]);
    }
    a->addr_count = 0;
}

/* libunbound's callback: from a poll or timer of its own, or already inside ub_resolve_event. */
static void part_answered(void *arg, int rcode, void *packet, int len, int sec, char *bogus,
                          int limited)
{
    struct dns_part *p = arg;
    struct dns_lookup *l = p->lookup;
    struct dns_answer *a = &l->answer;

    assert(p->asked && !p->answered);
    p->answered = true;
    if (sec == DNS_SEC_BOGUS) {
        p->got.status = DNS_BOGUS;
        snprintf(a->text, sizeof a->text, "%s", bogus ? bogus : "");
        for (char *c = a->text; *c; c++)
            *c = *c < ' ' || *c > '~' ? '?' : *c;
    } else if (rcode || !packet || len <= 0) {
        part_failed(p, rcode, limited);
    } else {
        p->got.secure = sec == DNS_SECURE;
        part_read(p, packet, (size_t)len);
    }
    if (l->query && lookup_is_complete(l))
        io_timer_set(l->dns->io, &l->query->timer, io_now_ns(l->dns->io));
    lookup_release(l);
}

/* ---- queries ---- */

static void answer_without_lookup(struct dns_answer *a, uint32_t reason)
{
    a->status = reason == QUERY_BAD_NAME ? DNS_NXDOMAIN : DNS_TEMPORARY;
    snprintf(a->text, sizeof a->text, "%s",
             reason == QUERY_BAD_NAME ? "no name that the DNS can hold"
                                      : "too many lookups are under way");
}

/* The answer is there, or the time is over. */
static void query_fire(struct timer *t)
{
    struct dns_query *q = CONTAINER(struct dns_query, timer, t);
    struct dns_lookup *l = q->lookup;
    struct dns *d = q->dns;
    uint32_t reason = q->waiting;

    q->waiting = QUERY_IDLE;
    q->lookup = NULL;
    list_remove(&q->link);
    d->delivering++;
    if (l) {
        /* A late part must not write into what the owner is reading. */
        struct dns_answer answer;
        if (!lookup_is_complete(l))
            snprintf(l->answer.text, sizeof l->answer.text, "no answer within %llu ms",
                     (unsigned long long)(d->timeout_ns / NS_PER_MS));
        lookup_conclude(l);
        answer = l->answer;
        l->query = NULL;
        lookup_release(l);
        q->done(q, &answer);
    } else {
        struct dns_answer answer = {0};
        if (reason == QUERY_LITERAL) {
            answer.addr[answer.addr_count++] = q->literal;
            answer.status = DNS_OK;
        } else {
            answer_without_lookup(&answer, reason);
        }
        q->done(q, &answer);
    }
    d->delivering--;
    if (d->destroyed && !d->delivering)
        dns_free(d);
}

static void lookup_ask(struct dns_lookup *l, const char *name)
{
    struct dns *d = l->dns;

    for (uint32_t i = 0; i < l->part_count; i++) {
        struct dns_part *p = &l->parts[i];
        p->asked = true;
        int rc = ub_resolve_event(d->context, name, p->type, DNS_CLASS_IN, p, part_answered, NULL);
        if (rc && !p->answered)
            part_answered(p, 2, NULL, 0, 0, NULL, 0);
    }
}

/* Answers from the next turn on, without asking anybody. */
static void query_answer_soon(struct dns_query *q, uint32_t reason)
{
    q->waiting = reason;
    io_timer_set(q->dns->io, &q->timer, io_now_ns(q->dns->io));
}

static void query_start(struct dns *d, struct dns_query *q, const char *name, bool mx)
{
    char text[DOMAIN_TEXT_MAX];

    assert(q->waiting == QUERY_IDLE && q->done);
    q->dns = d;
    q->lookup = NULL;
    q->answer = NULL;
    q->timer.fire = query_fire;
    list_push_back(&d->queries, &q->link);
    if (!mx && io_addr_parse(&q->literal, slice_str(name), 0)) {
        query_answer_soon(q, QUERY_LITERAL);
        return;
    }
    /* libunbound keeps memory for each name that it cannot read. */
    if (!domain_to_ascii(slice_str(name), text, NULL) || domain_is_literal(slice_str(text))) {
        query_answer_soon(q, QUERY_BAD_NAME);
        return;
    }
    struct dns_lookup *l = slab_alloc(&d->slab);
    if (!l) {
        query_answer_soon(q, QUERY_BUSY);
        return;
    }
    memset(l, 0, offsetof(struct dns_lookup, answer));
    memset(&l->answer, 0, offsetof(struct dns_answer, mx));
    l->dns = d;
    l->query = q;
    l->part_count = mx ? 1 : 2;
    l->parts[0] = (struct dns_part){.lookup = l, .type = mx ? DNS_TYPE_MX : DNS_TYPE_AAAA};
    l->parts[1] = (struct dns_part){.lookup = l, .type = DNS_TYPE_A};
    q->waiting = QUERY_WAITING;
    q->lookup = l;
    io_timer_set(d->io, &q->timer, io_now_ns(d->io) + d->timeout_ns);
    lookup_ask(l, text);
}

void dns_mx(struct dns *d, struct dns_query *q, const char *domain)
{
    query_start(d, q, domain, true);
}

void dns_addr(struct dns *d, struct dns_query *q, const char *host)
{
    query_start(d, q, host, false);
}

void dns_cancel(struct dns_query *q)
{
    struct dns_lookup *l = q->lookup;

    if (q->waiting == QUERY_IDLE)
        return;
    q->waiting = QUERY_IDLE;
    q->lookup = NULL;
    list_remove(&q->link);
    io_timer_clear(q->dns->io, &q->timer);
    if (!l)
        return;
    l->query = NULL;
    lookup_release(l);
}
