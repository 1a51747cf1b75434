"""Where the gateway's CPU goes in a case: perf beside one more run, whose figures are not kept."""
import os
import shutil
import signal
import subprocess

import measure
from servers import Gateway, HeldHop, RunError, note

HERTZ, SHARE_MIN, ROWS = 997, 0.5, 25


class Perf:
    """Samples one process and its threads, io_uring's workers among them, until its block ends."""

    def __init__(self, bench, pid):
        self.path = os.path.join(bench.folder, "perf.data")
        self.process = subprocess.Popen(
            bench.pinned(bench.load_core, ["perf", "record", "-q", "-e", "cpu-clock", "-F",
                                           str(HERTZ), "-o", self.path, "-p", str(pid)]),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGINT)
        self.process.wait(timeout=60)

    def rows(self):
        """[share in percent, program or kernel, function], the largest first."""
        done = subprocess.run(["perf", "report", "-i", self.path, "--stdio", "-q", "--sort",
                               "dso,symbol", "-t", "\t", "-g", "none", "--percent-limit",
                               str(SHARE_MIN)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                              text=True, check=False, timeout=120)
        found = []
        for line in done.stdout.split("\n"):
            fields = [field.strip() for field in line.split("\t")]
            if len(fields) >= 3 and fields[0].endswith("%"):
                found.append([float(fields[0][:-1]), fields[1], fields[2].split("] ", 1)[-1]])
        return found[:ROWS]


def of_case(bench, one, case, args):
    """The profile of a case of kind `load`, or why there is none."""
    if not shutil.which("perf"):
        raise RunError("perf is not installed")
    with HeldHop(bench), Gateway(bench, case.shards, case.key) as server:
        measure.warm_up(bench, server, one.tls)
        with Perf(bench, server.pid) as perf:
            measure.load(bench, server, list(case.load), one.tls, args.seconds, quiet=False)
        rows = perf.rows()
    if not rows:
        raise RunError("perf took no samples; it may need root, or kernel.perf_event_paranoid")
    return rows


def add(bench, running, args):
    """Profiles for all cases that are a load alone, put beside their samples."""
    for one in running:
        for case, kept in zip(one.one.cases, one.kept["cases"]):
            if one.one.kind != "load" or case.half_rate or case.background:
                continue
            note(f"{one.one.name}: {case.name}: profile")
            bench.about = {"scenario": one.one.name, "case": case.name, "server": "profile"}
            try:
                kept["profile"] = of_case(bench, one.one, case, args)
            except (RunError, subprocess.SubprocessError, OSError) as error:
                note(f"profile: {error}")
                return
