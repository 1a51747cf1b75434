/*
 * gateway/control.c - the control thread: starts everything, listens to signals and operators,
 * ends everything.
 *
 * Owns:     the process-wide gateway, the generations of the configuration, the threads, the
 *           spool lock.
 * Runs on:  the main thread.
 * Contract: nothing is touched before the configuration, the ports and the io_uring of this
 *           kernel are found good. A reload is prepared by every shard before any adopts it; one
 *           refusal leaves all as it was.
 * Failure:  one line on stderr and an exit status: 1, EXIT_CONFIG, EXIT_NO_IO_URING.
 * Bounds:   one reload at a time; SHARD_COUNT_MAX shards.
 * Tests:    tests/system (start, reload, drain)
 */
#include "gateway/control_internal.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <unistd.h>

/* ---- what others ask ---- */

enum control_state control_state(const struct control *c)
{
    return c->state;
}

struct io *control_io(struct control *c)
{
    return c->io;
}

const struct gateway *control_gateway(const struct control *c)
{
    return &c->gw;
}

const struct generation *control_generation(const struct control *c)
{
    return c->current;
}

const struct series_names *control_series(const struct control *c)
{
    return &c->series;
}

const char *control_reload_error(const struct control *c)
{
    return c->reload_error;
}

uint64_t control_reloads_failed(const struct control *c)
{
    return c->reloads_failed;
}

/* ---- posting ---- */

void control_post(struct control *c, uint32_t to, const struct ring_item *item)
{
    while (!io_post(c->io, to, item))
        io_turn(c->io, false); /* operators are few: a full ring here means a shard is far behind */
}

void control_post_shards(struct control *c, const struct ring_item *item)
{
    for (uint32_t i = 0; i < c->gw.shard_count; i++)
        control_post(c, i, item);
}

void control_ask(struct control *c, uint32_t shard, struct admin_request *r,
                 void (*done)(void *arg, struct admin_request *r), void *arg)
{
    struct ring_item item = {.kind = PEER_ADMIN, .ptr = r};
    r->done = done;
    r->done_arg = arg;
    control_post(c, shard, &item);
}

/* ---- messages and signals ---- */

static void control_fatal(struct control *c, const struct why *why)
{
    if (!c->failed)
        c->failure = *why;
    c->failed = true;
}

static void control_shard_up(struct control *c, const struct ring_item *item)
{
    if (!item->b) {
        control_fatal(c, item->ptr);
        free(item->ptr);
        return;
    }
    if (++c->shards_up == c->gw.shard_count && c->state == CONTROL_STARTING)
        c->state = CONTROL_RUNNING;
}

static void control_message(void *arg, const struct ring_item *item)
{
    struct control *c = arg;
    struct admin_request *r = item->ptr;
    switch (item->kind) {
    case PEER_SHARD_UP: control_shard_up(c, item); break;
    case PEER_CONFIG_READY: control_reload_ready(c, item); break;
    case PEER_CONFIG_ADOPTED: control_reload_adopted(c); break;
    case PEER_CONFIG_RELEASED: control_generation_released(c, item->ptr); break;
    case PEER_ADMIN_DONE: r->done(r->done_arg, r); break;
    case PEER_SHARD_DOWN:
        if (++c->shards_down == c->gw.shard_count)
            c->state = CONTROL_STOPPED;
        break;
    default: break;
    }
}

static void control_signal(struct io_op *op, int32_t res, uint32_t flags)
{
    struct control *c = container_of(op, struct control, signal_op);
    struct signalfd_siginfo info;
    (void)flags;
    while (res > 0 && read(c->signal_fd, &info, sizeof info) == sizeof info) {
        if (info.ssi_signo == SIGHUP) {
            log_writer_reopen(c->writer);
            if (!control_reload(c, NULL, NULL))
                c->reload_again = true;
        } else {
            control_drain(c, info.ssi_signo == SIGINT);
        }
    }
    if (res != -ECANCELED)
        io_poll_raw(c->io, &c->signal_op, c->signal_fd, POLLIN);
}

/* ---- start ---- */

static uint64_t control_wall(void *arg)
{
    return io_wall_ns(arg);
}

static bool control_cpus(struct control *c)
{
    cpu_set_t set;
    uint32_t count = 0;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) != 0)
        return false;
    for (int i = 0; i < CPU_SETSIZE && count < SHARD_COUNT_MAX; i++)
        if (CPU_ISSET(i, &set))
            c->gw.cpus[count++] = i;
    uint32_t wanted = c->current->config->shards;
    uint64_t fit = c->current->config->spool.bytes_max / SPOOL_SHARD_BYTES_MIN;
    c->gw.shard_count = wanted ? wanted : count;
    if (!wanted && count > fit) /* a share without room for a segment could take no mail */
        c->gw.shard_count = fit ? (uint32_t)fit : 1;
    if (c->gw.shard_count > SHARD_COUNT_MAX)
        c->gw.shard_count = SHARD_COUNT_MAX;
    c->gw.pin = c->gw.shard_count <= count; /* more shards than CPUs: the kernel spreads them */
    return count > 0;
}

static bool control_protocol_rings(struct gateway *gw)
{
    gw->protocol_rings = calloc(gw->shard_count, sizeof *gw->protocol_rings);
    for (uint32_t i = 0; gw->protocol_rings && i < gw->shard_count; i++)
        if (!(gw->protocol_rings[i] = ring_bytes_create(PROTOCOL_RING_BYTES)))
            return false;
    return gw->protocol_rings != NULL;
}

static bool control_gateway_init(struct control *c, struct why *why)
{
    struct gateway *gw = &c->gw;
    why_set(why, 451, "4.3.1", "out of memory");
    if (!control_cpus(c))
        return false;
    gw->worker_count = AUTH_WORKERS;
    gw->control_peer = gw->shard_count;
    gw->first_worker_peer = gw->shard_count + 1;
    gw->peer_count = gw->shard_count + 1 + gw->worker_count;
    gw->group = io_group_create(gw->peer_count);
    gw->log_rings = calloc(gw->peer_count, sizeof *gw->log_rings);
    gw->metrics = aligned_alloc(64, (sizeof *gw->metrics * gw->shard_count + 63) / 64 * 64);
    gw->threads = calloc(gw->peer_count, sizeof *gw->threads);
    c->shard_starts = calloc(gw->shard_count, sizeof *c->shard_starts);
    c->worker_starts = calloc(gw->worker_count, sizeof *c->worker_starts);
    if (!gw->group || !gw->log_rings || !gw->metrics || !gw->threads || !c->shard_starts ||
        !c->worker_starts)
        return false;
    memset(gw->metrics, 0, sizeof *gw->metrics * gw->shard_count);
    for (uint32_t i = 0; i <= gw->shard_count; i++) /* shards and control */
        if (!(gw->log_rings[i] = ring_bytes_create(LOG_RING_BYTES)))
            return false;
    if (c->current->config->log.protocol && !control_protocol_rings(gw))
        return false;
    return getrandom(gw->auth_cache_key, sizeof gw->auth_cache_key, 0) ==
               sizeof gw->auth_cache_key &&
           getrandom(gw->ticket_key, sizeof gw->ticket_key, 0) == sizeof gw->ticket_key;
}

static bool control_io_init(struct control *c, struct why *why)
{
    struct io_params p = {.group = c->gw.group,
                          .peer = c->gw.control_peer,
                          .queue_depth = 256,
                          .fd_count_max = 64,
                          .cpu = -1};
    c->io = io_create(&p, why);
    if (!c->io)
        return false;
    io_on_message(c->io, control_message, c);
    c->gw.start_wall_ns = io_wall_ns(c->io);
    c->log = (struct log){.ring = c->gw.log_rings[c->gw.control_peer],
                          .level = c->current->config->log.level,
                          .tracking = c->current->config->log.tracking != NULL,
                          .wall_ns = control_wall,
                          .arg = c->io,
                          .shard = LOG_NO_SHARD};
    return true;
}

static bool control_ports_free(const struct config *conf, struct why *why)
{
    for (uint32_t i = 0; i < conf->receive_count; i++)
        for (uint32_t b = 0; b < conf->receive[i].bind_count; b++)
            if (!io_port_check(&conf->receive[i].bind[b], why))
                return false;
    return conf->admin.http.len == 0 || io_port_check(&conf->admin.http, why);
}

static bool control_writer_init(struct control *c, struct why *why)
{
    const struct config *conf = c->current->config;
    struct log_writer_params p = {.json = conf->log.json,
                                  .tracking = conf->log.tracking,
                                  .tracking_bytes = conf->log.tracking_bytes,
                                  .tracking_keep_s = conf->log.tracking_keep_s,
                                  .rings = c->gw.log_rings,
                                  .ring_count = c->gw.shard_count + 1,
                                  .protocol = conf->log.protocol,
                                  .protocol_bytes = conf->log.protocol_bytes,
                                  .protocol_keep_s = conf->log.protocol_keep_s,
                                  .protocol_folder_bytes = conf->log.protocol_folder_bytes,
                                  .protocol_rings = c->gw.protocol_rings,
                                  .protocol_ring_count = c->gw.shard_count};
    c->writer = log_writer_start(&p, why);
    return c->writer != NULL;
}

static void control_signals_block(struct control *c)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &set, NULL); /* before any thread: they inherit it */
    signal(SIGPIPE, SIG_IGN);
    c->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    c->signal_op.done = control_signal;
}

static bool control_threads_start(struct control *c, struct why *why)
{
    struct gateway *gw = &c->gw;
    why_set(why, 451, "4.3.1", "cannot start a thread");
    for (uint32_t i = 0; i < gw->worker_count; i++) {
        c->worker_starts[i] =
            (struct auth_worker_start){.group = gw->group, .peer = gw->first_worker_peer + i};
        if (pthread_create(&gw->threads[gw->first_worker_peer + i], NULL, auth_worker_thread,
                           &c->worker_starts[i]))
            return false;
    }
    for (uint32_t i = 0; i < gw->shard_count; i++) {
        c->shard_starts[i].gw = gw;
        c->shard_starts[i].index = i;
        c->shard_starts[i].generation = c->current;
        c->current->shards_holding++;
        if (pthread_create(&gw->threads[i], NULL, shard_thread, &c->shard_starts[i]))
            return false;
    }
    return true;
}

static bool control_workers_up(struct control *c)
{
    uint32_t up = 0;
    for (uint32_t i = 0; i < c->gw.worker_count; i++) {
        if (atomic_load(&c->worker_starts[i].dead))
            control_fatal(c, &c->worker_starts[i].failed);
        up += atomic_load(&c->worker_starts[i].up);
    }
    return up == c->gw.worker_count;
}

/* Until every shard accepts and passwords can be checked, or one of them could not start. */
static bool control_wait_up(struct control *c, struct why *why)
{
    struct timer look = {.fire = control_look};
    while ((c->shards_up < c->gw.shard_count || !control_workers_up(c)) && !c->failed) {
        io_timer_set(c->io, &look, io_now_ns(c->io) + 50 * NS_PER_MS);
        io_turn(c->io, true);
        for (uint32_t i = 0; i < c->gw.shard_count; i++)
            if (atomic_load(&c->shard_starts[i].dead))
                control_fatal(c, &c->shard_starts[i].failed);
    }
    io_timer_clear(c->io, &look);
    if (c->failed)
        *why = c->failure;
    return !c->failed;
}

static void control_started(struct control *c)
{
    const struct config *conf = c->current->config;
    struct log_line line;
    char text[IO_ADDR_TEXT_MAX];
    log_begin(&line, &c->log, EV_START);
    log_str(&line, "version", HIKYAKU_VERSION);
    log_u64(&line, "shards", c->gw.shard_count);
    log_str(&line, "config", conf->path);
    log_end(&line);
    for (uint32_t i = 0; i < conf->receive_count; i++)
        for (uint32_t b = 0; b < conf->receive[i].bind_count; b++) {
            log_begin(&line, &c->log, EV_LISTEN);
            log_str(&line, "connector", conf->receive[i].name);
            log_str(&line, "address", io_addr_text(&conf->receive[i].bind[b], true, text));
            log_end(&line);
        }
    config_warnings(conf, control_warn, c);
    control_warn_inherited(c);
    control_notify("READY=1\nSTATUS=Accepting mail");
}

void control_warn(void *arg, const char *text)
{
    struct control *c = arg;
    struct log_line line;
    log_begin(&line, &c->log, EV_WARNING);
    log_str(&line, "reason", text);
    log_end(&line);
}

/* ---- end ---- */

static void control_stop(struct control *c)
{
    struct ring_item stop = {.kind = PEER_WORKER_STOP};
    struct log_line line;
    for (uint32_t i = 0; i < c->gw.shard_count; i++)
        pthread_join(c->gw.threads[i], NULL);
    for (uint32_t i = 0; i < c->gw.worker_count; i++) {
        control_post(c, c->gw.first_worker_peer + i, &stop);
        io_turn(c->io, false); /* the wake-up leaves with a turn */
        pthread_join(c->gw.threads[c->gw.first_worker_peer + i], NULL);
    }
    if (c->admin)
        admin_destroy(c->admin);
    log_begin(&line, &c->log, EV_STOP);
    log_str(&line, "reason", "done");
    log_end(&line);
    control_watch_stop(c);
    io_timer_clear(c->io, &c->targets_timer);
    io_cancel(c->io, &c->signal_op);
    while (io_op_running(&c->signal_op))
        io_turn(c->io, true);
    log_writer_stop(c->writer);
    io_unlock(c->io, c->spool_lock);
    io_destroy(c->io);
    io_group_destroy(c->gw.group);
    generation_free(c->current);
    switches_free(&c->switches);
    for (uint32_t i = 0; i <= c->gw.shard_count; i++)
        ring_bytes_destroy(c->gw.log_rings[i]);
    for (uint32_t i = 0; c->gw.protocol_rings && i < c->gw.shard_count; i++)
        ring_bytes_destroy(c->gw.protocol_rings[i]);
    free(c->gw.protocol_rings);
    free(c->gw.log_rings);
    free(c->gw.metrics);
    free(c->gw.threads);
    free(c->shard_starts);
    free(c->worker_starts);
    close(c->signal_fd);
    tls_global_cleanup();
}

/* ---- run ---- */

static int control_say(const struct why *why, int status)
{
    fprintf(stderr, "hikyaku: %s\n", why->text);
    return status;
}

static bool control_begin(struct control *c, struct why *why)
{
    const struct config *conf = c->current->config;
    return control_gateway_init(c, why) && control_io_init(c, why) &&
           control_ports_free(conf, why) &&
           spool_lock(c->io, conf->spool.path, &c->spool_lock, why) && control_state_load(c, why) &&
           control_writer_init(c, why) && control_threads_start(c, why) &&
           control_wait_up(c, why) && (c->admin = admin_create(c, conf, why)) != NULL;
}

int control_run(const struct control_options *o)
{
    struct control *c = calloc(1, sizeof *c);
    struct why why;
    if (!c || !tls_global_init(&why)) {
        free(c);
        return control_say(&why, 1);
    }
    c->options = *o;
    c->watch.inotify = -1;
    c->current = generation_load(o, 1, &c->switches, &why);
    if (!c->current || !io_probe(&why)) {
        int status = c->current ? EXIT_NO_IO_URING : EXIT_CONFIG;
        if (c->current)
            generation_free(c->current);
        free(c);
        return control_say(&why, status);
    }
    series_assign(&c->series, c->current->config);
    control_signals_block(c);
    if (!control_begin(c, &why)) {
        control_say(&why, 1);
        fflush(stderr);
        _exit(1); /* threads may be in the middle of their start: nothing was acknowledged */
    }
    control_started(c);
    c->watch.seen = c->current->seen;
    control_watch_update(c);
    io_poll_raw(c->io, &c->signal_op, c->signal_fd, POLLIN);
    while (c->state != CONTROL_STOPPED) {
        io_turn(c->io, true);
        if (c->reload_again && !c->next)
            c->reload_again = !control_reload(c, NULL, NULL);
    }
    control_stop(c);
    free(c);
    return 0;
}

static void check_warn(void *arg, const char *line)
{
    (void)arg;
    fprintf(stderr, "hikyaku: warning: %s\n", line);
}

int control_check(const char *config_path)
{
    struct control_options o = {.config_path = config_path};
    struct why why;
    if (!tls_global_init(&why))
        return control_say(&why, 1);
    struct switches none = {0};
    struct generation *g = generation_load(&o, 1, &none, &why);
    if (!g) { /* the place comes first, as editors and people expect it */
        fprintf(stderr, "%s\n", why.text);
        return EXIT_CONFIG;
    }
    config_warnings(g->config, check_warn, NULL);
    generation_free(g);
    tls_global_cleanup();
    return 0;
}
