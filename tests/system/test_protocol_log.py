#!/usr/bin/env python3
# time-limit: 200
# builds: asan
"""E7, the protocol log: each line of a dialog with time, session, addresses and direction, of a
connector or of one client for a while; credentials masked, content counted."""
import base64
import csv
import glob
import gzip
import os
import re
import smtplib
import socket
import ssl

from lib import certs, peers
from lib.gateway import PASSWORDS, Gateway, smart_host
from lib.harness import case, expect, expect_equal, expect_match, main, run, tool, until
from lib.sink import Sink

FIELDS = ["time", "connector", "session", "number", "local", "remote", "event", "data", "context"]
SECRET = "smart-secret-9"


def lines(g, name="receive", **wanted):
    """Lines of the log as dicts, of those that have these values."""
    path = g.path("protocol", name + ".log")
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8", newline="") as file:
        text = file.read()
    rows = [dict(zip(FIELDS, row)) for row in csv.reader(text[:text.rfind("\n") + 1].split("\n"))
            if row and not row[0].startswith("#")]
    return [r for r in rows if all(r[k] == v for k, v in wanted.items())]


def whole(g, session_of, name="receive"):
    """All lines of the session that has such a line, as soon as it is over."""
    def probe():
        for row in lines(g, name):
            if session_of(row):
                mine = lines(g, name, session=row["session"])
                if mine[-1]["event"] == "-":
                    return mine
        return None
    return until(probe, f"a session in {name}.log that has ended")


def said(rows):
    return [r["event"] + " " + r["data"] for r in rows if r["event"] in "<>"]


def gateway(folder, sink, **log):
    g = Gateway(folder, sink)
    g.config["log"].update(protocol=g.path("protocol"), **log)
    return g


def trusting():
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def raw(g, port, text, tls=False):
    """Says all of it in pieces, reads until the end."""
    with socket.create_connection((g.host, g.port[port]), timeout=60) as plain:
        s = trusting().wrap_socket(plain, server_hostname="localhost") if tls else plain
        for at in range(0, len(text), 7):
            s.sendall(text[at:at + 7])
        got = b""
        while chunk := s.recv(65536):
            got += chunk
        return got


@case("E7 a connector with protocol_log: every line, masked, content counted", 60)
def connector(folder):
    sink = Sink(folder)
    g = gateway(folder, sink)
    g.receive("submission")["protocol_log"] = True
    g.start()
    b64 = lambda text: base64.b64encode(text.encode()).decode()
    with smtplib.SMTP(g.host, g.port["submission"], timeout=60) as client:
        client.ehlo("client.test")
        client.starttls(context=trusting())
        client.login("alice", PASSWORDS["alice"])
        body = b"Subject: private\r\n\r\ntop secret text, \"quoted\"\r\n"
        client.sendmail("alice@client.test", ["x@y.test"], body)
    raw(g, "relay", b"EHLO other.test\r\nQUIT\r\n")  # has no protocol_log
    rows = whole(g, lambda r: r["connector"] == "submission")
    text = "\n".join(said(rows))
    expect_equal([r["number"] for r in rows], [str(i) for i in range(len(rows))])
    expect_equal({r["connector"] for r in rows}, {"submission"}, "the other connector has none")
    expect_equal({r["local"] for r in rows}, {f"{g.host}:{g.port['submission']}"})
    expect_match(r"^127\.[0-9.]+:\d+$", rows[0]["remote"])
    expect_equal((rows[0]["event"], rows[-1]["event"]), ("+", "-"))
    for row in rows:
        expect_match(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$", row["time"])
    expect_match(r"^> 220 .*\n< ehlo client.test\n> 250-.*\n< STARTTLS\n> 220 ", text)
    facts = [r for r in rows if r["context"].startswith("TLS")]
    expect_match(r"^TLSv1\.3 TLS_\w+ (128|256) bits$", facts[0]["data"])
    expect_match(r"\n< AUTH PLAIN \*\*\*\n> 235 ", text)
    expect("authenticated" in [r["context"] for r in rows if r["data"] == "alice"], rows)
    expect_match(r"\n< data\n> 354 .*\n> 250 2.0.0 \w+\n< QUIT\n> 221 ", text)
    count, = [r for r in rows if r["context"] == "bytes of message received"]
    expect_equal(int(count["data"]), len(body) + len(b".\r\n"))
    with open(g.path("protocol", "receive.log"), encoding="utf-8") as file:
        everything = file.read()
    for secret in (b64(f"\0alice\0{PASSWORDS['alice']}"), "private", "top secret"):
        expect(secret not in everything, secret)
    expect_match(r"^#Software: Hikyaku\n#.*\n#Fields: date-time,connector-id,", everything)
    g.stop()


@case("E7 no form of a login is in the log, refused and pipelined ones included", 60)
def logins(folder):
    g = gateway(folder, None)
    for name in ("submission", "submissions", "relay"):
        g.receive(name)["protocol_log"] = True
    g.start()
    user, word = "c2VjcmV0LXVzZXI=", "c2VjcmV0LXdvcmQ="
    both = base64.b64encode(b"\0secret-user\0secret-word").decode()
    token = base64.b64encode(b"user=secret-user\1auth=Bearer secret-word\1\1").decode()
    texts = [f"EHLO a\r\nAUTH PLAIN {both}\r\nQUIT\r\n",
             f"EHLO a\r\nAUTH PLAIN\r\n{both}\r\nQUIT\r\n",
             f"EHLO a\r\nAUTH LOGIN\r\n{user}\r\n{word}\r\nQUIT\r\n",
             f"EHLO a\r\nAUTH LOGIN {user}\r\n{word}\r\nQUIT\r\n",
             f"EHLO a\r\nAUTH XOAUTH2 {token}\r\nQUIT\r\n",
             f"EHLO a\r\nAUTH OTHER\r\n{token}\r\nQUIT\r\n",
             f"AUTH LOGIN\r\n{user}\r\n{word}\r\nQUIT\r\n",
             f"EHLO a\r\nAUTH {both}\r\n{word}\r\nQUIT\r\n",
             f"EHLO a\r\nAUTH PLAIN {both * 400}\r\nQUIT\r\n",
             f"EHLO a\r\nAUTH LOGIN\r\n{user * 1000}\r\n{word}\r\nQUIT\r\n"]
    for text in texts:
        for port in ("submission", "submissions", "relay"):
            try:
                raw(g, port, text.encode(), tls=port == "submissions")
            except OSError:
                pass  # closed before all was said
    until(lambda: len(lines(g, event="-")) == 3 * len(texts), "all sessions are logged")
    with open(g.path("protocol", "receive.log"), encoding="utf-8") as file:
        everything = file.read()
    for secret in (user, word, both, token, "secret"):
        expect(secret.rstrip("=") not in everything, secret)
    expect(everything.count("***") >= 3 * len(texts), "masks")
    expect_equal(len(lines(g, event="+")), 3 * len(texts))
    g.stop()


@case("E7 hikyakuctl protocol-log: one client for a while, in status, ends by itself", 60)
def client(folder):
    g = gateway(folder, None).start()
    source = re.sub(r"\d+$", "77", g.host)

    def session(close=True):
        s = socket.create_connection((g.host, g.port["relay"]), timeout=60,
                                     source_address=(source, 0))
        f = s.makefile("rwb")
        f.readline()

        def say(word):
            f.write(word + b"\r\n")
            f.flush()
            while (answer := f.readline())[3:4] == b"-":
                pass
            return answer
        say(b"EHLO before.test")
        if close:
            say(b"QUIT")
        return s, say

    session()
    _, open_one = session(False)
    out = g.ctl("protocol-log", "start", source).stdout
    expect_match(rf"address +{re.escape(source)} +for \d+[ms] more", out)
    open_one(b"NOOP open")
    session()
    raw(g, "relay", b"EHLO somebody.else\r\nQUIT\r\n")
    until(lambda: len(lines(g, event="-")) == 1 and "< NOOP open" in said(lines(g)), "both")
    expect_equal({r["remote"].rsplit(":", 1)[0] for r in lines(g)}, {source})
    middle = [r for r in lines(g) if "middle" in r["context"]]
    expect_equal(len(middle), 1)
    expect("somebody.else" not in str(lines(g)), "another client")
    expect_equal([t["target"] for t in g.status()["protocol_log"]], [source])
    expect_match(rf"protocol_log +{re.escape(source)} for ", g.ctl("status").stdout)
    g.ctl("protocol-log", "stop", source)
    open_one(b"NOOP unseen")
    session()
    expect("protocol_log" not in g.status(), "stopped")

    def count(words):
        return len([r for r in lines(g) if words in r["context"]])

    def again():  # a connector; on a slow machine it may end before the line is there
        g.ctl("protocol-log", "start", "relay", "--for", "2s")
        open_one(b"NOOP again")
        return "< NOOP again" in said(lines(g))
    until(lambda: count("ends here") == 1, "the stop")
    until(again, "the connector")
    until(lambda: "protocol_log" not in g.status() and count("ends here") == count("middle"),
          "it ends by itself")
    open_one(b"NOOP unseen")
    expect("unseen" not in str(lines(g)), "what came when nothing was watched")
    network = re.sub(r"\d+\.\d+$", "0.0/16", g.host)
    g.ctl("protocol-log", "start", network)
    open_one(b"NOOP network")
    until(lambda: "< NOOP network" in said(lines(g)), "a network")
    expect_match("network|address", g.ctl("protocol-log", "list").stdout)
    expect_match("no connector, no address", g.ctl("protocol-log", "start", "x", status=1).stderr)
    expect_match("1s to 1d", g.ctl("protocol-log", "start", source, "--for", "3d", status=1).stderr)
    g.ctl("protocol-log", "stop", "all")
    g.ctl("protocol-log", "stop", source, status=1)
    g.ctl("protocol-log", "watch", status=2)
    g.stop()


@case("E7 without log.protocol it is refused, with what to do")
def unset(folder):
    g = Gateway(folder, None).start()
    expect_match("set log.protocol", g.ctl("protocol-log", "start", "127.0.0.1", status=1).stderr)
    g.stop()


@case("E7 swaks: AUTH LOGIN and PLAIN in TLS, seen from the log of the gateway", 60)
def swaks(folder):
    tool("swaks")
    g = gateway(folder, Sink(folder))
    g.receive("submissions")["protocol_log"] = True
    g.start()
    for mechanism in ("LOGIN", "PLAIN"):
        run(["swaks", "--server", g.host, "--port", str(g.port["submissions"]), "--tlsc",
             "--auth", mechanism, "--auth-user", "bob", "--auth-password", PASSWORDS["bob"],
             "--from", "x@bob.test", "--to", "y@z.test", "--body", "hidden words"])
    until(lambda: len(lines(g, event="-")) == 2, "two sessions")
    text = "\n".join(said(lines(g)))
    expect_match(r"< AUTH LOGIN\n> 334 \*\*\*\n< \*\*\*\n> 334 \*\*\*\n< \*\*\*\n> 235 ", text)
    expect_match(r"< AUTH PLAIN \*\*\*\n> 235 ", text)
    for hidden in ("hidden", base64.b64encode(PASSWORDS["bob"].encode()).decode()):
        expect(hidden not in text, hidden)
    g.stop()


@case("E7 a send connector: connect, TLS facts, AUTH masked, the next hop's words", 60)
def outbound(folder):
    leaf = certs.leaf("hop.test", "localhost")
    sink = Sink(folder, "--tls", f"{leaf.certificate}:{leaf.key}", "--auth",
                f"relay:{SECRET}")
    g = gateway(folder, sink)
    g.config["send_connectors"] = [
        smart_host("isp", sink.smart_host, protocol_log=True, tls={"level": "required"},
                   auth={"mechanism": "LOGIN", "username": "relay", "password": SECRET}),
        smart_host("dead", "[127.0.0.1]:1", space="dead.test", failover=False, protocol_log=True)]
    g.start()
    raw(g, "relay", b"EHLO a\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<x@y.test>\r\nDATA\r\n"
        b"A: b\r\n\r\n.hidden\r\n.\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<x@dead.test>\r\nDATA\r\n"
        b"A: b\r\n\r\n.\r\nQUIT\r\n")
    sink.wait(1)
    qid = g.wait_tracking("delivered")[0]["qid"]
    rows = whole(g, lambda r: r["connector"] == "isp", "send")
    text = "\n".join(said(rows))
    expect_match(r"^< 220 .*\n> EHLO gw.test\n< 250.*\n> STARTTLS\n< 220 .*\n> EHLO gw.test\n",
                 text)
    expect_match(r"\n> AUTH LOGIN\n< 334 \*\*\*\n> \*\*\*\n< 334 \*\*\*\n> \*\*\*\n< 235", text)
    expect_match(r"\n> DATA\n< 250 .*\n< 354 .*\n< 250 .*\n> QUIT\n< 221", text)
    notes = {r["context"]: r["data"] for r in rows if r["event"] == "*"}
    expect_equal(notes["message"], qid)
    expect(int(notes["bytes of message sent"]) > 20, notes)
    expect_match("TLSv1.3", next(v for k, v in notes.items() if k.startswith("TLS")))
    expect_equal({r["remote"] for r in rows[1:]}, {sink.address})
    expect_match(r":\d+$", next(r for r in rows if r["event"] == "+")["local"])
    # A next hop that refuses the password, and says it again.
    again = base64.b64encode(SECRET.encode()).decode()
    sink.restart("--tls", f"{leaf.certificate}:{leaf.key}", "--auth", f"relay:{SECRET}", "--reply",
                 f"auth=535 5.7.8 what is {again}")
    raw(g, "relay", b"EHLO a\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<x@y.test>\r\nDATA\r\n"
        b"A: b\r\n\r\n.\r\nQUIT\r\n")
    until(lambda: [r for r in lines(g, "send", connector="isp") if r["context"] == "failed"],
          "the refusal")
    failed = until(lambda: lines(g, "send", connector="dead", event="-") and
                   lines(g, "send", connector="dead"), "the dead one")
    expect_match("refused", next(r["data"] for r in failed if r["context"] == "failed"))
    with open(g.path("protocol", "send.log"), encoding="utf-8") as file:
        everything = file.read()
    for secret in (SECRET, base64.b64encode(SECRET.encode()).decode().rstrip("="), "hidden"):
        expect(secret not in everything, secret)
    g.stop()


@case("E7 a real Postfix as the next hop, by its address", 90)
def postfix(folder):
    post = peers.Postfix(folder, "post")
    g = gateway(folder, None)
    g.config["send_connectors"] = [smart_host("out", post.smart_host)]
    g.start()
    g.ctl("protocol-log", "start", post.host, "--for", "5m")
    raw(g, "relay", b"EHLO a\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<x@%s>\r\nDATA\r\n"
        b"A: b\r\n\r\nx\r\n.\r\nQUIT\r\n" % post.domain.encode())
    g.wait_tracking("delivered")
    rows = whole(g, lambda r: r["remote"] == f"{post.host}:{post.port}", "send")
    expect_match(r"< 220 .*Postfix\n> EHLO gw.test\n< 250-.*\n> MAIL FROM:<a@b.test>.*\n> RCPT TO.*"
                 r"\n> DATA\n< 250 .*\n< 354 .*\n< 250 2.0.0 Ok: queued as \w+\n> QUIT\n< 221 ",
                 "\n".join(said(rows)))
    g.stop()
    post.stop()


@case("E7 logs are set aside, packed and bounded; what is lost is said and counted", 90)
def bounded(folder):
    g = gateway(folder, None, protocol_size="1MiB", protocol_max_size="1MiB")
    g.receive("relay")["protocol_log"] = True
    g.start()
    # Many lines at once, more than the buffer between the shard and the writer holds: NOOPs that
    # are answered, and a line of control characters, four times as long in the log.
    flood = b"EHLO a\r\n" + (b"VRFY " + b"\x01" * 1000 + b"\r\n") * 90 + b"QUIT\r\n"
    sessions = 0

    def more():
        nonlocal sessions
        for _ in range(20):
            try:
                raw_all(g, flood)
            except OSError:
                pass
            sessions += 1
        return glob.glob(g.path("protocol", "receive.log-*.gz"))
    packed = until(more, "a packed file", 40)
    expect_equal(glob.glob(g.path("protocol", "*.idx")), [])
    with gzip.open(sorted(packed)[0], "rt", encoding="utf-8") as file:
        expect_match(r"^#Software: Hikyaku\n", file.readline())
    dropped = g.metrics()["hikyaku_protocol_log_dropped_total"]
    if dropped:
        until(lambda: any("could not keep up" in text for text in all_text(g)), "it is said")
    g.stop()


def raw_all(g, text):
    with socket.create_connection((g.host, g.port["relay"]), timeout=60) as s:
        s.sendall(text)
        while s.recv(65536):
            pass


def all_text(g):
    for path in glob.glob(g.path("protocol", "*")):
        opener = gzip.open if path.endswith(".gz") else open
        try:
            with opener(path, "rt", encoding="utf-8") as file:
                yield file.read()
        except FileNotFoundError:
            pass  # packed or set aside just now: who waits looks again


if __name__ == "__main__":
    main("protocol log", beside=2)
