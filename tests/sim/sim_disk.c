/*
 * tests/sim/sim_disk.c - the simulated disk: the bytes of files, now and after a power cut.
 *
 * Owns:     inodes and pages of a disk; pages are shared between what is now, what is durable,
 *           and saved copies, and copied when written.
 * Runs on:  the one thread of the simulation.
 * Contract: a sector is dirty from a write until a sync that began after it. A failed sync loses:
 *           its sectors are clean, and no later sync writes them.
 * Failure:  -ENOSPC.
 * Bounds:   bytes_max, counted in pages; inodes_max.
 * Tests:    tests/sim/test_sim_disk.c
 */
#include <errno.h>
#include <stdlib.h>

#include "tests/sim/sim_internal.h"

#define DISK_BYTES (1 * GIB)

static const uint8_t zeros[SIM_PAGE];

/* ---- pages ---- */

static struct sim_page *page_take(struct sim *sim)
{
    struct sim_page *p = sim->free_pages;

    if (p)
        sim->free_pages = p->next_free;
    else
        p = aligned_alloc(64, sizeof *p);
    SIM_CHECK(p, "no memory");
    p->refs = 1;
    return p;
}

void sim_page_put(struct sim *sim, struct sim_page *p)
{
    if (!p || --p->refs > 0)
        return;
    p->next_free = sim->free_pages;
    sim->free_pages = p;
}

static struct sim_page *page_share(struct sim_page *p)
{
    if (p)
        p->refs++;
    return p;
}

struct sim_page *sim_page_own(struct sim_disk *d, struct sim_page **page)
{
    struct sim_page *old = *page;

    if (old && old->refs == 1)
        return old;
    *page = page_take(d->sim);
    memcpy((*page)->data, old ? old->data : zeros, SIM_PAGE);
    sim_page_put(d->sim, old);
    return *page;
}

/* ---- disks and inodes ---- */

struct sim_disk *sim_disk_create(struct sim *sim)
{
    struct sim_disk *d = calloc(1, sizeof *d);

    SIM_CHECK(d, "no memory");
    d->sim = sim;
    d->bytes_max = DISK_BYTES;
    d->inodes_max = UINT64_MAX;
    d->sector = SIM_SECTOR;
    sim_inode_create(d, true)->refs = 1;
    d->inodes[0]->parent = d->inodes[0];
    return d;
}

struct sim_inode *sim_inode_create(struct sim_disk *d, bool is_dir)
{
    struct sim_inode *node = calloc(1, sizeof *node);

    if (d->inode_count == d->inode_cap) {
        d->inode_cap = d->inode_cap ? 2 * d->inode_cap : 32;
        d->inodes = realloc(d->inodes, d->inode_cap * sizeof(struct sim_inode *));
    }
    SIM_CHECK(node && d->inodes, "no memory");
    node->is_dir = is_dir;
    node->index = d->inode_count;
    d->inodes[d->inode_count++] = node;
    return node;
}

static void inode_free(struct sim_disk *d, struct sim_inode *node)
{
    struct sim_inode *last = d->inodes[--d->inode_count];

    for (uint32_t i = 0; i < node->slot_count; i++) {
        sim_page_put(d->sim, node->slots[i].cache);
        sim_page_put(d->sim, node->slots[i].durable);
    }
    d->bytes_used -= node->used_pages * SIM_PAGE;
    d->inodes[node->index] = last;
    last->index = node->index;
    for (uint32_t i = 0; i < node->entry_count; i++)
        free(node->entries[i].name);
    free(node->entries);
    free(node->slots);
    free(node->dirty_pages);
    free(node);
}

void sim_inode_put(struct sim_disk *d, struct sim_inode *node)
{
    SIM_CHECK(node->refs > 0, "simulator: an inode is put once too often");
    if (--node->refs > 0)
        return;
    for (uint32_t i = 0; i < node->entry_count; i++) {
        if (node->entries[i].now)
            sim_inode_put(d, node->entries[i].now);
        if (node->entries[i].durable)
            sim_inode_put(d, node->entries[i].durable);
    }
    inode_free(d, node);
}

static void *copy_of(const void *from, size_t count, size_t size)
{
    void *p = count ? malloc(count * size) : NULL;

    SIM_CHECK(p || count == 0, "no memory");
    if (count)
        memcpy(p, from, count * size);
    return p;
}

static void inode_copy(struct sim_disk *d, struct sim_inode *to, const struct sim_inode *from)
{
    *to = *from;
    to->parent = from->parent ? d->inodes[from->parent->index] : NULL;
    to->slots = copy_of(from->slots, from->slot_count, sizeof *to->slots);
    for (uint32_t i = 0; i < to->slot_count; i++) {
        page_share(to->slots[i].cache);
        page_share(to->slots[i].durable);
    }
    to->dirty_cap = from->dirty_count;
    to->dirty_pages = copy_of(from->dirty_pages, from->dirty_count, sizeof *to->dirty_pages);
    to->entry_cap = from->entry_count;
    to->entries = copy_of(from->entries, from->entry_count, sizeof *to->entries);
    for (uint32_t i = 0; i < to->entry_count; i++) {
        struct sim_dentry *e = &to->entries[i];
        e->name = strdup(e->name);
        e->now = e->now ? d->inodes[e->now->index] : NULL;
        e->durable = e->durable ? d->inodes[e->durable->index] : NULL;
    }
}

static struct sim_inode *twin(const struct sim_disk *d, const struct sim_inode *node)
{
    return node ? d->inodes[node->index] : NULL;
}

struct sim_disk *sim_disk_copy(const struct sim_disk *from)
{
    struct sim_disk *d = copy_of(from, 1, sizeof *d);

    d->inode_cap = from->inode_count;
    d->inodes = calloc(from->inode_count, sizeof(struct sim_inode *));
    for (uint32_t i = 0; i < from->inode_count; i++)
        d->inodes[i] = malloc(sizeof(struct sim_inode));
    for (uint32_t i = 0; i < from->inode_count; i++)
        inode_copy(d, d->inodes[i], from->inodes[i]);
    d->change_cap = from->change_count;
    d->changes = copy_of(from->changes, from->change_count, sizeof *d->changes);
    for (uint32_t i = 0; i < d->change_count; i++) {
        struct sim_change *c = &d->changes[i];
        c->node = twin(d, c->node);
        c->from_dir = twin(d, c->from_dir);
        c->to_dir = twin(d, c->to_dir);
        c->from = c->from ? strdup(c->from) : NULL;
        c->to = c->to ? strdup(c->to) : NULL;
    }
    return d;
}

void sim_disk_free(struct sim_disk *d)
{
    if (!d)
        return;
    for (uint32_t i = 0; i < d->change_count; i++) {
        free(d->changes[i].from);
        free(d->changes[i].to);
    }
    while (d->inode_count > 0)
        inode_free(d, d->inodes[d->inode_count - 1]);
    free(d->changes);
    free(d->inodes);
    free(d);
}

/* ---- reading and writing ---- */

uint32_t sim_inode_read(const struct sim_inode *node, void *buf, uint32_t len, uint64_t offset)
{
    uint8_t *out = buf;

    if (offset >= node->size)
        return 0;
    if (len > node->size - offset)
        len = (uint32_t)(node->size - offset);
    for (uint32_t done = 0, n; done < len; done += n) {
        uint64_t at = offset + done, in = at % SIM_PAGE, page = at / SIM_PAGE;
        const struct sim_page *p = page < node->slot_count ? node->slots[page].cache : NULL;
        n = len - done < SIM_PAGE - in ? len - done : (uint32_t)(SIM_PAGE - in);
        memcpy(out + done, p ? p->data + in : zeros, n);
    }
    return len;
}

static void slots_grow(struct sim_inode *node, uint64_t pages)
{
    uint32_t count = node->slot_count ? node->slot_count : 8;

    if (pages <= node->slot_count)
        return;
    SIM_CHECK(pages < 1u << 24, "simulator: a file of more than 64 GiB");
    while (count < pages)
        count *= 2;
    node->slots = realloc(node->slots, count * sizeof *node->slots);
    SIM_CHECK(node->slots, "no memory");
    memset(node->slots + node->slot_count, 0, (count - node->slot_count) * sizeof *node->slots);
    node->slot_count = count;
}

static bool slot_reserve(struct sim_disk *d, struct sim_inode *node, struct sim_slot *s)
{
    if (s->allocated)
        return true;
    if (d->bytes_used + SIM_PAGE > d->bytes_max)
        return false;
    d->bytes_used += SIM_PAGE;
    node->used_pages++;
    s->allocated = true;
    return true;
}

static void mark_dirty(struct sim_disk *d, struct sim_inode *node, uint32_t page, uint8_t sectors)
{
    struct sim_slot *s = &node->slots[page];

    s->dirty |= sectors;
    s->seq = d->seq;
    if (s->listed)
        return;
    s->listed = true;
    if (node->dirty_count == node->dirty_cap) {
        node->dirty_cap = node->dirty_cap ? 2 * node->dirty_cap : 16;
        node->dirty_pages = realloc(node->dirty_pages, node->dirty_cap * sizeof *node->dirty_pages);
        SIM_CHECK(node->dirty_pages, "no memory");
    }
    node->dirty_pages[node->dirty_count++] = page;
}

static uint8_t sectors_of(uint32_t from, uint32_t len)
{
    uint32_t first = from / SIM_SECTOR, last = (from + len - 1) / SIM_SECTOR;

    return (uint8_t)((0xffu << first) & (0xffu >> (7 - last)));
}

/*
 * A page that a sync under way covers is written again: the sync takes it as it was, as a page
 * under writeback does.
 */
static void settle_for_sync(struct sim_disk *d, struct sim_inode *node, struct sim_slot *s)
{
    if (node->syncing && s->dirty && s->seq <= node->sync_seq)
        sim_slot_settle(d, s, s->dirty);
}

static void set_size(struct sim_disk *d, struct sim_inode *node, uint64_t size)
{
    node->size = size;
    node->size_seq = d->seq;
    node->size_lost = false;
}

int32_t sim_inode_write(struct sim_disk *d, struct sim_inode *node, const void *buf, uint32_t len,
                        uint64_t offset)
{
    const uint8_t *in = buf;
    uint32_t done = 0;

    d->seq++;
    slots_grow(node, (offset + len + SIM_PAGE - 1) / SIM_PAGE);
    while (done < len) {
        uint64_t at = offset + done;
        uint32_t from = (uint32_t)(at % SIM_PAGE), page = (uint32_t)(at / SIM_PAGE);
        uint32_t n = len - done < SIM_PAGE - from ? len - done : SIM_PAGE - from;
        struct sim_slot *s = &node->slots[page];
        if (!slot_reserve(d, node, s))
            break;
        settle_for_sync(d, node, s);
        memcpy(sim_page_own(d, &s->cache)->data + from, in + done, n);
        mark_dirty(d, node, page, sectors_of(from, n));
        done += n;
    }
    if (offset + done > node->size && done > 0)
        set_size(d, node, offset + done);
    return done == 0 && len > 0 ? -ENOSPC : (int32_t)done;
}

int32_t sim_inode_allocate(struct sim_disk *d, struct sim_inode *node, uint64_t offset,
                           uint64_t len)
{
    uint64_t first = offset / SIM_PAGE, end = (offset + len + SIM_PAGE - 1) / SIM_PAGE, needed = 0;

    slots_grow(node, end);
    for (uint64_t i = first; i < end; i++)
        needed += !node->slots[i].allocated;
    if (d->bytes_used + needed * SIM_PAGE > d->bytes_max)
        return -ENOSPC;
    d->seq++;
    for (uint64_t i = first; i < end; i++)
        (void)slot_reserve(d, node, &node->slots[i]);
    if (offset + len > node->size)
        set_size(d, node, offset + len);
    return 0;
}

void sim_inode_truncate(struct sim_disk *d, struct sim_inode *node)
{
    d->seq++;
    for (uint32_t i = 0; i < node->slot_count; i++) {
        struct sim_slot *s = &node->slots[i];
        if (!s->cache && !s->durable)
            continue;
        settle_for_sync(d, node, s);
        sim_page_put(d->sim, s->cache);
        s->cache = NULL;
        mark_dirty(d, node, i, 0xff);
    }
    for (uint32_t i = 0; i < node->slot_count; i++)
        node->slots[i].allocated = false;
    d->bytes_used -= node->used_pages * SIM_PAGE;
    node->used_pages = 0;
    set_size(d, node, 0);
}

/* ---- what lasts ---- */

/* These sectors are on the medium as they are now. */
void sim_slot_settle(struct sim_disk *d, struct sim_slot *s, uint8_t sectors)
{
    struct sim_page *durable;

    if (!s->lost && sectors == s->dirty) {
        sim_page_put(d->sim, s->durable);
        s->durable = page_share(s->cache);
        s->dirty = 0;
        return;
    }
    durable = sim_page_own(d, &s->durable);
    for (uint32_t i = 0; i < SIM_PAGE / SIM_SECTOR; i++)
        if (sectors >> i & 1)
            memcpy(durable->data + i * SIM_SECTOR,
                   s->cache ? s->cache->data + i * SIM_SECTOR : zeros, SIM_SECTOR);
    s->dirty &= (uint8_t)~sectors;
}

/* What was in memory only is gone. */
void sim_slot_revert(struct sim_disk *d, struct sim_slot *s)
{
    sim_page_put(d->sim, s->cache);
    s->cache = page_share(s->durable);
    s->dirty = 0;
    s->lost = false;
}

/* Calls for every dirty page up to `seq`, and takes it off the list. */
#define EACH_DIRTY(node, seq_max, slot, code)                                \
    do {                                                                     \
        uint32_t kept_ = 0;                                                  \
        for (uint32_t i_ = 0; i_ < (node)->dirty_count; i_++) {              \
            struct sim_slot *slot = &(node)->slots[(node)->dirty_pages[i_]]; \
            if (slot->dirty && slot->seq > (seq_max)) {                      \
                (node)->dirty_pages[kept_++] = (node)->dirty_pages[i_];      \
                continue;                                                    \
            }                                                                \
            code;                                                            \
            slot->listed = false;                                            \
        }                                                                    \
        (node)->dirty_count = kept_;                                         \
    } while (0)

void sim_inode_commit(struct sim_disk *d, struct sim_inode *node, uint64_t seq, uint64_t size)
{
    EACH_DIRTY(node, seq, s, if (s->dirty) sim_slot_settle(d, s, s->dirty));
    if (!node->size_lost)
        node->durable_size = size;
}

static void lose_slot(struct sim_disk *d, struct sim_slot *s, struct prng *prng)
{
    uint8_t written = (uint8_t)(s->dirty & sim_below(prng, 256));

    if (sim_below(prng, 3) == 0)
        written = 0;
    if (written)
        sim_slot_settle(d, s, written);
    if (s->dirty) {
        s->dirty = 0;
        s->lost = true;
        if (sim_below(prng, 2)) /* memory was short: read back from the medium */
            sim_slot_revert(d, s);
    }
}

void sim_inode_lose(struct sim_disk *d, struct sim_inode *node, uint64_t seq, struct prng *prng)
{
    EACH_DIRTY(node, seq, s, if (s->dirty) lose_slot(d, s, prng));
    if (node->size_seq <= seq && node->size != node->durable_size) {
        if (sim_below(prng, 2))
            node->durable_size = node->size;
        else
            node->size_lost = true;
    }
}
