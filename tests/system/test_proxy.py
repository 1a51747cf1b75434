#!/usr/bin/env python3
# time-limit: 180
# builds: asan
# waits: for headers that do not come
"""The PROXY protocol: whose header is believed, which address the rules then look at, HAProxy."""
import os
import socket
import struct
import time

from lib import dialog, harness
from lib.gateway import Gateway
from lib.harness import (Program, case, expect, expect_equal, expect_match, main, run,
                         until)
from lib.peers import peer
from lib.sink import Sink

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
PROXY, STRANGER = harness.address(2), harness.address(9)
CLIENT = "192.0.2.7"  # may relay
OTHER = "198.51.100.9"


def v1(client, port=4711):
    return f"PROXY TCP4 {client} 203.0.113.1 {port} 25\r\n".encode()


def v2(client=None, command=1, family=None, fields=b"", port=4711):
    """client None: no addresses."""
    addresses = b""
    if client:
        kind = socket.AF_INET6 if ":" in client else socket.AF_INET
        family = 0x21 if ":" in client else 0x11
        server = "::1" if ":" in client else "203.0.113.1"
        addresses = (socket.inet_pton(kind, client) + socket.inet_pton(kind, server) +
                     struct.pack(">HH", port, 25))
    rest = addresses + fields
    return SIGNATURE + bytes([0x20 | command, family or 0]) + struct.pack(">H", len(rest)) + rest


def tls_fields():
    def tlv(kind, value):
        return struct.pack(">BH", kind, len(value)) + value
    return tlv(0x20, b"\x05\0\0\0\0" + tlv(0x21, b"TLSv1.3") + tlv(0x22, b"printer 7") +
               tlv(0x23, b"TLS_AES_128_GCM_SHA256")) + tlv(2, b"mail.example.com")


def gateway(folder, sink=None, **proxy):
    """`relay` believes PROXY. CLIENT's network may relay, and so could PROXY by its address."""
    g = Gateway(folder, sink or Sink(folder))
    c = g.receive("relay")
    c["relay"] = {"networks": ["192.0.2.0/24", "2001:db8::/32", f"{PROXY}/32", f"{STRANGER}/32"]}
    c["proxy_protocol"] = {"from": [f"{PROXY}/32"], **proxy}
    return g.start()


def connect(g, header=b"", source=PROXY, bytewise=False, port="relay"):
    line = dialog.Line(g.host, g.port[port], source=source, bytewise=bytewise)
    line.send(header)
    return line


def may_relay(line):
    """The session's answer to a recipient elsewhere."""
    line.wanted(220)
    line.ask("EHLO client.test", 250)
    line.ask("MAIL FROM:<a@client.test>", 250)
    line.send(b"RCPT TO:<b@elsewhere.test>\r\n")
    return line.reply()[0] == 250


@case("rules look at the client that a header tells, in both versions, whole and byte by byte")
def client_address(folder):
    sink = Sink(folder)
    g = gateway(folder, sink, required=True)
    rows = ((v1(CLIENT), True), (v1(OTHER), False), (v2(CLIENT), True), (v2(OTHER), False),
            (v2("2001:db8::5"), True), (v2("2001:db9::5"), False),
            (v2("::ffff:192.0.2.9"), True), (v2("::ffff:198.51.100.1"), False),
            (v2(CLIENT, fields=tls_fields()), True))
    for header, wanted in rows:
        for bytewise in (False, True):
            with connect(g, header, bytewise=bytewise) as line:
                expect_equal(may_relay(line), wanted, header)
    with connect(g, v1(CLIENT, 1234) + b"EHLO early.test\r\n") as line:  # in one segment
        line.wanted(220)
        line.wanted(250)
        line.ask("MAIL FROM:<a@client.test>", 250)
        line.ask("RCPT TO:<b@elsewhere.test>", 250)
        line.ask("DATA", 354)
        line.ask("Subject: x\r\n\r\nx\r\n.", 250)
    expect_match(rb"from early\.test \(\[192\.0\.2\.7\]\)", sink.message(sink.wait(1)[0]))
    expect_match(r"^192\.0\.2\.7$", g.wait_tracking("accepted")[0]["client"])
    told = until(lambda: [e for e in g.log("proxied") if "tls_version" in e], "the fields")[0]
    expect_equal((told["tls_version"], told["tls_client_name"], told["server_name"],
                  told["tls_client_verified"]), ("TLSv1.3", "printer?7", "mail.example.com", True))
    expect(told["proxy"].startswith(PROXY + ":") and told["client"].startswith(CLIENT + ":"), told)
    g.wait_metrics(proxy_headers_total=19)
    g.stop()


@case("F52 a header from anybody else is refused and closes, and never makes a relay")
def strangers(folder):
    g = gateway(folder)
    g.receive("relay")["relay"]["networks"].remove(f"{STRANGER}/32")
    g.reload()
    for header in (v1(CLIENT), v1("127.0.0.1"), b"PROXY UNKNOWN\r\n"):
        for source in (STRANGER, harness.address(1)):
            with connect(g, source=source) as line:
                line.wanted(220)
                line.send(header)
                expect_match(r"^550 5\.7\.1 ", line.wanted(550))
                expect(line.closed(), "open after PROXY of a stranger")
    for header in (v2(CLIENT), v2(command=0), v2("::1")):
        with connect(g, source=STRANGER) as line:
            line.wanted(220)
            line.send(header)
            while line.more():
                pass
            expect_equal(line.buffer, b"", "what a stranger's binary header is answered")
    with connect(g, source=STRANGER) as line:  # later it is a command like any other
        expect(not may_relay(line), "relays without a header")
        line.send(v1(CLIENT))
        line.wanted(550)
        expect(line.closed(), "open")
    with connect(g, v1(OTHER)) as line:  # a client behind the proxy sends one of its own
        line.wanted(220)
        line.send(v1(CLIENT))
        line.wanted(550)
        expect(line.closed(), "open after a client's own PROXY")
    with connect(g, v2(OTHER) + v2(CLIENT)) as line:
        while line.more():
            pass
        expect(line.buffer.count(b"\r\n") <= 1, "more than a greeting before a second header")
    g.wait_metrics(proxy_headers_refused_total=4)
    g.stop()


@case("required: without a header, or from elsewhere, nobody gets in")
def required(folder):
    g = gateway(folder, required=True)
    with connect(g, source=STRANGER) as line:  # although relay.networks has it
        expect_match(r"^554 5\.7\.1 ", line.wanted(554))
        expect(line.closed(), "open")
    with connect(g, b"EHLO x\r\n") as line:
        expect_match(r"^554 5\.7\.1 PROXY header required", line.wanted(554))
        expect(line.closed(), "open")
    began = time.monotonic()
    with connect(g) as silent, connect(g, v1(CLIENT)[:30]) as half, \
            connect(g, v2(CLIENT)[:20]) as half2:
        silent.wanted(554)
        expect(half.closed() and half2.closed(), "half a header is waited for")
        expect(4 < time.monotonic() - began < 50, "after 5 s")
    g.stop()


@case("not required: the proxy's own connections are served, but never relay by address")
def optional(folder):
    g = gateway(folder)
    with connect(g, b"EHLO x\r\n") as line:
        line.wanted(220)
        line.wanted(250)
        line.ask("MAIL FROM:<a@client.test>", 250)
        line.ask("RCPT TO:<b@elsewhere.test>", 550)
        line.ask("RCPT TO:<b@local.test>", 250)
    with connect(g) as line:  # says nothing: after two seconds there will be no header
        expect(not may_relay(line), "the proxy's address relays")
    for header in (b"PROXY UNKNOWN\r\n", v2(command=0), v2(command=0, fields=b"what it wants"),
                   v2(), v2(family=0x31, fields=bytes(216))):
        with connect(g, header) as line:
            expect(not may_relay(line), "relays without a client's address", header)
    with connect(g, source=STRANGER) as line:  # no proxy: a client like any other
        expect(may_relay(line), "relay.networks for a direct client")
    with connect(g, source=harness.address(3)) as line:
        expect(not may_relay(line), "everybody else")
    g.stop()


@case("F52 malformed headers close the connection")
def malformed(folder):
    g = gateway(folder, required=True)
    good = v2(CLIENT)
    bad = [b"PROXY TCP4 192.0.2.7 1.1.1.1 1\r\n", b"PROXY TCP4 192.0.2.7 1.1.1.1 1 2\n",
           b"PROXY" + b" " * 200 + b"\r\n", b"POST / HTTP/1.1\r\n", good[:11] + b"X" + good[12:],
           good[:14] + b"\xff\xff" + good[16:], good[:14] + b"\0\x04" + good[16:],
           good[:12] + b"\x31" + good[13:], good[:13] + b"\x12" + good[14:],
           v2(CLIENT, fields=b"\x20\x00\x09\x01")]
    for header in bad:
        for bytewise in (False, True):
            try:
                with connect(g, header, bytewise=bytewise) as line:
                    expect(line.closed(), "open after", header)
            except (BrokenPipeError, ConnectionResetError):
                pass
    with connect(g, v1(CLIENT)) as line:
        expect(may_relay(line), "a good one")
    until(lambda: len([e for e in g.log("session-refused") if "PROXY" in e["reason"]]) ==
          2 * len(bad), "each is told")
    g.stop()


@case("connection control is for the client; connectors on one port are chosen by it")
def control(folder):
    g = Gateway(folder, Sink(folder))
    first = g.receive("relay")
    proxy = {"required": True, "from": [f"{PROXY}/32"]}
    first.update(proxy_protocol=proxy, fqdn="one.test", relay={"networks": []},
                 remote={"allow": ["198.51.100.0/24"], "deny": [f"{OTHER}/32"]})
    second = dict(first, name="second", fqdn="two.test", remote={"allow": ["192.0.2.0/24"]})
    direct = dict(first, name="direct", fqdn="three.test", remote={"allow": [f"{STRANGER}/32"]},
                  proxy_protocol={})
    g.config["receive_connectors"] += [second, direct]
    g.start()
    for client, name in (("198.51.100.8", "one.test"), (CLIENT, "two.test")):
        with connect(g, v1(client)) as line:
            expect_match(rf"^220 {name}", line.wanted(220))
    for client in (OTHER, "203.0.113.5", STRANGER):  # the last by a connector without PROXY
        with connect(g, v2(client)) as line:
            expect_match(r"^554 5\.7\.1 Your address", line.wanted(554))
            expect(line.closed(), "open")
    with connect(g, source=STRANGER) as line:
        expect_match(r"^220 three\.test", line.wanted(220))
    with connect(g, v2(command=0)) as line:  # a health check
        line.wanted(220)
    g.stop()


@case("a header comes before the handshake where TLS is implicit")
def implicit(folder):
    g = Gateway(folder, Sink(folder))
    g.receive("submissions")["proxy_protocol"] = {"from": [f"{PROXY}/32"]}
    g.start()
    for header in (v1(OTHER), v2(OTHER), b""):
        with connect(g, header, port="submissions") as line:
            line.tls()
            line.wanted(220)
            expect_match("AUTH PLAIN LOGIN", line.ask("EHLO x", 250))
    until(lambda: len([e for e in g.log("proxied") if e["client"].startswith(OTHER)]) == 2, "told")
    g.stop()


@case("a drain tells 421 to those whose header is awaited")
def drain(folder):
    g = gateway(folder, required=True)
    with connect(g) as waiting, connect(g, v1(CLIENT)) as idle:
        idle.wanted(220)
        g.post("/api/v1/drain")
        expect_match(r"^421 4\.3\.2 ", waiting.wanted(421))
        expect_match(r"^421 4\.3\.2 ", idle.wanted(421))
    expect_equal(g.process.wait(), 0)


@case("every client may claim any address: refused")
def everybody(folder):
    g = Gateway(folder, Sink(folder))
    for networks in ([], ["0.0.0.0/0"], ["10.0.0.0/8", "::/0"]):
        g.receive("relay")["proxy_protocol"] = {"required": True, "from": networks}
        g.write_config()
        done = run([harness.program("hikyaku"), "--config", g.config_path, "--check"], status=2)
        expect_match("nobody could connect" if not networks else "any address", done.stderr)


# ---- HAProxy ------------------------------------------------------------------------------------


class HAProxy:
    """One frontend for each of `ports` (name -> options of the server line)."""

    def __init__(self, folder, g, send, check=""):
        root, libpath = peer("haproxy")
        self.port = harness.free_port(PROXY)
        config = os.path.join(folder, "haproxy.cfg")
        with open(config, "w", encoding="utf-8") as file:
            file.write(f"global\n    maxconn 500\ndefaults\n    mode tcp\n    timeout connect 5s\n"
                       f"    timeout check 30s\n    timeout client 60s\n    timeout server 60s\n"
                       f"listen smtp\n    bind {PROXY}:{self.port}\n    source {PROXY}\n"
                       f"    server a {g.host}:{g.port['relay']} {send} {check}\n")
        binary = os.path.join(root, "usr", "sbin", "haproxy")
        self.process = Program([binary, "-db", "-f", config], os.path.join(folder, "haproxy.log"),
                               env={"LD_LIBRARY_PATH": libpath})
        until(lambda: harness.answers(PROXY, self.port) or not self.process.alive(), "HAProxy")
        expect(self.process.alive(), self.process.log())


@case("HAProxy: both versions tell the client, and its health checks pass")
def haproxy(folder):
    sink = Sink(folder)
    g = gateway(folder, sink, required=True)
    g.receive("relay")["relay"]["networks"] = [f"{STRANGER}/32"]
    expect_equal(g.reload().status, 200)
    for send in ("send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options unique-id,crc32c"):
        lb = HAProxy(folder, g, send, "check inter 200ms fall 5")
        for source, wanted in ((STRANGER, True), (harness.address(3), False)):
            with dialog.Line(PROXY, lb.port, source=source) as line:
                expect_equal(may_relay(line), wanted, send)
                if wanted:
                    line.ask("DATA", 354)
                    line.ask("Subject: x\r\n\r\nx\r\n.", 250)
        time.sleep(1.5)  # more health checks than may fail
        with dialog.Line(PROXY, lb.port, source=STRANGER) as line:
            expect(may_relay(line), "the server is still up for", send)
        lb.process.stop()
    sources = {e["client"].rsplit(":", 1)[0] for e in g.wait_tracking("accepted", 3)}
    expect_equal(sources, {STRANGER})
    refused = [e for e in g.log("session-refused") if "PROXY" in e.get("reason", "")]
    expect_equal(refused, [], "headers of HAProxy refused")
    g.stop()


if __name__ == "__main__":
    main("proxy", beside=3)
