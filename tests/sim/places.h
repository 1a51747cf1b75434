/*
 * tests/sim/places.h - which line of the product starts an operation.
 *
 * The compiler is told to include it (-include) before each file of the product that is compiled
 * for the simulator: every call of io.h that can fail leaves its place in a section of the program,
 * also one that never runs, and says where it is when it runs. A new call is found so by itself.
 */
#ifndef HIKYAKU_TESTS_SIM_PLACES_H
#define HIKYAKU_TESTS_SIM_PLACES_H

#include "gateway/io/io.h"

struct sim_place {
    const char *file, *function, *call;
    uint32_t line;
};

/* Where the call that comes now is made; whoever takes it clears it. */
extern const struct sim_place *sim_place_now;

#ifdef HIKYAKU_PLANTS /* a file of the product, for the simulator */

#define SIM_HERE(name)                                                                            \
    ({                                                                                            \
        static const struct sim_place place_                                                      \
            __attribute__((section("sim_places"), used)) = {__FILE__, __func__, #name, __LINE__}; \
        sim_place_now = &place_;                                                                  \
    })

/* A send for each way to end. Alignment: the section has no gaps. */
#define SIM_HERE_SEND(end)                                                          \
    ({                                                                              \
        static const struct sim_place places_[]                                     \
            __attribute__((section("sim_places"), used, aligned(8))) = {            \
                [IO_END_NONE] = {__FILE__, __func__, "io_send", __LINE__},          \
                [IO_END_SHUTDOWN] = {__FILE__, __func__, "io_send shut", __LINE__}, \
                [IO_END_CLOSE] = {__FILE__, __func__, "io_send close", __LINE__}};  \
        sim_place_now = &places_[end];                                              \
    })

#define io_accept_start(...) (SIM_HERE(io_accept_start), io_accept_start(__VA_ARGS__))
#define io_allocate(...)     (SIM_HERE(io_allocate), io_allocate(__VA_ARGS__))
#define io_connect(...)      (SIM_HERE(io_connect), io_connect(__VA_ARGS__))
#define io_create(...)       (SIM_HERE(io_create), io_create(__VA_ARGS__))
#define io_disk_free(...)    (SIM_HERE(io_disk_free), io_disk_free(__VA_ARGS__))
#define io_file_size(...)    (SIM_HERE(io_file_size), io_file_size(__VA_ARGS__))
#define io_list_dir(...)     (SIM_HERE(io_list_dir), io_list_dir(__VA_ARGS__))
#define io_listen(...)       (SIM_HERE(io_listen), io_listen(__VA_ARGS__))
#define io_lock(...)         (SIM_HERE(io_lock), io_lock(__VA_ARGS__))
#define io_memory(...)       (SIM_HERE(io_memory), io_memory(__VA_ARGS__))
#define io_mkdir(...)        (SIM_HERE(io_mkdir), io_mkdir(__VA_ARGS__))
#define io_open(...)         (SIM_HERE(io_open), io_open(__VA_ARGS__))
#define io_poll_raw(...)     (SIM_HERE(io_poll_raw), io_poll_raw(__VA_ARGS__))
#define io_port_check(...)   (SIM_HERE(io_port_check), io_port_check(__VA_ARGS__))
#define io_post(...)         (SIM_HERE(io_post), io_post(__VA_ARGS__))
#define io_read(...)         (SIM_HERE(io_read), io_read(__VA_ARGS__))
#define io_recv(...)         (SIM_HERE(io_recv), io_recv(__VA_ARGS__))
#define io_rename(...)       (SIM_HERE(io_rename), io_rename(__VA_ARGS__))
#define io_send(io, op, fd, data, len, end) \
    (SIM_HERE_SEND(end), io_send(io, op, fd, data, len, end))
#define io_sync(...)       (SIM_HERE(io_sync), io_sync(__VA_ARGS__))
#define io_unlink(...)     (SIM_HERE(io_unlink), io_unlink(__VA_ARGS__))
#define io_write(...)      (SIM_HERE(io_write), io_write(__VA_ARGS__))
#define io_write_sync(...) (SIM_HERE(io_write_sync), io_write_sync(__VA_ARGS__))
#endif

#endif
