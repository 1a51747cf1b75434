/*
 * bench/reply.c - parses SMTP replies as they come, one or many lines.
 *
 * Owns:     nothing.
 * Runs on:  the one thread of the command.
 * Contract: the same replies for every split of the input; nothing of the next reply is taken.
 * Failure:  BAD on anything that is not three digits, a separator and CRLF.
 * Bounds:   BENCH_REPLY_LINE_MAX a line (BAD), BENCH_REPLY_TEXT_MAX of text kept (cut).
 * Tests:    tests/unit/test_bench_reply.c
 */
#include "bench/reply.h"

#include <string.h>
#include <strings.h>

void bench_reply_init(struct bench_reply *r)
{
    r->code = 0;
    r->text_count = 0;
    r->text[0] = '\0';
    r->line_count = 0;
    r->first_code = 0;
}

static void keep_text(struct bench_reply *r, const char *text, size_t count)
{
    size_t room = BENCH_REPLY_TEXT_MAX - 1 - r->text_count;
    if (room < 2)
        return;
    if (count > room - 1)
        count = room - 1;
    memcpy(r->text + r->text_count, text, count);
    r->text_count += count;
    r->text[r->text_count++] = '\n';
    r->text[r->text_count] = '\0';
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* One line without its CRLF. */
static enum bench_reply_result take_line(struct bench_reply *r, const char *line, size_t count)
{
    if (count < 3 || line[0] < '2' || line[0] > '5' || !is_digit(line[1]) || !is_digit(line[2]))
        return BENCH_REPLY_BAD;
    int code = (line[0] - '0') * 100 + (line[1] - '0') * 10 + (line[2] - '0');
    char separator = count > 3 ? line[3] : ' ';
    if (separator != ' ' && separator != '-')
        return BENCH_REPLY_BAD;
    if (r->first_code == 0) {
        r->first_code = code;
        r->text_count = 0;
        r->text[0] = '\0';
    } else if (code != r->first_code) {
        return BENCH_REPLY_BAD;
    }
    if (count > 4)
        keep_text(r, line + 4, count - 4);
    else
        keep_text(r, "", 0);
    if (separator == '-')
        return BENCH_REPLY_NEED_MORE;
    r->code = code;
    r->first_code = 0;
    return BENCH_REPLY_DONE;
}

enum bench_reply_result bench_reply_feed(struct bench_reply *r, const char *in, size_t count,
                                         size_t *used)
{
    size_t at = 0;
    while (at < count) {
        const char *lf = memchr(in + at, '\n', count - at);
        size_t part = lf != NULL ? (size_t)(lf - (in + at)) + 1 : count - at;
        const char *line = in + at;
        size_t line_count = part;
        if (r->line_count > 0 || lf == NULL) {
            if (r->line_count + part > sizeof(r->line)) {
                *used = at;
                return BENCH_REPLY_BAD;
            }
            memcpy(r->line + r->line_count, in + at, part);
            r->line_count += part;
            line = r->line;
            line_count = r->line_count;
        }
        at += part;
        if (lf == NULL)
            break;
        r->line_count = 0;
        *used = at;
        if (line_count < 2 || line[line_count - 2] != '\r')
            return BENCH_REPLY_BAD;
        enum bench_reply_result result = take_line(r, line, line_count - 2);
        if (result != BENCH_REPLY_NEED_MORE)
            return result;
    }
    *used = at;
    return BENCH_REPLY_NEED_MORE;
}

bool bench_reply_has_keyword(const struct bench_reply *r, const char *keyword, const char *param)
{
    size_t keyword_count = strlen(keyword);
    const char *line = r->text;
    while (*line != '\0') {
        const char *end = strchr(line, '\n');
        size_t count = end != NULL ? (size_t)(end - line) : strlen(line);
        if (count >= keyword_count && strncasecmp(line, keyword, keyword_count) == 0 &&
            (count == keyword_count || line[keyword_count] == ' ' || line[keyword_count] == '=')) {
            if (param == NULL)
                return true;
            size_t param_count = strlen(param);
            for (size_t i = keyword_count; i + 1 + param_count <= count; i++) {
                char after = line[i + 1 + param_count];
                if ((line[i] == ' ' || line[i] == '=') &&
                    strncasecmp(line + i + 1, param, param_count) == 0 &&
                    (i + 1 + param_count == count || after == ' '))
                    return true;
            }
        }
        if (end == NULL)
            break;
        line = end + 1;
    }
    return false;
}
