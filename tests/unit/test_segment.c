/*
 * tests/unit/test_segment.c - when a segment may be deleted (FORMAT.md section 7).
 */
#include <criterion/criterion.h>

#include "queue/segment.h"

static struct segment *add(struct segments *t, uint32_t id)
{
    struct segment *s = segment_create(id, 8 * MIB);

    s->state = SEGMENT_SEALED;
    cr_assert(segments_add(t, s));
    return s;
}

/* The ids that may go, as bits. */
static uint32_t dead(const struct segments *t, uint64_t durable)
{
    uint32_t at = 0, bits = 0;
    struct segment *s;

    while ((s = segments_next_dead(t, &at, durable)) != NULL)
        bits |= 1u << s->id;
    return bits;
}

Test(segment, order_and_finding)
{
    struct segments t = {0};

    add(&t, 5);
    add(&t, 2);
    add(&t, 9);
    cr_assert_eq(t.items[0]->id, 2);
    cr_assert_eq(t.items[2]->id, 9);
    cr_assert_eq(segments_find(&t, 5)->id, 5);
    cr_assert_null(segments_find(&t, 6));
    segments_destroy(&t);
}

Test(segment, live_messages_states_and_the_newest_stay)
{
    struct segments t = {0};

    for (uint32_t id = 1; id <= 5; id++)
        add(&t, id);
    cr_assert_eq(dead(&t, 0), 0x1e, "all but the newest");
    segments_cover(&t, 1, 3, 1, 0);
    cr_assert_eq(dead(&t, 0), 1u << 4);
    segments_state_moved(&t, 0, 4, 0);
    cr_assert_eq(dead(&t, 0), 0);
    segments_state_moved(&t, 4, 5, 7);
    cr_assert_eq(dead(&t, 6), 0, "the record that moved it is not durable");
    cr_assert_eq(dead(&t, 7), 1u << 4);
    segments_cover(&t, 1, 3, -1, 9);
    cr_assert_eq(dead(&t, 8), 1u << 4);
    cr_assert_eq(dead(&t, 9), 0x1e);
    segments_requiet(&t, 8, UINT64_MAX);
    cr_assert_eq(dead(&t, 9), 1u << 4);
    t.items[3]->state = SEGMENT_OPEN;
    cr_assert_eq(dead(&t, 9), 0);
    segments_destroy(&t);
}

Test(segment, tombstones_wait_for_what_they_bury)
{
    struct segments t = {0};
    struct segment *one = add(&t, 1), *two = add(&t, 2), *three = add(&t, 3);

    add(&t, 4);
    segment_depend(&t, two, 1);
    segment_depend(&t, three, 2);
    segment_depend(&t, three, 2);
    segment_depend(&t, three, 3);
    segment_depend(&t, three, 77); /* not there: nothing to wait for */
    cr_assert_eq(three->dep_count, 1);
    segments_cover(&t, 1, 1, 1, 0);
    cr_assert_eq(dead(&t, 0), 0);
    segments_cover(&t, 1, 1, -1, 0);
    cr_assert_eq(dead(&t, 0), 1u << 1);
    segments_forget(&t, one);
    cr_assert_eq(dead(&t, 0), 1u << 2);
    segments_forget(&t, two);
    cr_assert_eq(dead(&t, 0), 1u << 3);
    segments_destroy(&t);
}

Test(segment, dependences_are_taken_over)
{
    struct segments t = {0};
    struct segment *s;

    for (uint32_t id = 1; id <= 20; id++)
        add(&t, id);
    s = segments_find(&t, 15);
    for (uint32_t id = 14; id >= 1; id -= 2) {
        segment_depend(&t, s, id);
        if (id == 2)
            break;
    }
    cr_assert_eq(s->dep_count, 7);
    for (uint32_t i = 1; i < s->dep_count; i++)
        cr_assert_lt(s->deps[i - 1], s->deps[i]);
    segment_depend(&t, segments_find(&t, 18), 3);
    segment_depend_like(&t, segments_find(&t, 18), s);
    cr_assert_eq(segments_find(&t, 18)->dep_count, 8);
    s->deps_all = true;
    segment_depend_like(&t, segments_find(&t, 19), s);
    cr_assert(segments_find(&t, 19)->deps_all);
    cr_assert_eq(dead(&t, 0) & (1u << 15 | 1u << 18 | 1u << 19), 0);
    segments_destroy(&t);
}

Test(segment, open_transactions_hold_all_that_follows)
{
    struct segments t = {0};

    for (uint32_t id = 1; id <= 5; id++)
        add(&t, id);
    t.items[1]->pins = 1;
    cr_assert_eq(dead(&t, 0), 1u << 1);
    t.items[1]->pins = 0;
    cr_assert_eq(dead(&t, 0), 0x1e);
    segments_destroy(&t);
}

/* Copies that nobody points at: what could bury them stays until they are gone. */
Test(segment, strays_go_first)
{
    struct segments t = {0};
    uint32_t at = 0;

    for (uint32_t id = 1; id <= 5; id++)
        add(&t, id);
    t.items[1]->strays = true;
    segments_state_moved(&t, 0, 2, 0);
    cr_assert_eq(dead(&t, 0), 1u << 1);
    segments_state_moved(&t, 2, 0, 0);
    cr_assert_eq(dead(&t, 0), 1u << 1 | 1u << 2, "and what follows only when it is gone");
    cr_assert_eq(segments_next_dead(&t, &at, 0)->id, 1);
    segments_forget(&t, t.items[0]);
    segments_forget(&t, t.items[0]);
    cr_assert_eq(dead(&t, 0), 1u << 3 | 1u << 4);
    segments_destroy(&t);
}

/* What could not be read stays, and all that is younger. */
Test(segment, unread_ones_hold_the_younger)
{
    struct segments t = {0};

    for (uint32_t id = 1; id <= 5; id++)
        add(&t, id);
    t.items[2]->unread = true;
    cr_assert_eq(dead(&t, 0), 1u << 1 | 1u << 2);
    segments_destroy(&t);
}
