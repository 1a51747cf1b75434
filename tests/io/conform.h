/*
 * tests/io/conform.h - what every backend of gateway/io/io.h must do, as functions that a test
 * binary calls.
 *
 * Written against io.h alone. A backend gives a `struct conform` that makes and turns its ios; each
 * function below is one test and fails through Criterion. Nothing here may depend on how long
 * something takes in real time.
 */
#ifndef HIKYAKU_TESTS_IO_CONFORM_H
#define HIKYAKU_TESTS_IO_CONFORM_H

#include "gateway/io/io.h"

struct conform {
    struct io *(*create)(const struct io_params *params);
    void (*destroy)(struct io *io);
    void (*turn)(struct io *io);
    const char *dir; /* an empty directory */
};

/* conform_net.c */
void conform_echo(const struct conform *c);
void conform_slow_reader(const struct conform *c);
void conform_send_last(const struct conform *c);
void conform_close_with_data(const struct conform *c);
void conform_reset(const struct conform *c);
void conform_connect_errors(const struct conform *c);
void conform_source_address(const struct conform *c);
void conform_bad_fd(const struct conform *c);
void conform_listen_errors(const struct conform *c);
void conform_listener_ends(const struct conform *c);
void conform_reuse_port(const struct conform *c);

/* conform_load.c */
void conform_many_connections(const struct conform *c);
void conform_buffers_run_out(const struct conform *c);
void conform_parked_receive_is_cancelled(const struct conform *c);
void conform_descriptors_come_back(const struct conform *c);
void conform_descriptors_run_out(const struct conform *c);
void conform_accept_pauses(const struct conform *c);
void conform_close_after_cancel(const struct conform *c);

/* conform_random.c */
void conform_random(const struct conform *c);

/* conform_cancel.c */
void conform_cancel_receive(const struct conform *c);
void conform_cancel_send(const struct conform *c);
void conform_cancel_connect(const struct conform *c);
void conform_cancel_idle(const struct conform *c);
void conform_cancel_file(const struct conform *c);
void conform_accept_stop(const struct conform *c);

/* conform_turn.c */
void conform_timers(const struct conform *c);
void conform_timer_storm(const struct conform *c);
void conform_turn_order(const struct conform *c);
void conform_time_and_chance(const struct conform *c);
void conform_restart_in_done(const struct conform *c);
void conform_messages(const struct conform *c);
void conform_messages_wait(const struct conform *c);

/* conform_file.c */
void conform_file_write_read(const struct conform *c);
void conform_file_write_sync(const struct conform *c);
void conform_file_names(const struct conform *c);
void conform_file_errors(const struct conform *c);
void conform_file_direct(const struct conform *c);
void conform_dir_and_disk(const struct conform *c);
void conform_lock(const struct conform *c);

#endif
