#!/usr/bin/env python3
# time-limit: 180
# builds: asan
"""Three gateways in network namespaces behind HAProxy (PROXY protocol), restarted one after the
other under load: clients see at most a 421, nothing is lost or doubled, addresses are right."""
import json
import os
import socket
import subprocess
import sys
import threading
import time

from lib import harness
from lib.gateway import Gateway
from lib.harness import Program, Skip, case, expect, expect_equal, main, program, run, until
from lib.peers import peer

NET = "10.77"
CLIENTS, GATEWAYS = 16, 3
SESSION = 25  # messages on a connection; every fourth client sends ten times as many
LB, HOP = f"{NET}.0.1", f"{NET}.0.50"
SMTP, ADMIN = 2525, 9025


class Network:
    """Namespaces of this test's own, all on a bridge in the load balancer's."""

    def __init__(self):
        if os.geteuid() != 0 or not harness.shutil.which("ip"):
            raise Skip("no root, or no iproute2")
        self.name = f"hk{os.getpid()}"
        self.made = []
        try:
            self.add("lb", LB)
        except AssertionError as error:
            self.remove()
            raise Skip(f"no network namespaces here: {error}") from None
        self.add("hop", HOP)
        self.add("cl", *(f"{NET}.1.{1 + i}" for i in range(CLIENTS)))
        for i in range(GATEWAYS):
            self.add(f"gw{i}", f"{NET}.0.{11 + i}")

    def space(self, name):
        return f"{self.name}-{name}"

    def exec(self, name):
        return ["ip", "netns", "exec", self.space(name)]

    def ip(self, name, *words):
        return run(["ip", "-n", self.space(name), *words])

    def add(self, name, *addresses):
        run(["ip", "netns", "add", self.space(name)])
        self.made.append(name)
        self.ip(name, "link", "set", "lo", "up")
        link = "br0"
        if name == "lb":
            self.ip(name, "link", "add", "br0", "type", "bridge")
        else:
            link = "eth0"
            self.ip("lb", "link", "add", name, "type", "veth", "peer", "name", link, "netns",
                    self.space(name))
            self.ip("lb", "link", "set", name, "master", "br0", "up")
        for address in addresses:
            self.ip(name, "addr", "add", f"{address}/16", "dev", link)
        self.ip(name, "link", "set", link, "up")

    def remove(self):
        for name in self.made:
            run(["ip", "netns", "del", self.space(name)], status=None)


class Behind(Gateway):
    """A gateway in its namespace; spoken to by its UNIX socket."""

    def __init__(self, folder, network, index):
        super().__init__(folder, None, f"gw{index}")
        self.network, self.space = network, f"gw{index}"
        self.host = f"{NET}.0.{11 + index}"
        self.port.update(relay=SMTP, admin=ADMIN)
        self.config = self.default_config(None, 2)
        relay = self.receive("relay")
        relay["relay"] = {"networks": [f"{NET}.1.0/24"]}  # the clients, not the balancer
        relay["proxy_protocol"] = {"required": True, "from": [f"{LB}/32"]}
        self.config["receive_connectors"] = [relay]
        self.config["drain"] = {"accept": "10m"}  # ended below, when the balancer knows
        self.config["send_connectors"] = [
            {"name": "out", "address_spaces": ["*"], "delivery": "smart_hosts",
             "smart_hosts": f"[{HOP}]:{SMTP}", "tls": {"level": "none"}}]

    def launch(self):
        self.write_config()
        self.starts += 1
        self.log_path = self.path(f"log.{self.starts}")
        self.process = Program(self.network.exec(self.space) + [program("hikyaku"), "--config",
                                                                self.config_path], self.log_path)

    def request(self, method, path, unix=True, **options):
        return super().request(method, path, unix=True, **options)


def haproxy(folder, network):
    root, libpath = peer("haproxy")
    config = os.path.join(folder, "haproxy.cfg")
    servers = "".join(
        f"    server gw{i} {NET}.0.{11 + i}:{SMTP} send-proxy-v2 check port {ADMIN} inter 200ms "
        f"fall 3 rise 2\n" for i in range(GATEWAYS))
    with open(config, "w", encoding="utf-8") as file:
        file.write(f"global\n    maxconn 500\n    stats socket {folder}/haproxy.sock level admin\n"
                   "defaults\n    mode tcp\n    timeout connect 2s\n    timeout check 30s\n"
                   "    timeout client 60s\n"
                   "    timeout server 60s\n    retries 3\n    option redispatch 1\n"
                   "    option httpchk GET /readyz\n    balance roundrobin\n"
                   f"listen smtp\n    bind {LB}:{SMTP}\n{servers}")
    binary = os.path.join(root, "usr", "sbin", "haproxy")
    return Program(network.exec("lb") + [binary, "-db", "-f", config], f"{folder}/haproxy.log",
                   env={"LD_LIBRARY_PATH": libpath})


def haproxy_says(folder, command):
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(10)
        s.connect(f"{folder}/haproxy.sock")
        s.sendall(command.encode() + b"\n")
        text = b""
        while True:
            got = s.recv(65536)
            if not got:
                return text.decode()
            text += got


def up(folder, index):
    for line in haproxy_says(folder, "show stat").splitlines():
        cells = line.split(",")
        if cells[:2] == ["smtp", f"gw{index}"]:
            return cells[17] == "UP"
    return False


# ---- the clients, in a process of their own in their namespace ----------------------------------


class Client(threading.Thread):
    """Sends messages, SESSION on a connection, until it is told to stop; keeps what it saw."""

    def __init__(self, index, stop):
        super().__init__()
        self.index, self.stop = index, stop
        self.acked, self.told, self.wrong = [], 0, []

    def session(self, number):
        """The next number. Every reply is 2xx or 3xx, or 421 and the end."""
        source = (f"{NET}.1.{1 + self.index}", 0)
        with socket.create_connection((LB, SMTP), 30, source_address=source) as s:
            file = s.makefile("rwb")

            def reply():
                while True:
                    line = file.readline()
                    if line[3:4] != b"-":
                        return line

            def ask(text):
                file.write(text.encode() + b"\r\n")
                file.flush()
                return reply()

            steps = [None, "EHLO client.test"]
            for n in range(number, number + (SESSION if self.index % 4 else 10 * SESSION)):
                steps += [f"MAIL FROM:<m-{self.index}-{n}@client.test>", "RCPT TO:<x@far.test>",
                          "DATA", f"Subject: {n}\r\n\r\n" + "body\r\n" * 50 + "."]
            for text in steps + ["QUIT"]:
                got = reply() if text is None else ask(text)
                if got[:3] == b"421":
                    self.told += 1
                    return number
                if not got or got[:1] not in b"23":
                    raise AssertionError(f"after {text!r}: {got!r}")
                if text and text.endswith("."):
                    self.acked.append(f"m-{self.index}-{number}")
                    number += 1
                    time.sleep(0.03)  # sessions outlive the balancer's part of a restart
            return number

    def run(self):
        number = 0
        while not self.stop.is_set():
            try:
                number = self.session(number)
            except (OSError, AssertionError) as error:
                self.wrong.append(f"{self.index}: {error!r}")
            time.sleep(0.02)


def clients():
    stop = threading.Event()
    all_of_them = [Client(i, stop) for i in range(CLIENTS)]
    for c in all_of_them:
        c.start()
    sys.stdin.read()  # until it is closed
    stop.set()
    for c in all_of_them:
        c.join()
    print(json.dumps({"acked": [a for c in all_of_them for a in c.acked],
                      "told": sum(c.told for c in all_of_them),
                      "wrong": [w for c in all_of_them for w in c.wrong]}))


# ---- the case -----------------------------------------------------------------------------------


def arrived(record):
    """The ids in the next hop's records."""
    try:
        with open(record, encoding="utf-8") as file:
            return [json.loads(line)["from"].split("@")[0]
                    for line in file.read().split("\n")[:-1]]
    except FileNotFoundError:
        return []


def goes_on(record):
    before = len(arrived(record))
    until(lambda: len(arrived(record)) >= before + 100, "mail goes on", 20)


def rolled(folder, network, gateways, record):
    """Restarts each, one after the other, as an orchestrator does."""
    for i, g in enumerate(gateways):
        goes_on(record)
        until(lambda g=g: g.metrics()["hikyaku_sessions"] > 0, "sessions to say 421 to")
        # Nobody tells the balancer: it finds out that the gateway is not ready, which goes on
        # accepting meanwhile.
        g.ctl("drain")
        until(lambda i=i: not up(folder, i), f"gw{i} is found not ready")
        expect_equal(g.request("GET", "/api/v1/status").json["drain_phase"], "accepting")
        time.sleep(0.3)  # for connections begun before
        g.process.signal(2)
        expect_equal(g.process.wait(), 0, "exit status of a drained gateway")
        g.start()
        until(lambda i=i: up(folder, i), f"gw{i} is up again")


def check(folder, seen, gateways, record):
    expect_equal(seen["wrong"], [], "what clients saw beside 2xx, 3xx and 421")
    expect(len(seen["acked"]) > 200, "only", len(seen["acked"]), "messages")
    expect(seen["told"] > 0, "nobody heard 421: nothing was tried")
    until(lambda: set(seen["acked"]) <= set(arrived(record)), "all that was answered 250 arrives",
          30)
    got = arrived(record)
    expect_equal(len(got), len(set(got)), "messages, and different ones")
    expect_equal(set(got), set(seen["acked"]), "what arrived and what was acknowledged")
    accepted = until(lambda: (a := [e for g in gateways for e in g.tracking("accepted")]) and
                     len(a) >= len(got) and a, "all in the tracking logs")
    expect_equal(len(accepted), len(got), "accepted in all")
    for e in accepted:
        index = int(e["sender"].split("-")[1])
        expect_equal(e["client"], f"{NET}.1.{1 + index}", "client of " + e["sender"])
    print(f"# {len(got)} messages, {seen['told']} times 421")


@case("F67 a rolling restart of three gateways behind HAProxy, under load", limit_s=150)
def rolling(folder):
    network = Network()
    load = None
    try:
        record = os.path.join(folder, "sink.jsonl")
        Program(network.exec("hop") + [program("hikyaku-bench"), "sink", "--bind", f"{HOP}:{SMTP}",
                                       "--record", record], f"{folder}/sink.log")
        gateways = [Behind(folder, network, i) for i in range(GATEWAYS)]
        for g in gateways:
            g.start()
        lb = haproxy(folder, network)
        until(lambda: os.path.exists(f"{folder}/haproxy.sock") or not lb.alive(), "HAProxy", 10)
        expect(lb.alive(), lb.log())
        until(lambda: all(up(folder, i) for i in range(GATEWAYS)), "all are up")
        load = subprocess.Popen(network.exec("cl") + [sys.executable, __file__, "--clients"],
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        rolled(folder, network, gateways, record)
        goes_on(record)
        seen = json.loads(load.communicate("", harness.patient(60))[0])
        check(folder, seen, gateways, record)
        for g in gateways:
            g.process.signal(2)
            expect_equal(g.process.wait(), 0, "exit status at the end")
    finally:
        if load and load.poll() is None:
            load.kill()
        harness.end_all()
        network.remove()


if __name__ == "__main__":
    if sys.argv[1:] == ["--clients"]:
        clients()
    else:
        main("rolling")
