/*
 * tests/sim/test_crash_points.c - the spool alone on a simulated disk: every workload of up to
 * three operations, a crash before every effect on the disk, every subset of up to ten unsynced
 * sectors.
 *
 * `make test` takes one of 11 workloads of up to two operations and one of 211 of those of three,
 * with every subset of up to four; `make crash-points` all of it.
 */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "gateway/base/sanitizers.h"
#include "tests/sim/crash_kit.h"

#define BITS_ALL  10u
#define BITS_TEST 4u
#ifdef SANITIZES_ADDRESS /* the buffers of a lane are poisoned at each start: a few points only */
#define POINT_STRIDE 9u
#else
#define POINT_STRIDE 1u
#endif

struct totals {
    uint64_t works, points, whole, cuts, recoveries;
};

/* CRASH_POINTS=all, and slowly; or =n/m: part n of m of all. */
static const char *wanted(void)
{
    return getenv("CRASH_POINTS");
}

static void thin_out(struct crash_run *r)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < r->point_count; i++) {
        if (i % POINT_STRIDE == POINT_STRIDE / 2)
            r->points[kept++] = r->points[i];
        else
            sim_disk_free(r->points[i].disk);
    }
    r->point_count = kept;
}

static void run(const struct crash_work *work, uint32_t bits_max, bool deep, struct totals *t)
{
    struct crash_run *r = calloc(1, sizeof *r);
    struct sim *sim = sim_create(work->seed);

    r->work = work;
    crash_run_work(r, sim);
    if (!wanted())
        thin_out(r);
    if (!crash_run_check(r, sim, bits_max, deep && (wanted() || POINT_STRIDE == 1)))
        cr_assert_fail("%s", r->fault);
    t->works++;
    t->points += r->point_count;
    t->whole += r->whole;
    t->cuts += r->cuts;
    t->recoveries += r->recoveries;
    crash_run_free(r);
    sim_destroy(sim);
    free(r);
}

static bool is_wanted(uint32_t n, uint32_t parts)
{
    unsigned part = 0, of = parts;

    if (wanted() && sscanf(wanted(), "%u/%u", &part, &of) != 2)
        of = 1;
    return n % of == part % of;
}

/* Every workload of `count` steps, or (in `make test`) one of `parts`. */
static void enumerate(uint32_t count, uint32_t parts, struct totals *t)
{
    uint32_t all = 1, n = 0;

    for (uint32_t i = 0; i < count; i++)
        all *= CRASH_STEP_COUNT;
    for (uint32_t i = 0; i < all * 4; i++) {
        struct crash_work work = {.step_count = count,
                                  .together = i & 1,
                                  .mode = i & 2 ? LANE_WRITE_DIRECT : LANE_WRITE_BUFFERED,
                                  .seed = i};
        uint32_t rest = i / 4;
        for (uint32_t s = 0; s < count; s++, rest /= CRASH_STEP_COUNT)
            work.steps[s] = (enum crash_step)(rest % CRASH_STEP_COUNT);
        if (!crash_work_makes_sense(&work) || (work.together && count < 2) ||
            !is_wanted(n++, parts))
            continue;
        run(&work, wanted() ? BITS_ALL : BITS_TEST, wanted() || t->works % 8 == 0, t);
    }
    printf("crash points: %u operations: %llu workloads, %llu points (%llu with every subset), "
           "%llu cuts, %llu recoveries\n",
           count, (unsigned long long)t->works, (unsigned long long)t->points,
           (unsigned long long)t->whole, (unsigned long long)t->cuts,
           (unsigned long long)t->recoveries);
    fflush(stdout);
}

Test(crash_points, workloads_of_up_to_two_operations, .timeout = 6 * 3600)
{
    for (uint32_t count = 0; count <= 2; count++) {
        struct totals t = {0};
        enumerate(count, 11, &t);
        cr_assert(wanted() || t.points > 0);
    }
}

Test(crash_points, workloads_of_three_operations, .timeout = 24 * 3600)
{
    struct totals t = {0};

    enumerate(3, 211, &t);
    cr_assert(wanted() || t.points > 100 / POINT_STRIDE);
}

/*
 * Zeros go into the spare segment, the lane goes on to it from one with a message, zeros go into
 * the next one, all at any point of the message's life.
 */
Test(crash_points, a_spare_that_is_filled, .timeout = 120)
{
    static const enum crash_step ends[] = {CRASH_DELIVER_ALL, CRASH_REOPEN, CRASH_ACCEPT_LARGE};
    struct totals t = {0};

    for (uint32_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        struct crash_work work = {.steps = {CRASH_ACCEPT_SMALL, CRASH_FILL, ends[i]},
                                  .step_count = 3,
                                  .mode = LANE_WRITE_DIRECT,
                                  .fill = true,
                                  .seed = i};
        run(&work, wanted() ? BITS_ALL : BITS_TEST, false, &t);
    }
    cr_assert(t.points > 100 / POINT_STRIDE, "%llu", (unsigned long long)t.points);
}

/* Extents are written one by one, and none is synced before the end of its message. */
Test(crash_points, parts_of_bodies_without_a_sync, .timeout = 120)
{
    static const enum crash_step ends[] = {CRASH_DELIVER_ALL, CRASH_REOPEN, CRASH_ACCEPT_LARGE};
    struct totals t = {0};

    for (uint32_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        struct crash_work work = {.steps = {CRASH_ACCEPT_LARGE, CRASH_ACCEPT_LARGE, ends[i]},
                                  .step_count = 3,
                                  .together = true,
                                  .mode = LANE_WRITE_DIRECT,
                                  .parts = true,
                                  .seed = i};
        run(&work, wanted() ? BITS_ALL : BITS_TEST, false, &t);
    }
    cr_assert(t.points > 36 / POINT_STRIDE, "%llu", (unsigned long long)t.points);
}

/* ---- what was found so ---- */

/* Said while a DSN of the message waited, and told to be durable before it was written. */
Test(crash_points, a_wait_beside_a_dsn, .timeout = 60)
{
    struct crash_work work = {.steps = {CRASH_ACCEPT_SMALL, CRASH_BOUNCE, CRASH_DELIVER_ALL},
                              .step_count = 3,
                              .together = true,
                              .mode = LANE_WRITE_DIRECT};
    struct totals t = {0};

    for (work.seed = 0; work.seed < 10 / POINT_STRIDE + 1; work.seed++)
        run(&work, 1, false, &t);
}

/* ---- that it can fail ---- */

/* A disk whose syncs do nothing: what was acknowledged must be found missing. */
Test(crash_points, a_lying_disk_is_found, .timeout = 60)
{
    struct crash_work work = {.steps = {CRASH_ACCEPT_SMALL},
                              .step_count = 1,
                              .mode = LANE_WRITE_BUFFERED,
                              .seed = 1,
                              .faults = {.sync_lie = 1000}};
    struct crash_run *r = calloc(1, sizeof *r);
    struct sim *sim = sim_create(1);

    r->work = &work;
    crash_run_work(r, sim);
    cr_assert_not(crash_run_check(r, sim, 4, false));
    cr_assert_not_null(strstr(r->fault, "acknowledged and is lost"), "%s", r->fault);
}
