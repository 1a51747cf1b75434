"""Mail and name servers that nobody here wrote, unpacked below build/peers (make peers).

Mail servers run in a mount namespace of their own whose /etc/passwd and /etc/group have their
accounts, so that nothing is installed. That takes root; without it, or without the packages, their
tests are skipped and say so. tests/crash/scoreboard.py and bench/suite start relays from here, too.
"""
import glob
import os
import shutil
import signal
import subprocess

from lib import harness
from lib.harness import PEERS, ROOT, Program, Skip, expect, until

UID = 4242
ACCOUNTS = ("postfix", "postdrop", "Debian-exim", "opensmtpd", "opensmtpq")
OWN_GROUP = ("postdrop", "opensmtpq")


def peer(package):
    folder = os.path.join(PEERS, package)
    if not os.path.exists(os.path.join(folder, "libpath")):
        raise Skip(f"{package} is not unpacked below build/peers (make peers)")
    with open(os.path.join(folder, "libpath"), encoding="utf-8") as file:
        return folder, file.read().strip()


_namespaces = []


def namespaces():
    """Whether a mount namespace can be had; tried once."""
    if not _namespaces:
        done = subprocess.run(["unshare", "-m", "mount", "--bind", "/etc/passwd", "/etc/passwd"],
                              stderr=subprocess.DEVNULL, check=False)
        _namespaces.append(os.geteuid() == 0 and done.returncode == 0)
    if not _namespaces[0]:
        raise Skip("no root, or no mount namespaces here")


def template(name, path, values):
    with open(os.path.join(ROOT, "tests", "peers", name), encoding="utf-8") as file:
        text = file.read()
    for key, value in values.items():
        text = text.replace(f"@{key}@", str(value))
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


class Server:
    """A program with a folder, an address, accounts of its own; answers() tells that it is up."""

    package, prefix = "", ()  # prefix: words before its command

    def __init__(self, folder, name, leaf=None, **values):
        self.folder_of_peer, self.libpath = self.unpacked()
        self.dir = os.path.join(folder, name)
        self.mail = os.path.join(self.dir, "mail")
        self.host, self.port = harness.address(), harness.free_port()
        os.makedirs(self.mail)
        self.accounts()
        self.values = {"dir": self.dir, "peer": self.folder_of_peer, "libpath": self.libpath,
                       "host": self.host, "port": self.port, "name": f"{name}.test", "uid": UID,
                       "certificate": leaf.certificate if leaf else "",
                       "key": leaf.key if leaf else "", "require_tls": "no",
                       "require_auth": "no", "hash": "", "more": "",
                       "tls_level": "may" if leaf else "none", **values}
        self.domain = self.values["name"]
        self.process = None
        self.prepare()
        self.start()

    def unpacked(self):
        namespaces()
        return peer(self.package)

    @property
    def smart_host(self):
        return f"[{self.host}]:{self.port}"

    def accounts(self):
        for kind in ("passwd", "group"):
            with open(f"/etc/{kind}", encoding="utf-8") as file:
                lines = [x for x in file.read().split("\n")
                         if x and x.split(":")[0] not in ACCOUNTS]
            for i, account in enumerate(ACCOUNTS):
                gid = UID + (i if account in OWN_GROUP else 0)
                lines.append(f"{account}:x:{UID}:{UID}::/nonexistent:/bin/false"
                             if kind == "passwd" else f"{account}:x:{gid}:")
            with open(os.path.join(self.dir, kind), "w", encoding="utf-8") as file:
                file.write("\n".join(lines) + "\n")

    def own(self, *names, mode=0o700):
        for name in names:
            path = os.path.join(self.dir, name)
            os.makedirs(path, exist_ok=True)
            os.chown(path, UID, UID)
            os.chmod(path, mode)

    def command(self, *words):
        script = "".join(f"mount --bind {here} {there} && " for here, there in self.mounts())
        return ["unshare", "-m", "sh", "-c", script + "exec \"$@\"", "sh", *words]

    def mounts(self):
        """What lies elsewhere for this program: (what, where)."""
        return [(f"{self.dir}/passwd", "/etc/passwd"), (f"{self.dir}/group", "/etc/group")]

    def start(self):
        environment = {"LD_LIBRARY_PATH": self.libpath, "MAIL_CONFIG": self.dir}
        self.process = Program([*self.prefix, *self.command(*self.words())],
                               os.path.join(self.dir, "out"), env=environment, group=True)
        until(lambda: harness.answers(self.host, self.port) or not self.process.alive(),
              f"{self.package} answers", 20)
        expect(self.process.alive(), self.package, "started:", self.process.log())

    def stop(self):
        self.process.signal(15)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()

    def power_off(self):
        """SIGKILL for all of it. Servers make process groups of their own, hence by descent."""
        family, grew = {self.process.pid}, True
        while grew:
            lines = harness.run(["ps", "-eo", "pid=,ppid=,sid="]).stdout.split("\n")
            rows = [tuple(map(int, line.split())) for line in lines if line.strip()]
            new = {pid for pid, parent, session in rows
                   if parent in family or session in family} - family
            grew, family = bool(new), family | new
        for pid in family:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.kill()

    def prepare(self):
        raise NotImplementedError

    def words(self):
        raise NotImplementedError

    def messages(self):
        """What was delivered, with LF as line ends, as mail servers keep it."""
        found = []
        for path in glob.glob(os.path.join(self.mail, "**", "new", "*"), recursive=True):
            with open(path, "rb") as file:
                found.append(file.read())
        return found

    def wait(self, count, seconds=20):
        until(lambda: len(self.messages()) >= count, f"{count} messages in {self.package}",
              seconds)
        return self.messages()


class Postfix(Server):
    package = "postfix"

    def prepare(self):
        queues = ("active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming",
                  "private", "saved", "trace", "maildrop", "public")
        os.makedirs(os.path.join(self.dir, "queue", "pid"))
        self.own("data", "mail", *[f"queue/{q}" for q in queues])
        template("postfix.main.cf", os.path.join(self.dir, "main.cf"), self.values)
        template("postfix.master.cf", os.path.join(self.dir, "master.cf"), self.values)

    def words(self):
        return [os.path.join(self.folder_of_peer, "usr/lib/postfix/sbin/master"), "-d"]

    def log(self):
        with open(os.path.join(self.dir, "maillog"), encoding="utf-8") as file:
            return file.read()


class Exim(Server):
    package = "exim4-daemon-light"

    def prepare(self):
        self.own("spool", "log", "mail")
        os.chown(self.dir, UID, UID)
        template("exim.conf", os.path.join(self.dir, "exim.conf"), self.values)

    def words(self):
        return [os.path.join(self.folder_of_peer, "usr/sbin/exim4"), "-C",
                os.path.join(self.dir, "exim.conf"), "-bdf"]


class Opensmtpd(Server):
    """Its folders are compiled in, so it gets others in their place."""

    package = "opensmtpd"

    def prepare(self):
        os.makedirs(os.path.join(self.dir, "lib", "opensmtpd", "empty"))
        os.makedirs(os.path.join(self.dir, "spool", "smtpd"), 0o711)
        os.mkdir(os.path.join(self.dir, "run"))
        self.own("mail")
        leaf, key = self.values["certificate"], os.path.join(self.dir, "key")
        if leaf:
            shutil.copyfile(self.values["key"], key)
            os.chmod(key, 0o600)
        self.values["pki"] = f'pki hop cert "{leaf}"\npki hop key "{key}"' if leaf else ""
        self.values["tls"] = {"none": "", "may": "tls pki hop", "encrypt": "tls-require pki hop"}[
            self.values["tls_level"]]
        self.values["auth"] = "auth <accounts>" if self.values["require_auth"] == "yes" else ""
        template("smtpd.conf", os.path.join(self.dir, "smtpd.conf"), self.values)

    def mounts(self):
        return super().mounts() + [
            (f"{self.dir}/lib", "/var/lib"), (f"{self.dir}/spool", "/var/spool"),
            (f"{self.dir}/run", "/run"), (f"{self.folder_of_peer}/usr/libexec", "/usr/libexec")]

    def words(self):
        return [os.path.join(self.folder_of_peer, "usr/sbin/smtpd"), "-d", "-f",
                os.path.join(self.dir, "smtpd.conf")]


class Knot(Server):
    """knotd with one zone, `test`; zone(text) replaces it."""

    package = "knot"

    def __init__(self, folder, zone):
        self.text = zone
        super().__init__(folder, "knot")

    def unpacked(self):
        return peer(self.package)

    def command(self, *words):
        return list(words)

    def prepare(self):
        for name in ("run", "db"):
            os.mkdir(os.path.join(self.dir, name))
        self.zone(self.text)
        template("knot.conf", os.path.join(self.dir, "knot.conf"), self.values)

    def words(self):
        return [os.path.join(self.folder_of_peer, "usr/sbin/knotd"), "-c",
                os.path.join(self.dir, "knot.conf")]

    def zone(self, text):
        with open(os.path.join(self.dir, "test.zone"), "w", encoding="utf-8") as file:
            file.write("$ORIGIN test.\n$TTL 1\n@ SOA ns hostmaster 1 3600 600 86400 1\n@ NS ns\n"
                       "ns A 127.0.0.1\n" + text)


class SmtpSink:
    """Postfix's smtp-sink: takes mail and keeps each message in a file."""

    def __init__(self, folder, *options, name="smtp-sink"):
        package, libpath = peer("postfix")
        self.host, self.port = harness.address(), harness.free_port()
        self.dir = os.path.join(folder, name)
        os.makedirs(self.dir)
        path = os.path.join(package, "usr/sbin/smtp-sink")
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        if user:
            shutil.chown(self.dir, "nobody")
        os.chmod(self.dir, 0o755)
        self.process = Program([path, *user, *options, "-d", "%M.", f"{self.host}:{self.port}",
                                "200"], os.path.join(folder, f"{name}.log"), cwd=self.dir,
                               env={"LD_LIBRARY_PATH": libpath})
        until(lambda: harness.answers(self.host, self.port) or not self.process.alive(),
              "smtp-sink answers")
        expect(self.process.alive(), "smtp-sink started:", self.process.log())

    @property
    def smart_host(self):
        return f"[{self.host}]:{self.port}"

    def messages(self):
        """What came; smtp-sink writes its own lines of the envelope before each message."""
        found = []
        for name in sorted(os.listdir(self.dir)):
            with open(os.path.join(self.dir, name), "rb") as file:
                found.append(file.read())
        return [m for m in found if m]

    def wait(self, count, seconds=15):
        until(lambda: len(self.messages()) >= count, f"{count} messages at smtp-sink", seconds)
        return self.messages()


# ---- relays -------------------------------------------------------------------------------------
#
# The same servers, sending whatever comes to one next hop: sink_host, sink_port. `held`: they queue
# and do not deliver, in the way of each that costs it least.


class PostfixRelay(Postfix):
    """Tries its next hop always: for mail to be held, that one has to be silent."""

    sender = "smtp unix - - n - - smtp"

    def prepare(self):
        self.values["more"] = (f"relayhost = [{self.values['sink_host']}]:"
                               f"{self.values['sink_port']}\n{self.values['more']}")
        super().prepare()
        with open(os.path.join(self.dir, "master.cf"), "a", encoding="utf-8") as file:
            file.write(self.sender + "\n")


class EximRelay(Exim):
    template = "relay.exim.conf"

    def prepare(self):
        super().prepare()
        values = {"tls_hosts": "", "acl": "accept", "queue": "queue_only", "authenticators": "",
                  "listen": f"{self.host}.{self.port}", **self.values}
        template(self.template, os.path.join(self.dir, "exim.conf"), values)


class OpensmtpdRelay(Opensmtpd):
    template, held = "relay.smtpd.conf", False

    def prepare(self):
        super().prepare()
        template(self.template, os.path.join(self.dir, "smtpd.conf"), self.values)

    def words(self):
        return super().words() + (["-P", "mta"] if self.held else [])


class HarakaRelay(Server):
    """Below build/haraka; needs no accounts."""

    package, held = "Haraka", False
    plugins = ("to_sink",)

    def unpacked(self):
        top = os.path.join(ROOT, "build", "haraka", "node_modules", "Haraka")
        self.program = os.path.join(top, "bin", "haraka")
        if not os.path.exists(self.program):
            raise Skip("Haraka is not below build/haraka (deploy/packages/fetch-haraka)")
        return top, ""

    def accounts(self):
        pass

    def command(self, *words):
        return list(words)

    def prepare(self):
        shutil.copytree(os.path.join(self.folder_of_peer, "config"),
                        os.path.join(self.dir, "config"))
        os.makedirs(os.path.join(self.dir, "queue"), exist_ok=True)
        os.makedirs(os.path.join(self.dir, "plugins"))
        shutil.copyfile(os.path.join(ROOT, "tests", "peers", "haraka.to_sink.js"),
                        os.path.join(self.dir, "plugins", "to_sink.js"))
        self.config("plugins", *self.plugins)
        self.config("smtp.ini", f"listen={self.host}:{self.port}")
        self.config("me", self.domain)
        self.config("to_sink.ini", f"host={self.values['sink_host']}",
                    f"port={self.values['sink_port']}")
        self.hold(self.held)

    def hold(self, held):
        self.config("outbound.ini", f"disabled={str(held).lower()}", "local_mx_ok=true")

    def config(self, name, *lines):
        with open(os.path.join(self.dir, "config", name), "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")

    def words(self):
        return [harness.tool("node"), self.program, "-c", self.dir]


class ChasquidLocal(Server):
    """No relay: it has next hops by MX alone. `aliases`: who gets the mail of bench.test; `users`:
    who may log in."""

    package, aliases, users = "chasquid", "", ""

    def prepare(self):
        self.own("data")
        config = os.path.join(self.dir, "config")
        domain = os.path.join(config, "domains", "bench.test")
        pair = os.path.join(config, "certs", self.values["name"])
        os.makedirs(domain)
        os.makedirs(pair)
        shutil.copyfile(self.values["certificate"], os.path.join(pair, "fullchain.pem"))
        shutil.copyfile(self.values["key"], os.path.join(pair, "privkey.pem"))
        for path, text in ((os.path.join(domain, "aliases"), self.aliases),
                           (os.path.join(domain, "users"), self.users),
                           (os.path.join(self.dir, "resolv.conf"), "nameserver 127.0.0.1\n")):
            with open(path, "w", encoding="ascii") as file:
                file.write(text)
        template("chasquid.conf", os.path.join(config, "chasquid.conf"), self.values)

    def mounts(self):
        return super().mounts() + [(f"{self.dir}/resolv.conf", "/etc/resolv.conf")]

    def words(self):
        return [os.path.join(self.folder_of_peer, "usr/bin/chasquid"), "-config_dir",
                os.path.join(self.dir, "config")]
