#!/usr/bin/env python3
# time-limit: 120
# builds: asan
# waits: for deliveries that take their time
"""Draining: deliveries go on for as long as was configured, progress shows, the rest stays."""
import smtplib
import time

from lib.gateway import Gateway
from lib.harness import case, expect, expect_equal, expect_match, main, until
from lib.sink import Sink


def queued(folder, count, eod_ms, deliveries):
    """A gateway with `count` messages for a sink that takes them one by one, `eod_ms` each."""
    sink = Sink(folder, "--delay-ms", f"eod={eod_ms}")
    g = Gateway(folder, sink, shards=1)
    g.send("out").update(max_connections=1)
    g.config["drain"] = {"deliveries": deliveries}
    g.start()
    with smtplib.SMTP(g.host, g.port["relay"], timeout=60) as client:
        for i in range(count):
            client.sendmail(f"m{i}@sender.test", ["b@x.test"], b"Subject: x\r\n\r\nx\r\n")
    sink.wait(1)
    return g, sink


def ends(g, seconds):
    began = time.monotonic()
    expect_equal(g.process.wait(seconds), 0, "exit status")
    return time.monotonic() - began


def exactly_once(sink, count):
    sink.wait(count)
    time.sleep(0.3)  # for one too many
    got = [r["from"] for r in sink.records()]
    expect_equal(len(got), count, "messages at the sink")
    expect_equal(len(set(got)), count, "different ones")


@case("deliveries go on until the queue is empty; status and metrics show how far it is")
def goes_on(folder):
    g, sink = queued(folder, 12, 200, "30s")
    g.ctl("drain")
    status = g.status()
    expect_equal((status["state"], status["ready"]), ("draining", False))
    seen = []

    def watch():
        try:
            m = g.metrics()
            expect_equal(m["hikyaku_draining"], 1.0)
            seen.append((m["hikyaku_drain_work"], g.status()["queue_messages"]))
        except OSError:
            return True
        return not g.process.alive()
    until(watch, "the end of the drain", 25, 0.1)
    took = ends(g, 20)
    exactly_once(sink, 12)
    expect(len(seen) > 1 and seen[0][0] > seen[-1][0], "progress", seen)
    expect(max(s[1] for s in seen) > seen[-1][1], "the queue", seen)
    expect(took < 20, "idle connections held up the end for", took)
    g.config["drain"] = {}
    g.start()
    expect_equal(g.queued(), 0)
    g.stop()


@case("not ready but accepting, as long as balancers need; asked again it does not wait again")
def accepting(folder):
    sink = Sink(folder)
    g = Gateway(folder, sink, shards=2)
    g.config["drain"] = {"accept": "1h"}
    g.start()
    expect_equal(g.metrics()["hikyaku_drain_phase"], 0.0)
    expect("drain_phase" not in g.status(), "the phase of nothing")
    with smtplib.SMTP(g.host, g.port["relay"], timeout=60) as open_before:
        open_before.ehlo()
        g.ctl("drain")
        status = g.status()
        expect_equal((status["state"], status["ready"], status["drain_phase"]),
                     ("draining", False, "accepting"))
        expect_equal(g.get("/readyz").status, 503)
        expect_equal(g.metrics()["hikyaku_drain_phase"], 1.0)
        g.process.signal(15)  # as a kubelet does behind preStop
        g.ctl("drain")
        for i in range(8):  # a shard that did not listen any more would show
            with smtplib.SMTP(g.host, g.port["relay"], timeout=60) as new:
                new.sendmail(f"m{i}@sender.test", ["b@x.test"], b"Subject: x\r\n\r\nx\r\n")
        open_before.sendmail("open@sender.test", ["b@x.test"], b"Subject: x\r\n\r\nx\r\n")
        sink.wait(9)  # what has not begun stays
        expect_equal(g.status()["drain_phase"], "accepting")
        g.process.signal(2)
        expect_match("^4.3.2", open_before.getreply()[1].decode())
    ends(g, 20)
    exactly_once(sink, 9)
    g.config["drain"] = {"accept": "1s"}
    g.start()
    began = time.monotonic()
    g.process.signal(15)
    ends(g, 20)
    expect(time.monotonic() - began > 0.9, "it did not wait")


@case("when the time is over the rest stays, and goes out at the next start, once")
def time_over(folder):
    g, sink = queued(folder, 20, 400, "2s")
    began, before = time.monotonic(), len(sink.records())
    g.process.signal(15)
    ends(g, 30)
    took = time.monotonic() - began
    expect(1.5 < took < 40, "took", took)
    got = len(sink.records())
    expect(before < got < 18, got, "of 20 were delivered,", before, "before")
    g.start()
    exactly_once(sink, 20)
    g.wait_empty()
    g.stop()


@case("without it nothing new begins; a retry that is due later does not hold up the end")
def at_once(folder):
    g, sink = queued(folder, 12, 500, "0s")
    before = len(sink.records())
    g.process.signal(15)
    ends(g, 20)
    expect(len(sink.records()) <= before + 2, "delivered", len(sink.records()), "after", before)
    sink.restart("--reply", "rcpt=450 4.2.0 Later")
    g.config["retry"]["intervals"] = ["1h"]
    g.config["drain"] = {"deliveries": "60s"}
    g.start()
    until(lambda: [m["status"] for m in g.queue()].count("deferred") >= 5, "all wait for a retry")
    until(lambda: g.metrics()["hikyaku_delivery_jobs"] == 0, "no attempts")
    began = time.monotonic()
    with smtplib.SMTP(g.host, g.port["relay"], timeout=60) as idle:
        idle.ehlo()
        g.ctl("drain")
        expect_match("^4.3.2", idle.getreply()[1].decode())
    ends(g, 20)
    expect(time.monotonic() - began < 40, "took", time.monotonic() - began)


if __name__ == "__main__":
    main("drain", beside=3)
