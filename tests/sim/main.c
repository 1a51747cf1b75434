/*
 * tests/sim/main.c - the simulator's command line: which seeds are run, and what came out.
 *
 * Owns:     the results.
 * Runs on:  the main thread.
 * Contract: a seed that fails, crashes or hangs is told with the one command that repeats it.
 * Failure:  exit status 1 when a seed failed, 2 for wrong use.
 * Bounds:   FAILED_MAX failed seeds, then it stops.
 * Tests:    tests/system/test_sim.py
 */
#include <getopt.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#include "queue/queue.h"
#include "tests/sim/places.h"
#include "tests/sim/sweep.h"

#define HIKYAKU_PLANTS
#include "gateway/base/plant.h"

#define FAILED_MAX 10u

/* Read by jemalloc: a run is too short for what is free to be given back. */
const char *malloc_conf = "dirty_decay_ms:-1,muzzy_decay_ms:-1";

/* Pages that are filled before they are used pay off in a process that lives on (slab.c). */
void *__real_mmap(void *at, size_t len, int prot, int flags, int fd, off_t offset);
void *__wrap_mmap(void *at, size_t len, int prot, int flags, int fd, off_t offset);
void *__wrap_mmap(void *at, size_t len, int prot, int flags, int fd, off_t offset)
{
    return __real_mmap(at, len, prot, flags & ~MAP_POPULATE, fd, offset);
}

/* Its bodies are too small to be written in parts: one lane of two writes whatever there is. */
struct lane *__real_lane_open(const struct lane_params *p);
struct lane *__wrap_lane_open(const struct lane_params *p);
struct lane *__wrap_lane_open(const struct lane_params *p)
{
    struct lane_params own = *p;

    own.early_bytes = p->lane % 2 == 0;
    return __real_lane_open(&own);
}

static const char usage[] =
    "usage: sim [--seeds N] [--first K] [--jobs J]  run N seeds from K on\n"
    "       sim --seed X [--trace] [--steps]        one seed, what happens as lines\n"
    "       sim --list FILE                         the seeds of a file, one a line\n"
    "       sim --twice                             each seed twice: is it the same run?\n"
    "       sim --plant NAME                        with a planted bug: 0 when it is found\n"
    "       sim --plants                            their names\n"
    "       sim --sites                             what failed at each place of the product\n"
    "       sim --sweep                             each fault at each place, one at a time\n"
    "       sim --seed X [--bare] [--at FILE:LINE:FAULT:N[,...]]\n"
    "                                               with that call failing, and nothing else\n";

struct options {
    struct run_options run;
    uint64_t seeds, first;
    bool twice, sites, sweep, keep_going;
    struct run_job at; /* of --at */
    enum plant plant;
};

static struct run_results results;

/* ---- seeds ---- */

struct totals {
    uint64_t run, failed, first_failed;
    char why[1024];
};

struct seeds {
    const struct options *o;
    const uint64_t *list; /* NULL: from o->first on */
    uint64_t next;
    struct totals t;
};

/* With a plant: until one fails. */
static bool seeds_next(void *arg, struct run_job *job)
{
    struct seeds *s = arg;
    const struct options *o = s->o;
    if (s->next == o->seeds ||
        (s->t.failed && (o->plant || (!o->keep_going && s->t.failed >= FAILED_MAX))))
        return false;
    *job = o->at;
    job->seed = s->list ? s->list[s->next] : o->first + s->next;
    s->next++;
    return true;
}

static void seeds_over(void *arg, const struct run_job *job, const struct run_result *r)
{
    struct seeds *s = arg;
    s->t.run++;
    if (!r->failed || s->t.failed++ > 0)
        return;
    s->t.first_failed = job->seed;
    snprintf(s->t.why, sizeof s->t.why, "%s", r->why);
}

static struct totals seeds_run(const struct options *o, const uint64_t *list)
{
    struct seeds s = {.o = o, .list = list};
    run_all(&o->run, &results, &(struct run_user){seeds_next, seeds_over, &s});
    return s.t;
}

/* ---- each twice ---- */

struct twice {
    const struct options *o;
    uint64_t next, *hashes;
    struct totals t;
};

static bool twice_next(void *arg, struct run_job *job)
{
    struct twice *t = arg;
    *job = (struct run_job){.seed = t->o->first + t->next / 2};
    return t->next++ < 2 * t->o->seeds;
}

static void twice_over(void *arg, const struct run_job *job, const struct run_result *r)
{
    struct twice *t = arg;
    uint64_t *hash = &t->hashes[job->seed - t->o->first];
    if (*hash == 0) {
        *hash = r->hash;
        return;
    }
    t->t.run++;
    if (*hash == r->hash)
        return;
    t->t.failed++;
    printf("FAILED seed 0x%llx: two runs differ\n", (unsigned long long)job->seed);
}

/* The same seed must give the same run, to the last step. */
static struct totals twice_run(const struct options *o)
{
    struct twice t = {.o = o, .hashes = calloc(o->seeds, sizeof(uint64_t))};
    run_all(&o->run, &results, &(struct run_user){twice_next, twice_over, &t});
    free(t.hashes);
    return t.t;
}

/* ---- what came out ---- */

static void report(const struct options *o, const struct totals *t, double seconds)
{
    static struct world_stats s;
    for (uint64_t j = 0; j < o->run.jobs; j++)
        world_stats_add(&s, &results.slots[j]->stats);
    double n = s.seeds ? (double)s.seeds : 1;
    printf("%llu seeds in %.1f s, %.1f ms of processor, %.0f steps and %.0f s of virtual time "
           "each\n",
           (unsigned long long)t->run, seconds, (double)s.cpu_ns / 1e6 / n, (double)s.steps / n,
           (double)s.virtual_ns / 1e9 / n);
    printf("sessions %llu, messages %llu: acknowledged %llu, refused %llu, unknown %llu; "
           "recipients acknowledged %llu, delivered %llu, reported %llu, removed %llu\n",
           (unsigned long long)s.sessions, (unsigned long long)s.messages,
           (unsigned long long)s.acked, (unsigned long long)s.refused,
           (unsigned long long)s.unknown, (unsigned long long)s.rcpts,
           (unsigned long long)s.delivered, (unsigned long long)s.bounced,
           (unsigned long long)s.removed);
    printf("twice: %llu by a lost reply, %llu by a crash; starts %llu (failed %llu), kills %llu, "
           "power cuts %llu, drains %llu, reloads %llu, orders %llu\n",
           (unsigned long long)s.dup_lost_reply, (unsigned long long)s.dup_crash,
           (unsigned long long)s.starts, (unsigned long long)s.start_failed,
           (unsigned long long)s.kills, (unsigned long long)s.cuts, (unsigned long long)s.drains,
           (unsigned long long)s.reloads, (unsigned long long)s.orders);
    if (o->sites) {
        for (uint64_t j = 1; j < o->run.jobs; j++)
            sites_merge(&results.slots[0]->sites, &results.slots[j]->sites);
        sites_print(&results.slots[0]->sites, stdout);
    }
    printf("%llu passed, %llu failed\n", (unsigned long long)(t->run - t->failed),
           (unsigned long long)t->failed);
}

static uint64_t *list_read(const char *path, uint64_t *count)
{
    FILE *f = fopen(path, "r");
    uint64_t *list = calloc(100000, sizeof *list);
    char line[256];
    *count = 0;
    if (!f) {
        perror(path);
        exit(2);
    }
    while (fgets(line, sizeof line, f) && *count < 100000)
        if (line[0] != '#' && line[0] != '\n')
            list[(*count)++] = strtoull(line, NULL, 0);
    fclose(f);
    return list;
}

static const char *const plant_names[] = {"",
#define X(name, text) #name,
                                          PLANTS(X)
#undef X
};

static enum plant plant_find(const char *name)
{
    for (int i = 1; i < PLANT_COUNT; i++)
        if (strcmp(plant_names[i], name) == 0)
            return (enum plant)i;
    fprintf(stderr, "no such plant: %s\n", name);
    exit(2);
}

static int plant_report(const struct options *o, const struct totals *t)
{
    if (t->failed)
        printf("%s: found by seed 0x%llx, run %llu: %s\n", plant_names[o->plant],
               (unsigned long long)t->first_failed, (unsigned long long)t->run, t->why);
    else
        printf("%s: not found in %llu seeds\n", plant_names[o->plant], (unsigned long long)t->run);
    return t->failed ? 0 : 1;
}

/* "queue/commit.c:219:EIO:3" */
static bool place_read(const char *text, struct sim_fail_at *at)
{
    char file[256], fault[32];
    unsigned line;
    unsigned long long nth;
    const struct sim_place *places;
    uint32_t count = run_places(&places);
    if (sscanf(text, "%255[^:]:%u:%31[^:]:%llu", file, &line, fault, &nth) != 4)
        return false;
    for (uint32_t i = 0; i < count; i++)
        if (places[i].line == line && strcmp(places[i].file, file) == 0)
            at->place = &places[i];
    for (int k = 0; k < SIM_FAULT_COUNT; k++)
        if (strcmp(sim_fault_name((enum sim_fault)k), fault) == 0)
            at->fault = (enum sim_fault)k;
    at->nth = nth;
    return at->place && at->fault != SIM_OK;
}

static void at_read(char *text, struct run_job *job)
{
    char *save = NULL;
    for (int i = 0; i < 2; i++, text = NULL) {
        char *part = strtok_r(text, ",", &save);
        if (part && !place_read(part, &job->at[i])) {
            fprintf(stderr, "no such place or fault: %s\n", part);
            exit(2);
        }
    }
}

static uint64_t *options_read(int argc, char **argv, struct options *o)
{
    static const struct option options[] = {
        {"seeds", 1, NULL, 'n'},  {"first", 1, NULL, 'f'}, {"jobs", 1, NULL, 'j'},
        {"seed", 1, NULL, 's'},   {"trace", 0, NULL, 't'}, {"steps", 0, NULL, 'T'},
        {"list", 1, NULL, 'l'},   {"twice", 0, NULL, '2'}, {"plant", 1, NULL, 'p'},
        {"plants", 0, NULL, 'P'}, {"sites", 0, NULL, 'S'}, {"all", 0, NULL, 'a'},
        {"sweep", 0, NULL, 'w'},  {"at", 1, NULL, '@'},    {"bare", 0, NULL, 'b'},
        {NULL, 0, NULL, 0}};
    uint64_t *list = NULL;
    int c;
    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (c) {
        case 'n': o->seeds = strtoull(optarg, NULL, 0); break;
        case 'f': o->first = strtoull(optarg, NULL, 0); break;
        case 'j': o->run.jobs = strtoull(optarg, NULL, 0); break;
        case 's':
            o->first = strtoull(optarg, NULL, 0);
            o->seeds = 1;
            break;
        case 't': o->run.trace = true; break;
        case 'T': o->run.trace = o->run.steps = true; break;
        case 'l': list = list_read(optarg, &o->seeds); break;
        case '2': o->twice = true; break;
        case 'p':
            o->plant = plant_find(optarg);
            o->run.quiet = true;
            break;
        case 'P':
            for (int i = 1; i < PLANT_COUNT; i++)
                puts(plant_names[i]);
            exit(0);
        case 'S': o->sites = true; break;
        case 'a': o->keep_going = true; break;
        case 'w': o->sweep = true; break;
        case '@': at_read(optarg, &o->at); break;
        case 'b': o->at.bare = true; break;
        default: fputs(usage, stderr); exit(2);
        }
    }
    if (optind < argc || o->run.jobs < 1 || o->run.jobs > RUN_JOBS_MAX) {
        fputs(usage, stderr);
        exit(2);
    }
    return list;
}

int main(int argc, char **argv)
{
    struct options o = {.seeds = 100, .first = 1, .run.jobs = 1};
    struct timespec a, b;
    uint64_t *list = options_read(argc, argv, &o);
    plant_now = o.plant;
    run_results_make(&results, o.run.jobs);
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (o.sweep)
        return sweep_run(&o.run, &results, o.first, o.seeds);
    clock_gettime(CLOCK_MONOTONIC, &a);
    struct totals t = o.twice ? twice_run(&o) : seeds_run(&o, list);
    clock_gettime(CLOCK_MONOTONIC, &b);
    free(list);
    if (o.plant)
        return plant_report(&o, &t);
    report(&o, &t, (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) / 1e9);
    return t.failed != 0;
}
