#!/usr/bin/env python3
# time-limit: 200
# builds: release - a limit of time
"""A reload of 10,000 address spaces and 100 certificates while 1,000 sessions are open: under a
second, no session dropped; a broken file changes nothing."""
import os
import resource
import socket
import ssl
import time

from lib import certs
from lib.gateway import Gateway, smart_host
from lib.harness import case, expect, expect_equal, expect_match, main, patient
from lib.sink import Sink

SPACES, CERTIFICATES, SESSIONS = 10_000, 100, 1_000
LIMIT_S = 1.0


class Sessions:
    """Sessions that said EHLO, every tenth inside TLS and every other one within a transaction."""

    def __init__(self, g, count):
        self.socks, self.buffers = [], {}
        for i in range(count):
            port = "submissions" if i % 10 == 0 else "relay"
            sock = socket.create_connection((g.host, g.port[port]), timeout=60)
            if port == "submissions":
                sock = context().wrap_socket(sock, server_hostname=tenant(i % CERTIFICATES))
            self.socks.append(sock)
        for i, sock in enumerate(self.socks):
            expect_equal(self.reply(sock), b"220", f"greeting {i}")
            expect_equal(self.ask(sock, b"EHLO client.test"), b"250")
            if i % 10 and i % 2:
                expect_equal(self.ask(sock, b"MAIL FROM:<a@client.test>"), b"250")

    def reply(self, sock):
        """The code of one whole reply."""
        data = self.buffers.pop(sock, b"")
        while not (data.endswith(b"\r\n") and data.split(b"\r\n")[-2][3:4] == b" "):
            more = sock.recv(4096)
            expect(more, "the session is open")
            data += more
        return data[:3]

    def ask(self, sock, line):
        sock.sendall(line + b"\r\n")
        return self.reply(sock)

    def all_alive(self):
        for i, sock in enumerate(self.socks):
            expect_equal(self.ask(sock, b"NOOP"), b"250", f"session {i}")
            if i % 10 and i % 2:
                expect_equal(self.ask(sock, b"RCPT TO:<b@space7.test>"), b"250", f"session {i}")


def context():
    made = ssl.create_default_context()
    made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    return made


def tenant(i):
    return f"mail.tenant{i}.test"


def served(g, name):
    """The certificate that a new connection gets for this name, as DER."""
    with socket.create_connection((g.host, g.port["submissions"]), timeout=60) as sock:
        with context().wrap_socket(sock, server_hostname=name) as tls:
            return tls.getpeercert(binary_form=True)


def processor_s(g):
    with open(f"/proc/{g.process.pid}/stat", encoding="ascii") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@case("E26 10,000 address spaces and 100 certificates in under a second, 1,000 sessions stay", 180)
def large(folder):
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    sink = Sink(folder)
    g = Gateway(folder, sink, shards=2)
    leaves = [certs.leaf(tenant(i), self_signed=True) for i in range(CERTIFICATES)]
    listed = [{"certificate": x.certificate, "key": x.key} for x in leaves]
    for name in ("submission", "submissions"):
        g.receive(name)["tls"]["certificates"] += listed
    g.config["send_connectors"].append(smart_host("spaces", sink.smart_host))
    g.config["send_connectors"][-1]["address_spaces"] = [
        {"space": f"space{i}.test", "cost": 5} for i in range(SPACES)]
    g.start()
    sessions = Sessions(g, SESSIONS)
    before = g.status()["config_generation"]
    took = []
    for turn in range(3):
        new = certs.leaf(tenant(7), f"turn{turn}.test", self_signed=True, again=True)
        g.config["send_connectors"][-1]["address_spaces"][turn] = {
            "space": f"turn{turn}.test", "cost": 5}
        g.write_config()
        used, began = processor_s(g), time.monotonic()
        expect_equal(g.ask_reload().status, 200)
        took.append(time.monotonic() - began)
        print(f"# reload {turn}: {took[-1]:.2f} s, {processor_s(g) - used:.2f} s of processor")
        sessions.all_alive()
        expect_equal(served(g, tenant(7)), ssl.PEM_cert_to_DER_cert(
            open(new.certificate, encoding="ascii").read()), "the new certificate")
        answer = g.get("/api/v1/route", address=f"x@turn{turn}.test").json
        expect_equal(answer["connector"], "spaces")
    expect(min(took) < patient(LIMIT_S), "seconds", took)
    expect_equal(g.status()["config_generation"], before + 3)

    with open(g.config_path, "r+", encoding="utf-8") as file:
        text = file.read()
        file.seek(0)
        file.write(text.replace('"space": "space5000.test"', '"spaec": "space5000.test"'))
    broken = g.ask_reload()
    expect_equal(broken.status, 422)
    expect_match(r"hikyaku\.yaml:\d+:\d+: .*spaec", broken.body)
    expect_equal(g.status()["config_generation"], before + 3)
    sessions.all_alive()
    expect_equal(g.get("/api/v1/route", address="x@space5000.test").json["connector"], "spaces")
    for sock in sessions.socks:
        sock.close()
    g.stop()


if __name__ == "__main__":
    main("large reload")
