/*
 * gateway/log_writer_pack.c - packs a log file that was set aside; makes a tracking file's index.
 *
 * Owns:     nothing but what it holds while it packs.
 * Runs on:  the packing thread of the log writer; hikyakuctl reads with the same functions.
 * Contract: the packed file and its index get their names when they are whole and synced; the
 *           plain file goes last. After a crash the plain file is packed again, unless the packed
 *           one has its name: that is synced, and the plain one may have lost its end.
 * Failure:  false and why; the plain file stays.
 * Bounds:   TRACKING_BLOCK_BYTES of text at a time.
 * Tests:    tests/unit/test_tracking.c, tests/system/test_trace.py
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <zlib.h>

#include "gateway/tracking.h"

#define PACK_LEVEL 4

/* ---- lines ---- */

/* `s` begins behind an opening quote: takes the string and its closing quote. */
static struct slice take_quoted(struct slice *s)
{
    size_t i = 0;
    while (i < s->len && s->ptr[i] != '"')
        i += s->ptr[i] == '\\' ? 2 : 1;
    struct slice text = slice_head(*s, i);
    *s = slice_from(*s, i + 1);
    return text;
}

bool tracking_member(struct slice *line, struct slice *key, struct slice *value)
{
    size_t quote = slice_find(*line, '"');
    if (quote == line->len)
        return false;
    *line = slice_from(*line, quote + 1);
    *key = take_quoted(line);
    if (line->len < 2 || line->ptr[0] != ':')
        return false;
    *line = slice_from(*line, 1);
    if (line->ptr[0] == '"') {
        *line = slice_from(*line, 1);
        *value = take_quoted(line);
        return true;
    }
    size_t n = 0;
    while (n < line->len && line->ptr[n] != ',' && line->ptr[n] != '}')
        n++;
    *value = slice_head(*line, n);
    *line = slice_from(*line, n);
    return true;
}

bool tracking_is_indexed(struct slice key)
{
    static const char *const keys[] = {"qid",        "about",   "session", "sender", "recipient",
                                       "message_id", "account", "client",  "origin"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (slice_eq(key, slice_str(keys[i])))
            return true;
    return false;
}

uint64_t tracking_hash(struct slice key, struct slice value)
{
    uint64_t h = 14695981039346656037ull;
    if (slice_eq(key, SLICE_LIT("about")))
        key = SLICE_LIT("qid");
    for (size_t i = 0; i < key.len; i++)
        h = (h ^ key.ptr[i]) * 1099511628211ull;
    h = (h ^ ':') * 1099511628211ull;
    for (size_t i = 0; i < value.len; i++)
        h = (h ^ ascii_lower(value.ptr[i])) * 1099511628211ull;
    return h ^ h >> 29;
}

/* ---- filters ---- */

#define FILTER_PROBES 4u

static uint32_t filter_bit(uint64_t hash, uint32_t probe)
{
    uint32_t a = (uint32_t)hash, b = (uint32_t)(hash >> 32) | 1;
    return (a + probe * b) % (TRACKING_FILTER_BYTES * 8);
}

void tracking_filter_add(uint8_t filter[TRACKING_FILTER_BYTES], uint64_t hash)
{
    for (uint32_t i = 0; i < FILTER_PROBES; i++) {
        uint32_t bit = filter_bit(hash, i);
        filter[bit / 8] |= (uint8_t)(1u << bit % 8);
    }
}

bool tracking_filter_has(const uint8_t filter[TRACKING_FILTER_BYTES], uint64_t hash)
{
    for (uint32_t i = 0; i < FILTER_PROBES; i++) {
        uint32_t bit = filter_bit(hash, i);
        if (!(filter[bit / 8] & 1u << bit % 8))
            return false;
    }
    return true;
}

/* ---- packing ---- */

struct packer {
    FILE *in, *gz, *idx;
    uint8_t *text, *out, *filter;
    size_t len, out_size; /* of text in use; of out */
    struct tracking_index head;
    uint64_t offset;
};

static void line_index(struct packer *p, struct tracking_block *b, struct slice line)
{
    struct slice key, value;
    while (tracking_member(&line, &key, &value)) {
        if (slice_eq(key, SLICE_LIT("time")) && value.len >= TRACKING_TIME_LEN) {
            memcpy(b->last, value.ptr, TRACKING_TIME_LEN);
            if (!b->first[0])
                memcpy(b->first, value.ptr, TRACKING_TIME_LEN);
        } else if (tracking_is_indexed(key)) {
            tracking_filter_add(p->filter, tracking_hash(key, value));
        }
    }
}

/* The first `n` bytes of the text, whole lines, become a block. */
static bool block_put(struct packer *p, size_t n)
{
    struct tracking_block b = {.offset = p->offset, .plain = (uint32_t)n};
    z_stream z = {.next_in = p->text, .avail_in = (uInt)n};
    memset(p->filter, 0, TRACKING_FILTER_BYTES);
    for (struct slice rest = slice_of(p->text, p->idx ? n : 0); rest.len;) {
        size_t end = slice_find(rest, '\n');
        line_index(p, &b, slice_head(rest, end));
        rest = slice_from(rest, end < rest.len ? end + 1 : end);
    }
    if (deflateInit2(&z, PACK_LEVEL, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK)
        return false;
    z.next_out = p->out;
    z.avail_out = (uInt)p->out_size;
    int did = deflate(&z, Z_FINISH);
    b.packed = (uint32_t)z.total_out;
    deflateEnd(&z);
    p->offset += b.packed;
    p->head.block_count++;
    return did == Z_STREAM_END && fwrite(p->out, 1, b.packed, p->gz) == b.packed &&
           (!p->idx || (fwrite(&b, sizeof b, 1, p->idx) == 1 &&
                        fwrite(p->filter, TRACKING_FILTER_BYTES, 1, p->idx) == 1));
}

static bool pack_blocks(struct packer *p)
{
    bool end = false;
    while (!end) {
        size_t got = fread(p->text + p->len, 1, TRACKING_BLOCK_BYTES - p->len, p->in);
        p->len += got;
        end = got == 0 || p->len < TRACKING_BLOCK_BYTES;
        const uint8_t *last = p->len ? memrchr(p->text, '\n', p->len) : NULL;
        size_t whole = end || !last ? p->len : (size_t)(last - p->text) + 1;
        if (whole && !block_put(p, whole))
            return false;
        memmove(p->text, p->text + whole, p->len - whole);
        p->len -= whole;
    }
    p->head.filter_bytes = TRACKING_FILTER_BYTES;
    memcpy(p->head.magic, TRACKING_MAGIC, sizeof p->head.magic);
    if (!p->idx)
        return !ferror(p->in);
    return !ferror(p->in) && fseek(p->idx, 0, SEEK_SET) == 0 &&
           fwrite(&p->head, sizeof p->head, 1, p->idx) == 1;
}

static bool finish(FILE *f)
{
    return fflush(f) == 0 && fsync(fileno(f)) == 0;
}

static FILE *open_beside(const char *path, const char *suffix, const char *mode, char name[4096])
{
    return snprintf(name, 4096, "%s%s", path, suffix) < 4096 ? fopen(name, mode) : NULL;
}

bool tracking_pack(const char *path, bool indexed, struct why *why)
{
    char gz_tmp[4096], idx_tmp[4096], gz[4096], idx[4096];
    struct packer p = {.out_size = deflateBound(NULL, TRACKING_BLOCK_BYTES) + 64};
    snprintf(gz, sizeof gz, "%s.gz", path);
    snprintf(idx, sizeof idx, "%s.gz.idx", path);
    if (access(gz, F_OK) == 0 && unlink(path) == 0)
        return true;
    p.in = fopen(path, "re");
    p.gz = open_beside(path, ".gz.tmp", "we", gz_tmp);
    p.idx = indexed ? open_beside(path, ".gz.idx.tmp", "we", idx_tmp) : NULL;
    p.text = malloc(TRACKING_BLOCK_BYTES);
    p.out = malloc(p.out_size);
    p.filter = malloc(TRACKING_FILTER_BYTES);
    bool ok = p.in && p.gz && (p.idx || !indexed) && p.text && p.out && p.filter &&
              (!p.idx || fwrite(&p.head, sizeof p.head, 1, p.idx) == 1) && pack_blocks(&p) &&
              finish(p.gz) && (!p.idx || finish(p.idx));
    int error = errno;
    FILE *const files[] = {p.in, p.gz, p.idx};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        if (files[i])
            fclose(files[i]);
    free(p.text);
    free(p.out);
    free(p.filter);
    if (ok && (!indexed || rename(idx_tmp, idx) == 0) && rename(gz_tmp, gz) == 0 &&
        unlink(path) == 0)
        return true;
    why_set(why, 0, "", "cannot pack %s: %s", path, strerror(ok ? errno : error));
    unlink(gz_tmp);
    if (indexed)
        unlink(idx_tmp);
    return false;
}
