/*
 * tests/unit/test_series.c - gateway/series.c: buckets, and places of connectors that stay.
 */
#include <criterion/criterion.h>

#include "gateway/config.h"
#include "gateway/series.h"

Test(series, a_time_falls_into_the_first_bucket_that_is_not_shorter)
{
    struct histogram h = {0};
    histogram_add(&h, 0);
    histogram_add(&h, 1000000); /* 1 ms: the bound belongs to it */
    histogram_add(&h, 1000001); /* just above */
    histogram_add(&h, UINT64_MAX / 2);
    cr_assert_eq(h.bucket[0], 2);
    cr_assert_eq(h.bucket[1], 1);
    cr_assert_eq(h.bucket[HISTOGRAM_BUCKETS], 1);
    cr_assert_eq(h.sum_ns, 2000001 + UINT64_MAX / 2);
    for (uint32_t i = 1; i < HISTOGRAM_BUCKETS; i++)
        cr_assert_gt(histogram_bound_us[i], histogram_bound_us[i - 1]);
}

static void name_all(struct config_send_connector *s, char (*names)[16], uint32_t count,
                     uint32_t first)
{
    for (uint32_t i = 0; i < count; i++) {
        snprintf(names[i], sizeof names[i], "c%u", first + i);
        s[i].name = names[i];
    }
}

Test(series, names_keep_their_places_and_what_is_too_many_shares_one)
{
    static struct series_names n;
    static struct config_send_connector send[SERIES_CONNECTORS_MAX + 5];
    static char names[SERIES_CONNECTORS_MAX + 5][16];
    struct config c = {.send = send, .send_count = 3};
    name_all(send, names, 3, 0);
    send[1].mx = true;
    send[2].handoff = true;
    series_assign(&n, &c);
    cr_assert_eq(n.send_count, 3);
    cr_assert_eq(send[0].series, 1);
    cr_assert_str_eq(site_class_name(n.send_class[send[1].series]), "mx");
    cr_assert_str_eq(site_class_name(n.send_class[send[2].series]), "peer");

    /* A reload: two are gone, one comes, the order is another one. */
    c.send_count = 2;
    name_all(send, names, 2, 2);
    series_assign(&n, &c);
    cr_assert_eq(send[0].series, 3, "c2 as before");
    cr_assert_eq(send[1].series, 4, "c3 is new");
    cr_assert_str_eq(site_class_name(n.send_class[3]), "smart_host", "it is one now");

    c.send_count = SERIES_CONNECTORS_MAX + 5;
    name_all(send, names, c.send_count, 0);
    series_assign(&n, &c);
    cr_assert_eq(n.send_count, SERIES_CONNECTORS_MAX);
    cr_assert_eq(send[0].series, 1);
    cr_assert_eq(send[SERIES_CONNECTORS_MAX - 1].series, SERIES_CONNECTORS_MAX);
    for (uint32_t i = SERIES_CONNECTORS_MAX; i < c.send_count; i++)
        cr_assert_eq(send[i].series, SERIES_OTHER);
}
