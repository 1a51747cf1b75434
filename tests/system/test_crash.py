#!/usr/bin/env python3
# time-limit: 150
# builds: release, asan
"""Eight rounds of tests/crash/test_kill.py; `make crash ROUNDS=200` tries more."""
import os
import sys
import time

from lib.harness import ROOT, case, main

sys.path.insert(0, os.path.join(ROOT, "tests", "crash"))
import test_kill  # noqa: E402


@case("F65 kill -9 under load: what was acknowledged arrives, duplicates are explained", 120)
def kill_under_load(folder):
    seed = int(time.time())
    print(f"# seed {seed}", flush=True)
    summary = test_kill.crash(folder, 8, 45, seed)
    print("# " + ", ".join(f"{k} {v}" for k, v in summary.items()), flush=True)


if __name__ == "__main__":
    main("crash")
