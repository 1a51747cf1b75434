#!/usr/bin/env python3
# time-limit: 180
# builds: asan
"""hikyakuctl doctor: each finding says what is there and what to do."""
import json
import os
import time

from lib import certs, harness, peers
from lib.gateway import Gateway, smart_host
from lib.harness import case, expect, expect_equal, expect_match, main
from lib.sink import Sink

ENV = dict(os.environ, RES_OPTIONS="timeout:1 attempts:1")


def dead():
    return f"[{harness.address()}]:{harness.free_port()}"


def findings(g):
    """{about: [(finding, advice or None)]}"""
    found = {}
    for f in json.loads(g.ctl("--json", "doctor", status=None, env=ENV).stdout):
        found.setdefault(f["about"], []).append((f["finding"], f.get("advice")))
    return found


@case("doctor and check-dns name what is wrong and what to do", 60)
def doctor(folder):
    g = Gateway(folder)
    g.config["send_connectors"] = [smart_host("out", dead())]
    for connector in g.config["receive_connectors"]:
        connector["fqdn"] = "localhost"
    g.start()
    text = g.ctl("doctor", status=None, env=ENV).stdout
    for about in ("kernel", "io_uring", "clock", "gateway", "disk", "limits", "dns", "next hops"):
        expect_match(rf"(?m)^(ok|LOOK) +{about} ", text)
    expect_match("ok +io_uring", text)
    expect_match(r"\d+ descriptors are allowed", text)
    expect_match(r"ok +configuration +certificates are valid", text)
    expect_match(r"a sync in .* takes \d+.\d+ ms", text)
    expect("doctor.tmp" not in os.listdir(g.path("spool")), "removed")
    findings = json.loads(g.ctl("--json", "connector", "check-dns", status=None, env=ENV).stdout)
    expect_equal({f["about"] for f in findings}, {"dns"})
    g.receive("relay")["fqdn"] = "no.such.name.invalid"
    expect_equal(g.reload().status, 200)
    text = g.ctl("connector", "check-dns", status=1, env=ENV).stdout
    expect_match(r"LOOK +dns +no.such.name.invalid of relay", text)
    text = g.ctl("doctor", status=1, env=ENV).stdout
    expect_match(r"LOOK +smart hosts +out, 127.*connect: .*refused", text)
    expect_match(r"LOOK +configuration +receive connector relay: .*no.such.name.invalid", text)
    g.stop()


@case("smart hosts that no mail was sent to yet are tried, as their connector demands")
def smart_hosts(folder):
    leaf = certs.leaf("hop.test")
    tls = Sink(folder, "--tls", f"{leaf.certificate}:{leaf.key}", name="tls")
    clear, silent = Sink(folder, name="clear"), Sink(folder, "--delay-ms", "banner=600000",
                                                     name="silent", host=harness.address(2))
    verify = {"level": "verify", "ca_file": certs.authority()}
    g = Gateway(folder)
    g.config["send_connectors"] = [
        smart_host("good", tls.smart_host, tls=dict(verify, name="hop.test")),
        smart_host("name", tls.smart_host, tls=dict(verify, name="other.test")),
        smart_host("clear", clear.smart_host, tls={"level": "required"}),
        smart_host("silent", silent.smart_host),
        smart_host("nowhere", "no.such.host.invalid:25"),
        smart_host("off", dead(), enabled=False)]
    g.start()
    began = time.monotonic()
    hosts = findings(g)["smart hosts"]
    expect(time.monotonic() - began < harness.patient(30), "it took", time.monotonic() - began)
    expect_equal(len(hosts), 5, hosts)
    for (finding, advice), words in zip(hosts, (
            "good, .*: answers as good demands", "name, .*certificate: .*not for other.test",
            "clear, .*starttls: it is not offered", "silent, .*banner: no answer within 3.0 s",
            "nowhere, .*dns: no.such.host.invalid: ")):
        expect_match(words, finding)
        expect_equal(advice is None, words.startswith("good"), finding)
    expect_equal([s.records() for s in (tls, clear)], [[], []])
    g.stop()


@case("the resolver, and the names of the addresses that mail leaves from")
def names(folder):
    knot = peers.Knot(folder, "here MX 10 mx.here\nmx.here A 192.0.2.1\n")
    g = Gateway(folder)
    g.config["accepted_domains"] = [{"domain": "here.test"}]
    g.config["dns"] = {"servers": [f"{knot.host}:{knot.port}"], "dnssec": False, "timeout": "2s"}
    g.config["send_connectors"] = [
        {"name": "internet", "address_spaces": ["*"], "delivery": "mx", "tls": {"level": "none"},
         "source_addresses": [harness.address(), "8.8.8.8"]}]
    g.start()
    found = findings(g)
    (finding, advice), = found["resolver"]
    expect_match("mail exchangers of here.test: answered, ", finding)
    expect_equal(advice, None)
    (own, advice), (public, wrong) = found["reverse dns"]
    expect_match(f"leaves from {harness.address()}, which is private", own)
    expect_equal(advice, None)
    expect_match("leaves from 8.8.8.8, which ", public)
    expect(wrong, "neither its name nor ours")
    g.config["dns"]["servers"] = [f"{harness.address()}:{harness.free_port()}"]
    g.stop()
    g.start()
    (finding, advice), = findings(g)["resolver"]
    expect(advice, finding)
    with open(g.config_path, "w", encoding="utf-8") as file:
        file.write("frob: [")
    (finding, advice), = findings(g)["smart hosts"]
    expect_match(r"hikyaku.yaml:\d+:\d+: ", finding)
    expect(advice, finding)
    g.stop()


if __name__ == "__main__":
    main("doctor", beside=3)
