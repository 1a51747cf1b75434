#!/usr/bin/env python3
# time-limit: 420
# waits: its minutes cost no processor time
"""Clients that say nothing, say it slowly, or do not read: each hears 421 4.4.2 or is closed when
its time is over, not before, and a client that keeps to the limits is served meanwhile.
"""
import socket
import threading
import time

from lib.dialog import Line, ask_unread
from lib.gateway import Gateway
from lib.harness import case, expect_equal, main, result, until
from lib.sink import Sink

IDLE_S, RATE_WINDOW_S = 300, 60
LATE_S = 40  # how much later than its time something may be seen to happen on a busy machine


def greeted(g):
    line = Line(g.host, g.port["relay"], timeout=30)
    line.wanted(220)
    line.ask("EHLO client.test", 250)
    return line


def in_text(g):
    line = greeted(g)
    line.send(b"MAIL FROM:<a@sender.test>\r\nRCPT TO:<b@x.test>\r\nDATA\r\n")
    for code in (250, 250, 354):
        line.wanted(code)
    return line


def last_words(line, give, every_s, at_most_s):
    """(seconds until it is closed, what it heard); `give` is sent every so often."""
    began, heard = time.monotonic(), b""
    line.sock.settimeout(every_s)
    while time.monotonic() - began < at_most_s:
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
    return time.monotonic() - began, heard


def silent(g):
    return last_words(greeted(g), b"", 5, IDLE_S + 2 * LATE_S)


def silent_in_text(g):
    return last_words(in_text(g), b"", 5, IDLE_S + 2 * LATE_S)


def slow_command(g):
    """A byte every five seconds never ends its line."""
    return last_words(greeted(g), b"N", 5, IDLE_S + 2 * LATE_S)


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


# Between one and two windows: a window begins with the text, and is looked at once a minute.
ROWS = {silent: (IDLE_S, IDLE_S, b"421 4.4.2"), silent_in_text: (RATE_WINDOW_S,
        2 * RATE_WINDOW_S, b"421 4.4.2"), slow_command: (IDLE_S, IDLE_S, b"421 4.4.2"),
        slow_text: (RATE_WINDOW_S, 2 * RATE_WINDOW_S, b"421 4.4.2"), deaf: (IDLE_S, IDLE_S, b"")}


@case("F47 slow and silent clients", IDLE_S + 100)
def slow_clients(folder):
    sink = Sink(folder)
    g = Gateway(folder, sink, shards=1)
    g.receive("relay")["max_recipients"] = 20_000
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
    patient = in_text(g)
    for _ in range(3 * RATE_WINDOW_S + 10):
        patient.send((b"z" * 98 + b"\r\n") * 8)
        time.sleep(1)
    patient.send(b".\r\n")
    patient.wanted(250)
    sink.wait(1)
    for thread in threads:
        thread.join()
    for row, (least, most, words) in ROWS.items():
        seconds, heard = got[row]
        good = least - 2 <= seconds <= most + LATE_S and heard.startswith(words)
        result(f"F47 {row.__name__}", None if good else f"after {seconds:.1f} s: {heard}")
    patient.close()
    until(lambda: g.metrics()["hikyaku_sessions"] == 0, "all sessions are over")
    g.wait_empty()
    expect_equal(len(sink.records()), 1, "one message")
    g.stop()


if __name__ == "__main__":
    main("timeouts")
