/*
 * queue/record.c - encoding and checking of segment headers, footers and records.
 *
 * Owns:     nothing; bytes in, bytes out.
 * Runs on:  any thread.
 * Contract: record_check says GOOD only when header and payload are what record_seal wrote, at
 *           that offset of that segment. Decoders bound every length by what is there.
 * Failure:  a false or a RECORD_BAD_* result; nothing is half filled in.
 * Bounds:   RECORD_BYTES_MAX a record, FINAL_WORDS_MAX words of bitmap, ERROR_BYTES_MAX of error
 *           text.
 * Tests:    tests/unit/test_record.c; format: queue/FORMAT.md
 */
#include "queue/record.h"

#include <assert.h>

#include "gateway/base/crc32c.h"
#include "gateway/base/plant.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the format is little-endian");

static const char SEGMENT_MAGIC[8] = {'H', 'I', 'K', 'Y', 'S', 'E', 'G', '1'};
static const char FOOTER_MAGIC[8] = {'H', 'I', 'K', 'Y', 'E', 'N', 'D', '1'};

static uint32_t at_offset(uint32_t seed, uint32_t offset)
{
    return crc32c(seed, &offset, sizeof offset);
}

uint32_t segment_seed(uint64_t salt, uint32_t id, uint32_t lane)
{
    uint32_t words[4] = {(uint32_t)salt, (uint32_t)(salt >> 32), id, lane};

    return crc32c(0, words, sizeof words);
}

/* ---- segments ---- */

static uint32_t header_crc(const uint8_t *copy)
{
    static const uint8_t zero[4];
    const size_t at = offsetof(struct segment_header, crc);
    uint32_t crc = crc32c(0, copy, at);

    crc = crc32c(crc, zero, sizeof zero);
    return crc32c(crc, copy + at + 4, SEGMENT_HEADER_LEN - at - 4);
}

void segment_header_encode(const struct segment_header *h, uint8_t block[SEGMENT_BLOCK])
{
    struct segment_header copy = *h;

    memset(block, 0, SEGMENT_BLOCK);
    memcpy(copy.magic, SEGMENT_MAGIC, sizeof copy.magic);
    copy.version = FORMAT_VERSION;
    copy.crc = 0;
    memcpy(block, &copy, sizeof copy);
    copy.crc = header_crc(block);
    memcpy(block, &copy, sizeof copy);
    memcpy(block + SEGMENT_HEADER_LEN, block, SEGMENT_HEADER_LEN);
}

static enum segment_header_result header_copy_decode(const uint8_t *copy,
                                                     struct segment_header *out)
{
    struct segment_header h;

    memcpy(&h, copy, sizeof h);
    if (memcmp(h.magic, SEGMENT_MAGIC, sizeof h.magic) != 0 || h.crc != header_crc(copy))
        return SEGMENT_HEADER_BAD;
    *out = h;
    if (h.version > FORMAT_VERSION)
        return SEGMENT_HEADER_FUTURE;
    if (h.version == 0 || h.segment_bytes < 4 * SEGMENT_BLOCK || h.segment_bytes > UINT32_MAX)
        return SEGMENT_HEADER_BAD;
    return SEGMENT_HEADER_GOOD;
}

enum segment_header_result segment_header_decode(struct slice block, struct segment_header *out)
{
    struct segment_header first, second;
    enum segment_header_result a, b;

    if (block.len < SEGMENT_BLOCK)
        return SEGMENT_HEADER_BAD;
    a = header_copy_decode(block.ptr, &first);
    b = header_copy_decode(block.ptr + SEGMENT_HEADER_LEN, &second);
    if (a == SEGMENT_HEADER_BAD && b == SEGMENT_HEADER_BAD)
        return SEGMENT_HEADER_BAD;
    *out = a == SEGMENT_HEADER_BAD ? second : first;
    if (a == SEGMENT_HEADER_FUTURE || b == SEGMENT_HEADER_FUTURE)
        return SEGMENT_HEADER_FUTURE;
    return a == b ? SEGMENT_HEADER_GOOD : SEGMENT_HEADER_ONE_COPY;
}

static uint32_t footer_crc(const uint8_t *block, uint32_t seed, uint32_t offset)
{
    static const uint8_t zero[4];
    const size_t at = offsetof(struct segment_footer, crc);
    uint32_t crc = crc32c(at_offset(seed, offset), block, at);

    crc = crc32c(crc, zero, sizeof zero);
    return crc32c(crc, block + at + 4, SEGMENT_BLOCK - at - 4);
}

void segment_footer_encode(const struct segment_footer *f, uint32_t seed, uint32_t offset,
                           uint8_t block[SEGMENT_BLOCK])
{
    struct segment_footer copy = *f;

    memset(block, 0, SEGMENT_BLOCK);
    memcpy(copy.magic, FOOTER_MAGIC, sizeof copy.magic);
    copy.crc = 0;
    memcpy(block, &copy, sizeof copy);
    copy.crc = footer_crc(block, seed, offset);
    memcpy(block, &copy, sizeof copy);
}

bool segment_footer_decode(struct slice block, uint32_t seed, uint32_t offset,
                           struct segment_footer *out)
{
    struct segment_footer f;

    if (block.len < SEGMENT_BLOCK)
        return false;
    memcpy(&f, block.ptr, sizeof f);
    if (memcmp(f.magic, FOOTER_MAGIC, sizeof f.magic) != 0 ||
        f.crc != footer_crc(block.ptr, seed, offset))
        return false;
    if (f.data_end < SEGMENT_BLOCK || f.data_end > f.summary_offset || f.summary_offset > offset ||
        f.summary_offset % RECORD_ALIGN != 0)
        return false;
    *out = f;
    return true;
}

/* ---- records ---- */

static uint32_t record_header_crc(const uint8_t *header, uint32_t seed)
{
    return crc32c(seed, header + 4, RECORD_HEADER_SIZE - 4);
}

void record_seal(uint8_t *record, uint32_t payload_len, const struct record_header *fields,
                 uint32_t seed, uint32_t offset)
{
    struct record_header h = *fields;
    uint32_t here = at_offset(seed, offset);
    uint32_t used = RECORD_HEADER_SIZE + payload_len;

    assert(used <= RECORD_BYTES_MAX && offset % RECORD_ALIGN == 0);
    h.length = record_round(used);
    memset(record + used, 0, h.length - used);
    h.payload_crc = crc32c(here, record + RECORD_HEADER_SIZE, h.length - RECORD_HEADER_SIZE);
    h.header_crc = 0;
    memcpy(record, &h, sizeof h);
    h.header_crc = record_header_crc(record, here);
    memcpy(record, &h, sizeof h);
}

bool record_header_check(const uint8_t *bytes, uint32_t seed, uint32_t offset,
                         uint64_t segment_bytes, struct record_header *out)
{
    struct record_header h;

    memcpy(&h, bytes, sizeof h);
    /* The cheap tests first: this runs for every place in a search. */
    if (h.length < RECORD_HEADER_SIZE || h.length > RECORD_BYTES_MAX ||
        h.length % RECORD_ALIGN != 0 || offset + (uint64_t)h.length > segment_bytes)
        return false;
    if (h.header_crc != record_header_crc(bytes, at_offset(seed, offset)))
        return false;
    *out = h;
    return true;
}

enum record_result record_check(struct slice bytes, uint32_t seed, uint32_t offset,
                                uint64_t segment_bytes, struct record_header *out)
{
    struct record_header h;

    if (bytes.len < RECORD_HEADER_SIZE ||
        !record_header_check(bytes.ptr, seed, offset, segment_bytes, &h))
        return RECORD_BAD_HEADER;
    *out = h;
    if (bytes.len < h.length)
        return RECORD_NEED_MORE;
    if (!PLANT(NO_CRC) &&
        h.payload_crc != crc32c(at_offset(seed, offset), bytes.ptr + RECORD_HEADER_SIZE,
                                h.length - RECORD_HEADER_SIZE))
        return RECORD_BAD_PAYLOAD;
    return RECORD_GOOD;
}

bool record_was_ours(struct slice bytes, uint32_t seed, uint32_t offset, uint64_t expected)
{
    struct record_header h;

    if (bytes.len < RECORD_HEADER_SIZE)
        return false;
    memcpy(&h, bytes.ptr, sizeof h);
    if (h.sequence == expected)
        return true;
    return h.length > RECORD_HEADER_SIZE && h.length <= bytes.len &&
           h.payload_crc == crc32c(at_offset(seed, offset), bytes.ptr + RECORD_HEADER_SIZE,
                                   h.length - RECORD_HEADER_SIZE);
}

/* ---- payloads ---- */

uint32_t record_state_size(const struct record_state *s)
{
    return (uint32_t)sizeof *s + s->final_words * 8u + record_round8(s->error_len);
}

uint32_t record_state_encode(uint8_t *out, const struct record_state *s, const uint64_t *bits,
                             struct slice error)
{
    uint32_t size = record_state_size(s);

    assert(error.len == s->error_len);
    memcpy(out, s, sizeof *s);
    if (s->final_words)
        memcpy(out + sizeof *s, bits, s->final_words * 8u);
    memset(out + size - record_round8(s->error_len), 0, record_round8(s->error_len));
    if (s->error_len)
        memcpy(out + sizeof *s + s->final_words * 8u, error.ptr, error.len);
    return size;
}

bool record_state_decode(struct slice in, struct record_state_view *out, uint32_t *used)
{
    struct record_state s;
    uint32_t size;

    if (in.len < sizeof s)
        return false;
    memcpy(&s, in.ptr, sizeof s);
    if (s.final_words > FINAL_WORDS_MAX || s.error_len > ERROR_BYTES_MAX || s.gone > 1 ||
        s.qid == 0)
        return false;
    if (s.gone ? s.final_words != 0 : s.final_words != (s.rcpt_count + 63u) / 64u)
        return false;
    size = record_state_size(&s);
    if (size > in.len)
        return false;
    out->state = s;
    out->final_words = in.ptr + sizeof s;
    out->error = slice_of(in.ptr + sizeof s + s.final_words * 8u, s.error_len);
    *used = size;
    return true;
}

uint64_t record_state_word(const struct record_state_view *v, uint32_t word)
{
    uint64_t w;

    assert(word < v->state.final_words);
    memcpy(&w, v->final_words + word * 8u, sizeof w);
    return w;
}

uint32_t record_message_extents_at(const struct record_message *m)
{
    return (uint32_t)sizeof *m + m->final_len + m->state_len;
}

uint32_t record_message_size(const struct record_message *m)
{
    uint64_t size = (uint64_t)sizeof *m + m->final_len + m->state_len +
                    (uint64_t)m->extent_count * sizeof(struct lane_extent) + m->envelope_len +
                    m->tail_len;

    return size + RECORD_HEADER_SIZE + RECORD_ALIGN > RECORD_BYTES_MAX ? 0 : (uint32_t)size;
}

bool record_message_head(struct slice payload, struct record_message *out)
{
    struct record_message m;

    if (payload.len < sizeof m)
        return false;
    memcpy(&m, payload.ptr, sizeof m);
    if (m.rcpt_count == 0 || m.rcpt_count > RCPT_COUNT_LIMIT || m.final_len % 8 || m.state_len % 8)
        return false;
    if (m.final_len > RECORD_BYTES_MAX || m.state_len > RECORD_BYTES_MAX ||
        record_message_size(&m) == 0)
        return false;
    if (m.extent_count && (m.chunk == 0 || m.chunk > RECORD_BYTES_MAX))
        return false;
    if (m.body_size != (uint64_t)m.extent_count * m.chunk + m.tail_len)
        return false;
    *out = m;
    return true;
}

bool record_message_decode(struct slice payload, struct record_message_view *out)
{
    struct record_message m;
    const uint8_t *p = payload.ptr + sizeof m;

    if (!record_message_head(payload, &m) || record_message_size(&m) > payload.len)
        return false;
    out->message = m;
    out->final_block = slice_of(p, m.final_len);
    p += m.final_len;
    out->state_block = slice_of(p, m.state_len);
    p += m.state_len;
    out->extents = slice_of(p, (size_t)m.extent_count * sizeof(struct lane_extent));
    p += out->extents.len;
    out->envelope = slice_of(p, m.envelope_len);
    p += m.envelope_len;
    out->tail = slice_of(p, m.tail_len);
    return true;
}

struct lane_extent record_extent_at(struct slice extents, uint32_t index)
{
    struct lane_extent e;

    assert((size_t)(index + 1) * sizeof e <= extents.len);
    memcpy(&e, extents.ptr + (size_t)index * sizeof e, sizeof e);
    return e;
}

bool record_extent_decode(struct slice payload, struct record_extent_view *out)
{
    struct record_extent e;

    if (payload.len < sizeof e)
        return false;
    memcpy(&e, payload.ptr, sizeof e);
    if (e.len > payload.len - sizeof e)
        return false;
    out->extent = e;
    out->body = slice_of(payload.ptr + sizeof e, e.len);
    return true;
}

/* ---- digests ---- */

static bool state_block_ok(struct slice block)
{
    struct record_state_view v;
    uint32_t used;

    return block.len == 0 || (record_state_decode(block, &v, &used) && used == block.len);
}

static bool message_digest_of(struct slice payload, struct record_digest *out)
{
    struct record_message_view v;

    if (!record_message_decode(payload, &v))
        return false;
    out->message = (struct message_digest){
        .body_size = v.message.body_size,
        .accepted_wall_s = v.message.accepted_wall_s,
        .rcpt_count = v.message.rcpt_count,
        .first_segment = v.message.first_segment,
        .final_len = v.message.final_len,
        .state_len = v.message.state_len,
    };
    out->final_block = v.final_block;
    out->state_block = v.state_block;
    return state_block_ok(v.final_block) && state_block_ok(v.state_block);
}

bool record_digest_of(const struct record_header *h, struct slice payload, uint32_t offset,
                      struct record_digest *out)
{
    struct record_state_view v;
    uint32_t used;

    *out = (struct record_digest){
        .type = h->type, .offset = offset, .length = h->length, .qid = h->qid};
    switch (h->type) {
    case RECORD_MESSAGE:
    case RECORD_MOVED:
        return h->qid != 0 && message_digest_of(payload, out) &&
               (h->type == RECORD_MOVED) == (out->state_block.len != 0);
    case RECORD_RCPT_FINAL:
    case RECORD_DEFER:
    case RECORD_STATE:
    case RECORD_ATTEMPT:
        if (!record_state_decode(payload, &v, &used) || v.state.qid != h->qid)
            return false;
        out->state_block = slice_of(payload.ptr, used);
        return true;
    default: out->type = 0; return true;
    }
}

/* A state block without its error text, as it stands in a summary. */
static uint32_t short_state_size(struct slice block)
{
    struct record_state s;

    if (block.len == 0)
        return 0;
    memcpy(&s, block.ptr, sizeof s);
    return (uint32_t)sizeof s + s.final_words * 8u;
}

static uint8_t *short_state_encode(uint8_t *out, struct slice block)
{
    uint32_t size = short_state_size(block);
    struct record_state s;

    if (size == 0)
        return out;
    memcpy(out, block.ptr, size);
    memcpy(&s, block.ptr, sizeof s);
    s.error_len = 0;
    memcpy(out, &s, sizeof s);
    return out + size;
}

uint32_t summary_entry_size(const struct record_digest *d)
{
    uint32_t size = (uint32_t)sizeof(struct summary_entry);

    if (d->type == 0)
        return 0;
    if (d->type == RECORD_MESSAGE || d->type == RECORD_MOVED)
        size += (uint32_t)sizeof d->message;
    return size + short_state_size(d->final_block) + short_state_size(d->state_block);
}

void summary_entry_encode(uint8_t *out, const struct record_digest *d)
{
    struct summary_entry e = {.offset = d->offset,
                              .record_length = d->length,
                              .entry_length = summary_entry_size(d),
                              .type = d->type,
                              .qid = d->qid};
    uint8_t *p = out + sizeof e;

    memcpy(out, &e, sizeof e);
    if (d->type == RECORD_MESSAGE || d->type == RECORD_MOVED) {
        struct message_digest m = d->message;
        m.final_len = short_state_size(d->final_block);
        m.state_len = short_state_size(d->state_block);
        memcpy(p, &m, sizeof m);
        p += sizeof m;
    }
    p = short_state_encode(p, d->final_block);
    p = short_state_encode(p, d->state_block);
    assert(p == out + e.entry_length);
}

bool summary_entry_decode(struct slice in, struct record_digest *out, uint32_t *used)
{
    struct summary_entry e;
    struct slice rest;

    if (in.len < sizeof e)
        return false;
    memcpy(&e, in.ptr, sizeof e);
    if (e.entry_length < sizeof e || e.entry_length > in.len || e.entry_length % 8 || e.qid == 0)
        return false;
    rest = slice_of(in.ptr + sizeof e, e.entry_length - sizeof e);
    *out = (struct record_digest){
        .type = e.type, .offset = e.offset, .length = e.record_length, .qid = e.qid};
    if (e.type == RECORD_MESSAGE || e.type == RECORD_MOVED) {
        if (rest.len < sizeof out->message)
            return false;
        memcpy(&out->message, rest.ptr, sizeof out->message);
        rest = slice_from(rest, sizeof out->message);
        if ((uint64_t)out->message.final_len + out->message.state_len != rest.len)
            return false;
        out->final_block = slice_head(rest, out->message.final_len);
        rest = slice_from(rest, out->message.final_len);
    }
    out->state_block = rest;
    *used = e.entry_length;
    return state_block_ok(out->final_block) && state_block_ok(out->state_block);
}
