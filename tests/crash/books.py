"""What was acknowledged, what arrived, and whether the two agree.

hikyaku-bench load writes down each id whose 250 it has read, hikyaku-bench sink each message. With
the queue empty:
 * every recipient of an acknowledged id has its message, or, where the next hop refuses it for
   good, its sender a report (P1);
 * what came more than once is explained (P2): its delivery was logged dup_possible, or the copy was
   taken just before the gateway died, between the next hop's 250 and our durable record of it;
 * every body is whole: its CRC is that of the bodies sent;
 * nothing comes again after the queue was empty once.
An id that nobody acknowledged may arrive once or not at all, never half.

One exception: XFS that is shut down under a running sync, and a disk that is cut, may let this one
sync return 0 although its data is gone (sync_race.py shows it; a machine without power returns from
nothing). So, with forgiving=True, what a session read between cut_begins() and cut_ended() may be
lost once a session; it is counted as `answered as the cut came`. A report stored with that sync is
made again.
"""
import collections
import datetime
import glob
import json
import os
import re

from lib.harness import Program, expect, expect_equal, program, until
from lib.tracking import TrackingLog

# The record of a delivery is durable within tens of milliseconds; where other tests take the cores
# and the disk, 0.34 s was seen. The clocks of all programs are one; the slack is rounding.
COMMIT_S, SLACK_S = 0.6, 0.05
# A sink takes what lies in its sockets' buffers after the death; test_cut's holds some for 0.4 s.
SINK_S = 1.0


def when(text):
    """Seconds of a time in a log line or a record."""
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


class Load:
    """One run of hikyaku-bench load. refused: its recipients are refused for good."""

    def __init__(self, run_id, path, rcpt_count=1, refused=False):
        self.run_id, self.path = run_id, path
        self.rcpt_count, self.refused = rcpt_count, refused

    def start(self, gateway, seconds, *words):
        """Sessions that go on whatever happens, to a gateway or to (what has) host and port."""
        port = gateway.port["relay"] if isinstance(gateway.port, dict) else gateway.port
        domain = "refused.test" if self.refused else "bench.test"
        self.process = Program(
            [program("hikyaku-bench"), "load", "--to", f"{gateway.host}:{port}",
             "--messages-per-session", "5", "--seconds", str(seconds), "--keep-going", "--timeout",
             "8", "--record", self.path, "--run-id", self.run_id, "--rcpt-count",
             str(self.rcpt_count), "--to-pattern", f"user%@{domain}", "--from",
             "sender%@sender.test", "--json", *words], self.path + ".log")
        return self

    def wait(self):
        """What it counted."""
        self.process.wait(90)
        return json.loads(self.process.log().strip().split("\n")[-1])


class Lines:
    """The lines that a file has got since the last call. One that is never set aside: the tracking
    log is read by TrackingLog."""

    def __init__(self, path):
        self.path, self.at = path, 0

    def new(self):
        try:
            with open(self.path, encoding="utf-8") as file:
                file.seek(self.at)
                text = file.read()
        except FileNotFoundError:
            return []
        whole = text[:text.rfind("\n") + 1]
        self.at += len(whole.encode("utf-8"))
        return whole.split("\n")[:-1]


class Books:
    """sink: takes the mail; reports: a sink with a Maildir that takes what goes to the senders."""

    def __init__(self, gateway, sink, reports=None, forgiving=False):
        self.gateway, self.reports, self.forgiving = gateway, reports, forgiving
        self.taken, self.tracked = Lines(sink.record), TrackingLog(gateway.tracking_path)
        self.loads, self.acked_files, self.crcs = {}, {}, set()
        self.acked, self.late = [], {}  # late: {id: number of the cut}
        self.deaths = []  # (from, until): a copy taken then need not be known after the restart
        self.possible = []  # when a delivery was logged dup_possible
        self.slowest_s = 0.0
        self.settled, self.settled_reports = set(), set()
        self.summary = collections.Counter()

    def add(self, load):
        self.loads[load.run_id] = load
        self.acked_files[load.run_id] = Lines(load.path)

    def ended(self, load, result):
        """The JSON that hikyaku-bench load printed."""
        self.crcs.add(result["body_crc32"])
        self.summary["lost connections"] += result["lost"]
        for reply, count in result["refusals"].items():
            # Pipelined behind a MAIL that was refused, DATA is out of order: 503.
            expect(reply[0] == "4" or reply == "503 at data",
                   "a local fault became a refusal for good (P3):", result["refusals"])
            self.summary[f"answered {reply[:3]}"] += count

    def died(self, since, until):
        self.deaths.append((since, until))

    def read_acked(self):
        new = [i for lines in self.acked_files.values() for i in lines.new()]
        self.acked += new
        return new

    def cut_begins(self):
        self.read_acked()

    def cut_ended(self):
        """Nothing runs on that disk any more."""
        self.late.update((i, len(self.deaths)) for i in self.read_acked())

    def of(self, message_id):
        return self.loads[message_id.rsplit("-", 2)[0]]

    def explains(self, moment):
        window = COMMIT_S + 2 * self.slowest_s
        return any(since - window < moment <= until + SINK_S for since, until in self.deaths) or \
            any(-SLACK_S < t - moment < window for t in self.possible)

    def drain(self, seconds=60):
        """Waits for the queue to be empty; what was being sent at three crashes is let go on."""
        shards = self.gateway.config["shards"]
        until(lambda: len(self.gateway.log("recovered")) >= shards, "recovery ends", seconds)
        self.summary["set aside"] += self.gateway.change("release", filter="status=poison")
        self.gateway.wait_empty(seconds)

    # ---- the verdict, with the queue empty ----

    def read_tracking(self):
        for line in self.tracked.new():
            if '"event":"dup_possible"' not in line and '"event":"accepted"' not in line:
                continue
            event = json.loads(line)
            if event["event"] == "dup_possible":
                self.possible.append(when(event["time"]))
            else:
                self.slowest_s = max(self.slowest_s, event["durable_us"] / 1e6)

    def read_copies(self):
        """{id: {recipient: [time, ...]}}"""
        copies = collections.defaultdict(lambda: collections.defaultdict(list))
        for line in self.taken.new():
            record = json.loads(line)
            if not record["from"].startswith("sender"):  # not of these loads
                continue
            expect(record["body_crc32"] in self.crcs, "half a body:", record)
            for rcpt in record["rcpts"]:
                copies[record["id"]][rcpt].append(record["time"])
        return copies

    def read_reports(self):
        """{id: [time, ...]} of the messages that were reported back, by the ids in the reports."""
        found = collections.defaultdict(list)
        names = collections.defaultdict(lambda: collections.defaultdict(list))
        for path in glob.glob(os.path.join(self.reports.maildir, "new", "*")
                              if self.reports else ""):
            with open(path, "rb") as file:
                text = file.read()
            about = re.search(rb"\nX-Bench-Id: *(\S+)", text)
            expect(about, "a report that says about what it is:", path)
            name = about[1].decode("ascii")
            moment = os.stat(path).st_mtime
            found[name].append(moment)
            names[name][re.search(rb"\nMessage-ID: *(\S+)", text, re.I)[1]].append(moment)
        for name, reports in names.items():
            earlier = sorted(reports.values(), key=max)[:-1]
            expect(not earlier or (self.forgiving and all(map(self.explains, sum(earlier, [])))),
                   "two reports about one failure (F63):", name, dict(reports), self.deaths)
        return found

    def duplicates(self, what, times):
        """All but the last copy are explained."""
        for moment in sorted(times)[:-1]:
            expect(self.explains(moment), f"a duplicate that nobody explains: {what}",
                   sorted(times), "deaths:", self.deaths[-6:],
                   f"slowest commit: {self.slowest_s:.3f} s")
        return len(times) > 1

    def verdict(self):
        self.read_tracking()
        copies, reports = self.read_copies(), self.read_reports()
        self.read_acked()
        acked, self.acked = self.acked, []
        expect_equal(len(acked), len(set(acked)), "ids are used once")
        lost = self.forgive([i for i in acked if not self.complete(i, copies, reports)], copies)
        expect(not lost, f"{len(lost)} of {len(acked)} acknowledged and lost:",
               [(i, dict(copies.get(i, {}))) for i in lost[:5]])
        back = self.settled & set(copies)
        expect(not back, "delivered again after the queue was empty:", sorted(back)[:5])
        twice = sum(self.duplicates((i, rcpt), times)
                    for i, rcpts in copies.items() for rcpt, times in rcpts.items())
        for i, times in reports.items():
            expect(self.of(i).refused, "a report about what was to be delivered:", i)
            self.summary["reports twice"] += self.duplicates(("report", i), times) and \
                i not in self.settled_reports
        new_reports = set(reports) - self.settled_reports
        self.summary.update({"acknowledged": len(acked), "delivered": len(copies),
                             "reported": len(new_reports), "recipients twice": twice,
                             "without a 250 that was read":
                                 len((set(copies) | new_reports) - set(acked))})
        self.summary["packed tracking files"] = len(self.tracked.packed)
        self.settled |= set(copies)
        self.settled_reports |= set(reports)

    def forgive(self, lost, copies):
        """`lost` without one message a session and cut whose 250 came with the cut."""
        seen = set()
        for i in list(lost):
            key = (self.late.get(i), i.rsplit("-", 1)[0])
            if self.forgiving and i in self.late and key not in seen and \
                    self.only_before(copies.get(i, {}), self.deaths[self.late[i] - 1][1]):
                seen.add(key)
                lost.remove(i)
        self.summary["answered as the cut came"] += len(seen)
        return lost

    @staticmethod
    def only_before(rcpts, death):
        """Some of its recipients may have had it from the gateway that then died."""
        return all(t < death + SINK_S for times in rcpts.values() for t in times)

    def complete(self, message_id, copies, reports):
        load = self.of(message_id)
        if load.refused:
            return message_id in reports and message_id not in copies
        return len(copies.get(message_id, ())) == load.rcpt_count
