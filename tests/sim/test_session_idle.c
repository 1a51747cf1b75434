/*
 * Clients that say nothing, or say it too slowly, by the clock of the simulator: how long a session
 * waits for them where nothing is configured (F47; RFC 5321 section 4.5.3.2.7). With sockets, and
 * idle_timeout: tests/system/test_timeouts.py.
 */
#include <criterion/criterion.h>

#include "gateway/limits.h"
#include "tests/sim/world.h"

#define GUESTS 5u

struct guest {
    struct peer peer;
    uint32_t steps;    /* of the script */
    const char *given; /* every so often, behind it */
    uint64_t every_ns;
    uint32_t said;
    uint64_t since_ns, ended_ns; /* the script was over; the connection was */
    char last[128];              /* the reply of that moment */
};

static const char *const script[] = {"EHLO client.test\r\n", "MAIL FROM:<a@sender.test>\r\n",
                                     "RCPT TO:<b@d0.test>\r\n", "DATA\r\n"};

static void guest_replied(struct guest *g, const char *line, uint32_t len)
{
    snprintf(g->last, sizeof g->last, "%.*s", (int)len, line);
    if (g->said < g->steps) {
        peer_sendf(&g->peer, "%s", script[g->said++]);
    } else if (!g->since_ns) {
        g->since_ns = io_now_ns(g->peer.machine->io);
        if (g->given)
            io_timer_set(g->peer.machine->io, &g->peer.timer, g->since_ns + g->every_ns);
    }
}

static void guest_input(struct peer *p)
{
    struct guest *g = container_of(p, struct guest, peer);
    uint8_t *end;
    while ((end = memmem(p->in, p->in_len, "\r\n", 2))) {
        uint32_t len = (uint32_t)(end - p->in);
        if (len > 3 && p->in[3] != '-')
            guest_replied(g, (const char *)p->in, len);
        peer_consume(p, len + 2);
    }
}

static void guest_gives(struct timer *t)
{
    struct guest *g = container_of(t, struct guest, peer.timer);
    struct io *io = g->peer.machine->io;
    peer_sendf(&g->peer, "%s", g->given);
    io_timer_set(io, t, io_now_ns(io) + g->every_ns);
}

static void guest_open(struct peer *p, int32_t res)
{
    (void)p;
    cr_assert_geq(res, 0);
}

static void guest_end(struct peer *p, int32_t res)
{
    struct guest *g = container_of(p, struct guest, peer);
    (void)res;
    g->ended_ns = io_now_ns(p->machine->io);
    peer_drop(p);
}

static void guest_freed(struct peer *p)
{
    (void)p;
}

/* A world without disasters and with one shard; as long as its process. */
static struct world *calm_world(void)
{
    static struct world w;
    w.swarm = (struct swarm){.shards = 1,
                             .hosts = 1,
                             .segment_bytes = SEGMENT_BYTES_MIN,
                             .buffered = true,
                             .max_connections = 4,
                             .messages_per_connection = 10,
                             .rcpts_per_message = 10,
                             .max_recipients = 10,
                             .message_size_max = MIB,
                             .expire_s = 600,
                             .warn_after_s = 300};
    w.sim = sim_create(1);
    w.calm = true;
    list_init(&w.client_list);
    list_init(&w.hop_list);
    dns_sim_world(&w);
    w.gateway.w = &w;
    w.gateway.host = sim_host_add(w.sim, "gateway", "10.0.0.1");
    machine_start(&w, &w.client_machine, "clients", "10.0.1.1");
    sim_host_disk_put(w.gateway.host, "/spool/README", "", 0);
    cr_assert(gateway_start(&w, 1), "%s", w.why);
    return &w;
}

static void step(struct world *w)
{
    cr_assert(sim_step(w->sim), "nothing will ever happen any more");
    gateway_look(w);
    cr_assert_not(w->failed, "%s", w->why);
}

static void guest_start(struct world *w, struct guest *g)
{
    struct io_addr door;
    cr_assert(io_addr_parse(&door, slice_str("10.0.0.1"), 25));
    sim_host_enter(w->client_machine.host);
    peer_init(&g->peer, &w->client_machine);
    g->peer.on_open = guest_open;
    g->peer.on_input = guest_input;
    g->peer.on_end = guest_end;
    g->peer.on_freed = guest_freed;
    g->peer.timer.fire = guest_gives;
    peer_connect(&g->peer, &door);
}

Test(session_idle, f47_what_is_waited_for_without_a_configuration, .timeout = 60)
{
    /* 10 bytes short of what is asked for each second, 10 more. */
    static char slow[SESSION_DATA_RATE_MIN], good[SESSION_DATA_RATE_MIN + 20];
    memset(slow, 'x', SESSION_DATA_RATE_MIN - 12);
    memcpy(slow + SESSION_DATA_RATE_MIN - 12, "\r\n", 3);
    memset(good, 'x', SESSION_DATA_RATE_MIN + 8);
    memcpy(good + SESSION_DATA_RATE_MIN + 8, "\r\n", 3);
    const struct row {
        const char *name;
        uint32_t steps;
        const char *given;
        uint64_t every_ns, least_ns, most_ns; /* most_ns 0: stays */
        const char *words;
    } rows[GUESTS] = {
        {"silence", 1, NULL, 0, SESSION_IDLE_NS, SESSION_IDLE_NS, "421 4.4.2 Timeout"},
        {"a command that never ends", 1, "N", 5 * NS_PER_S, SESSION_IDLE_NS, SESSION_IDLE_NS,
         "421 4.4.2 Timeout"},
        /* A window begins with the text, and is looked at once in a window. */
        {"silence in the text", 4, NULL, 0, SESSION_DATA_RATE_WINDOW_NS,
         2 * SESSION_DATA_RATE_WINDOW_NS, "421 4.4.2 Data comes too slowly"},
        {"slow text", 4, slow, NS_PER_S, SESSION_DATA_RATE_WINDOW_NS,
         2 * SESSION_DATA_RATE_WINDOW_NS, "421 4.4.2 Data comes too slowly"},
        {"text that is just quick enough", 4, good, NS_PER_S, 0, 0, "354 "},
    };
    static struct guest guests[GUESTS];
    struct world *w = calm_world();
    cr_assert_eq(SESSION_IDLE_NS, 300 * NS_PER_S, "five minutes");
    while (!gateway_up(w))
        step(w);
    for (uint32_t i = 0; i < GUESTS; i++) {
        guests[i].steps = rows[i].steps;
        guests[i].given = rows[i].given;
        guests[i].every_ns = rows[i].every_ns;
        guest_start(w, &guests[i]);
    }
    uint64_t end_ns = sim_now_ns(w->sim) + 2 * SESSION_IDLE_NS;
    while (sim_now_ns(w->sim) < end_ns)
        step(w);
    for (uint32_t i = 0; i < GUESTS; i++) {
        const struct guest *g = &guests[i];
        cr_assert(g->since_ns, "%s: %s", rows[i].name, g->last);
        cr_expect_eq(strncmp(g->last, rows[i].words, strlen(rows[i].words)), 0, "%s: %s",
                     rows[i].name, g->last);
        if (!rows[i].most_ns) {
            cr_expect_eq(g->ended_ns, 0, "%s", rows[i].name);
            continue;
        }
        uint64_t took_ns = g->ended_ns - g->since_ns;
        cr_expect(took_ns + NS_PER_S >= rows[i].least_ns && took_ns <= rows[i].most_ns + NS_PER_S,
                  "%s: %llu ms", rows[i].name, (unsigned long long)(took_ns / NS_PER_MS));
    }
}

/* ---- after QUIT ---- */

/* Sees the end, and keeps its side open. */
static void guest_stays(struct peer *p, int32_t res)
{
    struct guest *g = container_of(p, struct guest, peer);
    (void)res;
    g->ended_ns = io_now_ns(p->machine->io);
}

static void guest_says_bye(struct peer *p)
{
    struct guest *g = container_of(p, struct guest, peer);
    if (memmem(p->in, p->in_len, "220 ", 4))
        peer_sendf(p, "%s", g->given);
    if (memmem(p->in, p->in_len, "221 ", 4))
        g->since_ns = io_now_ns(p->machine->io);
    peer_consume(p, p->in_len);
}

/* Virtual time from the last reply until the gateway has nothing of the session any more. */
static uint64_t kept_after_quit(const char *words)
{
    static struct guest g;
    struct world *w = calm_world();
    memset(&g, 0, sizeof g);
    while (!gateway_up(w))
        step(w);
    g.given = words;
    guest_start(w, &g);
    g.peer.on_input = guest_says_bye;
    g.peer.on_end = guest_stays;
    while (!g.since_ns || w->gateway.shards[0]->session_count)
        step(w);
    return sim_now_ns(w->sim) - g.since_ns;
}

Test(session_idle, nothing_is_kept_after_quit, .timeout = 60)
{
    uint64_t took_ns = kept_after_quit("QUIT\r\n");
    cr_assert_lt(took_ns, NS_PER_S / 2, "%llu ms", (unsigned long long)(took_ns / NS_PER_MS));
}

Test(session_idle, words_behind_quit_do_not_cost_the_reply, .timeout = 60)
{
    uint64_t took_ns = kept_after_quit("QUIT\r\nNOOP\r\n");
    cr_assert_geq(took_ns, SESSION_LINGER_NS - NS_PER_S / 10, "%llu ms",
                  (unsigned long long)(took_ns / NS_PER_MS));
}
