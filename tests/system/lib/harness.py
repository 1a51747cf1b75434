"""Cases, their time limits and their result lines; ports; programs that are ended by their id.

    from lib.harness import case, main, expect

    @case("E1 AUTH only behind STARTTLS")
    def auth_behind_tls(folder): ...

    if __name__ == "__main__":
        main("relay")

Each case gets a folder of its own. What it starts through Program is stopped when it ends, whatever
happens. Addresses are those of a /24 of 127.0.0.0/8 that belongs to this process, with ports below
the ephemeral range, so that no other test and no outgoing connection takes them.
"""
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
BUILD = os.path.abspath(os.environ.get("HIKYAKU_BUILD", os.path.join(ROOT, "build")))
PEERS = os.path.abspath(os.environ.get("HIKYAKU_PEERS", os.path.join(ROOT, "build", "peers")))
CASE_LIMIT_S = 60
STOP_LIMIT_S = 40
SANITIZED = "asan" in os.path.basename(BUILD)
# Every limit of time is that of a quick machine; what passes takes no longer for the patience.
PATIENCE, PATIENCE_SANITIZED = 4, 8

_cases = []
_results = {"failed": 0, "prefix": ""}
_running = []  # programs of the current case


class Skip(Exception):
    """The case cannot be tried here; its text says why."""


def case(name, limit_s=CASE_LIMIT_S):
    def add(function):
        _cases.append((name, limit_s, function))
        return function
    return add


def expect(condition, *what):
    if not condition:
        raise AssertionError(" ".join(str(w) for w in what) or "not as expected")


def expect_equal(got, wanted, what=""):
    if got != wanted:
        raise AssertionError(f"{what}: got {short(got)}, wanted {short(wanted)}")


def expect_match(pattern, text, what=""):
    found = re.search(pattern, text, re.S)
    if not found:
        raise AssertionError(f"{what}: {short(text)} does not match {pattern!r}")
    return found


def short(value, limit=600):
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"


def patient(seconds):
    """How long to wait at most for what a quick machine does within so many seconds."""
    return seconds * (PATIENCE_SANITIZED if SANITIZED else PATIENCE)


def until(probe, what, seconds=15, every=0.02):
    """What probe() returns as soon as it is true. For whatever is not done when its cause has
    returned: lines of logs, records of a next hop, counters, states of the queue."""
    seconds = patient(seconds)
    end = time.monotonic() + seconds
    while True:
        got = probe()
        if got:
            return got
        if time.monotonic() > end:
            raise AssertionError(f"after {seconds} s still not: {what}")
        time.sleep(every)


def stays(probe, seconds, what):
    """probe() is true all the time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        expect(probe(), what)
        time.sleep(0.05)


def together(folder, parts):
    """Runs functions side by side, each with a folder of its own: {name: function}. A result line
    each; those that mostly wait take the time of the longest."""
    def part(name, function):
        place = os.path.join(folder, re.sub(r"\W+", "-", name))
        os.mkdir(place)
        try:
            function(place)
        except Exception as error:  # whatever went wrong is this part's failure
            stack = traceback.extract_tb(error.__traceback__)
            where = [f"{os.path.basename(f.filename)}:{f.lineno}" for f in reversed(stack)
                     if "/tests/" in f.filename][:3]
            errors[name] = f"{type(error).__name__}: {error} ({' < '.join(where)})"

    errors = {}
    threads = [threading.Thread(target=part, args=item, daemon=True) for item in parts.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in parts:
        result(name, errors.get(name))


def result(name, error=None):
    """A result line of its own inside a case."""
    print(f"{'not ok' if error else 'ok'} - {_results['prefix']}: {name}", flush=True)
    if error:
        _results["failed"] += 1
        print("#", str(error).replace("\n", "\n# "))


# ---- addresses ----------------------------------------------------------------------------------

_network = f"127.{16 + os.getpid() // 250 % 200}.{1 + os.getpid() % 250}"
_port_lock = threading.Lock()
_next_port = [10000 + os.getpid() * 37 % 10000]


def address(last=1):
    """An address of this process's own."""
    return f"{_network}.{last}"


def free_port(host=None, kind=socket.SOCK_STREAM):
    host = host or address()
    with _port_lock:
        return _free_port(host, kind)


def _free_port(host, kind):
    while True:
        _next_port[0] = _next_port[0] + 1 if _next_port[0] < 30000 else 10000
        with socket.socket(socket.AF_INET, kind) as s:
            try:
                s.bind((host, _next_port[0]))
            except OSError:
                continue
        return _next_port[0]


def answers(host, port):
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False


# ---- programs -----------------------------------------------------------------------------------


class Program:
    """A process of ours with a log file; stop() ends it by its id and gives its exit status."""

    def __init__(self, words, log, env=None, cwd=None, group=False):
        self.words, self.log_path, self.group = words, log, group
        with open(log, "ab") as out:
            self.process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, cwd=cwd,
                env=dict(os.environ, **env) if env else None, start_new_session=group)
        _running.append(self)

    @property
    def pid(self):
        return self.process.pid

    def alive(self):
        return self.process.poll() is None

    def log(self, last=60):
        with open(self.log_path, encoding="utf-8", errors="replace") as file:
            return "".join(file.readlines()[-last:])

    def signal(self, number):
        if self.group:
            try:
                os.killpg(self.pid, number)
            except ProcessLookupError:
                pass
        elif self.alive():
            self.process.send_signal(number)

    def wait(self, seconds=STOP_LIMIT_S):
        return self.process.wait(patient(seconds))

    def stop(self, seconds=STOP_LIMIT_S):
        self.signal(signal.SIGTERM)
        try:
            return self.process.wait(patient(seconds))
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{os.path.basename(self.words[0])} did not stop within "
                                 f"{patient(seconds)} s") from None

    def kill(self):
        self.signal(signal.SIGKILL)
        self.process.wait(10)
        if self in _running:
            _running.remove(self)


def run(words, seconds=30, status=0, text=True, **options):
    """A command that ends by itself; its standard output. status None: whatever it is."""
    done = subprocess.run(words, timeout=patient(seconds), check=False, text=text,
                          stdin=None if "input" in options else subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    if status is not None and done.returncode != status:
        raise AssertionError(f"{' '.join(map(str, words))[:300]}: status {done.returncode}: "
                             f"{short(done.stdout)} {short(done.stderr)}")
    return done


def program(name):
    path = os.path.join(BUILD, name)
    expect(os.access(path, os.X_OK), path, "is missing; run make")
    return path


def tool(name):
    path = shutil.which(name)
    if not path:
        raise Skip(f"{name} is not installed")
    return path


# ---- running ------------------------------------------------------------------------------------


def _expired(*_):
    raise TimeoutError("the case ran past its limit")


def end_all():
    """Ends what is still running of all that was started here."""
    for started in list(_running):
        started.kill()
    _running.clear()


def _run_case(prefix, name, limit_s, function):
    title = f"{prefix}: {name}"
    folder = tempfile.mkdtemp(prefix="hikyaku-")
    os.chmod(folder, 0o755)
    logs, failed = [], False
    signal.signal(signal.SIGALRM, _expired)
    signal.alarm(patient(limit_s))
    try:
        function(folder)
        print("ok -", title, flush=True)
    except Skip as why:
        print(f"ok - {title} # SKIP {why}", flush=True)
    except Exception as error:  # whatever went wrong is this case's failure
        failed = True
        signal.alarm(0)
        print("not ok -", title, flush=True)
        where = traceback.extract_tb(error.__traceback__)
        mine = [f for f in where if "/tests/" in f.filename][-3:]
        print("#", " < ".join(f"{os.path.basename(f.filename)}:{f.lineno}" for f in reversed(mine)))
        print("#", f"{type(error).__name__}: {error}".replace("\n", "\n# "))
        logs = [(p.words[0], p.log(15)) for p in _running]
    finally:
        signal.alarm(0)
        end_all()
    for words, log in logs:
        print(f"# --- log of {os.path.basename(words)}")
        for line in log.splitlines():
            print("# |", line[:300])
    if not (failed and os.environ.get("HIKYAKU_KEEP")):
        shutil.rmtree(folder, ignore_errors=True)
    else:
        print("# kept:", folder)
    return failed


def _beside(prefix, count):
    """All cases, so many at a time, each in a process of its own; the longest limits first."""
    def one(index):
        done = subprocess.run([sys.executable, sys.argv[0], f"--case={index}"], check=False,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT)
        print(done.stdout.decode("utf-8", "replace"), end="", flush=True)
        if done.returncode not in (0, 1):
            print(f"not ok - {prefix}: {_cases[index][0]}\n# ended with {done.returncode}",
                  flush=True)
        return done.returncode

    order = sorted(range(len(_cases)), key=lambda index: -_cases[index][1])
    with ThreadPoolExecutor(count) as pool:
        return any(pool.map(one, order))


def main(prefix, beside=1):
    """Runs all cases, or those whose name has one of the words given. `beside`: so many at a time,
    for cases that mostly wait."""
    wanted = sys.argv[1:]
    failed = 0
    _results["prefix"] = prefix
    if beside > 1 and not wanted:
        sys.exit(1 if _beside(prefix, beside) else 0)
    for index, (name, limit_s, function) in enumerate(_cases):
        if not wanted or wanted == [f"--case={index}"] or any(word in name for word in wanted):
            began = time.monotonic()
            failed += _run_case(prefix, name, limit_s, function)
            if os.environ.get("HIKYAKU_TIMES"):
                print(f"# {time.monotonic() - began:.1f} s", flush=True)
    sys.exit(1 if failed or _results["failed"] else 0)
