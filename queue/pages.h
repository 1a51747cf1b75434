/*
 * queue/pages.h - an array of pointers that grows page by page: no element is ever copied, so
 * growing never stalls the shard.
 */
#ifndef HIKYAKU_QUEUE_PAGES_H
#define HIKYAKU_QUEUE_PAGES_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#define PAGE_SHIFT 12u
#define PAGE_ITEMS (1u << PAGE_SHIFT)

struct pages {
    void ***page;
    uint32_t page_count, page_cap;
};

static inline void **pages_at(const struct pages *p, uint32_t index)
{
    return &p->page[index >> PAGE_SHIFT][index & (PAGE_ITEMS - 1)];
}

/* Room for elements up to and including `index`, new ones NULL. False: no memory. */
static inline bool pages_reach(struct pages *p, uint32_t index)
{
    while (index >> PAGE_SHIFT >= p->page_count) {
        if (p->page_count == p->page_cap) {
            uint32_t cap = p->page_cap ? p->page_cap * 2 : 16;
            void ***grown = realloc(p->page, cap * sizeof *grown);
            if (!grown)
                return false;
            p->page = grown;
            p->page_cap = cap;
        }
        p->page[p->page_count] = calloc(PAGE_ITEMS, sizeof(void *));
        if (!p->page[p->page_count])
            return false;
        p->page_count++;
    }
    return true;
}

static inline void pages_free(struct pages *p)
{
    for (uint32_t i = 0; i < p->page_count; i++)
        free(p->page[i]);
    free(p->page);
    *p = (struct pages){0};
}

#endif
