/*
 * tests/unit/test_uring_probe.c - gateway/io/uring_probe.c: one line that says what to do.
 */
#include <criterion/criterion.h>
#include <errno.h>

#include "gateway/io/uring_internal.h"

static void advises(int error, int disabled, const char *release, const char *text)
{
    struct why why = {0};

    uring_advise(error, disabled, release, &why);
    cr_expect_not_null(strstr(why.text, text), "%s", why.text);
    cr_expect_null(strchr(why.text, '\n'));
}

Test(uring_probe, names_what_helps)
{
    advises(ENOSYS, -1, "4.19.0-27-amd64", "Linux 6.1 or newer");
    advises(EINVAL, -1, "5.10.0", "this is 5.10.0");
    advises(EINVAL, -1, "6.0.19", "Linux 6.1 or newer");
    advises(EPERM, 2, "6.8.0-31-generic", "sysctl kernel.io_uring_disabled=0");
    advises(EPERM, 1, "6.8.0", "kernel.io_uring_group");
    advises(EPERM, 0, "6.8.0", "seccomp");
    advises(EPERM, -1, "6.1.0", "io_uring_setup, io_uring_enter and io_uring_register");
    advises(ENOSYS, 0, "6.1.0", "built without io_uring");
    advises(ENOMEM, 0, "6.1.0", "memory limit");
    advises(EMFILE, 0, "6.1.0", "LimitNOFILE");
    advises(EIO, 0, "6.12.1", "Input/output error");
}

Test(uring_probe, is_content_where_the_tests_run)
{
    struct why why = {0};

    cr_assert(io_probe(&why), "%s", why.text);
}
