#!/usr/bin/env python3
# builds: release - a program of its own
"""The simulator (tests/sim/README.md): the whole gateway through some hundred seeds of disasters,
the seeds of every bug it has found, the same seed twice, and planted bugs that it must find.

SIM_SEEDS and SIM_PLANT_SEEDS take other numbers than those of a quick run.
"""
# time-limit: 600
import os
import re
import subprocess

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SIM = os.path.join(ROOT, os.environ.get("HIKYAKU_BUILD", "build"), "tests/sim/sim")
SEEDS = os.environ.get("SIM_SEEDS", "300")
PLANT_SEEDS = os.environ.get("SIM_PLANT_SEEDS", "2000")
JOBS = str(os.cpu_count() or 1)


def run(*args):
    done = subprocess.run([SIM, "--jobs", JOBS, *args], cwd=ROOT, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
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


def plants():
    names = subprocess.run([SIM, "--plants"], check=True, capture_output=True,
                           text=True).stdout.split()
    for name in names:
        status, out = run("--plant", name, "--seeds", PLANT_SEEDS)
        check(f"the planted bug {name} is found", status == 0, out)


if __name__ == "__main__":
    seeds()
    found()
    twice()
    plants()
