/*
 * tests/unit/test_uring.c - the io_uring backend: the conformance suite, and what only a real
 * kernel shows.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/io/conform.h"

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

static void conform(void (*test)(const struct conform *c))
{
    char dir[] = "/tmp/hikyaku-io-XXXXXX", command[64];
    struct conform c = {.create = create, .destroy = io_destroy, .turn = turn};

    c.dir = mkdtemp(dir);
    cr_assert_not_null(c.dir);
    test(&c);
    snprintf(command, sizeof command, "rm -r %s", dir);
    cr_assert_eq(system(command), 0);
}

#define CONFORM(name)                \
    Test(uring, name, .timeout = 60) \
    {                                \
        conform(conform_##name);     \
    }

CONFORM(echo)
CONFORM(slow_reader)
CONFORM(close_with_data)
CONFORM(reset)
CONFORM(connect_errors)
CONFORM(source_address)
CONFORM(bad_fd)
CONFORM(listen_errors)
