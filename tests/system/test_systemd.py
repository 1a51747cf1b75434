#!/usr/bin/env python3
# time-limit: 120
# builds: release, asan
"""make install, the systemd unit: how hardened it is, its filter, socket activation, readiness."""
import os
import re
import socket
import subprocess

from lib import dialog, harness
from lib.gateway import Gateway
from lib.harness import (ROOT, Program, Skip, case, expect, expect_equal, expect_match, main,
                         program, run, tool, until)
from lib.sink import Sink

EXPOSURE_MAX = 2.0
FILTERED = os.path.join(ROOT, "tests", "system", "lib", "filtered.py")


def install(folder):
    """make install of what is built, below the folder; nothing is built."""
    built = os.path.join(folder, "built")
    os.makedirs(built)
    for name in ("hikyaku", "hikyakuctl", "hikyaku-bench"):
        os.symlink(os.path.abspath(program(name)), os.path.join(built, name))
    root = os.path.join(folder, "root")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    run([tool("make"), "-C", ROOT, "DEPS=skip", f"B={built}", "PREFIX=/usr", f"DESTDIR={root}",
         "install-files"], seconds=60, env=environment)
    return root


@case("make install puts everything where systemd and man find it")
def installs(folder):
    root = install(folder)
    for path, mode in (("sbin/hikyaku", 0o755), ("bin/hikyakuctl", 0o755),
                       ("bin/hikyaku-bench", 0o755), ("share/man/man8/hikyaku.8", 0o644),
                       ("lib/systemd/system/hikyaku.service", 0o644),
                       ("lib/systemd/system/hikyaku.socket", 0o644),
                       ("lib/sysusers.d/hikyaku.conf", 0o644),
                       ("lib/tmpfiles.d/hikyaku.conf", 0o644),
                       ("share/bash-completion/completions/hikyakuctl", 0o644),
                       ("share/doc/hikyaku/examples/hikyaku.yaml", 0o644)):
        found = os.path.join(root, "usr", path)
        expect(os.path.isfile(found), path, "is missing")
        expect_equal(os.stat(found).st_mode & 0o777, mode, path)
    expect_match("hikyaku 0", run([os.path.join(root, "usr/sbin/hikyaku"), "--version"]).stdout)


@case("the package is built with what the build needs")
def dependencies(_):
    def text(*path):
        with open(os.path.join(ROOT, *path), encoding="utf-8") as file:
            return file.read()
    listed = text("deploy/packages/packages.list")
    wanted = set(re.findall(r"^build +(\S+-dev)", listed, re.M)) - {"libc6-dev"}
    expect(len(wanted) > 8, wanted)
    built_with = set(re.findall(r"[a-z0-9.+-]+-dev", text("deploy/debian/control")))
    expect_equal(wanted - built_with, set(), "not in Build-Depends")


@case("bash completes the commands, words and options of hikyakuctl")
def completion(_):
    script = ('. deploy/completion/hikyakuctl; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); '
              '_hikyakuctl; echo "${COMPREPLY[*]}"')

    def completed(*words):
        return run(["bash", "-c", script, "bash", os.path.abspath(program("hikyakuctl")), *words],
                   cwd=ROOT).stdout.split()
    expect_equal(completed("q"), ["queue"])
    expect_equal(completed("queue", "re"), ["release", "remove", "retry"])
    expect({"status", "reload", "drain", "hash-password"} <= set(completed("")), "commands")
    expect_equal(completed("--socket", "/tmp/x", "queue", "hold", "--"), ["--filter"])
    expect("--from" in completed("route", "explain", "a@b.test", "--"), "options of route explain")
    expect_equal(completed("--js"), ["--json"])


@case("the unit is well-formed and exposes less than 2.0")
def hardened(folder):
    analyze = tool("systemd-analyze")
    unit = os.path.join(install(folder), "usr/lib/systemd/system/hikyaku.service")
    done = run([analyze, "security", "--offline=true", unit], status=None)
    found = expect_match(r"Overall exposure level for hikyaku\.service: ([\d.]+)", done.stdout,
                         done.stderr)
    expect(float(found[1]) < EXPOSURE_MAX, "exposure", found[1])
    print("# exposure", found[1])
    done = run([analyze, "verify", unit, unit.replace(".service", ".socket")], status=None)
    bad = [line for line in done.stderr.splitlines()
           if "hikyaku" in line and "not executable" not in line and "Command 'man" not in line]
    expect(not bad, bad)
    for kind, tool_name in (("sysusers", "systemd-sysusers"), ("tmpfiles", "systemd-tmpfiles")):
        os.makedirs(os.path.join(folder, "root", "etc"), exist_ok=True)
        if os.geteuid() == 0:
            run([tool(tool_name), f"--root={folder}/root",
                 *(["--create"] if kind == "tmpfiles" else []), "hikyaku.conf"])
    if os.geteuid() == 0:
        expect_match("^hikyaku:", open(f"{folder}/root/etc/passwd", encoding="utf-8").read())
        expect_equal(os.stat(f"{folder}/root/var/spool/hikyaku").st_mode & 0o777, 0o700)


def members(name, seen):
    """The system calls of one of systemd's groups."""
    for line in run([tool("systemd-analyze"), "syscall-filter", name]).stdout.splitlines()[1:]:
        word = line.strip()
        if word.startswith("@") and word not in seen:
            seen.add(word)
            yield from members(word, seen)
        elif word and not word.startswith(("#", "@")):
            yield word


def filtered(*words):
    if harness.SANITIZED:
        raise Skip("the filters allow what the gateway needs, not what a sanitizer does")
    python = "/usr/bin/python3"
    probe = subprocess.run([python, "-c", "import seccomp"], stderr=subprocess.DEVNULL, check=False)
    if probe.returncode != 0:
        raise Skip("python3-seccomp is not installed")
    return [python, FILTERED, *words]


def relays_under(folder, *prefix):
    """A gateway started by `prefix` takes a message, delivers it and stops."""
    sink = Sink(folder)
    g = Gateway(folder, sink)
    g.write_config()
    g.log_path = g.path("log.filtered")
    g.process = Program([*prefix, program("hikyaku"), "--config", g.config_path], g.log_path)
    until(lambda: g.ready() or not g.process.alive(), "ready", 20)
    expect(g.process.alive(), "started:", g.process.log())
    with dialog.Line(g.host, g.port["relay"]) as line:
        line.wanted(220)
        line.ask("EHLO x", 250)
        line.ask("MAIL FROM:<a@client.test>", 250)
        line.ask("RCPT TO:<b@x.test>", 250)
        line.ask("DATA", 354)
        line.ask("Subject: x\r\n\r\nx\r\n.", 250)
    sink.wait(1)
    expect_equal(g.reload().status, 200)
    g.stop()


@case("the gateway does all its work under the unit's system call filter")
def unit_filter(folder):
    with open(os.path.join(ROOT, "deploy/systemd/hikyaku.service"), encoding="utf-8") as file:
        lines = re.findall(r"^SystemCallFilter=(.*)$", file.read(), re.M)
    allowed = {"execve", "brk", "mmap", "access", "arch_prctl", "exit_group"}  # @default and ours
    for line in lines:
        drop = line.startswith("~")
        for word in line.lstrip("~").split():
            names = set(members(word, set())) if word.startswith("@") else {word}
            allowed = allowed - names if drop else allowed | names
    names = os.path.join(folder, "names")
    with open(names, "w", encoding="utf-8") as file:
        file.write("\n".join(sorted(allowed)))
    relays_under(folder, *filtered("allow", names))


@case("and under the container's profile, which allows what it names and nothing else")
def container_filter(folder):
    relays_under(folder, *filtered("profile",
                                   os.path.join(ROOT, "deploy/container/seccomp.json")))


@case("sockets that were handed over are used; a restart makes clients wait, refuses nobody")
def activation(folder):
    g = Gateway(folder, Sink(folder))
    listeners = []
    for port in (g.port["relay"], g.port["submission"], harness.free_port()):
        s = socket.create_server((g.host, port), backlog=50)
        s.setblocking(False)  # as systemd may hand them over
        listeners.append(s)
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind(g.path("notify"))
    notify.settimeout(20)
    script = "export LISTEN_PID=$$; exec 3<&{} 4<&{} 5<&{}; exec \"$@\"".format(
        *(s.fileno() for s in listeners))

    def start():
        g.write_config()
        g.starts += 1
        g.log_path = g.path(f"log.{g.starts}")
        with open(g.log_path, "ab") as out:
            process = subprocess.Popen(
                ["sh", "-c", script, "sh", program("hikyaku"), "--config", g.config_path],
                stdout=out, stderr=out, pass_fds=[s.fileno() for s in listeners],
                env=dict(os.environ, LISTEN_FDS="3", NOTIFY_SOCKET=g.path("notify")))
        g.process = Program.__new__(Program)
        g.process.words, g.process.log_path, g.process.group = ["hikyaku"], g.log_path, False
        g.process.process = process
        harness._running.append(g.process)

    for _ in range(2):  # the second one serves who came between
        with dialog.Line(g.host, g.port["relay"]) as early:
            start()
            early.wanted(220)
            expect_match(b"^READY=1\n", notify.recv(1000).decode().encode())
            until(lambda: "handed over" in " ".join(e["reason"] for e in g.log("warning")),
                  "a warning about the socket that nobody asked for")
            early.ask("QUIT", 221)
        with dialog.Line(g.host, g.port["submissions"]) as own:  # bound by the gateway itself
            own.tls()
            own.wanted(220)
        g.stop()
        expect_match(b"^STOPPING=1\n", notify.recv(1000))
    with dialog.Line(g.host, g.port["submission"]) as late:  # nobody is there, and it can wait
        expect(late.silent(), "an answer without a gateway")
        start()
        late.wanted(220)
    until(g.ready, "ready", 20)
    expect_equal(g.reload().status, 200)
    with dialog.Line(g.host, g.port["relay"]) as line:
        line.wanted(220)
    g.stop()


if __name__ == "__main__":
    main("systemd")
