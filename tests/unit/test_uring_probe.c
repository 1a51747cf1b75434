/*
 * tests/unit/test_uring_probe.c - gateway/io/uring_probe.c: one line that says what to do.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

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
    advises(EPERM, -1, "6.1.0", "deploy/container/seccomp.json");
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

struct refusal {
    uint32_t syscall;
    int error;
    bool probed;
    struct why why;
};

/* What a container's profile does; it holds for this thread alone. */
static void *probe_refused(void *arg)
{
    struct refusal *r = arg;
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, r->syscall, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)r->error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof code / sizeof *code, .filter = code};

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
        return NULL;
    r->probed = io_probe(&r->why);
    return r;
}

static void refuse(uint32_t syscall, int error, const char *text)
{
    struct refusal r = {.syscall = syscall, .error = error};
    pthread_t thread;
    void *result;

    cr_assert_eq(pthread_create(&thread, NULL, probe_refused, &r), 0);
    pthread_join(thread, &result);
    if (!result)
        cr_skip_test("no seccomp here");
    cr_expect_not(r.probed);
    cr_expect_not_null(strstr(r.why.text, text), "%s", r.why.text);
}

Test(uring_probe, says_so_when_a_profile_forbids_it)
{
    refuse(SYS_io_uring_setup, EPERM, "seccomp profile");
    refuse(SYS_io_uring_setup, ENOSYS, "seccomp profile hides it");
    refuse(SYS_io_uring_register, EPERM, "io_uring_register");
    refuse(SYS_io_uring_enter, EPERM, "io_uring_enter");
}
