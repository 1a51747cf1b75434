/*
 * tests/unit/test_users.c - the users file: what is read, what is refused and in which words.
 */
#include <criterion/criterion.h>

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "gateway/auth/auth.h"
#include "gateway/limits.h"

/* The password is "secret". */
#define YESCRYPT "$y$j9T$TnfmdaF5G6VJZr.wrG00T0$.8Bs/zZ0x6.TJhxFfP1g0TpVw4aZDqnAGl/XUdPZMrD"
#define SHA512                                                                                     \
    "$6$dbm5weruIDC3jWJ7$d6e0grWkgTQcpz.b/fQd9OTTHW/WI2Ra12F9ADNbneAtEhgFvvYJGeFAizMIRhhxq4tV9200" \
    "zkMVw9MRYOAlw0"
#define BCRYPT "$2b$05$8mHS6aGuIol.VQ2sh/.u1OcJNNqDa9TBYcpcvTJs63MLQeLJ/H68W"
#define MD5    "$1$CMNJtpyc$cEfY9pKH8I3A9/xRSMZSw0"

static struct users *parse(const char *text)
{
    struct why why = {0};
    struct users *u = users_parse("users", slice_str(text), &why);
    cr_assert_not_null(u, "%s", why.text);
    return u;
}

static void refuse(const char *text, const char *words)
{
    struct why why = {0};
    struct users *u = users_parse("users", slice_str(text), &why);
    cr_assert_null(u, "taken: %s", text);
    cr_assert_str_eq(why.text, words);
}

Test(users, accounts)
{
    struct users *u =
        parse("# people\n"
              "alice:" YESCRYPT ":alice@example.com, sales@example.com,@lists.example.com\r\n"
              "\n"
              "bob:" SHA512 "\n"
              "carol@example.com:" BCRYPT ":*\n"
              "dave:" BCRYPT ":");
    cr_assert_eq(users_count(u), 4);
    const struct user *alice = users_find(u, slice_str("ALICE"));
    cr_assert_not_null(alice);
    cr_assert(slice_eq(alice->name, SLICE_LIT("alice")));
    cr_assert_str_eq(alice->hash, YESCRYPT);
    cr_assert_not(alice->disabled);
    cr_assert_eq(alice->sender_count, 3);
    cr_assert(slice_eq(alice->senders[0], SLICE_LIT("alice@example.com")));
    cr_assert(slice_eq(alice->senders[1], SLICE_LIT("sales@example.com")));
    cr_assert(slice_eq(alice->senders[2], SLICE_LIT("@lists.example.com")));
    const struct user *bob = users_find(u, SLICE_LIT("bob"));
    cr_assert_not_null(bob);
    cr_assert_eq(bob->sender_count, 0);
    const struct user *carol = users_find(u, SLICE_LIT("Carol@Example.COM"));
    cr_assert_not_null(carol);
    cr_assert(slice_eq(carol->senders[0], SLICE_LIT("*")));
    cr_assert_eq(users_find(u, SLICE_LIT("dave"))->sender_count, 0);
    cr_assert_null(users_find(u, SLICE_LIT("alic")));
    cr_assert_null(users_find(u, SLICE_LIT("alicee")));
    cr_assert_null(users_find(u, SLICE_LIT("")));
    cr_assert_null(users_find(u, SLICE_LIT("# people")));
    users_free(u);
}

Test(users, locked)
{
    struct users *u = parse("!alice:" BCRYPT "\nbob:!\ncarol:!" BCRYPT "\ndave:" BCRYPT "\n");
    cr_assert(users_find(u, SLICE_LIT("alice"))->disabled);
    cr_assert_null(users_find(u, SLICE_LIT("!alice")));
    cr_assert(users_find(u, SLICE_LIT("bob"))->disabled);
    cr_assert(users_find(u, SLICE_LIT("carol"))->disabled);
    cr_assert_not(users_find(u, SLICE_LIT("dave"))->disabled);
    users_free(u);
}

Test(users, empty)
{
    static const char *const texts[] = {"", "\n", "# nobody", "\r\n\r\n"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct users *u = parse(texts[i]);
        cr_assert_eq(users_count(u), 0);
        cr_assert_null(users_find(u, SLICE_LIT("x")));
        cr_assert_str_eq(users_dummy_hash(u), auth_dummy_hash());
        users_free(u);
    }
}

Test(users, errors_name_the_line)
{
    refuse("alice", "users:1: expected user:hash or user:hash:sender,sender");
    refuse("\n# x\nalice secret\n", "users:3: expected user:hash or user:hash:sender,sender");
    refuse("a:" BCRYPT "\n:" BCRYPT, "users:2: the account's name is missing");
    refuse("!:" BCRYPT, "users:1: the account's name is missing");
    refuse("a b:" BCRYPT, "users:1: the account's name has a space or a control character");
    refuse("\talice:" BCRYPT, "users:1: the account's name has a space or a control character");
    refuse("alice:", "users:1: the account has no password hash; '!' locks an account");
    refuse("alice::a@b", "users:1: the account has no password hash; '!' locks an account");
    refuse("alice:secret",
           "users:1: this is no password hash; make one with: hikyakuctl hash-password");
    refuse("alice:$6$salt",
           "users:1: this is no password hash; make one with: hikyakuctl hash-password");
    refuse("alice:$2b$05$8mHS6aGuIol.VQ2sh/.u1O",
           "users:1: this is no password hash; make one with: hikyakuctl hash-password");
    refuse("alice:$x$abc",
           "users:1: this is no password hash; make one with: hikyakuctl hash-password");
    refuse("alice:abcdefghijklm", /* the shape of DES */
           "users:1: this is no password hash; make one with: hikyakuctl hash-password");
    refuse("alice:" MD5,
           "users:1: this kind of hash is too weak; make one with: hikyakuctl hash-password");
    refuse("alice:" BCRYPT ":bob", "users:1: a sender is an address, @domain, or * for any");
    refuse("alice:" BCRYPT ":a@b,,c@d", "users:1: a sender is an address, @domain, or * for any");
    refuse("alice:" BCRYPT ":a@b,", "users:1: a sender is an address, @domain, or * for any");
    refuse("alice:" BCRYPT ":a b@c", "users:1: a sender has a space in it");
    refuse("alice:" BCRYPT ":a@b:c", "users:1: a fourth field: only user:hash:senders is known");
    refuse("alice:" BCRYPT "\nALICE:" BCRYPT,
           "users:2: this account was already there, on a line above");
    refuse("!alice:" BCRYPT "\nalice:" BCRYPT,
           "users:2: this account was already there, on a line above");
}

Test(users, messages_never_quote_a_hash)
{
    struct why why = {0};
    cr_assert_null(users_parse("users", SLICE_LIT("alice:PLAINSECRET"), &why));
    cr_assert_null(strstr(why.text, "PLAINSECRET"));
}

Test(users, nul_and_long_names)
{
    struct why why = {0};
    cr_assert_null(users_parse("users", slice_of("#\n\0x", 4), &why));
    cr_assert_str_eq(why.text, "users:2: a NUL byte; this is no text file");
    char text[400];
    memset(text, 'a', AUTH_USER_MAX);
    strcpy(text + AUTH_USER_MAX, ":" BCRYPT);
    users_free(parse(text));
    memset(text, 'a', AUTH_USER_MAX + 1);
    strcpy(text + AUTH_USER_MAX + 1, ":" BCRYPT);
    refuse(text, "users:1: the account's name is longer than 255 bytes");
}

Test(users, many_senders)
{
    struct why why = {0};
    char *text = malloc(100000), *p = text;
    p += sprintf(p, "alice:" BCRYPT ":");
    for (uint32_t i = 0; i < USERS_SENDERS_MAX; i++)
        p += sprintf(p, "%sa%u@example.com", i ? "," : "", i);
    struct users *u = users_parse("users", slice_of(text, (size_t)(p - text)), &why);
    cr_assert_not_null(u, "%s", why.text);
    cr_assert_eq(users_find(u, SLICE_LIT("alice"))->sender_count, USERS_SENDERS_MAX);
    users_free(u);
    p += sprintf(p, ",one@more");
    cr_assert_null(users_parse("users", slice_of(text, (size_t)(p - text)), &why));
    cr_assert_str_eq(why.text, "users:1: more than 1000 senders; use @domain");
    free(text);
}

Test(users, many_accounts)
{
    enum { COUNT = 20000 };
    struct why why = {0};
    char *text = malloc(COUNT * 120), *p = text;
    for (int i = 0; i < COUNT; i++)
        p += sprintf(p, "user%d:" BCRYPT ":user%d@example.com\n", i, i);
    struct users *u = users_parse("users", slice_of(text, (size_t)(p - text)), &why);
    cr_assert_not_null(u, "%s", why.text);
    for (int i = 0; i < COUNT; i++) {
        char name[32], sender[64];
        snprintf(name, sizeof name, "User%d", i);
        snprintf(sender, sizeof sender, "user%d@example.com", i);
        const struct user *found = users_find(u, slice_str(name));
        cr_assert_not_null(found);
        cr_assert(slice_eq(found->senders[0], slice_str(sender)));
    }
    cr_assert_null(users_find(u, SLICE_LIT("user20000")));
    users_free(u);
    free(text);
}

Test(users, dummy_has_the_usual_cost)
{
    struct users *u = parse("a:" YESCRYPT "\nb:" SHA512 "\nc:" SHA512 "\n!d:" BCRYPT "\ne:!\n");
    const char *dummy = users_dummy_hash(u);
    cr_assert_eq(strncmp(dummy, "$6$", 3), 0);
    cr_assert_eq(strlen(dummy), strlen(SHA512));
    cr_assert_str_neq(dummy, SHA512);
    struct auth_check *c = auth_check_create(SLICE_LIT("nobody"), dummy, SLICE_LIT("secret"));
    auth_check_run(c);
    cr_assert_not(c->ok);
    cr_assert_not(c->failed);
    auth_check_free(c);
    users_free(u);
}

Test(users, load)
{
    struct why why = {0};
    char path[] = "/tmp/hikyaku-users-XXXXXX", words[128];
    int fd = mkstemp(path);
    cr_assert_geq(fd, 0);
    static const char text[] = "alice:" BCRYPT "\nbob:oops\n";
    cr_assert_eq(write(fd, text, sizeof text - 1), (ssize_t)sizeof text - 1);
    cr_assert_null(users_load(path, &why));
    snprintf(words, sizeof words,
             "%s:2: this is no password hash; make one with: hikyakuctl hash-password", path);
    cr_assert_str_eq(why.text, words);
    cr_assert_eq(ftruncate(fd, strchr(text, '\n') - text), 0);
    struct users *u = users_load(path, &why);
    cr_assert_not_null(u, "%s", why.text);
    cr_assert_not_null(users_find(u, SLICE_LIT("alice")));
    users_free(u);
    close(fd);
    unlink(path);
    cr_assert_null(users_load(path, &why));
    snprintf(words, sizeof words, "%s: cannot be read: No such file or directory", path);
    cr_assert_str_eq(why.text, words);
    cr_assert_null(users_load("/", &why)); /* a directory opens but does not read */
}
