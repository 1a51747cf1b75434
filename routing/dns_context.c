/*
 * routing/dns_context.c - libunbound's resolver, made as the configuration says: servers, DNSSEC's
 * anchors, options.
 *
 * Owns:     whose turn it is to make or delete one; the context is the caller's.
 * Runs on:  the shard that asks; those of different shards take turns.
 * Contract: files (resolv.conf, hosts, trust anchors) are read here alone: what libunbound would
 *           put off until the first question is done when the context is made.
 * Failure:  which step failed, in libunbound's words.
 * Bounds:   DNS_SOCKETS_MAX, caches of 12 MiB.
 * Tests:    tests/unit/test_dns.c
 */
#include "routing/dns_context.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unbound.h>
#include <unistd.h>

#include "routing/dns_event.h"
#include "routing/dns_packet.h"

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

/* Every step up to the first that fails, which *step names. */
static int context_start(struct ub_ctx *c, const struct dns_params *p, const char **step)
{
    int rc;

    *step = "configure the resolver";
    ub_ctx_debugout(c, NULL); /* answers carry the reasons; nothing goes to stderr */
    rc = context_set_options(c, p->dnssec);
    if (rc == 0) {
        *step = "use the DNS servers";
        rc = context_set_servers(c, p);
    }
    if (rc == 0 && p->dnssec) {
        *step = "read the DNSSEC trust anchor";
        rc = context_add_anchors(c);
    }
    /* "test." is answered by whom the operator names; libunbound would deny it by itself. */
    if (rc == 0) {
        *step = "start the resolver";
        rc = ub_ctx_zone_remove(c, "test.");
    }
    /* What is put off until the first question happens now: it knows localhost by itself. */
    if (rc == 0)
        rc = ub_resolve_event(c, "localhost", DNS_TYPE_A, DNS_CLASS_IN, NULL, ignore_answer, NULL);
    return rc;
}

struct ub_ctx *dns_context_create(struct ub_event_base *base, const struct dns_params *p,
                                  struct why *why)
{
    const char *step = "create a resolver";

    library_enter();
    struct ub_ctx *c = ub_ctx_create_ub_event(base);
    int rc = c ? context_start(c, p, &step) : UB_NOMEM;
    if (rc) {
        why_set(why, 0, "", "dns: cannot %s: %s", step, ub_strerror(rc));
        ub_ctx_delete(c);
        c = NULL;
    }
    library_leave();
    return c;
}

void dns_context_destroy(struct ub_ctx *c)
{
    library_enter();
    ub_ctx_delete(c);
    library_leave();
}
