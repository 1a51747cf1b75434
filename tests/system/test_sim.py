#!/usr/bin/env python3
# builds: release - a program of its own
"""The simulator (tests/sim/README.md): the whole gateway through two thousand seeds of disasters,
each single fault at each call that can fail, the seeds of every bug that was found, the same seed
twice, and planted bugs that it must find. It takes what other tests leave of the processor.

SIM_SEEDS and SIM_PLANT_SEEDS take other numbers than those of a quick run.
"""
# time-limit: 1800
import os
import re
import subprocess

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SIM = os.path.join(ROOT, os.environ.get("HIKYAKU_BUILD", "build"), "tests/sim/sim")
SEEDS = os.environ.get("SIM_SEEDS", "2000")
PLANT_SEEDS = os.environ.get("SIM_PLANT_SEEDS", "2000")
SWEEP_SEEDS = "120"
# Signals, admin HTTP and the polls for libunbound are not simulated (Makefile: SIM_LEFT_OUT).
NOT_SIMULATED = ("gateway/control", "gateway/admin", "gateway/ctl/", "routing/dns_")
JOBS = str(os.cpu_count() or 1)


def run(*args):
    done = subprocess.run(["nice", "-n", "10", SIM, "--jobs", JOBS, *args], cwd=ROOT,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.returncode, done.stdout


def check(name, ok, output):
    if not ok:
        print("# " + output.strip().replace("\n", "\n# "))
    print(f"{'ok' if ok else 'not ok'} - simulation: {name}", flush=True)


def seeds():
    status, out = run("--seeds", SEEDS)
    check(f"{SEEDS} seeds keep every promise", status == 0, out)
    acked = re.search(r"acknowledged (\d+)", out)
    check("they send and lose a fair share of mail",
          bool(acked) and int(acked.group(1)) > 5 * int(SEEDS)
          and all(int(n) > 0 for n in re.findall(r"(?:kills|power cuts|reloads) (\d+)", out)), out)


def found():
    status, out = run("--list", os.path.join(ROOT, "tests/sim/seeds"))
    check("the seeds of bugs that were found", status == 0, out)


def twice():
    status, out = run("--twice", "--seeds", "10", "--first", "7000")
    check("a seed gives the same run each time", status == 0, out)


def calls_in_source():
    """Where the product calls what can fail in io.h: FILE:LINE of each, as the compiler counts."""
    names = re.findall(r"#define (io_\w+)\(", open(os.path.join(ROOT, "tests/sim/places.h")).read())
    call = re.compile(r"\b(?:" + "|".join(names) + r")\(")
    found = set()
    for top in ("gateway", "queue", "routing", "tls"):
        for folder, _, files in os.walk(os.path.join(ROOT, top)):
            for name in files:
                path = os.path.relpath(os.path.join(folder, name), ROOT)
                if not name.endswith(".c") or path.startswith("gateway/io/"):
                    continue
                for number, line in enumerate(open(os.path.join(ROOT, path)), 1):
                    if call.search(line) and not line.lstrip().startswith(("*", "/*")):
                        found.add(f"{path}:{number}")
    return found


def sweep():
    """Each fault at each place that starts an operation, one at a time: sim prints a table, and
    knows all places that are in it; here it is seen that none is missing."""
    status, out = run("--sweep", "--seeds", SWEEP_SEEDS)
    check("each call of io.h failed in each way that it can, and no promise was broken",
          status == 0, out)
    places = set(re.findall(r"^(\S+\.c:\d+) ", out, re.M))
    missing = {p for p in calls_in_source() if p not in places
               and not p.startswith(NOT_SIMULATED)}
    check("no call of io.h is left out but those of parts that are not simulated",
          places and not missing, "\n".join(sorted(missing)) + "\n")


def plants():
    names = subprocess.run([SIM, "--plants"], check=True, capture_output=True,
                           text=True).stdout.split()
    for name in names:
        status, out = run("--plant", name, "--seeds", PLANT_SEEDS)
        check(f"the planted bug {name} is found", status == 0, out)


if __name__ == "__main__":
    seeds()
    sweep()
    found()
    twice()
    plants()
