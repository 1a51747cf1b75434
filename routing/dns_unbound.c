/*
 * routing/dns_unbound.c - dns.h over libunbound's event API (unbound-event.h).
 *
 * That API runs libunbound's resolver on the shard's own loop (routing/dns_event.c): no thread, no
 * process, no pipe, and every socket non-blocking. Debian's library has it. Files (resolv.conf,
 * hosts, trust anchors) are read in dns_create alone.
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
#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unbound.h>
#include <unistd.h>

#include "gateway/base/slab.h"
#include "routing/dns_event.h"
#include "routing/dns_packet.h"
#include "routing/domain.h"

#define DNS_CLASS_IN                 1
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

/* ---- making a context ---- */

/*
 * libunbound sets up process-wide state (log, random numbers, locks) in a way that is not safe when
 * contexts are made or deleted by several threads at once. Start and stop alone ever wait here.
 */
static atomic_flag library_in_use = ATOMIC_FLAG_INIT; /* tidy: global, see above */

static void library_enter(void)
{
    while (atomic_flag_test_and_set_explicit(&library_in_use, memory_order_acquire))
        sched_yield();
}

static void library_leave(void)
{
    atomic_flag_clear_explicit(&library_in_use, memory_order_release);
}

/* Where distributions keep the root's trust anchor; they update it. */
static const char *const anchor_files[] = {"/usr/share/dns/root.key", "/var/lib/unbound/root.key",
                                           "/etc/unbound/root.key"};
/* Without such a file: the root's keys of 2017 and 2024 (data.iana.org/root-anchors). */
static const char *const anchors[] = {
    ". IN DS 20326 8 2 E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D",
    ". IN DS 38696 8 2 683D2D0ACB8C9B712A1948B27F741219298D0A450D612C483AF444A4C0FB2B16",
};

static int context_add_anchors(struct ub_ctx *c)
{
    int rc = 0;

    for (size_t i = 0; i < sizeof anchor_files / sizeof anchor_files[0]; i++)
        if (access(anchor_files[i], R_OK) == 0)
            return ub_ctx_add_ta_file(c, anchor_files[i]);
    for (size_t i = 0; i < sizeof anchors / sizeof anchors[0] && rc == 0; i++)
        rc = ub_ctx_add_ta(c, anchors[i]);
    return rc;
}

static int context_set_options(struct ub_ctx *c, bool dnssec)
{
    static const char *const options[][2] = {
        {"outgoing-num-tcp:", "16"},    {"msg-cache-size:", "4m"}, {"rrset-cache-size:", "8m"},
        {"unblock-lan-zones:", "yes"}, /* names of a private network are the operator's affair */
        {"insecure-lan-zones:", "yes"},
    };
    char sockets[16];
    int rc = ub_ctx_set_option(c, "module-config:", dnssec ? "validator iterator" : "iterator");

    snprintf(sockets, sizeof sockets, "%u", DNS_SOCKETS_MAX);
    if (rc == 0)
        rc = ub_ctx_set_option(c, "outgoing-range:", sockets);
    for (size_t i = 0; i < sizeof options / sizeof options[0] && rc == 0; i++)
        rc = ub_ctx_set_option(c, options[i][0], options[i][1]);
    return rc;
}

/*
 * Forwarders as given; or those of resolv.conf, and what hosts says. Without any: from the root on.
 */
static int context_set_servers(struct ub_ctx *c, const struct dns_params *p)
{
    char text[IO_ADDR_TEXT_MAX + 8], address[IO_ADDR_TEXT_MAX];
    int rc = 0;

    if (p->server_count == 0) {
        rc = ub_ctx_resolvconf(c, NULL);
        if (rc == 0 || rc == UB_READFILE)
            rc = ub_ctx_hosts(c, NULL);
        return rc == UB_READFILE ? 0 : rc;
    }
    for (uint32_t i = 0; i < p->server_count && rc == 0; i++) {
        uint16_t port = io_addr_port(&p->servers[i]);
        snprintf(text, sizeof text, "%s@%u", io_addr_text(&p->servers[i], false, address),
                 port ? port : 53u);
        rc = ub_ctx_set_fwd(c, text);
    }
    return rc;
}

/* NOLINTNEXTLINE(readability-non-const-parameter): the type is libunbound's */
static void ignore_answer(void *arg, int rcode, void *packet, int len, int sec, char *bogus,
                          int limited)
{
    (void)arg, (void)rcode, (void)packet, (void)len, (void)sec, (void)bogus, (void)limited;
}

static bool context_create(struct dns *d, const struct dns_params *p, struct why *why)
{
    const char *step = "create a resolver";
    int rc = UB_NOMEM;

    d->context = ub_ctx_create_ub_event(dns_loop_base(d->loop));
    if (d->context) {
        step = "configure the resolver";
        ub_ctx_debugout(d->context, NULL); /* answers carry the reasons; nothing goes to stderr */
        rc = context_set_options(d->context, p->dnssec);
    }
    if (rc == 0) {
        step = "use the DNS servers";
        rc = context_set_servers(d->context, p);
    }
    if (rc == 0 && p->dnssec) {
        step = "read the DNSSEC trust anchor";
        rc = context_add_anchors(d->context);
    }
    /* "test." is answered by whom the operator names; libunbound would deny it by itself. */
    if (rc == 0) {
        step = "start the resolver";
        rc = ub_ctx_zone_remove(d->context, "test.");
    }
    /*
     * What libunbound puts off until the first question happens now: it knows localhost by itself.
     */
    if (rc == 0)
        rc = ub_resolve_event(d->context, "localhost", DNS_TYPE_A, DNS_CLASS_IN, NULL,
                              ignore_answer, NULL);
    if (rc)
        why_set(why, 0, "", "dns: cannot %s: %s", step, ub_strerror(rc));
    return rc == 0;
}

static void dns_free(struct dns *d)
{
    library_enter();
    ub_ctx_delete(d->context);
    library_leave();
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
    library_enter();
    bool ok = context_create(d, p, why);
    library_leave();
    if (ok)
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
