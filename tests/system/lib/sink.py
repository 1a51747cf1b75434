"""hikyaku-bench sink: the scripted next hop, its Maildir and its records."""
import json
import os

from lib import harness
from lib.harness import Program, expect_equal, program, until


class Sink:
    """options: those of hikyaku-bench sink. Records of what it took: records(). maildir: whether
    it keeps the messages, or where."""

    def __init__(self, folder, *options, host=None, port=None, name="sink", maildir=True):
        self.host = host or harness.address()
        self.port = port or harness.free_port(self.host)
        self.folder, self.name, self.options = folder, name, list(options)
        self.record = os.path.join(folder, f"{name}.jsonl")
        if maildir is True:
            maildir = os.path.join(folder, f"{name}.mail")
        self.maildir = maildir or None
        self.process = None
        self.start()

    @property
    def address(self):
        return f"{self.host}:{self.port}"

    @property
    def smart_host(self):
        return f"[{self.host}]:{self.port}"

    def start(self, *options):
        """Starts it, or starts it again with other options on the same address."""
        if options:
            self.options = list(options)
        words = [program("hikyaku-bench"), "sink", "--bind", self.address, "--record", self.record]
        if self.maildir:
            words += ["--maildir", self.maildir]
        self.process = Program(words + self.options, os.path.join(self.folder, f"{self.name}.log"))
        until(lambda: harness.answers(self.host, self.port) or not self.process.alive(),
              "the sink answers")
        harness.expect(self.process.alive(), "the sink started:", self.process.log())

    def stop(self):
        """Its totals."""
        expect_equal(self.process.stop(), 0, "exit status of the sink")
        return json.loads(self.process.log().strip().split("\n")[-1])

    def restart(self, *options):
        if self.process.alive():
            self.stop()
        self.start(*options)

    def records(self):
        try:
            with open(self.record, encoding="utf-8") as file:
                return [json.loads(line) for line in file.read().split("\n")[:-1]]
        except FileNotFoundError:
            return []

    def wait(self, count, seconds=20):
        """The records, as soon as there are `count`."""
        until(lambda: len(self.records()) >= count,
              f"{count} messages at {self.name}", seconds)
        return self.records()

    def message(self, record):
        with open(os.path.join(self.maildir, "new", os.path.basename(record["file"])), "rb") as f:
            return f.read()

    def messages(self):
        """The bytes of each message, in the order in which they came."""
        return [self.message(r) for r in self.records()]


def without_trace(message):
    """(Received lines added on the way, the rest)."""
    added = []
    while message[:9].lower() == b"received:":
        end = message.index(b"\r\n") + 2
        while message[end:end + 1] in (b" ", b"\t"):
            end = message.index(b"\r\n", end) + 2
        added.append(message[:end])
        message = message[end:]
    return added, message
