/*
 * gateway/io/io_sync.c - the plain system calls of io.h: for start, reload and slow paths.
 *
 * Owns:     nothing; a lock belongs to its caller.
 * Runs on:  the calling thread, which waits.
 * Contract: see io.h. A lock is one of the open file (F_OFD_SETLK): it goes when the process ends,
 *           however that happens, and two locks of one process exclude each other too.
 * Failure:  false, and `why` names the path and the reason.
 * Bounds:   none.
 * Tests:    tests/unit/test_uring.c
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "gateway/io/io.h"

#define DIR_MODE  0700
#define FILE_MODE 0600
#define PID_MAX   24

bool io_mkdir(struct io *io, const char *path, struct why *why)
{
    struct stat st;
    int error;

    (void)io;
    if (mkdir(path, DIR_MODE) == 0)
        return true;
    error = errno;
    if (error == EEXIST) {
        if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
            return true;
        error = ENOTDIR;
    }
    why_set(why, 0, "", "cannot make the directory %s: %s", path, strerror(error));
    return false;
}

bool io_list_dir(struct io *io, const char *path, bool (*each)(void *arg, const char *name),
                 void *arg, struct why *why)
{
    DIR *dir = opendir(path);
    struct dirent *entry;
    int error = errno;

    (void)io;
    if (dir) {
        for (errno = 0; (entry = readdir(dir)); errno = 0) {
            if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
                continue;
            if (!each(arg, entry->d_name))
                break;
        }
        error = entry ? 0 : errno;
        closedir(dir);
        if (error == 0)
            return true;
    }
    why_set(why, 0, "", "cannot read the directory %s: %s", path, strerror(error));
    return false;
}

bool io_disk_free(struct io *io, const char *path, uint64_t *free_bytes, uint64_t *total_bytes,
                  uint64_t *free_inodes)
{
    struct statvfs fs;

    (void)io;
    if (statvfs(path, &fs) < 0)
        return false;
    *free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
    *total_bytes = (uint64_t)fs.f_blocks * fs.f_frsize;
    *free_inodes = fs.f_files == 0 ? UINT64_MAX : fs.f_favail;
    return true;
}

bool io_disk_in_place(struct io *io, const char *path)
{
    struct statfs fs;

    (void)io;
    return statfs(path, &fs) == 0 &&
           (fs.f_type == EXT4_SUPER_MAGIC || fs.f_type == XFS_SUPER_MAGIC);
}

/* The number behind `key` in a small file (NULL: its first one). False: none. */
static bool file_number(const char *path, const char *key, uint64_t *number)
{
    char text[4096];
    const char *at = text;
    ssize_t n;
    char *end;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return false;
    n = pread(fd, text, sizeof text - 1, 0);
    close(fd);
    if (n <= 0)
        return false;
    text[n] = '\0';
    if (key) {
        at = strstr(text, key);
        if (!at)
            return false;
        at += strlen(key);
    }
    *number = strtoull(at, &end, 10);
    return end != at;
}

bool io_memory(struct io *io, uint64_t *resident_bytes, uint64_t *total_bytes)
{
    uint64_t group;

    (void)io;
    if (!file_number("/proc/self/status", "VmRSS:", resident_bytes) ||
        !file_number("/proc/meminfo", "MemTotal:", total_bytes))
        return false;
    *resident_bytes *= 1024; /* both are in kB */
    *total_bytes *= 1024;
    if ((file_number("/sys/fs/cgroup/memory.max", NULL, &group) ||
         file_number("/sys/fs/cgroup/memory/memory.limit_in_bytes", NULL, &group)) &&
        group < *total_bytes)
        *total_bytes = group;
    return true;
}

/* The holder wrote its number into the file; it is told as advice only. */
static void say_locked(int fd, const char *path, struct why *why)
{
    char text[PID_MAX] = "";
    ssize_t n = pread(fd, text, sizeof text - 1, 0);
    long pid = n > 0 ? strtol(text, NULL, 10) : 0;

    if (pid > 0)
        why_set(why, 0, "", "%s is locked by process %ld: two gateways must not share it", path,
                pid);
    else
        why_set(why, 0, "", "%s is locked by another process", path);
}

/* On a full disk there is no advice, but still a lock. */
static void write_pid(int fd)
{
    char text[PID_MAX];
    int len = snprintf(text, sizeof text, "%ld\n", (long)getpid());

    if (pwrite(fd, text, (size_t)len, 0) != len || ftruncate(fd, len) < 0)
        return;
}

bool io_lock(struct io *io, const char *path, int *lock, struct why *why)
{
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, FILE_MODE);

    (void)io;
    if (fd < 0) {
        why_set(why, 0, "", "cannot open the lock %s: %s", path, strerror(errno));
        return false;
    }
    if (fcntl(fd, F_OFD_SETLK, &whole) < 0) {
        if (errno == EAGAIN || errno == EACCES)
            say_locked(fd, path, why);
        else
            why_set(why, 0, "", "cannot lock %s: %s", path, strerror(errno));
        close(fd);
        return false;
    }
    write_pid(fd);
    *lock = fd;
    return true;
}

void io_unlock(struct io *io, int lock)
{
    (void)io;
    close(lock);
}
