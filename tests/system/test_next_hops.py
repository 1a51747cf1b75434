#!/usr/bin/env python3
# time-limit: 500
# builds: asan
"""Delivery to next hops that nobody here wrote (Postfix, its smtp-sink, Exim, OpenSMTPD) with and
without TLS and AUTH; TLS levels; reuse, failover, retries; reports to the sender; every fault at
every phase.
"""
import email
import email.policy
import os
import smtplib
import time

from lib import certs, harness, peers
from lib.gateway import Gateway, hash_of, smart_host
from lib.harness import case, expect, expect_equal, expect_match, main, patient, run, stays, until
from lib.sink import Sink, without_trace

SECRET = "s3cret pass"
BODY = b".dot\r\n..\r\nmore\r\n" + b"long " * 150 + b"\r\n"
HEAD = b"From: <a@sender.test>\r\nTo: <b@x.test>\r\nSubject: t\r\n\r\n"
TEXT = HEAD + BODY
TEXT_8BIT = HEAD + b"gr\xc3\xbc\xc3\x9fe, \xff\r\n" + BODY


def send(g, to, sender="a@sender.test", text=TEXT, options=(), rcpt_options=()):
    """Hands a message to the relay port; recipients is one or a list."""
    with smtplib.SMTP(g.host, g.port["relay"], timeout=60) as client:
        client.ehlo()
        return client.sendmail(sender, to, text, options, rcpt_options)


def secret_file(folder):
    path = os.path.join(folder, "secret")
    with open(path, "w", encoding="utf-8") as file:
        file.write(SECRET + "\n")
    return path


def with_lf(text):
    return text.replace(b"\r\n", b"\n")


# ---- servers of others --------------------------------------------------------------------------


def check_delivered(g, server, count=3):
    for i in range(count):
        send(g, f"b{i}@{server.domain}", text=TEXT_8BIT, options=["BODY=8BITMIME"])
    for message in server.wait(count):
        expect_equal(message.partition(b"\n\n")[2], with_lf(TEXT_8BIT.partition(b"\r\n\r\n")[2]))
        expect_equal(message.count(b"\nReceived:"), 2, "Received lines")
    g.wait_empty()


@case("Postfix's smtp-sink, in clear, with and without pipelining, and by HELO")
def to_smtp_sink(folder):
    for i, (options, keys) in enumerate([((), {}), (("-p",), {}), (("-e",), {}),
                                         ((), {"helo": "helo"})]):
        sink = peers.SmtpSink(folder, *options, name=f"sink{i}")
        g = Gateway(folder, name=f"gw{i}")
        g.config["send_connectors"] = [smart_host("out", sink.smart_host, **keys)]
        g.start()
        send(g, ["b@x.test", "c@x.test"])
        message, = sink.wait(1)
        expect(with_lf(TEXT) in message, "text", message)
        expect_equal(message.count(b"X-Rcpt-Args:"), 2, "recipients in one transaction")
        g.stop()


@case("a real Postfix, in clear")
def to_postfix(folder):
    post = peers.Postfix(folder, "post")
    g = Gateway(folder)
    g.config["send_connectors"] = [smart_host("out", post.smart_host)]
    check_delivered(g.start(), post)
    g.stop()


@case("a real Postfix, TLS verified, big and small, many")
def to_postfix_tls(folder):
    leaf = certs.leaf("post.test")
    post = peers.Postfix(folder, "post", leaf, tls_level="encrypt")
    g = Gateway(folder)
    g.config["send_connectors"] = [smart_host("out", post.smart_host, tls={
        "level": "verify", "name": "post.test", "ca_file": certs.authority()})]
    g.start()
    for size in (0, 1, 70_000, 5_000_000):
        send(g, f"size{size}@post.test", text=b"Subject: s\r\n\r\n" + b"0123456789abcde\r\n" *
             (size // 17))
    sizes = sorted(len(m) for m in post.wait(4, 30))
    expect(sizes[-1] > 4_600_000 and sizes[0] < 2000, "sizes", sizes)
    expect("TLS connection established" in post.log() or "TLSv1.3" in
           post.messages()[0].decode("latin-1"), "in TLS")
    g.wait_empty()
    g.stop()


@case("a real Exim, TLS and AUTH PLAIN and LOGIN")
def to_exim(folder):
    leaf = certs.leaf("exim.test")
    for mechanism in ("PLAIN", "LOGIN"):
        exim = peers.Exim(folder, f"exim{mechanism.lower()}", leaf, require_tls="yes",
                          require_auth="yes")
        g = Gateway(folder, name=f"gw{mechanism}")
        g.config["send_connectors"] = [smart_host(
            "out", exim.smart_host, tls={"level": "verify", "name": "exim.test",
                                         "ca_file": certs.authority()},
            auth={"mechanism": mechanism, "username": "relay",
                  "password_file": secret_file(folder)})]
        check_delivered(g.start(), exim)
        g.stop()


@case("a real OpenSMTPD, in clear, big and small, by EHLO and HELO")
def to_opensmtpd(folder):
    big = b"0123456789abcde\r\n" * 300_000
    for helo in ("ehlo", "helo"):
        smtpd = peers.Opensmtpd(folder, helo)
        g = Gateway(folder, name=f"gw-{helo}")
        g.config["send_connectors"] = [smart_host("out", smtpd.smart_host, helo=helo)]
        g.start()
        if helo == "ehlo":
            check_delivered(g, smtpd)
        send(g, f"big@{smtpd.domain}", text=HEAD + big)
        send(g, f"small@{smtpd.domain}", text=HEAD)
        got = max(smtpd.wait(5 if helo == "ehlo" else 2, 30), key=len)
        expect_equal(got.partition(b"\n\n")[2], with_lf(big), "the big one")
        g.wait_empty()
        g.stop()
        smtpd.stop()


@case("a real Postfix, Exim, OpenSMTPD: many over one connection, envelopes behind dots", 120)
def to_many(folder):
    count = 40
    for server in (peers.Postfix(folder, "post"), peers.Exim(folder, "exim"),
                   peers.Opensmtpd(folder, "open")):
        g = Gateway(folder, name=f"gw-{server.domain}", shards=1)
        g.config["send_connectors"] = [smart_host("out", server.smart_host, max_connections=1)]
        g.start()
        expect(g.post("/api/v1/connectors/suspend", name="out").status == 200, "suspended")
        for i in range(count):
            send(g, f"b{i}@{server.domain}")
        expect(g.post("/api/v1/connectors/resume", name="out").status == 200, "resumed")
        server.wait(count, 60)
        g.wait_empty()
        expect_equal(len(g.wait_tracking("delivered", count)), count, "deliveries")
        expect_equal(len(g.tracking("deferred")), 0, "deferred")
        g.stop()
        server.stop()


@case("F79 a real OpenSMTPD whose TLS works or does not: encrypted, or opportunistic in clear")
def to_opensmtpd_tls(folder):
    leaf = certs.leaf("open.test")
    verify = {"level": "verify", "name": "open.test", "ca_file": certs.authority()}
    smtpd = peers.Opensmtpd(folder, "open", leaf)
    # Version 6.8 of Debian 12 offers STARTTLS, and OpenSSL 3 then fails it in every handshake.
    works = b"DONE" in run(["openssl", "s_client", "-starttls", "smtp", "-brief", "-connect",
                            f"{smtpd.host}:{smtpd.port}"], status=None, text=False).stderr
    g = Gateway(folder)
    g.config["send_connectors"] = [
        smart_host("out", smtpd.smart_host, tls={"level": "opportunistic"}),
        smart_host("verify", smtpd.smart_host, space="verify.test", tls=verify,
                   failover=False)]
    g.start()
    send(g, "b@open.test")
    message, = smtpd.wait(1, 30)
    expect_equal(message.partition(b"\n\n")[2], with_lf(BODY))
    expect_equal(b"\n\tTLS" in message or b" (TLS" in message, works, "TLS told by OpenSMTPD")
    if not works:
        send(g, "b@verify.test")
        expect_match("TLS", g.wait_tracking("deferred")[-1]["reply"], "what failed")
        expect_equal(g.queued(), 1, "what has to be encrypted waits")
    g.stop()
    if not works:
        return
    for mechanism in ("PLAIN", "LOGIN"):
        smtpd = peers.Opensmtpd(folder, mechanism.lower(), leaf, tls_level="encrypt",
                                require_auth="yes", hash=hash_of(SECRET))
        g = Gateway(folder, name=f"gw{mechanism}")
        g.config["send_connectors"] = [smart_host("out", smtpd.smart_host, tls=verify, auth={
            "mechanism": mechanism, "username": "relay", "password_file": secret_file(folder)})]
        check_delivered(g.start(), smtpd)
        g.stop()


@case("F85 a wrong password at the smart host: the mail waits, nothing bounces")
def wrong_password(folder):
    leaf = certs.leaf("exim.test")
    sink = Sink(folder, "--tls", leaf.pair, "--auth", f"relay:{SECRET}")
    g = Gateway(folder)
    auth = {"mechanism": "PLAIN", "username": "relay", "password": "wrong"}
    g.config["send_connectors"] = [smart_host("out", sink.smart_host, tls={"level": "required"},
                                              auth=auth)]
    g.start()
    send(g, "b@x.test")
    deferred = g.wait_tracking("deferred")
    expect_match("5", str(deferred[0]), "its words")
    stays(lambda: g.queued() == 1 and not g.tracking("dsn"), 1, "one waits, no report")
    auth["password"] = SECRET
    expect_equal(g.reload().status, 200)
    sink.wait(1, 40)
    g.stop()


# ---- TLS levels ---------------------------------------------------------------------------------


@case("F79 TLS levels with a good, a wrong, a self-signed certificate, refused and absent STARTTLS")
def tls_levels(folder):
    good, wrong = certs.leaf("hop.test").pair, certs.leaf("wrong.test").pair
    own = certs.leaf("hop.test", self_signed=True).pair
    refuse = ("--tls", good, "--reply", "starttls=454 4.7.0 not now")
    rows = [
        ("none-offered", "none", ("--tls", good), False),
        ("opportunistic-good", "opportunistic", ("--tls", good), True),
        ("opportunistic-wrong", "opportunistic", ("--tls", wrong), True),
        ("opportunistic-own", "opportunistic", ("--tls", own), True),
        ("opportunistic-absent", "opportunistic", (), False),
        ("opportunistic-refused", "opportunistic", refuse, False),
        ("required-good", "required", ("--tls", good), True),
        ("required-own", "required", ("--tls", own), True),
        ("required-absent", "required", (), None),
        ("required-refused", "required", refuse, None),
        ("verify-good", "verify", ("--tls", good), True),
        ("verify-wrong", "verify", ("--tls", wrong), None),
        ("verify-own", "verify", ("--tls", own), None),
        ("verify-absent", "verify", (), None),
        ("verify-refused", "verify", refuse, None)]
    g = Gateway(folder, shards=1)
    g.config["send_connectors"] = []
    sinks = {}
    for name, level, options, _ in rows:
        sinks[name] = Sink(folder, *options, name=f"sink-{name}")
        tls = {"level": level}
        if level == "verify":
            tls.update(name="hop.test", ca_file=certs.authority())
        g.config["send_connectors"].append(
            smart_host(name, sinks[name].smart_host, space=f"{name}.test", tls=tls))
    g.start()
    for name, *_ in rows:
        send(g, f"b@{name}.test")
    for name, _, _, wanted in rows:
        try:
            if wanted is None:
                until(lambda n=name: [e for e in g.tracking("deferred")
                                      if e["recipient"] == f"b@{n}.test"], "deferred", 20)
                expect_equal(len(g.queue(f"domain={name}.test")), 1, "it waits")
                expect_equal(sinks[name].records(), [], "nothing arrives")
            else:
                expect_equal(sinks[name].wait(1, 30)[0]["tls"], wanted, "in TLS")
            harness.result(f"TLS level {name}")
        except AssertionError as error:
            harness.result(f"TLS level {name}", error)
    g.stop()


@case("a password is not sent in clear: opportunistic TLS with auth waits for STARTTLS")
def password_needs_tls(folder):
    sink = Sink(folder, "--auth", f"relay:{SECRET}")
    g = Gateway(folder, shards=1)
    tls = {"level": "opportunistic"}
    g.config["send_connectors"] = [smart_host("out", sink.smart_host, tls=tls, auth={
        "mechanism": "PLAIN", "username": "relay", "password": SECRET})]
    g.start()
    send(g, "b@x.test")
    deferred = g.wait_tracking("deferred")[0]
    expect_match("password is not sent in clear", deferred["reply"], "its words")
    stays(lambda: g.queued() == 1 and not sink.records(), 1, "it waits")
    sink.restart("--auth", f"relay:{SECRET}", "--tls", certs.leaf("hop.test").pair)
    expect_equal(sink.wait(1, 40)[0]["tls"], True, "in TLS")
    g.stop()


# ---- connections, hosts, routes -----------------------------------------------------------------


@case("connections are used again, recipients share a transaction, limits hold")
def reuse(folder):
    sink = Sink(folder)
    g = Gateway(folder, shards=1)
    g.config["send_connectors"] = [smart_host(
        "out", sink.smart_host, max_connections=2, max_messages_per_connection=10,
        max_recipients_per_message=4)]
    g.start()
    with smtplib.SMTP(g.host, g.port["relay"], timeout=60) as client:
        for i in range(40):
            client.sendmail("a@sender.test", [f"r{i}@x.test"], TEXT)
        client.sendmail("a@sender.test", [f"many{i}@x.test" for i in range(10)], TEXT)
    records = sink.wait(43)
    g.wait_empty()
    many = sorted(len(r["rcpts"]) for r in records if r["rcpts"][0].startswith("many"))
    expect_equal(many, [2, 4, 4], "recipients of each part")
    g.stop()
    totals = sink.stop()
    expect(5 <= totals["connections"] <= 20, "connections", totals["connections"])
    expect(totals["connections_open_max"] <= 2, "at once", totals["connections_open_max"])


@case("E19 failover between smart hosts: priority, then back; weight shares")
def failover_hosts(folder):
    one, two = Sink(folder, name="one"), Sink(folder, name="two")
    three = Sink(folder, name="three")
    g = Gateway(folder, shards=1)
    g.config["send_connectors"] = [smart_host(
        "out", {"host": one.smart_host, "priority": 1}, {"host": two.smart_host, "priority": 2},
        max_messages_per_connection=2),
        smart_host("shared", {"host": two.smart_host, "weight": 1},
                   {"host": three.smart_host, "weight": 3}, space="shared.test",
                   max_messages_per_connection=1)]
    g.start()
    send(g, "first@x.test")
    one.wait(1)
    expect_equal(two.records(), [], "the second one has nothing to do")
    one.stop()
    send(g, "second@x.test")
    expect_equal(two.wait(1)[0]["rcpts"], ["second@x.test"])
    one.start()
    until(lambda: (send(g, "third@x.test"), time.sleep(1), len(one.records()) > 1)[2],
          "the first one is used again", 30)
    for i in range(60):
        send(g, f"w{i}@shared.test")
    g.wait_empty()
    share = len([r for r in three.records() if r["rcpts"][0].endswith("@shared.test")])
    expect(30 <= share <= 58, "its share of 60 by weight 3 of 4", share)
    g.stop()


@case("E19 a busy connection to the second host ends when the first one lives again", 150)
def first_host_again(folder):
    one, two = Sink(folder, name="one"), Sink(folder, name="two")
    g = Gateway(folder, shards=1)
    g.config["send_connectors"] = [smart_host(
        "out", {"host": one.smart_host, "priority": 1}, {"host": two.smart_host, "priority": 2},
        max_connections=1, max_messages_per_connection=100_000)]
    g.start()
    one.stop()
    send(g, "first@x.test")
    two.wait(1)
    one.start()
    end = time.monotonic() + patient(90)
    with smtplib.SMTP(g.host, g.port["relay"], timeout=60) as client:
        while not one.records() and time.monotonic() < end:
            client.sendmail("a@sender.test", ["more@x.test"], TEXT)
            time.sleep(0.05)
    expect(one.records(), "the first one has mail again")
    g.wait_empty()
    before = len(two.records())
    for _ in range(20):
        send(g, "last@x.test")
    g.wait_empty()
    expect_equal(len(two.records()), before, "and all of it")
    g.stop()


@case("E36 mail that waits for the second choice comes back, too", 150)
def queued_mail_comes_back(folder):
    cheap, dear = Sink(folder, name="cheap"), Sink(folder, "--delay-ms", "eod=1500", name="dear")
    g = Gateway(folder, shards=1)
    g.config["send_connectors"] = [smart_host("cheap", cheap.smart_host, cost=10),
                                   smart_host("dear", dear.smart_host, cost=20, max_connections=1)]
    g.start()
    cheap.stop()
    with smtplib.SMTP(g.host, g.port["relay"], timeout=60) as client:
        for i in range(60):
            client.sendmail("a@sender.test", [f"b{i}@x.test"], TEXT)
    dear.wait(1, 30)
    cheap.start()
    end = time.monotonic() + patient(40)
    while g.queued() and time.monotonic() < end:
        send(g, "new@x.test")  # somebody has to try it
        time.sleep(0.5)
    g.wait_empty(60)
    moved = [r for r in cheap.records() if r["rcpts"][0].startswith("b")]
    expect(len(moved) > 25, "of 60 came back", len(moved))
    g.stop()


@case("E36 a dead route's mail takes the next cost, and comes back when it lives", 80)
def failover_costs(folder):
    cheap, dear = Sink(folder, name="cheap"), Sink(folder, name="dear")
    fixed = Sink(folder, name="fixed")
    g = Gateway(folder, shards=1)
    g.config["send_connectors"] = [
        smart_host("cheap", cheap.smart_host, cost=10),
        smart_host("dear", dear.smart_host, cost=20),
        smart_host("fixed", fixed.smart_host, space="fixed.test", cost=1, failover=False)]
    g.start()
    send(g, "b0@x.test")
    cheap.wait(1)
    cheap.stop()
    fixed.stop()
    send(g, "waits@fixed.test")
    for i in range(3):
        send(g, f"b{i}@x.test")
    dear.wait(3, 30)
    expect(not [r for r in dear.records() if "fixed" in r["rcpts"][0]], "failover: false holds")
    sites = {s["connector"]: s for s in g.get("/api/v1/sites").json["items"]}
    expect_equal(sites["cheap"]["state"], "down")
    expect_match("refused", sites["cheap"]["last_error"], "last error")
    cheap.start()
    fixed.start()
    fixed.wait(1, 40)
    until(lambda: (send(g, "again@x.test"), time.sleep(1), len(cheap.records()) > 1)[2],
          "the cheap one is used again", 45)
    g.wait_empty()
    g.stop()


# ---- refusals and reports -----------------------------------------------------------------------


@case("4xx is tried again after the interval, for the message and for a recipient")
def retry(folder):
    sink = Sink(folder, "--reply", "eod#2=451 4.3.0 later", "--reply",
                "rcpt~slow*#1=450 4.2.1 greylisted")
    g = Gateway(folder, sink, shards=1).start()
    send(g, ["quick@x.test", "slow@x.test"])
    sink.wait(1, 30)
    g.wait_empty()
    records = sink.records()
    taken = sorted(r for record in records for r in record["rcpts"])
    expect_equal(taken, ["quick@x.test", "slow@x.test"], "each once")
    deferred = g.wait_tracking("deferred", 3)
    expect_match("greylisted", str(deferred), "the next hop's own words")
    g.stop()


def report(message):
    """The parts of a report: (message, status fields of the report, those of each recipient)."""
    _, text = without_trace(message)
    parsed = email.message_from_bytes(text, policy=email.policy.default)
    expect_equal(parsed.get_content_type(), "multipart/report")
    expect_equal(parsed.get_param("report-type"), "delivery-status")
    parts = list(parsed.iter_parts())
    expect(2 <= len(parts) <= 3, "parts", [p.get_content_type() for p in parts])
    expect_equal(parts[0].get_content_type(), "text/plain")
    expect_equal(parts[1].get_content_type(), "message/delivery-status")
    blocks = list(parts[1].get_payload())
    return parsed, parts, blocks[0], blocks[1:]


@case("F81 a 5xx is reported to the sender (RFC 3464)")
def failed_report(folder):
    sink = Sink(folder, "--reply", "rcpt~bad*=550 5.1.1 No such <user>, sorry")
    g = Gateway(folder, sink, shards=1).start()
    send(g, ["good@x.test", "bad@x.test", "bad2@x.test"], sender="author@sender.test",
         text=b"Subject: the original\r\nX-Own: 1\r\n\r\nsecret body\r\n")
    records = sink.wait(2)
    g.wait_empty()
    mine, = [r for r in records if r["from"] == ""]
    expect_equal(mine["rcpts"], ["author@sender.test"])
    parsed, parts, whole, recipients = report(sink.message(mine))
    expect_equal(parsed["to"].addresses[0].addr_spec, "author@sender.test")
    expect(parsed["date"] and parsed["message-id"] and parsed["from"], "fields", parsed.keys())
    expect_equal(parsed["auto-submitted"], "auto-replied")
    expect_match("dns; *gw.test", whole["reporting-mta"])
    expect(whole["arrival-date"], "arrival date")
    by_address = {str(r["final-recipient"]).partition(";")[2].strip(): r for r in recipients}
    expect_equal(sorted(by_address), ["bad2@x.test", "bad@x.test"])
    bad = by_address["bad@x.test"]
    expect_equal((str(bad["action"]), str(bad["status"])), ("failed", "5.1.1"))
    expect_match("smtp; *550.*No such", str(bad["diagnostic-code"]))
    expect(bad["remote-mta"], "remote")
    expect("the original" in str(parts[2]), "headers of the original come back", parts[2])
    expect_equal(len(g.wait_tracking("dsn")), 1, "one report for both")
    g.stop()


@case("F86 a null sender's mail never bounces, NOTIFY=NEVER neither; a report of a report neither")
def no_report(folder):
    sink = Sink(folder, "--reply", "rcpt~bad*=550 5.1.1 no")
    g = Gateway(folder, sink, shards=1).start()
    send(g, "bad@x.test", sender="")
    send(g, "bad@x.test", rcpt_options=["NOTIFY=NEVER"])
    send(g, "bad1@x.test", sender="bad-author@x.test")  # its report is refused, too
    g.wait_tracking("failed", 4)
    until(lambda: len(g.queue("status=held")) == 2, "what has no sender is kept", 10)
    expect_equal(sink.records(), [], "nothing arrives")
    expect_equal(len(g.wait_tracking("dsn")), 1)
    g.wait_metrics(dsn_suppressed_total=1, dead_letters_total=2)  # the first: NOTIFY=NEVER
    g.restart()
    until(lambda: len(g.queue("status=held")) == 2, "after a restart too", 10)
    for dead in g.queue():
        expect_equal((dead["sender"], dead["status"]), ("", "held"))
        expect_match("Dead letter.*no$", dead["last_error"])
    sink.restart("--reply", "rcpt~nobody*=550 5.1.1 no")
    g.change("release", filter="last_error~Dead*")
    expect_equal(sorted(r["rcpts"][0] for r in sink.wait(2)), ["bad-author@x.test", "bad@x.test"])
    g.wait_empty()
    g.stop()


@case("P1 with a postmaster, mail without a sender that fails is reported to him")
def to_postmaster(folder):
    sink = Sink(folder, "--reply", "rcpt~bad*=550 5.1.1 no")
    g = Gateway(folder, sink, shards=1)
    g.config["postmaster"] = "boss@home.test"
    g.start()
    send(g, ["bad@x.test", "good@x.test"], sender="")
    send(g, "bad1@x.test", sender="bad-author@x.test")
    reports = [sink.message(r).decode() for r in sink.wait(3) if r["rcpts"] == ["boss@home.test"]]
    expect_equal(len(reports), 2)
    expect("bad@x.test" in "".join(reports) and "bad-author@x.test" in "".join(reports), "who")
    g.wait_empty()
    with smtplib.SMTP(g.host, g.port["relay"], timeout=60) as client:
        client.sendmail("a@sender.test", "postmaster", TEXT)
    expect_equal(sink.wait(4)[3]["rcpts"], ["boss@home.test"], "mail to <postmaster>")
    sink.restart("--reply", "rcpt=550 5.1.1 no")
    send(g, "bad@x.test", sender="")
    until(lambda: len(g.queue("status=held")) == 1, "a report that he does not get is kept", 10)
    expect_equal(len(g.queue("recipient=boss@home.test")), 1)
    g.change("bounce", filter="status=held")
    g.wait_empty()
    g.stop()


@case("NOTIFY=SUCCESS,DELAY and expiry: relayed, delayed, expired are reported")
def other_reports(folder):
    sink = Sink(folder, "--reply", "rcpt~late*=451 4.7.1 come back later", "--without",
                "ENHANCEDSTATUSCODES")
    g = Gateway(folder, sink, shards=1)
    g.config["retry"] = {"intervals": ["1s"], "expire": "5s", "warn_after": "2s"}
    g.start()
    send(g, "fine@x.test", rcpt_options=["NOTIFY=SUCCESS"], options=["ENVID=QQ314159"])
    send(g, "late@x.test", rcpt_options=["NOTIFY=FAILURE,DELAY"])
    until(lambda: len([r for r in sink.records() if r["from"] == ""]) >= 3, "three reports", 30)
    g.wait_empty()
    found = {}
    for record in sink.records():
        if record["from"] == "":
            _, _, whole, (recipient,) = report(sink.message(record))
            found[str(recipient["action"])] = (whole, recipient)
    expect_equal(sorted(found), ["delayed", "failed", "relayed"])
    expect_match("QQ314159", str(found["relayed"][0]["original-envelope-id"]))
    expect_match(r"^4\.", str(found["delayed"][1]["status"]))
    expect(found["delayed"][1]["will-retry-until"], "until when")
    expect_match(r"^[45]\.", str(found["failed"][1]["status"]))
    expect_match("come back later", str(found["failed"][1]), "the last words of the next hop")
    g.stop()


@case("F89 a message too large for the next hop: 5.3.4 before DATA; SMTPUTF8 not offered: 5.6.7")
def not_offered(folder):
    sink = Sink(folder, "--max-size", "2000", "--without", "SMTPUTF8")
    g = Gateway(folder, sink, shards=1).start()
    send(g, "b@x.test", text=b"Subject: x\r\n\r\n" + b"y" * 900 + b"\r\n" + b"z" * 990 + b"\r\n" +
         b"w" * 900 + b"\r\n")
    with smtplib.SMTP(g.host, g.port["relay"], timeout=60) as client:
        client.ehlo()
        client.sendmail("a@sender.test", "用户@x.test", TEXT, ["SMTPUTF8"])
    failed = g.wait_tracking("failed", 2)
    expect_equal({x["status"] for x in failed}, {"5.3.4", "5.6.7"})
    g.stop()


# ---- every fault at every phase -----------------------------------------------------------------

PHASES = ("banner", "ehlo", "mail", "rcpt", "data", "eod")
ANSWERS = {"421": "421 4.3.2 going down", "451": "451 4.3.0 later", "550": "550 5.7.0 never"}


@case("F81 4xx, 421, 5xx, a close at each phase, then a sound next hop: once, or one report", 120)
def faults(folder):
    g = Gateway(folder, shards=2)
    sinks, rows = {}, []
    g.config["send_connectors"] = []
    for phase in PHASES + ("body",):
        for name in list(ANSWERS) + ["close"]:
            if phase == "body" and name != "close":
                continue
            rule = f"{phase}#1"
            option = ("--drop-at", rule) if name == "close" else \
                ("--reply", f"{rule}={ANSWERS[name]}")
            domain = f"{phase}-{name}.test"
            sinks[domain] = Sink(folder, *option, name=domain)
            g.config["send_connectors"].append(
                smart_host(domain, sinks[domain].smart_host, space=domain))
            rows.append((domain, phase, name))
    home = Sink(folder, name="home")
    g.config["send_connectors"].append(smart_host("home", home.smart_host, space="sender.test"))
    g.start()
    for domain, *_ in rows:
        send(g, f"b@{domain}", sender=f"{domain}@sender.test")
    until(lambda: g.queued() == 0, "all is settled", 60, 0.2)
    bounced = {r["rcpts"][0].partition("@")[0] for r in home.records()}
    for domain, phase, name in rows:
        took = len(sinks[domain].records())
        # The host's fault or ours is never the message's: before MAIL nothing bounces.
        wanted = (0, True) if name == "550" and phase in ("mail", "rcpt", "data", "eod") \
            else (1, False)
        got = (took, domain in bounced)
        harness.result(f"F81 {name} at {phase}",
                       None if got == wanted else f"(copies, report) {got}, wanted {wanted}")
    g.stop()


@case("F82 lost after the final dot: dup_possible is logged, and it is sent again")
def lost_after_dot(folder):
    sink = Sink(folder, "--drop-after-dot=eod#1")
    g = Gateway(folder, sink, shards=1).start()
    send(g, "b@x.test")
    first, second = sink.wait(2, 30)
    g.wait_empty()
    expect_equal(first["crc32"], second["crc32"], "the same bytes")
    expect_equal(len(g.wait_tracking("dup_possible")), 1)
    g.wait_metrics(deliveries_dup_possible_total=1)
    expect_equal(len(sink.records()), 2, "and no third time")
    g.stop()


if __name__ == "__main__":
    main("next hops", beside=4)
