#!/usr/bin/env python3
"""The container image that tests/image/build left: small, and run by runc as a cluster would run
it: not root, read-only root, one capability, no new privileges, our seccomp profile."""
import json
import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "system"))

# pylint: disable=wrong-import-position
from lib import dialog, harness
from lib.gateway import Gateway
from lib.harness import Program, case, expect, expect_equal, expect_match, main, run, until
from lib.sink import Sink

OUT = os.path.join(ROOT, "build", "image")
BEYOND_BASE_MAX = 40 * 10**6
USER = 10025


def store(*words, **options):
    with open(os.path.join(OUT, "driver"), encoding="utf-8") as file:
        driver = file.read().strip()
    return run(["buildah", "--root", f"{OUT}/storage", "--runroot", f"{OUT}/run",
                "--storage-driver", driver, *words], seconds=120, **options).stdout.strip()


class Mounted:
    """An image's file system."""

    def __init__(self, name):
        self.name = name

    def __enter__(self):
        self.container = store("from", "--pull-never", f"localhost/{self.name}")
        return store("mount", self.container)

    def __exit__(self, *_):
        store("umount", self.container)
        store("rm", self.container)


def files(root):
    found = {}
    for folder, _, names in os.walk(root):
        for name in names:
            path = os.path.join(folder, name)
            s = os.lstat(path)
            found[os.path.relpath(path, root)] = (s.st_size, int(s.st_mtime), s.st_mode)
    return found


def profile(path):
    """A containers' seccomp profile as runc wants it: without conditions for other set-ups."""
    with open(path, encoding="utf-8") as file:
        p = json.load(file)
    made = {k: p[k] for k in ("defaultAction", "defaultErrnoRet", "architectures") if k in p}
    made["syscalls"] = [
        {k: s[k] for k in ("names", "action", "args", "errnoRet") if s.get(k)}
        for s in p["syscalls"] if not s.get("includes", {}).get("caps")
        and "amd64" not in s.get("excludes", {}).get("arches", [])]
    return made


def bundle(folder, rootfs, g, seccomp, arguments):
    """config.json for runc: what deploy/kubernetes/base asks for."""
    spool = os.path.join(folder, "spool")
    for name in (spool, os.path.join(folder, "log"), os.path.join(folder, "run")):
        os.makedirs(name, exist_ok=True)
        os.chown(name, USER, USER)
    only = ["CAP_NET_BIND_SERVICE"]

    def bound(source, target, how):
        return {"destination": target, "type": "bind", "source": source,
                "options": ["bind", how, "nosuid", "nodev"]}
    conf = {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": USER, "gid": USER}, "cwd": "/", "args": arguments,
            "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"], "noNewPrivileges": True,
            "capabilities": {k: only for k in ("bounding", "effective", "inheritable",
                                               "permitted", "ambient")}},
        "root": {"path": rootfs, "readonly": True},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"},
                   {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                    "options": ["nosuid", "mode=755", "size=65536k"]},
                   bound(g.dir, "/etc/hikyaku", "ro"), bound(spool, "/var/spool/hikyaku", "rw"),
                   bound(os.path.join(folder, "log"), "/var/log/hikyaku", "rw"),
                   bound(os.path.join(folder, "run"), "/run/hikyaku", "rw")],
        "linux": {"namespaces": [{"type": t} for t in ("mount", "pid", "ipc", "uts")],
                  "seccomp": profile(seccomp),
                  "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list"],
                  "readonlyPaths": ["/proc/sys", "/proc/sysrq-trigger"]}}
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as file:
        json.dump(conf, file)


def configured(folder, sink):
    """A gateway's configuration, with the paths as the container sees them, and port 25."""
    g = Gateway(folder, sink)
    g.port["relay"] = 25
    g.receive("relay")["bind"] = [f"{g.host}:25"]
    g.config["spool"]["path"] = "/var/spool/hikyaku"
    g.config["log"]["tracking"] = "/var/log/hikyaku/tracking.jsonl"
    g.config["admin"].update(socket="/run/hikyaku/ctl.sock", token_file="token")
    g.config["users"]["file"] = "users"
    for c in g.config["receive_connectors"]:
        for pair in c["tls"]["certificates"]:
            for kind in ("certificate", "key"):
                name = os.path.basename(pair[kind])
                if os.path.exists(pair[kind]):
                    run(["cp", pair[kind], g.path(name)])
                pair[kind] = name
    g.tracking_path = os.path.join(folder, "log", "tracking.jsonl")
    g.write_config()
    run(["chmod", "-R", "a+rX", g.dir])
    return g


def runc(folder, *words, **options):
    return run(["runc", "--root", os.path.join(folder, "state"), *words], **options)


@case("beyond the base it has less than 40 MB, and what it needs")
def small(_):
    with Mounted("hikyaku-base") as base, Mounted("hikyaku") as image:
        old, new = files(base), files(image)
        own = {p: s for p, s in new.items() if old.get(p) != s}
        total = sum(s[0] for s in own.values())
        print(f"# {total / 1e6:.1f} MB beyond the base, {len(own)} files")
        expect(total < BEYOND_BASE_MAX, sorted(own.items(), key=lambda x: -x[1][0])[:10])
        missing = [p for p in ("usr/sbin/hikyaku", "usr/bin/hikyakuctl") if p not in new]
        expect_equal(missing, [])
        suid = [p for p, s in own.items() if s[2] & 0o6000]
        expect_equal(suid, [], "new set-user-id files")


@case("runc: not root, read-only root, one capability, our profile; mail goes through", 90)
def runs(folder):
    sink = Sink(folder)
    g = configured(folder, sink)
    name = f"hk{os.getpid()}"
    with Mounted("hikyaku") as image:
        bundle(folder, image, g, os.path.join(ROOT, "deploy/container/seccomp.json"),
               ["/usr/sbin/hikyaku", "--config", "/etc/hikyaku/hikyaku.yaml"])
        g.log_path = os.path.join(folder, "out")
        g.process = Program(["runc", "--root", os.path.join(folder, "state"), "run", "--bundle",
                             folder, name], g.log_path)
        try:
            until(lambda: g.ready() or not g.process.alive(), "ready", 30)
            expect(g.process.alive(), "the container runs:", g.process.log())
            state = json.loads(runc(folder, "state", name).stdout)
            with open(f"/proc/{state['pid']}/status", encoding="utf-8") as file:
                status = file.read()
            for line in (rf"Uid:\t{USER}\t{USER}", r"CapEff:\t0000000000000400",
                         r"CapBnd:\t0000000000000400", r"NoNewPrivs:\t1", r"Seccomp:\t2"):
                expect_match(line, status)
            done = runc(folder, "exec", name, "touch", "/usr/x", status=None)
            expect(done.returncode != 0, "the root can be written")
            with dialog.Line(g.host, 25) as line:
                line.wanted(220)
                line.ask("EHLO x", 250)
                line.ask("MAIL FROM:<a@client.test>", 250)
                line.ask("RCPT TO:<b@x.test>", 250)
                line.ask("DATA", 354)
                line.ask("Subject: x\r\n\r\nthrough a container\r\n.", 250)
            expect(b"through a container" in sink.message(sink.wait(1)[0]), "the message")
            expect_match("running", runc(folder, "exec", name, "hikyakuctl", "--socket",
                                         "/run/hikyaku/ctl.sock", "status").stdout)
            g.wait_tracking("delivered")
            runc(folder, "exec", name, "hikyakuctl", "--socket", "/run/hikyaku/ctl.sock", "drain")
            expect_equal(g.process.wait(), 0, "exit status after preStop's command")
        finally:
            if g.process.alive():
                runc(folder, "delete", "--force", name, status=None)


@case("under a profile that forbids io_uring it says what to use")
def forbidden(folder):
    usual = os.path.join(folder, "usual.json")
    with open(os.path.join(ROOT, "deploy/container/seccomp.json"), encoding="utf-8") as file:
        p = json.load(file)
    for entry in p["syscalls"]:
        entry["names"] = [n for n in entry["names"] if not n.startswith("io_uring")]
    with open(usual, "w", encoding="utf-8") as file:
        json.dump(p, file)
    g = configured(folder, Sink(folder))
    with Mounted("hikyaku") as image:
        bundle(folder, image, g, usual,
               ["/usr/sbin/hikyaku", "--config", "/etc/hikyaku/hikyaku.yaml"])
        done = runc(folder, "run", "--bundle", folder, f"hk{os.getpid()}n", status=69)
        expect_match(r"deploy/container/seccomp\.json", done.stderr + done.stdout)


if __name__ == "__main__":
    main("image")
