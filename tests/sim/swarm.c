/*
 * tests/sim/swarm.c - what each seed is about: most things are off in most seeds, so that what is
 * on happens often enough to meet.
 *
 * Owns:     nothing.
 * Runs on:  the one thread of a simulation.
 * Contract: the same seed draws the same options.
 * Failure:  none.
 * Bounds:   a seed costs some ten milliseconds.
 * Tests:    none of its own
 */
#include "gateway/limits.h"
#include "tests/sim/world.h"

/* Off in half of the seeds, else up to `max`, small values more often. */
static uint16_t some(struct prng *p, uint32_t max)
{
    if (prng_below(p, 2))
        return 0;
    return (uint16_t)(1 + prng_below(p, 1 + prng_below(p, max)));
}

static uint16_t rare(struct prng *p, uint32_t max)
{
    return prng_below(p, 3) ? 0 : some(p, max);
}

static uint32_t one_of(struct prng *p, const uint32_t *from, uint32_t count)
{
    return from[prng_below(p, count)];
}

static void draw_disk(struct sim_faults *f, struct prng *p)
{
    f->read_short = some(p, 200);
    f->read_eio = rare(p, 20);
    f->write_short = rare(p, 30);
    f->write_eio = rare(p, 40);
    f->write_enospc = rare(p, 40);
    f->sync_eio = rare(p, 60);
    f->allocate_enospc = rare(p, 100);
    f->allocate_eio = rare(p, 50);
    f->open_error = rare(p, 20);
    f->unlink_error = rare(p, 100);
    f->rename_error = rare(p, 100);
    f->size_error = rare(p, 20);
    f->call_error = rare(p, 20);
    f->stall = rare(p, 20);
    f->stall_ns = (1 + prng_below(p, 3000)) * NS_PER_MS;
    if (prng_below(p, 4) == 0) {
        f->disk_min_ns = prng_below(p, 2 * NS_PER_MS);
        f->disk_max_ns = f->disk_min_ns + prng_below(p, 30 * NS_PER_MS);
    }
}

static void draw_net(struct sim_faults *f, struct prng *p)
{
    f->send_split = some(p, 500);
    f->recv_short = some(p, 500);
    f->recv_again = some(p, 100);
    f->buf_none = rare(p, 50);
    f->reset = rare(p, 15);
    f->vanish = rare(p, 5);
    f->connect_refused = rare(p, 200);
    f->connect_timeout = rare(p, 50);
    f->connect_error = rare(p, 50);
    f->accept_error = rare(p, 50);
    f->fd_none = rare(p, 50);
    f->reorder = some(p, 500);
    f->turn_part = some(p, 300);
    f->cancel_late = some(p, 300);
    f->post_full = rare(p, 50);
    if (prng_below(p, 4) == 0) {
        f->net_min_ns = prng_below(p, 50 * NS_PER_MS);
        f->net_max_ns = f->net_min_ns + prng_below(p, 200 * NS_PER_MS);
    }
    if (prng_below(p, 4) == 0)
        f->window_max = 512 + (uint32_t)prng_below(p, 8000);
}

static void draw_client(struct swarm *s, struct prng *p)
{
    static const uint32_t rcpts[] = {1, 1, 2, 3, 5, 12};
    s->client.messages_max = 1 + (uint32_t)prng_below(p, 5);
    s->client.rcpts_max = one_of(p, rcpts, 6);
    s->client.size_class = (uint32_t)prng_below(p, 4);
    s->client.pipelining = (uint16_t)prng_below(p, 1001);
    s->client.size_param = (uint16_t)prng_below(p, 1001);
    s->client.notify = some(p, 600);
    s->client.null_sender = some(p, 300);
    s->client.abort = some(p, 400);
    s->client.slow = some(p, 300);
    s->client.smuggle = some(p, 150);
    s->client.extra = some(p, 400);
    s->client.rset = some(p, 150);
    s->client.too_many = rare(p, 100);
    s->client.oversize = rare(p, 100);
    s->client.helo = rare(p, 500);
    s->client.no_quit = some(p, 500);
    s->client.doomed = some(p, 200);
}

static void draw_hop(struct swarm *s, struct prng *p)
{
    s->hop.no_pipelining = some(p, 1000);
    s->hop.no_dsn = some(p, 1000);
    s->hop.no_size = rare(p, 500);
    s->hop.r4xx = some(p, 200);
    s->hop.r5xx = some(p, 80);
    s->hop.r421 = some(p, 50);
    s->hop.close = some(p, 60);
    s->hop.vanish = some(p, 200);
    s->hop.late = some(p, 200);
    s->hop.split = some(p, 300);
    s->hop.junk = rare(p, 200);
    s->hop.multi = some(p, 300);
    s->hop.early = rare(p, 400);
    s->dns.servfail = some(p, 200);
    s->dns.silent = rare(p, 200);
    s->dns.nxdomain = rare(p, 50);
    s->dns.bogus = rare(p, 100);
    s->dns.null_mx = rare(p, 50);
}

/* Much at once for a slow disk: sessions wait for room, and receiving pauses. */
static void draw_crowd(struct swarm *s)
{
    s->sessions = 40;
    s->chaos_ns = 2 * NS_PER_S;
    s->message_size_max = 150000;
    s->client.size_class = 3;
    s->disk_and_net.disk_min_ns = 20 * NS_PER_MS;
    s->disk_and_net.disk_max_ns = 200 * NS_PER_MS;
    s->disk_and_net.recv_short = 600;
}

void swarm_draw(struct swarm *s, struct prng *p)
{
    static const uint32_t shards[] = {1, 1, 2, 2, 3, 4};
    static const uint32_t sizes[] = {4000, 40000, 70000, 150000};
    *s = (struct swarm){0};
    s->shards = one_of(p, shards, 6);
    s->hosts = 1 + (uint32_t)prng_below(p, WORLD_HOSTS_MAX);
    s->sessions = 3 + (uint32_t)prng_below(p, 25);
    s->chaos_ns = (2 + prng_below(p, 40)) * NS_PER_S;
    s->segment_bytes = SEGMENT_BYTES_MIN << prng_below(p, 3);
    s->buffered = prng_below(p, 3) == 0;
    s->max_connections = 1 + (uint32_t)prng_below(p, 5);
    s->messages_per_connection = 1 + (uint32_t)prng_below(p, 6);
    s->rcpts_per_message = 1 + (uint32_t)prng_below(p, 8);
    s->max_recipients = 12 + (uint32_t)prng_below(p, 10);
    s->message_size_max = one_of(p, sizes, 4);
    s->disk_bytes = prng_below(p, 4) ? 0 : (4 + prng_below(p, 12)) * MIB;
    s->expire_s = 20 + (uint32_t)prng_below(p, 200);
    s->warn_after_s = prng_below(p, 2) ? 1 + (uint32_t)prng_below(p, s->expire_s - 2) : 0;
    draw_client(s, p);
    draw_hop(s, p);
    s->kills = some(p, 3);
    s->cuts = some(p, 3);
    s->stops = rare(p, 2);
    s->reloads = some(p, 3);
    s->jumps = rare(p, 3);
    s->outages = rare(p, 3);
    s->operations = some(p, 8);
    s->single_faults = some(p, 8);
    if (prng_below(p, 6) == 0) {
        s->bulk = true;
        s->sessions = 30 + (uint32_t)prng_below(p, 30);
        s->segment_bytes = SEGMENT_BYTES_MIN;
        s->shards = 1 + (uint32_t)prng_below(p, 2);
        s->operations = 5 + (uint32_t)prng_below(p, 10);
        s->client.rcpts_max = 2;
    }
    if (prng_below(p, 2))
        draw_disk(&s->disk_and_net, p);
    if (prng_below(p, 2))
        draw_net(&s->disk_and_net, p);
    if (prng_below(p, 2))
        draw_net(&s->peers, p);
    s->peers.post_full = 0;
    /* What is drawn last leaves the rest of a seed as it was. */
    s->no_direct = prng_below(p, 16) == 0;
    s->in_place = prng_below(p, 16) < 4;
    s->junk = prng_below(p, 16) == 0;
    if (prng_below(p, 32) == 0)
        draw_crowd(s);
    s->client.auth = prng_below(p, 16) ? 0 : 700;
}

void swarm_print(const struct swarm *s, FILE *out)
{
    fprintf(out,
            "shards %u, hosts %u, sessions %u, chaos %llu s, segments %llu KiB, disk %llu MiB, %s; "
            "connections %u, messages a connection %u, recipients a message %u; expire %u s\n"
            "kills %u, cuts %u, stops %u, reloads %u, jumps %u, outages %u, orders %u\n",
            s->shards, s->hosts, s->sessions, (unsigned long long)(s->chaos_ns / NS_PER_S),
            (unsigned long long)(s->segment_bytes / KIB), (unsigned long long)(s->disk_bytes / MIB),
            s->buffered ? "buffered" : "direct", s->max_connections, s->messages_per_connection,
            s->rcpts_per_message, s->expire_s, s->kills, s->cuts, s->stops, s->reloads, s->jumps,
            s->outages, s->operations);
}
