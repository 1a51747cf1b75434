#!/usr/bin/env python3
"""kill -9 under load, and start again, many times: nothing that was acknowledged may be missing.

    tests/crash/test_kill.py [--rounds N] [--seconds N] [--seed N]

hikyaku-bench load writes down each id whose 250 it has read, hikyaku-bench sink each message.
After each round, with all delivered, the two are compared:
 * every acknowledged id has arrived (P1);
 * each id that arrived more than once is explained (P2): its delivery was logged dup_possible, or
   the kill came between the next hop's 250 and our durable record of it, so that this copy was
   taken within COMMIT_S of the kill;
 * every body that arrived is whole: its CRC is that of the bodies sent, of its own size.
An id that nobody acknowledged may arrive once or not at all, never half.
"""
import argparse
import collections
import datetime
import json
import os
import random
import sys
import tempfile
import shutil
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))),
                                "system"))

from lib import harness  # noqa: E402
from lib.gateway import Gateway  # noqa: E402
from lib.harness import Program, expect, expect_equal, program  # noqa: E402
from lib.sink import Sink  # noqa: E402

# The record of a delivery is durable within tens of milliseconds; where other tests take the cores
# and the disk, 0.34 s was seen. The clocks of both programs are one; the slack is rounding.
COMMIT_S, SLACK_S = 0.6, 0.05
ROUNDS_A_VERDICT = 4
SIZES = ("300", "4KiB", "40KiB", "300KiB")


def when(text):
    """Seconds of a time in a log line or a record."""
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def explained(records, moments, window):
    """Each copy but the last came just before a kill, or its connection was lost behind the dot."""
    return all(any(-SLACK_S < t - r["time"] < window for t in moments) for r in records[:-1])


class Crash:
    """A gateway, a sink and a load that outlives the gateway's deaths."""

    def __init__(self, folder, seed):
        self.chance = random.Random(seed)
        self.folder = folder
        self.sink = Sink(folder, maildir=False)
        self.gateway = Gateway(folder, self.sink)
        self.gateway.config["log"]["level"] = "info"
        self.kills = []
        self.crc = {}  # size of a body: its CRC
        self.acked_paths, self.read_to, self.settled = [], 0, set()
        self.summary = collections.Counter()

    def load(self, round_number, size):
        """Sessions that go on whatever happens, for two seconds."""
        log = os.path.join(self.folder, f"load.{round_number}")
        self.acked_paths.append(os.path.join(self.folder, f"acked.{round_number}"))
        words = [program("hikyaku-bench"), "load", "--to",
                 f"{self.gateway.host}:{self.gateway.port['relay']}", "--sessions", "20",
                 "--messages-per-session", "5", "--seconds", "2", "--size", size, "--keep-going",
                 "--rcpt-count", str(self.chance.choice((1, 1, 3))), "--timeout", "15",
                 "--record", self.acked_paths[-1], "--run-id", f"r{round_number}", "--json"]
        if self.chance.random() < 0.5:
            words.append("--pipeline-deep")
        return Program(words, log)

    def round(self, number):
        g, size = self.gateway, self.chance.choice(SIZES)
        load = self.load(number, size)
        for _ in range(2):  # two deaths a round
            time.sleep(self.chance.uniform(0.3, 0.9))
            g.kill()
            self.kills.append(time.time())
            began = time.monotonic()
            g.start()
            expect(time.monotonic() - began < 10, "ready within 10 s")
        load.wait(60)
        result = json.loads(load.log().strip().split("\n")[-1])
        self.crc[result["body_crc32"]] = size
        self.summary["acknowledged"] += result["acked"]
        self.summary["lost connections"] += result["lost"]
        expect(result["acked"] > 0, "something was acknowledged:", result)

    # ---- the verdict ----

    def new_records(self):
        """What the sink took since the last verdict."""
        with open(self.sink.record, encoding="utf-8") as file:
            file.seek(self.read_to)
            records = [json.loads(line) for line in file]
            self.read_to = file.tell()
        return records

    def new_acked(self):
        found = []
        for path in self.acked_paths:
            with open(path, encoding="ascii") as file:
                found += file.read().split("\n")[:-1]
        self.acked_paths.clear()
        return found

    def verdict(self):
        """With the queue empty: what was acknowledged is there, what is twice is explained."""
        self.gateway.wait_empty(60)
        acked, copies = self.new_acked(), collections.defaultdict(list)
        expect_equal(len(acked), len(set(acked)), "ids are used once")
        for record in self.new_records():
            copies[record["id"]].append(record)
            expect(record["body_crc32"] in self.crc, "half a body:", record)
        missing = [i for i in acked if i not in copies]
        expect(not missing, f"{len(missing)} acknowledged and lost:", missing[:5])
        back = self.settled & set(copies)
        expect(not back, "delivered again after the queue was empty:", sorted(back)[:5])
        twice = {i: sorted(c, key=lambda r: r["time"]) for i, c in copies.items() if len(c) > 1}
        moments = self.kills + [when(x["time"]) for x in self.gateway.tracking("dup_possible")]
        slowest = max(x["durable_us"] for x in self.gateway.tracking("accepted")) / 1e6
        for i, records in twice.items():
            expect(explained(records, moments, COMMIT_S + 2 * slowest),
                   "a duplicate that nobody explains:", i,
                   [(r["time"], r["rcpts"]) for r in records],
                   "kills:", self.kills[-8:], f"slowest commit: {slowest:.3f} s")
        self.settled |= set(copies)
        self.summary.update({"arrived": len(copies), "arrived more than once": len(twice),
                             "arrived without a 250 that was read": len(set(copies) - set(acked))})


def crash(folder, rounds, seconds, seed):
    run = Crash(folder, seed)
    run.gateway.start()
    began, done = time.monotonic(), 0
    while done < rounds and (not seconds or time.monotonic() - began < seconds):
        run.round(done)
        done += 1
        if done % ROUNDS_A_VERDICT == 0:
            run.verdict()
    run.verdict()
    run.gateway.stop()
    run.summary["kills"] = len(run.kills)
    return run.summary


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=int, default=0, help="begin no round after this time")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    args = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="hikyaku-crash-")
    print(f"seed {args.seed}, {folder}")
    try:
        summary = crash(folder, args.rounds, args.seconds, args.seed)
    finally:
        harness.end_all()
    shutil.rmtree(folder)
    print(", ".join(f"{k} {v}" for k, v in summary.items()))


if __name__ == "__main__":
    main()
