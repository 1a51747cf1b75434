#!/usr/bin/env python3
"""Who keeps the promise: the same power cut for Hikyaku and for others, each with its defaults.

    tests/crash/scoreboard.py [--cuts N] [--fs ext4|xfs] [SERVER...]

Each server has its spool on a file system on a loop device (disk.py), takes mail from 20 sessions
for up to two seconds, delivery held back, and then that file system is shut down without its
journal. What clients had read 250 for before that moment counts as acknowledged. A session after
the cut shows the answer to a disk that fails. Then the server is killed, the copy of the image is
mounted, the server started on it, and everything that it still has is delivered to a sink.
Servers are unpacked below build/peers, Haraka below build/haraka; nothing is installed, and none
of their sync settings is touched.
"""
import argparse
import glob
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))),
                                "system"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from lib import certs, gateway, harness, peers  # noqa: E402
from lib.harness import Program, Skip, expect, run, until  # noqa: E402
from lib.sink import Sink  # noqa: E402
from books import Lines, Load  # noqa: E402
from disk import Disk  # noqa: E402

DRAIN_S = 90
PATTERN = re.compile(rb"X-Bench-Id: *(\w+-\d+-\d+)")  # records of Postfix have no line ends


class Contestant:
    """spool: the folder, below its own, that lies on the disk to be cut."""

    spool, quiet_s, burst_s = "spool", 8, 2

    def __init__(self, folder, disk, sink_address):
        self.disk, self.bound = disk, False
        self.sink_host, self.sink_port = sink_address
        self.draining = False

    def on_disk(self):
        """The spool's place is a folder of the disk, now and after each start of it."""
        here, there = os.path.join(self.disk.path, "spool"), os.path.join(self.dir, self.spool)
        os.makedirs(here, exist_ok=True)
        os.makedirs(there, exist_ok=True)
        if self.bound:
            run(["umount", "-l", there])
        stat = os.stat(there)
        run(["mount", "--bind", here, there])
        if not self.bound:
            os.chown(there, stat.st_uid, stat.st_gid)
            os.chmod(there, stat.st_mode & 0o7777)
        self.bound = True

    def release(self):
        if self.bound:
            run(["umount", "-l", os.path.join(self.dir, self.spool)])

    def drain(self):
        """Started again, with delivery on."""
        self.draining = True
        self.start()

    def arrived(self, sink):
        return [r["id"] for r in sink.records()]

    def still_there(self):
        """What lies in its spool and was not delivered in the time given is not lost."""
        found = set()
        for folder, _, names in os.walk(os.path.join(self.dir, self.spool)):
            for path in (os.path.join(folder, name) for name in names):
                if not os.path.isfile(path):  # a socket, a pipe
                    continue
                with open(path, "rb") as file:
                    found |= {i.decode("ascii", "replace") for i in PATTERN.findall(file.read())}
        return found


class Peer(Contestant, peers.Server):
    """One of the servers below build/peers."""

    def __init__(self, folder, disk, sink_address):
        Contestant.__init__(self, folder, disk, sink_address)
        peers.Server.__init__(self, folder, type(self).__name__.lower(), certs.leaf("score.test"),
                              sink_host=self.sink_host, sink_port=self.sink_port,
                              more=self.more())

    def more(self):
        return ""


class Postfix(Peer, peers.PostfixRelay):
    spool = "queue"

    def more(self):
        """Tried again at once; nothing that has to do with disks."""
        return "queue_run_delay = 1s\nminimal_backoff_time = 1s\nmaximal_backoff_time = 1s"

    def prepare(self):
        os.makedirs(os.path.join(self.dir, "queue"))
        self.on_disk()
        peers.PostfixRelay.prepare(self)


class Exim(Peer, peers.EximRelay):
    def prepare(self):
        self.own("spool", "log")
        self.on_disk()
        peers.EximRelay.prepare(self)

    def words(self):
        return peers.EximRelay.words(self) + (["-q1s"] if self.draining else [])


class OpenSMTPD(Peer, peers.OpensmtpdRelay):
    @property
    def held(self):
        return not self.draining

    def prepare(self):
        os.makedirs(os.path.join(self.dir, "spool"))
        self.on_disk()
        peers.OpensmtpdRelay.prepare(self)


class Haraka(Peer, peers.HarakaRelay):
    spool, held = "queue", True

    def prepare(self):
        os.makedirs(os.path.join(self.dir, "queue"))
        self.on_disk()
        peers.HarakaRelay.prepare(self)

    def drain(self):
        self.hold(False)
        super().drain()


class Chasquid(Peer, peers.ChasquidLocal):
    """Local delivery by a script, which says "later" until there is a file `open`."""

    spool = "data"
    burst_s = 0.3  # it takes 200 messages that it cannot deliver, and then no more
    aliases = "".join(f"user{i}: box@bench.test\n" for i in range(10))

    def prepare(self):
        self.own("data")
        self.on_disk()
        self.values["more"] = (f'mail_delivery_agent_bin: "{self.dir}/deliver"\n'
                               'mail_delivery_agent_args: "%to%"')
        with open(os.path.join(self.dir, "deliver"), "w", encoding="ascii") as file:
            file.write(f"#!/bin/sh\n[ -e {self.dir}/open ] || exit 75\n"
                       f"exec grep -a X-Bench-Id: >>{self.dir}/delivered\n")
        os.chmod(os.path.join(self.dir, "deliver"), 0o755)
        peers.ChasquidLocal.prepare(self)

    def drain(self):
        with open(os.path.join(self.dir, "open"), "wb"):
            super().drain()

    def arrived(self, sink):
        try:
            with open(os.path.join(self.dir, "delivered"), "rb") as file:
                return [i.decode("ascii") for i in PATTERN.findall(file.read())]
        except FileNotFoundError:
            return []


class Plain(Contestant):
    """A program without accounts of its own."""

    name = ""

    def __init__(self, folder, disk, sink_address):
        super().__init__(folder, disk, sink_address)
        self.host, self.port = harness.address(), harness.free_port()
        self.dir = os.path.join(folder, type(self).__name__.lower())
        os.makedirs(os.path.join(self.dir, self.spool))
        self.on_disk()
        self.prepare()
        self.start()

    def prepare(self):
        pass

    def start(self):
        self.process = Program(self.words(), os.path.join(self.dir, "out"), group=True)
        until(lambda: harness.answers(self.host, self.port) or not self.process.alive(),
              f"{self.words()[0]} answers", 30)
        expect(self.process.alive(), "it started:", self.process.log())

    def power_off(self):
        self.process.kill()


class Control(Plain):
    """Answers 250 for what it has written and not synced."""

    quiet_s = 0

    def words(self):
        return [sys.executable, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                             "unsynced.py"), self.host, str(self.port),
                os.path.join(self.dir, self.spool)]

    def arrived(self, sink):
        found = []
        for path in glob.glob(os.path.join(self.dir, self.spool, "*")):
            with open(path, "rb") as file:
                about = PATTERN.search(file.read())
            found += [about[1].decode("ascii")] if about else []
        return found


class Hikyaku(Contestant):
    """The gateway, one shard."""

    def __init__(self, folder, disk, sink_address):
        super().__init__(folder, disk, sink_address)
        self.gateway = gateway.Gateway(folder, name="hikyaku", shards=1)
        self.dir = self.gateway.dir
        self.host, self.port = self.gateway.host, self.gateway.port["relay"]
        self.gateway.config["spool"].pop("max_size")
        self.gateway.config["send_connectors"] = [
            gateway.smart_host("out", f"[{self.sink_host}]:{self.sink_port}")]
        self.on_disk()
        self.start()

    def start(self):
        self.gateway.start()

    def power_off(self):
        self.gateway.kill()


SERVERS = {c.__name__: c for c in (Hikyaku, Postfix, Exim, OpenSMTPD, Haraka, Chasquid, Control)}


def answer_without_disk(server):
    """The first answer that is not good of a session after the cut."""
    try:
        with socket.create_connection((server.host, server.port), 10) as s:
            s.settimeout(10)
            file = s.makefile("rwb")
            for line in (b"", b"HELO client.test", b"MAIL FROM:<probe@sender.test>",
                         b"RCPT TO:<user1@bench.test>", b"DATA", b"Subject: x\r\n\r\ntext\r\n."):
                if line:
                    file.write(line + b"\r\n")
                    file.flush()
                reply = file.readline()
                while reply[3:4] == b"-":
                    reply = file.readline()
                if reply[:1] not in (b"2", b"3"):
                    return reply.decode("ascii", "replace").strip() or "connection closed"
            return "250, from memory"
    except OSError as error:
        return "no answer" if isinstance(error, TimeoutError) else str(error.strerror or error)


def one(folder, name, fs):
    """(acknowledged, lost, arrived more than once, (what open sessions heard, a new one))"""
    with Disk(folder, fs) as disk:
        address = (harness.address(), harness.free_port())
        server = SERVERS[name](folder, disk, address)
        try:
            run(["sync", "-f", disk.path])
            load = Load("score", os.path.join(folder, "acked"))
            load.start(server, 60, "--sessions", "20", "--messages-per-session", "50", "--size",
                       "4KiB", "--to-count", "10")
            acked = Lines(load.path)
            before = until(acked.new, "a first 250", 30, 0.05)
            time.sleep(server.burst_s)
            before += acked.new()
            disk.cut()
            time.sleep(0.5)
            answer = answer_without_disk(server)
            load.process.signal(signal.SIGTERM)
            told = load.wait()
            server.power_off()
            disk.power_on()
            server.on_disk()
            sink = Sink(folder, host=address[0], port=address[1], maildir=False)
            server.drain()
            settle(server, sink, set(before))
            server.power_off()
            time.sleep(0.3)  # the sink takes what lies in its sockets
            got = server.arrived(sink)
            missing = set(before) - set(got) - server.still_there()
            if missing:
                print(f"  lost: {sorted(missing)[:20]}", file=sys.stderr)
            open_sessions = told["refusals"] or told["errors"] or {"nothing": 1}
            return (len(before), len(missing), len(got) - len(set(got)),
                    (max(open_sessions, key=open_sessions.get), answer))
        finally:
            server.power_off()
            server.release()


def settle(server, sink, acked):
    """Waits until all is there or nothing comes any more."""
    end = time.monotonic() + DRAIN_S
    last, since = -1, time.monotonic()
    while time.monotonic() < end:
        got = server.arrived(sink)
        if acked <= set(got):
            return
        if len(got) != last:
            last, since = len(got), time.monotonic()
        if time.monotonic() - since > server.quiet_s:
            return
        time.sleep(0.3)


def play(name, cuts, fs):
    acked, lost, twice, answers, rounds = 0, 0, 0, {}, []
    for _ in range(cuts):
        folder = tempfile.mkdtemp(prefix="hikyaku-score-")
        os.chmod(folder, 0o755)
        try:
            a, missing, copies, answer = one(folder, name, fs)
        finally:
            harness.end_all()
            if "HIKYAKU_KEEP" in os.environ:
                print("kept:", folder)
            else:
                shutil.rmtree(folder, ignore_errors=True)
        acked, lost, twice = acked + a, lost + missing, twice + copies
        rounds.append(f"{a}/{missing}")
        answers[answer] = answers.get(answer, 0) + 1
    return acked, lost, twice, max(answers, key=answers.get), rounds


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cuts", type=int, default=3)
    parser.add_argument("--fs", choices=("ext4", "xfs"), default="ext4")
    parser.add_argument("servers", nargs="*", default=list(SERVERS))
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    print("| server | cuts | acknowledged | lost | twice | open sessions, disk gone | a new one |\n"
          "|---|---|---|---|---|---|---|")
    for name in args.servers:
        try:
            acked, lost, twice, answer, rounds = play(name, args.cuts, args.fs)
            print(f"| {name} | {args.cuts} | {acked} | {lost} | {twice} | {answer[0]} | "
                  f"`{answer[1]}` |", flush=True)
            print(f"  acknowledged/lost by cut: {' '.join(rounds)}", file=sys.stderr)
        except Skip as why:
            print(f"| {name} | not run: {why} |", flush=True)
        except (AssertionError, OSError, subprocess.SubprocessError) as error:
            print(f"| {name} | not run: {str(error)[-300:]} |", flush=True)


if __name__ == "__main__":
    main()
