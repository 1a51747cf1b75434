/*
 * gateway/handoff_text.c - the state of a message that is handed over, as text and back.
 *
 * Owns:     nothing.
 * Runs on:  any thread; pure.
 * Contract: decode(encode(h)) equals h. What is decoded holds addresses and words without control
 *           characters, and at least one recipient.
 * Failure:  false: no room, another version, or nothing that encode makes.
 * Bounds:   HANDOFF_TEXT_MAX; those of the envelope.
 * Tests:    tests/unit/test_handoff_text.c
 */
#include "gateway/handoff_text.h"

#include "gateway/auth/sasl.h"
#include "gateway/limits.h"

#define HANDOFF_VERSION 1u
#define LINE_BYTES      720u
#define LINE_TEXT       (LINE_BYTES / 3 * 4 + 2)

enum { WARNED = 1, UNCERTAIN = 2 };

/* Before the envelope. Both ends are of one kind of machine, as a spool that is moved is. */
struct head {
    uint32_t version, flags;
    uint64_t next_attempt_wall_s;
    uint32_t attempts, envelope_len;
};

size_t handoff_state_size(const struct handoff_state *h)
{
    return sizeof(struct head) + envelope_encoded_size(&h->env);
}

bool handoff_state_encode(const struct handoff_state *h, struct buf *out)
{
    struct head head = {.version = HANDOFF_VERSION,
                        .flags = (h->arrival.warned ? WARNED : 0u) |
                                 (h->arrival.uncertain ? UNCERTAIN : 0u),
                        .next_attempt_wall_s = h->arrival.next_attempt_wall_s,
                        .attempts = h->arrival.attempts,
                        .envelope_len = (uint32_t)envelope_encoded_size(&h->env)};
    return buf_add(out, &head, sizeof head) && envelope_encode(&h->env, out);
}

size_t handoff_text_size(size_t bytes)
{
    size_t whole = bytes / LINE_BYTES, rest = bytes % LINE_BYTES;
    return whole * LINE_TEXT + (rest ? (rest + 2) / 3 * 4 + 2 : 0);
}

bool handoff_text_encode(struct slice bytes, struct buf *text)
{
    while (bytes.len) {
        struct slice line = slice_head(bytes, LINE_BYTES);
        if (!base64_encode(line, text) || !buf_add_str(text, "\r\n"))
            return false;
        bytes = slice_from(bytes, line.len);
    }
    return true;
}

bool handoff_text_decode(struct slice text, struct buf *bytes)
{
    while (text.len) {
        struct slice line = slice_head(text, slice_find(text, '\r'));
        if (line.len == 0 || line.len + 2 > LINE_TEXT || text.len < line.len + 2 ||
            text.ptr[line.len + 1] != '\n' || !base64_decode(line, bytes))
            return false;
        text = slice_from(text, line.len + 2);
    }
    return true;
}

static bool is_clean(struct slice s, size_t max)
{
    for (size_t i = 0; i < s.len; i++)
        if (s.ptr[i] < ' ' || s.ptr[i] == 0x7f)
            return false;
    return s.len <= max;
}

static bool envelope_is_clean(const struct envelope *e)
{
    bool ok = is_clean(e->sender, SMTP_PATH_MAX) && is_clean(e->envid, SMTP_ENVID_MAX) &&
              is_clean(e->account, AUTH_USER_MAX) && is_clean(e->connector, 128) &&
              is_clean(e->client, 128) && is_clean(e->helo, 256) && is_clean(e->session, 64) &&
              is_clean(e->subject, SMTP_SUBJECT_MAX) && is_clean(e->handoff, HANDOFF_ID_MAX) &&
              is_clean(e->origin, HANDOFF_ID_MAX);
    for (uint32_t i = 0; ok && i < e->rcpt_count; i++)
        ok = e->rcpts[i].mailbox.len > 0 && is_clean(e->rcpts[i].mailbox, SMTP_PATH_MAX) &&
             is_clean(e->rcpts[i].orcpt, SMTP_ORCPT_MAX);
    return ok && e->rcpt_count > 0;
}

bool handoff_state_decode(struct slice bytes, struct arena *arena, struct handoff_state *out)
{
    struct head head;
    if (bytes.len < sizeof head)
        return false;
    memcpy(&head, bytes.ptr, sizeof head);
    if (head.version != HANDOFF_VERSION || head.attempts > UINT16_MAX ||
        head.flags > (WARNED | UNCERTAIN) || head.envelope_len != bytes.len - sizeof head)
        return false;
    if (!envelope_decode(slice_from(bytes, sizeof head), arena, &out->env))
        return false;
    out->arrival = (struct lane_arrival){.next_attempt_wall_s = head.next_attempt_wall_s,
                                         .attempts = (uint16_t)head.attempts,
                                         .warned = head.flags & WARNED,
                                         .uncertain = head.flags & UNCERTAIN};
    return envelope_is_clean(&out->env);
}
