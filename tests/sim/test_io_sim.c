/*
 * tests/sim/test_io_sim.c - the simulated backend: the conformance suite of io.h, calm and in bad
 * weather, and what it tells its users when they do wrong.
 */
#include <criterion/criterion.h>

#include "tests/io/conform_kit.h"
#include "tests/sim/sim_internal.h"

#define DIR "/disk/t"

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
    .create = create, .destroy = io_destroy, .turn = turn, .dir = DIR};

/* What makes nothing fail: short, split, late, out of order. */
static const struct sim_faults rough = {
    .send_split = 300,
    .recv_short = 200,
    .recv_again = 200,
    .buf_none = 50,
    .reorder = 300,
    .turn_part = 200,
    .cancel_late = 300,
    .stall = 20,
    .stall_ns = 20 * NS_PER_MS,
};

static struct sim *world(uint64_t seed)
{
    struct sim *sim = sim_create(seed);
    struct sim_host *host = sim_host_add(sim, "host", "10.0.0.1");
    struct why why;

    sim_host_enter(host);
    cr_assert(io_mkdir(NULL, "/disk", &why));
    cr_assert(io_mkdir(NULL, DIR, &why));
    return sim;
}

static void conform(void (*test)(const struct conform *c), uint64_t seeds,
                    const struct sim_faults *faults)
{
    for (uint64_t seed = 1; seed <= seeds; seed++) {
        struct sim *sim = world(seed);
        sim_host_faults(sim->current, faults);
        test(&simulated);
        sim_destroy(sim);
    }
}

/* Calm, and with what a rough network and a loaded machine do. */
#define CONFORM(name, seeds)                          \
    Test(sim, name, .timeout = 60)                    \
    {                                                 \
        conform(conform_##name, 1, &sim_faults_none); \
    }                                                 \
    Test(sim_rough, name, .timeout = 60)              \
    {                                                 \
        conform(conform_##name, seeds, &rough);       \
    }
/* Those that count turns. */
#define CONFORM_CALM(name)                            \
    Test(sim, name, .timeout = 60)                    \
    {                                                 \
        conform(conform_##name, 5, &sim_faults_none); \
    }

CONFORM(echo, 20)
CONFORM(slow_reader, 5)
CONFORM(send_last, 5)
CONFORM(close_with_data, 50)
CONFORM(reset, 50)
CONFORM(connect_errors, 5)
CONFORM(source_address, 20)
CONFORM(bad_fd, 20)
CONFORM(listen_errors, 5)
CONFORM(listener_ends, 5)
CONFORM(reuse_port, 20)
CONFORM(many_connections, 2)
CONFORM_CALM(buffers_run_out)
CONFORM_CALM(parked_receive_is_cancelled)
CONFORM(descriptors_come_back, 5)
CONFORM(descriptors_run_out, 20)
CONFORM(accept_pauses, 5)
CONFORM_CALM(close_after_cancel)
CONFORM(random, 3)
CONFORM(cancel_receive, 20)
CONFORM(cancel_send, 5)
CONFORM(cancel_connect, 10)
CONFORM(cancel_idle, 1)
CONFORM(cancel_file, 20)
CONFORM(accept_stop, 20)
CONFORM(timers, 20)
CONFORM(timer_storm, 2)
CONFORM(turn_order, 20)
CONFORM(time_and_chance, 2)
CONFORM(restart_in_done, 5)
CONFORM(messages, 5)
CONFORM(messages_wait, 20)
CONFORM(file_write_read, 20)
CONFORM(file_write_sync, 5)
CONFORM(file_names, 20)
CONFORM(file_errors, 5)
CONFORM(file_direct, 20)
CONFORM(dir_and_disk, 5)
CONFORM(lock, 5)
