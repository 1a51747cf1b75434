/*
 * tests/sim/test_sim_world.c - the simulated world: it repeats itself, machines end as machines do,
 * faults come and are counted, and wrong use of io.h is found.
 */
#include <criterion/criterion.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/io/conform_kit.h"
#include "tests/sim/sim_internal.h"

static struct io *create(const struct io_params *params)
{
    struct why why = {0};
    struct io *io = io_create(params, &why);

    cr_assert_not_null(io, "%s", why.text);
    return io;
}

static void turn(struct io *io)
{
    io_turn(io, true);
}

static const struct conform simulated = {
    .create = create, .destroy = io_destroy, .turn = turn, .dir = "/t"};

static struct sim *world(uint64_t seed)
{
    struct sim *sim = sim_create(seed);
    struct why why;

    sim_host_enter(sim_host_add(sim, "host", "10.0.0.1"));
    cr_assert(io_mkdir(NULL, "/t", &why));
    return sim;
}

/* ---- the same seed ---- */

static const struct sim_faults lively = {.send_split = 300,
                                         .recv_short = 200,
                                         .recv_again = 100,
                                         .reorder = 300,
                                         .turn_part = 200,
                                         .cancel_late = 300};

static uint64_t trace_of(uint64_t seed)
{
    struct sim *sim = world(seed);
    uint64_t trace;

    sim_host_faults(sim->current, &lively);
    conform_random(&simulated);
    conform_file_write_sync(&simulated);
    trace = sim_trace_hash(sim) ^ sim_host_disk_hash(sim->current);
    sim_destroy(sim);
    return trace;
}

Test(sim_world, the_same_seed_is_the_same_world, .timeout = 60)
{
    uint64_t first = trace_of(7);
    void *hole = malloc(12345); /* other addresses */

    cr_assert_eq(trace_of(7), first);
    cr_assert_neq(trace_of(8), first);
    cr_assert_eq(trace_of(7), first);
    free(hole);
}

/* ---- two machines ---- */

#define SERVER "10.0.0.1"
#define CLIENT "10.0.0.2"

struct pair {
    struct sim *sim;
    struct sim_host *server, *client;
    struct kit sk, ck; /* of each an io */
    struct io_acceptor acceptor;
    int32_t listen_fd;
    struct io_addr addr;
    struct kit_conn s, c;
    bool dull; /* the server closes at once */
};

/* The world goes on until it is so. */
#define UNTIL(p, condition)                \
    do {                                   \
        while (!(condition))               \
            cr_assert(sim_step((p)->sim)); \
    } while (0)

static void on_accept(struct io_acceptor *a, int32_t fd, const struct io_addr *peer)
{
    struct pair *p = container_of(a, struct pair, acceptor);

    (void)peer;
    cr_assert(fd >= 0);
    if (p->dull) {
        io_close(p->sk.io, fd);
        return;
    }
    kit_conn_init(&p->sk, &p->s, fd);
    kit_receive(&p->s);
}

static void on_stopped(struct io_acceptor *a)
{
    (void)a;
}

static void serve(struct pair *p)
{
    struct io_listen_opts opts = {.backlog = 10};
    struct why why;

    sim_host_enter(p->server);
    kit_open(&p->sk, &simulated, 0, 0);
    cr_assert(io_listen(p->sk.io, &p->addr, &opts, &p->listen_fd, &why), "%s", why.text);
    p->acceptor = (struct io_acceptor){.on_accept = on_accept, .on_stopped = on_stopped};
    io_accept_start(p->sk.io, &p->acceptor, p->listen_fd);
}

static void pair_open(struct pair *p, uint64_t seed)
{
    *p = (struct pair){.sim = sim_create(seed)};
    p->server = sim_host_add(p->sim, "server", SERVER);
    p->client = sim_host_add(p->sim, "client", CLIENT);
    cr_assert(io_addr_parse(&p->addr, SLICE_LIT(SERVER), 25));
    serve(p);
    sim_host_enter(p->client);
    kit_open(&p->ck, &simulated, 0, 0);
}

static int32_t dial(struct pair *p)
{
    struct kit_op o;

    kit_op_init(&p->ck, &o);
    io_connect(p->ck.io, &o.op, &p->addr, NULL);
    UNTIL(p, !io_op_running(&o.op));
    return o.res;
}

static void pair_connect(struct pair *p)
{
    int32_t fd = dial(p);

    cr_assert(fd >= 0, "%d", fd);
    kit_conn_init(&p->ck, &p->c, fd);
    kit_receive(&p->c);
    kit_send(&p->c, "hello", 5);
    UNTIL(p, p->s.got_len == 5);
    UNTIL(p, !io_op_running(&p->c.send.op));
}

static void pair_close(struct pair *p)
{
    sim_destroy(p->sim);
    free(p->s.got);
    free(p->c.got);
}

static void run_for(struct pair *p, uint64_t ns)
{
    sim_run_until(p->sim, sim_now_ns(p->sim) + ns);
}

Test(sim_world, machines_speak)
{
    struct io_addr local;
    struct pair p;
    char text[IO_ADDR_TEXT_MAX];

    pair_open(&p, 1);
    pair_connect(&p);
    cr_assert(io_local_addr(p.ck.io, p.c.fd, &local));
    cr_assert_str_eq(io_addr_text(&local, false, text), CLIENT);
    cr_assert_str_eq(sim_host_name(sim_io_host(p.ck.io)), "client");
    pair_close(&p);
}

Test(sim_world, a_killed_process_is_heard_of)
{
    uint32_t resets = 0;

    for (uint64_t seed = 0; seed < 50; seed++) {
        struct pair p;
        pair_open(&p, seed);
        pair_connect(&p);
        if (seed % 2) /* unread when it dies */
            kit_send(&p.c, "x", 1);
        if (seed % 4 == 3)
            UNTIL(&p, !io_op_running(&p.c.send.op));
        sim_host_kill(p.server);
        UNTIL(&p, p.c.end <= 0);
        cr_assert(p.c.end == 0 || p.c.end == -ECONNRESET);
        resets += p.c.end != 0;
        if (seed % 2 == 0)
            cr_assert_eq(p.c.end, 0);
        cr_assert_eq(dial(&p), -ECONNREFUSED);
        serve(&p);
        sim_host_enter(p.client);
        pair_close(&p);
    }
    cr_assert_gt(resets, 5u);
}

Test(sim_world, a_machine_without_power_is_silent_until_spoken_to)
{
    struct pair p;

    pair_open(&p, 1);
    pair_connect(&p);
    sim_host_power_cut(p.server);
    run_for(&p, 3600 * NS_PER_S);
    cr_assert_eq(p.c.end, 1, "nothing is heard");
    kit_send(&p.c, "x", 1);
    UNTIL(&p, p.c.end != 1);
    cr_assert_eq(p.c.end, -ECONNRESET);
    pair_close(&p);
}

Test(sim_world, a_cut_network_holds_back)
{
    struct pair p;

    pair_open(&p, 1);
    pair_connect(&p);
    sim_host_net(p.server, false);
    kit_send(&p.c, "later", 5);
    run_for(&p, 60 * NS_PER_S);
    cr_assert_eq(p.s.got_len, 5);
    sim_host_net(p.server, true);
    run_for(&p, 10 * NS_PER_S);
    cr_assert_eq(p.s.got_len, 10);
    cr_assert_eq(memcmp(p.s.got, "hellolater", 10), 0);
    sim_host_net(p.server, false);
    cr_assert_eq(dial(&p), -ETIMEDOUT);
    pair_close(&p);
}

Test(sim_world, a_vanished_peer_times_out)
{
    struct sim_faults gone = {.vanish = 1000};
    struct pair p;
    uint64_t start;

    pair_open(&p, 1);
    pair_connect(&p);
    sim_host_faults(p.client, &gone);
    start = sim_now_ns(p.sim);
    kit_send(&p.c, "x", 1);
    UNTIL(&p, p.c.end != 1);
    cr_assert_eq(p.c.end, -ETIMEDOUT);
    cr_assert_geq(sim_now_ns(p.sim) - start, SIM_SILENCE_NS);
    cr_assert_eq(p.s.end, 1);
    cr_assert_eq(p.s.got_len, 5);
    pair_close(&p);
}

Test(sim_world, clocks_jump_for_one_machine)
{
    struct pair p;
    uint64_t now, wall, other;

    pair_open(&p, 1);
    io_turn(p.sk.io, false);
    io_turn(p.ck.io, false);
    now = io_now_ns(p.sk.io);
    wall = io_wall_ns(p.sk.io);
    other = io_wall_ns(p.ck.io);
    sim_clock_jump(p.server, -(int64_t)(3600 * NS_PER_S));
    io_turn(p.sk.io, false);
    io_turn(p.ck.io, false);
    cr_assert_lt(io_wall_ns(p.sk.io), wall - 3599 * NS_PER_S);
    cr_assert_geq(io_wall_ns(p.ck.io), other);
    cr_assert_geq(io_now_ns(p.sk.io), now);
    pair_close(&p);
}

struct ticker {
    struct timer timer;
    struct io *io;
    uint32_t left, runs;
};

static void tick(struct timer *t)
{
    struct ticker *k = container_of(t, struct ticker, timer);

    if (--k->left > 0)
        io_timer_set(k->io, t, io_now_ns(k->io) + NS_PER_S);
}

static void run_ticker(void *arg)
{
    struct ticker *k = arg;

    k->runs++;
    io_turn(k->io, false);
}

Test(sim_world, steps_go_on_until_nothing_will_happen)
{
    struct ticker k = {.timer = {.fire = tick}, .left = 100};
    struct kit kit;
    struct sim *sim = world(1);
    uint64_t start = sim_now_ns(sim);

    cr_assert_not(sim_step(sim));
    kit_open(&kit, &simulated, 0, 0);
    k.io = kit.io;
    sim_io_runner(k.io, run_ticker, &k);
    io_timer_set(k.io, &k.timer, start + NS_PER_S);
    cr_assert(sim_run_until(sim, start + 50 * NS_PER_S + NS_PER_MS));
    cr_assert_eq(k.left, 50);
    while (sim_step(sim))
        continue;
    cr_assert_eq(k.left, 0);
    cr_assert_eq(k.runs, 100);
    cr_assert_geq(sim_now_ns(sim), start + 100 * NS_PER_S);
    sim_destroy(sim);
}

/* ---- faults ---- */

/* One of each; errors are fine. */
static void use_disk(struct kit *k, int32_t fd, bool cancel)
{
    uint8_t buf[2000] = {0};
    struct kit_op o;
    struct why why;

    kit_op_init(k, &o);
    io_write(k->io, &o.op, fd, buf, sizeof buf, 0);
    (void)kit_wait(&o);
    io_read(k->io, &o.op, fd, buf, sizeof buf, 0);
    (void)kit_wait(&o);
    io_sync(k->io, &o.op, fd);
    (void)kit_wait(&o);
    io_allocate(k->io, &o.op, fd, 0, 4096);
    (void)kit_wait(&o);
    io_file_size(k->io, &o.op, "/t/a");
    (void)kit_wait(&o);
    io_open(k->io, &o.op, "/t/b", IO_WRITE | IO_CREATE);
    if (kit_wait(&o) >= 0)
        io_close(k->io, o.res);
    io_rename(k->io, &o.op, "/t/b", "/t/c");
    if (cancel)
        io_cancel(k->io, &o.op);
    (void)kit_wait(&o);
    io_unlink(k->io, &o.op, "/t/c");
    (void)kit_wait(&o);
    (void)!io_mkdir(k->io, "/t/d", &why);
}

Test(sim_world, every_fault_comes_and_is_counted)
{
    static const struct sim_faults bad = {.read_eio = 300,
                                          .read_short = 300,
                                          .write_eio = 200,
                                          .write_short = 200,
                                          .write_enospc = 200,
                                          .sync_eio = 300,
                                          .allocate_enospc = 200,
                                          .allocate_eio = 200,
                                          .open_error = 300,
                                          .unlink_error = 300,
                                          .rename_error = 300,
                                          .size_error = 300,
                                          .call_error = 300,
                                          .stall = 100,
                                          .stall_ns = NS_PER_S};
    static const struct {
        enum sim_kind kind;
        enum sim_fault fault;
    } expected[] = {
        {SIM_READ, SIM_EIO},        {SIM_READ, SIM_SHORT},   {SIM_WRITE, SIM_EIO},
        {SIM_WRITE, SIM_SHORT},     {SIM_WRITE, SIM_ENOSPC}, {SIM_SYNC, SIM_EIO},
        {SIM_ALLOCATE, SIM_ENOSPC}, {SIM_ALLOCATE, SIM_EIO}, {SIM_OPEN, SIM_NO_FD},
        {SIM_OPEN, SIM_ENOSPC},     {SIM_RENAME, SIM_EIO},   {SIM_FILE_SIZE, SIM_EIO},
        {SIM_UNLINK, SIM_EIO},      {SIM_MKDIR, SIM_EIO},    {SIM_WRITE, SIM_STALL},
        {SIM_RENAME, SIM_CANCELED},
    };
    struct sim *sim = world(1);
    const struct sim_site *sites;
    uint32_t count;
    uint8_t buf[2000] = {0};
    struct kit_op o;
    struct kit k;
    int32_t fd;

    kit_open(&k, &simulated, 0, 0);
    fd = kit_open_file(&k, "/t/a", IO_READ | IO_WRITE | IO_CREATE);
    sim_host_faults(sim->current, &bad);
    kit_op_init(&k, &o);
    for (int i = 0; i < 200; i++)
        use_disk(&k, fd, i % 2);
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++)
        cr_assert_gt(sim_fault_counts(sim, expected[i].kind, expected[i].fault), 3u, "%s %s",
                     sim_kind_name(expected[i].kind), sim_fault_name(expected[i].fault));
    count = sim_sites(sim, &sites);
    cr_assert(count >= 10 && count < 40, "%u", count);
    sim_calm(sim, true);
    for (int i = 0; i < 200; i++) {
        io_write(k.io, &o.op, fd, buf, sizeof buf, 0);
        cr_assert_eq(kit_wait(&o), (int32_t)sizeof buf);
        io_sync(k.io, &o.op, fd);
        cr_assert_eq(kit_wait(&o), 0);
    }
    io_close(k.io, fd);
    kit_close(&k);
    sim_destroy(sim);
}

Test(sim_world, a_fault_that_is_asked_for_comes_once)
{
    struct sim *sim = world(1);
    struct kit_op o;
    struct kit k;
    int32_t fd;

    kit_open(&k, &simulated, 0, 0);
    fd = kit_open_file(&k, "/t/a", IO_WRITE | IO_CREATE);
    kit_op_init(&k, &o);
    sim_host_fail_next(sim->current, SIM_WRITE, 2, SIM_ENOSPC);
    for (int i = 0; i < 5; i++) {
        io_write_sync(k.io, &o.op, fd, "x", 1, 0);
        cr_assert_eq(kit_wait(&o), i == 2 ? -ENOSPC : 1);
    }
    io_close(k.io, fd);
    kit_close(&k);
    sim_destroy(sim);
}

Test(sim_world, connections_fail_in_every_way)
{
    static const struct sim_faults bad = {
        .connect_refused = 200, .connect_timeout = 200, .connect_error = 200, .fd_none = 200};
    uint32_t ok = 0, refused = 0, timeout = 0, other = 0, no_fd = 0;
    struct pair p;

    pair_open(&p, 1);
    p.dull = true;
    sim_host_faults(p.client, &bad);
    for (int i = 0; i < 200; i++) {
        int32_t fd = dial(&p);
        ok += fd >= 0;
        refused += fd == -ECONNREFUSED;
        timeout += fd == -ETIMEDOUT;
        other += fd == -ENETUNREACH || fd == -EADDRNOTAVAIL;
        no_fd += fd == -ENFILE;
        if (fd >= 0)
            io_close(p.ck.io, fd);
    }
    cr_assert_eq(ok + refused + timeout + other + no_fd, 200u);
    cr_assert(ok > 20 && refused > 10 && timeout > 10 && other > 10 && no_fd > 10);
    pair_close(&p);
}

/* ---- what its users must not do ---- */

static void misuse(struct pair *p)
{
    pair_open(p, 1);
    pair_connect(p);
}

/* Runs in a child, which must abort with these words. */
static void expect_broken(void (*wrong)(struct pair *p), const char *words)
{
    char text[1000] = "";
    int pipes[2], status;
    struct pair p;
    ssize_t n;
    pid_t child;

    cr_assert_eq(pipe(pipes), 0);
    child = fork();
    if (child == 0) {
        dup2(pipes[1], STDERR_FILENO);
        misuse(&p);
        wrong(&p);
        _exit(0);
    }
    close(pipes[1]);
    for (size_t at = 0; (n = read(pipes[0], text + at, sizeof text - 1 - at)) > 0; at += (size_t)n)
        continue;
    close(pipes[0]);
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT, "status %x: %s", status, text);
    cr_assert_not_null(strstr(text, words), "%s", text);
}

static void an_operation_started_while_it_runs(struct pair *p)
{
    io_recv(p->ck.io, &p->c.recv, p->c.fd);
}

static void two_receives_on_a_descriptor(struct pair *p)
{
    struct kit_op o;

    kit_op_init(&p->ck, &o);
    io_recv(p->ck.io, &o.op, p->c.fd);
}

static void two_sends_on_a_descriptor(struct pair *p)
{
    struct kit_op o;

    kit_op_init(&p->ck, &o);
    io_send(p->ck.io, &o.op, p->c.fd, "x", 1, IO_END_NONE);
    kit_send(&p->c, "x", 1);
}

static void a_buffer_changed_under_a_send(struct pair *p)
{
    char data[] = "hello";

    kit_send(&p->c, data, 5);
    data[0] = 'j';
    (void)kit_wait(&p->c.send);
}

static void a_buffer_changed_under_a_write(struct pair *p)
{
    char data[] = "hello";
    struct kit_op o;
    int32_t fd;

    fd = kit_open_file(&p->ck, "/a", IO_WRITE | IO_CREATE);
    kit_op_init(&p->ck, &o);
    io_write(p->ck.io, &o.op, fd, data, 5, 0);
    data[0] = 'j';
    (void)kit_wait(&o);
}

static void a_path_changed_under_way(struct pair *p)
{
    char path[] = "/a";
    struct kit_op o;

    kit_op_init(&p->ck, &o);
    io_unlink(p->ck.io, &o.op, path);
    path[1] = 'b';
    (void)kit_wait(&o);
}

static void a_descriptor_used_after_its_close(struct pair *p)
{
    struct kit_op o;
    int32_t fd;

    fd = kit_open_file(&p->ck, "/a", IO_WRITE | IO_CREATE);
    io_close(p->ck.io, fd);
    (void)kit_open_file(&p->ck, "/b", IO_WRITE | IO_CREATE);
    kit_op_init(&p->ck, &o);
    io_write(p->ck.io, &o.op, fd, "x", 1, 0);
}

static void a_descriptor_closed_twice(struct pair *p)
{
    int32_t fd;

    fd = kit_open_file(&p->ck, "/a", IO_WRITE | IO_CREATE);
    io_close(p->ck.io, fd);
    io_close(p->ck.io, fd);
}

static void closing_under_a_receive(struct pair *p)
{
    io_close(p->ck.io, p->c.fd);
}

static void a_receive_buffer_given_back_twice(struct pair *p)
{
    p->s.hold = true;
    kit_send(&p->c, "x", 1);
    UNTIL(p, p->s.got_len == 6);
    io_buf_put(p->sk.io, p->s.held[0]);
    io_buf_put(p->sk.io, p->s.held[0]);
}

static void ending_with_operations_under_way(struct pair *p)
{
    kit_close(&p->ck);
}

static void waiting_for_what_will_never_come(struct pair *p)
{
    for (int i = 0; i < 100; i++)
        io_turn(p->ck.io, true);
}

Test(sim_world, wrong_use_is_found)
{
    expect_broken(an_operation_started_while_it_runs,
                  "recv: the operation is running already (client)");
    expect_broken(two_receives_on_a_descriptor, "recv: one is under way on this descriptor");
    expect_broken(two_sends_on_a_descriptor, "send: one is under way on this descriptor");
    expect_broken(a_buffer_changed_under_a_send, "send: its buffer changed while it was under way");
    expect_broken(a_buffer_changed_under_a_write,
                  "write: its buffer changed while it was under way");
    expect_broken(a_path_changed_under_way, "unlink: its path changed while it was under way");
    expect_broken(a_descriptor_used_after_its_close, "is closed (client)");
    expect_broken(a_descriptor_closed_twice, "io_close: descriptor");
    expect_broken(closing_under_a_receive, "io_close: a receive goes on");
    expect_broken(a_receive_buffer_given_back_twice, "io_buf_put: buffer");
    expect_broken(ending_with_operations_under_way, "io_destroy: 1 operations are under way");
    expect_broken(waiting_for_what_will_never_come, "io_turn waits for what will never come");
}
