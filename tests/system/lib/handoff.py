"""Gateways that hand their queues over: their configurations, their kills and their books."""
import collections
import json
import os

from lib import certs, harness
from lib.gateway import Gateway, smart_host, users_file
from lib.harness import expect, expect_equal, program, run, until
from lib.sink import Sink

PASSWORD = "from gateway to gateway"


class Hosts:
    """A source without a way out, and peers whose way out is shut until the books are closed."""

    def __init__(self, folder, peers=2, shards=2, connections=8, maildir=False):
        self.folder = folder
        self.sink = Sink(folder, maildir=maildir)
        self.peers = [self.peer(f"peer-{i + 1}", shards, i) for i in range(peers)]
        self.source = Gateway(folder, None, "source", shards)
        send = [smart_host("out", self.sink.smart_host, space="routed.test")]
        for peer in self.peers:
            send.append({"name": peer.name, "address_spaces": [], "delivery": "smart_hosts",
                         "smart_hosts": [{"host": f"[{peer.host}]:{peer.port['handoff']}"}],
                         "auth": {"mechanism": "PLAIN", "username": "peer", "password": PASSWORD},
                         "tls": {"level": "verify", "name": "localhost",
                                 "ca_file": certs.authority()},
                         "max_connections": connections})
        self.source.config["send_connectors"] = send
        self.source.config["handoff"] = {"peers": [p.name for p in self.peers], "timeout": "10m"}
        self.source.config["retry"] = {"intervals": ["1h"], "expire": "2d", "warn_after": "0s"}
        self.source.config["log"]["level"] = "info"

    def peer(self, name, shards, number):
        g = Gateway(self.folder, self.sink, name, shards)
        g.port["handoff"] = harness.free_port()
        g.config["receive_connectors"].append(
            {"name": "peers", "bind": g.bind("handoff"), "handoff_accounts": ["peer"],
             "tls": {"mode": "starttls", "required": True, "certificates": g.certificate()},
             "auth": {"required": True, "mechanisms": ["PLAIN"]}})
        users_file(g.path("users"), {"peer": PASSWORD, "other": "no peer"})
        g.config["retry"]["intervals"] = ["1h"]
        g.config["log"]["level"] = "info"
        return g

    def start(self):
        for g in [*self.peers, self.source]:
            g.start()
        for peer in self.peers:
            peer.ctl("connector", "suspend", "out")

    def fill(self, count, sessions=20, size="2KiB", seconds=60):
        """Puts messages into the source's queue; their ids."""
        ids = os.path.join(self.folder, "ids")
        run([program("hikyaku-bench"), "load", "--to",
             f"{self.source.host}:{self.source.port['relay']}", "--sessions", str(sessions),
             "--messages", str(count), "--messages-per-session", "0", "--size", size,
             "--record", ids, "--json"], seconds)
        with open(ids, encoding="utf-8") as file:
            self.ids = file.read().split()
        expect_equal(len(self.ids), count, "messages acknowledged")
        until(lambda: self.source.queued() == count, "all are queued", 30)

    def taken(self):
        """Of the running peers, since each was started."""
        return sum(p.metrics().get("hikyaku_handoff_taken_total", 0) for p in self.peers
                   if p.process.alive())

    def held(self):
        """In the peers' queues, prepared ones not counted."""
        all_metrics = [p.metrics() for p in self.peers if p.process.alive()]
        return sum(int(m["hikyaku_queue_messages"] - m["hikyaku_queue_prepared"])
                   for m in all_metrics)

    def close_books(self, seconds=60):
        """Opens the ways out; each id once at the sink, none anywhere else."""
        for peer in self.peers:
            until(lambda p=peer: p.metrics()["hikyaku_queue_prepared"] == 0,
                  f"nothing is left prepared at {peer.name}", seconds)
        expect_equal(sum(p.queued() for p in self.peers), len(self.ids), "queued at the peers")
        for peer in self.peers:
            peer.ctl("connector", "resume", "out")
        for peer in self.peers:
            until(lambda p=peer: p.queued() == 0, f"{peer.name} has delivered", seconds, 0.2)
        for peer in self.peers:
            peer.stop()
        got = collections.Counter(r["id"] for r in self.sink.records())
        expect_equal(len(got), len(self.ids), "different messages at the sink")
        expect(set(got) == set(self.ids), "other messages than were sent")
        twice = [i for i, n in got.items() if n > 1]
        expect_equal(twice, [], "messages that came twice")
        self.sink.stop()


def spool_is_empty(g):
    g.start()
    until(lambda: len(g.log("recovered")) >= g.config["shards"], "recovery ends")
    expect_equal(g.queued(), 0, f"left at {g.name}")
    g.stop()


def show(record):
    return json.dumps(record, sort_keys=True)
