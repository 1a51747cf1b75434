"""CPU of a server's processes, those that ended included.

A control group of our own for each server, removed with it: what the kernel counted there is exact,
whoever forked or ended meanwhile. Where none can be made, /proc is summed over the process and its
descendants with what they have waited for; a daemon's child that nobody waited for is lost then.
"""
import os
import signal
import time

MOUNTS = "/proc/mounts"
QUIET_S, QUIET_SHARE = 0.2, 0.02
_made = []


def _folders():
    """Where groups may be made: (folder, reader of seconds, name for the report). v2 first."""
    with open("/proc/self/cgroup", encoding="ascii") as file:
        own = {line.split(":")[1]: line.strip().split(":", 2)[2] for line in file}
    with open(MOUNTS, encoding="utf-8") as file:
        mounts = [line.split()[1:4] for line in file]
    for path, kind, _ in mounts:
        if kind == "cgroup2" and "" in own:
            yield path + own[""].rstrip("/"), _v2_seconds, "cgroup v2"
    for path, kind, options in mounts:
        if kind == "cgroup" and "cpuacct" in options.split(","):
            group = next((g for names, g in own.items() if "cpuacct" in names.split(",")), "/")
            yield path + group.rstrip("/"), _v1_seconds, "cgroup v1"


def _v2_seconds(folder):
    with open(os.path.join(folder, "cpu.stat"), encoding="ascii") as file:
        return int(dict(line.split() for line in file)["usage_usec"]) / 1e6


def _v2_kernel(folder):
    with open(os.path.join(folder, "cpu.stat"), encoding="ascii") as file:
        return int(dict(line.split() for line in file)["system_usec"]) / 1e6


def _v1_seconds(folder):
    with open(os.path.join(folder, "cpuacct.usage"), encoding="ascii") as file:
        return int(file.read()) / 1e9


def _make(name):
    for parent, reader, kind in _folders():
        folder = os.path.join(parent, name)
        try:
            os.mkdir(folder)
            reader(folder)
            if os.access(os.path.join(folder, "cgroup.procs"), os.W_OK):
                return folder, reader, kind
            os.rmdir(folder)
        except (OSError, KeyError, ValueError):
            if os.path.isdir(folder):
                os.rmdir(folder)
    return None, None, "/proc"


class Account:
    """Ask for words(command) to start in it; then seconds(pid), quiet(pid) and close()."""

    def __init__(self):
        self.folder, self.reader, self.kind = _make(f"hikyaku-bench-{os.getpid()}-{len(_made)}")
        _made.append(self)

    def words(self, command):
        if not self.folder:
            return command
        return ["sh", "-c", 'echo $$ >"$0" && exec "$@"',
                os.path.join(self.folder, "cgroup.procs"), *command]

    def seconds(self, pid):
        return self.reader(self.folder) if self.folder else tree_seconds(pid)

    def kernel_seconds(self, pid):
        """The kernel's part; None where it is not told."""
        if self.folder:
            return _v2_kernel(self.folder) if self.reader is _v2_seconds else None
        return tree_seconds(pid, (12, 14))

    def quiet(self, pid, limit_s):
        """Waits until its processes have nothing left to do, a share of QUIET_SHARE apart."""
        end, last = time.monotonic() + limit_s, self.seconds(pid)
        while time.monotonic() < end:
            time.sleep(QUIET_S)
            now = self.seconds(pid)
            if now - last < QUIET_S * QUIET_SHARE:
                return
            last = now

    def pids(self):
        if not self.folder:
            return []
        with open(os.path.join(self.folder, "cgroup.procs"), encoding="ascii") as file:
            return [int(line) for line in file]

    def close(self):
        """Ends what is left in it. Processes vanish some time after they were killed."""
        for _ in range(200):
            if not self.folder:
                return
            left = self.pids()
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            try:
                os.rmdir(self.folder)
                self.folder = None
            except OSError:
                time.sleep(0.02)


def tree_seconds(root, columns=(11, 12, 13, 14)):
    """User and system time of a process and its descendants, and of those they waited for."""
    ticks, parents = {}, {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as file:
                    fields = file.read().rsplit(")", 1)[1].split()
            except OSError:
                continue
            parents[int(entry)] = int(fields[1])
            ticks[int(entry)] = sum(int(fields[i]) for i in columns)
    family, grew = {root}, True
    while grew:
        new = {pid for pid, parent in parents.items() if parent in family} - family
        grew, family = bool(new), family | new
    return sum(ticks.get(pid, 0) for pid in family) / os.sysconf("SC_CLK_TCK")


def kind():
    """How CPU was counted in this run, for the report."""
    return ", ".join(sorted({one.kind for one in _made})) or "not at all"


def close_all():
    """For what a failure left open."""
    for one in _made:
        one.close()


def machine_busy_seconds():
    """What all processors did, stolen time too: (seconds of work, of which stolen)."""
    with open("/proc/stat", encoding="ascii") as file:
        ticks = [int(v) for v in file.readline().split()[1:9]]
    second = os.sysconf("SC_CLK_TCK")
    return (sum(ticks) - ticks[3] - ticks[4]) / second, ticks[7] / second
