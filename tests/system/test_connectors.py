#!/usr/bin/env python3
# time-limit: 150
# builds: asan
"""Connectors switched by hand, over restarts; what route explain says of switches and health."""
import json
import os
import shutil
import smtplib
import socket

from lib import harness
from lib.gateway import Gateway, smart_host
from lib.harness import case, expect, expect_equal, expect_match, main, stays, until
from lib.sink import Sink

TEXT = b"Subject: kept\r\n\r\nkept\r\n"


def send(g, *recipients, sender="a@sender.test"):
    with smtplib.SMTP(g.host, g.port["relay"], timeout=60) as client:
        client.sendmail(sender, list(recipients), TEXT)


def nowhere():
    return f"[{harness.address()}]:{harness.free_port()}"


def listed(g, name):
    connectors = json.loads(g.ctl("--json", "connector", "list").stdout)
    return next(c for c in connectors["receive"] + connectors["send"] if c["name"] == name)


def greeting(g, name):
    """The first line, or why there is none."""
    try:
        with socket.create_connection((g.host, g.port[name]), timeout=60) as s:
            return s.recv(200).decode("ascii")
    except ConnectionRefusedError:
        return "refused"


@case("mail of a suspended send connector waits, over a restart, and moves when it resumes", 60)
def suspended(folder):
    one, two = Sink(folder, name="one"), Sink(folder, name="two")
    g = Gateway(folder)
    g.config["send_connectors"] = [smart_host("out", one.smart_host),
                                   smart_host("backup", two.smart_host, cost=20)]
    g.start()
    expect_match("suspended", g.ctl("connector", "suspend", "out").stdout)
    send(g, "b@x.test")
    until(lambda: g.queue("status=suspended"), "it waits")
    expect_equal(g.queue("status=unreachable"), [])
    message = g.queue()[0]
    expect_equal((message["connector"], message["status"]), ("out", "suspended"))
    expect_match("suspended by the operator", message["last_error"])
    expect_equal(listed(g, "out")["state"], "suspended")
    expect_equal(g.reload().status, 200)
    g.restart()
    until(lambda: g.queue("status=suspended"), "it still waits after a restart")
    stays(lambda: not one.records() + two.records(), 1.2, "nothing leaves, not by the backup")
    g.ctl("connector", "resume", "out")
    one.wait(1)
    g.wait_empty()
    expect_equal(listed(g, "out")["state"], "enabled")
    g.stop()


@case("a disabled send connector is as if it were not there, until it is enabled", 60)
def disabled(folder):
    one, two = Sink(folder, name="one"), Sink(folder, name="two")
    g = Gateway(folder)
    g.config["send_connectors"] = [
        smart_host("out", one.smart_host), smart_host("backup", two.smart_host, cost=20),
        smart_host("only", one.smart_host, space="only.test"),
        smart_host("off", one.smart_host, space="off.test", enabled=False)]
    g.start()
    g.ctl("connector", "disable", "out")
    send(g, "b@x.test")
    two.wait(1)
    g.ctl("connector", "disable", "backup")
    send(g, "c@x.test")
    until(lambda: g.queue("status=unreachable"), "it has no route")
    expect_match("enable it first", g.ctl("connector", "suspend", "out", status=1).stderr)
    expect_match("in the configuration", g.ctl("connector", "enable", "off", status=1).stderr)
    expect_match("no connector", g.ctl("connector", "enable", "frob", status=1).stderr)
    expect_equal([listed(g, n)["state"] for n in ("out", "backup", "only", "off")],
                 ["disabled", "disabled", "enabled", "disabled"])
    steps = {s["connector"]: s["verdict"]
             for s in g.get("/api/v1/route", address="a@x.test").json["steps"]}
    expect_equal((steps["out"], steps["off"]), ("disabled by the operator",
                                                "disabled in the configuration"))
    g.restart()
    until(lambda: g.queue("status=unreachable"), "recovery")
    g.ctl("connector", "enable", "out")
    one.wait(1)
    g.wait_empty()
    g.stop()


@case("a disabled receive connector does not listen, a suspended one says 421; both end", 60)
def receive(folder):
    g = Gateway(folder, Sink(folder), shards=4)
    g.config["receive_connectors"].append(  # the same port, told apart by address
        {"name": "printers", "bind": g.bind("relay"), "remote": {"allow": ["127.9.0.0/16"]},
         "tls": {"mode": "none"}, "relay": {"networks": ["127.9.0.0/16"]}})
    g.receive("relay")["remote"] = {"allow": ["127.0.0.0/8"], "deny": ["127.9.0.0/16"]}
    g.start()
    with smtplib.SMTP(g.host, g.port["submission"], timeout=60) as session:
        session.ehlo()
        until(lambda: listed(g, "submission")["sessions"] == 1, "the session is counted")
        for turn in range(3):
            g.ctl("connector", "disable", "submission")
            expect_equal({greeting(g, "submission") for _ in range(8)}, {"refused"}, turn)
            g.ctl("connector", "enable", "submission")
            expect_equal({greeting(g, "submission")[:3] for _ in range(8)}, {"220"}, turn)
        expect_equal(session.noop()[0], 250, "open sessions go on")
    g.ctl("connector", "suspend", "submission")
    expect_match("^421 4.3.2 ", greeting(g, "submission"))
    g.ctl("connector", "resume", "submission")
    expect_match("^220 ", greeting(g, "submission"))
    g.ctl("connector", "disable", "relay")
    expect_match("^421 4.3.2 ", greeting(g, "relay"))  # printers still need the port
    g.ctl("connector", "disable", "printers")
    expect_equal(greeting(g, "relay"), "refused")
    g.restart()
    expect_equal(greeting(g, "relay"), "refused", "after a restart")
    g.ctl("connector", "enable", "relay")
    expect_match("^220 ", greeting(g, "relay"))
    expect_equal(g.ctl("connector", "enable", "printers").stdout,
                 "receive connector printers is enabled\n")
    g.stop()


@case("one name for both kinds: --kind tells; a port taken meanwhile is told; a full disk too")
def odd(folder):
    g = Gateway(folder)
    g.config["send_connectors"] = [smart_host("relay", nowhere())]
    g.start()
    expect_match("kind", g.ctl("connector", "disable", "relay", status=1).stderr)
    g.ctl("connector", "disable", "relay", "--kind", "send")
    expect_equal(greeting(g, "relay")[:3], "220")
    g.ctl("connector", "disable", "relay", "--kind", "receive")
    with socket.create_server((g.host, g.port["relay"])):
        expect_match(str(g.port["relay"]),
                     g.ctl("connector", "enable", "relay", "--kind", "receive", status=1).stderr)
    g.ctl("connector", "enable", "relay", "--kind", "receive")
    expect_equal(greeting(g, "relay")[:3], "220")
    os.mkdir(g.path("spool", "connectors.tmp"))  # what cannot be written
    done = g.ctl("connector", "enable", "relay", "--kind", "send")
    expect_match("until the next start only: .*connectors", done.stderr)
    g.stop()
    with open(g.path("spool", "connectors"), "wb") as file:
        file.write(b"\0\xff send send\nreceive disabled relay\nfrob\n")
    g.start()
    expect_equal(greeting(g, "relay"), "refused", "what can be read counts")
    g.stop()


@case("F70 Received names the instance; a restart keeps it, a copied spool gets a new one")
def instance(folder):
    sink = Sink(folder)
    g = Gateway(folder, sink).start()
    first = g.status()["instance"]
    send(g, "b@x.test")
    expect_match(rf"by gw.test \({first}\)".encode(), sink.message(sink.wait(1)[0]))
    g.restart()
    expect_equal(g.status()["instance"], first)
    g.stop()
    os.rename(g.path("spool"), g.path("original"))
    shutil.copytree(g.path("original"), g.path("spool"))
    g.start()
    second = g.status()["instance"]
    expect(second != first, "a new one:", second)
    until(lambda: [w for w in g.log("warning") if first in w["reason"]], "a warning")
    send(g, "c@x.test")
    expect_match(second.encode(), sink.message(sink.wait(2)[1]))
    g.stop()


@case("E36 route explain looks at health, hosts and scope, and takes a sender and a size", 60)
def explain(folder):
    g = Gateway(folder, shards=1)
    g.config["send_connectors"] = [
        smart_host("out", nowhere()), smart_host("backup", nowhere(), cost=20),
        smart_host("mine", nowhere(), receive_connectors=["submission"])]
    g.config["retry"]["intervals"] = ["1h"]
    g.start()
    expect_equal(g.get("/api/v1/route", address="a@x.test").json["connector"], "out")
    send(g, "b@x.test")
    until(lambda: len(g.log("site-down")) == 2, "both are down", 30)

    def verdicts(answer):
        return {s["connector"]: s["verdict"] for s in answer["steps"]}

    def both_avoided():
        """A host whose pause is over may be tried again, and so fails again, for longer."""
        g.ctl("queue", "retry", "--filter", "age>=0s")
        a = g.get("/api/v1/route", address="a@x.test").json
        steps = verdicts(a)
        return a.get("hosts") and "unhealthy" in steps["out"] + steps["backup"] and a
    answer = until(both_avoided, "an answer with hosts that are avoided", every=0.2)
    expect_equal(len(answer["hosts"]), 1)
    expect_match("refused", answer["last_error"])
    expect_match("out of scope", verdicts(answer)["mine"])
    text = g.ctl("route", "explain", "a@x.test", "--from", "me@here.test", "--size", "10KiB"[:2],
                 "--receive-connector", "submission").stdout
    expect_match("from me@here.test", text)
    expect_match("mine +chosen", text)
    expect_match("receive connector", g.ctl("route", "explain", "a@x.test", "--receive-connector",
                                            "frob", status=1).stderr)

    def health():
        connectors = json.loads(g.ctl("--json", "connector", "list").stdout)["send"]
        return [c["health"] for c in connectors][:2]
    # Until they greet again; that they may be tried again, after 5 s, is no health.
    stays(lambda: health() == ["down", "down"], 6, "both are down")
    expect_equal({s["state"] for s in g.get("/api/v1/sites").json["items"]}, {"down"})
    expect_match("refused", g.ctl("connector", "list").stdout)
    g.stop()


if __name__ == "__main__":
    main("connectors", beside=4)
