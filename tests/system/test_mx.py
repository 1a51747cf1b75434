#!/usr/bin/env python3
# time-limit: 120
# builds: asan
"""Delivery by MX against a real name server (Knot) on loopback."""
import smtplib

from lib import harness, peers
from lib.gateway import Gateway, smart_host
from lib.harness import case, expect, expect_equal, expect_match, main, stays, until
from lib.sink import Sink

ZONE = """
one      MX 10 mx.one
mx.one   A {a}
pref     MX 20 second.pref
pref     MX 10 first.pref
first.pref  A {a}
second.pref A {b}
dead     MX 10 gone.dead
dead     MX 20 alive.dead
gone.dead   A {none}
alive.dead  A {b}
implicit A {a}
cname    CNAME one
nullmx   MX 0 .
private  MX 10 mx.private
mx.private  A 10.1.2.3
looped   MX 10 gw
gw       A {b}
self     MX 10 other.self
other.self  A {self}
selfalso MX 10 first.selfalso
selfalso MX 20 us.selfalso
selfalso MX 30 worse.selfalso
first.selfalso A {none}
us.selfalso A {self}
worse.selfalso A {b}
selfimplicit A {self}
nodata   TXT "no address here"
literal  MX 10 lit.literal
lit.literal A {b}
"""


class World:
    """Two sinks on one port of different addresses, as MX hosts have; a name server; a gateway."""

    def __init__(self, folder, **connector):
        self.port = harness.free_port()
        self.a = Sink(folder, host=harness.address(2), port=self.port, name="a")
        self.b = Sink(folder, host=harness.address(3), port=self.port, name="b")
        self.knot = peers.Knot(folder, ZONE.format(a=self.a.host, b=self.b.host,
                                                   none=harness.address(9),
                                                   self=harness.address(5)))
        self.home = Sink(folder, name="home")
        self.gateway = g = Gateway(folder, shards=1)
        g.config["dns"] = {"servers": [f"{self.knot.host}:{self.knot.port}"], "dnssec": False,
                           "timeout": "2s"}
        g.config["send_connectors"] = [
            {"name": "internet", "address_spaces": ["*"], "delivery": "mx", "port": self.port,
             "tls": {"level": "none"}, "mx_allow_networks": ["127.0.0.0/8"], **connector},
            smart_host("home", self.home.smart_host, space="sender.test")]
        g.start()

    def send(self, *recipients):
        g = self.gateway
        with smtplib.SMTP(g.host, g.port["relay"], timeout=60) as client:
            client.sendmail("a@sender.test", list(recipients), b"Subject: x\r\n\r\nx\r\n")

    def report_text(self):
        record = self.home.wait(1, 30)[-1]
        return self.home.message(record).decode("utf-8")


@case("the MX of the domain, the best preference first, the next one when it is dead")
def preference(folder):
    w = World(folder)
    w.send("x@one.test")
    w.a.wait(1)
    w.send("x@pref.test", "y@pref.test")
    expect_equal(sorted(w.a.wait(2)[1]["rcpts"]), ["x@pref.test", "y@pref.test"])
    w.send("x@dead.test")
    expect_equal(w.b.wait(1, 40)[0]["rcpts"], ["x@dead.test"])
    w.gateway.wait_empty()
    w.gateway.stop()


@case("F72 no MX: the address of the domain itself; an alias is followed")
def implicit(folder):
    w = World(folder)
    w.send("x@implicit.test")
    w.send("x@cname.test")
    rcpts = sorted(r["rcpts"][0] for r in w.a.wait(2))
    expect_equal(rcpts, ["x@cname.test", "x@implicit.test"])
    w.gateway.stop()


@case("F72 null MX: a report with 5.1.10; a domain that does not exist: 5.1.2; nothing there")
def permanent(folder):
    w = World(folder)
    w.send("x@nullmx.test", "y@nowhere.test", "z@nodata.test")
    w.gateway.wait_tracking("failed", 3, 30)
    w.gateway.wait_empty()
    status = {x["recipient"]: x["status"] for x in w.gateway.tracking("failed")}
    expect_equal(status["x@nullmx.test"], "5.1.10")
    expect_equal(status["y@nowhere.test"], "5.1.2")
    expect_match(r"^5\.1\.2|^5\.4\.4", status["z@nodata.test"])
    texts = "".join(w.home.message(r).decode() for r in w.home.records())
    expect("5.1.10" in texts and "5.1.2" in texts, "reports", texts)
    w.gateway.stop()


@case("F71 a name server that does not answer: deferred with 4.4.3, never bounced; then delivered")
def server_down(folder):
    w = World(folder)
    w.knot.stop()
    w.send("x@one.test")
    deferred = w.gateway.wait_tracking("deferred", 1, 30)[0]
    expect_match(r"^4\.4\.3", deferred["status"])
    stays(lambda: not w.gateway.tracking("failed"), 1, "nothing fails")
    w.knot.start()
    w.a.wait(1, 40)
    w.gateway.stop()


@case("F75 private addresses are not contacted unless allowed")
def private(folder):
    w = World(folder, mx_allow_networks=[])
    w.send("x@private.test", "y@one.test")
    deferred = w.gateway.wait_tracking("deferred", 2, 30)
    for line in deferred[:2]:
        expect_match(r"^4\.4\.4", line["status"])
        expect_match("private", line["reply"])
    expect_equal(w.a.records() + w.b.records(), [], "nothing arrives")
    w.gateway.stop()


@case("F74 an MX that is ourselves: no loop, a report with 5.4.6")
def ourselves(folder):
    w = World(folder)
    w.send("x@looped.test")
    failed = w.gateway.wait_tracking("failed", 1, 30)[0]
    expect_equal(failed["status"], "5.4.6")
    expect_equal(w.b.records(), [], "nothing arrives there")
    w.gateway.stop()


@case("F74 an MX with our address under another name: it and what is no better is left out")
def our_address(folder):
    w = World(folder)
    g = w.gateway
    connector = {"name": "other", "bind": [f"0.0.0.0:{w.port}"], "relay": {"networks": ["::/0"]}}
    w.b.stop()
    w.a.stop()
    for bind in (f"0.0.0.0:{w.port}", f"{harness.address(5)}:{w.port}"):
        connector["bind"] = [bind]
        g.config["receive_connectors"] = g.config["receive_connectors"][:3] + [connector]
        expect_equal(g.reload().status, 200)
        before = len(g.tracking("failed"))
        w.send("x@self.test", "y@selfimplicit.test")
        failed = g.wait_tracking("failed", before + 2, 20)[before:]
        expect_equal({x["status"] for x in failed}, {"5.4.6"}, bind)
    expect_equal(len(g.tracking("accepted")), 2, "nothing came back in")
    w.send("x@selfalso.test")
    deferred = g.wait_tracking("deferred", 1, 30)[0]
    expect_match("Connecting failed", deferred["reply"], "the better one is waited for")
    stays(lambda: not w.b.records() and len(g.tracking("accepted")) == 3, 1, "and nobody else")
    g.config["own_addresses"] = [harness.address(9)]
    expect_equal(g.reload().status, 200)
    w.send("x@dead.test")
    # The one that waits may end now as well, before it or behind it.
    failed = until(lambda: [x for x in g.tracking("failed") if x["recipient"] == "x@dead.test"],
                   "it fails", 30)
    expect_equal(failed[0]["status"], "5.4.6")
    g.stop()


@case("hosts of smart_hosts by name are looked up, too")
def names(folder):
    w = World(folder)
    w.gateway.config["send_connectors"][0] = smart_host("internet", f"mx.one.test:{w.port}")
    expect_equal(w.gateway.reload().status, 200)
    w.send("x@anything.test")
    until(w.a.records, "the message", 20)
    w.gateway.stop()


if __name__ == "__main__":
    main("mx", beside=4)
