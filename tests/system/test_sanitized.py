#!/usr/bin/env python3
# time-limit: 420
# builds: release - it takes sanitized programs by itself
"""The whole gateway, built with AddressSanitizer (and UBSan, LeakSanitizer) and with
ThreadSanitizer, under load in clear and over TLS with passwords, while next hops refuse and break
off and an operator asks, holds, retries and reloads: no report, nothing lost, exit status 0.

HIKYAKU_SANITIZED_MESSAGES: how many messages instead (the share over TLS is a fifth of it).
"""
import json
import os
import subprocess
import threading

from lib import certs, harness
from lib.gateway import Gateway
from lib.harness import ROOT, Skip, case, expect, expect_equal, main, program, until
from lib.sink import Sink

OPTIONS = {
    "ASAN_OPTIONS": "detect_leaks=1:detect_stack_use_after_return=1",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
    "TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1",
}
LOADS_LIMIT_S = 200
ASKED = ["/metrics", "/api/v1/queue?limit=1000", "/api/v1/queue?filter=retries%3E0", "/readyz",
         "/api/v1/status", "/api/v1/sites", "/api/v1/connectors",
         "/api/v1/route?address=friend@example.net"]
CHANGES = ["/api/v1/queue/hold?filter=sender%7E*7@bench.test", "/api/v1/reload",
           "/api/v1/queue/release?filter=size%3E0", "/api/v1/queue/retry?filter=size%3E0",
           "/api/v1/connectors/suspend?name=out", "/api/v1/connectors/resume?name=out"]


def programs(folder, kind):
    """A build folder whose gateway is sanitized; the load generator and the next hop are not."""
    built = os.path.join(ROOT, "build", kind)
    if not os.access(os.path.join(built, "hikyaku"), os.X_OK):
        raise Skip(f"build/{kind}/hikyaku is not built")
    where = os.path.join(folder, f"{kind}.bin")
    os.mkdir(where)
    os.symlink(os.path.join(built, "hikyaku"), os.path.join(where, "hikyaku"))
    os.symlink(os.path.join(ROOT, "build", "hikyaku-bench"), os.path.join(where, "hikyaku-bench"))
    harness.BUILD, harness.SANITIZED = where, True
    for name, value in OPTIONS.items():
        os.environ.setdefault(name, value)


def load(g, port, messages, sessions, *options):
    return subprocess.Popen(
        [program("hikyaku-bench"), "load", "--to", f"{g.host}:{g.port[port]}", "--timeout", "120",
         "--messages", str(messages), "--sessions", str(sessions), "--json", *options],
        stdout=subprocess.PIPE, text=True)


def acknowledged(started):
    text, _ = started.communicate(timeout=LOADS_LIMIT_S)
    done = json.loads(text)
    expect_equal((done["errors"], done["refusals"], done["lost"]), ({}, {}, 0), "load")
    return done["acked"]


class Operator(threading.Thread):
    """Asks and changes in turn until told to stop; every answer is looked at."""

    def __init__(self, g):
        super().__init__(daemon=True)
        self.g, self.answers, self.wrong, self.done = g, 0, None, threading.Event()

    def run(self):
        turn = 0
        try:
            while not self.done.wait(0.02) and not self.wrong:
                for path in ASKED:
                    self.look(path, self.g.request("GET", path, unix=turn % 2 == 1))
                path = CHANGES[turn % len(CHANGES)]
                self.look(path, self.g.post(path))
                if turn % 10 == 9:
                    self.g.hangup()
                turn += 1
        except OSError as error:
            self.wrong = f"the operator: {error!r}"

    def look(self, path, answer):
        self.answers += 1
        busy_reload = path.endswith("reload") and answer.status == 409
        if answer.status != 200 and not busy_reload:
            self.wrong = f"{path}: {answer.status} {answer.body}"

    def end(self):
        self.done.set()
        self.join(60)
        expect(not self.wrong, self.wrong)
        expect(self.answers > len(ASKED), "the operator had answers")


def books(g):
    """Recipients that were accepted (those of notifications too), and that came to an end."""
    wanted = sum(e["recipients"] for e in g.tracking("accepted")) + len(g.tracking("dsn"))
    return wanted, len(g.tracking("delivered")) + len(g.tracking("failed"))


def hammer(folder, kind, messages):
    programs(folder, kind)
    leaf = certs.leaf("mx.test", harness.address())
    sink = Sink(folder, "--tls", leaf.pair, "--reply", "rcpt~user7*=550 5.1.1 No such user",
                "--reply", "rcpt~user8*#50=450 4.2.1 Later", "--drop-at", "eod~user9*#10",
                "--drop-after-dot=eod~user99*#5", maildir=False)
    other = Sink(folder, name="other", maildir=False)  # the site is never down as a whole
    g = Gateway(folder, sink)
    g.send("out")["tls"] = {"level": "opportunistic"}
    g.send("out")["smart_hosts"].append({"host": other.smart_host})
    g.config["log"]["level"] = "info"
    g.start()
    operator = Operator(g)
    operator.start()
    secure = messages // 5
    loads = [load(g, "relay", messages // 2, 100, "--pipeline"),
             load(g, "relay", messages - messages // 2 - secure, 20, "--rcpt-count", "3",
                  "--size", "20000", "--messages-per-session", "10", "--pipeline-deep"),
             load(g, "submission", secure // 2, 20, "--tls", "starttls", "--auth", "bob:b:uilder",
                  "--from", "x%@bob.test"),
             load(g, "submissions", secure - secure // 2, 10, "--tls", "implicit", "--resume",
                  "--auth", "bob:b:uilder", "--from", "y%@bob.test")]
    try:
        total = sum(acknowledged(one) for one in loads)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{g.process.log(60)}") from error
    finally:
        for one in loads:
            one.kill()
    operator.end()
    expect_equal(total, messages, "acknowledged")
    g.post("/api/v1/connectors/resume?name=out")
    g.post("/api/v1/queue/release?filter=size%3E0")
    until(lambda: g.post("/api/v1/queue/retry?filter=size%3E0") and g.queued() == 0,
          "the queue is empty", 150, 0.5)
    # Lines come a moment after the queue's gauge, and the last failures' notifications after that.
    until(lambda: len(set(books(g))) == 1, "as many recipients delivered or failed as accepted", 30)
    status = g.process.stop(90)
    said = [line for line in g.process.log(1000000).splitlines() if not line.startswith("{")]
    expect_equal(status, 0, "\n".join(said[:80]) + "\nexit status of the gateway")
    expect_equal(said, [], "what is no line of the log")
    wanted, ended = books(g)
    expect_equal(ended, wanted, "recipients that were delivered or failed")
    expect(sink.stop()["messages"] > 0, "messages at the first next hop")
    expect(other.stop()["messages"] > 0, "messages at the other")


def count(standard):
    return int(os.environ.get("HIKYAKU_SANITIZED_MESSAGES", standard))


@case("no wrong access, no undefined behaviour, no leak", 200)
def addresses(folder):
    hammer(folder, "asan", count(4000))


@case("no race between threads", 200)
def threads(folder):
    hammer(folder, "tsan", count(2000))


if __name__ == "__main__":
    main("sanitized")
