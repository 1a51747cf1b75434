/*
 * tests/sim/main.c - runs seeds, each in a process of its own, and sums them up.
 *
 * Owns:     the children.
 * Runs on:  the main thread; one child for each of JOBS at a time.
 * Contract: a seed that fails, crashes or hangs is told with the one command that repeats it.
 * Failure:  exit status 1 when a seed failed, 2 for wrong use.
 * Bounds:   SEED_SECONDS of processor time for each seed.
 * Tests:    tests/system/test_sim.py
 */
#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define HIKYAKU_PLANTS
#include "gateway/base/plant.h"
#include "tests/sim/sites.h"
#include "tests/sim/world.h"

#define SEED_SECONDS 60
#define JOBS_MAX     64

static const char usage[] =
    "usage: sim [--seeds N] [--first K] [--jobs J]  run N seeds from K on\n"
    "       sim --seed X [--trace] [--steps]        one seed, what happens as lines\n"
    "       sim --list FILE                         the seeds of a file, one a line\n"
    "       sim --twice                             each seed twice: is it the same run?\n"
    "       sim --plant NAME                        with a planted bug: 0 when it is found\n"
    "       sim --plants                            their names\n"
    "       sim --sites                             what failed at each place of the product\n";

struct options {
    uint64_t seeds, first, jobs;
    bool trace, steps, twice, sites, quiet, keep_going;
    enum plant plant;
};

/* What children leave behind, in memory that is shared. */
struct shared {
    struct world_stats stats;
    struct site_table sites;
    char why[1024];
    uint64_t hash;
    bool failed;
};

static struct shared *shared[JOBS_MAX];

static void stats_add(struct world_stats *to, const struct world_stats *from)
{
    uint64_t *t = (uint64_t *)to;
    const uint64_t *f = (const uint64_t *)from;
    for (size_t i = 0; i < sizeof *to / sizeof *t; i++)
        t[i] += f[i];
}

/* In the child: one seed. */
static void seed_run(uint64_t seed, const struct options *o, struct shared *out)
{
    struct world *w = calloc(1, sizeof *w);
    struct rusage use;
    w->seed = seed;
    w->trace = o->trace ? stdout : NULL;
    w->trace_steps = o->steps;
    out->failed = !world_run(w);
    out->hash = sim_trace_hash(w->sim);
    getrusage(RUSAGE_SELF, &use);
    w->stats.cpu_ns = (uint64_t)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) * NS_PER_S +
                      (uint64_t)(use.ru_utime.tv_usec + use.ru_stime.tv_usec) * NS_PER_US;
    snprintf(out->why, sizeof out->why, "%s", w->why);
    stats_add(&out->stats, &w->stats);
    sites_add(&out->sites, w->sim);
    if (o->trace)
        swarm_print(&w->swarm, stdout);
    fflush(NULL);
    _exit(0);
}

static pid_t seed_start(uint64_t seed, const struct options *o, struct shared *out)
{
    const struct rlimit cpu = {SEED_SECONDS, SEED_SECONDS + 1};
    out->failed = true;
    snprintf(out->why, sizeof out->why, "crashed");
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        setrlimit(RLIMIT_CPU, &cpu);
        if (o->quiet && !freopen("/dev/null", "w", stderr))
            _exit(3);
        seed_run(seed, o, out);
    }
    if (pid < 0) {
        perror("fork");
        exit(1);
    }
    return pid;
}

/* True: it failed. */
static bool seed_over(uint64_t seed, int status, const struct options *o, struct shared *out)
{
    if (WIFSIGNALED(status))
        snprintf(out->why, sizeof out->why, "%s",
                 WTERMSIG(status) == SIGXCPU ? "runs for ever" : strsignal(WTERMSIG(status)));
    else if (WEXITSTATUS(status) != 0)
        snprintf(out->why, sizeof out->why, "exit status %d", WEXITSTATUS(status));
    out->failed |= status != 0;
    if (out->failed && !o->quiet)
        printf("FAILED seed 0x%llx: %s\n       again: make sim SEED=0x%llx\n",
               (unsigned long long)seed, out->why, (unsigned long long)seed);
    return out->failed;
}

struct totals {
    uint64_t run, failed, first_failed;
    char why[1024];
};

/* Runs the seeds of `list`, or `o->seeds` from `o->first`; with a plant: until one fails. */
static struct totals seeds_run(const struct options *o, const uint64_t *list)
{
    struct totals t = {0};
    pid_t pids[JOBS_MAX] = {0};
    uint64_t seeds[JOBS_MAX], next = 0, running = 0;
    int status;
    while (running || next < o->seeds) {
        bool stop = t.failed && (o->plant || (!o->keep_going && t.failed >= 10));
        if (stop)
            next = o->seeds;
        for (uint64_t j = 0; j < o->jobs && next < o->seeds; j++)
            if (!pids[j]) {
                seeds[j] = list ? list[next] : o->first + next;
                next++;
                pids[j] = seed_start(seeds[j], o, shared[j]);
                running++;
            }
        if (!running)
            break;
        pid_t pid = wait(&status);
        for (uint64_t j = 0; j < o->jobs; j++) {
            if (pids[j] != pid)
                continue;
            pids[j] = 0;
            running--;
            t.run++;
            if (seed_over(seeds[j], status, o, shared[j]) && t.failed++ == 0) {
                t.first_failed = seeds[j];
                snprintf(t.why, sizeof t.why, "%s", shared[j]->why);
            }
        }
    }
    return t;
}

/* The same seed must give the same run, to the last step. */
static struct totals twice_run(const struct options *o)
{
    struct totals t = {0};
    int status;
    for (uint64_t i = 0; i < o->seeds; i++) {
        uint64_t hash[2];
        for (int k = 0; k < 2; k++) {
            waitpid(seed_start(o->first + i, o, shared[0]), &status, 0);
            hash[k] = shared[0]->hash;
        }
        t.run++;
        if (hash[0] != hash[1]) {
            t.failed++;
            printf("FAILED seed 0x%llx: two runs differ\n", (unsigned long long)(o->first + i));
        }
    }
    return t;
}

static void report(const struct options *o, const struct totals *t, double seconds)
{
    static struct world_stats s;
    for (uint64_t j = 0; j < o->jobs; j++)
        stats_add(&s, &shared[j]->stats);
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
        for (uint64_t j = 1; j < o->jobs; j++)
            sites_merge(&shared[0]->sites, &shared[j]->sites);
        sites_print(&shared[0]->sites, stdout);
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

static uint64_t *options_read(int argc, char **argv, struct options *o)
{
    static const struct option options[] = {
        {"seeds", 1, NULL, 'n'},  {"first", 1, NULL, 'f'}, {"jobs", 1, NULL, 'j'},
        {"seed", 1, NULL, 's'},   {"trace", 0, NULL, 't'}, {"steps", 0, NULL, 'T'},
        {"list", 1, NULL, 'l'},   {"twice", 0, NULL, '2'}, {"plant", 1, NULL, 'p'},
        {"plants", 0, NULL, 'P'}, {"sites", 0, NULL, 'S'}, {"all", 0, NULL, 'a'},
        {NULL, 0, NULL, 0}};
    uint64_t *list = NULL;
    int c;
    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (c) {
        case 'n': o->seeds = strtoull(optarg, NULL, 0); break;
        case 'f': o->first = strtoull(optarg, NULL, 0); break;
        case 'j': o->jobs = strtoull(optarg, NULL, 0); break;
        case 's':
            o->first = strtoull(optarg, NULL, 0);
            o->seeds = 1;
            break;
        case 't': o->trace = true; break;
        case 'T': o->trace = o->steps = true; break;
        case 'l': list = list_read(optarg, &o->seeds); break;
        case '2': o->twice = true; break;
        case 'p':
            o->plant = plant_find(optarg);
            o->quiet = true;
            break;
        case 'P':
            for (int i = 1; i < PLANT_COUNT; i++)
                puts(plant_names[i]);
            exit(0);
        case 'S': o->sites = true; break;
        case 'a': o->keep_going = true; break;
        default: fputs(usage, stderr); exit(2);
        }
    }
    if (optind < argc || o->jobs < 1 || o->jobs > JOBS_MAX) {
        fputs(usage, stderr);
        exit(2);
    }
    return list;
}

int main(int argc, char **argv)
{
    struct options o = {.seeds = 100, .first = 1, .jobs = 1};
    struct timespec a, b;
    uint64_t *list = options_read(argc, argv, &o);
    plant_now = o.plant;
    for (uint64_t j = 0; j < o.jobs; j++)
        shared[j] = mmap(NULL, sizeof *shared[j], PROT_READ | PROT_WRITE,
                         MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    setvbuf(stdout, NULL, _IOLBF, 0);
    clock_gettime(CLOCK_MONOTONIC, &a);
    struct totals t = o.twice ? twice_run(&o) : seeds_run(&o, list);
    clock_gettime(CLOCK_MONOTONIC, &b);
    free(list);
    if (o.plant)
        return plant_report(&o, &t);
    report(&o, &t, (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) / 1e9);
    return t.failed != 0;
}
