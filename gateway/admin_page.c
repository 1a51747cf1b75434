/*
 * gateway/admin_page.c - the web page for operators: three files that lie in the program.
 *
 * Owns:     nothing; the files are gateway/page/.
 * Runs on:  the control thread.
 * Contract: the page holds no data and asks nobody but this gateway's /api/v1, with the token that
 *           its reader types in; so it may be fetched without one.
 * Failure:  none.
 * Bounds:   none.
 * Tests:    tests/system/test_page.py
 */
#include <stdlib.h>
#include <string.h>

#include "gateway/admin_internal.h"

/* NAME and NAME_end around the bytes of a file. */
#define FILE_BYTES(name, path)                                                             \
    __asm__(".pushsection .rodata\n.global " #name "\n.global " #name "_end\n" #name ":\n" \
            ".incbin \"" path "\"\n" #name "_end:\n.byte 0\n.popsection\n");               \
    extern const char name[], name##_end[]

FILE_BYTES(page_html, "gateway/page/index.html");
FILE_BYTES(page_css, "gateway/page/page.css");
FILE_BYTES(page_js, "gateway/page/page.js");

static const struct {
    const char *path, *type, *begin, *end;
} files[] = {
    {"/", "text/html; charset=utf-8", page_html, page_html_end},
    {"/page.css", "text/css; charset=utf-8", page_css, page_css_end},
    {"/page.js", "text/javascript; charset=utf-8", page_js, page_js_end},
};

bool admin_page(struct admin_call *call)
{
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        if (strcmp(call->path, files[i].path) != 0)
            continue;
        size_t len = (size_t)(files[i].end - files[i].begin);
        char *copy = malloc(len + 1);
        if (!copy) {
            admin_error(call, 500, "out of memory");
            return true;
        }
        memcpy(copy, files[i].begin, len);
        admin_answer(call, 200, files[i].type, copy, len);
        return true;
    }
    return false;
}
