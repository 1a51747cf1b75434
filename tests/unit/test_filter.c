/*
 * tests/unit/test_filter.c - gateway/filter.c.
 */
#include <criterion/criterion.h>

#include "gateway/filter.h"

static const char *const rcpts[] = {"Anna@Example.com", "bob@example.org"};

static struct slice rcpt(const void *arg, uint32_t i)
{
    (void)arg;
    return slice_str(rcpts[i]);
}

static bool matches(const char *text)
{
    struct filter_row row = {
        .qid = SLICE_LIT("0ABC"),
        .sender = SLICE_LIT("shop@example.net"),
        .connector = SLICE_LIT("isp"),
        .site = SLICE_LIT("isp/example.com"),
        .status = SLICE_LIT("deferred"),
        .last_error = SLICE_LIT("Connecting failed: Connection timed out"),
        .source_ip = SLICE_LIT("192.0.2.1"),
        .account = SLICE_LIT("shop"),
        .subject = SLICE_LIT("Your order"),
        .size = 2 * 1024 * 1024,
        .age_s = 7200,
        .retries = 3,
        .rcpt_count = 2,
        .rcpt = rcpt,
    };
    struct why why;
    struct filter *f = filter_parse(text, &why);
    cr_assert_not_null(f, "%s: %s", text, why.text);
    bool yes = filter_matches(f, &row);
    filter_free(f);
    return yes;
}

Test(filter, the_example_of_the_interface_document)
{
    cr_assert(matches("recipient~*@example.com and age>1h and last_error~*timed*"));
    cr_assert_not(matches("recipient~*@example.com and age>3h and last_error~*timed*"));
    cr_assert_not(matches("recipient~*@example.net"));
}

Test(filter, every_field_and_operator)
{
    cr_assert(matches("qid=0abc"));
    cr_assert(matches("sender = SHOP@example.net"));
    cr_assert(matches("domain=example.org"));
    cr_assert(matches("connector!=internet"));
    cr_assert(matches("site~isp/*"));
    cr_assert(matches("status=deferred and retries>=3 and retries<=3 and retries=3"));
    cr_assert(matches("size>1MiB and size<3MiB and size=2048KiB"));
    cr_assert(matches("age=2h and age<1d and age>=7200"));
    cr_assert(matches("source_ip~192.0.2.?"));
    cr_assert(matches("account!~x* and subject=\"your order\""));
    cr_assert_not(matches("recipient!=anna@example.com"), "one recipient is what is excluded");
    cr_assert(matches("domain!~*.de"));
}

Test(filter, globs)
{
    cr_assert(matches("subject~*"));
    cr_assert(matches("subject~*o*r*er"));
    cr_assert(matches("subject~\"Your order*\""));
    cr_assert_not(matches("subject~order"));
    cr_assert_not(matches("subject~*z*"));
    cr_assert(matches("subject~??????????"));
    cr_assert_not(matches("subject~?????????"));
}

Test(filter, mistakes_are_named)
{
    static const struct {
        const char *text, *message;
    } bad[] = {
        {"", "filter: no field is called ''"},
        {"colour=red", "filter: no field is called 'colour'"},
        {"sender", "filter: 'sender' needs one of = != ~ !~ > >= < <= behind it"},
        {"age~1h", "filter: 'age' compares with a time, such as age>1h"},
        {"age>soon", "filter: 'age' compares with a time, such as age>1h"},
        {"size>1h", "filter: 'size' compares with a size, such as size>1MiB"},
        {"size>99999999999999999GiB", "filter: 'size' compares with a size, such as size>1MiB"},
        {"retries=x", "filter: 'retries' compares with a number, such as retries>3"},
        {"subject=\"open", "filter: the value of 'subject' is too long or its quote does not end"},
        {"age>1h or size>1", "filter: terms are joined by 'and', not 'or size>1'"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct why why;
        cr_assert_null(filter_parse(bad[i].text, &why), "%s", bad[i].text);
        cr_assert_str_eq(why.text, bad[i].message);
    }
}

Test(filter, knows_when_the_index_is_enough)
{
    struct why why;
    struct filter *f = filter_parse("age>1h and status=held and size>1", &why);
    cr_assert_not(filter_needs_envelope(f));
    filter_free(f);
    f = filter_parse("age>1h and sender~*", &why);
    cr_assert(filter_needs_envelope(f));
    filter_free(f);
}
