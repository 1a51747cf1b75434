/*
 * tests/unit/test_uring.c - the io_uring backend: the conformance suite, and what only a real
 * kernel shows.
 */
#include <criterion/criterion.h>
#include <ftw.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gateway/io/uring_internal.h"
#include "gateway/limits.h"
#include "tests/io/conform_kit.h"

static struct io *create(const struct io_params *params)
{
    struct why why = {0};
    struct io *io = io_create(params, &why);

    cr_assert_not_null(io, "%s", why.text);
    return io;
}

static struct io *create_plain(const struct io_params *params)
{
    struct io_params plain = *params;

    plain.plain_fds = true;
    return create(&plain);
}

static void turn(struct io *io)
{
    io_turn(io, true);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st;
    (void)type;
    (void)at;
    return remove(path);
}

static void conform(void (*test)(const struct conform *c), bool plain)
{
    char dir[] = "/tmp/hikyaku-io-XXXXXX";
    struct conform c = {
        .create = plain ? create_plain : create, .destroy = io_destroy, .turn = turn};

    c.dir = mkdtemp(dir);
    cr_assert_not_null(c.dir);
    test(&c);
    cr_assert_eq(nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

/* With descriptors of both kinds. */
#define CONFORM(name)                      \
    Test(uring, name, .timeout = 60)       \
    {                                      \
        conform(conform_##name, false);    \
    }                                      \
    Test(uring_plain, name, .timeout = 60) \
    {                                      \
        conform(conform_##name, true);     \
    }

CONFORM(echo)
CONFORM(slow_reader)
CONFORM(send_last)
CONFORM(close_with_data)
CONFORM(reset)
CONFORM(connect_errors)
CONFORM(source_address)
CONFORM(bad_fd)
CONFORM(listen_errors)
CONFORM(listener_ends)
CONFORM(reuse_port)
CONFORM(many_connections)
CONFORM(buffers_run_out)
CONFORM(parked_receive_is_cancelled)
CONFORM(descriptors_come_back)
CONFORM(descriptors_run_out)
CONFORM(accept_pauses)
CONFORM(close_after_cancel)
CONFORM(random)
CONFORM(cancel_receive)
CONFORM(cancel_send)
CONFORM(cancel_connect)
CONFORM(cancel_idle)
CONFORM(cancel_file)
CONFORM(accept_stop)
CONFORM(timers)
CONFORM(timer_storm)
CONFORM(turn_order)
CONFORM(time_and_chance)
CONFORM(restart_in_done)
CONFORM(messages)
CONFORM(messages_wait)
CONFORM(file_write_read)
CONFORM(file_write_sync)
CONFORM(file_names)
CONFORM(file_errors)
CONFORM(file_direct)
CONFORM(dir_and_disk)
CONFORM(lock)

/* ---- what only a real kernel shows ---- */

/* A number of the process for a descriptor of the ring, to look at it from outside. */
static int raw_of(struct kit *k, int32_t fd)
{
    struct io_uring_sqe *sqe;

    if (!k->io->direct)
        return dup(fd);
    sqe = uring_sqe(k->io);
    io_uring_prep_rw(URING_OP_FIXED_FD_INSTALL, sqe, fd, NULL, 0, 0);
    sqe->flags |= IOSQE_FIXED_FILE;
    return uring_call(k->io, sqe);
}

static int no_delay(struct kit *k, int32_t fd)
{
    int raw = raw_of(k, fd), value = 0;
    socklen_t len = sizeof value;

    if (raw < 0)
        return -1;
    cr_assert_eq(getsockopt(raw, IPPROTO_TCP, TCP_NODELAY, &value, &len), 0);
    close(raw);
    return value;
}

static const struct conform real = {
    .create = create, .destroy = io_destroy, .turn = turn, .dir = "/tmp"};

Test(uring, connections_of_both_sides_have_nodelay)
{
    struct kit k;
    struct kit_listener l;
    struct kit_conn client, *server;

    kit_open(&k, &real, 0, 0);
    kit_listen(&k, &l, 1);
    kit_connect(&l, &client, &server);
    cr_assert_neq(no_delay(&k, client.fd), 0);
    cr_assert_neq(no_delay(&k, server->fd), 0);
    kit_disconnect(&client);
    kit_disconnect(server);
    kit_unlisten(&l);
    kit_close(&k);
}

/* Nobody accepts: once the backlog is full, a connect hangs until it is cancelled. */
Test(uring, connect_that_hangs_is_cancelled, .timeout = 30)
{
    enum { COUNT = 8 };
    struct io_listen_opts opts = {.backlog = 1};
    struct kit_op ops[COUNT];
    struct io_addr addr;
    struct why why;
    struct kit k;
    int32_t fd;
    uint32_t hung = 0;

    kit_open(&k, &real, 0, 0);
    cr_assert(io_addr_parse(&addr, SLICE_LIT("127.0.0.1"), 0));
    cr_assert(io_listen(k.io, &addr, &opts, &fd, &why), "%s", why.text);
    cr_assert(io_local_addr(k.io, fd, &addr));
    for (int i = 0; i < COUNT; i++) {
        kit_op_init(&k, &ops[i]);
        START(&k, io_connect(k.io, &ops[i].op, &addr, NULL));
    }
    for (int i = 0; i < 100; i++)
        io_turn(k.io, false);
    for (int i = 0; i < COUNT; i++) {
        if (io_op_running(&ops[i].op)) {
            hung++;
            START(&k, io_cancel(k.io, &ops[i].op));
            cr_assert_eq(kit_wait(&ops[i]), -ECANCELED);
        } else {
            cr_assert_geq(ops[i].res, 0);
            io_close(k.io, ops[i].res);
        }
    }
    cr_assert_gt(hung, 0u);
    io_close(k.io, fd);
    kit_close(&k);
}

Test(uring, poll_raw_tells_and_is_cancelled, .timeout = 30)
{
    struct kit_op o;
    struct kit k;
    int pipes[2];

    kit_open(&k, &real, 0, 0);
    cr_assert_eq(pipe(pipes), 0);
    kit_op_init(&k, &o);
    START(&k, io_poll_raw(k.io, &o.op, pipes[0], POLLIN));
    for (int i = 0; i < 5; i++)
        io_turn(k.io, false);
    cr_assert(io_op_running(&o.op));
    cr_assert_eq(write(pipes[1], "x", 1), 1);
    cr_assert_eq(kit_wait(&o), POLLIN);
    START(&k, io_poll_raw(k.io, &o.op, pipes[0], POLLIN));
    cr_assert_eq(kit_wait(&o), POLLIN, "still readable: at once");
    START(&k, io_poll_raw(k.io, &o.op, pipes[1], POLLIN));
    io_turn(k.io, false);
    START(&k, io_cancel(k.io, &o.op));
    cr_assert_eq(kit_wait(&o), -ECANCELED);
    close(pipes[0]);
    START(&k, io_poll_raw(k.io, &o.op, pipes[1], POLLOUT));
    cr_assert(kit_wait(&o) & POLLERR);
    START(&k, io_poll_raw(k.io, &o.op, pipes[0], POLLIN));
    cr_assert_eq(kit_wait(&o), -EBADF);
    close(pipes[1]);
    kit_close(&k);
}

/* A client's socket, not connected yet: later there may be no number for one. */
static int client_of(const struct io_addr *addr, int s)
{
    cr_assert_eq(connect(s, &addr->sa, addr->len), 0);
    return s;
}

static void told(struct kit *k, int s, const char *what)
{
    char text[64] = "";
    ssize_t n = -1;
    for (int i = 0; i < 1000 && n < 0; i++) {
        io_turn(k->io, false);
        n = recv(s, text, sizeof text - 1, MSG_DONTWAIT);
    }
    cr_assert_str_eq(text, what);
    cr_assert_eq(recv(s, text, sizeof text, 0), 0, "and closed");
}

static void nothing(struct timer *t)
{
    (void)t;
}

/* The kernel takes the ring apart later; until then nobody may listen for the dead. */
Test(uring, a_listener_ends_with_its_process, .timeout = 30)
{
    struct io_listen_opts opts = {.backlog = 5, .reuse_port = true};
    struct io_params params = {.fd_count_max = 8, .cpu = -1};
    struct io_addr addr;
    struct why why = {0};
    int32_t fd;
    int ends[2], s;

    for (int round = 0; round < 10; round++) {
        cr_assert_eq(pipe(ends), 0);
        pid_t child = fork();
        if (child == 0) {
            struct io *io = create(&params);
            if (!io_addr_parse(&addr, SLICE_LIT("127.0.0.1"), 0) ||
                !io_listen(io, &addr, &opts, &fd, &why) || !io_local_addr(io, fd, &addr) ||
                write(ends[1], &addr, sizeof addr) != sizeof addr)
                _exit(1);
            for (;;)
                pause();
        }
        cr_assert_eq(read(ends[0], &addr, sizeof addr), sizeof addr);
        cr_assert_eq(kill(child, SIGKILL), 0);
        cr_assert_eq(waitpid(child, NULL, 0), child);
        cr_assert((s = socket(AF_INET, SOCK_STREAM, 0)) >= 0);
        cr_assert_eq(bind(s, &addr.sa, addr.len), 0, "round %d: %s", round, strerror(errno));
        close(s);
        close(ends[0]);
        close(ends[1]);
    }
}

/* FAULTS 51: EMFILE. Who connects is told, the listener does not spin, and goes on by itself. */
Test(uring_plain, f51_no_descriptor_left_who_connects_is_told, .timeout = 30)
{
    enum { COUNT = 8 };
    static const struct conform plain = {create_plain, io_destroy, turn, NULL};
    struct kit_listener l;
    struct kit k;
    struct timer late = {.fire = nothing};
    struct rlimit few;
    int clients[COUNT], used[64], used_count = 0, top;
    uint64_t turns;

    kit_open(&k, &plain, 0, 0);
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &few), 0);
    cr_assert((top = dup(0)) >= 0);
    close(top);
    few.rlim_cur = (rlim_t)top + 32;
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
    kit_listen(&k, &l, COUNT);
    l.acceptor.busy = "421 busy\r\n";
    io_turn(k.io, false);
    for (int i = 0; i < COUNT; i++)
        cr_assert((clients[i] = socket(AF_INET, SOCK_STREAM, 0)) >= 0);
    while ((top = dup(0)) >= 0)
        used[used_count++] = top;
    cr_assert_eq(errno, EMFILE);

    for (int i = 0; i < COUNT / 2; i++)
        told(&k, client_of(&l.addr, clients[i]), "421 busy\r\n");
    cr_assert_eq(l.conn_count, 0);
    cr_assert_geq(l.errors, 1);
    cr_assert(l.last_error == -EMFILE);
    uint64_t errors = l.errors;
    turns = io_stats(k.io)->turns;
    io_timer_set(k.io, &late, io_now_ns(k.io) + 450 * NS_PER_MS);
    while (timer_is_set(&late))
        io_turn(k.io, true);
    cr_assert_leq(l.errors - errors, 6, "once a pause");
    cr_assert_leq(io_stats(k.io)->turns - turns, 40, "it does not spin");

    while (used_count > 0)
        close(used[--used_count]);
    io_timer_set(k.io, &late, io_now_ns(k.io) + 150 * NS_PER_MS);
    while (timer_is_set(&late))
        io_turn(k.io, true);
    for (int i = COUNT / 2; i < COUNT; i++) {
        client_of(&l.addr, clients[i]);
        KIT_UNTIL(&k, l.conn_count > (uint32_t)(i - COUNT / 2));
    }
    while (l.conn_count > 0)
        io_close(k.io, l.conns[--l.conn_count].fd);
    kit_unlisten(&l);
    for (int i = 0; i < COUNT; i++)
        close(clients[i]);
    kit_close(&k);
}

/* Holds a port for a moment, as the kernel does for a process that was killed. */
struct squatter {
    int fd;
    struct io_addr addr;
};

static void *squat(void *arg)
{
    struct squatter *s = arg;

    usleep(50000);
    close(s->fd);
    return s;
}

Test(uring, listening_waits_for_what_a_killed_process_leaves, .timeout = 30)
{
    struct squatter s = {.fd = socket(AF_INET, SOCK_STREAM, 0)};
    struct io_listen_opts opts = {.backlog = 5};
    struct why why = {0};
    pthread_t thread;
    struct kit k;
    int32_t fd;

    kit_open(&k, &real, 0, 0);
    cr_assert(io_addr_parse(&s.addr, SLICE_LIT("127.0.0.1"), 0));
    cr_assert_eq(bind(s.fd, &s.addr.sa, s.addr.len), 0);
    cr_assert_eq(listen(s.fd, 5), 0);
    cr_assert_eq(getsockname(s.fd, &s.addr.sa, &s.addr.len), 0);
    cr_assert_eq(pthread_create(&thread, NULL, squat, &s), 0);
    cr_assert(io_listen(k.io, &s.addr, &opts, &fd, &why), "%s", why.text);
    pthread_join(thread, NULL);
    io_close(k.io, fd);
    kit_close(&k);
}

/*
 * So few completion entries that the kernel must keep some back, and ends multishot receives
 * early.
 */
Test(uring, completions_overflow_and_none_is_lost, .timeout = 60)
{
    enum { COUNT = 300 };
    static struct kit_conn clients[COUNT];
    static uint8_t data[20000];
    struct io_params params = {.queue_depth = 1,
                               .fd_count_max = 2 * COUNT + 8,
                               .recv_buf_count = 1024,
                               .recv_buf_size = 1024,
                               .cpu = -1};
    struct kit k = {.c = &real, .io = create(&params)};
    struct kit_listener l;
    struct kit_conn *server;

    kit_fill(data, sizeof data, 0);
    kit_listen(&k, &l, COUNT);
    for (int i = 0; i < COUNT; i++) {
        kit_connect(&l, &clients[i], &server);
        kit_receive(server);
    }
    for (int i = 0; i < COUNT; i++)
        kit_send(&clients[i], data, sizeof data);
    cr_assert_geq(io_uring_submit_and_get_events(&k.io->ring), 0);
    cr_assert(IO_URING_READ_ONCE(*k.io->ring.sq.kflags) & IORING_SQ_CQ_OVERFLOW);
    for (int i = 0; i < COUNT; i++) {
        KIT_UNTIL(&k, l.conns[i].got_len == sizeof data);
        cr_assert(kit_holds(l.conns[i].got, sizeof data, 0));
        cr_assert_eq(kit_wait(&clients[i].send), (int32_t)sizeof data);
    }
    for (int i = 0; i < COUNT; i++) {
        kit_disconnect(&clients[i]);
        kit_disconnect(&l.conns[i]);
    }
    kit_unlisten(&l);
    kit_close(&k);
}

/* How much of a long upload was handed over before one byte of another connection was. */
static size_t read_before(uint32_t recv_cap)
{
    static uint8_t data[40 * 1024];
    struct io_params params = {
        .fd_count_max = 16, .recv_buf_count = 64, .recv_buf_size = 1024, .cpu = -1};
    struct kit k = {.c = &real, .io = create(&params)};
    struct kit_listener l;
    struct kit_conn client[2], *server;
    size_t before;

    k.io->recv_cap = recv_cap;
    kit_fill(data, sizeof data, 0);
    kit_listen(&k, &l, 2);
    for (int i = 0; i < 2; i++) {
        kit_connect(&l, &client[i], &server);
        kit_receive(server);
    }
    io_turn(k.io, false);
    kit_send(&client[0], data, sizeof data);
    kit_send(&client[1], data, 1);
    KIT_UNTIL(&k, l.conns[1].got_len == 1);
    before = l.conns[0].got_len;
    KIT_UNTIL(&k, l.conns[0].got_len == sizeof data);
    cr_assert(kit_holds(l.conns[0].got, sizeof data, 0));
    for (int i = 0; i < 2; i++) {
        kit_disconnect(&client[i]);
        kit_disconnect(&l.conns[i]);
    }
    kit_unlisten(&l);
    if (recv_cap > INT32_MAX) /* as a kernel does that knows no such length */
        cr_assert_eq(k.io->recv_cap, 0);
    else if (recv_cap && k.io->recv_cap == 0) /* before Linux 6.17 there is no such bound */
        before = 0;
    kit_close(&k);
    return before;
}

Test(uring, one_long_upload_does_not_hold_up_a_short_command, .timeout = 30)
{
    cr_assert_leq(read_before(1024), 4096);
    cr_assert_leq(read_before(RECV_BUNDLE * 1024), RECV_BUNDLE * 4096);
    cr_assert_geq(read_before(0), 16 * 1024, "else this test shows nothing");
}

Test(uring, a_kernel_that_refuses_a_length_receives_without, .timeout = 30)
{
    (void)read_before(1u << 31);
}

/*
 * Many uploads at once: a turn of the loop reads but some of them, each gets its share, and one
 * byte of somebody else waits for a turn or two and not for all of them.
 */
Test(uring, uploads_are_read_in_turns, .timeout = 60)
{
    enum { UPLOADS = 40, SIZE = 128 * 1024, BUF = 1024 };
    static uint8_t data[SIZE];
    static struct kit_conn clients[UPLOADS + 1];
    struct io_params params = {
        .fd_count_max = 2 * UPLOADS + 16, .recv_buf_count = 1024, .recv_buf_size = BUF, .cpu = -1};
    struct kit k = {.c = &real, .io = create(&params)};
    struct kit_listener l;
    struct kit_conn *server, *brief = &clients[UPLOADS];
    size_t read = 0;

    kit_fill(data, sizeof data, 0);
    kit_listen(&k, &l, UPLOADS + 1);
    for (int i = 0; i <= UPLOADS; i++) {
        kit_connect(&l, &clients[i], &server);
        kit_receive(server);
    }
    for (int i = 0; i < UPLOADS; i++)
        kit_send(&clients[i], data, sizeof data);
    for (int i = 0; i < UPLOADS; i++) /* known as uploads from here on */
        KIT_UNTIL(&k, l.conns[i].got_len >= (RECV_BULK_AFTER + 2) * BUF);
    for (int i = 0; i < 8; i++) /* what is under way otherwise ends */
        io_turn(k.io, false);
    for (int turn = 0; turn < 20; turn++) {
        size_t had[UPLOADS], all = 0;
        for (int i = 0; i < UPLOADS; i++)
            had[i] = l.conns[i].got_len;
        io_turn(k.io, false);
        for (int i = 0; i < UPLOADS; i++) {
            cr_assert_leq(l.conns[i].got_len, had[i] + BUF, "one buffer a turn");
            all += l.conns[i].got_len - had[i];
        }
        cr_assert_leq(all, RECV_BULK_TURNS * BUF, "and so many of them");
        read += all;
    }
    cr_assert_gt(read, 0);
    kit_send(brief, data, 1);
    KIT_UNTIL(&k, l.conns[UPLOADS].got_len == 1);
    for (int i = 0; i < UPLOADS; i++) {
        KIT_UNTIL(&k, l.conns[i].got_len == sizeof data);
        cr_assert(kit_holds(l.conns[i].got, sizeof data, 0));
        cr_assert_eq(kit_wait(&clients[i].send), SIZE);
    }
    for (int i = 0; i <= UPLOADS; i++) {
        kit_disconnect(&clients[i]);
        kit_disconnect(&l.conns[i]);
    }
    kit_unlisten(&l);
    kit_close(&k);
}

/* One call sleeps while completions of others come in: they are kept. */
Test(uring, a_synchronous_call_keeps_other_completions, .timeout = 30)
{
    struct kit k;
    struct kit_listener l;
    struct kit_conn client, *server;
    struct io_addr addr;

    kit_open(&k, &real, 0, 0);
    kit_listen(&k, &l, 1);
    kit_connect(&l, &client, &server);
    kit_receive(server);
    kit_send(&client, "hello", 5);
    for (int i = 0; i < 20; i++) {
        k.starting++;
        (void)!io_local_addr(k.io, client.fd, &addr); /* the call counts, not its result */
        k.starting--;
    }
    KIT_UNTIL(&k, server->got_len == 5 && client.send.done_count == 1);
    kit_disconnect(&client);
    kit_disconnect(server);
    kit_unlisten(&l);
    kit_close(&k);
}

/* On a thread of its own, so that the namespace is nobody else's, nor the kernel's workers. */
static void *full_disk(void *dir)
{
    static uint8_t data[3 << 20];
    char path[256];
    struct conform c = real;
    struct kit_op o;
    struct kit k;
    int32_t fd;

    if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("none", dir, "tmpfs", 0, "size=1m") < 0)
        return NULL;
    c.dir = dir;
    kit_open(&k, &c, 0, 0);
    kit_op_init(&k, &o);
    fd = kit_open_file(&k, kit_path(&k, "file", path), IO_WRITE | IO_CREATE);
    cr_assert_geq(fd, 0);
    START(&k, io_write_sync(k.io, &o.op, fd, data, sizeof data, 0));
    cr_assert_eq(kit_wait(&o), -EIO, "some of it fits: a short write");
    START(&k, io_write_sync(k.io, &o.op, fd, data, sizeof data, 1 << 20));
    cr_assert_eq(kit_wait(&o), -ENOSPC);
    START(&k, io_allocate(k.io, &o.op, fd, 1 << 20, 2 << 20));
    cr_assert_eq(kit_wait(&o), -ENOSPC);
    io_close(k.io, fd);
    kit_close(&k);
    return dir;
}

Test(uring, a_full_disk_is_told, .timeout = 30)
{
    char dir[] = "/tmp/hikyaku-full-XXXXXX";
    pthread_t thread;
    void *result;

    cr_assert_not_null(mkdtemp(dir));
    cr_assert_eq(pthread_create(&thread, NULL, full_disk, dir), 0);
    pthread_join(thread, &result);
    rmdir(dir);
    if (!result)
        cr_skip_test("mounting needs root");
}

/* ---- what its users must not do ---- */

static void misuse(struct kit_listener *l, struct kit_conn *client, struct kit_conn **server,
                   struct kit *k)
{
    kit_open(k, &real, 0, 0);
    kit_listen(k, l, 1);
    kit_connect(l, client, server);
}

Test(uring, closing_under_a_receive_is_asserted, .signal = SIGABRT)
{
    struct kit k;
    struct kit_listener l;
    struct kit_conn client, *server;

    misuse(&l, &client, &server, &k);
    kit_receive(server);
    io_close(k.io, server->fd);
}

Test(uring, closing_twice_is_asserted, .signal = SIGABRT)
{
    struct kit k;
    struct kit_listener l;
    struct kit_conn client, *server;

    misuse(&l, &client, &server, &k);
    io_close(k.io, server->fd);
    io_close(k.io, server->fd);
}

Test(uring, a_second_send_is_asserted, .signal = SIGABRT)
{
    struct kit k;
    struct kit_listener l;
    struct kit_conn client, *server;
    struct kit_op second;

    misuse(&l, &client, &server, &k);
    kit_op_init(&k, &second);
    kit_send(server, "one", 3);
    io_send(k.io, &second.op, server->fd, "two", 3, IO_END_NONE);
}

Test(uring, ending_with_operations_under_way_is_asserted, .signal = SIGABRT)
{
    struct kit k;
    struct kit_listener l;
    struct kit_conn client, *server;

    misuse(&l, &client, &server, &k);
    kit_close(&k);
}

/* ---- threads ---- */

#define THREADS     3u
#define THREAD_SENT 20000u

struct thread {
    pthread_t id;
    struct io_group *group;
    struct io *io;
    uint32_t peer;
    uint64_t sent[THREADS], got[THREADS];
    uint32_t wrong;
    struct timer pace;
    atomic_uint *finished;
};

static void thread_got(void *arg, const struct ring_item *item)
{
    struct thread *t = arg;

    if (item->a != t->got[item->from] || *(uint64_t *)item->ptr != item->a)
        t->wrong++;
    free(item->ptr);
    t->got[item->from]++;
}

/* Sends in bursts, with pauses in which everybody falls asleep. */
static void thread_send(struct thread *t)
{
    for (uint32_t to = 0; to < THREADS; to++) {
        for (uint32_t burst = 0; burst < 500 && t->sent[to] < THREAD_SENT; burst++) {
            struct ring_item item = {.kind = 1, .a = t->sent[to], .ptr = malloc(8)};
            *(uint64_t *)item.ptr = item.a;
            if (!io_post(t->io, to, &item)) {
                free(item.ptr);
                break;
            }
            t->sent[to]++;
        }
    }
}

static void thread_pace(struct timer *timer)
{
    struct thread *t = container_of(timer, struct thread, pace);
    bool more = false;

    thread_send(t);
    for (uint32_t to = 0; to < THREADS; to++)
        more |= t->sent[to] < THREAD_SENT;
    if (more)
        io_timer_set(t->io, timer, io_now_ns(t->io) + io_chance(t->io, 300 * NS_PER_US));
}

static void *thread_run(void *arg)
{
    struct thread *t = arg;
    struct io_params params = {
        .group = t->group, .peer = t->peer, .queue_depth = 64, .fd_count_max = 8, .cpu = -1};
    struct why why;

    t->io = io_create(&params, &why);
    if (!t->io)
        return NULL;
    io_on_message(t->io, thread_got, t);
    t->pace.fire = thread_pace;
    io_timer_set(t->io, &t->pace, 0);
    for (;;) {
        bool all = !timer_is_set(&t->pace);
        for (uint32_t from = 0; from < THREADS; from++)
            all &= t->got[from] == THREAD_SENT;
        if (all)
            break;
        io_turn(t->io, true); /* once all is sent there is no timer: only a wake-up ends it */
    }
    /* Wake-ups of the last turn are on their way; leave when everybody has all. */
    atomic_fetch_add(t->finished, 1);
    while (atomic_load(t->finished) < THREADS) {
        io_turn(t->io, false);
        sched_yield();
    }
    io_destroy(t->io);
    return t;
}

Test(uring, threads_lose_no_message_and_no_wake_up, .timeout = 60)
{
    static struct thread threads[THREADS];
    struct io_group *group = io_group_create(THREADS);
    atomic_uint finished = 0;
    void *result;

    for (uint32_t i = 0; i < THREADS; i++) {
        threads[i] = (struct thread){.group = group, .peer = i, .finished = &finished};
        cr_assert_eq(pthread_create(&threads[i].id, NULL, thread_run, &threads[i]), 0);
    }
    for (uint32_t i = 0; i < THREADS; i++) {
        pthread_join(threads[i].id, &result);
        cr_assert_eq(result, &threads[i]);
        cr_assert_eq(threads[i].wrong, 0);
    }
    io_group_destroy(group);
}
