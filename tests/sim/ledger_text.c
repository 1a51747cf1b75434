/*
 * tests/sim/ledger_text.c - the bodies of messages: made from the message's number, known again at
 * the next hop.
 *
 * Owns:     nothing.
 * Runs on:  the one thread of a simulation.
 * Contract: behind the trace header every byte is the client's.
 * Failure:  world_fail tells the first difference.
 * Bounds:   none.
 * Tests:    tests/sim/plants.c
 */
#include <stdlib.h>

#include "gateway/base/crc32c.h"
#include "tests/sim/world.h"

static const char mark[] = "X-Sim: ";

static uint32_t text_lines(struct prng *p, uint8_t *out, uint32_t size, bool eight_bit)
{
    uint32_t at = 0;
    while (at + 2 < size) {
        uint64_t bits = prng_next(p);
        uint32_t len = (uint32_t)(bits % 90), room = size - at - 2;
        if (len > room)
            len = room;
        for (uint32_t i = 0; i < len; i++) {
            if (i % 8 == 0)
                bits = prng_next(p);
            out[at + i] = (uint8_t)(' ' + (bits >> (i % 8 * 8) & 63));
        }
        if (len && bits % 7 == 0)
            out[at] = '.';
        if (len == 1 && bits % 3 == 0)
            out[at] = '.';
        if (eight_bit && len > 4)
            out[at + 3] = 0xe9;
        at += len;
        out[at++] = '\r';
        out[at++] = '\n';
    }
    return at;
}

/* A line end that other systems may take for one; all of them make the message 550 5.6.11. */
static uint32_t text_smuggle(struct prng *p, uint8_t *out)
{
    static const char *const tricks[] = {"\n.\n",       "\r.\r\n",  "\n.\r\nMAIL FROM:<a@b.c>\r\n",
                                         "\r\n.\n",     "\r\n.\r",  "x\ny\r\n",
                                         "\r\r\n.\r\n", "a\0b\r\n", "\n\r\n.\r\r\n"};
    static const uint8_t lens[] = {3, 4, 23, 4, 4, 5, 6, 5, 8};
    uint32_t n = (uint32_t)prng_below(p, sizeof lens);
    memcpy(out, tricks[n], lens[n]);
    memcpy(out + lens[n], "\r\n", 2);
    return lens[n] + 2u;
}

uint8_t *ledger_text(struct world *w, struct msg *m, uint32_t size, bool smuggle)
{
    uint8_t *out = malloc(size + 256);
    uint32_t len = (uint32_t)sprintf((char *)out, "%s%u\r\nSubject: sim\r\n\r\n", mark, m->id);
    len += text_lines(&w->clients, out + len, size, m->eight_bit);
    if (smuggle)
        len += text_smuggle(&w->clients, out + len);
    m->size = len;
    m->crc = crc32c(0, out, len);
    return out;
}

bool ledger_body(struct world *w, const struct msg *m, struct slice text)
{
    const uint8_t *end = text.len ? memmem(text.ptr, text.len, "\r\n\r\n", 4) : NULL;
    struct slice head = slice_head(text, end ? (size_t)(end - text.ptr) + 2 : text.len);
    const uint8_t *at = head.len ? memmem(head.ptr, head.len, mark, sizeof mark - 1) : NULL;
    if (!at) {
        if (m)
            world_fail(w, "message %u: its body came as something else", m->id);
        return false;
    }
    struct slice body = slice_from(text, (size_t)(at - text.ptr));
    unsigned id = (unsigned)strtoul((const char *)at + sizeof mark - 1, NULL, 10);
    if (!m || m->id != id)
        world_fail(w, "message %d: came with the body of message %u", m ? (int)m->id : -1, id);
    else if (body.len != m->size || crc32c(0, body.ptr, body.len) != m->crc)
        world_fail(w, "message %u: its body has changed (%zu bytes, sent %u)", m->id, body.len,
                   m->size);
    return true;
}
