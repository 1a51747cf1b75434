#!/usr/bin/env python3
# time-limit: 120
# builds: asan
# waits: half a minute of silence
"""Clients that say nothing, say it slowly, or do not read: each hears 421 4.4.2 or is closed when
its time is over, not before, and a client that keeps to the limits is served meanwhile. That the
time is five minutes where none is configured: tests/sim/test_session_idle.c, by its own clock.
"""
import socket
import threading
import time

from lib.dialog import Line, ask_unread
from lib.gateway import Gateway
from lib.harness import case, expect_equal, main, patient, result, until
from lib.sink import Sink

IDLE_S = RATE_WINDOW_S = 10  # idle_timeout; the window is no longer than that
LATE_S = patient(10)  # how much later than its time something may be seen on a busy machine


def greeted(g):
    line = Line(g.host, g.port["relay"], timeout=30)
    line.wanted(220)
    line.since = time.monotonic()
    line.ask("EHLO client.test", 250)
    return line


def in_text(g):
    line = greeted(g)
    line.since = time.monotonic()
    line.send(b"MAIL FROM:<a@sender.test>\r\nRCPT TO:<b@x.test>\r\nDATA\r\n")
    for code in (250, 250, 354):
        line.wanted(code)
    return line


def last_words(line, give, every_s, at_most_s):
    """(seconds until it is closed, what it heard); `give` is sent every so often. Counted from
    before its last command, so that it is never less than what the gateway counts."""
    heard = b""
    line.sock.settimeout(every_s)
    while time.monotonic() - line.since < at_most_s:
        try:
            if give:
                line.sock.sendall(give)
            got = line.sock.recv(4096)
            if not got:
                break
            heard += got
        except TimeoutError:
            continue
        except OSError:
            break
    return time.monotonic() - line.since, heard


def silent(g):
    return last_words(greeted(g), b"", 1, IDLE_S + 2 * LATE_S)


def silent_in_text(g):
    return last_words(in_text(g), b"", 1, IDLE_S + 2 * LATE_S)


def slow_command(g):
    """A byte every second never ends its line."""
    return last_words(greeted(g), b"N", 1, IDLE_S + 2 * LATE_S)


def slow_text(g):
    """A line every second, a tenth of what is asked for."""
    return last_words(in_text(g), b"y" * 48 + b"\r\n", 1, IDLE_S + 2 * LATE_S)


def deaf(g):
    """Asks for more replies than anybody keeps, and reads none; then nothing more can be sent."""
    line = greeted(g)
    line.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    ask_unread(line)
    began = time.monotonic() - 2
    while time.monotonic() - began < IDLE_S + 2 * LATE_S:
        time.sleep(1)
        if line.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) or \
                g.metrics()["hikyaku_sessions"] == 0:
            break
    return time.monotonic() - began, b""


# Between one and two windows: a window begins with the text, and is looked at once in a window.
ROWS = {silent: (IDLE_S, IDLE_S, b"421 4.4.2"), silent_in_text: (RATE_WINDOW_S,
        2 * RATE_WINDOW_S, b"421 4.4.2"), slow_command: (IDLE_S, IDLE_S, b"421 4.4.2"),
        slow_text: (RATE_WINDOW_S, 2 * RATE_WINDOW_S, b"421 4.4.2"),
        deaf: (IDLE_S / 2, IDLE_S, b"")}  # its last commands lie in buffers, not read


@case("F47 slow and silent clients", 100)
def slow_clients(folder):
    sink = Sink(folder)
    g = Gateway(folder, sink, shards=1)
    g.receive("relay").update(max_recipients=20_000, idle_timeout=f"{IDLE_S}s")
    g.start()
    got = {}

    def watch(row):
        try:
            got[row] = row(g)
        except Exception as error:  # told below, by its row
            got[row] = (0, repr(error).encode())

    threads = [threading.Thread(target=watch, args=(row,)) for row in ROWS]
    for thread in threads:
        thread.start()
    # One that is slow, but not too slow, keeps its session through three windows.
    slow, began = in_text(g), time.monotonic()
    while time.monotonic() - began < 3 * RATE_WINDOW_S + 2:
        slow.send((b"z" * 98 + b"\r\n") * 4)
        time.sleep(0.1)
    slow.send(b".\r\n")
    slow.wanted(250)
    sink.wait(1)
    for thread in threads:
        thread.join()
    for row, (least, most, words) in ROWS.items():
        seconds, heard = got[row]
        good = least - 0.1 <= seconds <= most + LATE_S and heard.startswith(words)
        result(f"F47 {row.__name__}", None if good else f"after {seconds:.1f} s: {heard}")
    slow.close()
    until(lambda: g.metrics()["hikyaku_sessions"] == 0, "all sessions are over")
    g.wait_empty()
    expect_equal(len(sink.records()), 1, "one message")
    g.stop()


if __name__ == "__main__":
    main("timeouts")
