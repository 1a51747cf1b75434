"""What a result was measured on: a figure without its machine says nothing."""
import os
import platform
import re
import subprocess

import account


def _first(path, default=""):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.readline().strip()
    except OSError:
        return default


def _value(path, key):
    """What stands behind `key` and a colon in a file of /proc."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith(key):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return ""


def _mount(path):
    """(device, file system, options) of what a folder lies on."""
    best = ("", "", "", "")
    with open("/proc/self/mounts", encoding="utf-8") as file:
        for line in file:
            device, at, kind, options = line.split()[:4]
            inside = path == at or path.startswith(at.rstrip("/") + "/")
            if inside and len(at) >= len(best[3]):
                best = (device, kind, options, at)
    return best[:3]


def _said(words):
    try:
        return subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                              check=False, timeout=10).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _caches():
    base, found = "/sys/devices/system/cpu/cpu0/cache", []
    for name in sorted(os.listdir(base)) if os.path.isdir(base) else ():
        if name.startswith("index"):
            level, kind, size = (_first(f"{base}/{name}/{x}") for x in ("level", "type", "size"))
            found.append(f"L{level} {kind.lower()} {size}")
    return found


def describe(disk):
    device, kind, options = _mount(disk)
    system = _said(["sh", "-c", ". /etc/os-release && echo \"$PRETTY_NAME\""])
    tracked = "/proc/sys/net/netfilter/nf_conntrack_max"
    return {"cores": os.cpu_count(), "processor": _value("/proc/cpuinfo", "model name"),
            "mhz": _value("/proc/cpuinfo", "cpu MHz"), "caches": _caches(),
            "threads_share_cores": _first("/sys/devices/system/cpu/smt/active") or "unknown",
            "governor": _first("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or "none",
            "hypervisor": _said(["systemd-detect-virt", "--vm"]) or "unknown",
            "mitigations": "off" if "mitigations=off" in _first("/proc/cmdline") else "as booted",
            "memory": _value("/proc/meminfo", "MemTotal"), "kernel": platform.release(),
            "system": system, "libc": " ".join(platform.libc_ver()),
            "disk": device, "file_system": kind, "mount_options": options,
            "scheduler": _scheduler(device),
            "connections_tracked": _first(tracked) or "no",
            "cpu_counted_by": account.kind(), "load_average": round(os.getloadavg()[0], 1)}


def _scheduler(device):
    name = re.sub(r"(?<=\D)p?\d+$", "", os.path.basename(os.path.realpath(device)))
    chosen = re.search(r"\[(.+?)\]", _first(f"/sys/block/{name}/queue/scheduler"))
    return chosen[1] if chosen else "unknown"


def details(machine):
    """(name, text) of all that is known, for the end of a report."""
    return [(key.replace("_", " "), ", ".join(value) if isinstance(value, list) else str(value))
            for key, value in machine.items() if value not in ("", None)]
