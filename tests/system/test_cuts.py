#!/usr/bin/env python3
# time-limit: 400
# builds: asan
"""Twenty power cuts on a real disk: tests/crash/test_cut.py; `make cuts ROUNDS=500` tries more."""
import mmap
import os
import sys
import time

from lib.harness import ROOT, case, expect, expect_equal, main, together

sys.path.insert(0, os.path.join(ROOT, "tests", "crash"))
import scoreboard  # noqa: E402
import test_cut  # noqa: E402
from disk import Disk, needs  # noqa: E402

def cuts(folder, fs):
    """Ten: three for each number of shards, one of the disk."""
    def series(shards, count, cache=False):
        def run(place):
            seed = int(time.time()) + shards
            summary = test_cut.series(place, fs, shards, count, seed, cache)
            print(f"# {fs}, {shards} shards, seed {seed}: " +
                  ", ".join(f"{k} {v}" for k, v in summary.items()), flush=True)
        return run
    needs(fs)
    together(folder, {f"F54 {fs} cut under {n} shards": series(n, 3) for n in (1, 2, 4)} |
             {f"F54 {fs} on a disk that loses its cache": series(2, 1, True)})


@case("F54 power cuts on ext4: what was acknowledged is there", 150)
def cuts_ext4(folder):
    cuts(folder, "ext4")


@case("F54 power cuts on XFS: what was acknowledged is there", 150)
def cuts_xfs(folder):
    cuts(folder, "xfs")


@case("a server that does not sync loses mail in a cut: the rig can see a loss")
def control(folder):
    acked, lost, _, answers = scoreboard.one(folder, "Control", "ext4")
    print(f"# acknowledged {acked}, lost {lost}, {answers}", flush=True)
    expect(acked > 0 and lost > acked // 2, "nothing that was written a moment ago is there")


def direct_write(disk, synced):
    """What is left of a write past the page cache into a file that was there."""
    path, block = os.path.join(disk.path, f"file.{synced}"), mmap.mmap(-1, 4096)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_DIRECT)
    os.pwrite(fd, block, 0)
    os.fsync(fd)
    block[:4] = b"mail"
    os.pwrite(fd, block, 0)
    if synced:
        os.fdatasync(fd)
    os.close(fd)
    return path


@case("a disk cut loses what was not flushed, past the page cache too, and nothing else")
def disk_cut(folder):
    for fs in ("ext4", "xfs"):
        with Disk(folder, fs, mib=512, cache=True) as disk:
            kept, lost = direct_write(disk, True), direct_write(disk, False)
            disk.cut()
            disk.power_on()
            for path, wanted in ((kept, b"mail"), (lost, bytes(4))):
                with open(path, "rb") as file:
                    expect_equal(file.read(4), wanted, f"{fs} {os.path.basename(path)}")


if __name__ == "__main__":
    main("cuts")
