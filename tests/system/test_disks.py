#!/usr/bin/env python3
# time-limit: 400
# builds: asan
"""A gateway whose disk is full, out of inodes, fails or stands still: ext4 and XFS on loop devices.

What clients are told, what goes on meanwhile, and that all of it ends by itself and loses nothing.
The file systems are those of tests/crash/disk.py; without root or loop devices this is skipped.
"""
import os
import re
import socket
import sys
import time

from lib.gateway import Gateway, smart_host
from lib.harness import (ROOT, case, expect, expect_equal, main, patient, run,
                         together, until)
from lib.sink import Sink

sys.path.insert(0, os.path.join(ROOT, "tests", "crash"))
from books import Books, Load  # noqa: E402
from disk import Disk, needs  # noqa: E402

COMMIT_WAIT_S = 15  # SESSION_COMMIT_WAIT_NS
FREEZE_S = int(os.environ.get("HIKYAKU_FREEZE_S", "0"))  # longer than that, if asked to
LATER = ("--reply", "rcpt=451 4.2.1 later")
NEVER = ("--reply", "rcpt~*@refused.test=550 5.1.1 nobody")


class Client:
    """One SMTP session, line by line; replies are their codes."""

    def __init__(self, gateway):
        self.socket = socket.create_connection((gateway.host, gateway.port["relay"]), patient(30))
        self.file = self.socket.makefile("rwb")
        expect_equal(self.reply(), 220, "greeting")
        expect_equal(self.say("HELO client.test"), 250, "HELO")

    def reply(self):
        while True:
            self.last = self.file.readline().decode("ascii")
            if self.last[3:4] != "-":
                return int(self.last[:3] or 0)

    def put(self, *lines):
        self.file.write("".join(line + "\r\n" for line in lines).encode("ascii"))
        self.file.flush()

    def say(self, *lines):
        self.put(*lines)
        return self.reply()

    def mail(self, name):
        """The answer to MAIL, or to DATA when that went on."""
        code = self.say(f"MAIL FROM:<{name}@sender.test>")
        if code != 250:
            return code
        expect_equal(self.say(f"RCPT TO:<{name}@rcpt.test>"), 250, "RCPT")
        return self.say("DATA")

    def send(self, name):
        """The last answer."""
        code = self.mail(name)
        return self.say(f"Subject: {name}", "", "text", ".") if code == 354 else code

    def quiet(self, seconds):
        """No reply for that long."""
        self.socket.settimeout(seconds)
        try:
            got = self.socket.recv(1, socket.MSG_PEEK)
            expect(False, "a reply came:", got + self.socket.recv(200))
        except TimeoutError:
            pass
        finally:
            self.socket.settimeout(patient(30))

    def close(self):
        self.socket.close()


class Rig:
    """A gateway with its spool on this disk, a next hop, and one that takes the reports."""

    def __init__(self, folder, disk, *options, shards=1, **spool):
        name = f"{len(os.listdir(folder))}"
        self.folder, self.disk, self.loads = folder, disk, 0
        self.sink = Sink(folder, *options, name=f"sink{name}", maildir=False)
        self.reports = Sink(folder, name=f"reports{name}",
                            maildir=os.path.join(disk.images, f"reports{name}"))
        self.gateway = Gateway(folder, self.sink, name=f"gw{name}", shards=shards)
        self.gateway.config["spool"] = {"path": os.path.join(disk.path, "spool"),
                                        "max_size": "1GiB", "min_free": "1MiB", **spool}
        self.gateway.config["log"]["level"] = "info"
        self.gateway.config["send_connectors"].append(
            smart_host("back", self.reports.smart_host, space="sender.test"))
        self.books = Books(self.gateway, self.sink, self.reports)
        self.gateway.start()

    def load(self, *words, seconds=1, **options):
        """What a load counted, which goes on whatever it is answered."""
        self.loads += 1
        name = f"{os.path.basename(self.gateway.dir)}.{self.loads}"
        load = Load(name, os.path.join(self.folder, f"acked.{name}"), **options)
        self.books.add(load)
        if "--messages" in words:  # it ends with them
            seconds = patient(30)
        result = load.start(self.gateway, seconds, *words).wait()
        self.books.ended(load, result)
        return result

    def load_until_refused(self, *words):
        """How fast the disk fills is the machine's business."""
        answers = {}
        end = time.monotonic() + patient(40)
        while not answers:
            expect(time.monotonic() < end, "something is refused")
            answers = self.load("--sessions", "8", *words, seconds=2)["refusals"]
        return set(answers)

    def ready(self, what, seconds=15):
        until(self.gateway.ready, f"ready {what}", seconds)

    def refuses(self, status, seconds=5):
        """/readyz says no, and a client hears this status."""
        until(lambda: self.gateway.get("/readyz").status == 503, "/readyz turns 503", seconds)
        until(lambda: re.search(status, self.answer_to_mail()), f"MAIL is answered {status}",
              seconds)

    def answer_to_mail(self):
        client = Client(self.gateway)
        client.mail("nobody")
        answer = client.last
        client.close()
        return answer

    def settle(self):
        """Everything goes out; the books agree."""
        self.sink.restart(*NEVER)
        self.books.drain()
        self.books.verdict()
        self.gateway.stop()
        expect(self.books.summary["acknowledged"] > 0, "mail was taken:", self.books.summary)
        print("# " + ", ".join(f"{k} {v}" for k, v in self.books.summary.items()), flush=True)


# ---- no room ------------------------------------------------------------------------------------


def fill_bytes(disk):
    with open(os.path.join(disk.path, "filler"), "wb") as file:
        size = disk.free_bytes()
        while size >= 4096:
            try:
                os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, size)
            except OSError:
                size //= 2
    return lambda: os.unlink(file.name)


def fill_inodes(disk):
    folder = os.path.join(disk.path, "many")
    os.mkdir(folder)
    try:
        for i in range(1000000):
            os.mknod(os.path.join(folder, str(i)))
    except OSError:
        pass
    return lambda: run(["rm", "-r", folder])


def no_room(folder, fs, fill, *options):
    """Full under load; deliveries, reports and removals go on; room again, mail again."""
    with Disk(folder, fs, mib=420, options=options) as disk:
        rig = Rig(folder, disk, *LATER)
        g = rig.gateway
        rig.load("--sessions", "2", "--messages", "20", "--size", "4KiB", refused=True)
        client = Client(g)
        expect_equal(client.send("removed"), 250, "one to be removed")
        empty = fill(disk)
        answers = rig.load_until_refused("--size", "1MiB")
        expect(answers <= {"452 at mail", "452 at data", "452 at eod"},
               "452 when the spool is full:", answers)
        rig.refuses("^452 4.3.1")
        g.ctl("queue", "remove", "--filter", "sender=removed@sender.test")
        until(lambda: not g.queue("sender=removed@sender.test"), "it is removed")
        rig.sink.restart(*NEVER)
        until(lambda: len(rig.reports.records()) >= 20, "reports go out of a full spool", 30)
        until(lambda: g.queued() == 0, "deliveries go on", 30)
        empty()
        rig.ready("when there is room again", 40)
        expect_equal(client.send("after"), 250, "after")
        rig.load("--sessions", "4", "--messages", "50")
        until(lambda: any(r["from"].startswith("after@") for r in rig.sink.records()), "it came")
        rig.settle()


@case("F57 no room: 452 at MAIL, deliveries, reports and removals go on, recovers", 90)
def full(folder):
    needs("ext4")
    needs("xfs")
    together(folder, {
        "F57 ext4 is full": lambda f: no_room(f, "ext4", fill_bytes),
        "F57 XFS is full": lambda f: no_room(f, "xfs", fill_bytes),
        "F57 ext4 has no inodes left": lambda f: no_room(f, "ext4", fill_inodes, "-N", "256")})


# ---- a disk that fails --------------------------------------------------------------------------


METADATA = 32 << 20  # of an image of 1 GiB: tables, bitmaps, journal, all at its beginning


def touch_journal(disk):
    """The file system's own blocks are there when others are not to be had: it would go read-only
    for good when it could not write one. And the journal is written round once."""
    with open(disk.image, "r+b") as file:
        os.posix_fallocate(file.fileno(), 0, METADATA)
    for i in range(1500):
        path = os.path.join(disk.path, f"touch.{i % 10}")
        fd = os.open(path, os.O_CREAT | os.O_WRONLY)
        os.fsync(fd)
        os.close(fd)
        os.unlink(path)


def failing(folder, write):
    """The image lies on a small tmpfs: its blocks run out, which the file system above cannot know:
    its writes fail, those through the page cache once and late."""
    small = os.path.join(folder, "small")
    os.mkdir(small)
    run(["mount", "-t", "tmpfs", "-o", "size=180m", "tmpfs", small])
    try:
        options = ("-J", "size=4", "-E",
                   "lazy_itable_init=0,lazy_journal_init=0,packed_meta_blocks=1")
        with Disk(folder, "ext4", mib=1024, options=options, within=small) as disk:
            disk.one_page_requests()
            touch_journal(disk)
            rig = Rig(folder, disk, *LATER, write=write)
            rig.load("--sessions", "4", "--messages", "200")
            answers = rig.load_until_refused("--size", "200KiB")
            expect({a[:3] for a in answers} <= {"451", "452"}, "writes failed:", answers)
            rig.refuses("^45[12] 4.3")
            run(["mount", "-o", "remount,size=1500m", small])
            rig.ready("when writes work again", 45)
            rig.load("--sessions", "4", "--messages", "200")
            # What was acknowledged is on the disk, not only in memory.
            since = time.time()
            rig.books.cut_begins()
            disk.cut()
            rig.gateway.kill()
            rig.books.died(since, time.time())
            disk.power_on()
            rig.books.cut_ended()
            rig.gateway.start()
            rig.settle()
    finally:
        run(["umount", "-l", small])


@case("F56 a disk that fails: 451, nothing is lost, goes on when it works", 90)
def fails(folder):
    needs("ext4")
    together(folder, {
        "F56 a disk that fails under direct writes": lambda f: failing(f, "direct"),
        "F56 a disk that fails at write-back, once": lambda f: failing(f, "buffered")})


# ---- a disk that stands still -------------------------------------------------------------------


class Frozen:
    """One file system of the case, two clients."""

    def __init__(self, folder, fs):
        self.disk = Disk(folder, fs, mib=512)
        self.rig = Rig(folder, self.disk)
        self.gateway = self.rig.gateway
        self.waits, self.other = Client(self.gateway), Client(self.gateway)

    def put(self, name):
        """A message on a frozen file system: everything but the answer."""
        expect_equal(self.waits.mail(name), 354, "DATA")
        self.disk.freeze()
        self.waits.put(f"Subject: {name}", "", "text", ".")
        self.since = time.monotonic()

    def others_live(self, mail=250):
        began = time.monotonic()
        expect_equal(self.other.say("MAIL FROM:<a@b.test>"), mail, "MAIL meanwhile")
        expect_equal(self.other.say("RSET"), 250, "RSET meanwhile")
        Client(self.gateway).close()
        expect_equal(self.gateway.get("/healthz").status, 200, "healthz")
        took = time.monotonic() - began
        expect(took < COMMIT_WAIT_S / 2, "other sessions are answered at once:", took)
        self.waits.quiet(0.05)

    def given_up(self):
        expect_equal(self.waits.reply(), 451, "the answer of a disk that stands still")
        took = time.monotonic() - self.since
        expect(COMMIT_WAIT_S - 0.5 < took < COMMIT_WAIT_S + 45, "451 after a time:", took)
        self.rig.refuses("^451 4.3.0")
        expect_equal(self.waits.mail("late"), 451, "the next message")

    def thawed(self):
        self.rig.ready("when it thaws")
        expect_equal(self.waits.send("late"), 250, "tried again")
        withdrawn = self.gateway.wait_tracking("withdrawn")
        expect_equal([w["sender"] for w in withdrawn], ["late@sender.test"], "withdrawn")
        until(lambda: len(self.rig.sink.records()) >= 3 and self.gateway.queued() == 0, "delivered")
        self.gateway.restart()
        self.gateway.wait_empty()
        expect_equal(sorted(r["from"].split("@")[0] for r in self.rig.sink.records()),
                     ["before", "late", "short"], "delivered once each")
        self.gateway.stop()


@case("F61 a frozen file system: no 250, others live, 451 after a time, goes on when it thaws", 90)
def frozen_file_system(folder):
    both = []
    try:
        for fs in ("ext4", "xfs"):
            both.append(Frozen(folder, fs))
        for f in both:
            expect_equal(f.waits.send("before"), 250, "before")
        for name, seconds in (("short", 1), ("late", COMMIT_WAIT_S - 6)):
            for f in both:
                f.put(name)
            while time.monotonic() - both[0].since < seconds:
                for f in both:
                    f.others_live()
                time.sleep(0.5)
            if name == "late":
                for f in both:
                    f.given_up()
                while time.monotonic() - both[0].since < FREEZE_S:
                    time.sleep(1)
                    for f in both:
                        f.others_live(mail=451)
            for f in both:
                f.disk.thaw()
            if name == "short":
                for f in both:
                    expect_equal(f.waits.reply(), 250, "late, but durable")
        for f in both:
            f.thawed()
    finally:
        for f in both:
            f.disk.close()


if __name__ == "__main__":
    main("disks", beside=3)
