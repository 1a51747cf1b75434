/*
 * gateway/control_notify.c - tells the service manager how the gateway is: sd_notify(3).
 *
 * Owns:     nothing.
 * Runs on:  the control thread.
 * Contract: without NOTIFY_SOCKET nothing happens. Never waits.
 * Failure:  what cannot be sent is not sent: the manager has its own time limits.
 * Bounds:   one datagram a change of state.
 * Tests:    tests/system/test_systemd.py
 */
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "gateway/control_internal.h"
#include "gateway/io/io_inherit.h"

void control_notify(const char *state)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    size_t len = path ? strlen(path) : 0;
    if (len < 2 || len >= sizeof to.sun_path || (path[0] != '/' && path[0] != '@'))
        return;
    memcpy(to.sun_path, path, len);
    if (path[0] == '@') /* the abstract namespace */
        to.sun_path[0] = '\0';
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return;
    (void)sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&to,
                 (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len));
    close(fd);
}

void control_warn_inherited(struct control *c)
{
    const struct config *conf = c->current->config;
    char text[IO_ADDR_TEXT_MAX], line[WHY_TEXT_MAX];
    for (uint32_t i = 0; i < io_inherited_count(); i++) {
        struct io_addr addr;
        bool bound = false;
        if (!io_inherited_addr(i, &addr)) {
            snprintf(line, sizeof line, "socket %u of those handed over is no TCP listener", i);
            control_warn(c, line);
            continue;
        }
        for (uint32_t k = 0; k < conf->receive_count && !bound; k++)
            bound = config_receive_bound(&conf->receive[k], &addr);
        if (bound)
            continue;
        snprintf(line, sizeof line,
                 "clients of %s will wait in vain: a socket for it was handed over, but no receive "
                 "connector binds it",
                 io_addr_text(&addr, true, text));
        control_warn(c, line);
    }
}
