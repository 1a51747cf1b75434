#!/usr/bin/env python3
"""The suite behind `hikyaku-bench run` and `hikyaku-bench compare`."""
import argparse
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time

import account
import compare
import machine
import measure
import peers
import report_html
import report_text
import scenario as scenarios
import spread
import stats
import where
from servers import Bench, RunError, note

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FORMAT = 2
KINDS = {**measure.KINDS, "spread": spread.run_spread}
OWN = ("gateway", "baseline", "null", "raw", "disk")

ENDED = 130  # as a shell says of SIGINT


class UsageError(Exception):
    """Words that cannot be followed; the text names the option."""


def servers_of(one, case, args, chosen):
    """Who runs a case, in turn: the gateway, what its goals are multiples of, and peers."""
    names = ["gateway", "baseline"] if args.baseline else ["gateway"]
    if one.kind in ("load", "relay") and not one.tls \
            and not case.second_hop and case.shards == 1:
        names.append("null")
    wanted = {goal.against for goal in case.goals}
    names += [name for name in ("raw", "disk") if name in wanted or f"{name}_sync_p99_ms" in wanted]
    return names + (list(chosen) if one.peers and case.peers else [])


def sample(bench, one, case, server, args, known):
    if server == "raw":
        return measure.run_raw(bench, case, args)
    if server == "disk":
        return measure.run_disk(bench, known)
    if server == "baseline":
        with bench.using(args.baseline):
            return KINDS[one.kind](bench, one, case, "gateway", args, known)
    return KINDS[one.kind](bench, one, case, server, args, known)


class Running:
    """A scenario under way: `kept` is what the result says of it."""

    def __init__(self, one, args, chosen, surveyed):
        self.one, self.known = one, [{} for _ in one.cases]
        self.kept = {"name": one.name, "title": one.title, "about": one.about, "kind": one.kind,
                     "rounds": 0, "cases": [self.empty(case, args, chosen, surveyed)
                                            for case in one.cases]}

    def empty(self, case, args, chosen, surveyed):
        names = servers_of(self.one, case, args, chosen)
        if case.cores > os.cpu_count():
            why = f"it takes {case.cores} cores"
            return {"name": case.name, "samples": {name: [] for name in names}, "goals": [],
                    "unable": {name: why for name in names}}
        return {"name": case.name, "samples": {name: [] for name in names}, "goals": [],
                "unable": {name: surveyed[name]["unable"] for name in names
                           if "unable" in surveyed.get(name, {})}}

    def go_on(self, before):
        """Takes over the rounds of an earlier run, if it measured the same cases and servers."""
        same = [(c["name"], list(c["samples"])) for c in before.get("cases", [])] == \
               [(c["name"], list(c["samples"])) for c in self.kept["cases"]]
        if same and "failed" not in before:
            self.kept.update(rounds=before.get("rounds", 0), cases=before["cases"])

    def round(self, bench, args):
        """Every case on every server: what is compared is measured close together. Kept whole."""
        number, taken = self.kept["rounds"], []
        for case, kept, knows in zip(self.one.cases, self.kept["cases"], self.known):
            names = list(kept["samples"])
            turn = number % len(names)
            for server in names[turn:] + names[:turn]:
                if server not in kept["unable"]:
                    taken += self.measured(bench, args, case, kept, server, knows)
        for samples, figures in taken:
            samples.append(figures)
        self.kept["rounds"] += 1

    def measured(self, bench, args, case, kept, server, knows):
        where = {"scenario": self.one.name, "case": case.name, "server": server,
                 "round": self.kept["rounds"] + 1}
        note(f"{where['scenario']}: {case.name}: {server} ({where['round']} of {args.rounds})")
        bench.about = where
        try:
            figures = sample(bench, self.one, case, server, args, knows)
        except peers.Unable as why:
            note(f"{server}: {why}")
            kept["unable"][server] = str(why)
            return []
        if figures.get("errors"):
            kept.setdefault("errors", {})
            kept["errors"][server] = kept["errors"].get(server, 0) + figures["errors"]
        return [(kept["samples"][server], figures)]

    def judge(self):
        for case, kept in zip(self.one.cases, self.kept["cases"]):
            kept["goals"] = [judge(goal, kept, self.kept["cases"]) for goal in case.goals]


def values(kept, server, metric):
    return [s[metric] for s in kept["samples"].get(server, []) if s.get(metric) is not None]


def judge(goal, kept, cases):
    """What a goal says of the medians: the value, and whether it is met. None: not measured."""
    own, base = stats.median(values(kept, "gateway", goal.metric)), None
    if goal.against:
        other = [c for c in cases if c["name"] == goal.against]
        if other:
            base = stats.median(values(other[0], "gateway", goal.metric))
        elif goal.against in kept["samples"]:
            base = stats.median(values(kept, goal.against, goal.metric))
        elif goal.against not in peers.NAMES:
            base = stats.median(values(kept, "disk", goal.against))
    value = goal.value(own, base) if own and (base or not goal.against) else None
    if own == 0 and not goal.against:
        value = own
    limited = values(kept, "gateway", "generator_was_limit")
    held_back = goal.metric.endswith("rate") and sum(limited) * 2 > len(limited)
    return {"text": goal.text(), "value": value, "met": value is not None and goal.met(value),
            "load_was_limit": held_back,
            "why": (kept["unable"].get("gateway") or kept["unable"].get(goal.against))
            if value is None else None}


def chosen_peers(text):
    """The names behind --peers."""
    if text in ("", "none"):
        return []
    names = list(peers.NAMES) if text == "all" else [n.lower() for n in text.split(",")]
    for name in names:
        if name not in peers.NAMES:
            raise UsageError(f"--peers: {name!r} is none of all, none, {', '.join(peers.NAMES)}")
    return names


def probe(bench):
    """The small load for counting syncs."""
    def load(server, messages):
        return measure.load(bench, server, ["--sessions", "5", "--messages-per-session", "10",
                                            "--messages", str(messages)], False)
    return load


def earlier(args):
    """The result to go on with, or nothing."""
    path = os.path.join(args.out, "result.json")
    if not args.resume or not os.path.exists(path):
        return {}
    try:
        found = compare.result_in(path)
    except (OSError, ValueError) as error:
        note(f"{path}: {error}: begun anew")
        return {}
    if found.get("format") == FORMAT and found["version"] == version(args) \
            and found["seconds"] == args.seconds:
        return found
    note(f"{path}: of another version or length: begun anew")
    return {}


def check_cores(option, text):
    """CPUs as taskset takes them: there are such, and this process may run on one of them."""
    ranges = re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", text)
    if text and not ranges:
        raise UsageError(f"{option}: {text!r} is no list of CPUs (0, 0-3, 0,2)")
    bounds = [one.split("-") for one in text.split(",") if one]
    if text and not any(int(pair[0]) <= cpu <= int(pair[-1]) for pair in bounds
                        for cpu in os.sched_getaffinity(0)):
        raise UsageError(f"{option}: no CPU {text} here; '' pins to none")


def check(args):
    """Says what of the words cannot be, before anything is started."""
    for option, value in (("--rounds", args.rounds), ("--seconds", args.seconds),
                          ("--minutes", args.minutes)):
        if not value > 0:
            raise UsageError(f"{option}: {value:g} is not above 0")
    check_cores("--server-core", args.server_core)
    check_cores("--load-core", args.load_core)
    for option, build in (("--build", args.build), ("--baseline", args.baseline)):
        if build and not os.access(os.path.join(build, "hikyaku"), os.X_OK):
            raise UsageError(f"{option}: no program hikyaku in {build}")
    for option, folder in (("--disk", args.disk), ("--out", args.out)):
        try:
            if option == "--out":
                os.makedirs(folder, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise UsageError(f"{option}: {folder}: {error.strerror}") from error


def run(args):
    try:
        chosen = [scenarios.load(name) for name in args.scenario or scenarios.names()]
        names = chosen_peers(args.peers)
        check(args)
    except (scenarios.ScenarioError, UsageError) as error:
        print(f"hikyaku-bench run: {error}", file=sys.stderr)
        return 2
    before = earlier(args)
    disk = os.path.abspath(args.disk)
    result = {"format": FORMAT, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
              "command": " ".join(["hikyaku-bench", *sys.argv[1:]]), "version": version(args),
              "rounds": args.rounds, "seconds": args.seconds, "peers": {},
              "cores": {"server": args.server_core, "load": args.load_core}, "scenarios": []}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    end = time.monotonic() + args.minutes * 60
    with Bench(args.build, disk, (args.server_core, args.load_core)) as bench:
        bench.raw_path = os.path.join(args.out, "raw.jsonl")
        if not before and os.path.exists(bench.raw_path):
            os.unlink(bench.raw_path)
        wanted = names if any(one.peers for one in chosen) else []
        known = before.get("peers", {})
        bench.about = {"scenario": "syncs"}
        result["peers"] = {name: known.get(name) or found for name, found in
                           {**known, **peers.survey(bench, [n for n in wanted if n not in known],
                                                    probe(bench))}.items() if name in wanted}
        running = [Running(one, args, names, result["peers"]) for one in chosen]
        for one in running:
            one.go_on(next((s for s in before.get("scenarios", [])
                            if s["name"] == one.one.name), {}))
        result["scenarios"] = [one.kept for one in running]
        result["machine"] = machine.describe(disk)
        try:
            rounds(bench, running, args, end, result)
            if args.profile:
                where.add(bench, running, args)
        finally:
            finish(args.out, running, result)
    print(report_text.markdown(result))
    note(f"written: {args.out}/result.json, report.md, report.html, raw.jsonl")
    return 1 if any(failed(s) for s in result["scenarios"]) else 0


def rounds(bench, running, args, end, result):
    """Scenarios in turn, round by round, until all have theirs or the time is up."""
    took = {}
    for number in range(args.rounds):
        for one in running:
            if one.kept["rounds"] > number or "failed" in one.kept:
                continue
            if time.monotonic() + took.get(one.one.name, 0) > end:
                note(f"{one.one.name}: no time for round {number + 1}")
                continue
            begun = time.monotonic()
            try:
                one.round(bench, args)
            except RunError as error:
                note(f"hikyaku-bench run: {one.one.name}: {error}")
                one.kept["failed"] = str(error)
            took[one.one.name] = time.monotonic() - begun
            finish(args.out, running, result)


def failed(kept):
    """It did not run, or the gateway refused or lost mail."""
    return "failed" in kept or any(set(OWN) & set(case.get("errors", {})) for case in kept["cases"])


def finish(folder, running, result):
    for one in running:
        one.judge()
    result["machine"]["load_average_after"] = round(os.getloadavg()[0], 1)
    result["machine"]["cpu_counted_by"] = account.kind()
    for name, text in (("result.json", json.dumps(result, indent=1)),
                       ("report.md", report_text.markdown(result)),
                       ("report.html", report_html.page(result))):
        path = os.path.join(folder, name)
        with open(f"{path}.new", "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(f"{path}.new", path)


def version(args):
    """What the gateway calls itself, and which file it was."""
    path = os.path.join(args.build, "hikyaku")
    said = subprocess.run([path, "--version"], stdout=subprocess.PIPE, text=True,
                          check=False).stdout.strip()
    with open(path, "rb") as file:
        return f"{said} ({hashlib.sha256(file.read()).hexdigest()[:12]})"


def listing():
    """The scenarios, a line each."""
    for name in scenarios.names():
        one = scenarios.load(name)
        print(f"{name:14} {one.title}{' (peers)' if one.peers else ''}")
        for case in one.cases:
            print(f"{'':16}{case.name}")
    return 0


def arguments():
    parser = argparse.ArgumentParser(prog="hikyaku-bench", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run", help="measure scenarios, write JSON, Markdown and HTML",
                              epilog=f"Scenarios: {', '.join(scenarios.names())}.")
    one.add_argument("scenario", nargs="*", help="names, or .toml files; none: all")
    one.add_argument("--list", action="store_true", help="say what scenarios there are, and end")
    one.add_argument("--rounds", type=int, default=5, help="interleaved repeats (5)")
    one.add_argument("--seconds", type=int, default=4, help="for each measurement (4)")
    one.add_argument("--peers", default="none",
                     help=f"none, all, or some of {','.join(peers.NAMES)} beside the gateway in "
                          "scenarios for peers (bench/peers.md; root; none)")
    one.add_argument("--baseline", metavar="BUILD",
                     help="folder of another build; its gateway is measured in the same rounds, "
                          "and `compare RESULT.json` tells them apart")
    one.add_argument("--minutes", type=float, default=600,
                     help="begin no round that would not end in this time (600)")
    one.add_argument("--resume", action="store_true",
                     help="go on with the rounds that --out has of the same version")
    one.add_argument("--profile", action="store_true",
                     help="then each load once more under perf: where the gateway's CPU goes")
    one.add_argument("--out", default="bench-result", help="folder for the report (bench-result)")
    one.add_argument("--disk", default=".", help="a folder on the disk that is measured (.)")
    one.add_argument("--server-core", default="0", help="CPU of the server ('' for no pinning)")
    one.add_argument("--load-core", default="1", help="CPU of load and sink")
    build = os.environ.get("HIKYAKU_BUILD", os.path.join(ROOT, "build"))
    one.add_argument("--build", default=build, help=argparse.SUPPRESS)
    two = commands.add_parser("compare", help="tell change from noise; exit 1 on a regression")
    two.add_argument("before", help="result.json of one run")
    two.add_argument("after", nargs="?",
                     help="result.json of the other; none: --baseline and gateway of the one")
    two.add_argument("--threshold", type=float, default=0.03,
                     help="a change is told when its interval lies beyond this (0.03)")
    return parser.parse_args()


def main():
    args = arguments()
    if args.command == "compare":
        return compare.main(args)
    try:
        return listing() if args.list else run(args)
    except KeyboardInterrupt:
        note(f"hikyaku-bench run: ended; {args.out} has the rounds that were whole")
        return ENDED


if __name__ == "__main__":
    sys.exit(main())
