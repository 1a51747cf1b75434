"""Programs under measurement: started pinned to a core, ended by their own process ids.

`Bench` is the place of one run: a folder on the disk that is measured, the ports, the cores. Every
server is a context manager with `pid`, `port` for the load, and `stop()`.
"""
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

from account import Account, close_all

USER, PASSWORD = "bench", "bench-password"
CONFIG = """\
hostname: bench.test
shards: {shards}
spool: {{path: {folder}/spool}}
admin: {{socket: {folder}/ctl.sock, http: 127.0.0.1:{admin}}}
log: {{level: error, format: json}}
users: {{file: {folder}/users}}
receive_connectors:
  - name: relay
    bind: ["127.0.0.1:{relay}"]
    tls: {{mode: none}}
    auth: {{required: false, mechanisms: []}}
    relay: {{networks: [127.0.0.0/8]}}
  - name: submission
    bind: ["127.0.0.1:{submission}"]
    tls: {{mode: starttls, required: true,
          certificates: [{{certificate: {pair}.crt, key: {pair}.key}}]}}
    auth: {{required: true, require_tls: true, mechanisms: [PLAIN, LOGIN]}}
    relay: {{authenticated: true}}
  - name: submissions
    bind: ["127.0.0.1:{submissions}"]
    tls: {{mode: implicit, certificates: [{{certificate: {pair}.crt, key: {pair}.key}}]}}
    auth: {{required: true, require_tls: true, mechanisms: [PLAIN, LOGIN]}}
    relay: {{authenticated: true}}
send_connectors:
  - name: sink
    address_spaces: [{{space: "*", cost: 10}}]
    delivery: smart_hosts
    smart_hosts: [{{host: "[127.0.0.1]:{sink}"}}]
    tls: {{level: none}}
  - name: other
    address_spaces: [{{space: "d1.test", cost: 10}}]
    delivery: smart_hosts
    smart_hosts: [{{host: "[127.0.0.1]:{other}"}}]
    tls: {{level: none}}
"""
PORTS = ("relay", "submission", "submissions", "admin", "sink", "other", "null", "peer")


class RunError(Exception):
    """A server or the load did not do what the run needs."""


def note(text):
    print(text, file=sys.stderr, flush=True)


def free_ports(count):
    """All open at once, so that no two are the same."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


class Bench:
    """Where a run happens. `cores`: the server's and the load's, as taskset wants them."""

    def __init__(self, build, disk, cores):
        self.build, self.disk = build, disk
        self.program = os.path.join(build, "hikyaku-bench")
        self.gateway = os.path.join(build, "hikyaku")
        self.server_core, self.load_core = cores
        self.folder = tempfile.mkdtemp(prefix="hikyaku-bench-", dir=disk)
        os.chmod(self.folder, 0o711)  # other servers use accounts of their own
        self.about, self.raw_path = {}, None
        self.ports = dict(zip(PORTS, free_ports(len(PORTS))))

    def __enter__(self):
        for name, algorithm in (("p256", ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"]),
                                ("rsa:2048", ["rsa:2048"])):
            pair = self.pair(name)
            subprocess.run(["openssl", "req", "-x509", "-newkey", *algorithm, "-nodes", "-days",
                            "30", "-subj", "/CN=bench.test", "-addext",
                            "subjectAltName=DNS:bench.test", "-keyout", f"{pair}.key", "-out",
                            f"{pair}.crt"], check=True, stderr=subprocess.DEVNULL)
        hashed = subprocess.run(["openssl", "passwd", "-6", PASSWORD], stdout=subprocess.PIPE,
                                text=True, check=True).stdout.strip()
        users = os.path.join(self.folder, "users")
        with open(users, "w", encoding="utf-8") as file:
            file.write(f"{USER}:{hashed}\n")
        os.chmod(users, 0o600)
        return self

    def __exit__(self, *_):
        close_all()
        shutil.rmtree(self.folder, ignore_errors=True)

    def pair(self, key):
        return os.path.join(self.folder, key.replace(":", "-"))

    @contextlib.contextmanager
    def using(self, build):
        """The gateway of another build, for a while."""
        own, self.gateway = self.gateway, os.path.join(build, "hikyaku")
        try:
            yield
        finally:
            self.gateway = own

    def beside(self, cores):
        """A place of its own for one more server of the same build, on other cores."""
        other = Bench(self.build, self.disk, cores)
        other.gateway, other.about, other.raw_path = self.gateway, self.about, self.raw_path
        return other

    def raw(self, command, result):
        """Keeps what a command printed, with what it was measured for."""
        if self.raw_path:
            with open(self.raw_path, "a", encoding="utf-8") as file:
                json.dump({"time": time.time(), **self.about, "command": command,
                           "result": result}, file)
                file.write("\n")

    def pinned(self, core, command):
        return ["taskset", "-c", core, *command] if core else command


class Program:
    """A process that listens on a port; ended at the end of its block, by SIGKILL if `kill`."""

    host = "127.0.0.1"

    def __init__(self, bench, core, command, port, kill=False):
        self.kill, self.port, self.account = kill, port, Account()
        self.process = subprocess.Popen(self.account.words(bench.pinned(core, command)),
                                        stdout=subprocess.DEVNULL)
        self.pid = self.process.pid
        self.wait_for(port)

    def wait_for(self, port):
        """Until something answers there."""
        for _ in range(800):
            if self.process.poll() is not None:
                self.account.close()
                raise RunError(f"{self.process.args[-1]}: ended with {self.process.returncode}")
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                time.sleep(0.025)
        self.stop()
        raise RunError(f"{self.process.args[-1]}: nothing answers on port {port}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL if self.kill else signal.SIGTERM)
        try:
            self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.account.close()

    def cpu_seconds(self):
        return self.account.seconds(self.pid)


class Gateway(Program):
    """The gateway on a fresh spool, or on the one that is there."""

    name = "gateway"

    def __init__(self, bench, shards=1, key="p256", fresh=True, kill=True):
        spool = os.path.join(bench.folder, "spool")
        if fresh:
            shutil.rmtree(spool, ignore_errors=True)
            os.mkdir(spool)
        config = os.path.join(bench.folder, "config.yaml")
        with open(config, "w", encoding="utf-8") as file:
            file.write(CONFIG.format(folder=bench.folder, pair=bench.pair(key), shards=shards,
                                     **bench.ports))
        core = bench.server_core if shards == 1 else None
        self.admin = bench.ports["admin"]
        self.submission = bench.ports["submission"]
        self.implicit = bench.ports["submissions"]
        super().__init__(bench, core, [bench.gateway, "--config", config], bench.ports["relay"],
                         kill)
        self.wait_for(self.admin)

    def metrics(self):
        """Sums of /metrics over all labels, without the common prefix."""
        sums = {}
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics", timeout=10) as answer:
            for line in answer.read().decode().split("\n"):
                if line and not line.startswith("#"):
                    name, value = line.rsplit(" ", 1)
                    name = name.split("{")[0].removeprefix("hikyaku_")
                    sums[name] = sums.get(name, 0) + float(value)
        return sums


class Null(Program):
    """The null server: any server on this machine pays what it pays."""

    name = "null"

    def __init__(self, bench):
        port = bench.ports["null"]
        super().__init__(bench, bench.server_core,
                         [bench.program, "null", "--bind", f"127.0.0.1:{port}"], port)
        self.submission = self.implicit = port


class Sink(Program):
    """A next hop that takes everything and counts."""

    name = "sink"

    def __init__(self, bench, port="sink", *options):
        super().__init__(bench, bench.load_core,
                         [bench.program, "sink", "--bind", f"127.0.0.1:{bench.ports[port]}",
                          *options], bench.ports[port])


class HeldHop:
    """Takes connections and never says a word: messages are routed and queued, and stay."""

    def __init__(self, bench, port="sink"):
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(("127.0.0.1", bench.ports[port]))
        self.socket.listen(64)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()
