/*
 * gateway/ctl/doctor_out.c - the way out: the resolver, smart hosts, the names of our addresses.
 *
 * Owns:     nothing.
 * Runs on:  hikyakuctl's only thread.
 * Contract: no mail and no password leaves; smart hosts are spoken to as far as TLS, as their
 *           connector demands.
 * Failure:  what cannot be looked at is a finding.
 * Bounds:   STEP_NS a step, HOSTS_NS for all smart hosts, but for the one under way;
 *           ADDRESSES_MAX.
 * Tests:    tests/system/test_doctor.py
 */
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gateway/ctl/doctor_internal.h"
#include "gateway/ctl/probe_internal.h"
#include "routing/mx.h"

#define STEP_NS       (3 * NS_PER_S)
#define HOSTS_NS      (20 * NS_PER_S)
#define ADDRESSES_MAX 64u

/* ---- smart hosts ---- */

static void look_smart_hosts(struct doctor *d, struct probe_world *w)
{
    const struct config *conf = probe_world_config(w);
    uint64_t end = probe_now_ns() + HOSTS_NS;
    uint32_t left_out = 0;
    char text[WHY_TEXT_MAX], what[sizeof text + 512];
    for (uint32_t i = 0; i < conf->send_count; i++) {
        const struct config_send_connector *send = &conf->send[i];
        for (uint32_t k = 0; send->enabled && !send->mx && k < send->smart_host_count; k++) {
            if (probe_now_ns() > end) {
                left_out++;
                continue;
            }
            bool ok = probe_smart_host(w, send, k, STEP_NS, text, sizeof text);
            snprintf(what, sizeof what, "%s, %s:%u: %s", send->name, send->smart_hosts[k].host,
                     send->smart_hosts[k].port, text);
            doctor_say(d, "smart hosts", what,
                       ok ? NULL : "`hikyakuctl probe` with its connector shows each step");
        }
    }
    if (!left_out)
        return;
    snprintf(what, sizeof what, "%u more were not tried: that took too long", left_out);
    doctor_say(d, "smart hosts", what, "try them by their connectors with `hikyakuctl probe`");
}

/* ---- our addresses ---- */

/* Where a packet to somewhere far would come from; nothing is sent. */
static bool address_of_route(int family, struct io_addr *out)
{
    struct io_addr far = {0};
    socklen_t len = sizeof out->in6;
    *out = far;
    if (!io_addr_parse(&far, slice_str(family == AF_INET ? "192.0.2.1" : "2001:db8::1"), 25))
        return false;
    int fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool ok = fd >= 0 && connect(fd, &far.sa, far.len) == 0 && getsockname(fd, &out->sa, &len) == 0;
    out->len = len;
    if (fd >= 0)
        close(fd);
    return ok;
}

static bool same_host(const struct io_addr *a, const struct sockaddr *b)
{
    if (a->sa.sa_family != b->sa_family)
        return false;
    return a->sa.sa_family == AF_INET
               ? memcmp(&a->in.sin_addr, &((const struct sockaddr_in *)(const void *)b)->sin_addr,
                        sizeof a->in.sin_addr) == 0
               : memcmp(&a->in6.sin6_addr,
                        &((const struct sockaddr_in6 *)(const void *)b)->sin6_addr,
                        sizeof a->in6.sin6_addr) == 0;
}

static bool leads_back(const char *name, const struct io_addr *addr)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *list = NULL;
    bool same = false;
    if (getaddrinfo(name, NULL, &hints, &list) != 0)
        return false;
    for (const struct addrinfo *a = list; a && !same; a = a->ai_next)
        same = same_host(addr, a->ai_addr);
    freeaddrinfo(list);
    return same;
}

static void look_address(struct doctor *d, const struct io_addr *addr, const char *hostname)
{
    char at[IO_ADDR_TEXT_MAX], name[NI_MAXHOST], what[NI_MAXHOST + 256];
    const char *advice = NULL;
    io_addr_text(addr, false, at);
    if (!mx_addr_is_public(addr)) {
        snprintf(
            what, sizeof what,
            "mail leaves from %s, which is private: look at the PTR record of the address that "
            "others see",
            at);
    } else if (getnameinfo(&addr->sa, addr->len, name, sizeof name, NULL, 0, NI_NAMEREQD) != 0) {
        snprintf(what, sizeof what, "mail leaves from %s, which has no name", at);
        advice = "give the address a PTR record with the hostname: many hosts refuse mail else";
    } else {
        bool back = leads_back(name, addr);
        snprintf(what, sizeof what, "mail leaves from %s, which is called %s%s", at, name,
                 back ? "" : ", a name that does not lead back");
        if (!back)
            advice = "give the name an A or AAAA record with the address";
        else if (strcasecmp(name, hostname) != 0)
            advice = "we greet with another name: let the PTR record and `hostname` agree";
    }
    doctor_say(d, "reverse dns", what, advice);
}

static uint32_t add_address(struct io_addr *list, uint32_t count, const struct io_addr *addr)
{
    for (uint32_t i = 0; i < count; i++)
        if (same_host(&list[i], &addr->sa))
            return count;
    if (count < ADDRESSES_MAX)
        list[count++] = *addr;
    return count;
}

/* Who delivers to everybody is looked up by everybody; a smart host knows us otherwise. */
static void look_addresses(struct doctor *d, const struct config *conf)
{
    static const int families[] = {AF_INET, AF_INET6};
    struct io_addr list[ADDRESSES_MAX], addr;
    uint32_t count = 0;
    for (uint32_t i = 0; i < conf->send_count; i++) {
        const struct config_send_connector *send = &conf->send[i];
        if (!send->enabled)
            continue;
        for (uint32_t k = 0; k < send->source_address_count; k++)
            count = add_address(list, count, &send->source_addresses[k]);
        for (size_t f = 0; send->mx && !send->source_address_count && f < 2; f++)
            if (address_of_route(families[f], &addr))
                count = add_address(list, count, &addr);
    }
    for (uint32_t i = 0; i < count; i++)
        look_address(d, &list[i], conf->hostname);
}

void doctor_look_out(struct doctor *d, const struct client *c)
{
    struct why why;
    char text[512];
    struct probe_world *w = probe_world_open(c, NULL, &why);
    if (!w) {
        doctor_say(d, "smart hosts", why.text,
                   "run this as the gateway's user or as root to have the way out tried");
        return;
    }
    bool ok = probe_resolver(w, text, sizeof text);
    doctor_say(d, "resolver", text, ok ? NULL : "see dns.servers, or /etc/resolv.conf without it");
    look_smart_hosts(d, w);
    look_addresses(d, probe_world_config(w));
    probe_world_close(w);
}
