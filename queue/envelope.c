/*
 * queue/envelope.c - the envelope as bytes: a fixed head, then strings with their lengths; version
 * 2 where it has those of a message that was handed over, else 1.
 *
 * Owns:     nothing.
 * Runs on:  any thread.
 * Contract: decode(encode(e)) equals e; decode reads no byte outside `in` and accepts no trailing
 *           byte.
 * Failure:  encode: buffer too small. decode: false for anything not written by encode, or no room
 *           in the arena.
 * Bounds:   RCPT_COUNT_LIMIT recipients, strings of up to 65535 bytes.
 * Tests:    tests/unit/test_envelope.c
 */
#include "queue/envelope.h"

#include <assert.h>

#include "gateway/limits.h"

#define ENVELOPE_VERSION  2u
#define ENVELOPE_HEAD     24u /* version, flags, accepted (u64), recipients, strings */
#define ENVELOPE_STRINGS  10u
#define ENVELOPE_STRINGS1 8u /* version 1 */
#define ENVELOPE_RCPT_MIN 5u /* two lengths and notify */

static void string_list(const struct envelope *e, struct slice out[ENVELOPE_STRINGS])
{
    out[0] = e->sender;
    out[1] = e->envid;
    out[2] = e->account;
    out[3] = e->connector;
    out[4] = e->client;
    out[5] = e->helo;
    out[6] = e->session;
    out[7] = e->subject;
    out[8] = e->handoff;
    out[9] = e->origin;
}

static uint32_t string_count(const struct envelope *e)
{
    return e->handoff.len || e->origin.len ? ENVELOPE_STRINGS : ENVELOPE_STRINGS1;
}

size_t envelope_encoded_size(const struct envelope *e)
{
    struct slice strings[ENVELOPE_STRINGS];
    size_t size = ENVELOPE_HEAD;

    string_list(e, strings);
    for (uint32_t i = 0; i < string_count(e); i++)
        size += 2 + strings[i].len;
    for (uint32_t i = 0; i < e->rcpt_count; i++)
        size += ENVELOPE_RCPT_MIN + e->rcpts[i].mailbox.len + e->rcpts[i].orcpt.len;
    return size;
}

static bool put_string(struct buf *out, struct slice s)
{
    uint16_t len = (uint16_t)s.len;

    return s.len <= UINT16_MAX && buf_add(out, &len, sizeof len) && buf_add_slice(out, s);
}

bool envelope_encode(const struct envelope *e, struct buf *out)
{
    struct slice strings[ENVELOPE_STRINGS];
    uint32_t count = string_count(e), counts[2] = {e->rcpt_count, count};
    uint32_t head[2] = {count == ENVELOPE_STRINGS ? ENVELOPE_VERSION : 1, e->flags};
    bool ok;

    assert(e->rcpt_count <= RCPT_COUNT_LIMIT);
    string_list(e, strings);
    ok = buf_add(out, head, sizeof head) &&
         buf_add(out, &e->accepted_wall_ns, sizeof e->accepted_wall_ns) &&
         buf_add(out, counts, sizeof counts);
    for (uint32_t i = 0; ok && i < count; i++)
        ok = put_string(out, strings[i]);
    for (uint32_t i = 0; ok && i < e->rcpt_count; i++)
        ok = put_string(out, e->rcpts[i].mailbox) && put_string(out, e->rcpts[i].orcpt) &&
             buf_add_byte(out, e->rcpts[i].notify);
    return ok;
}

static bool take(struct slice *in, void *out, size_t len)
{
    if (in->len < len)
        return false;
    memcpy(out, in->ptr, len);
    *in = slice_of(in->ptr + len, in->len - len);
    return true;
}

static bool take_string(struct slice *in, struct slice *out)
{
    uint16_t len;

    if (!take(in, &len, sizeof len) || in->len < len)
        return false;
    *out = slice_of(in->ptr, len);
    *in = slice_of(in->ptr + len, in->len - len);
    return true;
}

static bool take_rcpts(struct slice *in, struct envelope *e)
{
    for (uint32_t i = 0; i < e->rcpt_count; i++) {
        struct envelope_rcpt *r = &e->rcpts[i];
        if (!take_string(in, &r->mailbox) || !take_string(in, &r->orcpt) ||
            !take(in, &r->notify, 1))
            return false;
    }
    return in->len == 0;
}

bool envelope_decode(struct slice in, struct arena *arena, struct envelope *out)
{
    struct envelope e = {0};
    struct slice *strings[ENVELOPE_STRINGS] = {&e.sender,  &e.envid, &e.account, &e.connector,
                                               &e.client,  &e.helo,  &e.session, &e.subject,
                                               &e.handoff, &e.origin};
    uint32_t head[2], counts[2];

    if (!take(&in, head, sizeof head) || head[0] == 0 || head[0] > ENVELOPE_VERSION ||
        !take(&in, &e.accepted_wall_ns, sizeof e.accepted_wall_ns) ||
        !take(&in, counts, sizeof counts) ||
        counts[1] != (head[0] == 1 ? ENVELOPE_STRINGS1 : ENVELOPE_STRINGS))
        return false;
    for (uint32_t i = 0; i < counts[1]; i++)
        if (!take_string(&in, strings[i]))
            return false;
    e.flags = head[1];
    e.rcpt_count = counts[0];
    /* Bounded by the bytes that are there before any memory is taken. */
    if (e.rcpt_count > RCPT_COUNT_LIMIT || e.rcpt_count > in.len / ENVELOPE_RCPT_MIN)
        return false;
    if (e.rcpt_count) {
        e.rcpts = arena_alloc_large(arena, e.rcpt_count * sizeof *e.rcpts);
        if (!e.rcpts)
            return false;
    }
    if (!take_rcpts(&in, &e))
        return false;
    *out = e;
    return true;
}
