/*
 * gateway/admin.c - the operator's HTTP: two listeners of libmicrohttpd on the control thread's
 * loop.
 *
 * Owns:     the listeners, the calls under way.
 * Runs on:  the control thread.
 * Contract: /api needs the bearer token on the TCP address; the UNIX socket is guarded by its
 *           file mode. Shards are asked by messages; a call that waits is suspended, so that
 *           nothing blocks.
 * Failure:  an address or a socket that cannot be opened: one line at start.
 * Bounds:   ADMIN_CONNECTIONS_MAX connections, ADMIN_IDLE_S each.
 * Tests:    tests/system (admin)
 */
#include "gateway/admin_internal.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define ADMIN_CONNECTIONS_MAX 64u
#define ADMIN_IDLE_S          60u

/* What the page may do in a browser, should text of strangers ever become markup in it: nothing but
 * to ask this gateway. */
#define PAGE_POLICY                                                                 \
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; " \
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

/* ---- answers ---- */

static enum MHD_Result call_send(struct admin_call *call)
{
    struct MHD_Response *r =
        MHD_create_response_from_buffer(call->body_len, call->body, MHD_RESPMEM_MUST_COPY);
    if (!r)
        return MHD_NO;
    MHD_add_response_header(r, "Content-Type", call->type);
    MHD_add_response_header(r, "Cache-Control", "no-store");
    MHD_add_response_header(r, "X-Content-Type-Options", "nosniff");
    MHD_add_response_header(r, "Content-Security-Policy", PAGE_POLICY);
    if (call->status == 401)
        MHD_add_response_header(r, "WWW-Authenticate", "Bearer");
    enum MHD_Result did = MHD_queue_response(call->connection, call->status, r);
    MHD_destroy_response(r);
    return did;
}

static void door_run(struct admin_door *d);

void admin_answer(struct admin_call *call, unsigned status, const char *type, char *body,
                  size_t len)
{
    call->status = status;
    call->type = type;
    call->body = body;
    call->body_len = len;
    call->answered = true;
    if (call->suspended) {
        call->suspended = false;
        MHD_resume_connection(call->connection);
        door_run(call->trusted ? &call->admin->local : &call->admin->tcp);
    }
}

void admin_error(struct admin_call *call, unsigned status, const char *text)
{
    char *body = NULL;
    int len = asprintf(&body, "{\"error\":\"%s\"}\n", text);
    admin_answer(call, status, "application/json", body, len < 0 ? 0 : (size_t)len);
}

const char *admin_arg(const struct admin_call *call, const char *name)
{
    return MHD_lookup_connection_value(call->connection, MHD_GET_ARGUMENT_KIND, name);
}

/* ---- requests ---- */

/* Compares in a time that does not tell how much was right. */
static bool token_is(const char *want, const char *got)
{
    size_t n = strlen(want), m = strlen(got);
    unsigned char diff = n != m;
    for (size_t i = 0; i < n; i++)
        diff |= (unsigned char)(want[i] ^ got[m ? i % m : 0]);
    return diff == 0;
}

static bool call_allowed(const struct admin_call *call)
{
    static const char bearer[] = "Bearer ";
    const char *auth =
        MHD_lookup_connection_value(call->connection, MHD_HEADER_KIND, "Authorization");
    if (call->trusted || strncmp(call->path, "/api/", 5) != 0)
        return true;
    return call->admin->token && auth && strncmp(auth, bearer, sizeof bearer - 1) == 0 &&
           token_is(call->admin->token, auth + sizeof bearer - 1);
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *connection, const char *path,
                                  const char *method, const char *version, const char *upload,
                                  size_t *upload_len, void **state)
{
    struct admin_door *d = arg;
    struct admin_call *call = *state;
    (void)version;
    (void)upload;
    if (!call) { /* headers are there, the body is not yet */
        call = calloc(1, sizeof *call);
        if (!call)
            return MHD_NO;
        call->admin = d->admin;
        call->connection = connection;
        call->trusted = d->trusted;
        list_push_back(&d->admin->calls, &call->link);
        *state = call;
        return MHD_YES;
    }
    if (*upload_len) { /* bodies mean nothing here */
        *upload_len = 0;
        return MHD_YES;
    }
    if (!call->answered) {
        call->method = method;
        call->path = path;
        if (!call_allowed(call))
            admin_error(call, 401, "give the token of admin.token_file as bearer token");
        else
            admin_dispatch(call);
        if (!call->answered) {
            call->suspended = true;
            MHD_suspend_connection(connection);
            return MHD_YES;
        }
    }
    return call_send(call);
}

static void on_completed(void *arg, struct MHD_Connection *connection, void **state,
                         enum MHD_RequestTerminationCode code)
{
    struct admin_call *call = *state;
    (void)arg;
    (void)connection;
    (void)code;
    if (!call)
        return;
    list_remove(&call->link);
    admin_call_free(call);
    *state = NULL;
}

/* ---- listeners ---- */

static int door_epoll(const struct admin_door *d)
{
    return MHD_get_daemon_info(d->daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
}

static void door_run(struct admin_door *d)
{
    MHD_UNSIGNED_LONG_LONG ms;
    struct io *io = control_io(d->admin->control);
    MHD_run(d->daemon);
    if (MHD_get_timeout(d->daemon, &ms) == MHD_YES)
        io_timer_set(io, &d->timer, io_now_ns(io) + (uint64_t)ms * NS_PER_MS);
    else
        io_timer_clear(io, &d->timer);
}

static void door_ready(struct io_op *op, int32_t res, uint32_t flags)
{
    struct admin_door *d = container_of(op, struct admin_door, poll);
    (void)flags;
    if (res == -ECANCELED || d->admin->closing)
        return;
    door_run(d);
    io_poll_raw(control_io(d->admin->control), &d->poll, door_epoll(d), POLLIN);
}

static void door_timer(struct timer *t)
{
    door_run(container_of(t, struct admin_door, timer));
}

static bool door_open(struct admin *a, struct admin_door *d, int fd, const struct io_addr *addr)
{
    const unsigned flags = MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME |
                           (addr && addr->sa.sa_family == AF_INET6 ? MHD_USE_IPv6 : 0);
    const struct MHD_OptionItem listen[] = {
        {fd >= 0 ? MHD_OPTION_LISTEN_SOCKET : MHD_OPTION_END, fd, NULL}, {MHD_OPTION_END, 0, NULL}};
    const struct MHD_OptionItem address[] = {
        {MHD_OPTION_SOCK_ADDR, 0, addr ? (void *)(uintptr_t)&addr->sa : NULL},
        {MHD_OPTION_END, 0, NULL}};
    d->admin = a;
    d->daemon = MHD_start_daemon(
        flags, addr ? io_addr_port(addr) : 0, NULL, NULL, on_request, d, MHD_OPTION_ARRAY,
        addr ? address : listen, MHD_OPTION_NOTIFY_COMPLETED, on_completed, d,
        MHD_OPTION_CONNECTION_LIMIT, ADMIN_CONNECTIONS_MAX, MHD_OPTION_CONNECTION_TIMEOUT,
        ADMIN_IDLE_S, MHD_OPTION_LISTENING_ADDRESS_REUSE, 1u, MHD_OPTION_END);
    if (!d->daemon)
        return false;
    d->poll.done = door_ready;
    d->timer.fire = door_timer;
    io_poll_raw(control_io(a->control), &d->poll, door_epoll(d), POLLIN);
    return true;
}

static void door_close(struct admin_door *d)
{
    struct io *io;
    if (!d->daemon)
        return;
    io = control_io(d->admin->control);
    io_timer_clear(io, &d->timer);
    io_cancel(io, &d->poll);
    while (io_op_running(&d->poll))
        io_turn(io, true);
    MHD_stop_daemon(d->daemon);
    d->daemon = NULL;
}

/* The socket's directory decides who may reach it; the socket itself is for its owner and group. */
static int local_listen(const char *path, struct why *why)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    int fd = strlen(path) < sizeof sa.sun_path
                 ? socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)
                 : -1;
    memccpy(sa.sun_path, path, 0, sizeof sa.sun_path - 1);
    unlink(path); /* of a gateway that is gone: the spool's lock keeps a living one apart */
    mode_t mask = umask(0117);
    bool ok = fd >= 0 && bind(fd, (struct sockaddr *)&sa, sizeof sa) == 0 && listen(fd, 16) == 0;
    int saved = errno;
    umask(mask);
    if (ok)
        return fd;
    why_set(why, 451, "4.3.0", "cannot open the admin socket %s: %s", path,
            fd < 0 ? "path too long" : strerror(saved));
    if (fd >= 0)
        close(fd);
    return -1;
}

static bool tcp_open(struct admin *a, const struct io_addr *addr, struct why *why)
{
    char text[IO_ADDR_TEXT_MAX];
    if (addr->len == 0 || (io_port_check(addr, why) && door_open(a, &a->tcp, -1, addr))) {
        a->http = *addr;
        return true;
    }
    if (why->text[0] == '\0')
        why_set(why, 451, "4.3.0", "cannot listen on %s for administration",
                io_addr_text(addr, true, text));
    return false;
}

struct admin *admin_create(struct control *c, const struct config *conf, struct why *why)
{
    struct admin *a = calloc(1, sizeof *a);
    int fd = -1;
    why_set(why, 451, "4.3.1", "out of memory");
    if (!a)
        return NULL;
    a->control = c;
    list_init(&a->calls);
    a->local.trusted = true;
    a->token = conf->admin.token ? strdup(conf->admin.token) : NULL;
    a->socket_path = conf->admin.socket ? strdup(conf->admin.socket) : NULL;
    if (a->socket_path && (fd = local_listen(a->socket_path, why)) < 0)
        goto failed;
    if (a->socket_path && !door_open(a, &a->local, fd, NULL)) {
        why_set(why, 451, "4.3.0", "cannot serve the admin socket %s", a->socket_path);
        goto failed;
    }
    why_clear(why);
    if (tcp_open(a, &conf->admin.http, why))
        return a;
failed:
    admin_destroy(a);
    return NULL;
}

bool admin_reload(struct admin *a, const struct config *conf, struct why *why)
{
    bool moved = a->http.len != conf->admin.http.len ||
                 memcmp(&a->http.sa, &conf->admin.http.sa, a->http.len) != 0;
    bool socket_moved = !a->socket_path != !conf->admin.socket ||
                        (a->socket_path && strcmp(a->socket_path, conf->admin.socket) != 0);
    if (moved || socket_moved) {
        why_set(why, 451, "4.3.0", "%s: admin.http and admin.socket take a restart", conf->path);
        return false;
    }
    free(a->token);
    a->token = conf->admin.token ? strdup(conf->admin.token) : NULL;
    return true;
}

void admin_destroy(struct admin *a)
{
    a->closing = true;
    admin_trace_close(a);
    for (struct list *l = a->calls.next, *next; l != &a->calls; l = next) {
        struct admin_call *call = container_of(l, struct admin_call, link);
        next = l->next;
        if (call->suspended)
            admin_error(call, 503, "the gateway is stopping");
    }
    door_close(&a->tcp);
    door_close(&a->local);
    if (a->socket_path)
        unlink(a->socket_path);
    free(a->socket_path);
    free(a->token);
    free(a);
}
