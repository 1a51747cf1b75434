/*
 * tests/sim/sweep.c - each kind of fault at each place that starts an operation, one at a time.
 *
 * Owns:     how often each run comes by each place; what was tried there.
 * Runs on:  the main thread.
 * Contract: a place counts as covered for a fault when exactly one of its calls failed so, in a run
 *           that kept every promise. The places are those in the program: a new one is missed
 *           until some run comes by.
 * Failure:  a place that no run comes by, or a fault that never happened there: told, status 1.
 * Bounds:   SWEEP_SEEDS_MAX runs that look; TRIES_MAX runs for each fault at each place.
 * Tests:    tests/system/test_sim.py
 */
#include "tests/sim/sweep.h"

#include <stdlib.h>
#include <string.h>

#include "tests/sim/places.h"

#define SWEEP_SEEDS_MAX 2000u
#define WANTED          3u  /* runs in which a fault happened at a place */
#define TRIES_MAX       24u /* a call that is asked to fail may be too late or too short to */

#define F(name) (1u << SIM_##name)

static const struct {
    const char *call;
    uint32_t faults;
} applies[] = {
    {"io_accept_start", F(NO_FD) | F(OTHER)},
    {"io_allocate", F(EIO) | F(ENOSPC) | F(CANCELED)},
    {"io_connect", F(REFUSED) | F(TIMEOUT) | F(NO_FD) | F(OTHER) | F(CANCELED)},
    {"io_create", F(OTHER)},
    {"io_disk_free", F(EIO)},
    {"io_file_size", F(EIO) | F(CANCELED)},
    {"io_list_dir", F(EIO)},
    {"io_listen", F(OTHER)},
    {"io_lock", F(EIO)},
    {"io_memory", F(OTHER)},
    {"io_mkdir", F(EIO)},
    {"io_open", F(EIO) | F(ENOSPC) | F(NO_FD) | F(OTHER) | F(CANCELED)},
    {"io_poll_raw", F(CANCELED)},
    {"io_port_check", F(OTHER)},
    {"io_post", F(NO_BUF)},
    {"io_read", F(EIO) | F(SHORT) | F(CANCELED)},
    {"io_recv", F(RESET) | F(TIMEOUT) | F(SHORT) | F(NO_BUF) | F(CANCELED)},
    {"io_rename", F(EIO) | F(ENOSPC) | F(CANCELED)},
    {"io_send", F(RESET) | F(TIMEOUT) | F(SHORT) | F(CANCELED)},
    {"io_send close", F(RESET) | F(TIMEOUT) | F(SHORT) | F(CANCELED)},
    {"io_send shut", F(RESET) | F(TIMEOUT) | F(SHORT) | F(CANCELED)},
    {"io_sync", F(EIO) | F(ENOSPC) | F(CANCELED)},
    {"io_unlink", F(EIO) | F(CANCELED)},
    {"io_write", F(EIO) | F(ENOSPC) | F(SHORT) | F(CANCELED)},
    {"io_write_sync", F(EIO) | F(ENOSPC) | F(SHORT) | F(CANCELED) | F(LATE)},
};

/* Places that no run can come by, and why. */
static const struct {
    const char *function, *call, *why;
} left_out[] = {
    {"start_rest", "io_write", "only a planted bug writes so"},
    {"commit_done", "io_sync", "only a planted bug syncs so"},
    {"hop_flush", "io_send shut", "a connection to a next hop ends by itself, never with a send"},
    {"hop_flush", "io_send close", "the same"},
};

/* Places that are only come by after another call failed. */
static const struct {
    const char *function, *call;
    struct {
        const char *function, *call;
        enum sim_fault fault;
    } before;
} preludes[] = {
    {"header_again", "io_open", {"next_header", "io_open", SIM_EIO}},
    {"header_again", "io_read", {"opened_or_read", "io_read", SIM_EIO}},
    {"contents_again", "io_open", {"next_segment", "io_open", SIM_EIO}},
    {"contents_again", "io_read", {"read_window", "io_read", SIM_EIO}},
    {"window_read", "io_read", {"read_window", "io_read", SIM_SHORT}},
    {"prepare_failed", "io_unlink", {"write_header", "io_write_sync", SIM_EIO}},
    {"shard_post_again", "io_post", {"shard_post", "io_post", SIM_NO_BUF}},
};

struct look {
    uint64_t seed;
    bool bare;
    uint32_t calls[RUN_PLACES_MAX];
};

struct sweep {
    const struct sim_place *places;
    uint32_t place_count;
    uint64_t first, seeds;
    struct look *looks;
    uint32_t look_next, look_count; /* one bare and one as it is for each seed */
    uint32_t tries[RUN_PLACES_MAX][SIM_FAULT_COUNT];
    uint32_t hits[RUN_PLACES_MAX][SIM_FAULT_COUNT];
    bool alone[RUN_PLACES_MAX]; /* nothing else failed in these runs, but what must come before */
    uint32_t at, fault;         /* of the round: where it has come to */
    uint64_t runs, failed;
};

/* ---- which runs come by where ---- */

static bool look_next(void *arg, struct run_job *job)
{
    struct sweep *s = arg;
    if (s->look_next == 2 * s->seeds)
        return false;
    *job = (struct run_job){.seed = s->first + s->look_next / 2, .bare = s->look_next % 2 == 0};
    s->look_next++;
    return true;
}

static void look_over(void *arg, const struct run_job *job, const struct run_result *r)
{
    struct sweep *s = arg;
    struct look *l = &s->looks[2 * (job->seed - s->first) + !job->bare];
    s->runs++;
    s->failed += r->failed;
    l->seed = job->seed;
    l->bare = job->bare;
    memcpy(l->calls, r->calls, sizeof l->calls);
}

/* ---- one call fails ---- */

static uint32_t faults_of(const struct sim_place *place)
{
    for (size_t i = 0; i < sizeof applies / sizeof *applies; i++)
        if (strcmp(applies[i].call, place->call) == 0)
            return applies[i].faults;
    fprintf(stderr, "%s: what can fail there?\n", place->call);
    exit(2);
}

static const char *excuse(const struct sim_place *place)
{
    for (size_t i = 0; i < sizeof left_out / sizeof *left_out; i++)
        if (strcmp(left_out[i].function, place->function) == 0 &&
            strcmp(left_out[i].call, place->call) == 0)
            return left_out[i].why;
    return NULL;
}

/* Where the call must be counted that comes first; `before` is filled when another one must fail.
 */
static uint32_t first_of(const struct sweep *s, uint32_t place, struct sim_fail_at *before)
{
    for (size_t i = 0; i < sizeof preludes / sizeof *preludes; i++) {
        if (strcmp(preludes[i].function, s->places[place].function) != 0 ||
            strcmp(preludes[i].call, s->places[place].call) != 0)
            continue;
        for (uint32_t k = 0; k < s->place_count; k++)
            if (strcmp(preludes[i].before.function, s->places[k].function) == 0 &&
                strcmp(preludes[i].before.call, s->places[k].call) == 0) {
                before->place = &s->places[k];
                before->fault = preludes[i].before.fault;
                return k;
            }
    }
    return place;
}

/* The first, the last, one of the first few (those that end before the calm), any. */
static uint32_t nth_of(uint32_t n, uint32_t calls)
{
    switch (n % 4) {
    case 0: return 1 + n / 4 % calls;
    case 1: return calls;
    case 2: return 1 + n % (calls < 8 ? calls : 8);
    default: return 1 + n * 37 % calls;
    }
}

/* Try number `n` for this fault there: bare runs as long as there are any. False: no run. */
static bool job_of(const struct sweep *s, uint32_t place, enum sim_fault fault, uint32_t n,
                   struct run_job *job)
{
    uint32_t bare = 0, others = 0, pick;
    struct sim_fail_at before = {0};
    uint32_t first = first_of(s, place, &before);
    for (uint32_t i = 0; i < s->look_count; i++)
        if (s->looks[i].calls[first])
            *(s->looks[i].bare ? &bare : &others) += 1;
    if (bare + others == 0)
        return false;
    bool plain = bare > 0 && (others == 0 || n < TRIES_MAX - 4);
    pick = (n * 7 + (uint32_t)fault * 5 + place) % (plain ? bare : others);
    for (uint32_t i = 0; i < s->look_count; i++) {
        const struct look *l = &s->looks[i];
        if (!l->calls[first] || l->bare != plain || pick-- > 0)
            continue;
        uint32_t nth = nth_of(n, l->calls[first]);
        *job = (struct run_job){.seed = l->seed, .bare = l->bare};
        before.nth = nth;
        job->at[0] = (struct sim_fail_at){&s->places[place], before.place ? 1 : nth, fault};
        job->at[1] = before;
        return true;
    }
    return false;
}

/* A round tries each fault that did not happen often enough once more. */
static bool round_next(void *arg, struct run_job *job)
{
    struct sweep *s = arg;
    for (; s->at < s->place_count; s->at++, s->fault = 0) {
        uint32_t faults = faults_of(&s->places[s->at]);
        while (s->fault < SIM_FAULT_COUNT) {
            uint32_t k = s->fault++;
            if (!(faults & 1u << k) || s->hits[s->at][k] >= WANTED ||
                s->tries[s->at][k] > TRIES_MAX)
                continue;
            if (job_of(s, s->at, (enum sim_fault)k, s->tries[s->at][k]++, job))
                return true;
        }
    }
    return false;
}

static void round_over(void *arg, const struct run_job *job, const struct run_result *r)
{
    struct sweep *s = arg;
    s->runs++;
    s->failed += r->failed;
    uint32_t at = (uint32_t)(job->at[0].place - s->places);
    if (!r->hit || r->failed)
        return;
    s->hits[at][job->at[0].fault]++;
    s->alone[at] &= job->bare;
}

/* ---- what came out ---- */

static void head_print(void)
{
    printf("%-46s %-15s", "place", "operation");
    for (int k = 1; k < SIM_FAULT_COUNT; k++)
        if (k != SIM_STALL)
            printf(" %8s", sim_fault_name((enum sim_fault)k));
    putchar('\n');
}

/* Returns how many faults are missing there. */
static uint32_t row_print(const struct sweep *s, uint32_t at)
{
    uint32_t faults = faults_of(&s->places[at]), missing = 0;
    const char *why = excuse(&s->places[at]);
    char name[256];
    site_name(&s->places[at], 0, name, sizeof name);
    printf("%-46s %-15s", name, s->places[at].call);
    if (why) {
        printf(" left out: %s\n", why);
        return 0;
    }
    for (int k = 1; k < SIM_FAULT_COUNT; k++) {
        if (k == SIM_STALL)
            continue;
        if (faults & 1u << k)
            printf(" %8u", s->hits[at][k]);
        else
            printf(" %8s", "-");
        missing += faults & 1u << k && s->hits[at][k] == 0;
    }
    puts(missing ? " MISSING" : !s->alone[at] ? " among others" : "");
    return missing;
}

static int table_print(const struct sweep *s)
{
    uint32_t missing = 0, covered = 0, excused = 0;
    head_print();
    for (uint32_t i = 0; i < s->place_count; i++) {
        missing += row_print(s, i);
        excused += excuse(&s->places[i]) != NULL;
        for (int k = 1; k < SIM_FAULT_COUNT; k++)
            covered += s->hits[i][k] > 0;
    }
    printf("%u places, %u left out; %u faults happened at them, %u are missing; %llu runs\n",
           s->place_count, excused, covered, missing, (unsigned long long)s->runs);
    printf("%llu passed, %llu failed\n", (unsigned long long)(s->runs - s->failed),
           (unsigned long long)s->failed);
    return missing || s->failed || excused != sizeof left_out / sizeof *left_out;
}

int sweep_run(const struct run_options *o, struct run_results *results, uint64_t first,
              uint64_t seeds)
{
    struct sweep *s = calloc(1, sizeof *s);
    s->first = first;
    s->seeds = seeds < SWEEP_SEEDS_MAX ? seeds : SWEEP_SEEDS_MAX;
    s->look_count = (uint32_t)(2 * s->seeds);
    s->looks = calloc(s->look_count, sizeof *s->looks);
    s->place_count = run_places(&s->places);
    if (s->place_count > RUN_PLACES_MAX) {
        fprintf(stderr, "more than %u places\n", RUN_PLACES_MAX);
        exit(2);
    }
    memset(s->alone, 1, sizeof s->alone);
    run_all(o, results, &(struct run_user){look_next, look_over, s});
    for (uint32_t n = 0; n <= TRIES_MAX; n++) {
        s->at = s->fault = 0;
        run_all(o, results, &(struct run_user){round_next, round_over, s});
    }
    int status = table_print(s);
    free(s->looks);
    free(s);
    return status;
}
