#!/usr/bin/env python3
# time-limit: 60
# builds: release - what reads the gateway's files, not the gateway
"""The books of the crash tests see each line of the tracking log once, whatever becomes of its
files."""
import gzip
import json
import os
import random
import shutil
import sys
import types

from lib.gateway import Gateway
from lib.harness import ROOT, case, expect, expect_equal, main, until
from lib.sink import Sink
from lib.tracking import TrackingLog

sys.path.insert(0, os.path.join(ROOT, "tests", "crash"))
from books import Books, Load  # noqa: E402


def line_of(number, event="accepted", **more):
    at = f"2026-11-22T08:{number // 60 % 60:02}:{number % 60:02}.{number:06}Z"
    return json.dumps({"time": at, "event": event, "number": number, **more},
                      separators=(",", ":")) + "\n"


class Log:
    """A folder with a tracking log, changed as the gateway, its death and a power cut change it."""

    def __init__(self, folder):
        os.makedirs(folder, exist_ok=True)
        self.folder, self.path = folder, os.path.join(folder, "tracking.jsonl")
        self.lines, self.rotations = 0, 0

    def write(self, count, half=0):
        """Whole lines, and so many bytes of one that a kill cut short: the next write ends it."""
        with open(self.path, "a+b") as binary:
            torn = binary.seek(0, os.SEEK_END) and os.pread(
                binary.fileno(), 1, binary.tell() - 1) != b"\n"
        with open(self.path, "a", encoding="utf-8") as file:
            file.write("\n" if torn and count + half else "")
            file.write("".join(line_of(self.lines + i) for i in range(count)))
            file.write(line_of(0)[:half])
        self.lines += count

    def set_aside(self):
        self.rotations += 1
        aside = f"{self.path}-20260101T00{self.rotations // 60:02}{self.rotations % 60:02}.000001Z"
        os.rename(self.path, aside)
        return aside

    @staticmethod
    def pack(aside, steps=3):
        """1: it is being written; 2: has its name; 3: the plain one is gone."""
        with open(aside, "rb") as plain, open(aside + ".gz.tmp", "wb") as packed:
            data = gzip.compress(plain.read())
            packed.write(data if steps > 1 else data[:len(data) // 2])
        if steps > 1:
            open(aside + ".gz.idx", "wb").close()
            os.rename(aside + ".gz.tmp", aside + ".gz")
        if steps > 2:
            os.unlink(aside)

    def asides(self):
        return sorted(os.path.join(self.folder, n) for n in os.listdir(self.folder)
                      if n.endswith("Z"))

    def on_disk(self):
        """Numbers of the lines that are in some file."""
        found = set()
        for name in os.listdir(self.folder):
            if name.endswith((".tmp", ".idx")):
                continue
            with (gzip.open if name.endswith(".gz") else open)(os.path.join(self.folder, name),
                                                               "rb") as file:
                found |= {json.loads(line)["number"]
                          for line in file.read().decode().split("\n")[:-1] if line[-1] == "}"}
        return found


def numbers(reader):
    return [json.loads(line)["number"] for line in reader.new()]


@case("each line once: set aside, packed, packed by halves, killed, taken back")
def once(folder):
    log = Log(folder)
    reader = TrackingLog(log.path)
    expect_equal(numbers(reader), [], "no file")
    log.write(3, half=20)
    expect_equal(numbers(reader), [0, 1, 2], "and not the half one")
    log.write(2)
    expect_equal(numbers(reader), [3, 4], "behind half a line")
    log.write(1)
    aside = log.set_aside()
    expect_equal(numbers(reader), [5], "set aside, none begun")
    log.write(2)
    for steps in (1, 2, 3):
        log.pack(aside, steps)
        expect_equal(numbers(reader), [6, 7] if steps == 1 else [], f"packing, step {steps}")
    log.write(3)
    aside = log.set_aside()
    log.pack(aside, 2)
    os.truncate(aside, len(line_of(0)))  # never synced, and so cut short; the packed one was
    expect_equal(numbers(reader), [8, 9, 10], "both are left, one cut short")
    os.unlink(aside)
    for _ in range(3):
        log.write(2)
        log.pack(log.set_aside())
    log.write(1)
    log.set_aside()
    log.write(1)
    expect_equal(numbers(reader), list(range(11, 19)), "several between two looks")
    expect_equal(numbers(reader), [], "nothing new")
    log.write(2)
    before = os.path.join(folder, "before")
    shutil.copyfile(log.path, before)
    log.write(2)
    expect_equal(numbers(reader), [19, 20, 21, 22])
    os.replace(before, log.path)
    expect_equal(numbers(reader), [], "an older state is nothing new")
    log.write(3)
    expect_equal(numbers(reader), [23, 24, 25], "what came behind the older state")
    back = log.set_aside()
    log.write(1)
    expect_equal(numbers(reader), [26])
    os.rename(back, log.path)
    log.write(1)
    expect_equal(numbers(reader), [27], "the name that it had before, and the newer file is gone")


class Raced(TrackingLog):
    """The gateway goes on while this one reads."""

    def __init__(self, log, chance):
        super().__init__(log.path)
        self.log, self.chance = log, chance

    def meanwhile(self):
        if os.path.exists(self.path) and self.chance.random() < 0.3:
            self.log.write(1)
            self.log.set_aside()
            self.log.write(1)
        for aside in self.log.asides():
            if self.chance.random() < 0.5:
                self.log.pack(aside, self.chance.randrange(1, 4))

    def aside(self):
        self.meanwhile()
        found = super().aside()
        self.meanwhile()
        return found


@case("each line once, in a hundred histories")
def histories(folder):
    def life(seed, place):
        chance, log = random.Random(seed), Log(place)
        reader, seen, saved = Raced(log, chance), [], None
        for _ in range(40):
            what = chance.choice(("write", "write", "rotate", "pack", "look", "save", "cut"))
            if what == "write":
                log.write(chance.randrange(4), chance.choice((0, 0, 0, 9, 30)))
            elif what == "rotate" and os.path.exists(log.path):
                log.set_aside()
            elif what == "pack" and log.asides():
                log.pack(chance.choice(log.asides()), chance.randrange(1, 4))
            elif what == "look":
                there = log.on_disk()
                seen += numbers(reader)
                lacking = there - set(seen)
                expect(not lacking, "not seen:", lacking, "seed", seed)
                expect_equal(len(seen), len(set(seen)), f"each once, seed {seed}: {seen}")
            elif what == "save":
                shutil.rmtree(place + ".saved", ignore_errors=True)
                saved = shutil.copytree(place, place + ".saved")
            elif what == "cut" and saved:
                shutil.rmtree(place)
                shutil.copytree(saved, place)
        return len(seen)
    total = 0
    for seed in range(100):
        total += life(seed, os.path.join(folder, "log"))
        for name in os.listdir(folder):
            shutil.rmtree(os.path.join(folder, name))
    expect(total > 1000, "lines were seen:", total)


@case("F62 a second copy that a packed file of the tracking log explains is no alarm")
def explained(folder):
    def verdict(name, packed):
        log = Log(os.path.join(folder, name))
        record = os.path.join(log.folder, "record")
        copies = [{"id": "r1-0-0", "from": "sender@sender.test", "rcpts": ["u@bench.test"],
                   "body_crc32": 7, "time": 1795300000.0 + i} for i in range(2)]
        with open(record, "w", encoding="utf-8") as file:
            file.write("".join(json.dumps(copy) + "\n" for copy in copies))
        load = Load("r1", os.path.join(log.folder, "acked"))
        with open(load.path, "w", encoding="utf-8") as file:
            file.write("r1-0-0\n")
        books = Books(types.SimpleNamespace(tracking_path=log.path),
                      types.SimpleNamespace(record=record))
        books.add(load)
        books.crcs.add(7)
        with open(log.path, "w", encoding="utf-8") as file:
            file.write('{"time":"2026-11-21T22:26:40.100000Z","event":"dup_possible"}\n'
                       '{"time":"2026-11-21T22:26:40.200000Z","event":"accepted",'
                       '"durable_us":300000}\n' if packed else "{}\n")
        log.pack(log.set_aside())
        books.verdict()
        return books
    books = verdict("packed", True)
    expect_equal(len(books.possible), 1, "dup_possible")
    expect_equal(books.slowest_s, 0.3, "the slowest commit")
    expect_equal(books.summary["packed tracking files"], 1, "packed tracking files")
    try:
        verdict("nothing", False)
    except AssertionError as error:
        expect("nobody explains" in str(error), error)
    else:
        raise AssertionError("a duplicate without a cause is none for the books")


@case("each line once while the gateway sets files aside and packs them")
def rotated(folder):
    g = Gateway(folder, Sink(folder))
    g.config["log"]["tracking_size"] = "1MiB"
    g.start()
    log = Log(g.dir)
    reader, seen = TrackingLog(g.tracking_path), []

    def looked(done):
        def probe():
            seen.extend(json.loads(line)["number"] for line in reader.new() if '"number"' in line)
            return done()
        return probe
    for files in range(1, 4):
        with open(g.tracking_path, "a", encoding="utf-8") as file:
            file.write("".join(line_of(log.lines + i, "old", filling="x" * 400)
                               for i in range(2500)))
        log.lines += 2500
        g.hangup()  # it looks how long the file is
        until(looked(lambda n=files: sum(name.endswith("Z.gz") for name in os.listdir(g.dir)) == n),
              f"{files} packed")
    until(looked(lambda: not log.asides()), "the plain ones are gone")
    expect_equal(len(seen), log.lines, "lines")
    expect_equal(sorted(seen), list(range(log.lines)), "each once")
    expect_equal(len(g.tracking("old")), log.lines, "and all for one that begins to read now")
    g.stop()


if __name__ == "__main__":
    main("books")
