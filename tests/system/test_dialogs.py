#!/usr/bin/env python3
# time-limit: 200
# builds: asan
"""Every dialog of tests/dialogs with a running gateway and a real next hop behind it, as it stands
and byte by byte; what arrives is counted by sender. Then message text that tries to be two.
"""
import glob
import itertools
import os
import random
import sys
from concurrent.futures import ThreadPoolExecutor

from lib import dialog, harness
from lib.gateway import PASSWORDS, Gateway
from lib.harness import ROOT, Skip, case, expect, expect_equal, main, until
from lib.sink import Sink, without_trace

STRANGERS = {"networks": [], "authenticated": True}
CLEAR_AUTH = {"mechanisms": ["PLAIN", "LOGIN"], "require_tls": False}


def connectors(g):
    """Receive connectors by name, beside those that every gateway of the tests has."""
    starttls = {"mode": "starttls", "certificates": g.certificate()}
    g.receive("relay")["relay"] = STRANGERS
    g.receive("relay")["fqdn"] = "relay.gw.test"
    more = {
        "open": {"tls": starttls, "relay": {"networks": ["127.0.0.0/8"]}},
        "clear": {},
        "small": {"max_message_size": "1000B", "max_recipients": 3},
        "denied": {"remote": {"deny": ["127.0.0.0/8"]}},
        "optional": {"tls": starttls, "auth": {"mechanisms": ["PLAIN"], "require_tls": True}},
        "cleartext": {"auth": dict(CLEAR_AUTH, required=True)},
        "mixed": {"auth": CLEAR_AUTH},
        "enforce": {"auth": dict(CLEAR_AUTH, required=True), "sender_identity": "enforce"},
    }
    for name, keys in more.items():
        g.port[name] = harness.free_port()
        g.config["receive_connectors"].append({"name": name, "bind": g.bind(name), **keys})


def start(folder):
    sink = Sink(folder)
    g = Gateway(folder, sink)
    connectors(g)
    return sink, g.start()


class Run:
    """One run of one dialog; its sender is its own."""

    def __init__(self, number, d, bytewise):
        self.dialog, self.bytewise = d, bytewise
        self.sender = f"d{number}@dialog.test"
        self.values = {"from": self.sender, "passwords": PASSWORDS}
        self.error = None

    @property
    def name(self):
        return self.dialog.name + (", byte by byte" if self.bytewise else "")

    def perform(self, g):
        try:
            dialog.perform(self.dialog, g.host, g.port[self.dialog.to], self.values, self.bytewise)
        except (AssertionError, OSError, ValueError, KeyError) as error:
            self.error = str(error) or repr(error)
        return self

    def check_mail(self, sink, records):
        mine = [r for r in records if r["from"] == self.sender]
        if len(mine) != self.dialog.expect:
            self.error = f"{len(mine)} messages arrived instead of {self.dialog.expect}"
        elif self.dialog.body is not None:
            wanted = dialog.encoded(self.dialog.body, self.values)
            for record in mine:
                _, message = without_trace(sink.message(record))
                body = message.partition(b"\r\n\r\n")[2]
                if body != wanted:
                    self.error = f"body {harness.short(body)}, not {harness.short(wanted)}"


def all_runs():
    runs = []
    for path in sorted(glob.glob(os.path.join(ROOT, "tests", "dialogs", "*.dialog"))):
        for d in dialog.load(path):
            for bytewise in (False, True):
                run = Run(len(runs), d, bytewise)
                if not bytewise or dialog.can_be_bytewise(d, run.values):
                    runs.append(run)
    return runs


@case("dialogs", 100)
def dialogs(folder):
    sink, g = start(folder)
    runs = all_runs()
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda run: run.perform(g), runs))
    g.wait_empty()
    records = sink.records()
    for run in runs:
        if not run.error:
            run.check_mail(sink, records)
        harness.result(run.name, run.error)
    expect(not [r for r in records if r["from"].startswith("smuggled")], "something was smuggled")
    expect_equal(len(records), sum(r.dialog.expect for r in runs), "messages in all")
    g.stop()


# ---- smuggling ----------------------------------------------------------------------------------

SYMBOLS = (b"\r", b"\n", b".", b"\0", b"a")


def reference(text):
    """Where CRLF.CRLF ends the text that begins behind DATA's CRLF, and whether it is clean."""
    end = (b"\r\n" + text).find(b"\r\n.\r\n")
    body = (b"\r\n" + text)[2:max(end, 0) + 2]
    left = body.replace(b"\r\n", b"")
    return end + 3, not (b"\r" in left or b"\n" in left or b"\0" in body)


def attack(g, sender, middle, cut):
    """Sends the text in two pieces; the replies, from the end of data on."""
    text = b"Subject: x\r\n\r\nA" + middle + b"B\r\nMAIL FROM:<smuggled@dialog.test>\r\n.\r\n"
    end, clean = reference(text)
    with dialog.Line(g.host, g.port["open"]) as line:
        line.wanted(220)
        line.ask("EHLO client.test", 250)
        line.send(f"MAIL FROM:<{sender}>\r\nRCPT TO:<a@dialog.test>\r\nDATA\r\n".encode())
        for code in (250, 250, 354):
            line.wanted(code)
        line.send(text[:cut])
        line.send(text[cut:] + b"QUIT\r\n")
        replies = []
        while not replies or replies[-1][0] not in (0, 221, 421):
            replies.append(line.reply())
    first = replies[0][1]
    expect(first.startswith("250 2.0.0" if clean else "550 5.6.11"), repr(middle), first)
    # Behind the true end come at most commands that stood there in clear sight.
    commands = text[end:].count(b"\r\n") + 1
    expect(len(replies) <= 1 + commands, repr(middle), replies)
    return clean, text[:end - 3]


@case("F1-F5 every string up to 3 bytes and many up to 7 in a text: one in is one out", 90)
def smuggling(folder):
    sink, g = start(folder)
    strings = [b"".join(s) for n in range(1, 4) for s in itertools.product(SYMBOLS, repeat=n)]
    chance = random.Random(7)
    strings += [b"".join(chance.choices(SYMBOLS, (4, 4, 3, 1, 1), k=chance.randint(4, 7)))
                for _ in range(250)]
    strings += [b"\r\n.\r\n", b"\n.\n", b"\r\n.\n", b"\n.\r\n", b"\r.\r\n", b"\r\n.\r", b"\r.\r",
                b"\n.\r", b"\r.\n", b"\r\n.\r\r\n", b"\r\n.\0\r\n", b"\r\n\0.\r\n", b"\r\0\n.\r\n"]
    jobs = [(i, s, 15 + chance.randint(0, len(s))) for i, s in enumerate(strings)]
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda j: attack(g, f"s{j[0]}@dialog.test", j[1], j[2]), jobs))
    g.wait_empty()
    took = {}
    for record in sink.records():
        took.setdefault(record["from"], []).append(record)
    for (i, s, _), (clean, text) in zip(jobs, done):
        records = took.pop(f"s{i}@dialog.test", [])
        expect_equal(len(records), 1 if clean else 0, f"messages for {s!r}")
        if clean:
            _, message = without_trace(sink.message(records[0]))
            wanted = text.replace(b"\r\n.", b"\r\n")
            expect_equal(message, wanted if wanted.endswith(b"\r\n") else wanted + b"\r\n", repr(s))
            bare = message.replace(b"\r\n", b"")
            expect(b"\r" not in bare and b"\n" not in bare, "a bare CR or LF was sent on", repr(s))
    expect_equal(list(took), [], "messages of nobody")
    g.stop()


if __name__ == "__main__":
    main("dialogs")
