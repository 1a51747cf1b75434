/*
 * tests/io/conform_file.c - conformance: files, directories, locks.
 */
#include "tests/io/conform_kit.h"

#define PAGE 4096u

/* Runs one operation to its end: WAIT(&k, io_sync, fd). */
#define WAIT(k, call, ...)                                    \
    ({                                                        \
        struct kit_op wait_op_;                               \
        kit_op_init((k), &wait_op_);                          \
        START((k), call((k)->io, &wait_op_.op, __VA_ARGS__)); \
        kit_wait(&wait_op_);                                  \
    })

static int64_t size_of(struct kit *k, const char *path)
{
    struct kit_op o;
    int32_t r;

    kit_op_init(k, &o);
    START(k, io_file_size(k->io, &o.op, path));
    r = kit_wait(&o);
    return r < 0 ? r : (int64_t)o.op.file.size;
}

void conform_file_write_read(const struct conform *c)
{
    uint8_t data[10000], back[20000];
    char path[256];
    struct kit k;
    int32_t fd;

    kit_open(&k, c, 0, 0);
    kit_path(&k, "file", path);
    fd = kit_open_file(&k, path, IO_READ | IO_WRITE | IO_CREATE | IO_EXCL);
    cr_assert(fd >= 0, "open: %d", fd);
    kit_fill(data, sizeof data, 0);
    cr_assert_eq(WAIT(&k, io_write, fd, data, sizeof data, 0), (int32_t)sizeof data);
    cr_assert_eq(WAIT(&k, io_write, fd, data, 100, sizeof data), 100);
    cr_assert_eq(WAIT(&k, io_sync, fd), 0);
    cr_assert_eq(size_of(&k, path), (int64_t)sizeof data + 100);
    cr_assert_eq(WAIT(&k, io_read, fd, back, sizeof back, 0), (int32_t)sizeof data + 100);
    cr_assert(kit_holds(back, sizeof data, 0));
    cr_assert_eq(memcmp(back + sizeof data, data, 100), 0);
    cr_assert_eq(WAIT(&k, io_read, fd, back, 50, 5000), 50);
    cr_assert(kit_holds(back, 50, 5000));
    cr_assert_eq(WAIT(&k, io_read, fd, back, 50, sizeof data + 100), 0, "the end");

    cr_assert_eq(WAIT(&k, io_allocate, fd, 0, 1 << 20), 0);
    cr_assert_eq(size_of(&k, path), 1 << 20);
    cr_assert_eq(WAIT(&k, io_read, fd, back, 100, 500000), 100);
    for (int i = 0; i < 100; i++)
        cr_assert_eq(back[i], 0, "reserved room reads as zeros");
    io_close(k.io, fd);

    fd = kit_open_file(&k, path, IO_WRITE | IO_TRUNC);
    cr_assert(fd >= 0);
    cr_assert_eq(size_of(&k, path), 0);
    cr_assert_eq(WAIT(&k, io_read, fd, back, 1, 0), -EBADF, "opened for writing only");
    io_close(k.io, fd);
    cr_assert_eq(WAIT(&k, io_unlink, path), 0);
    kit_close(&k);
}

void conform_file_write_sync(const struct conform *c)
{
    enum { PARALLEL = 40, PIECE = 10000 };
    static struct kit_op ops[PARALLEL];
    static uint8_t data[PARALLEL * PIECE], back[PARALLEL * PIECE];
    char path[256];
    struct kit k;
    int32_t fd;

    kit_open(&k, c, 0, 0);
    kit_fill(data, sizeof data, 0);
    kit_path(&k, "file", path);
    for (uint32_t dsync = 0; dsync < 2; dsync++) {
        fd = kit_open_file(&k, path,
                           IO_READ | IO_WRITE | IO_CREATE | IO_TRUNC | (dsync ? IO_DSYNC : 0));
        cr_assert(fd >= 0);
        for (uint32_t i = 0; i < PARALLEL; i++) {
            kit_op_init(&k, &ops[i]);
            START(&k, io_write_sync(k.io, &ops[i].op, fd, data + i * PIECE, PIECE, i * PIECE));
        }
        for (int i = 0; i < PARALLEL; i++) {
            cr_assert_eq(kit_wait(&ops[i]), PIECE);
            cr_assert_eq(ops[i].done_count, 1);
        }
        cr_assert_eq(WAIT(&k, io_write_sync, fd, data, 0, 0), 0);
        cr_assert_eq(WAIT(&k, io_read, fd, back, sizeof back, 0), (int32_t)sizeof back);
        cr_assert(kit_holds(back, sizeof back, 0));
        io_close(k.io, fd);
        /* On a descriptor that cannot be written: the write's error, not the sync's. */
        fd = kit_open_file(&k, path, IO_READ | (dsync ? IO_DSYNC : 0));
        cr_assert_eq(WAIT(&k, io_write_sync, fd, data, 10, 0), -EBADF);
        io_close(k.io, fd);
        for (int turns = 0; turns < 5; turns++)
            io_turn(k.io, false);
    }
    kit_close(&k);
}

void conform_file_names(const struct conform *c)
{
    char a[256], b[256], sub[256], inner[256];
    struct why why = {0};
    struct kit k;
    int32_t fd;

    kit_open(&k, c, 0, 0);
    kit_path(&k, "a", a);
    kit_path(&k, "b", b);
    kit_path(&k, "sub", sub);
    kit_path(&k, "sub/inner", inner);
    cr_assert(io_mkdir(k.io, sub, &why), "%s", why.text);
    cr_assert(io_mkdir(k.io, sub, &why), "one that is there is fine");
    fd = kit_open_file(&k, a, IO_WRITE | IO_CREATE);
    cr_assert(fd >= 0);
    cr_assert_eq(WAIT(&k, io_write, fd, "one", 3, 0), 3);
    cr_assert_eq(WAIT(&k, io_rename, a, b), 0);
    cr_assert_eq(WAIT(&k, io_write, fd, "two", 3, 3), 3,
                 "the open file goes on under its new name");
    cr_assert_eq(size_of(&k, b), 6);
    cr_assert_eq(size_of(&k, a), -ENOENT);
    io_close(k.io, fd);
    fd = kit_open_file(&k, inner, IO_WRITE | IO_CREATE);
    cr_assert(fd >= 0);
    io_close(k.io, fd);
    cr_assert_eq(WAIT(&k, io_rename, b, inner), 0, "replaces what was there");
    cr_assert_eq(size_of(&k, inner), 6);
    fd = kit_open_file(&k, sub, IO_READ | IO_DIR);
    cr_assert(fd >= 0);
    cr_assert_eq(WAIT(&k, io_sync, fd), 0);
    io_close(k.io, fd);
    cr_assert_eq(WAIT(&k, io_unlink, inner), 0);
    cr_assert_eq(size_of(&k, inner), -ENOENT);
    kit_close(&k);
}

void conform_file_errors(const struct conform *c)
{
    char none[256], below[256], file[256];
    struct why why = {0};
    struct kit k;
    int32_t fd;

    kit_open(&k, c, 0, 0);
    kit_path(&k, "none", none);
    kit_path(&k, "none/below", below);
    kit_path(&k, "file", file);
    fd = kit_open_file(&k, file, IO_WRITE | IO_CREATE | IO_EXCL);
    cr_assert(fd >= 0);
    io_close(k.io, fd);
    cr_assert_eq(kit_open_file(&k, none, IO_READ), -ENOENT);
    cr_assert_eq(kit_open_file(&k, below, IO_WRITE | IO_CREATE), -ENOENT);
    cr_assert_eq(kit_open_file(&k, file, IO_WRITE | IO_CREATE | IO_EXCL), -EEXIST);
    cr_assert_eq(kit_open_file(&k, file, IO_READ | IO_DIR), -ENOTDIR);
    cr_assert_eq(kit_open_file(&k, c->dir, IO_WRITE), -EISDIR);
    cr_assert_eq(WAIT(&k, io_unlink, none), -ENOENT);
    cr_assert_eq(WAIT(&k, io_unlink, c->dir), -EISDIR);
    cr_assert_eq(WAIT(&k, io_rename, none, file), -ENOENT);
    cr_assert_eq(WAIT(&k, io_rename, file, below), -ENOENT);
    cr_assert_eq(size_of(&k, none), -ENOENT);
    cr_assert_not(io_mkdir(k.io, below, &why));
    cr_assert_not_null(strstr(why.text, below), "%s", why.text);
    cr_assert_not(io_mkdir(k.io, file, &why), "a file is in the way");
    for (int i = 0; i < 300; i++) /* an open that fails keeps no descriptor */
        cr_assert_eq(kit_open_file(&k, none, IO_READ), -ENOENT);
    fd = kit_open_file(&k, file, IO_READ);
    cr_assert(fd >= 0);
    kit_close(&k);
}

void conform_file_direct(const struct conform *c)
{
    uint8_t *data = aligned_alloc(PAGE, 4 * PAGE), *back = aligned_alloc(PAGE, 4 * PAGE);
    char path[256];
    struct kit k;
    int32_t fd;

    kit_open(&k, c, 0, 0);
    kit_path(&k, "direct", path);
    fd = kit_open_file(&k, path, IO_READ | IO_WRITE | IO_CREATE | IO_DIRECT | IO_DSYNC);
    if (fd == -EINVAL) { /* a file system without it */
        kit_close(&k);
        cr_skip_test("no O_DIRECT here");
    }
    cr_assert(fd >= 0);
    kit_fill(data, 4 * PAGE, 9);
    cr_assert_eq(WAIT(&k, io_allocate, fd, 0, 16 * PAGE), 0);
    cr_assert_eq(WAIT(&k, io_write_sync, fd, data, 4 * PAGE, 2 * PAGE), (int32_t)(4 * PAGE));
    cr_assert_eq(WAIT(&k, io_read, fd, back, 4 * PAGE, 2 * PAGE), (int32_t)(4 * PAGE));
    cr_assert(kit_holds(back, 4 * PAGE, 9));
    io_close(k.io, fd);
    kit_close(&k);
    free(data);
    free(back);
}

struct listing {
    uint32_t count, max;
    bool seen[10];
};

static bool on_name(void *arg, const char *name)
{
    struct listing *l = arg;

    cr_assert(name[0] >= '0' && name[0] <= '9' && name[1] == '\0', "%s", name);
    cr_assert_not(l->seen[name[0] - '0']);
    l->seen[name[0] - '0'] = true;
    return ++l->count < l->max;
}

void conform_dir_and_disk(const struct conform *c)
{
    struct listing all = {.max = 100}, some = {.max = 3};
    uint64_t free_bytes, total_bytes, free_inodes;
    char path[256], name[2] = "0";
    struct why why = {0};
    struct kit k;

    kit_open(&k, c, 0, 0);
    for (int i = 0; i < 10; i++) {
        name[0] = (char)('0' + i);
        io_close(k.io, kit_open_file(&k, kit_path(&k, name, path), IO_WRITE | IO_CREATE));
    }
    cr_assert(io_list_dir(k.io, c->dir, on_name, &all, &why), "%s", why.text);
    cr_assert_eq(all.count, 10);
    cr_assert(io_list_dir(k.io, c->dir, on_name, &some, &why));
    cr_assert_eq(some.count, 3);
    kit_path(&k, "none", path);
    cr_assert_not(io_list_dir(k.io, path, on_name, &all, &why));
    cr_assert_not_null(strstr(why.text, path), "%s", why.text);
    cr_assert(io_disk_free(k.io, c->dir, &free_bytes, &total_bytes, &free_inodes));
    cr_assert(total_bytes > 0 && free_bytes <= total_bytes && free_inodes > 0);
    cr_assert_not(io_disk_free(k.io, path, &free_bytes, &total_bytes, &free_inodes));
    cr_assert_not(io_disk_in_place(k.io, path));
    cr_assert(io_memory(k.io, &free_bytes, &total_bytes));
    cr_assert(free_bytes >= 1 << 20 && free_bytes < total_bytes);
    kit_close(&k);
}

void conform_lock(const struct conform *c)
{
    char path[256], below[256];
    struct why why = {0};
    struct kit k;
    int lock, second;

    kit_open(&k, c, 0, 0);
    kit_path(&k, "lock", path);
    kit_path(&k, "none/lock", below);
    for (int i = 0; i < 3; i++) {
        cr_assert(io_lock(k.io, path, &lock, &why), "%s", why.text);
        cr_assert_not(io_lock(k.io, path, &second, &why));
        cr_assert_not_null(strstr(why.text, path), "%s", why.text);
        cr_assert_not_null(strstr(why.text, "locked"), "%s", why.text);
        io_unlock(k.io, lock);
    }
    cr_assert_not(io_lock(k.io, below, &lock, &why));
    kit_close(&k);
}
