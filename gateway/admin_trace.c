/*
 * gateway/admin_trace.c - /api/v1/trace: a search of the tracking log.
 *
 * Owns:     the search under way: its thread, its words, what it found.
 * Runs on:  the control thread; the search itself on a thread of its own, since it reads files.
 * Contract: one search at a time. The thread touches nothing but its struct, and says on an eventfd
 *           that it has ended.
 * Failure:  another one is under way: 409; no tracking log: 404; a wrong expression: 400; too slow:
 *           503.
 * Bounds:   TRACE_LIMIT_MAX messages an answer, TRACE_TIME_MAX_NS a search.
 * Tests:    tests/system/test_page.py
 */
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "gateway/admin_internal.h"
#include "gateway/tracking_find.h"

#define TRACE_LIMIT_DEFAULT 100u
#define TRACE_LIMIT_MAX     1000u
#define TRACE_TIME_MAX_NS   (60 * NS_PER_S)

struct admin_search {
    struct admin *admin;
    struct admin_call *call;
    struct io_op poll;
    struct timer timer;
    bool late;
    pthread_t thread;
    int ended_fd;
    atomic_bool stop;
    struct tracking_search search;
    char *path, *expr;
    /* by the thread */
    enum tracking_found found;
    struct why why;
    char *text;
    size_t len;
};

static void search_free(struct admin_search *s)
{
    if (s->ended_fd >= 0)
        close(s->ended_fd);
    free(s->path);
    free(s->expr);
    free(s->text);
    free(s);
}

static void *search_main(void *arg)
{
    struct admin_search *s = arg;
    const uint64_t one = 1;
    FILE *f = open_memstream(&s->text, &s->len);
    why_set(&s->why, 0, "", "out of memory");
    s->found = f ? tracking_find(&s->search, f, &s->why) : TRACKING_FAILED;
    if (f && fclose(f) != 0 && s->found == TRACKING_FOUND)
        s->found = TRACKING_FAILED;
    if (write(s->ended_fd, &one, sizeof one) != sizeof one)
        abort(); /* a counter of one can always be written */
    return NULL;
}

static void search_answer(struct admin_search *s)
{
    struct admin_call *call = s->call;
    call->waiting = 0;
    if (!call->connection) {
        admin_call_free(call);
    } else if (s->found == TRACKING_FOUND) {
        admin_answer(call, 200, "application/json", s->text, s->len);
        s->text = NULL; /* the answer's now */
    } else if (s->late) {
        admin_error(call, 503, "this took a minute and was stopped: give an exact value or a time");
    } else {
        admin_error_why(call, s->found == TRACKING_WRONG ? 400 : 500, &s->why);
    }
}

static void search_late(struct timer *t)
{
    struct admin_search *s = container_of(t, struct admin_search, timer);
    s->late = true;
    atomic_store_explicit(&s->stop, true, memory_order_relaxed);
}

static void search_ended(struct io_op *op, int32_t res, uint32_t flags)
{
    struct admin_search *s = container_of(op, struct admin_search, poll);
    (void)res;
    (void)flags;
    if (s->admin->closing)
        return; /* admin_trace_close() does the rest */
    pthread_join(s->thread, NULL);
    io_timer_clear(control_io(s->admin->control), &s->timer);
    s->admin->search = NULL;
    search_answer(s);
    search_free(s);
}

static struct admin_search *search_create(struct admin_call *call, const char *path,
                                          const char *expr)
{
    struct admin_search *s = calloc(1, sizeof *s);
    const char *limit = admin_arg(call, "limit");
    unsigned long n = limit ? strtoul(limit, NULL, 10) : TRACE_LIMIT_DEFAULT;
    if (!s)
        return NULL;
    s->admin = call->admin;
    s->call = call;
    s->path = strdup(path);
    s->expr = strdup(expr);
    s->ended_fd = eventfd(0, EFD_CLOEXEC);
    s->search = (struct tracking_search){
        .path = s->path,
        .expr = s->expr,
        .limit = n > TRACE_LIMIT_MAX ? TRACE_LIMIT_MAX : (uint32_t)n,
        .json = true,
        .stop = &s->stop,
    };
    if (s->path && s->expr && s->ended_fd >= 0 &&
        pthread_create(&s->thread, NULL, search_main, s) == 0)
        return s;
    search_free(s);
    return NULL;
}

void admin_trace(struct admin_call *call)
{
    struct control *c = call->admin->control;
    const char *path = control_generation(c)->config->log.tracking;
    const char *expr = admin_arg(call, "expr");
    if (!path) {
        admin_error(call, 404, "this gateway keeps no tracking log: set log.tracking");
    } else if (!expr) {
        admin_error(call, 400, "give expr=, such as recipient=a@example.com");
    } else if (call->admin->search) {
        admin_error(call, 409, "another search is under way, try again when it has ended");
    } else if (!(call->admin->search = search_create(call, path, expr))) {
        admin_error(call, 500, "no thread or no memory for a search");
    } else {
        struct admin_search *s = call->admin->search;
        call->waiting = 1;
        s->poll.done = search_ended;
        s->timer.fire = search_late;
        io_poll_raw(control_io(c), &s->poll, s->ended_fd, POLLIN);
        io_timer_set(control_io(c), &s->timer, io_now_ns(control_io(c)) + TRACE_TIME_MAX_NS);
    }
}

void admin_trace_close(struct admin *a)
{
    struct admin_search *s = a->search;
    struct io *io = control_io(a->control);
    if (!s)
        return;
    atomic_store_explicit(&s->stop, true, memory_order_relaxed);
    pthread_join(s->thread, NULL);
    io_timer_clear(io, &s->timer);
    io_cancel(io, &s->poll);
    while (io_op_running(&s->poll))
        io_turn(io, true);
    a->search = NULL;
    search_answer(s);
    search_free(s);
}
