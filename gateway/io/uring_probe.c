/*
 * gateway/io/uring_probe.c - can this kernel do what the io_uring backend needs, and if not, what
 * helps?
 *
 * Owns:     a ring for the time of the call.
 * Runs on:  the main thread, once, before anything else.
 * Contract: true: io_create will not fail for want of a feature. False: one line that says what to
 *           do.
 * Failure:  as above; nothing is left behind.
 * Bounds:   none.
 * Tests:    tests/unit/test_uring_probe.c
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "gateway/io/uring_internal.h"

#define SYSCTL_PATH "/proc/sys/kernel/io_uring_disabled"

/* The value of the sysctl, or -1: there is none (before Linux 6.6), or /proc is closed. */
static int read_disabled(void)
{
    char text[8];
    int fd = open(SYSCTL_PATH, O_RDONLY | O_CLOEXEC);
    ssize_t n;

    if (fd < 0)
        return -1;
    n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0)
        return -1;
    text[n] = '\0';
    return (int)strtol(text, NULL, 10);
}

static bool release_is_new_enough(const char *release)
{
    int major = 0, minor = 0;

    return sscanf(release, "%d.%d", &major, &minor) == 2 &&
           (major > 6 || (major == 6 && minor >= 1));
}

void uring_advise(int error, int disabled, const char *release, struct why *why)
{
    if (!release_is_new_enough(release))
        why_set(why, 0, "", "Linux 6.1 or newer is needed, this is %s: install a newer kernel",
                release);
    else if (disabled > 0)
        why_set(why, 0, "", "io_uring is switched off: run `sysctl kernel.io_uring_disabled=0`%s",
                disabled == 1 ? ", or put the user into the group of kernel.io_uring_group" : "");
    else if (error == EPERM || error == EACCES)
        why_set(why, 0, "",
                "io_uring is forbidden here, as containers do: use the seccomp profile "
                "deploy/container/seccomp.json, or allow io_uring_setup, io_uring_enter and "
                "io_uring_register in yours");
    else if (error == ENOSYS)
        why_set(why, 0, "",
                "this kernel (%s) was built without io_uring, or a seccomp profile hides it: use "
                "deploy/container/seccomp.json, or allow io_uring_setup, io_uring_enter and "
                "io_uring_register in yours, or install another kernel",
                release);
    else if (error == ENOMEM)
        why_set(why, 0, "",
                "no memory for an io_uring: raise the memory limit (LimitMEMLOCK=, ulimit -l)");
    else if (error == EMFILE || error == ENFILE)
        why_set(why, 0, "", "no descriptor for an io_uring: raise LimitNOFILE= or ulimit -n");
    else
        why_set(why, 0, "", "cannot create an io_uring on Linux %s: %s", release, strerror(error));
}

/*
 * The newest operation needed came with Linux 6.0; an older one may be forbidden by a restricted
 * build.
 */
static bool has_operations(struct io_uring *ring)
{
    static const uint8_t needed[] = {
        IORING_OP_ACCEPT,   IORING_OP_CONNECT,   IORING_OP_RECV,         IORING_OP_SEND,
        IORING_OP_SHUTDOWN, IORING_OP_POLL_ADD,  IORING_OP_ASYNC_CANCEL, IORING_OP_CLOSE,
        IORING_OP_OPENAT,   IORING_OP_READ,      IORING_OP_WRITE,        IORING_OP_FSYNC,
        IORING_OP_STATX,    IORING_OP_FALLOCATE, IORING_OP_UNLINKAT,     IORING_OP_RENAMEAT,
        IORING_OP_MSG_RING, IORING_OP_SEND_ZC,   IORING_OP_FILES_UPDATE,
    };
    struct io_uring_probe *probe = io_uring_get_probe_ring(ring);
    bool all = probe != NULL;

    for (size_t i = 0; all && i < sizeof needed; i++)
        all = io_uring_opcode_supported(probe, needed[i]);
    io_uring_free_probe(probe);
    return all;
}

/* Sends one entry through: io_uring_enter may be forbidden when the rest is not. */
static int try_entry(struct io_uring *ring)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
    int r;

    io_uring_prep_nop(sqe);
    r = io_uring_submit_and_wait(ring, 1);
    return r < 0 ? r : 0;
}

bool io_probe(struct why *why)
{
    struct io_uring_params params = {.flags = URING_SETUP_FLAGS};
    struct io_uring ring;
    struct utsname name;
    int r = io_uring_queue_init_params(4, &ring, &params);

    if (uname(&name) < 0)
        memcpy(name.release, "?", 2);
    if (r == 0) {
        r = has_operations(&ring) ? try_entry(&ring) : -ENOSYS;
        io_uring_queue_exit(&ring);
    }
    if (r < 0) {
        uring_advise(-r, read_disabled(), name.release, why);
        return false;
    }
    return true;
}
