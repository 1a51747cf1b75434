/*
 * gateway/auth/users.c - the users file: accounts, their hashes, the addresses they may send as.
 *
 * Owns:     one copy of the file, cut into strings; a table of names.
 * Runs on:  read at start and at reload by the control thread; afterwards read by all threads,
 *           changed by none.
 * Contract: one account a line, `user:hash[:sender,sender,...]`; `#` begins a comment line. Names
 *           are found in constant time and without regard to ASCII case. Hashes are strong crypt(3)
 *           strings: yescrypt, sha512crypt, bcrypt and the like. `!` before the name, or as the
 *           hash, locks the account.
 * Failure:  NULL and "FILE:LINE: message"; hashes are never quoted in it.
 * Bounds:   USERS_FILE_MAX, AUTH_USER_MAX, USERS_SENDERS_MAX.
 * Tests:    tests/unit/test_users.c
 */
#include <crypt.h>
#include <errno.h>
#include <stdlib.h>

#include "gateway/auth/auth.h"
#include "gateway/limits.h"

struct users {
    char *text; /* the file; strings point into it */
    struct user *items;
    uint32_t count;
    struct slice *senders; /* of all accounts, in file order */
    uint32_t *table;       /* index + 1 of an item, or 0; open addressing */
    uint32_t mask;
    char *dummy; /* see users_dummy_hash; NULL: auth_dummy_hash */
};

struct line {
    const char *file;
    uint32_t number;
    struct why *why;
};

/* ---- names ---- */

static uint32_t name_hash(struct slice name)
{
    uint32_t h =
        2166136261u; /* FNV-1a: the names in the table are the operator's, not an attacker's */
    for (size_t i = 0; i < name.len; i++)
        h = (h ^ ascii_lower(name.ptr[i])) * 16777619u;
    return h;
}

const struct user *users_find(const struct users *u, struct slice name)
{
    for (uint32_t i = name_hash(name) & u->mask; u->table[i]; i = (i + 1) & u->mask)
        if (slice_eq_nocase(u->items[u->table[i] - 1].name, name))
            return &u->items[u->table[i] - 1];
    return NULL;
}

static void table_add(struct users *u, uint32_t index)
{
    uint32_t i = name_hash(u->items[index].name) & u->mask;
    while (u->table[i])
        i = (i + 1) & u->mask;
    u->table[i] = index + 1;
}

/* ---- one line ---- */

static bool bad(const struct line *at, const char *text)
{
    why_set(at->why, 0, "", "%s:%u: %s", at->file, at->number, text);
    return false;
}

/* Cuts the text up to the next `separator` or the end, and puts a NUL behind it. */
static char *cut(char **rest, char separator)
{
    char *field = *rest, *end = strchr(field, separator);
    *rest = end ? end + 1 : NULL;
    if (end)
        *end = '\0';
    return field;
}

static bool name_valid(const char *name, const struct line *at)
{
    size_t len = strlen(name);
    if (len == 0)
        return bad(at, "the account's name is missing");
    if (len > AUTH_USER_MAX)
        return bad(at, "the account's name is longer than 255 bytes");
    for (const char *p = name; *p; p++)
        if ((uint8_t)*p <= ' ' || *p == 0x7f)
            return bad(at, "the account's name has a space or a control character");
    return true;
}

static bool hash_valid(const char *hash, const struct line *at)
{
    if (hash[0] == '!')
        return true;
    if (hash[0] == '\0')
        return bad(at, "the account has no password hash; '!' locks an account");
    int kind = hash[0] == '$' ? crypt_checksalt(hash) : CRYPT_SALT_INVALID;
    if (kind == CRYPT_SALT_METHOD_LEGACY)
        return bad(at, "this kind of hash is too weak; make one with: hikyakuctl hash-password");
    /* A lone setting ("$6$salt") passes crypt_checksalt; the hash behind it must be there too. */
    const char *last = strrchr(hash, '$');
    if (kind != CRYPT_SALT_OK || strlen(last) < 44)
        return bad(at, "this is no password hash; make one with: hikyakuctl hash-password");
    return true;
}

static bool senders_cut(struct users *u, struct user *user, char *list, uint32_t *used,
                        const struct line *at)
{
    user->senders = u->senders + *used;
    while (list) {
        char *sender = cut(&list, ',');
        while (*sender == ' ')
            sender++;
        size_t len = strlen(sender);
        while (len && sender[len - 1] == ' ')
            sender[--len] = '\0';
        if (len == 0 && user->sender_count == 0 && !list)
            return true; /* "user:hash:" */
        if (strcmp(sender, "*") != 0 && !strchr(sender, '@'))
            return bad(at, "a sender is an address, @domain, or * for any");
        if (strchr(sender, ' ') || strchr(sender, '\t'))
            return bad(at, "a sender has a space in it");
        if (user->sender_count == USERS_SENDERS_MAX)
            return bad(at, "more than 1000 senders; use @domain");
        u->senders[(*used)++] = slice_of(sender, len);
        user->sender_count++;
    }
    return true;
}

static bool line_read(struct users *u, char *text, uint32_t *senders_used, const struct line *at)
{
    char *rest = text;
    struct user *user = &u->items[u->count];
    char *name = cut(&rest, ':');
    if (!rest)
        return bad(at, "expected user:hash or user:hash:sender,sender");
    *user = (struct user){0};
    if (name[0] == '!') {
        user->disabled = true;
        name++;
    }
    if (!name_valid(name, at))
        return false;
    user->name = slice_str(name);
    user->hash = cut(&rest, ':');
    if (!hash_valid(user->hash, at))
        return false;
    if (user->hash[0] == '!')
        user->disabled = true;
    if (rest && strchr(rest, ':'))
        return bad(at, "a fourth field: only user:hash:senders is known");
    if (!senders_cut(u, user, rest, senders_used, at))
        return false;
    if (users_find(u, user->name))
        return bad(at, "this account was already there, on a line above");
    table_add(u, u->count++);
    return true;
}

/* ---- the file ---- */

static uint32_t count_of(struct slice text, uint8_t c)
{
    uint32_t n = 0;
    for (size_t i = 0; i < text.len; i++)
        n += text.ptr[i] == c;
    return n;
}

static bool users_reserve(struct users *u, struct slice text)
{
    uint32_t lines = count_of(text, '\n') + 1, size = 8;
    while (size < lines * 2)
        size *= 2;
    u->mask = size - 1;
    u->text = malloc(text.len + 1);
    u->items = calloc(lines, sizeof *u->items);
    u->senders = calloc(lines + count_of(text, ','), sizeof *u->senders);
    u->table = calloc(size, sizeof *u->table);
    return u->text && u->items && u->senders && u->table;
}

static bool users_read(struct users *u, const char *name, struct why *why)
{
    uint32_t senders_used = 0;
    struct line at = {.file = name, .why = why};
    for (char *rest = u->text; rest;) {
        char *line = cut(&rest, '\n');
        size_t len = strlen(line);
        at.number++;
        if (len && line[len - 1] == '\r')
            line[--len] = '\0';
        if (len == 0 || line[0] == '#')
            continue;
        if (!line_read(u, line, &senders_used, &at))
            return false;
    }
    return true;
}

/* ---- what unknown accounts are checked against ---- */

/* The part of a hash that sets its kind and cost: "$y$j9T$", "$6$", "$6$rounds=9$", "$2b$12$". */
static size_t setting_len(const char *hash)
{
    const char *id = strchr(hash + 1, '$');
    if (!id)
        return 0;
    bool has_cost = hash[1] == 'y' || hash[1] == '2' || strncmp(id + 1, "rounds=", 7) == 0 ||
                    strncmp(hash, "$gy$", 4) == 0;
    const char *end = has_cost ? strchr(id + 1, '$') : id;
    return end ? (size_t)(end - hash) + 1 : 0;
}

enum { SETTINGS_MAX = 8 };

/* A copy of one of the file's hashes with the most common setting, its last character exchanged. */
static bool dummy_make(struct users *u)
{
    struct {
        const char *hash;
        uint32_t count;
    } seen[SETTINGS_MAX] = {0};
    uint32_t best = 0;
    for (uint32_t i = 0; i < u->count; i++) {
        const char *hash = u->items[i].hash;
        size_t len = hash[0] == '$' ? setting_len(hash) : 0;
        for (uint32_t k = 0; len && k < SETTINGS_MAX; k++) {
            if (seen[k].hash && strncmp(seen[k].hash, hash, len) != 0)
                continue;
            seen[k].hash = hash;
            if (++seen[k].count > seen[best].count)
                best = k;
            break;
        }
    }
    if (!seen[best].hash)
        return true;
    u->dummy = strdup(seen[best].hash);
    if (u->dummy) {
        char *last = u->dummy + strlen(u->dummy) - 1;
        *last = *last == '.' ? '/' : '.';
    }
    return u->dummy != NULL;
}

const char *users_dummy_hash(const struct users *u)
{
    return u->dummy ? u->dummy : auth_dummy_hash();
}

uint32_t users_count(const struct users *u)
{
    return u->count;
}

/* ---- reading ---- */

struct users *users_parse(const char *name, struct slice text, struct why *why)
{
    struct users *u = calloc(1, sizeof *u);
    if (text.len > USERS_FILE_MAX) {
        why_set(why, 0, "", "%s: larger than %llu MiB", name, USERS_FILE_MAX / MIB);
        goto fail;
    }
    size_t nul = slice_find(text, '\0');
    if (nul < text.len) {
        uint32_t line = count_of(slice_head(text, nul), '\n') + 1;
        why_set(why, 0, "", "%s:%u: a NUL byte; this is no text file", name, line);
        goto fail;
    }
    if (!u || !users_reserve(u, text)) {
        why_set(why, 0, "", "%s: no memory to read it", name);
        goto fail;
    }
    if (text.len)
        memcpy(u->text, text.ptr, text.len);
    u->text[text.len] = '\0';
    if (!users_read(u, name, why))
        goto fail;
    if (!dummy_make(u)) {
        why_set(why, 0, "", "%s: no memory to read it", name);
        goto fail;
    }
    return u;
fail:
    users_free(u);
    return NULL;
}

struct users *users_load(const char *path, struct why *why)
{
    struct users *u = NULL;
    FILE *f = fopen(path, "rbe");
    if (!f) {
        why_set(why, 0, "", "%s: cannot be read: %s", path, strerror(errno));
        return NULL;
    }
    size_t len = 0, size = 64 * KIB;
    char *text = malloc(size);
    while (text && len <= USERS_FILE_MAX) {
        size_t n = fread(text + len, 1, size - len, f);
        len += n;
        if (n == 0)
            break;
        if (len == size) {
            char *more = realloc(text, size *= 2);
            if (!more)
                free(text);
            text = more;
        }
    }
    if (!text)
        why_set(why, 0, "", "%s: no memory to read it", path);
    else if (ferror(f))
        why_set(why, 0, "", "%s: cannot be read: %s", path, strerror(errno));
    else
        u = users_parse(path, slice_of(text, len), why);
    fclose(f);
    if (text)
        explicit_bzero(text, len);
    free(text);
    return u;
}

void users_free(struct users *u)
{
    if (!u)
        return;
    free(u->text);
    free(u->items);
    free(u->senders);
    free(u->table);
    free(u->dummy);
    free(u);
}
