/*
 * routing/domain.h - domain names in one form, and sets of them that are searched by suffix.
 *
 * The one form is lower-case A-labels without a final dot (RFC 5890). Everything that compares
 * domains (accepted domains, address spaces, senders) is given names in it: the configuration
 * converts what the operator wrote, the session what RCPT carried.
 */
#ifndef HIKYAKU_DOMAIN_H
#define HIKYAKU_DOMAIN_H

#include <stdbool.h>
#include <stdint.h>

#include "gateway/base/slice.h"
#include "gateway/base/why.h"

#define DOMAIN_TEXT_MAX    256 /* 253 octets, or an address literal, and a NUL */
#define DOMAIN_LITERAL_MAX 127 /* octets; its dots and the rest fit DOMAIN_LABELS_MAX */

/*
 * UTF-8 or A-labels in, lower-case A-labels out (IDNA2008, UTS 46 non-transitional). An address
 * literal ("[192.0.2.1]") is only lowered. A final dot is dropped. ASCII names cost no allocation.
 * False: no domain (empty label, label > 63, more than 253 octets, a character that no mail domain
 * has, invalid UTF-8); `why` (may be NULL) gets 501 5.1.3 and the reason.
 */
bool domain_to_ascii(struct slice domain, char out[DOMAIN_TEXT_MAX], struct why *why)
    __attribute__((warn_unused_result));
/* The same for an address space or accepted domain: also takes "*" and a leading "*.". */
bool domain_pattern_to_ascii(struct slice pattern, char out[DOMAIN_TEXT_MAX], struct why *why)
    __attribute__((warn_unused_result));

/* "[...]" */
bool domain_is_literal(struct slice domain);

/* ---- patterns, found from the most to the least specific ---- */

#define DOMAIN_MAP_NONE UINT32_MAX

struct domain_map; /* pattern -> number; patterns as domain_pattern_to_ascii makes them, copied */

struct domain_map *domain_map_create(void); /* NULL: no memory */
void domain_map_destroy(struct domain_map *m);
/*
 * The number kept for exactly this pattern; a new pattern starts with DOMAIN_MAP_NONE. Valid until
 * the next call. NULL: no memory, or no pattern.
 */
uint32_t *domain_map_slot(struct domain_map *m, struct slice pattern)
    __attribute__((warn_unused_result));

/*
 * Every pattern that matches `domain` (any case, A-labels), most specific first: the domain itself,
 * then "*.suffix" from the longest to the shortest ("*.example.com" also takes example.com), then
 * "*". One pass over the name and one probe a label.
 */
#define DOMAIN_LABELS_MAX 128
struct domain_walk {
    const struct domain_map *map;
    struct slice domain;
    uint32_t hashes[DOMAIN_LABELS_MAX]; /* of the suffix that starts at offsets[i]; shortest suffix
                                           first */
    uint8_t offsets[DOMAIN_LABELS_MAX];
    uint32_t left; /* suffixes not yet looked up */
    uint8_t stage;
};
void domain_walk_start(struct domain_walk *w, const struct domain_map *m, struct slice domain);
bool domain_walk_next(struct domain_walk *w, uint32_t *value);

#endif
