"""Other mail servers under the same measurement; what is set and why: bench/peers.md, bench/peers/.

How they are unpacked and started is the tests' (tests/system/lib/peers.py), so they need the source
tree, and root for mount namespaces. Nothing is installed. `Peer` looks like servers.Program.
"""
import base64
import gzip
import glob
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from types import SimpleNamespace

from account import Account
from servers import PASSWORD, USER, HeldHop, RunError, note

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CONFIGS = os.path.join(ROOT, "bench", "peers")
sys.path.insert(0, os.path.join(ROOT, "tests", "system"))
try:
    from lib import harness, peers
    MISSING = None
except ImportError:
    harness = peers = None
    MISSING = "peers need the source tree: tests/system/lib is not there"


class Unable(RunError):
    """This server cannot run this case, or is not here; the text says why."""


def config(name, values):
    with open(os.path.join(CONFIGS, name), encoding="utf-8") as file:
        text = file.read()
    for key, value in values.items():
        text = text.replace(f"@{key}@", str(value))
    return text


class PasswordServer(threading.Thread):
    """Answers Postfix as Dovecot would: one user, PLAIN."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(path)
        os.chmod(path, 0o666)
        self.socket.listen(512)
        self.expected = base64.b64encode(f"\0{USER}\0{PASSWORD}".encode()).decode()
        self.start()

    def run(self):
        while True:
            try:
                client, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        with client, client.makefile("rw", encoding="ascii", newline="\n") as lines:
            try:
                print("VERSION\t1\t1\nMECH\tPLAIN\tplaintext\nSPID\t1\nCUID\t1\nCOOKIE\t0\nDONE",
                      file=lines, flush=True)
                for line in lines:
                    words = line.rstrip("\n").split("\t")
                    if words[0] == "AUTH":
                        known = f"resp={self.expected}" in words
                        print(f"OK\t{words[1]}\tuser={USER}" if known else f"FAIL\t{words[1]}",
                              file=lines, flush=True)
            except OSError:
                pass  # its process ended

    def close(self):
        self.socket.close()


def _haraka_files(text):
    """The lines of haraka.ini by file."""
    files = {}
    for line in text.split("\n"):
        if line and not line.startswith(";"):
            name, setting = line.split(": ", 1)
            files.setdefault(name, []).append(setting)
    return files


def _classes():
    """Made here, because their bases are there only in a source tree."""
    class Postfix(peers.PostfixRelay):
        passwords = None

        def prepare(self):
            self.passwords = PasswordServer(os.path.join(self.dir, "auth"))
            self.values["more"] = config("postfix.cf", self.values)
            super().prepare()
            with open(os.path.join(self.dir, "master.cf"), "a", encoding="utf-8") as file:
                file.write(f"{self.host}:{self.values['submission']} inet n - n - - smtpd\n"
                           "  -o smtpd_tls_security_level=encrypt -o smtpd_sasl_auth_enable=yes\n"
                           "  -o smtpd_relay_restrictions=permit_sasl_authenticated,reject\n")

        def release(self):
            if self.passwords:
                self.passwords.close()

    class Exim(peers.EximRelay):
        def prepare(self):
            submission = self.values["submission"]
            self.values.update(
                more=config("exim.conf", self.values), queue="",
                authenticators=config("exim.authenticators.conf", self.values),
                tls_hosts=f"${{if eq{{$received_port}}{{{submission}}}{{*}}}}",
                listen=f"<; {self.host}.{self.port} ; {self.host}.{submission}",
                acl=f"${{if and{{{{eq{{$received_port}}{{{submission}}}}}"
                    "{eq{$authenticated_id}{}}}{deny}{accept}}")
            super().prepare()

        def words(self):
            return super().words() + ([] if self.held else ["-q1s"])

    class Opensmtpd(peers.OpensmtpdRelay):
        def prepare(self):
            hashed = harness.run(["openssl", "passwd", "-6", PASSWORD]).stdout.strip()
            self.values["more"] = config("smtpd.conf", {**self.values, "hash": hashed})
            os.chmod(self.values["key"], 0o600)
            super().prepare()

    class Haraka(peers.HarakaRelay):
        def prepare(self):
            super().prepare()
            text = config("haraka.ini", {**self.values, "held": str(self.held).lower()})
            for name, lines in _haraka_files(text).items():
                self.config(name, *lines)
            # else it makes some while it is measured
            harness.run(["openssl", "genpkey", "-genparam", "-algorithm", "DH", "-pkeyopt",
                         "group:ffdhe2048", "-out",
                         os.path.join(self.dir, "config", "dhparams.pem")])
            for kind, name in (("key", "tls_key.pem"), ("certificate", "tls_cert.pem")):
                shutil.copyfile(self.values[kind], os.path.join(self.dir, "config", name))

    class Chasquid(peers.ChasquidLocal):
        aliases, login = "*: | /bin/true\n", f"{USER}@bench.test"
        no_relay = "it has next hops by MX alone"

        def prepare(self):
            self.values["more"] = config("chasquid.conf", self.values)
            self.users = f'users {{ key: "{USER}" value {{ plain {{ password: "{PASSWORD}" }} }} }}'
            super().prepare()

    return {"postfix": Postfix, "exim": Exim, "opensmtpd": Opensmtpd, "haraka": Haraka,
            "chasquid": Chasquid}


CLASSES = _classes() if peers else {}
NAMES = ("postfix", "exim", "opensmtpd", "haraka", "chasquid")


class Peer:
    """One of them on a fresh spool, sending to the port `sink` of the bench; `held`: it delivers
    nothing as long as nobody greets there."""

    implicit = None

    def __init__(self, bench, name, key="p256", held=True, prefix=()):
        if MISSING:
            raise Unable(MISSING)
        self.name, self.account, self.folder = name, Account(), None
        self.server = None
        try:
            self.start(bench, key, held, prefix)
        except BaseException:
            self.stop()
            raise
        self.pid, self.host, self.port = self.server.process.pid, self.server.host, self.server.port
        self.submission = self.server.values["submission"]
        self.login = getattr(self.server, "login", USER)

    def start(self, bench, key, held, prefix):
        closed = closed_folder(bench.folder)
        if closed:
            raise Unable(f"{closed} is closed to other users; name another --disk")
        why = getattr(CLASSES[self.name], "no_relay", None)
        if why and not held:
            raise Unable(why)
        self.folder = tempfile.mkdtemp(prefix=f"{self.name}-", dir=bench.folder)
        os.chmod(self.folder, 0o711)
        leaf = SimpleNamespace(certificate=os.path.join(self.folder, "tls.crt"),
                               key=os.path.join(self.folder, "tls.key"))
        for path, kind in ((leaf.certificate, "crt"), (leaf.key, "key")):
            shutil.copyfile(f"{bench.pair(key)}.{kind}", path)
            os.chmod(path, 0o644)
        words = self.account.words(bench.pinned(bench.server_core, list(prefix)))
        made = type(self.name, (CLASSES[self.name],), {"prefix": words, "held": held})
        self.server = made.__new__(made)
        try:
            self.server.__init__(self.folder, self.name, leaf, sink_host="127.0.0.1",
                                 sink_port=bench.ports["sink"], user=USER, password=PASSWORD,
                                 submission=harness.free_port())
        except harness.Skip as why:
            raise Unable(str(why)) from None
        except (AssertionError, OSError, subprocess.SubprocessError) as error:
            raise Unable(f"it did not start: {str(error)[-400:]}") from error

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        if self.server is not None:
            if getattr(self.server, "process", None) is not None:
                self.server.power_off()
            if hasattr(self.server, "release"):
                self.server.release()
        self.account.close()
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def cpu_seconds(self):
        return self.account.seconds(self.pid)

    def log(self):
        return self.server.process.log(20)


def closed_folder(path):
    """The first folder on the way that accounts of other servers cannot enter, or None."""
    while path != "/":
        if not os.stat(path).st_mode & 1:
            return path
        path = os.path.dirname(path)
    return None


# ---- what they are, and whether they sync --------------------------------------------------------

SYNC_MESSAGES, SYNC_SESSIONS = 100, 5
SYNCS = "fsync,fdatasync,sync,syncfs,msync,sync_file_range"


def version(name):
    if name == "haraka":
        path = os.path.join(ROOT, "build", "haraka", "node_modules", "Haraka", "package.json")
        with open(path, encoding="utf-8") as file:
            return json.load(file)["version"]
    package = CLASSES[name].package
    path = os.path.join(harness.PEERS, package, "usr/share/doc", package, "changelog.Debian.gz")
    try:
        with gzip.open(path, "rt", encoding="utf-8", errors="replace") as file:
            return file.readline().split("(")[1].split(")")[0]
    except (OSError, IndexError):
        return "of unknown version"


def syncs(bench, name, load):
    """Calls that make files durable, a message, counted by strace in all its processes. None where
    it is missing or may not trace."""
    if not shutil.which("strace") or subprocess.run(
            ["strace", "-f", "-o", os.devnull, "true"], stderr=subprocess.DEVNULL,
            check=False).returncode != 0:
        return None
    trace = tempfile.mkdtemp(prefix="trace-", dir=bench.folder)
    words = ["strace", "-ff", "-qqq", "-e", f"trace={SYNCS}", "-o", os.path.join(trace, "t")]
    count = lambda: sum(_returned_zero(path) for path in glob.glob(os.path.join(trace, "t.*")))
    try:
        with HeldHop(bench), Peer(bench, name, prefix=words) as server:
            load(server, 10)
            server.account.quiet(server.pid, 5)
            before = count()
            load(server, SYNC_MESSAGES)
            server.account.quiet(server.pid, 5)
            return (count() - before) / SYNC_MESSAGES
    finally:
        shutil.rmtree(trace, ignore_errors=True)


def _returned_zero(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        return sum(line.rstrip().endswith("= 0") for line in file)


def survey(bench, names, load):
    """{name: version and syncs a message, or why it does not run}, said before the first round."""
    found = {}
    for name in names:
        note(f"{name}: version, syncs a message")
        try:
            if MISSING:
                raise Unable(MISSING)
            found[name] = {"syncs": syncs(bench, name, load), "version": version(name)}
        except (Unable, OSError) as error:
            found[name] = {"unable": str(error)}
    return found
