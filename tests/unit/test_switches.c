/*
 * Tests of gateway/switches.c.
 */
#include <criterion/criterion.h>

#include "gateway/switches.h"

Test(switches, what_is_not_listed_is_on)
{
    struct switches s = {0};
    cr_assert_eq(switches_get(&s, CONNECTOR_SEND, "out"), CONNECTOR_ON);
    cr_assert(switches_set(&s, CONNECTOR_SEND, "out", CONNECTOR_ON));
    cr_assert_eq(s.count, 0);
    cr_assert(switches_set(&s, CONNECTOR_SEND, "out", CONNECTOR_SUSPENDED));
    cr_assert(switches_set(&s, CONNECTOR_RECEIVE, "out", CONNECTOR_DISABLED));
    cr_assert(switches_set(&s, CONNECTOR_SEND, "out", CONNECTOR_DISABLED));
    cr_assert_eq(s.count, 2);
    cr_assert_eq(switches_get(&s, CONNECTOR_SEND, "out"), CONNECTOR_DISABLED);
    cr_assert_eq(switches_get(&s, CONNECTOR_RECEIVE, "out"), CONNECTOR_DISABLED);
    cr_assert_eq(switches_get(&s, CONNECTOR_SEND, "ou"), CONNECTOR_ON);
    cr_assert(switches_set(&s, CONNECTOR_SEND, "out", CONNECTOR_ON));
    cr_assert_eq(switches_get(&s, CONNECTOR_SEND, "out"), CONNECTOR_ON);
    cr_assert_eq(switches_get(&s, CONNECTOR_RECEIVE, "out"), CONNECTOR_DISABLED);
    switches_free(&s);
}

Test(switches, text_and_back)
{
    char text[512];
    struct buf b = buf_over(text, sizeof text);
    struct switches s = {0}, again, copy;
    cr_assert(switches_set(&s, CONNECTOR_SEND, "the internet", CONNECTOR_SUSPENDED));
    cr_assert(switches_set(&s, CONNECTOR_RECEIVE, "relay", CONNECTOR_DISABLED));
    cr_assert(switches_write(&s, &b));
    cr_assert(slice_eq(buf_slice(&b),
                       slice_str("send suspended the internet\nreceive disabled relay\n")));
    for (size_t len = 0; len <= b.len; len++) { /* a file that was cut says less, never other */
        cr_assert(switches_parse(slice_head(buf_slice(&b), len), &again));
        if (len == b.len) {
            cr_assert_eq(again.count, 2);
            cr_assert_eq(switches_get(&again, CONNECTOR_SEND, "the internet"), CONNECTOR_SUSPENDED);
        }
        switches_free(&again);
    }
    cr_assert(switches_copy(&s, &copy));
    cr_assert_eq(switches_get(&copy, CONNECTOR_RECEIVE, "relay"), CONNECTOR_DISABLED);
    cr_assert(switches_set(&copy, CONNECTOR_RECEIVE, "third", CONNECTOR_DISABLED));
    switches_free(&copy);
    switches_free(&s);
}

Test(switches, lines_that_say_nothing_are_left_out)
{
    struct switches s;
    cr_assert(switches_parse(slice_str("\nsend\nsend broken x\nfrob disabled x\nsend disabled \n"
                                       "send enabled x\nsend disabled ok"),
                             &s));
    cr_assert_eq(s.count, 1);
    cr_assert_eq(switches_get(&s, CONNECTOR_SEND, "ok"), CONNECTOR_DISABLED);
    switches_free(&s);
}

Test(switches, is_bounded)
{
    struct switches s = {0};
    char name[CONFIG_NAME_MAX + 2];
    uint32_t n = 0;
    do
        snprintf(name, sizeof name, "c%u", n);
    while (switches_set(&s, CONNECTOR_SEND, name, CONNECTOR_DISABLED) && ++n);
    cr_assert_eq(n, SWITCHES_MAX);
    memset(name, 'x', sizeof name);
    name[sizeof name - 1] = '\0';
    cr_assert_not(switches_set(&s, CONNECTOR_SEND, name, CONNECTOR_ON));
    switches_free(&s);
}
