/*
 * gateway/ctl/doctor.c - looks at the machine, the spool's disk, names and next hops; each finding
 * says what to do.
 *
 * Owns:     the findings.
 * Runs on:  hikyakuctl's only thread.
 * Contract: nothing is changed: the disk is tried with a file of its own, removed afterwards.
 * Failure:  what cannot be looked at is a finding too.
 * Bounds:   SYNCS writes to the disk; the resolver's own time limits; doctor_out.c.
 * Tests:    tests/system/test_doctor.py
 */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timex.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "gateway/ctl/doctor_internal.h"
#include "gateway/io/io.h"

#define SYNCS        20
#define SYNC_SLOW_US 20000L

void doctor_say(struct doctor *d, const char *about, const char *what, const char *advice)
{
    json_array_append_new(d->findings,
                          json_pack("{s:s, s:b, s:s, s:s*}", "about", about, "ok", advice == NULL,
                                    "finding", what, "advice", advice));
    d->wrong |= advice != NULL;
}

/* ---- the machine ---- */

static void look_kernel(struct doctor *d)
{
    struct utsname u;
    struct why why;
    unsigned major = 0, minor = 0;
    uname(&u);
    sscanf(u.release, "%u.%u", &major, &minor);
    doctor_say(d, "kernel", u.release,
               major > 6 || (major == 6 && minor >= 1) ? NULL : "Linux 6.1 or newer is needed");
    if (io_probe(&why))
        doctor_say(d, "io_uring", "allowed", NULL);
    else
        doctor_say(d, "io_uring", "not to be had here", why.text);
}

static void look_clock(struct doctor *d)
{
    struct timex t = {0};
    bool unsure = adjtimex(&t) == TIME_ERROR;
    doctor_say(d, "clock", unsure ? "not synchronised" : "synchronised",
               unsure
                   ? "run an NTP client: Date, Received, retries and certificates go by the clock"
                   : NULL);
}

static int by_value(const void *a, const void *b)
{
    long x = *(const long *)a, y = *(const long *)b;
    return (x > y) - (x < y);
}

/* The median of a few small writes, each synced. Negative: -errno. */
static long sync_us(const char *path)
{
    static const char block[4096];
    long took[SYNCS];
    struct timespec a, b;
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600), failed = fd < 0 ? errno : 0;
    for (int i = 0; i < SYNCS && !failed; i++) {
        clock_gettime(CLOCK_MONOTONIC, &a);
        if (pwrite(fd, block, sizeof block, i * (off_t)sizeof block) != (ssize_t)sizeof block ||
            fdatasync(fd) != 0)
            failed = errno;
        clock_gettime(CLOCK_MONOTONIC, &b);
        took[i] = (b.tv_sec - a.tv_sec) * 1000000 + (b.tv_nsec - a.tv_nsec) / 1000;
    }
    if (fd >= 0) {
        close(fd);
        unlink(path);
    }
    if (failed)
        return -failed;
    qsort(took, SYNCS, sizeof *took, by_value);
    return took[SYNCS / 2];
}

static void look_disk(struct doctor *d, const char *spool)
{
    char path[4096], what[4200];
    if (!spool || snprintf(path, sizeof path, "%s/doctor.tmp", spool) >= (int)sizeof path)
        return;
    long us = sync_us(path);
    if (us < 0) {
        snprintf(what, sizeof what, "%s: %s", spool, strerror((int)-us));
        doctor_say(d, "disk", what,
                   "run this as the gateway's user or as root to have the disk tried");
        return;
    }
    snprintf(what, sizeof what, "a sync in %s takes %ld.%03ld ms", spool, us / 1000, us % 1000);
    doctor_say(d, "disk", what,
               us > SYNC_SLOW_US ? "each 250 waits for one: put the spool on a faster local disk"
                                 : NULL);
}

/* ---- names ---- */

/* Does the name lead to an address, and one of its addresses back to the name? */
static void look_name(struct doctor *d, const char *connector, const char *name)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *list = NULL;
    char back[NI_MAXHOST], what[NI_MAXHOST * 2 + 64];
    bool same = false;
    int error = getaddrinfo(name, NULL, &hints, &list);
    if (error) {
        snprintf(what, sizeof what, "%s of %s: %s", name, connector, gai_strerror(error));
        doctor_say(d, "dns", what,
                   "give the name an A or AAAA record, or set fqdn to one that has");
        return;
    }
    snprintf(back, sizeof back, "no name");
    for (const struct addrinfo *a = list; a && !same; a = a->ai_next)
        same =
            getnameinfo(a->ai_addr, a->ai_addrlen, back, sizeof back, NULL, 0, NI_NAMEREQD) == 0 &&
            strcasecmp(back, name) == 0;
    freeaddrinfo(list);
    snprintf(what, sizeof what, "%s of %s leads back to %s", name, connector, back);
    doctor_say(d, "dns", what,
               same ? NULL
                    : "let the PTR record of the address name it: many hosts refuse mail else");
}

static void look_names(struct doctor *d, json_t *connectors)
{
    json_t *c;
    size_t i;
    json_array_foreach(json_object_get(connectors, "receive"), i, c)
        look_name(d, json_string_value(json_object_get(c, "name")),
                  json_string_value(json_object_get(c, "fqdn")));
}

/* ---- the gateway ---- */

static void look_status(struct doctor *d, json_t *status)
{
    const char *not_ready = json_string_value(json_object_get(status, "not_ready"));
    const char *reload = json_string_value(json_object_get(status, "last_reload_error"));
    doctor_say(d, "gateway", not_ready ? not_ready : "takes mail",
               not_ready ? "see the log for what led to it" : NULL);
    if (reload)
        doctor_say(d, "configuration", reload, "the old one is in force: mend the file and reload");
}

/* What the gateway itself finds odd: certificates that end or name another host, open doors. */
static void look_warnings(struct doctor *d, json_t *j)
{
    json_t *warnings = json_object_get(j, "warnings"), *w;
    json_int_t have = json_integer_value(json_object_get(j, "descriptors"));
    json_int_t wanted = json_integer_value(json_object_get(j, "descriptors_wanted"));
    char what[96];
    size_t i;
    json_array_foreach(warnings, i, w)
        doctor_say(d, "configuration", json_string_value(w), "mend it and `hikyakuctl reload`");
    if (json_array_size(warnings) == 0)
        doctor_say(d, "configuration", "certificates are valid and fit their names", NULL);
    snprintf(what, sizeof what, "%lld descriptors are allowed, %lld serve all sessions",
             (long long)have, (long long)wanted);
    doctor_say(d, "limits", what,
               have < wanted ? "raise LimitNOFILE= or `ulimit -n`: else sessions hear 421 sooner"
                             : NULL);
}

static void look_next_hops(struct doctor *d, json_t *connectors)
{
    json_t *c;
    size_t i;
    char what[1024];
    json_array_foreach(json_object_get(connectors, "send"), i, c)
    {
        const char *health = json_string_value(json_object_get(c, "health"));
        const char *error = json_string_value(json_object_get(c, "last_error"));
        bool down = health && strstr(health, "down");
        snprintf(what, sizeof what, "%s: %s%s%s", json_string_value(json_object_get(c, "name")),
                 health ? health : "unknown", down && error ? ", " : "",
                 down && error ? error : "");
        doctor_say(d, "next hops", what, down ? "see `hikyakuctl queue sites`" : NULL);
    }
}

static int finish(struct doctor *d, const struct client *c)
{
    json_t *f;
    size_t i;
    if (c->json) {
        json_dumpf(d->findings, stdout, JSON_INDENT(2));
        putchar('\n');
    }
    json_array_foreach(d->findings, i, f)
    {
        const char *advice = json_string_value(json_object_get(f, "advice"));
        if (c->json)
            continue;
        printf("%-5s %-13s %s\n", advice ? "LOOK" : "ok",
               json_string_value(json_object_get(f, "about")),
               json_string_value(json_object_get(f, "finding")));
        if (advice)
            printf("                    -> %s\n", advice);
    }
    json_decref(d->findings);
    return d->wrong ? 1 : 0;
}

int doctor_run(const struct client *c)
{
    struct doctor d = {.findings = json_array()};
    int status;
    look_kernel(&d);
    look_clock(&d);
    json_t *j = client_call(c, "GET", "/api/v1/status", NULL, &status);
    if (j) {
        look_status(&d, j);
        look_disk(&d, json_string_value(json_object_get(j, "spool")));
        json_decref(j);
        j = client_call(c, "GET", "/api/v1/config/warnings", NULL, &status);
        if (j)
            look_warnings(&d, j);
        json_decref(j);
        j = client_call(c, "GET", "/api/v1/connectors", NULL, &status);
    } else {
        doctor_say(&d, "gateway", "does not answer", "start it; its log says why it ended");
    }
    if (j) {
        look_names(&d, j);
        look_next_hops(&d, j);
        json_decref(j);
        doctor_look_out(&d, c);
    }
    return finish(&d, c);
}

int doctor_check_dns(const struct client *c)
{
    struct doctor d = {.findings = json_array()};
    int status;
    json_t *j = client_call(c, "GET", "/api/v1/connectors", NULL, &status);
    if (!j)
        return status;
    look_names(&d, j);
    json_decref(j);
    return finish(&d, c);
}
