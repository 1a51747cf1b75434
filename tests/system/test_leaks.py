#!/usr/bin/env python3
# time-limit: 400
# builds: release, asan
"""Ten thousand sessions: memory stays where it was, and under AddressSanitizer the end is clean.
Idle sessions cost what they may. The sanitized programs do a tenth of it.
"""
import json
import socket

from lib import harness
from lib.gateway import Gateway
from lib.harness import case, expect, expect_equal, main, program, run, until
from lib.sink import Sink

SCALE = 10 if harness.SANITIZED else 1
# A shard's receive buffers, 16 MiB, become resident one after the other; all are after some 70,000
# sessions, and then nothing grows any more.
GROWTH_MAX = 16 * 1024 * 1024
IDLE_SESSION_MAX = 24 * 1024  # resident: heap of the session and what is rounded up to pages


def resident(pid):
    """Resident memory that is the process's own, in bytes."""
    total = 0
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        for line in file:
            if line.startswith(("Private_Dirty:", "Private_Clean:")):
                total += int(line.split()[1]) * 1024
    return total


def load(g, port, sessions, *options):
    done = run([program("hikyaku-bench"), "load", "--to", f"{g.host}:{g.port[port]}", "--sessions",
                "20", "--messages", str(sessions), "--size", "1KiB", "--json", *options],
               seconds=300, status=None)
    result = json.loads(done.stdout)
    expect_equal(result["acked"], sessions, f"acknowledged: {done.stdout[-300:]}")


def start(folder):
    sink = Sink(folder, maildir=False)
    g = Gateway(folder, sink, shards=1)
    g.config["log"]["level"] = "warning"
    g.config["log"].pop("tracking")
    return sink, g.start()


@case("10,000 sessions in clear and in TLS with AUTH: memory is flat, the end is clean", 360)
def many_sessions(folder):
    _, g = start(folder)
    login = ("--tls", "starttls", "--auth", "alice:wonder land")
    load(g, "relay", 2000 // SCALE)
    load(g, "submission", 500 // SCALE, *login)
    before = resident(g.process.pid)
    load(g, "relay", 8000 // SCALE)
    load(g, "submission", 2000 // SCALE, *login)
    until(lambda: g.queued() == 0, "all is delivered", 30)
    grown = resident(g.process.pid) - before
    if not harness.SANITIZED:  # there, what is freed is kept for a while on purpose
        expect(grown < GROWTH_MAX, "grown by", grown // 1024, "KiB")
    print(f"# grown by {grown // 1024} KiB", flush=True)
    g.stop()  # LeakSanitizer would make this exit status not 0
    expect("Sanitizer" not in g.process.log(1000), g.process.log(30))


@case("sessions broken off at every stage leave nothing behind", 100)
def broken_sessions(folder):
    _, g = start(folder)
    pieces = [b"", b"EHLO x", b"EHLO x\r\n", b"EHLO x\r\nMAIL FROM:<a@x.test>\r\n",
              b"EHLO x\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<b@x.test>\r\nDATA\r\n",
              b"EHLO x\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<b@x.test>\r\nDATA\r\n" + b"x" * 70000,
              b"EHLO x\r\nSTARTTLS\r\n", b"EHLO x\r\nSTARTTLS\r\n\x16\x03\x01\x00\x05\x01",
              b"x" * 5000]
    for _ in range(100 // SCALE):
        open_now = []
        for piece in pieces:
            s = socket.create_connection((g.host, g.port["relay"]), timeout=60)
            s.sendall(piece)
            open_now.append(s)
        for s in open_now:
            s.close()
    until(lambda: g.metrics()["hikyaku_sessions"] == 0, "no session is left", 20)
    expect_equal(g.queued(), 0, "queued")
    g.stop()


@case("an idle session in TLS with AUTH costs less than 24 KiB", 100)
def idle_sessions(folder):
    if harness.SANITIZED:
        raise harness.Skip("not measured under a sanitizer")
    _, g = start(folder)
    load(g, "submission", 200, "--tls", "starttls", "--auth", "alice:wonder land")
    done = run([program("hikyaku-bench"), "idle", "--to", f"{g.host}:{g.port['submission']}",
                "--sessions", "900", "--tls", "starttls", "--auth", "alice:wonder land", "--hold",
                "2", "--json", "--server-pid", str(g.process.pid)], seconds=80)
    result = json.loads(done.stdout)
    expect_equal(result["stayed"], 900, done.stdout)
    print("# " + done.stdout.strip()[:400], flush=True)
    expect(result["pss_per_session"] < IDLE_SESSION_MAX, "bytes a session", result)
    g.stop()


if __name__ == "__main__":
    main("leaks")
