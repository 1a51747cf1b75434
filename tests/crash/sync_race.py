#!/usr/bin/env python3
"""Does a sync that runs while a file system is shut down say 0 although its data is gone?

    tests/crash/sync_race.py [ROUNDS]

One thread writes blocks into an allocated file, past the page cache, and syncs after each; the file
system is shut down under it (disk.py) and the copy looked at. On XFS, Linux 6.18: in about one of
eight cuts the one sync under way returns 0 after the cut began, and its block is zeros afterwards;
never an earlier one. With a disk cut: in one of two hundred. On ext4 itself: never. No program can
tell; a machine without power does not return from a sync. books.py allows for that one, and for
nothing else.
"""
import mmap
import os
import shutil
import struct
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))),
                                "system"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from disk import Disk  # noqa: E402

BLOCK, BLOCKS = 16384, 4000


def writer(fd, done):
    block = mmap.mmap(-1, BLOCK)  # direct writes want it aligned
    for i in range(BLOCKS):
        block[:8] = struct.pack("<Q", i + 1)
        try:
            os.pwrite(fd, block, i * BLOCK)
            os.fdatasync(fd)
        except OSError:
            return
        done.append(time.time())


def one(folder, fs, cache):
    """(blocks whose sync said 0 and that are gone, how many of them had it before the cut)"""
    with Disk(folder, fs, mib=512, cache=cache) as disk:
        fd = os.open(os.path.join(disk.path, "file"), os.O_RDWR | os.O_CREAT | os.O_DIRECT)
        os.posix_fallocate(fd, 0, BLOCK * BLOCKS)
        os.fsync(fd)
        os.sync()
        done = []
        thread = threading.Thread(target=writer, args=(fd, done))
        thread.start()
        time.sleep(0.05)
        began = time.time()
        disk.cut()
        thread.join()
        os.close(fd)
        disk.power_on()
        lost = []
        with open(os.path.join(disk.path, "file"), "rb") as file:
            for i, moment in enumerate(done):
                file.seek(i * BLOCK)
                if file.read(8) != struct.pack("<Q", i + 1):
                    lost.append(moment)
        return len(lost), sum(moment < began for moment in lost)


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    for fs, cache in (("ext4", False), ("xfs", False), ("ext4", True), ("xfs", True)):
        found = []
        for _ in range(rounds):
            folder = tempfile.mkdtemp(prefix="hikyaku-race-")
            found.append(one(folder, fs, cache))
            shutil.rmtree(folder)
        print(f"{fs}, {'disk' if cache else 'file system'} cut, {rounds} rounds: "
              f"{sum(n > 0 for n, _ in found)} with a sync that lied, at most "
              f"{max(n for n, _ in found)} each; of those before the cut: "
              f"{sum(early for _, early in found)}", flush=True)


if __name__ == "__main__":
    main()
