#!/usr/bin/env python3
"""kill -9 under load, and start again, many times: nothing that was acknowledged may be missing.

    tests/crash/test_kill.py [--rounds N] [--seconds N] [--seed N]

After each few rounds, with all delivered, the books are compared (books.py).
"""
import argparse
import json
import os
import random
import sys
import tempfile
import shutil
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))),
                                "system"))

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from lib import harness  # noqa: E402
from lib.gateway import Gateway  # noqa: E402
from lib.harness import Program, expect, patient, program, until  # noqa: E402
from lib.sink import Sink  # noqa: E402
from books import Books, Load  # noqa: E402

ROUNDS_A_VERDICT = 4
SIZES = ("300", "4KiB", "40KiB", "300KiB")


class Crash:
    """A gateway, a sink and a load that outlives the gateway's deaths."""

    def __init__(self, folder, seed):
        self.chance = random.Random(seed)
        self.folder = folder
        self.sink = Sink(folder, maildir=False)
        self.gateway = Gateway(folder, self.sink)
        self.gateway.config["log"]["level"] = "info"
        self.books = Books(self.gateway, self.sink)
        self.kills = 0

    def load(self, round_number, size):
        """Sessions that go on whatever happens, for two seconds."""
        log = os.path.join(self.folder, f"load.{round_number}")
        load = Load(f"r{round_number}", os.path.join(self.folder, f"acked.{round_number}"),
                    self.chance.choice((1, 1, 3)))
        self.books.add(load)
        words = [program("hikyaku-bench"), "load", "--to",
                 f"{self.gateway.host}:{self.gateway.port['relay']}", "--sessions", "20",
                 "--messages-per-session", "5", "--seconds", "2", "--size", size, "--keep-going",
                 "--rcpt-count", str(load.rcpt_count), "--timeout", "15",
                 "--record", load.path, "--run-id", load.run_id, "--json"]
        if self.chance.random() < 0.5:
            words.append("--pipeline-deep")
        return load, Program(words, log)

    def round(self, number):
        g, size = self.gateway, self.chance.choice(SIZES)
        load, process = self.load(number, size)
        until(lambda: os.path.exists(load.path) and os.path.getsize(load.path) or
              process.process.poll() is not None, "the first 250")
        for _ in range(2):  # two deaths a round
            time.sleep(self.chance.uniform(0.3, 0.9))
            since = time.time()
            g.kill()
            self.books.died(since, time.time())
            self.kills += 1
            began = time.monotonic()
            g.start()
            expect(time.monotonic() - began < patient(10), "ready within 10 s, more or less")
        process.wait(60)
        result = json.loads(process.log().strip().split("\n")[-1])
        self.books.ended(load, result)
        expect(result["acked"] > 0, "something was acknowledged:", result)

    def verdict(self):
        self.books.drain()
        self.books.verdict()


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
    run.books.summary["kills"] = run.kills
    return run.books.summary


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
