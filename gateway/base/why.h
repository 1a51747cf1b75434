/*
 * gateway/base/why.h - the reason of a refusal, filled in where it happened.
 *
 * Carries what an SMTP reply needs (RFC 5321 section 4.2, RFC 3463). smtp_code 0 means: nothing to
 * say, all is well. For faults that no peer sees (start-up, files) the text alone counts.
 */
#ifndef HIKYAKU_BASE_WHY_H
#define HIKYAKU_BASE_WHY_H

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "gateway/base/slice.h"

#define WHY_TEXT_MAX 512

struct why {
    uint16_t smtp_code;      /* 0, or 200 to 599 */
    char enhanced[12];       /* "5.7.1", or "" */
    char text[WHY_TEXT_MAX]; /* one line, no CR or LF */
};

__attribute__((format(printf, 4, 5))) static inline void why_set(struct why *w, uint16_t code,
                                                                 const char *enhanced,
                                                                 const char *fmt, ...)
{
    va_list ap;
    if (!w)
        return;
    w->smtp_code = code;
    snprintf(w->enhanced, sizeof w->enhanced, "%s", enhanced);
    va_start(ap, fmt);
    vsnprintf(w->text, sizeof w->text, fmt, ap);
    va_end(ap);
    for (char *p = w->text; *p; p++)
        if (*p == '\r' || *p == '\n')
            *p = ' ';
}

/* The same with words as they are. */
static inline void why_say(struct why *w, uint16_t code, const char *enhanced, struct slice text)
{
    if (!w)
        return;
    w->smtp_code = code;
    slice_text(slice_str(enhanced), w->enhanced, sizeof w->enhanced);
    slice_text(text, w->text, sizeof w->text);
    for (char *p = w->text; *p; p++)
        if (*p == '\r' || *p == '\n')
            *p = ' ';
}

static inline void why_clear(struct why *w)
{
    if (w) {
        w->smtp_code = 0;
        w->enhanced[0] = w->text[0] = '\0';
    }
}

#endif
