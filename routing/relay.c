/*
 * routing/relay.c - who may send to whom, and as whom.
 *
 * Owns:     the accepted domains.
 * Runs on:  built with the configuration; read by every shard.
 * Contract: somebody unknown reaches accepted domains (and what a send connector opens) and nothing
 *           else. A local part that routes onward (user%other, other!user, "user@other") never
 *           passes for him: the host behind us might follow it.
 * Failure:  550 5.7.1, 550 5.7.60.
 * Bounds:   no allocation in a question, but for senders whose domain is not ASCII (libidn2).
 * Tests:    tests/unit/test_relay.c (FAULTS 13, 34)
 */
#include "routing/relay.h"

#include <stdlib.h>

#include "routing/domain.h"

struct relay_domains {
    struct domain_map *map;
};

struct relay_domains *relay_domains_create(void)
{
    struct relay_domains *d = calloc(1, sizeof *d);
    if (!d)
        return NULL;
    d->map = domain_map_create();
    if (d->map)
        return d;
    free(d);
    return NULL;
}

void relay_domains_destroy(struct relay_domains *d)
{
    if (!d)
        return;
    domain_map_destroy(d->map);
    free(d);
}

bool relay_domains_add(struct relay_domains *d, const char *domain, uint8_t type)
{
    char name[DOMAIN_TEXT_MAX];

    if (!domain_pattern_to_ascii(slice_str(domain), name, NULL))
        return false;
    uint32_t *slot = domain_map_slot(d->map, slice_str(name));
    if (!slot)
        return false;
    *slot = type;
    return true;
}

/*
 * The domain in the form the tables have it. An ASCII name needs no copy: comparing ignores its
 * case.
 */
static bool relay_domain_form(struct slice domain, char text[DOMAIN_TEXT_MAX], struct slice *form)
{
    *form = domain;
    for (size_t i = 0; i < domain.len; i++)
        if (domain.ptr[i] >= 0x80) {
            if (!domain_to_ascii(domain, text, NULL))
                return false;
            *form = slice_str(text);
            return true;
        }
    return true;
}

bool relay_domains_find(const struct relay_domains *d, struct slice domain, uint8_t *type)
{
    char text[DOMAIN_TEXT_MAX];
    struct domain_walk walk;
    uint32_t value;

    if (!d || domain.len == 0 || !relay_domain_form(domain, text, &domain))
        return false;
    domain_walk_start(&walk, d->map, domain);
    if (!domain_walk_next(&walk, &value))
        return false;
    if (type)
        *type = (uint8_t)value;
    return true;
}

/*
 * Would some mail system read another destination out of this local part? Quotes and backslashes do
 * not hide one.
 */
static bool relay_local_routes(struct slice local)
{
    for (size_t i = 0; i < local.len; i++) {
        uint8_t c = local.ptr[i];
        if (c == '@' || c == '%' || c == '!')
            return true;
        if (c == ':' && i + 1 < local.len && local.ptr[i + 1] == ':')
            return true; /* DECnet, host::user */
    }
    return false;
}

bool relay_may(const struct relay_query *q, struct why *why)
{
    uint8_t type = 0;
    bool ours = relay_domains_find(q->accepted, q->rcpt_domain, &type);
    bool known = q->authenticated || q->network_may_relay;
    bool open =
        (ours || q->connector_allows) && q->rcpt_domain.len && !relay_local_routes(q->rcpt_local);

    /* RFC 5321 section 4.5.1: <postmaster> without a domain must be accepted. */
    if (q->rcpt_domain.len == 0 && slice_eq_nocase(q->rcpt_local, SLICE_LIT("postmaster")))
        return true;
    if (!known && !open) {
        why_set(why, 550, "5.7.1", "Unable to relay");
        return false;
    }
    if (!ours || !(type & RELAY_LISTED) ||
        relay_recipients_has(q->recipients, q->rcpt_local, q->rcpt_domain))
        return true;
    why_set(why, 550, "5.1.1", "No such recipient here");
    return false;
}

/* ---- senders ---- */

/* Splits at the last '@': a quoted local part may have others. */
static bool relay_address_split(struct slice address, struct slice *local, struct slice *domain)
{
    for (size_t i = address.len; i-- > 0;)
        if (address.ptr[i] == '@') {
            *local = slice_head(address, i);
            *domain = slice_from(address, i + 1);
            return domain->len > 0;
        }
    return false;
}

static bool relay_domain_same(struct slice a, struct slice b)
{
    char a_text[DOMAIN_TEXT_MAX], b_text[DOMAIN_TEXT_MAX];

    return relay_domain_form(a, a_text, &a) && relay_domain_form(b, b_text, &b) &&
           slice_eq_nocase(a, b);
}

/*
 * Local parts compare without regard to ASCII case: no mailbox system in use tells them apart, and
 * a user's client may.
 */
static bool relay_sender_matches(struct slice pattern, struct slice mail_from)
{
    struct slice local, domain, from_local, from_domain;

    if (slice_eq(pattern, SLICE_LIT("*")))
        return true;
    if (!relay_address_split(pattern, &local, &domain) ||
        !relay_address_split(mail_from, &from_local, &from_domain))
        return false;
    if (local.len && !slice_eq(local, SLICE_LIT("*")) && !slice_eq_nocase(local, from_local))
        return false;
    return from_local.len > 0 && relay_domain_same(domain, from_domain);
}

bool relay_sender_may(struct slice account, const struct slice *senders, uint32_t sender_count,
                      struct slice mail_from, struct why *why)
{
    bool may =
        mail_from.len == 0 || (sender_count == 0 && account.len > 0 && account.ptr[0] != '@' &&
                               account.ptr[0] != '*' && relay_sender_matches(account, mail_from));

    for (uint32_t i = 0; i < sender_count && !may; i++)
        may = relay_sender_matches(senders[i], mail_from);
    if (!may)
        why_set(why, 550, "5.7.60", "Client does not have permissions to send as this sender");
    return may;
}
