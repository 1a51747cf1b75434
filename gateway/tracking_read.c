/*
 * gateway/tracking_read.c - reads tracking files: plain ones, packed ones by their index.
 *
 * Owns:     one block of text and one file at a time.
 * Runs on:  hikyakuctl's only thread, or the admin's thread for one search.
 * Contract: every line of every file is in exactly one block, but for blocks that cannot have what
 *           is wanted. A packed file without a good index is read whole.
 * Failure:  a file that cannot be read: false, with its name.
 * Bounds:   TRACKING_BLOCK_BYTES a block, FILES_MAX files.
 * Tests:    tests/unit/test_tracking.c, tests/system/test_trace.py
 */
#include "gateway/tracking_read.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <zlib.h>

#define FILES_MAX 65536u
#define PATH_MAX_ 4096u

struct reading {
    const struct tracking_want *want;
    bool (*each)(void *arg, struct slice lines);
    void *arg;
    struct why *why;
    bool stop;
    uint8_t text[TRACKING_BLOCK_BYTES];
};

/* ---- one file ---- */

static bool fail(struct reading *r, const char *path)
{
    why_set(r->why, 0, "", "cannot read %s: %s", path, errno ? strerror(errno) : "it is damaged");
    return false;
}

static bool block_wanted(const struct tracking_want *w, const struct tracking_block *b,
                         const uint8_t *filter)
{
    if (w->from[0] && b->last[0] && strncmp(b->last, w->from, strlen(w->from)) < 0)
        return false;
    if (w->until[0] && b->first[0] && strncmp(b->first, w->until, strlen(w->until)) > 0)
        return false;
    for (uint32_t i = 0; w->hashes && i < w->hash_count; i++)
        if (tracking_filter_has(filter, w->hashes[i]))
            return true;
    return w->hashes == NULL;
}

static bool block_unpack(struct reading *r, FILE *gz, const struct tracking_block *b)
{
    uint8_t *packed = b->plain <= TRACKING_BLOCK_BYTES ? malloc(b->packed + 1u) : NULL;
    z_stream z = {.next_in = packed, .avail_in = b->packed};
    bool ok = packed && fseek(gz, (long)b->offset, SEEK_SET) == 0 &&
              fread(packed, 1, b->packed, gz) == b->packed && inflateInit2(&z, 15 + 16) == Z_OK;
    if (ok) {
        z.next_out = r->text;
        z.avail_out = TRACKING_BLOCK_BYTES;
        ok = inflate(&z, Z_FINISH) == Z_STREAM_END && z.total_out == b->plain;
        inflateEnd(&z);
    }
    free(packed);
    return ok;
}

/* False: there is no good index, and nothing was given out. */
static bool read_indexed(struct reading *r, const char *path, bool *ok)
{
    char name[PATH_MAX_];
    struct tracking_index head;
    struct tracking_block b;
    uint8_t filter[TRACKING_FILTER_BYTES];
    FILE *idx =
        snprintf(name, sizeof name, "%s.idx", path) < (int)sizeof name ? fopen(name, "re") : NULL;
    FILE *gz = idx ? fopen(path, "re") : NULL;
    bool good = gz && fread(&head, sizeof head, 1, idx) == 1 &&
                memcmp(head.magic, TRACKING_MAGIC, sizeof head.magic) == 0 &&
                head.filter_bytes == TRACKING_FILTER_BYTES && fseek(idx, 0, SEEK_END) == 0 &&
                (uint64_t)ftell(idx) ==
                    sizeof head + (uint64_t)head.block_count * (sizeof b + sizeof filter) &&
                fseek(idx, sizeof head, SEEK_SET) == 0;
    for (uint32_t i = 0; good && *ok && !r->stop && i < head.block_count; i++) {
        *ok = fread(&b, sizeof b, 1, idx) == 1 && fread(filter, sizeof filter, 1, idx) == 1;
        if (!*ok || !block_wanted(r->want, &b, filter))
            continue;
        *ok = block_unpack(r, gz, &b);
        if (*ok)
            r->stop = !r->each(r->arg, slice_of(r->text, b.plain));
    }
    if (good && !*ok)
        fail(r, path);
    if (idx)
        fclose(idx);
    if (gz)
        fclose(gz);
    return good;
}

/* Plain or packed: zlib reads both. */
static bool read_whole(struct reading *r, const char *path)
{
    gzFile f = gzopen(path, "re");
    size_t len = 0;
    int got = 1;
    if (!f)
        return errno == ENOENT || fail(r, path); /* packed and gone since it was listed */
    gzbuffer(f, 1u << 18);
    while (!r->stop && got > 0) {
        got = gzread(f, r->text + len, (unsigned)(TRACKING_BLOCK_BYTES - len));
        len += got > 0 ? (size_t)got : 0;
        const uint8_t *last = len ? memrchr(r->text, '\n', len) : NULL;
        size_t whole = last ? (size_t)(last - r->text) + 1 : len == TRACKING_BLOCK_BYTES ? len : 0;
        if (whole)
            r->stop = !r->each(r->arg, slice_of(r->text, whole));
        memmove(r->text, r->text + whole, len - whole);
        len -= whole;
    }
    bool ok = got >= 0;
    gzclose_r(f);
    return ok || fail(r, path);
}

/* ---- all files ---- */

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && strcmp(s + n - m, end) == 0;
}

/* Names of files that were set aside, packed or not, oldest first. */
static uint32_t list_files(const char *folder, const char *base, char **names)
{
    DIR *dir = opendir(folder);
    struct dirent *e;
    uint32_t count = 0;
    size_t len = strlen(base);
    while (dir && count < FILES_MAX && (e = readdir(dir)))
        if (strncmp(e->d_name, base, len) == 0 && e->d_name[len] == '-' &&
            (ends_with(e->d_name, "Z") || ends_with(e->d_name, "Z.gz")))
            names[count++] = strdup(e->d_name);
    if (dir)
        closedir(dir);
    qsort(names, count, sizeof *names, by_name);
    return count;
}

/* NAME is read from NAME.gz when both are there: the packer was about to remove it. */
static bool is_packed_too(char **names, uint32_t count, uint32_t i)
{
    size_t n = strlen(names[i]);
    return i + 1 < count && strncmp(names[i + 1], names[i], n) == 0 &&
           strcmp(names[i + 1] + n, ".gz") == 0;
}

bool tracking_read(const char *path, const struct tracking_want *want,
                   bool (*each)(void *arg, struct slice lines), void *arg, struct why *why)
{
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
    char folder[PATH_MAX_], name[PATH_MAX_];
    struct reading *r = calloc(1, sizeof *r);
    char **names = calloc(FILES_MAX, sizeof *names);
    bool ok = r && names;
    if (ok) {
        r->want = want;
        r->each = each;
        r->arg = arg;
        r->why = why;
    }
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path) + 1 : 2,
             slash ? path : "./");
    uint32_t count = ok ? list_files(folder, base, names) : 0;
    for (uint32_t i = 0; i < count; i++) {
        bool fits = snprintf(name, sizeof name, "%s%s", folder, names[i]) < (int)sizeof name;
        if (ok && fits && !r->stop && !is_packed_too(names, count, i) &&
            !(ends_with(name, ".gz") && read_indexed(r, name, &ok)))
            ok = read_whole(r, name);
    }
    for (uint32_t i = 0; i < count; i++)
        free(names[i]);
    if (ok && !r->stop)
        ok = read_whole(r, path);
    free(names);
    free(r);
    return ok;
}
