#!/usr/bin/env python3
"""What the compiled objects of the product show: no lock and no blocking call on the message path,
no I/O in protocol code, no state outside structs. One result per rule."""
import collections
import glob
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(ROOT, "build")
OBJ = os.path.join(BUILD, "obj")

LOCKS = re.compile(
    r"(pthread_(mutex|cond|rwlock|spin|barrier)_.*|mtx_.*|cnd_.*|sem_(timed)?wait)$")
WAITS = re.compile(
    r"(pthread_join|u?sleep|(clock_)?nanosleep|p?poll|p?select|epoll_p?wait|sigwait.*"
    r"|wait(pid|id|3|4)?|f(data)?sync|sync|msync|flock|lockf|p?read(v2?|64)?|p?write(v2?|64)?"
    r"|pread64|pwrite64|recv.*|send.*|connect|accept4?|getaddrinfo|gethostby.*|getnameinfo|res_.*"
    r"|system|popen|crypt(_.*)?|f(open|read|write|gets|puts|printf|flush|close)|v?d?printf"
    r"|puts|putchar|perror|v?syslog)$")
IO_CALLS = re.compile(
    r"(open(at)?(64)?|close|stat.*|socket|bind|listen|ioctl|fcntl(64)?|mmap(64)?|unlink|rename"
    r"|clock_gettime|gettimeofday|time|getrandom|random|rand|arc4random.*|exit|_exit|signal"
    r"|pthread_create)$")
HEAP = re.compile(r"(malloc|calloc|realloc(array)?|free|strn?dup|v?asprintf|(posix_)?mem_?align|"
                  r"aligned_alloc)$")

# Objects that are not on the message path, each with what it is instead.
OFF_PATH = {
    "gateway/main": "start and stop",
    "gateway/config": "read at start and at reload, by the main thread",
    "gateway/admin": "the admin thread",
    "gateway/control": "the admin thread",
    "gateway/http": "the admin thread",
    "gateway/metrics": "the admin thread",
    "gateway/log_writer": "the log's writer thread",
    "gateway/log_file": "the log's writer thread",
    "gateway/auth_worker": "password workers",
    "gateway/io/uring_writer": "the thread that writes commits and syncs",
    "gateway/auth/auth_check": "password workers",
    "gateway/shard_admin": "an operator's request, on the heap by design",
    "gateway/auth/users": "read at start and at reload",
    "gateway/tracking_": "a thread of the admin's for one search, and the operator's program",
    "gateway/ctl/": "the operator's program",
    "bench/": "the load generator",
}
# Calls on the message path that look like blocking ones and are not; object -> symbol -> why.
EXCEPT = {
    "gateway/io/uring_accept": {"send": "a line to a new connection, MSG_DONTWAIT"},
    "gateway/io/io_sync": {"pread": "the lock file, at start", "pwrite": "the lock file, at start"},
    "gateway/io/io_port_check": {"usleep": "the control thread, before anything else starts"},
    "gateway/io/uring_probe": {"read": "a sysctl, at start"},
}
# Without I/O, clock and log; those of the second list also without the heap.
PURE = ("gateway/smtp/", "gateway/auth/sasl", "gateway/base/buf", "gateway/base/crc32c",
        "gateway/base/prng", "gateway/base/ring", "gateway/base/timer", "routing/route",
        "routing/relay", "routing/site", "routing/mx", "routing/permit", "gateway/dsn",
        "queue/record", "queue/envelope", "queue/scan", "queue/torn", "queue/census")
HEAPLESS = ("gateway/smtp/", "gateway/auth/sasl", "gateway/dsn", "queue/record", "queue/envelope",
            "queue/scan", "queue/torn")


def objects():
    """Product objects whose source still exists: name without suffix -> path."""
    found = {}
    for path in sorted(glob.glob(f"{OBJ}/**/*.o", recursive=True)):
        name = os.path.relpath(path, OBJ)[:-2]
        if os.path.isfile(os.path.join(ROOT, name + ".c")) and not name.startswith("tests/"):
            found[name] = path
    return found


def undefined(path):
    out = subprocess.run(["nm", "-u", path], check=True, capture_output=True, text=True).stdout
    return [re.sub(r"(@.*|_chk)$", "", line.split()[-1]).removeprefix("__")
            for line in out.splitlines() if line.strip()]


def writable(path):
    """Objects of static storage that can be written, less those only the loader writes."""
    out = subprocess.run(["objdump", "-t", path], check=True, capture_output=True, text=True).stdout
    for line in out.splitlines():
        match = re.match(r"\S+ .{6}O (\S+)\s+(\S+)\s+(?:\.hidden )?(\S+)$", line)
        if match and re.match(r"(\.data|\.bss|\.tdata|\.tbss|\*COM\*)", match.group(1)) and \
                not match.group(1).startswith(".data.rel.ro") and int(match.group(2), 16):
            yield match.group(3)


OBJECTS = objects()
CALLS = {name: undefined(path) for name, path in OBJECTS.items()}


def on_path():
    return [n for n in OBJECTS if not n.startswith(tuple(OFF_PATH))]


def breaches(names, pattern):
    for name in names:
        for symbol in CALLS[name]:
            if pattern.match(symbol) and symbol not in EXCEPT.get(name, {}):
                yield f"{name}.c: {symbol}"


def rule_locks():
    """no mutex, condition variable or semaphore on the message path"""
    return breaches(on_path(), LOCKS)


def rule_blocking():
    """no blocking call on the message path"""
    return breaches(on_path(), WAITS)


def rule_pure():
    """protocol and policy code makes no system call and reads no clock"""
    names = [n for n in OBJECTS if n.startswith(PURE)]
    for pattern in (LOCKS, WAITS, IO_CALLS):
        yield from breaches(names, pattern)


def rule_heapless():
    """protocol code does not use the heap"""
    return breaches([n for n in OBJECTS if n.startswith(HEAPLESS)], HEAP)


def rule_globals():
    """no state outside structs: nothing writable with static storage"""
    for name, path in OBJECTS.items():
        if name.startswith(("gateway/ctl/", "bench/")):
            continue
        with open(os.path.join(ROOT, name + ".c"), encoding="utf-8") as file:
            source = file.read()
        for symbol in writable(path):
            bare = symbol.split(".")[0]
            if not re.search(rf"\b{re.escape(bare)}\b.*tidy: global", source):
                yield f"{name}.c: {symbol}"


def rule_exceptions():
    """every exception made here is still used"""
    for name, symbols in EXCEPT.items():
        counts = collections.Counter(CALLS.get(name, ()))
        for symbol in symbols:
            if not counts[symbol]:
                yield f"{name}.c no longer calls {symbol}"


def main():
    if not OBJECTS:
        print("ok - objects: nothing is built # SKIP no objects below build/obj")
        return 0
    failed = 0
    for key, rule in sorted(globals().items()):
        if key.startswith("rule_"):
            found = list(rule())
            failed += bool(found)
            print(f"{'not ok' if found else 'ok'} - objects: {rule.__doc__}")
            for text in found:
                print(f"#   {text}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
