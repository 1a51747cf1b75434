#!/usr/bin/env python3
"""The suite behind `hikyaku-bench run` and `hikyaku-bench compare`."""
import argparse
import json
import os
import platform
import subprocess
import sys
import time

import compare
import measure
import report_html
import report_text
import scenario as scenarios
import stats
from servers import Bench, RunError, note

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FORMAT = 1


def machine(disk):
    model = "unknown processor"
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    kind = subprocess.run(["stat", "-f", "-c", "%T", disk], stdout=subprocess.PIPE, text=True,
                          check=False).stdout.strip()
    return {"cores": os.cpu_count(), "processor": model, "kernel": platform.release(),
            "file_system": kind, "load_average": os.getloadavg()[0]}


def servers_of(one, case):
    """Who runs a case, in turn: the gateway, and what its goals are multiples of."""
    names = ["gateway"]
    if one.kind in ("load", "relay") and not one.tls and not case.background \
            and not case.half_rate and not case.second_hop and case.shards == 1:
        names.append("null")
    wanted = {goal.against for goal in case.goals}
    names += [name for name in ("raw", "disk") if name in wanted or f"{name}_sync_p99_ms" in wanted]
    return names


def sample(bench, one, case, server, args, known):
    if server == "raw":
        return measure.run_raw(bench, case, args)
    if server == "disk":
        return measure.run_disk(bench)
    return measure.KINDS[one.kind](bench, one, case, server, args, known)


def run_scenario(bench, one, args):
    """Rounds of every case on every server: what is compared is measured close together."""
    cases = [{"name": case.name, "samples": {name: [] for name in servers_of(one, case)}}
             for case in one.cases]
    known = [{} for _ in one.cases]
    for number in range(args.rounds):
        for case, kept, knows in zip(one.cases, cases, known):
            names = list(kept["samples"])
            turn = number % len(names)
            for server in names[turn:] + names[:turn]:
                note(f"{one.name}: {case.name}: {server} ({number + 1} of {args.rounds})")
                kept["samples"][server].append(sample(bench, one, case, server, args, knows))
    for case, kept in zip(one.cases, cases):
        kept["goals"] = [judge(goal, case, kept, cases) for goal in case.goals]
    return {"name": one.name, "title": one.title, "about": one.about, "kind": one.kind,
            "cases": cases}


def values(kept, server, metric):
    return [s[metric] for s in kept["samples"].get(server, []) if s.get(metric) is not None]


def judge(goal, case, kept, cases):
    """What a goal says of the medians: the value, and whether it is met. None: not measured."""
    value = stats.median(values(kept, "gateway", goal.metric))
    if goal.against:
        other = [c for c in cases if c["name"] == goal.against]
        if other:
            base = stats.median(values(other[0], "gateway", goal.metric))
        elif goal.against in kept["samples"]:
            base = stats.median(values(kept, goal.against, goal.metric))
        else:
            base = stats.median(values(kept, "disk", goal.against))
        value = value / base if value is not None and base else None
    return {"text": goal.text(), "value": value, "met": value is not None and goal.met(value)}


def run(args):
    try:
        chosen = [scenarios.load(name) for name in args.scenario or scenarios.names()]
    except scenarios.ScenarioError as error:
        print(f"hikyaku-bench run: {error}", file=sys.stderr)
        return 2
    disk = os.path.abspath(args.disk)
    result = {"format": FORMAT, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
              "command": " ".join(["hikyaku-bench", *sys.argv[1:]]), "version": version(args),
              "machine": machine(disk), "rounds": args.rounds, "seconds": args.seconds,
              "cores": {"server": args.server_core, "load": args.load_core}, "scenarios": []}
    with Bench(args.build, disk, (args.server_core, args.load_core)) as bench:
        for one in chosen:
            try:
                result["scenarios"].append(run_scenario(bench, one, args))
            except RunError as error:
                note(f"hikyaku-bench run: {one.name}: {error}")
                result["scenarios"].append({"name": one.name, "title": one.title,
                                            "about": one.about, "kind": one.kind, "cases": [],
                                            "failed": str(error)})
    result["machine"]["load_average_after"] = os.getloadavg()[0]
    write(args.out, result)
    return 1 if any("failed" in s for s in result["scenarios"]) else 0


def version(args):
    return subprocess.run([os.path.join(args.build, "hikyaku"), "--version"],
                          stdout=subprocess.PIPE, text=True, check=False).stdout.strip()


def write(folder, result):
    os.makedirs(folder, exist_ok=True)
    for name, text in (("result.json", json.dumps(result, indent=1)),
                       ("report.md", report_text.markdown(result)),
                       ("report.html", report_html.page(result))):
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            file.write(text)
    print(report_text.markdown(result))
    note(f"written: {folder}/result.json, report.md, report.html")


def arguments():
    parser = argparse.ArgumentParser(prog="hikyaku-bench", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run", help="measure scenarios, write JSON, Markdown and HTML",
                              epilog=f"Scenarios: {', '.join(scenarios.names())}.")
    one.add_argument("scenario", nargs="*", help="names, or .toml files; none: all")
    one.add_argument("--rounds", type=int, default=5, help="interleaved repeats (5)")
    one.add_argument("--seconds", type=int, default=4, help="for each measurement (4)")
    one.add_argument("--out", default="bench-result", help="folder for the report (bench-result)")
    one.add_argument("--disk", default=".", help="a folder on the disk that is measured (.)")
    one.add_argument("--server-core", default="0", help="CPU of the server ('' for no pinning)")
    one.add_argument("--load-core", default="1", help="CPU of load and sink")
    build = os.environ.get("HIKYAKU_BUILD", os.path.join(ROOT, "build"))
    one.add_argument("--build", default=build, help=argparse.SUPPRESS)
    two = commands.add_parser("compare", help="tell change from noise; exit 1 on a regression")
    two.add_argument("before", help="result.json of one run")
    two.add_argument("after", help="result.json of the other")
    two.add_argument("--threshold", type=float, default=0.03,
                     help="a change is told when its interval lies beyond this (0.03)")
    return parser.parse_args()


def main():
    args = arguments()
    return run(args) if args.command == "run" else compare.main(args)


if __name__ == "__main__":
    sys.exit(main())
