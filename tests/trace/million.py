#!/usr/bin/env python3
"""make trace-million: a tracking log of a million messages over thirty days, made by the gateway's
own log and writer, and what `hikyakuctl trace` takes for each kind of question.

    million.py --build build [--messages N] [--goal SECONDS] [--folder DIR] [--first]

Each question is asked of messages that lie anywhere in the month, with the files in the page
cache and without (posix_fadvise). Exit status 1: an answer was wrong, or the median of its kind
took longer than the goal. A sender that is in every block of the log has none: all of it is read.
--first: questions go before all other sessions of this machine (root; autogroup -20), as if it
were quiet.
"""
import argparse
import glob
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time

ROUNDS = 7


def questions(i):
    """Of message i of fill.c: kind -> (expression, is a message of the answer right, a goal)."""
    qid = f"0{i:012X}"
    handed = i - i % 1000 + 7
    sender = i * 7919 % 20000
    is_it = lambda m: m["qid"] == qid
    return {
        "id": (f"qid={qid}", is_it, True),
        "recipient": (f"recipient=u{i}@domain{i % 5000}.example", is_it, True),
        "sender (50 messages in the month)": (
            f"sender=s{sender}@client.example",
            lambda m: int(m["qid"][1:], 16) * 7919 % 20000 == sender, True),
        "sender and recipient": (
            f"sender=s{sender}@client.example and recipient=u{i}@domain{i % 5000}.example",
            is_it, True),
        "message_id": (f"message_id=<{i}@client.example>", is_it, True),
        "session": (f"session=03{i // 5:08x}{i % 4096:06x}", is_it, True),
        "origin": (f"origin=5{handed:012X}", lambda m: m["qid"] == f"0{handed:012X}", True),
        "a newsletter's sender (10,000 messages)": (
            "sender=newsletter@client.example", lambda m: int(m["qid"][1:], 16) % 100 == 50,
            False)}


def forget(files):
    for path in files:
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def apart():
    """A session of its own, whose weight can be set. The parent waits for it."""
    child = os.fork()
    if child:
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    os.setsid()


def weigh(nice):
    with open("/proc/self/autogroup", "w", encoding="ascii") as file:
        file.write(str(nice))


def ask(ctl, path, question):
    """(seconds, seconds of processor, right)"""
    expr, right, _ = question
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([ctl, "--json", "trace", expr, "--file", path], stdout=subprocess.PIPE,
                          check=True)
    took, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    messages = json.loads(done.stdout)["messages"]
    return (took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
            bool(messages) and all(right(m) for m in messages))


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--build", default="build")
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--goal", type=float, default=1.0)
    parser.add_argument("--folder")
    parser.add_argument("--first", action="store_true")
    options = parser.parse_args()
    if options.first:
        apart()
    ctl = os.path.join(options.build, "hikyakuctl")
    failed = False
    with tempfile.TemporaryDirectory(prefix="hikyaku-trace-", dir=options.folder) as folder:
        path = os.path.join(folder, "tracking.jsonl")
        start = time.monotonic()
        subprocess.run([os.path.join(options.build, "tests/trace/fill"), path,
                        str(options.messages)], check=True)
        files = glob.glob(path + "*")
        size = sum(os.path.getsize(f) for f in files)
        print(f"{options.messages} messages written, packed and indexed in "
              f"{time.monotonic() - start:.0f} s: {len(files)} files, {size / 2**20:.0f} MiB, of "
              f"which {os.path.getsize(path) / 2**20:.0f} MiB not packed yet")
        if options.first:
            weigh(-20)
        chance = random.Random(1)
        # No failed one, whose report is found, too; no newsletter.
        picked = [i - (i % 100 in (9, 50))
                  for i in (chance.randrange(options.messages) for _ in range(ROUNDS))]
        print(f"{'question':42} {'median':>8} {'longest':>8} {'CPU':>8} {'cold':>8}   seconds")
        for kind, (_, _, has_goal) in questions(0).items():
            asked = [questions(i)[kind] for i in (picked if has_goal else picked[:2])]
            ask(ctl, path, asked[0])
            warm = [ask(ctl, path, question) for question in asked]
            forget(files)
            cold = ask(ctl, path, asked[0])
            median = statistics.median(t[0] for t in warm)
            right = cold[2] and all(t[2] for t in warm)
            late = has_goal and median > options.goal
            failed |= late or not right
            print(f"{kind:42} {median:8.3f} {max(t[0] for t in warm):8.3f} "
                  f"{statistics.median(t[1] for t in warm):8.3f} {cold[0]:8.3f}"
                  f"{'' if right else '   WRONG ANSWER'}{'   TOO SLOW' if late else ''}",
                  flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
