/* The table as text: --print-defaults read back is the default; docs/configuration.md is current.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include "gateway/config_internal.h"

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

static struct config *parse(const char *text)
{
    struct why why;
    struct config *c = config_parse("defaults", slice_str(text), &why);
    cr_assert_not_null(c, "%s\n%s", why.text, text);
    return c;
}

static void same(const char *text, const char *other)
{
    struct config *a = parse(text), *b = parse(other);
    const struct config_key *k = config_same(config_table(), a, b);
    cr_expect_null(k, "%s differs", k ? k->name : "");
    config_free(a);
    config_free(b);
}

Test(config_print, defaults_are_the_defaults)
{
    char *text = printed(config_print_defaults);
    same(text, "");
    free(text);
}

static uint32_t columns(const char *line)
{
    return (uint32_t)strspn(line, " ");
}

/*
 * What an operator does who takes an entry out of its comments: drops the prose, the `#` of keys
 * and the `[]` in whose place the entry stands. Lists inside entries stay as they are.
 */
static void uncomment(char *text, FILE *out)
{
    uint32_t inside = UINT32_MAX; /* columns of the list of an entry, whose entries are left out */
    char *held = NULL;            /* the line before, not yet written */
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        char *mark = line + columns(line);
        if (*mark == '#' && (mark[1] == ' ' || mark[1] == '\0'))
            continue;
        if (*mark == '#')
            memmove(mark, mark + 1, strlen(mark));
        if (columns(line) > inside)
            continue;
        inside = UINT32_MAX;
        if (*mark == '-' && mark - line > 2) {
            inside = columns(held);
            continue;
        }
        if (held)
            fprintf(out, "%.*s\n", (int)(*mark == '-' ? strcspn(held, "[") : strlen(held)), held);
        held = line;
    }
    fprintf(out, "%s\n", held);
}

Test(config_print, defaults_of_entries)
{
    char *text = printed(config_print_defaults), *open = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&open, &size);
    uncomment(text, f);
    fclose(f);
    same(open, "accepted_domains: [example.com]\n"
               "receive_connectors: [{name: client-frontend, bind: ['0.0.0.0:587', '[::]:587']}]\n"
               "send_connectors: [{name: internet, address_spaces: [{space: '*', cost: 10}]}]\n");
    cr_expect_not_null(strstr(open, "\n  - name: internet\n    enabled: true\n"), "%s", open);
    cr_expect_not_null(strstr(open, "\n      mode: none\n"));
    free(open);
    free(text);
}

/* Each key of the table stands in both texts, and says how it is used. */
static void each_key(const struct config_keys *keys, const char *yaml, const char *page)
{
    char text[128];
    for (uint32_t i = 0; i < keys->count; i++) {
        const struct config_key *k = &keys->items[i];
        snprintf(text, sizeof text, "%s:", k->name);
        cr_expect_not_null(strstr(yaml, text), "%s", text);
        snprintf(text, sizeof text, k->type == CONFIG_TYPE_GROUP ? "%s." : "%s` |", k->name);
        cr_expect_not_null(strstr(page, text), "%s", text);
        cr_expect(k->help && strlen(k->help) > 3 && strlen(k->help) < 200, "%s", k->name);
        cr_expect(k->standard || k->example || k->type == CONFIG_TYPE_GROUP, "%s", k->name);
        cr_expect(!k->unsupported || k->width == 0 || k->type == CONFIG_TYPE_PATH, "%s", k->name);
        if (k->type == CONFIG_TYPE_CHOICE || k->type == CONFIG_TYPE_CHOICES)
            cr_expect_not_null(k->choices);
        if (k->keys)
            each_key(k->keys, yaml, page);
    }
}

Test(config_print, all_keys_are_told)
{
    char *yaml = printed(config_print_defaults), *page = printed(config_print_reference);
    each_key(config_table(), yaml, page);
    free(yaml);
    free(page);
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
