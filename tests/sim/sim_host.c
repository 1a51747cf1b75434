/*
 * tests/sim/sim_host.c - simulated machines: their addresses, their process, its end.
 *
 * Owns:     hosts; what of a process is not an io: locks.
 * Runs on:  the one thread of the simulation.
 * Contract: a process ends between turns, never inside one of its own.
 * Failure:  none.
 * Bounds:   ports 32768 to 65535 are given out in turn.
 * Tests:    tests/sim/test_sim_world.c, tests/sim/test_sim_disk.c
 */
#include <errno.h>
#include <stdlib.h>

#include "tests/sim/sim_internal.h"

#define PORT_FIRST 32768u

/* ---- addresses ---- */

bool sim_addr_eq(const struct io_addr *a, const struct io_addr *b, bool with_port)
{
    if (a->sa.sa_family != b->sa.sa_family || (with_port && io_addr_port(a) != io_addr_port(b)))
        return false;
    if (a->sa.sa_family == AF_INET)
        return a->in.sin_addr.s_addr == b->in.sin_addr.s_addr;
    return memcmp(&a->in6.sin6_addr, &b->in6.sin6_addr, sizeof a->in6.sin6_addr) == 0;
}

static bool is_loopback(const struct io_addr *a)
{
    if (a->sa.sa_family == AF_INET)
        return (ntohl(a->in.sin_addr.s_addr) >> 24) == 127;
    return IN6_IS_ADDR_LOOPBACK(&a->in6.sin6_addr);
}

bool sim_host_has(const struct sim_host *h, const struct io_addr *addr)
{
    if (is_loopback(addr))
        return true;
    for (uint32_t i = 0; i < h->addr_count; i++)
        if (sim_addr_eq(&h->addrs[i], addr, false))
            return true;
    return false;
}

struct sim_host *sim_host_of(struct sim *sim, const struct io_addr *addr, struct sim_host *from)
{
    if (is_loopback(addr))
        return from;
    for (struct list *l = sim->hosts.next; l != &sim->hosts; l = l->next) {
        struct sim_host *h = container_of(l, struct sim_host, link);
        if (sim_host_has(h, addr))
            return h;
    }
    return NULL;
}

void sim_host_source(struct sim_host *h, const struct io_addr *to, struct io_addr *out)
{
    bool v4 = to->sa.sa_family == AF_INET;

    for (uint32_t i = 0; i < h->addr_count && !is_loopback(to); i++) {
        *out = h->addrs[i];
        if (out->sa.sa_family == to->sa.sa_family)
            return;
    }
    SIM_CHECK(io_addr_parse(out, v4 ? SLICE_LIT("127.0.0.1") : SLICE_LIT("::1"), 0), "loopback");
}

uint16_t sim_host_port(struct sim_host *h)
{
    if (h->next_port < PORT_FIRST)
        h->next_port = PORT_FIRST;
    return h->next_port++;
}

/* ---- life ---- */

struct sim_host *sim_host_add(struct sim *sim, const char *name, const char *address)
{
    struct sim_host *h = calloc(1, sizeof *h);

    SIM_CHECK(h && (h->name = strdup(name)), "no memory");
    h->sim = sim;
    h->next_port = (uint16_t)(PORT_FIRST + sim_below(&sim->prng, PORT_FIRST));
    h->disk = sim_disk_create(sim);
    list_init(&h->ios);
    list_init(&h->locks);
    list_push_back(&sim->hosts, &h->link);
    sim_host_address(h, address);
    if (!sim->current)
        sim->current = h;
    return h;
}

void sim_host_address(struct sim_host *host, const char *address)
{
    struct io_addr *more = realloc(host->addrs, (host->addr_count + 1) * sizeof *more);

    SIM_CHECK(more, "no memory");
    host->addrs = more;
    SIM_CHECK(io_addr_parse(&more[host->addr_count], slice_str(address), 0), "%s: no address",
              address);
    host->addr_count++;
}

void sim_host_enter(struct sim_host *host)
{
    host->sim->current = host;
}

const char *sim_host_name(const struct sim_host *host)
{
    return host->name;
}

bool sim_host_has_process(const struct sim_host *host)
{
    return !list_empty(&host->ios);
}

void sim_clock_jump(struct sim_host *host, int64_t by_ns)
{
    host->wall_offset_ns += by_ns;
    sim_note(host->sim, host, "jump", 0, by_ns);
}

void sim_host_net(struct sim_host *host, bool up)
{
    host->net_down = !up;
    sim_note(host->sim, host, "net", up, 0);
}

/* ---- its end ---- */

static void process_end(struct sim_host *host, bool silent)
{
    sim_note(host->sim, host, silent ? "power cut" : "killed", 0, 0);
    for (struct list *l = host->ios.next; l != &host->ios; l = l->next)
        SIM_CHECK(!container_of(l, struct io, link)->in_turn,
                  "%s: its process cannot end inside a turn", host->name);
    while (!list_empty(&host->ios))
        sim_io_free(container_of(host->ios.next, struct io, link), silent);
    while (!list_empty(&host->locks)) {
        struct sim_lock *lock = container_of(host->locks.next, struct sim_lock, link);
        list_remove(&lock->link);
        free(lock->path);
        free(lock);
    }
    for (uint32_t i = 0; i < host->disk->inode_count; i++)
        host->disk->inodes[i]->syncing = 0;
    host->stopped = false;
    host->stop_before = 0;
}

void sim_host_kill(struct sim_host *host)
{
    process_end(host, false);
}

/* What was under way on the disk may be there: before the ios are gone, and their calls with them.
 */
static void interrupt_all(struct sim_host *host)
{
    if (host->stopped)
        return; /* just before an effect: that is the point */
    for (struct list *l = host->ios.next; l != &host->ios; l = l->next) {
        struct io *io = container_of(l, struct io, link);
        for (struct list *at = io->calls.next; at != &io->calls; at = at->next) {
            struct sim_call *c = container_of(at, struct sim_call, link);
            if (!c->effect && !c->ended)
                sim_file_interrupted(c);
        }
    }
}

static enum sim_fate fate_by_chance(void *arg, uint32_t thing)
{
    uint64_t r = sim_below(arg, 16);

    (void)thing;
    return r < 7 ? SIM_DROP : r < 14 ? SIM_KEEP : SIM_TEAR;
}

static enum sim_fate fate_drop(void *arg, uint32_t thing)
{
    (void)arg;
    (void)thing;
    return SIM_DROP;
}

static enum sim_fate fate_keep(void *arg, uint32_t thing)
{
    (void)arg;
    (void)thing;
    return SIM_KEEP;
}

void sim_host_power_cut(struct sim_host *host)
{
    struct prng *prng = &host->sim->prng;
    struct sim_cut cut = {.fate = fate_by_chance, .arg = prng, .prng = prng};
    uint64_t mood = sim_below(prng, 8);

    if (mood == 0)
        cut.fate = fate_drop;
    else if (mood == 1)
        cut.fate = fate_keep;
    interrupt_all(host);
    process_end(host, true);
    sim_disk_cut(host->disk, &cut);
}

static enum sim_fate fate_by_mask(void *arg, uint32_t thing)
{
    return *(uint64_t *)arg >> (thing < 63 ? thing : 63) & 1 ? SIM_KEEP : SIM_DROP;
}

void sim_host_power_cut_subset(struct sim_host *host, uint64_t keep)
{
    struct sim_cut cut = {.fate = fate_by_mask, .arg = &keep, .prng = &host->sim->prng};

    process_end(host, true);
    sim_disk_cut(host->disk, &cut);
}

uint32_t sim_host_unsynced_count(const struct sim_host *host)
{
    return sim_disk_unsynced(host->disk);
}

/* ---- crash points ---- */

uint64_t sim_host_disk_ops(const struct sim_host *host)
{
    return host->disk_ops;
}

void sim_host_stop_before(struct sim_host *host, uint64_t n)
{
    SIM_CHECK(n == 0 || n > host->disk_ops, "%s: that effect is past", host->name);
    host->stop_before = n;
}

void sim_host_on_disk_op(struct sim_host *host, void (*look)(void *arg, uint64_t n), void *arg)
{
    host->look = look;
    host->look_arg = arg;
}

bool sim_host_stopped(const struct sim_host *host)
{
    return host->stopped;
}

void sim_host_sector(struct sim_host *host, uint32_t bytes)
{
    SIM_CHECK(bytes == SIM_SECTOR || bytes == SIM_PAGE, "a sector has 512 or 4096 bytes");
    host->disk->sector = bytes;
}
