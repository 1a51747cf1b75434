/*
 * gateway/config_check.c - what one key alone cannot tell: host name, files, accepted domains,
 * retry.
 *
 * Owns:     nothing.
 * Runs on:  the control thread, at start and at reload.
 * Contract: after it every field of the configuration has its final value; config->routes is made.
 * Failure:  FILE:LINE:COLUMN of the value that is wrong, or of the map that lacks one.
 * Bounds:   CONFIG_SECRET_MAX.
 * Tests:    tests/unit/test_config_faults.c, test_config.c
 */
#include <stdlib.h>
#include <sys/un.h>
#include <unistd.h>

#include "gateway/config_internal.h"
#include "gateway/smtp/smtp.h"
#include "routing/domain.h"

char *config_secret(struct config_reader *r, const struct config_node *file, const char *what)
{
    struct slice text;
    char *path = config_path(r, &r->scratch, file);
    if (!path || !config_read_file(r, r->pool, path, CONFIG_SECRET_MAX, file->place, what, &text))
        return NULL;
    char *secret = (char *)(uintptr_t)text.ptr;
    size_t len = text.len;
    if (len && secret[len - 1] == '\n')
        len--;
    if (len && len < text.len && secret[len - 1] == '\r')
        len--;
    secret[len] = '\0';
    bool line = true;
    for (size_t i = 0; i < len; i++)
        line &= (uint8_t)secret[i] >= 0x20 && secret[i] != 0x7f;
    if (len == 0 || !line) {
        config_fail(r, file->place, "%s%s is %s", what, path, line ? "empty" : "not one line");
        return NULL;
    }
    return secret;
}

static bool check_hostname(struct config_reader *r, const struct config_node *root,
                           struct config *c)
{
    char name[DOMAIN_TEXT_MAX] = "", ascii[DOMAIN_TEXT_MAX];
    if (c->hostname)
        return true;
    if (gethostname(name, sizeof name - 1) != 0 || !domain_to_ascii(slice_str(name), ascii, NULL))
        return config_fail(r, root->place,
                           "hostname is missing, and the system's host name is no domain");
    c->hostname = config_copy(r, r->pool, ascii, strlen(ascii));
    return c->hostname != NULL;
}

/* Each shard has its own lane, and that needs room for two segments. */
static bool check_spool(struct config_reader *r, const struct config_node *root,
                        const struct config *c)
{
    if (c->spool.bytes_max >= c->shards * SPOOL_SHARD_BYTES_MIN)
        return true;
    return config_fail(r, config_node_near(root, "spool.max_size")->place,
                       "spool.max_size: %u shards need %lluMiB at least", c->shards,
                       c->shards * SPOOL_SHARD_BYTES_MIN / MIB);
}

static bool check_admin(struct config_reader *r, const struct config_node *root, struct config *c)
{
    const struct config_node *file = config_node_near(root, "admin.token_file");
    if (c->admin.socket && strlen(c->admin.socket) >= sizeof((struct sockaddr_un *)0)->sun_path)
        return config_fail(r, config_node_near(root, "admin.socket")->place,
                           "admin.socket: the path of a socket has 107 bytes at most");
    if (file->kind == CONFIG_SCALAR && file->text[0])
        c->admin.token = config_secret(r, file, "admin.token_file: ");
    return !r->failed;
}

static bool check_users(struct config_reader *r, const struct config_node *root,
                        const struct config *c)
{
    const struct config_node *n = config_node_near(root, "users.file");
    if (c->users_file && access(c->users_file, R_OK) != 0)
        return config_fail(r, n->place, "users.file: cannot read %s: %m", c->users_file);
    return true;
}

static bool check_postmaster(struct config_reader *r, const struct config_node *root,
                             const struct config *c)
{
    struct smtp_address a;
    if (!c->postmaster ||
        (smtp_mailbox_parse(slice_str(c->postmaster), false, &a) && a.domain.len > 0))
        return true;
    return config_fail(r, config_node_near(root, "postmaster")->place,
                       "postmaster: expected an address such as postmaster@example.com");
}

struct numbered {
    const char *text;
    uint32_t index;
};

static int compare_numbered(const void *a, const void *b)
{
    const struct numbered *x = a, *y = b;
    int order = strcmp(x->text, y->text);
    return order ? order : x->index < y->index ? -1 : x->index > y->index;
}

/* Hundreds of thousands of domains are possible: sorted, not each with each. */
bool config_unique(struct config_reader *r, const char *(*text_at)(const void *arg, uint32_t i),
                   const void *arg, uint32_t count, const struct config_node *list, const char *key,
                   const char *what)
{
    struct numbered *all = config_alloc(r, &r->scratch, count, sizeof *all);
    uint32_t again = UINT32_MAX, first = 0;
    if (!all)
        return false;
    for (uint32_t i = 0; i < count; i++)
        all[i] = (struct numbered){text_at(arg, i), i};
    qsort(all, count, sizeof *all, compare_numbered);
    for (uint32_t i = 1; i < count; i++)
        if (strcmp(all[i].text, all[i - 1].text) == 0 && all[i].index < again) {
            again = all[i].index;
            first = all[i - 1].index;
        }
    if (again == UINT32_MAX)
        return true;
    struct config_place at = list->place, before = list->place;
    if (list->kind == CONFIG_LIST) { /* else it was one text, split */
        at = config_node_near(list->entries[again].value, key)->place;
        before = config_node_near(list->entries[first].value, key)->place;
    }
    return config_fail(r, at, "%s %.64s is already given at %s:%u", what, text_at(arg, again),
                       before.file, before.line);
}

static const char *accepted_at(const void *arg, uint32_t i)
{
    return ((const struct config *)arg)->accepted_domains.items[i].domain;
}

/* The lists themselves are judged when the generation is made (routing/recipients.c). */
static bool check_recipients(struct config_reader *r, const struct config_node *list,
                             struct config *c)
{
    for (uint32_t i = 0; i < c->accepted_domains.count; i++) {
        struct config_accepted_domain *d = &c->accepted_domains.items[i];
        if (!d->recipients_file)
            continue;
        const struct config_node *n = config_node_near(list->entries[i].value, "recipients_file");
        if (d->type != CONFIG_AUTHORITATIVE)
            return config_fail(r, n->place, "recipients_file: only for type: authoritative");
        if (!config_read_file(r, r->pool, d->recipients_file, RECIPIENTS_FILE_MAX, n->place,
                              "recipients_file: ", &d->recipients))
            return false;
    }
    return true;
}

static bool check_retry(struct config_reader *r, const struct config_node *root,
                        const struct config *c)
{
    const struct config_node *n = config_node_near(root, "retry.intervals");
    const struct config_node *warn = config_node_near(root, "retry.warn_after");
    if (c->retry.interval_count == 0)
        return config_fail(r, n->place, "retry.intervals: expected at least one time");
    /* The default of warn_after may lie beyond a short expiry that was set: then no warning is
     * sent. */
    if (warn->kind == CONFIG_SCALAR && c->retry.warn_after_s >= c->retry.expire_s)
        return config_fail(r, warn->place, "retry.warn_after: must be shorter than retry.expire");
    return true;
}

bool config_check(struct config_reader *r, const struct config_node *root, struct config *c)
{
    const struct config_node *accepted = config_node_near(root, "accepted_domains");
    return check_hostname(r, root, c) && check_spool(r, root, c) && check_admin(r, root, c) &&
           check_users(r, root, c) && check_postmaster(r, root, c) &&
           config_unique(r, accepted_at, c, c->accepted_domains.count, accepted, "domain",
                         "domain") &&
           check_recipients(r, accepted, c) && check_retry(r, root, c) &&
           config_check_receive(r, root, c) && config_check_send(r, root, c);
}
