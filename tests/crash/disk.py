"""A file system of its own on a loop device, and what can happen to the disk under it.

    with Disk(folder, "ext4") as disk:      an image, formatted and mounted at disk.path
        disk.cut()                          the power goes; what ran on it is to be ended, then
        disk.power_on()                     a copy of what is on the image is mounted at disk.path

cut() shuts the file system down without writing its journal (EXT4_IOC_SHUTDOWN and
XFS_IOC_GOINGDOWN, flag 2): what was not synced is gone, and every later operation fails. With
cache=True the image lies on a second file system, and it is that one which is shut down: the disk's
own write cache is lost too, so that even what went past the page cache is gone unless the file
system has told the disk to flush.

Mounts are made in a mount namespace of this process and loop devices free themselves, so that
nothing is left behind however the process ends. It takes root, loop devices and mkfs; Skip says
what is missing. Images lie in /dev/shm where that has room, which spares the machine's own disk.
"""
import ctypes
import fcntl
import os
import shutil
import struct
import subprocess
import tempfile

from lib.harness import Skip, expect_equal, run

GOING_DOWN, NO_LOG_FLUSH = 0x8004587D, 2
MS_REC, MS_PRIVATE, CLONE_NEWNS = 0x4000, 1 << 18, 0x20000
SHM, SHM_NEEDS = "/dev/shm", 4 << 30
MIB = 1 << 20
_private, _usable = [], {}


def private_mounts():
    """From here on mounts of this process and its children are theirs alone."""
    if _private:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() != 0:
        raise Skip("mounting takes root")
    if libc.unshare(CLONE_NEWNS) or libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None):
        raise Skip(f"no mount namespace here: {os.strerror(ctypes.get_errno())}")
    _private.append(True)


def needs(fs):
    """Skip, unless a file system of this kind can be made, mounted and shut down here; tried once.
    Before threads are started: they share the mounts of the one that starts them."""
    if fs not in _usable:
        _usable[fs] = missing(fs)
    if _usable[fs]:
        raise Skip(_usable[fs])


def missing(fs):
    for tool in (f"mkfs.{fs}", "losetup", "mount"):
        if not shutil.which(tool, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin"):
            return f"{tool} is not installed"
    private_mounts()
    folder = tempfile.mkdtemp(prefix="hikyaku-disk-")
    try:
        image, place = os.path.join(folder, "image"), os.path.join(folder, "place")
        os.mkdir(place)
        Disk.make(image, fs, 320, ())
        done = run(["mount", "-t", fs, "-o", "loop", image, place], status=None)
        if done.returncode != 0:
            return f"{fs} on a loop device cannot be mounted here: {done.stderr.strip()}"
        try:
            shut_down(place)
        except OSError as error:
            return f"{fs} cannot be shut down here: {error.strerror}"
        finally:
            run(["umount", "-l", place])
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return None


def shut_down(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, GOING_DOWN, struct.pack("I", NO_LOG_FLUSH))
    finally:
        os.close(fd)


def images_folder(folder):
    try:
        stat = os.statvfs(SHM)
        if stat.f_bavail * stat.f_frsize >= SHM_NEEDS:
            return tempfile.mkdtemp(prefix="hikyaku-disk-", dir=SHM)
    except OSError:
        pass
    return tempfile.mkdtemp(prefix="disk-", dir=folder)


class Disk:
    """options: more words for mkfs; `within`: a folder for the image instead of one of its own."""

    def __init__(self, folder, fs, mib=2048, cache=False, options=(), within=None):
        needs(fs)
        if cache:
            needs("ext4")
        self.fs, self.cache, self.down = fs, cache, False
        self.own = None if within else images_folder(folder)
        self.images = within or self.own
        self.path = os.path.join(folder, f"mnt-{len(os.listdir(folder))}")
        self.below = self.path + ".below"
        os.mkdir(self.path)
        self.copies, self.mounted, self.freezer = 0, [], None
        self.image = os.path.join(self.images, "disk.0")
        if cache:
            os.mkdir(self.below)
            self.make(self.image, "ext4", mib + 512, ())
            self.mount(self.image, "ext4", self.below)
        self.make(self.upper(), fs, mib, options)
        if cache:  # a disk has its sectors before anybody writes to them
            run(["fallocate", "-l", f"{mib}MiB", self.upper()])
        self.mount(self.upper(), fs, self.path)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def upper(self):
        return os.path.join(self.below, "disk") if self.cache else self.image

    @staticmethod
    def make(image, fs, mib, options):
        with open(image, "wb") as file:
            file.truncate(mib * MIB)
        words = ["-F", "-E", "lazy_itable_init=1"] if fs == "ext4" else ["-f"]
        run([f"mkfs.{fs}", "-q", *words, *options, image])

    def mount(self, image, fs, path):
        """A loop device made by mount goes with the last use of it."""
        done = run(["mount", "-t", fs, "-o", "loop" + (",nouuid" if fs == "xfs" else ""), image,
                    path], status=None)
        if done.returncode != 0:
            lines = run(["dmesg"], status=None).stdout.split("\n")[-6:]
            raise AssertionError(f"{fs} cannot be mounted: {done.stderr} {lines}")
        self.mounted.append(path)

    def unmount(self):
        """Whoever still has files open there keeps what is left of it to himself."""
        while self.mounted:
            run(["umount", "-l", self.mounted.pop()])

    def close(self):
        self.thaw()
        self.unmount()
        if self.own:
            shutil.rmtree(self.own, ignore_errors=True)

    # ---- what happens to it ----

    def cut(self):
        shut_down(self.below if self.cache else self.path)
        self.down = True

    def power_on(self):
        """Nothing that ran on it may run any more."""
        self.copies += 1
        old, self.image = self.image, os.path.join(self.images, f"disk.{self.copies}")
        run(["cp", "--sparse=always", old, self.image])
        self.unmount()
        os.unlink(old)
        if self.cache:
            self.mount(self.image, "ext4", self.below)
        self.mount(self.upper(), self.fs, self.path)
        self.down = False

    def freeze(self):
        """Until thaw(), or until this process is gone: whoever writes to a frozen file system can
        not even be killed."""
        self.freezer = subprocess.Popen(
            ["sh", "-c", 'fsfreeze -f "$0" && echo frozen; cat; fsfreeze -u "$0"', self.path],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        expect_equal(self.freezer.stdout.readline(), b"frozen\n", "fsfreeze")

    def thaw(self):
        freezer, self.freezer = self.freezer, None
        if freezer:
            freezer.stdin.close()
            expect_equal(freezer.wait(20), 0, "fsfreeze -u")

    def one_page_requests(self):
        """A loop device takes a short write to its image, when that runs out of room, for a whole
        one. A request of one page is written or not."""
        device = os.stat(self.path).st_dev
        with open(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/queue/max_sectors_kb",
                  "w", encoding="ascii") as file:
            file.write("4")

    def free_bytes(self):
        stat = os.statvfs(self.path)
        return stat.f_bavail * stat.f_frsize
