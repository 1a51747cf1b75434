/*
 * tests/sim/run.c - runs of the simulation, each in a process of its own.
 *
 * Owns:     the children; what they leave behind.
 * Runs on:  the main thread; one child for each of `jobs` at a time.
 * Contract: a run that fails, crashes or hangs is told with the one command that repeats it.
 * Failure:  no process can be made: exit status 1.
 * Bounds:   RUN_SECONDS of processor time for each run.
 * Tests:    tests/system/test_sim.py
 */
#include "tests/sim/run.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/sim/places.h"

#define RUN_SECONDS 60

/* ---- places ---- */

extern const struct sim_place __start_sim_places[], __stop_sim_places[]; /* given by the linker */

uint32_t run_places(const struct sim_place **places)
{
    *places = __start_sim_places;
    return (uint32_t)(__stop_sim_places - __start_sim_places);
}

static void calls_note(struct run_result *out, const struct sim *sim)
{
    const struct sim_site *sites;
    uint32_t count = sim_sites(sim, &sites);
    memset(out->calls, 0, sizeof out->calls);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t at =
            sites[i].place ? (uint64_t)(sites[i].place - __start_sim_places) : RUN_PLACES_MAX;
        if (at < RUN_PLACES_MAX)
            out->calls[at] = (uint32_t)sites[i].calls;
    }
}

/* ---- one run ---- */

void world_stats_add(struct world_stats *to, const struct world_stats *from)
{
    uint64_t *t = (uint64_t *)to;
    const uint64_t *f = (const uint64_t *)from;
    for (size_t i = 0; i < sizeof *to / sizeof *t; i++)
        t[i] += f[i];
}

/* In the child. */
static void job_run(const struct run_job *job, const struct run_options *o, struct run_result *out)
{
    struct world *w = calloc(1, sizeof *w);
    struct rusage use;
    w->seed = job->seed;
    w->bare = job->bare;
    memcpy(w->fail_at, job->at, sizeof w->fail_at);
    w->trace = o->trace ? stdout : NULL;
    w->trace_steps = o->steps;
    out->failed = !world_run(w);
    out->hash = sim_trace_hash(w->sim);
    out->hit = sim_host_failed_at(w->gateway.host);
    getrusage(RUSAGE_SELF, &use);
    w->stats.cpu_ns = (uint64_t)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) * NS_PER_S +
                      (uint64_t)(use.ru_utime.tv_usec + use.ru_stime.tv_usec) * NS_PER_US;
    snprintf(out->why, sizeof out->why, "%s", w->why);
    world_stats_add(&out->stats, &w->stats);
    sites_add(&out->sites, w->sim);
    calls_note(out, w->sim);
    if (o->trace)
        swarm_print(&w->swarm, stdout);
    fflush(NULL);
    _exit(0);
}

static pid_t job_start(const struct run_job *job, const struct run_options *o,
                       struct run_result *out)
{
    const struct rlimit cpu = {RUN_SECONDS, RUN_SECONDS + 1};
    out->failed = true;
    out->hit = false;
    snprintf(out->why, sizeof out->why, "crashed");
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        setrlimit(RLIMIT_CPU, &cpu);
        if (o->quiet && !freopen("/dev/null", "w", stderr))
            _exit(3);
        job_run(job, o, out);
    }
    if (pid < 0) {
        perror("fork");
        exit(1);
    }
    return pid;
}

static void told(const struct run_job *job, const struct run_result *r)
{
    char at[512] = "";
    size_t len = 0;
    for (int i = 0; i < 2; i++)
        if (job->at[i].place)
            len += (size_t)snprintf(at + len, sizeof at - len, "%s%s:%u:%s:%llu",
                                    len ? "," : " AT=", job->at[i].place->file,
                                    job->at[i].place->line, sim_fault_name(job->at[i].fault),
                                    (unsigned long long)job->at[i].nth);
    if (job->bare)
        snprintf(at + len, sizeof at - len, " BARE=1");
    printf("FAILED seed 0x%llx: %s\n       again: make sim SEED=0x%llx%s\n",
           (unsigned long long)job->seed, r->why, (unsigned long long)job->seed, at);
}

static void job_over(const struct run_job *job, int status, const struct run_options *o,
                     struct run_result *out)
{
    if (WIFSIGNALED(status))
        snprintf(out->why, sizeof out->why, "%s",
                 WTERMSIG(status) == SIGXCPU ? "runs for ever" : strsignal(WTERMSIG(status)));
    else if (WEXITSTATUS(status) != 0)
        snprintf(out->why, sizeof out->why, "exit status %d", WEXITSTATUS(status));
    out->failed |= status != 0;
    if (out->failed && !o->quiet)
        told(job, out);
}

/* ---- all of them ---- */

void run_results_make(struct run_results *r, uint64_t jobs)
{
    for (uint64_t j = 0; j < jobs; j++)
        r->slots[j] = mmap(NULL, sizeof *r->slots[j], PROT_READ | PROT_WRITE,
                           MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

void run_all(const struct run_options *o, struct run_results *results, const struct run_user *user)
{
    pid_t pids[RUN_JOBS_MAX] = {0};
    struct run_job jobs[RUN_JOBS_MAX];
    uint64_t running = 0;
    bool more = true;
    int status;
    for (;;) {
        for (uint64_t j = 0; j < o->jobs && more; j++) {
            if (pids[j] || !(more = user->next(user->arg, &jobs[j])))
                continue;
            pids[j] = job_start(&jobs[j], o, results->slots[j]);
            running++;
        }
        if (!running)
            return;
        pid_t pid = wait(&status);
        for (uint64_t j = 0; j < o->jobs; j++) {
            if (pids[j] != pid)
                continue;
            pids[j] = 0;
            running--;
            job_over(&jobs[j], status, o, results->slots[j]);
            user->over(user->arg, &jobs[j], results->slots[j]);
        }
    }
}
