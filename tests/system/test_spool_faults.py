#!/usr/bin/env python3
# time-limit: 150
# builds: asan
"""Queued bodies whose bytes on disk change, under a stopped and a running gateway: what is damaged
is never delivered, not in part either; it is said, and everything else arrives.
"""
import glob
import os
import random
import re
import smtplib

from lib.gateway import Gateway
from lib.harness import case, expect, expect_equal, main, stays, until
from lib.sink import Sink, without_trace


def message(name, size):
    """A mark that is found on disk stands in the middle of the text."""
    chance = random.Random(name)
    letters = b"abcdefghijklmnopqrstuvwxyz ."
    lines = [bytes(chance.choices(letters, k=70)) for _ in range(size // 72)]
    lines.insert(len(lines) // 2, b"MARK-%s-MARK" % name.encode())
    return (f"From: <a@sender.test>\r\nSubject: {name}\r\n\r\n".encode() +
            b"\r\n".join(lines) + b"\r\n")


TEXTS = {name: message(name, size) for name, size in
         (("sound", 3000), ("small", 3000), ("middle", 30_000), ("large", 3_000_000),
          ("after", 3000), ("filler", 10))}


def send(g, *names):
    with smtplib.SMTP(g.host, g.port["relay"], timeout=60) as client:
        for name in names:
            client.sendmail("a@sender.test", f"{name}@x.test", TEXTS[name])


def segments(g):
    return sorted(glob.glob(os.path.join(g.path("spool"), "lane-*", "*")))


def flip(g, name):
    """Changes one byte of the text on disk, or changes it back."""
    mark = b"-MARK\r\n"
    for path in segments(g):
        if os.path.isfile(path):
            with open(path, "r+b") as file:
                text = file.read()
                at = text.find(b"MARK-%s" % name.encode())
                if at >= 0:
                    at = text.index(mark, at) + len(mark)
                    file.seek(at)
                    file.write(bytes([text[at] ^ 1]))
                    return
    raise AssertionError(f"{name} is not found on disk")


def names_at(sink):
    return sorted(r["rcpts"][0].partition("@")[0] for r in sink.records())


def check_texts(sink):
    for record in sink.records():
        name = record["rcpts"][0].partition("@")[0]
        expect_equal(without_trace(sink.message(record))[1], TEXTS[name], name)


def reasons(g):
    """(status, the word that says why) of each queued message."""
    return [(m["status"], re.search("damaged|could not be read|$", m["last_error"])[0])
            for m in g.queue()]


def world(folder, *names):
    """A gateway on one shard with these messages on disk, none delivered yet."""
    sink = Sink(folder)
    g = Gateway(folder, sink, shards=1).start()
    g.ctl("connector", "suspend", "out")
    send(g, *names)
    g.change("hold", filter="size>0")
    for _ in range(10):  # the last commits are read from memory, not from disk
        send(g, "filler")
    g.change("remove", filter="recipient=filler@x.test")
    return sink, g


def let_go(g):
    g.change("release", filter="status=held")
    g.ctl("connector", "resume", "out")


@case("F58 F59 flipped under a running gateway: deferred and told, the rest arrives; then mended")
def running(folder):
    sink, g = world(folder, "sound", "small", "middle", "large", "after")
    for name in ("small", "middle", "large"):
        flip(g, name)
    let_go(g)
    until(lambda: names_at(sink) == ["after", "sound"], "the sound ones arrive", 40)
    until(lambda: len(g.log("damaged-record")) >= 3, "the damage is told")
    expect(os.listdir(g.path("spool", "quarantine")), "the bytes are set aside")
    # The envelope of a small one lies in the same record: it waits for the operator. Of a large one
    # only a part is gone: it is tried again.
    until(lambda: sorted(reasons(g)) == [
        ("deferred", "could not be read"), ("poison", "damaged"), ("poison", "damaged")],
        "each says why", every=0.5)
    expect_equal(g.tracking("failed"), [], "and are nobody's fault")
    # The next hop is not blamed for it.
    send(g, "after")
    until(lambda: len(sink.records()) == 3, "the next hop is used on", 20)
    # A disk that gives its bytes again.
    flip(g, "middle")
    flip(g, "large")
    g.change("release", filter="size>20000 and status=poison")
    until(lambda: names_at(sink) == ["after", "after", "large", "middle", "sound"], "mended", 40)
    check_texts(sink)
    expect_equal([m["status"] for m in g.queue()], ["poison"])
    g.restart()
    until(lambda: g.change("remove", filter="status=poison") == 1, "it is still known, and ends")
    g.wait_empty()
    g.stop()


@case("F58 F59 flipped under a stopped gateway: it starts, tells, and delivers the rest")
def stopped(folder):
    sink, g = world(folder, "sound", "small", "middle", "large", "after")
    g.stop()
    for name in ("small", "large"):
        flip(g, name)
    g.start()
    until(lambda: g.log("recovered"), "recovery")
    let_go(g)
    until(lambda: names_at(sink) == ["after", "middle", "sound"], "the sound ones arrive", 40)
    until(lambda: g.log("damaged-record"), "the damage is told")
    expect(os.listdir(g.path("spool", "quarantine")), "the bytes are set aside")
    stays(lambda: len(sink.records()) == 3, 2.5, "nothing else does")
    check_texts(sink)
    expect_equal(g.tracking("failed"), [], "nobody is told that it failed")
    # What is left is the operator's to end.
    until(lambda: g.queued() == 0 or g.change("remove", filter="size>0"), "something ends")
    g.wait_empty()
    g.restart()
    g.wait_empty()
    g.stop()


@case("F58 a segment that is cut short or gone: what was in it is not delivered, the rest is")
def gone(folder):
    sink, g = world(folder, "large", "sound")
    path, = [p for p in segments(g) if os.path.isfile(p) and b"MARK-large" in open(p, "rb").read()]
    send(g, "after")
    with open(path, "rb") as file:
        at = file.read().index(b"MARK-large")
    os.truncate(path, at // 4096 * 4096)  # the sound one lay behind it
    let_go(g)
    until(lambda: g.log("damaged-record"), "the damage is told")
    stays(lambda: "large" not in names_at(sink), 2, "no half message")
    check_texts(sink)
    expect(g.process.alive(), "it goes on")
    g.change("remove", filter="size>0")
    g.wait_empty()
    g.stop()


if __name__ == "__main__":
    main("spool faults", beside=3)
