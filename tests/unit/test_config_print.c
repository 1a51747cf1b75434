/* The table as text: --print-defaults read back is the default; docs/configuration.md is current.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include "gateway/config.h"

static char *printed(void (*print)(FILE *f))
{
    char *text = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&text, &size);
    cr_assert_not_null(f);
    print(f);
    fclose(f);
    return text;
}

Test(config_print, defaults_are_accepted)
{
    struct why why;
    char *text = printed(config_print_defaults);
    struct config *c = config_parse("defaults", slice_str(text), &why);
    cr_assert_not_null(c, "%s", why.text);
    config_free(c);
    free(text);
}

Test(config_print, reference_page_is_current)
{
    char *text = printed(config_print_reference), *page = NULL;
    size_t room = 0;
    FILE *f = fopen("docs/configuration.md", "r");
    cr_assert_not_null(f);
    cr_assert_gt(getdelim(&page, &room, '\0', f), 0);
    fclose(f);
    cr_expect_str_eq(page, text,
                     "make it anew: build/hikyaku --print-reference >docs/configuration.md");
    free(page);
    free(text);
}
