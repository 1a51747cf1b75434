#!/usr/bin/env python3
# time-limit: 150
# builds: asan
"""Bad input at the start: each is one clear line and an exit status that is not 0, and the spool is
as it was. Broken configurations name file, line and column.
"""
import glob
import hashlib
import json
import os
import re
import smtplib
import socket
import time

from lib import certs, harness
from lib.gateway import Gateway
from lib.harness import case, expect, expect_equal, expect_match, main, program, run
from lib.sink import Sink

HEAD = """hostname: gw.test
spool: {{path: {dir}/spool}}
admin: {{socket: {dir}/ctl.sock}}
receive_connectors:
  - name: relay
    bind: ["{host}:{port}"]
"""

# What is appended to HEAD, where it is wrong (line, column; None: any), what the message says.
BROKEN = [
    ("unknown key", "frob: 1\n", (7, 1), "frob"),
    ("unknown key inside a group", "retry: {intervals: [1m], forever: 2d}\n", (7, 26), "forever"),
    ("unknown key of a connector", "    frobnicate: yes\n", (7, 5), "frobnicate"),
    ("a key twice", "hostname: x.test\n", (7, 1), "hostname"),
    ("a size that is none", "    max_message_size: 35MegaBytes\n", (7, 23), "max_message_size: "),
    ("a time that is none", "retry: {expire: 2fortnights}\n", (7, 17), "retry.expire: "),
    ("a number where a group belongs", "retry: 5\n", (7, 8), "retry"),
    ("a choice that is none", "log: {level: chatty}\n", (7, 14), "log.level: .*warning"),
    ("an address that is none", "admin: {http: 300.1.1.1:80}\n", None, ""),
    ("a network that is none", "    relay: {networks: [10.0.0.0/33]}\n", (7, 24),
     "relay.networks: "),
    ("YAML that ends in the middle", "log: {level: info\n", None, ""),
    ("a tab for a blank", "\tlog: {level: info}\n", None, ""),
    ("a protocol log without a folder", "    protocol_log: true\n", None, "needs log.protocol"),
    ("rewriting is not supported yet",
     "rewrite:\n  - {from: \"*@a.test\", to: \"*@b.test\"}\n", None, "not supported yet"),
    ("DANE is not supported yet",
     "send_connectors:\n  - {name: a, address_spaces: [\"*\"], delivery: mx, tls: {level: dane}}\n",
     (8, 65), "dane is not supported yet"),
    ("a send connector without hosts",
     "send_connectors:\n  - {name: a, address_spaces: [\"*\"], delivery: smart_hosts}\n",
     None, "smart_hosts"),
    ("an open relay by mistake",
     "send_connectors:\n  - name: a\n    address_spaces: [\"*\"]\n    delivery: mx\n"
     "    allow_relay: true\n", None, "open_relay"),
    ("two connectors of one name",
     "send_connectors:\n  - {name: a, address_spaces: [\"*\"]}\n"
     "  - {name: a, address_spaces: [\"x.test\"]}\n", None, "a"),
    ("a scope that names nobody",
     "send_connectors:\n  - {name: a, address_spaces: [\"*\"], receive_connectors: [nobody]}\n",
     None, "nobody"),
    ("TLS without a certificate", "    tls: {mode: starttls}\n", None, "certificate"),
    ("AUTH without users", "    auth: {mechanisms: [PLAIN], require_tls: false}\n", None, "users"),
    ("a certificate that is not there",
     "    tls: {mode: starttls, certificates: [{certificate: /nowhere.crt, key: /nowhere.key}]}\n",
     None, "/nowhere.crt"),
    ("a users file that is not there", "users: {file: /nowhere/users}\n", None, "/nowhere/users"),
    ("a token file that is not there",
     "log: {level: info}\ninclude: /nowhere.yaml\n", None, "/nowhere.yaml"),
]


def tree_hash(path):
    """Names, sizes, times and contents of all below, but for the lock, which names a process."""
    total = hashlib.sha256()
    for folder, folders, files in os.walk(path):
        folders.sort()
        for name in sorted(set(files) - {"lock"}):
            with open(os.path.join(folder, name), "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            seen = os.stat(os.path.join(folder, name))
            total.update(f"{folder}/{name} {seen.st_size} {seen.st_mtime_ns} {digest}\n".encode())
    return total.hexdigest()


def refused(words, status, *patterns):
    """The command ends soon with this status and one line on standard error that fits."""
    began = time.monotonic()
    done = run(words, status=None)
    expect(time.monotonic() - began < harness.patient(10), "ends soon")
    expect_equal(done.returncode, status, f"exit status ({done.stderr.strip()})")
    lines = [x for x in done.stderr.split("\n") if x and not x.startswith("{")]
    expect_equal(len(lines), 1, f"lines: {done.stderr!r}")
    for pattern in patterns:
        expect_match(pattern, lines[0], "message")
    return lines[0]


@case("broken configurations name file, line and column")
def broken(folder):
    path = os.path.join(folder, "hikyaku.yaml")
    head = HEAD.format(dir=folder, host=harness.address(), port=harness.free_port())
    for name, text, place, word in BROKEN:
        with open(path, "w", encoding="utf-8") as file:
            file.write(head + text)
        where = rf"{re.escape(path)}:{place[0]}:{place[1]}: " if place else \
            rf"{re.escape(path)}:\d+:\d+: "
        error = None
        try:
            refused([program("hikyaku"), "--config", path, "--check"], 2, where, word)
            refused([program("hikyaku"), "--config", path], 2, where, word)
            expect(not os.path.exists(os.path.join(folder, "spool")), "a spool was made")
        except AssertionError as why:
            error = why
        harness.result(f"--check: {name}", error)


@case("wrong use of the command line is status 2 and one line")
def wrong_use(_):
    for words in ([], ["--config"], ["--frob"], ["--config", "a", "b"],
                  ["--config", "/nowhere.yaml"], ["--config", "/"]):
        done = run([program("hikyaku"), *words], status=2)
        expect_equal(done.stderr.count("\n"), 1, f"lines for {words}: {done.stderr!r}")
        expect_equal(done.stdout, "")
    expect_match(r"^hikyaku \d+\.\d+", run([program("hikyaku"), "--version"]).stdout)


@case("what --print-defaults prints is accepted by --check")
def defaults(folder):
    text = run([program("hikyaku"), "--print-defaults"]).stdout
    expect("max_message_size" in text and "warn_after" in text, "keys are there")
    path = os.path.join(folder, "defaults.yaml")
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    done = run([program("hikyaku"), "--config", path, "--check"], status=None)
    expect_equal(done.returncode, 0, done.stderr)


@case("a sound configuration passes --check and leaves nothing behind")
def sound(folder):
    g = Gateway(folder, Sink(folder))
    g.write_config()
    before = sorted(os.listdir(g.dir))
    run([program("hikyaku"), "--config", g.config_path, "--check"])
    expect_equal(sorted(os.listdir(g.dir)), before)


@case("environment variables and included files")
def environment(folder):
    g = Gateway(folder, Sink(folder))
    g.config["hostname"] = "${HIKYAKU_TEST_NAME}"
    g.write_config()
    done = run([program("hikyaku"), "--config", g.config_path, "--check"], status=2,
               env={k: v for k, v in os.environ.items() if k != "HIKYAKU_TEST_NAME"})
    expect_match(re.escape(g.config_path) + r":\d+:\d+: .*HIKYAKU_TEST_NAME", done.stderr)
    run([program("hikyaku"), "--config", g.config_path, "--check"],
        env=dict(os.environ, HIKYAKU_TEST_NAME="gw.test"))


def with_spool(folder):
    """A gateway that has a message in its spool and was stopped; and the spool's hash."""
    g = Gateway(folder)
    g.config["send_connectors"] = [{
        "name": "out", "address_spaces": ["*"], "delivery": "smart_hosts",
        "smart_hosts": [f"[{g.host}]:{harness.free_port()}"], "tls": {"level": "none"}}]
    g.start()
    with smtplib.SMTP(g.host, g.port["relay"], timeout=60) as client:
        client.sendmail("a@x.test", ["b@y.test"], b"Subject: kept\r\n\r\nkept\r\n")
    g.stop()
    return g, tree_hash(g.path("spool"))


def start_refused(g, status, *patterns):
    g.write_config()
    return refused([program("hikyaku"), "--config", g.config_path], status, *patterns)


@case("ports, certificates, spools: one line each, the spool untouched")
def start_problems(folder):
    g, before = with_spool(folder)
    spool = g.path("spool")

    def shown(name, status, *patterns, change=lambda: None):
        error = None
        kept = json.dumps(g.config)
        try:
            change()
            start_refused(g, status, *patterns)
            expect_equal(tree_hash(spool), before, "the spool")
        except AssertionError as why:
            error = why
        g.config = json.loads(kept)
        harness.result(name, error)

    with socket.create_server((g.host, g.port["relay"])):
        shown("a port in use", 1, rf"{re.escape(g.host)}:{g.port['relay']}", "in use")
    with socket.create_server((g.host, g.port["admin"])):
        shown("the admin port in use", 1, str(g.port["admin"]), "in use")

    def tls(certificate, key):
        def change():
            g.receive("submission")["tls"]["certificates"] = [{"certificate": certificate,
                                                               "key": key}]
        return change
    other = certs.leaf("other.test")
    place = re.escape(g.config_path) + r":\d+:\d+: "
    shown("a missing certificate", 2, place, "/nowhere.crt",
          change=tls("/nowhere.crt", g.leaf.key))
    shown("a missing key", 2, place, "/nowhere.key",
          change=tls(g.leaf.certificate, "/nowhere.key"))
    shown("a key that does not fit", 2, place, re.escape(other.key) + "|key",
          change=tls(g.leaf.certificate, other.key))
    broken_file = os.path.join(folder, "broken.crt")
    with open(broken_file, "w", encoding="utf-8") as file:
        file.write("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    shown("a certificate that is none", 2, place, "broken.crt",
          change=tls(broken_file, g.leaf.key))

    def users():
        with open(g.path("users"), "a", encoding="utf-8") as file:
            file.write("eve:plaintext\n")
    kept = open(g.path("users"), encoding="utf-8").read()
    shown("a users file with a password that is no hash", 2, r"users:\d+", change=users)
    with open(g.path("users"), "w", encoding="utf-8") as file:
        file.write(kept)

    second = Gateway(folder, name="second")
    second.config["spool"] = g.config["spool"]
    second.config["send_connectors"] = g.config["send_connectors"]
    g.start()
    error = None
    try:
        start_refused(second, 1, re.escape(spool), "in use|another|lock|used")
    except AssertionError as why:
        error = why
    harness.result("F64 a second process on one spool", error)
    expect(g.ready(), "the first one goes on")
    g.stop()

    def file_for_folder():
        path = os.path.join(folder, "a-file")
        with open(path, "w", encoding="utf-8") as file:
            file.write("x")
        g.config["spool"]["path"] = path
    shown_elsewhere = tree_hash(spool)

    def elsewhere(name, status, *patterns, change):
        error = None
        kept = dict(g.config["spool"])
        try:
            change()
            start_refused(g, status, *patterns)
            expect_equal(tree_hash(spool), shown_elsewhere, "the spool")
        except AssertionError as why:
            error = why
        g.config["spool"] = kept
        harness.result(name, error)
    elsewhere("a spool that is a file", 1, "a-file", change=file_for_folder)

    def read_only():
        g.config["spool"]["path"] = "/proc/self/hikyaku-spool"
    elsewhere("an unwritable spool", 1, "/proc/self/hikyaku-spool", change=read_only)


def crc32c(data):
    """CRC-32C (Castagnoli), bit by bit."""
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff


@case("F60 a spool of a later format is refused, not dropped")
def later_format(folder):
    g, _ = with_spool(folder)
    changed = 0
    for path in glob.glob(g.path("spool", "lane-*", "*.seg")):
        with open(path, "r+b") as file:  # queue/FORMAT.md section 2: two equal headers
            head = bytearray(file.read(2048))
            expect_equal(bytes(head[:8]), b"HIKYSEG1", "magic")
            stored, head[8:12] = bytes(head[8:12]), bytes(4)
            expect_equal(crc32c(head).to_bytes(4, "little"), stored, "the CRC as this test has it")
            head[12:16] = (99).to_bytes(4, "little")
            head[8:12] = crc32c(head).to_bytes(4, "little")
            file.seek(0)
            file.write(head * 2)
            changed += 1
    expect(changed, "segments")
    before = tree_hash(g.path("spool"))
    start_refused(g, 1, "99|version|format")
    expect_equal(tree_hash(g.path("spool")), before, "the spool")


@case("the hash that hikyakuctl hash-password makes lets its owner in")
def hash_password(folder):
    done = run([program("hikyakuctl"), "hash-password"], input="wonder land\n")
    made = [x for x in done.stdout.split("\n") if x.startswith("$")]
    expect_equal(len(made), 1, done.stdout)
    again = run([program("hikyakuctl"), "hash-password"], input="wonder land\n")
    expect(again.stdout != done.stdout, "a salt of its own")
    g = Gateway(folder, Sink(folder))
    with open(g.path("users"), "w", encoding="utf-8") as file:
        file.write(f"dora:{made[0]}\n")
    g.start()
    with smtplib.SMTP_SSL(g.host, g.port["submissions"], timeout=30) as client:
        client.login("dora", "wonder land")
    with smtplib.SMTP_SSL(g.host, g.port["submissions"], timeout=30) as client:
        try:
            client.login("dora", "wonderland")
        except smtplib.SMTPAuthenticationError as error:
            expect_equal(error.smtp_code, 535)
        else:
            raise AssertionError("a wrong password was taken")
    g.stop()


if __name__ == "__main__":
    main("start", beside=2)
