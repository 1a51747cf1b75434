/*
 * tests/sim/sim_fd.c - the simulated backend: descriptors.
 *
 * Owns:     the descriptors of an io.
 * Runs on:  the one thread of the simulation.
 * Contract: a descriptor is a slot and a generation, so one that was closed is told from its
 *           slot's next user. It is given back when no operation names it any more.
 * Failure:  past the limit: -ENFILE. Using or closing one that is closed, or closing one whose
 *           receive or send goes on without having been cancelled: aborts. Bounds: the limit of
 *           the io, SIM_FD_SLOTS. Tests: tests/sim/test_io_sim.c
 */
#include <errno.h>
#include <stdlib.h>

#include "tests/sim/sim_internal.h"

#define FDS_FIRST 64u

static uint32_t slot_of(int32_t fd)
{
    return (uint32_t)fd & (SIM_FD_SLOTS - 1);
}

static uint16_t generation_of(int32_t fd)
{
    return (uint16_t)((uint32_t)fd >> SIM_FD_SLOT_BITS);
}

static void fds_grow(struct io *io)
{
    uint32_t cap = io->fd_cap ? 2 * io->fd_cap : FDS_FIRST;

    io->fds = realloc(io->fds, cap * sizeof *io->fds);
    SIM_CHECK(io->fds, "no memory");
    memset(io->fds + io->fd_cap, 0, (cap - io->fd_cap) * sizeof *io->fds);
    io->fd_cap = cap;
}

int32_t sim_fd_open(struct io *io, enum sim_fd_kind kind)
{
    uint32_t slot;
    struct sim_fd *f;

    if (io->fd_used >= io->fd_limit)
        return -ENFILE;
    if (io->fd_free) {
        slot = io->fd_free - 1;
        io->fd_free = io->fds[slot].next_free;
    } else {
        if (io->fd_count == io->fd_cap)
            fds_grow(io);
        slot = io->fd_count++;
    }
    f = &io->fds[slot];
    /* Generation 0 is nobody's: small numbers never were descriptors. */
    f->generation = f->generation + 1u < SIM_FD_GENERATIONS ? f->generation + 1u : 1u;
    f->kind = (uint8_t)kind;
    f->closing = false;
    f->busy = 0;
    f->open_flags = 0;
    f->sock = NULL;
    io->fd_used++;
    return (int32_t)((uint32_t)f->generation << SIM_FD_SLOT_BITS | slot);
}

struct sim_fd *sim_fd_of(struct io *io, int32_t fd, const char *what)
{
    uint32_t slot = slot_of(fd);

    if (fd < 0 || generation_of(fd) == 0)
        return NULL;
    SIM_CHECK(slot < io->fd_count, "%s: descriptor %d of another thread (%s)", what, fd,
              io->host->name);
    SIM_CHECK(io->fds[slot].generation == generation_of(fd) && io->fds[slot].kind != SIM_FD_NONE &&
                  !io->fds[slot].closing,
              "%s: descriptor %d is closed (%s)", what, fd, io->host->name);
    return &io->fds[slot];
}

struct sim_fd *sim_fd_held(struct io *io, int32_t fd)
{
    struct sim_fd *f = &io->fds[slot_of(fd)];

    SIM_CHECK(f->generation == generation_of(fd) && f->busy > 0, "simulator: nothing holds %d", fd);
    return f;
}

void sim_fd_hold(struct io *io, int32_t fd)
{
    io->fds[slot_of(fd)].busy++;
}

static void give_back(struct io *io, struct sim_fd *f)
{
    switch ((enum sim_fd_kind)f->kind) {
    case SIM_FD_FILE: sim_inode_put(io->host->disk, f->node); break;
    case SIM_FD_SOCK: sim_sock_close(f->sock, false); break;
    case SIM_FD_LISTENER: sim_listener_close(f->listener, false); break;
    case SIM_FD_OPENING:
    case SIM_FD_NONE: break;
    }
    f->kind = SIM_FD_NONE;
    f->next_free = io->fd_free;
    io->fd_free = (uint32_t)(f - io->fds) + 1;
    io->fd_used--;
}

void sim_fd_release(struct io *io, int32_t fd)
{
    struct sim_fd *f = sim_fd_held(io, fd);

    if (--f->busy == 0 && f->closing)
        give_back(io, f);
}

void io_close(struct io *io, int32_t fd)
{
    struct sim_fd *f = sim_fd_of(io, fd, "io_close");

    SIM_CHECK(f, "io_close: %d was never a descriptor (%s)", fd, io->host->name);
    if (f->kind == SIM_FD_SOCK) {
        const struct sim_call *recv = f->sock->recv, *send = f->sock->send;
        SIM_CHECK(!recv || (recv->op->flags & SIM_CANCELLED), "io_close: a receive goes on (%s)",
                  io->host->name);
        SIM_CHECK(!send || (send->op->flags & SIM_CANCELLED), "io_close: a send goes on (%s)",
                  io->host->name);
    }
    f->closing = true;
    sim_note(io->sim, io->host, "close", io->number, fd);
    if (f->busy == 0)
        give_back(io, f);
}
