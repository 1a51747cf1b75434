#!/usr/bin/env python3
"""The power goes while the gateway is under load; it comes back on what the disk then has.

    tests/crash/test_cut.py [--rounds N] [--fs ext4|xfs] [--shards N] [--cache 0|1] [--seed N]
                            [--summary FILE]

Each series has a file system of its own on a loop device (disk.py) with the spool on it, one or
more shards, a next hop that takes most mail, is slow with some, puts some off and refuses some, and
a load that goes on whatever happens. A series is a few cuts behind each other on the same spool,
and then, with the next hop taking everything, the books (books.py).
A cut fails the gateway's disk under it before the gateway is ended: it must go on living, answer
4xx and say at /readyz that it takes no mail.
"""
import argparse
import collections
import json
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))),
                                "system"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from lib import harness  # noqa: E402
from lib.gateway import Gateway, smart_host  # noqa: E402
from lib.harness import expect, patient, until  # noqa: E402
from lib.sink import Sink  # noqa: E402
from books import Books, Load  # noqa: E402
from disk import Disk  # noqa: E402

SIZES = ("300", "4KiB", "4KiB", "40KiB", "200KiB")
SERIES_CUTS = 5
LOAD_S = 1
MIXED = ("--reply", "rcpt~*7@bench.test=451 4.2.1 later", "--reply",
         "rcpt~*@refused.test=550 5.1.1 nobody", "--delay-ms", "eod~*3@bench.test=400")
WILLING = ("--reply", "rcpt~*@refused.test=550 5.1.1 nobody")


class Series:
    """One file system, one gateway, some cuts."""

    def __init__(self, folder, disk, shards, seed):
        self.chance, self.folder, self.disk = random.Random(seed), folder, disk
        self.sink = Sink(folder, *MIXED, maildir=False)
        self.reports = Sink(folder, name="reports",
                            maildir=os.path.join(disk.images, "reports"))
        self.gateway = Gateway(folder, self.sink, shards=shards)
        config = self.gateway.config
        config["spool"] = {"path": os.path.join(disk.path, "spool"), "max_size": "1GiB",
                           "min_free": "16MiB"}
        config["log"]["level"] = "info"
        config["send_connectors"].append(
            smart_host("back", self.reports.smart_host, space="sender.test"))
        self.books = Books(self.gateway, self.sink, self.reports,
                           forgiving=disk.fs == "xfs" or disk.cache)
        self.cuts = 0

    def load(self, name, *words, rcpt_count=1, refused=False):
        load = Load(name, os.path.join(self.folder, f"acked.{name}"), rcpt_count, refused)
        self.books.add(load)
        return load.start(self.gateway, LOAD_S, *words)

    def loads(self):
        size, count = self.chance.choice(SIZES), self.chance.choice((1, 1, 3))
        more = ["--pipeline-deep"] if self.chance.random() < 0.5 else []
        return [self.load(f"m{self.cuts}", "--sessions", "16", "--size", size, *more,
                          rcpt_count=count),
                self.load(f"r{self.cuts}", "--sessions", "1", "--size", "600", refused=True)]

    def start(self):
        began = time.monotonic()
        self.gateway.start()
        expect(time.monotonic() - began < patient(10), "ready within 10 s, more or less")

    def round(self):
        loads = self.loads()
        time.sleep(self.chance.uniform(0.15, 0.8))
        self.cut(self.without_a_disk if self.chance.random() < 0.7 else None)
        if self.chance.random() < 0.25:  # and again while it recovers
            self.gateway.launch()
            time.sleep(self.chance.uniform(0, 0.15))
            self.cut()
            self.books.summary["cut at the start"] += 1
        self.start()
        for load in loads:
            self.books.ended(load, load.wait())
        self.cuts += 1

    def cut(self, meanwhile=None):
        """The power goes, then comes back; nothing runs."""
        self.books.cut_begins()
        since = time.time()
        self.disk.cut()
        if meanwhile:
            meanwhile()
        self.gateway.kill()
        self.books.died(since, time.time())
        self.disk.power_on()
        self.books.cut_ended()

    def without_a_disk(self):
        """What clients and operators see of a gateway whose disk is gone."""
        until(lambda: not self.gateway.process.alive() or not self.gateway.ready(),
              "/readyz turns 503", 8)
        expect(self.gateway.process.alive(), "the gateway lives without its disk:",
               self.gateway.process.log())
        answer = self.gateway.get("/readyz")
        expect(answer.status == 503 and len(answer.body) > 20, "a reason:", answer.body)
        door = (self.gateway.host, self.gateway.port["relay"])
        with socket.create_connection(door, patient(10)) as s:
            file = s.makefile("rw", newline="\r\n")
            codes = [file.readline()[:3]]
            for line in ("HELO client.test", "MAIL FROM:<a@sender.test>"):
                if codes[-1] in ("220", "250"):
                    file.write(line + "\n")
                    file.flush()
                    codes.append(file.readline()[:3])
        self.books.summary[f"without a disk {codes[-1]}"] += 1
        expect(codes[-1] in ("421", "451", "452", "250"), "an answer that says later:", codes)

    def verdict(self):
        self.sink.restart(*WILLING)
        self.books.drain()
        self.books.verdict()
        self.gateway.stop()
        self.sink.stop()
        self.reports.stop()


def series(folder, fs, shards, cuts, seed, cache=False):
    """Its summary."""
    with Disk(folder, fs, cache=cache) as disk:
        run = Series(folder, disk, shards, seed)
        run.start()
        for _ in range(cuts):
            run.round()
        run.verdict()
        run.books.summary["cuts"] = run.cuts
        return run.books.summary


def in_folder(function):
    folder = tempfile.mkdtemp(prefix="hikyaku-cut-")
    os.chmod(folder, 0o755)
    kept = "HIKYAKU_KEEP" in os.environ
    try:
        done = function(folder)
        kept = False
        return done
    finally:
        harness.end_all()
        if kept:
            print("kept:", folder)
        else:
            shutil.rmtree(folder, ignore_errors=True)


def write_summary(path, seed, totals):
    with open(path + ".new", "w", encoding="utf-8") as file:
        json.dump({"seed": seed, "series": {" ".join(map(str, k)): v for k, v in totals.items()}},
                  file, indent=1)
    os.replace(path + ".new", path)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--fs", choices=("ext4", "xfs"))
    parser.add_argument("--shards", type=int)
    parser.add_argument("--cache", type=int, choices=(0, 1))
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--summary", help="the figures so far, as JSON")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    kinds = [(fs, shards, cache) for cache in (0, 1) for shards in (1, 2, 4)
             for fs in ("ext4", "xfs")
             if args.fs in (None, fs) and args.shards in (None, shards) and
             args.cache in (None, cache)] or [(args.fs or "ext4", args.shards, args.cache or 0)]
    totals = collections.defaultdict(collections.Counter)
    left, number = args.rounds, 0
    while left > 0:
        kind, seed, cuts = kinds[number % len(kinds)], args.seed + number, min(left, SERIES_CUTS)
        fs, shards, cache = kind
        print(f"{fs}, {shards} shards, {'disk cut' if cache else 'file system cut'}: "
              f"--rounds {cuts} --fs {fs} --shards {shards} --cache {cache} --seed {seed}",
              flush=True)
        summary = in_folder(lambda f: series(f, fs, shards, cuts, seed, bool(cache)))
        totals[kind].update(summary)
        print("   " + ", ".join(f"{k} {v}" for k, v in summary.items()), flush=True)
        if args.summary:
            write_summary(args.summary, args.seed, totals)
        left, number = left - cuts, number + 1
    total = sum(totals.values(), collections.Counter())
    print("all: " + ", ".join(f"{k} {v}" for k, v in total.items()))


if __name__ == "__main__":
    main()
