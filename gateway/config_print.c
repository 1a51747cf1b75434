/*
 * gateway/config_print.c - the table as YAML with every key and default, and as a reference page.
 *
 * Owns:     nothing.
 * Runs on:  the program's first thread, for --print-defaults and --print-reference.
 * Contract: the YAML read back is the default configuration. Keys inside lists stand there as
 *           comments of the form `#key: value`, prose as `# text`: without that one character they
 *           are a connector with all its defaults.
 * Failure:  write errors are the stream's.
 * Bounds:   none.
 * Tests:    tests/unit/test_config_print.c
 */
#include "gateway/config_internal.h"

#define TEXT_COLUMNS 98

struct printer {
    FILE *f;
    uint32_t depth; /* of indentation, in steps of two */
    bool commented; /* inside a list: everything is a comment */
    bool first_of_item;
};

/* ---- words about a key ---- */

static const char *type_text(const struct config_key *k)
{
    switch (k->type) {
    case CONFIG_TYPE_STRING: return "text";
    case CONFIG_TYPE_PATH: return "path";
    case CONFIG_TYPE_NAME: return "name";
    case CONFIG_TYPE_DOMAIN: return "domain";
    case CONFIG_TYPE_SPACE: return "address space";
    case CONFIG_TYPE_BOOL: return "true or false";
    case CONFIG_TYPE_COUNT: return "number";
    case CONFIG_TYPE_SIZE: return "size";
    case CONFIG_TYPE_TIME: return "time";
    case CONFIG_TYPE_CHOICE: return "word";
    case CONFIG_TYPE_CHOICES: return "list of words";
    case CONFIG_TYPE_ADDRESS: return "address";
    case CONFIG_TYPE_ADDRESSES: return "list of addresses";
    case CONFIG_TYPE_NETWORKS: return "list of networks";
    case CONFIG_TYPE_STRINGS: return "list of words";
    case CONFIG_TYPE_PATHS: return "list of paths";
    case CONFIG_TYPE_TIMES: return "list of times";
    case CONFIG_TYPE_GROUP: return "map";
    case CONFIG_TYPE_ITEMS: return "list of maps";
    }
    return "";
}

/* "1 to 500", "PLAIN \| LOGIN", or "". Choices that do not work yet are left out. */
static void values_text(const struct config_key *k, const char *between, char *text, size_t size)
{
    char range[80];
    size_t len = 0;
    text[0] = '\0';
    for (const struct config_choice *c = k->choices; c && c->word && len < size; c++)
        if (!c->unsupported)
            len += (size_t)snprintf(text + len, size - len, "%s%s", len ? between : "", c->word);
    if (k->max && !k->choices) {
        config_range_text(k, range);
        snprintf(text, size, "%s%s%s", k->zero ? k->zero : "", k->zero ? ", or " : "", range);
    }
}

static const char *standard_text(const struct config_key *k)
{
    if (k->type == CONFIG_TYPE_GROUP)
        return "";
    return k->standard ? k->standard : k->example ? k->example : "[]";
}

/* ---- YAML ---- */

static void indent(const struct printer *p, const char *mark)
{
    fprintf(p->f, "%*s%s", (int)(p->depth * 2), "", mark);
}

/* Prose, wrapped, each line a comment. */
static void prose(const struct printer *p, const char *text)
{
    uint32_t column = 0;
    while (*text) {
        size_t len = strcspn(text, " ");
        if (column && column + 1 + len > TEXT_COLUMNS) {
            fputc('\n', p->f);
            column = 0;
        }
        if (column == 0) {
            indent(p, "# ");
            column = p->depth * 2 + 2;
        } else {
            fputc(' ', p->f);
            column++;
        }
        fwrite(text, 1, len, p->f);
        column += (uint32_t)len;
        text += len + (text[len] == ' ');
    }
    fputc('\n', p->f);
}

static void describe(const struct printer *p, const struct config_key *k)
{
    char values[200], text[700];
    values_text(k, " | ", values, sizeof values);
    snprintf(text, sizeof text, "%s%s%s%s%s%s%s%s%s%s%s", k->help, *values ? " (" : "", values,
             *values ? ")" : "", k->otherwise ? " Default: " : "", k->otherwise ? k->otherwise : "",
             k->otherwise ? "." : "",
             k->standard || k->type == CONFIG_TYPE_GROUP ? "" : " Must be given.",
             k->example && k->standard ? " Such as: " : "",
             k->example && k->standard ? k->example : "",
             k->unsupported ? " Not supported yet." : "");
    prose(p, text);
}

/* The dash of an item stands in the two columns before its first key, the help above it too. */
static void print_key(struct printer *p, const struct config_key *k)
{
    const char *value = standard_text(k);
    struct printer at = *p;
    at.depth -= p->first_of_item ? 1 : 0;
    describe(&at, k);
    indent(&at, p->commented ? "#" : "");
    fprintf(p->f, "%s%s:%s%s\n", p->first_of_item ? "- " : "", k->name, *value ? " " : "", value);
    p->first_of_item = false;
}

static void print_keys(struct printer *p, const struct config_keys *keys)
{
    for (uint32_t i = 0; i < keys->count; i++) {
        const struct config_key *k = &keys->items[i];
        if (p->depth == 0 && i)
            fputc('\n', p->f);
        print_key(p, k);
        if (!k->keys)
            continue;
        bool items = k->type == CONFIG_TYPE_ITEMS;
        struct printer inner = *p;
        inner.depth += items ? 2 : 1;
        inner.commented |= items;
        inner.first_of_item = items;
        print_keys(&inner, k->keys);
    }
}

void config_print_defaults(FILE *f)
{
    struct printer p = {.f = f};
    fputs("# Every key of Hikyaku's configuration with its default. The keys of a list's\n"
          "# entries stand as comments `#key: value`; an entry takes the place of the `[]` above "
          "it.\n"
          "\n",
          f);
    print_keys(&p, config_table());
}

/* ---- Markdown ---- */

/* A text in a table cell. */
static void cell(FILE *f, const char *text)
{
    for (; *text; text++)
        fprintf(f, *text == '|' ? "\\%c" : "%c", *text);
}

static void print_row(FILE *f, const struct config_key *k, const char *prefix)
{
    char values[200];
    values_text(k, " | ", values, sizeof values);
    fprintf(f, "| `%s%s` | %s%s", prefix, k->name, type_text(k), *values ? ": " : "");
    cell(f, values);
    fputs(" | ", f);
    if (k->otherwise)
        cell(f, k->otherwise);
    else if (k->type == CONFIG_TYPE_GROUP)
        fputs("", f);
    else if (!k->standard)
        fputs("must be given", f);
    else if (strcmp(k->standard, "\"\"") == 0)
        fputs("none", f);
    else
        fprintf(f, "`%s`", k->standard);
    fputs(" | ", f);
    cell(f, k->help);
    if (k->unsupported)
        fputs(" **Not supported yet.**", f);
    else if (k->restart)
        fputs(" Needs a restart.", f);
    if (k->example) {
        fputs(" Such as `", f);
        cell(f, k->example);
        fputs("`", f);
    }
    fputs(" |\n", f);
}

/* Rows of one struct; groups inside it belong to it. */
static void print_rows(FILE *f, const struct config_keys *keys, const char *prefix)
{
    for (uint32_t i = 0; i < keys->count; i++) {
        const struct config_key *k = &keys->items[i];
        char inner[96];
        if (k->type != CONFIG_TYPE_GROUP) {
            print_row(f, k, prefix);
            continue;
        }
        snprintf(inner, sizeof inner, "%s%s.", prefix, k->name);
        print_rows(f, k->keys, inner);
    }
}

/* One table for each struct: the file itself, then what its lists have, depth first. */
static void print_table(FILE *f, const struct config_keys *keys, const char *title,
                        const char *help)
{
    fprintf(f, "\n## %s\n\n%s\n\n| key | values | default | meaning |\n|---|---|---|---|\n", title,
            help);
    print_rows(f, keys, "");
}

static void print_lists(FILE *f, const struct config_keys *keys, const char *prefix)
{
    for (uint32_t i = 0; i < keys->count; i++) {
        const struct config_key *k = &keys->items[i];
        char title[96];
        snprintf(title, sizeof title, "%s%s%s", prefix, k->name,
                 k->type == CONFIG_TYPE_ITEMS ? "[]" : "");
        if (k->type == CONFIG_TYPE_ITEMS)
            print_table(f, k->keys, title, k->help);
        if (!k->keys)
            continue;
        strncat(title, ".", sizeof title - strlen(title) - 1);
        print_lists(f, k->keys, title);
    }
}

void config_print_reference(FILE *f)
{
    fputs(
        "# Configuration reference\n\n"
        "Made by `hikyaku --print-reference`; do not edit. `hikyaku --print-defaults` prints the\n"
        "same keys as YAML, `hikyaku --config FILE --check` tells what is wrong in a file, with\n"
        "line and column.\n\n"
        "One YAML file. Sizes are written `500KiB`, `25MiB`, `20GiB` or as bytes; times `90s`,\n"
        "`5m`, `2h`, `2d`; addresses `192.0.2.1:25` or `\"[2001:db8::1]:25\"`; networks\n"
        "`192.0.2.0/24`, `192.0.2.7` or `192.0.2.10-192.0.2.20`. Relative paths start at the\n"
        "folder of the file they stand in. A key that nobody knows is an error.\n\n"
        "`${NAME}` in a value is replaced by that environment variable (`$${` is a plain `${`);\n"
        "inside `{ }` or `[ ]` such a value needs quotes, as YAML has it.\n\n"
        "SIGHUP and `hikyakuctl reload` read everything again, also the files it names: all of it\n"
        "is taken, or nothing. A change of a key that needs a restart is refused.\n",
        f);
    print_table(f, config_table(), "The file", "Keys at the top of the file.");
    print_lists(f, config_table(), "");
}
