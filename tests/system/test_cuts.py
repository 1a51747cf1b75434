#!/usr/bin/env python3
# time-limit: 400
"""Twenty power cuts on a real disk: tests/crash/test_cut.py; `make cuts ROUNDS=500` tries more."""
import os
import sys
import time

from lib.harness import ROOT, case, main

sys.path.insert(0, os.path.join(ROOT, "tests", "crash"))
import test_cut  # noqa: E402

CASE_S = 90


def cuts(fs, shards, count, cache=False):
    what = f"{'the disk and its cache' if cache else 'the file system'} cut {count} times"

    @case(f"F54 {what}, {fs}, {shards} shards: what was acknowledged is there", CASE_S)
    def run(folder):
        seed = int(time.time())
        print(f"# seed {seed}", flush=True)
        summary = test_cut.series(folder, fs, shards, count, seed, cache)
        print("# " + ", ".join(f"{k} {v}" for k, v in summary.items()), flush=True)
    return run


for number in (1, 2, 4):
    cuts("ext4", number, 3)
    cuts("xfs", number, 3)
cuts("ext4", 4, 1, cache=True)
cuts("xfs", 2, 1, cache=True)

if __name__ == "__main__":
    main("cuts")
