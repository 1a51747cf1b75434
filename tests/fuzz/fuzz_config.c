/*
 * tests/fuzz/fuzz_config.c - any text as a configuration: it is taken or refused in one line that
 * begins with its place, and what is taken is the same when it is read again.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/config_internal.h"

#define REQUIRE(c) ((c) ? (void)0 : abort())

/* Files must not be opened by chance: /dev/tty would wait, /proc would change. */
static bool names_files(const uint8_t *data, size_t size)
{
    static const char *const words[] = {"include", "file", "certificate"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (memmem(data, size, words[i], strlen(words[i])))
            return true;
    return false;
}

static void require_place(const char *text)
{
    unsigned line, column;
    int end = 0;
    REQUIRE(sscanf(text, "f:%u:%u: %n", &line, &column, &end) == 2 && end > 0);
    REQUIRE(line > 0 && column > 0 && text[end] && !strchr(text, '\n'));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct why why;
    if (names_files(data, size))
        return 0;
    struct config *c = config_parse("f", slice_of(data, size), &why);
    if (!c) {
        require_place(why.text);
        return 0;
    }
    struct config *again = config_parse("f", slice_of(data, size), &why);
    REQUIRE(again && !config_same(config_table(), c, again));
    REQUIRE(config_reload_possible(c, again, &why));
    REQUIRE(c->hostname && c->routes && c->retry.interval_count > 0);
    for (uint32_t i = 0; i < c->send_count; i++)
        REQUIRE(c->send[i].space_count > 0 && c->send[i].mx == (c->send[i].smart_host_count == 0));
    config_free(c);
    config_free(again);
    return 0;
}
