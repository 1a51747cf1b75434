/*
 * gateway/filter.h - which queued messages an operator means: `recipient~*@example.com and
 * age>1h`
 * (INTERFACES.md section 2).
 *
 * Pure. Terms are joined by `and`. Operators: = != ~ !~ (glob with * and ?) > >= < <= (numbers,
 * sizes, times). Text compares without regard to ASCII case. Values with spaces stand in double
 * quotes.
 */
#ifndef HIKYAKU_FILTER_H
#define HIKYAKU_FILTER_H

#include "gateway/base/slice.h"
#include "gateway/base/why.h"

#define FILTER_TERMS_MAX 16

enum filter_field {
    FILTER_QID,
    FILTER_SENDER,
    FILTER_RECIPIENT,
    FILTER_DOMAIN,
    FILTER_CONNECTOR,
    FILTER_SITE,
    FILTER_STATUS,
    FILTER_SIZE,
    FILTER_AGE,
    FILTER_RETRIES,
    FILTER_LAST_ERROR,
    FILTER_SOURCE_IP,
    FILTER_ACCOUNT,
    FILTER_SUBJECT
};

/* One message as the filter sees it. Recipients: any one that matches will do. */
struct filter_row {
    struct slice qid, sender, connector, site, status, last_error, source_ip, account, subject;
    uint64_t size, age_s, retries;
    uint32_t rcpt_count;
    struct slice (*rcpt)(const void *arg,
                         uint32_t i); /* mailbox of recipient i; len 0: leave it out */
    const void *arg;
};

struct filter;

/* NULL: `why->text` says what is wrong and where. */
struct filter *filter_parse(const char *text, struct why *why);
void filter_free(struct filter *f);
/* NULL matches everything. */
bool filter_matches(const struct filter *f, const struct filter_row *row);
/* Can the answer be known from qid, status, size, age and retries alone (no envelope need be read)?
 */
bool filter_needs_envelope(const struct filter *f);

#endif
