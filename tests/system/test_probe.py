#!/usr/bin/env python3
# time-limit: 240
# builds: asan
"""hikyakuctl probe (E6): receive connectors up to a message that arrives, next hops up to TLS,
AUTH, a recipient or a message, each step with what the other side said."""
import json
import os
import time

from lib import certs, harness, peers
from lib.gateway import HOSTNAME, PASSWORDS, Gateway, smart_host
from lib.harness import case, expect, expect_equal, expect_match, main, until
from lib.sink import Sink


def probe(g, *words, status=0, **options):
    """The targets, each {step: what happened}, and the order of the steps of the first."""
    text = g.ctl("--json", "probe", *words, status=status, **options).stdout
    answer = json.loads(text)
    expect_equal(answer["ok"], status == 0, text)
    steps = [s["step"] for s in answer["targets"][0]["steps"]]
    return [{s["step"]: s for s in t["steps"]} for t in answer["targets"]], steps


def password_file(folder, password):
    path = os.path.join(folder, "password")
    with open(path, "w", encoding="utf-8") as file:
        file.write(password + "\n")
    return path


def with_sink(folder, *options):
    sink = Sink(folder, *options)
    g = Gateway(folder, sink)
    g.config["retry"]["intervals"] = ["1h"]
    return g.start(), sink


@case("a receive connector: a message goes in, is followed, and arrives")
def receive(folder):
    g, sink = with_sink(folder)
    (steps,), order = probe(g, "relay")
    expect_equal(order, ["connect", "banner", "ehlo", "starttls", "tls", "certificate", "ehlo-tls",
                         "mail", "rcpt", "data", "message", "delivered"])
    expect_equal(steps["connect"]["text"], f"{g.host}:{g.port['relay']}")
    expect_equal((steps["banner"]["code"], steps["banner"]["status"]), (220, "ok"))
    expect_match("PIPELINING", steps["ehlo"]["remote"])
    expect_match("^TLSv1.3 ", steps["tls"]["text"])
    expect_match(f"{HOSTNAME}.*, by .*, until 2.*is not signed by an authority we trust",
                 steps["certificate"]["text"])
    expect_equal(steps["certificate"]["status"], "note")
    expect_match(rf"^delivered by out to .*{sink.port}\]: Ok", steps["delivered"]["text"])
    expect(all(s["ms"] >= 0 for s in steps.values()), "times", steps)
    record, = sink.wait(1)
    expect_equal((record["from"], record["rcpts"]), ("", ["postmaster@local.test"]))
    expect_match(b"Auto-Submitted: auto-generated", sink.message(record))
    text = g.ctl("probe", "relay", "--to", "joe@far.test", "--from", "me@here.test").stdout
    expect_match(r"ok +banner +\d+\.\d ms +220 .*\n.*ok +rcpt .*250 2\.1\.5.*"
                 "receive connector relay: all went well", text)
    expect_equal(sink.wait(2)[1]["rcpts"], ["joe@far.test"])
    (steps,), order = probe(g, "relay", "--no-message")
    expect_equal(order[-2:], ["rcpt", "rset"])
    expect_equal(len(sink.records()), 2)
    g.stop()


@case("with a password, by STARTTLS and in TLS from the first byte; without, or with a wrong one")
def password(folder):
    g, sink = with_sink(folder)
    good, wrong = password_file(folder, PASSWORDS["alice"]), "wrong\n"
    alice = ("--user", "alice", "--from", "alice@client.test")
    for name in ("submission", "submissions"):
        (steps,), order = probe(g, name, *alice, "--password-file", good)
        expect_equal(order[1], "banner" if name == "submission" else "tls")
        expect_equal(steps["auth"]["code"], 235)
        expect_equal(steps["delivered"]["status"], "ok")
    (steps,), _ = probe(g, "submission", *alice, status=1, input=wrong)
    expect_equal((steps["auth"]["code"], steps["auth"]["status"]), (535, "failed"))
    (steps,), order = probe(g, "submission", status=1)
    expect_match("--user", steps["auth"]["advice"])
    (steps,), order = probe(g, "submission", "--no-message")
    expect_equal((order[-1], steps["auth"]["status"]), ("auth", "skipped"))
    expect_equal(len(sink.wait(2)), 2)
    expect(PASSWORDS["alice"] not in open(g.log_path, encoding="utf-8").read(), "in the log")
    g.stop()


@case("what does not go through is said where it happened")
def goes_wrong(folder):
    g, sink = with_sink(folder, "--reply", "rcpt~later*=450 4.2.0 Come again",
                        "--reply", "rcpt~no*=550 5.1.1 Nobody here")
    (steps,), _ = probe(g, "relay", "--to", "later@x.test", status=1)
    expect_match("deferred: .*Come again", steps["delivered"]["text"])
    (steps,), _ = probe(g, "relay", "--to", "no@x.test", status=1)
    expect_match("held: .*Nobody here", steps["delivered"]["text"])
    (steps,), _ = probe(g, "relay", "--to", "no@x.test", "--from", "me@ok.test", status=1)
    expect_match("^failed by out to .*: Nobody here", steps["delivered"]["text"])
    until(lambda: g.queue("status=held") == [], "no dead letter is left")
    g.receive("relay")["relay"] = {"networks": []}
    expect_equal(g.reload().status, 200)
    (steps,), order = probe(g, "relay", "--to", "joe@x.test", status=1)
    expect_equal((order[-1], steps["rcpt"]["code"]), ("rcpt", 550))
    expect_equal(steps["rcpt"]["remote"], "Unable to relay")
    g.receive("relay")["remote"] = {"deny": ["127.0.0.0/8"]}
    expect_equal(g.reload().status, 200)
    (steps,), order = probe(g, "relay", status=1)
    expect_equal((order, steps["banner"]["code"]), (["connect", "banner"], 554))
    sink.stop()
    for words in ([], ["relay", "--kind", "x"], ["relay", "--timeout", "x"],
                  ["relay", "--to", "a\nRSET"], ["out", "--message"]):
        g.ctl("probe", *words, status=2)
    expect_match("no connector is called none", g.ctl("probe", "none", status=1).stderr)
    g.stop()


@case("behind a load balancer: the header is sent where our address may send one")
def proxied(folder):
    sink = Sink(folder)
    g = Gateway(folder, sink)
    relay = g.receive("relay")
    relay["proxy_protocol"] = {"required": True, "from": ["127.0.0.0/8"]}
    g.start()
    (steps,), _ = probe(g, "relay")
    expect_equal(steps["delivered"]["status"], "ok")
    relay["proxy_protocol"] = {"required": True, "from": ["192.0.2.0/24"]}
    expect_equal(g.reload().status, 200)
    (steps,), _ = probe(g, "relay", status=1)
    expect_equal(steps["banner"]["status"], "failed")
    g.stop()


def tls_sink(folder, name, *names, **options):
    leaf = certs.leaf(*names)
    return Sink(folder, "--tls", f"{leaf.certificate}:{leaf.key}", *options.get("more", ()),
                name=name)


@case("next hops: TLS by its level, what the certificate says, hosts that are down")
def send(folder):
    good, other = tls_sink(folder, "good", "hop.test"), tls_sink(folder, "other", "strange.test")
    clear, gone = Sink(folder, name="clear"), f"[{harness.address()}]:{harness.free_port()}"
    verify = {"level": "verify", "name": "hop.test", "ca_file": certs.authority()}
    g = Gateway(folder)
    g.config["send_connectors"] = [
        smart_host("verified", good.smart_host, other.smart_host, tls=verify),
        smart_host("required", clear.smart_host, other.smart_host, tls={"level": "required"}),
        smart_host("may", clear.smart_host, gone, tls={"level": "opportunistic"}),
        smart_host("plain", good.smart_host, tls={"level": "none"}, helo="helo")]
    g.start()
    (one, two), order = probe(g, "verified", status=1)
    expect_equal(order, ["connect", "banner", "ehlo", "starttls", "tls", "certificate", "ehlo-tls"])
    expect_match("^hop.test.*trusted, right name$", one["certificate"]["text"])
    expect_equal(two["certificate"]["status"], "failed")
    expect_match("is for strange.test.*, not for hop.test", two["certificate"]["text"])
    (one, two), _ = probe(g, "required", status=1)
    expect_equal((one["starttls"]["status"], two["certificate"]["status"]), ("failed", "note"))
    (one, two), _ = probe(g, "may", status=1)
    expect_equal(one["starttls"]["status"], "note")
    expect_match(r"\]?:\d+: Connection refused", two["connect"]["text"])
    _, order = probe(g, "plain", "--to", "x@y.test")
    expect_equal(order, ["connect", "banner", "helo", "mail", "rcpt", "rset"])
    (steps,), _ = probe(g, "plain", "--to", "x@y.test", "--message")
    expect_equal(steps["message"]["code"], 250)
    expect_equal(good.wait(1)[0]["rcpts"], ["x@y.test"])
    text = g.ctl("probe", "may", status=1).stdout
    expect_match("FAILED  connect .*\nsend connector may: something went wrong", text)
    g.stop()


@case("a next hop that says nothing, and one that breaks off")
def silent(folder):
    slow = Sink(folder, "--delay-ms", "ehlo=600000", name="slow")
    cut = Sink(folder, "--drop-at", "mail", name="cut")
    g = Gateway(folder)
    g.config["send_connectors"] = [smart_host("slow", slow.smart_host),
                                   smart_host("cut", cut.smart_host)]
    g.start()
    began = time.monotonic()
    (steps,), order = probe(g, "slow", "--timeout", "3", status=1)
    expect_match("no answer within 3.0 s", steps[order[-1]]["text"])
    expect_equal(order, ["connect", "banner", "ehlo"])
    expect(time.monotonic() - began < harness.patient(15), "it took", time.monotonic() - began)
    (steps,), order = probe(g, "cut", "--to", "x@y.test", status=1)
    expect_equal((order[-1], steps["mail"]["text"]), ("mail", "the connection was closed"))
    g.stop()


@case("without a gateway, a real Exim with TLS and AUTH, by a configuration file")
def exim(folder):
    leaf = certs.leaf("exim.test")
    g = Gateway(folder)
    for mechanism in ("PLAIN", "LOGIN"):
        server = peers.Exim(folder, f"exim{mechanism.lower()}", leaf, require_tls="yes",
                            require_auth="yes")
        g.config["send_connectors"] = [smart_host(
            "out", server.smart_host, tls={"level": "verify", "name": "exim.test",
                                           "ca_file": certs.authority()},
            auth={"mechanism": mechanism, "username": "relay",
                  "password_file": password_file(folder, "s3cret pass")})]
        g.write_config()
        (steps,), _ = probe(g, "out", "--file", g.config_path, "--to", f"b@{server.domain}",
                            "--message")
        expect_equal((steps["auth"]["code"], steps["message"]["code"]), (235, 250))
        server.wait(1)
    g.config["send_connectors"][0]["auth"]["password_file"] = password_file(folder, "wrong")
    g.write_config()
    (steps,), _ = probe(g, "out", "--file", g.config_path, status=1)
    expect_equal((steps["auth"]["code"], steps["auth"]["status"]), (535, "failed"))
    g.ctl("probe", "out", status=1)  # no gateway, no file


@case("delivery by MX: each host of the domain, by the gateway's own name server")
def by_mx(folder):
    port = harness.free_port()
    a, b = (Sink(folder, host=harness.address(2 + i), port=port, name=f"mx{i}") for i in range(2))
    knot = peers.Knot(folder, f"two MX 10 first.two\ntwo MX 20 second.two\nfirst.two A {a.host}\n"
                              f"second.two A {b.host}\nprivate MX 10 in.private\n"
                              "in.private A 10.1.2.3\nnull MX 0 .\n")
    g = Gateway(folder, shards=1)
    g.config["dns"] = {"servers": [f"{knot.host}:{knot.port}"], "dnssec": False, "timeout": "2s"}
    g.config["send_connectors"] = [{
        "name": "internet", "address_spaces": ["*"], "delivery": "mx", "port": port,
        "tls": {"level": "opportunistic"}, "mx_allow_networks": ["127.0.0.0/8"]}]
    g.start()
    (mx, one, two), _ = probe(g, "internet", "--domain", "two.test")
    expect_match("^2 hosts", mx["mx"]["text"])
    expect_match("first.two.test has 1 address", one["dns"]["text"])
    expect_equal((one["connect"]["text"], two["connect"]["text"]),
                 (f"{a.host}:{port}", f"{b.host}:{port}"))
    (mx, one), _ = probe(g, "internet", "--to", "x@private.test", status=1)
    expect_match("private or special", one["dns"]["text"])
    (mx,), _ = probe(g, "internet", "--domain", "null.test", status=1)
    expect_equal(mx["mx"]["status"], "failed")
    (mx,), _ = probe(g, "internet", "--domain", "nothing.test", status=1)
    g.ctl("probe", "internet", status=2)
    g.stop()


@case("a configuration file that was changed since is said; one that is gone is no crash")
def changed(folder):
    sink = Sink(folder)
    g = Gateway(folder, sink).start()
    g.config["retry"]["expire"] = "3h"
    g.write_config()
    answer = json.loads(g.ctl("--json", "probe", "out").stdout)
    expect_equal(answer["file_differs"], True)
    expect_match("differs from what runs", g.ctl("probe", "out").stdout)
    with open(g.config_path, "w", encoding="utf-8") as file:
        file.write("frob: [")
    g.ctl("probe", "out", status=1)
    until(lambda: g.ready(), "the gateway goes on")
    g.stop()


if __name__ == "__main__":
    main("probe", beside=4)
