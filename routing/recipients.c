/*
 * routing/recipients.c - which mailboxes an accepted domain has.
 *
 * Owns:     the keys "local@domain", in lower case, in one block for each list, and their table.
 * Runs on:  made by the control thread; read by every shard (nothing in it changes then).
 * Contract: found without regard to case. A mailbox "user" also takes "user+detail" (RFC 5233).
 *           postmaster is everywhere (RFC 5321 section 4.5.1).
 * Failure:  no memory, or a line that is no mailbox of the domain: false, and which line.
 * Bounds:   the size of the text; one probe or two a question.
 * Tests:    tests/unit/test_relay.c
 */
#include <stdlib.h>

#include "routing/domain.h"
#include "routing/relay.h"

#define LOCAL_MAX 64u

struct block {
    struct block *next;
    uint8_t bytes[];
};

struct relay_recipients {
    struct block *blocks;
    struct slice *table; /* ptr NULL: free */
    uint32_t count, mask;
};

struct relay_recipients *relay_recipients_create(void)
{
    struct relay_recipients *r = calloc(1, sizeof *r);
    if (!r)
        return NULL;
    r->mask = 63;
    r->table = calloc(r->mask + 1, sizeof *r->table);
    if (r->table)
        return r;
    free(r);
    return NULL;
}

void relay_recipients_destroy(struct relay_recipients *r)
{
    if (!r)
        return;
    for (struct block *b = r->blocks, *next; b; b = next) {
        next = b->next;
        free(b);
    }
    free(r->table);
    free(r);
}

static uint32_t key_hash(struct slice key)
{
    uint64_t h = 14695981039346656037ull; /* the keys are the operator's, not an attacker's */
    for (size_t i = 0; i < key.len; i++)
        h = (h ^ key.ptr[i]) * 1099511628211ull;
    return (uint32_t)(h ^ h >> 32);
}

static struct slice *key_slot(const struct relay_recipients *r, struct slice key)
{
    uint32_t i = key_hash(key) & r->mask;
    while (r->table[i].ptr && !slice_eq(r->table[i], key))
        i = (i + 1) & r->mask;
    return &r->table[i];
}

static bool table_grow(struct relay_recipients *r)
{
    struct relay_recipients wider = {.mask = r->mask * 2 + 1};
    wider.table = calloc((size_t)wider.mask + 1, sizeof *wider.table);
    if (!wider.table)
        return false;
    for (uint32_t i = 0; i <= r->mask; i++)
        if (r->table[i].ptr)
            *key_slot(&wider, r->table[i]) = r->table[i];
    free(r->table);
    r->table = wider.table;
    r->mask = wider.mask;
    return true;
}

static size_t key_write(uint8_t *to, struct slice local, struct slice domain)
{
    for (size_t i = 0; i < local.len; i++)
        to[i] = ascii_lower(local.ptr[i]);
    to[local.len] = '@';
    for (size_t i = 0; i < domain.len; i++)
        to[local.len + 1 + i] = ascii_lower(domain.ptr[i]);
    return local.len + 1 + domain.len;
}

static struct slice trimmed(struct slice line)
{
    while (line.len && (line.ptr[0] == ' ' || line.ptr[0] == '\t'))
        line = slice_from(line, 1);
    while (line.len && (line.ptr[line.len - 1] == ' ' || line.ptr[line.len - 1] == '\t' ||
                        line.ptr[line.len - 1] == '\r'))
        line.len--;
    return line;
}

/* "user" or "user@domain" of this domain. */
static bool line_local(struct slice line, struct slice domain, struct slice *local)
{
    size_t at = line.len;
    while (at > 0 && line.ptr[at - 1] != '@')
        at--;
    *local = at ? slice_head(line, at - 1) : line;
    if (local->len == 0 || local->len > LOCAL_MAX || slice_find(*local, ' ') < local->len)
        return false;
    return at == 0 || slice_eq_nocase(slice_from(line, at), domain);
}

bool relay_recipients_add(struct relay_recipients *r, const char *domain, struct slice text,
                          uint32_t *bad_line)
{
    struct slice of = slice_str(domain), local;
    uint32_t lines = 1, number = 0;
    *bad_line = 0;
    for (size_t i = 0; i < text.len; i++)
        lines += text.ptr[i] == '\n';
    struct block *b = malloc(sizeof *b + text.len + (size_t)lines * (of.len + 1));
    if (!b)
        return false;
    b->next = r->blocks;
    r->blocks = b;
    uint8_t *to = b->bytes;
    while (text.len) {
        size_t end = slice_find(text, '\n');
        struct slice line = trimmed(slice_head(text, end));
        text = slice_from(text, end + 1);
        number++;
        if (line.len == 0 || line.ptr[0] == '#')
            continue;
        if (!line_local(line, of, &local)) {
            *bad_line = number;
            return false;
        }
        struct slice key = slice_of(to, key_write(to, local, of));
        struct slice *slot = key_slot(r, key);
        if (slot->ptr)
            continue;
        *slot = key;
        to += key.len;
        if (++r->count * 2 > r->mask && !table_grow(r))
            return false;
    }
    return true;
}

bool relay_recipients_has(const struct relay_recipients *r, struct slice local, struct slice domain)
{
    char text[DOMAIN_TEXT_MAX];
    uint8_t key[LOCAL_MAX + 1 + DOMAIN_TEXT_MAX];
    struct slice detail = slice_head(local, slice_find(local, '+'));
    if (slice_eq_nocase(local, SLICE_LIT("postmaster")))
        return true;
    if (local.len > LOCAL_MAX || !domain_to_ascii(domain, text, NULL))
        return false;
    domain = slice_str(text);
    if (key_slot(r, slice_of(key, key_write(key, local, domain)))->ptr)
        return true;
    return detail.len > 0 && detail.len < local.len &&
           key_slot(r, slice_of(key, key_write(key, detail, domain)))->ptr;
}
