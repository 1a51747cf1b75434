#!/usr/bin/env python3
# time-limit: 180
# builds: asan
"""Attempts that a crash cuts off: what may have been delivered is told or held, and a message that
was being tried at three crashes in a row is set aside.
"""
import socket
import threading
import time

from lib import harness
from lib.dialog import Line
from lib.gateway import Gateway, smart_host
from lib.harness import case, expect, expect_equal, expect_match, main, stays, until
from lib.sink import Sink

BODY = b"Subject: x\r\n\r\ntext\r\n"


class Hop:
    """Answers everything, but says nothing at `stall` (DATA or the final dot) while it is set."""

    def __init__(self, stall=None):
        self.stall, self.stalled, self.taken, self.hurried = stall, 0, [], threading.Event()
        self.host = harness.address()
        self.sock = socket.create_server((self.host, 0))
        self.port = self.sock.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    @property
    def smart_host(self):
        return f"[{self.host}]:{self.port}"

    def serve(self):
        while True:
            connection, _ = self.sock.accept()
            threading.Thread(target=self.one, args=(connection,), daemon=True).start()

    def one(self, connection):
        sender = None
        with connection, connection.makefile("rwb", 0) as file:
            try:
                file.write(b"220 hop.test\r\n")
                for line in iter(file.readline, b""):
                    verb = line[:4].upper()
                    if verb == b"MAIL":
                        sender = line.split(b"<")[1].split(b">")[0].decode()
                    if verb != b"DATA":
                        file.write(b"221 bye\r\n" if verb == b"QUIT" else b"250 ok\r\n")
                        continue
                    self.silence("DATA")
                    file.write(b"354 go on\r\n")
                    while file.readline() not in (b".\r\n", b""):
                        pass
                    self.silence("dot")
                    self.taken.append(sender)
                    file.write(b"250 taken\r\n")
            except (OSError, EOFError):
                pass

    def silence(self, where):
        if self.stall != where:
            return
        self.stalled += 1
        self.hurried.wait(30)
        raise EOFError


def submit(g, sender="s@client.test", rcpt="a@example.net"):
    with Line(g.host, g.port["relay"]) as line:
        line.wanted(220)
        line.ask("EHLO client.test", 250)
        line.ask(f"MAIL FROM:<{sender}>", 250)
        line.ask(f"RCPT TO:<{rcpt}>", 250)
        line.ask("DATA", 354)
        line.send(BODY + b".\r\n")
        return line.wanted(250).split()[-1]


def gateway(folder, hop, **more):
    g = Gateway(folder, shards=1)
    aside = Sink(folder, name="aside", maildir=False)
    g.config["send_connectors"] = [smart_host("out", hop.smart_host, **more),
                                   smart_host("aside", aside.smart_host, space="aside.test")]
    g.config["retry"]["intervals"] = ["1s"]
    return g.start()


def crash(g):
    """With all on disk that was recorded before: a lane is in order, and a 250 is durable."""
    submit(g, rcpt="a@aside.test")
    g.kill()
    g.start()
    until(lambda: g.log("recovered"), "old mail is known again")


@case("E38 F65 tried at three crashes: poison queue, event, metric, and the operator's release")
def poison(folder):
    hop = Hop("DATA")
    g = gateway(folder, hop)
    bad = submit(g, "bad@client.test")
    for i in range(3):
        until(lambda n=i: hop.stalled > n, "an attempt is under way")
        crash(g)
    until(lambda: g.queue("status=poison"), "set aside")
    row = g.queue("status=poison")[0]
    expect_equal((row["qid"], row["sender"]), (bad, "bad@client.test"))
    expect_match("crash", row["last_error"])
    g.wait_tracking("poison")
    expect_equal([line["qid"] for line in g.tracking("poison")], [bad])
    g.wait_metrics(queue_poison=1, messages_set_aside_total=1)
    expect_equal(g.get("/api/v1/queue", filter=f"qid={bad}").json["items"][0]["status"], "poison")
    hop.stall = None
    hop.hurried.set()
    submit(g, "good@client.test")  # the others go on
    until(lambda: hop.taken == ["good@client.test"], "the next one")
    until(lambda: not g.queue("sender=good@client.test"), "its end is known")
    crash(g)
    stays(lambda: hop.taken == ["good@client.test"], 0.5, "nothing of the one set aside")
    expect_equal(g.change("release", qid=bad), 1)
    until(lambda: len(hop.taken) == 2, "released")
    g.wait_empty()
    g.stop()


@case("kill -9 with many attempts under way sets none of those aside that were only waiting", 90)
def many(folder):
    hop = Hop("DATA")
    g = gateway(folder, hop, max_connections=40)
    total = 150
    for i in range(total):
        submit(g, f"m{i}@client.test")
    seen = 0
    for _ in range(3):
        until(lambda n=seen: hop.stalled >= n + 8, "attempts are under way")
        time.sleep(0.3)  # the more of them the better
        seen = hop.stalled
        crash(g)
    time.sleep(0.5)  # what would be set aside wrongly has its chance
    aside = len(g.queue("status=poison"))
    expect(aside <= 8, "set aside by the third crash:", aside)
    hop.stall = None
    hop.hurried.set()
    until(lambda: len(set(hop.taken)) == total - aside, "the others are delivered", 60)
    g.change("release", filter="status=poison")
    g.wait_empty(60)
    expect_equal(len(set(hop.taken)), total)
    g.stop()


@case("F62 cut off behind the final dot: sent again, and said")
def uncertain_retry(folder):
    hop = Hop("dot")
    g = gateway(folder, hop)
    qid = submit(g)
    until(lambda: hop.stalled, "the dot is out")
    hop.stall = None
    crash(g)
    until(lambda: len(hop.taken) == 1, "again")
    g.wait_tracking("dup_possible")
    expect_equal([line["qid"] for line in g.tracking("dup_possible")], [qid])
    g.wait_metrics(deliveries_uncertain_total=1)
    g.wait_empty()
    g.stop()


@case("on_uncertain: hold keeps it for the operator, after a crash and after a lost connection")
def uncertain_hold(folder):
    hop = Hop("dot")
    g = gateway(folder, hop, on_uncertain="hold")
    qid = submit(g)
    until(lambda: hop.stalled, "the dot is out")
    g.kill()  # at once: the record is durable before the dot
    hop.stall = None
    hop.hurried.set()
    g.start()
    until(lambda: g.queue("status=held"), "held")
    expect_equal(g.queue("status=held")[0]["qid"], qid)
    expect_match("May have been delivered", g.queue("status=held")[0]["last_error"])
    expect_equal(hop.taken, [])
    expect_equal([line["qid"] for line in g.wait_tracking("held")], [qid])
    crash(g)
    until(lambda: g.queue("status=held"), "still held")
    g.change("release", qid=qid)
    until(lambda: len(hop.taken) == 1, "released")
    g.wait_empty()
    hop.stall = "dot"
    qid = submit(g)
    until(lambda: g.queue("status=held"), "held, the connection was lost", 20)
    expect_equal(g.queue("status=held")[0]["qid"], qid)
    g.stop()


main("attempts", beside=2)
