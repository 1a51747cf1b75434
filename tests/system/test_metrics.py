#!/usr/bin/env python3
# time-limit: 150
# builds: asan
"""What is counted for each connector, site class and outcome; histograms; age of the queue."""
import re
import smtplib
import ssl

from lib import certs
from lib.gateway import PASSWORDS, Gateway, smart_host
from lib.harness import case, expect, expect_equal, main, until
from lib.sink import Sink


def scrape(g):
    """{(name, frozenset of labels): value}, and help texts and types by name."""
    values, helps, types = {}, {}, {}
    for line in g.get("/metrics").body.split("\n"):
        if line.startswith("# HELP "):
            helps[line.split(" ", 3)[2]] = line.split(" ", 3)[3]
        elif line.startswith("# TYPE "):
            name = line.split(" ")[2]
            expect(name not in types, name, "has two types")
            types[name] = line.split(" ")[3]
        elif line:
            name, labels, value = re.match(r"^(\w+)(?:\{(.*)\})? (\S+)$", line).groups()
            pairs = frozenset(re.findall(r'(\w+)="([^"]*)"', labels or ""))
            expect((name, pairs) not in values, line, "is there twice")
            values[name, pairs] = float(value)
    return values, helps, types


def at(values, name, **labels):
    return values.get(("hikyaku_" + name, frozenset(labels.items())))


def wait(g, what, **wanted):
    """{description: (value, name, labels)} all hold; the scrape."""
    def probe():
        values = scrape(g)[0]
        return all(at(values, name, **labels) == value
                   for value, name, labels in wanted.values()) and values
    return until(probe, what, 20, 0.1)


@case("connectors: sessions, messages, recipients, TLS, AUTH; outcomes out; histograms", 60)
def connectors(folder):
    leaf = certs.leaf("hop.test", "localhost")
    sink = Sink(folder, "--tls", f"{leaf.certificate}:{leaf.key}",
                "--reply", "rcpt~bad*=550 5.1.1 no", "--reply", "rcpt~late*=451 4.3.0 later")
    g = Gateway(folder, sink)
    g.config["send_connectors"] = [
        smart_host("out", sink.smart_host, tls={"level": "required"}),
        smart_host("dead", "[127.0.0.1]:1", space="dead.test", failover=False)]
    g.config["retry"]["intervals"] = ["1h"]
    g.start()
    values, helps, types = scrape(g)
    expect_equal(at(values, "receive_messages_total", connector="relay", outcome="accepted"), 0.0,
                 "there before the first message")
    names = {re.sub(r"_(bucket|sum|count)$", "", n)
             if re.sub(r"_(bucket|sum|count)$", "", n) in types else n for n, _ in values}
    expect_equal(names - set(types), set(), "without a type")
    expect_equal({n for n in types if not helps.get(n)}, set(), "without a help text")
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with smtplib.SMTP(g.host, g.port["submission"], timeout=60) as client:
        client.starttls(context=context)
        try:
            client.login("alice", "wrong")
        except smtplib.SMTPAuthenticationError:
            pass
        client.login("alice", PASSWORDS["alice"])
        client.sendmail("a@b.test", ["one@x.test", "bad@x.test", "late@x.test"], "A: b\r\n\r\nx")
    with smtplib.SMTP(g.host, g.port["relay"], timeout=60) as client:
        client.sendmail("a@b.test", ["two@dead.test"], "A: b\r\n\r\nx")
    out, dead = ({"connector": name, "site_class": "smart_host"} for name in ("out", "dead"))
    values = wait(
        g, "counters of connectors",
        a=(1, "receive_sessions_total", {"connector": "submission", "outcome": "accepted"}),
        b=(1, "receive_messages_total", {"connector": "submission", "outcome": "accepted"}),
        c=(3, "receive_recipients_total", {"connector": "submission", "outcome": "accepted"}),
        d=(1, "receive_tls_handshakes_total", {"connector": "submission", "outcome": "full"}),
        f=(1, "receive_auth_total", {"connector": "submission", "outcome": "succeeded"}),
        # one of them is a report
        h=(2, "send_recipients_total", {**out, "outcome": "delivered"}),
        i=(1, "send_recipients_total", {**out, "outcome": "deferred"}),
        j=(1, "send_recipients_total", {**out, "outcome": "failed"}),
        k=(1, "send_recipients_total", {**dead, "outcome": "deferred"}),
        l=(0, "send_connections_total", {**dead, "outcome": "ready"}),
        m=(0, "send_tls_total", {**out, "outcome": "clear"}))
    # Python tries a wrong password with PLAIN, then with LOGIN
    expect(at(values, "receive_auth_total", connector="submission", outcome="failed") >= 1, "AUTH")
    expect(at(values, "send_connections_total", **dead, outcome="failed") >= 1, "connections")
    expect(at(values, "send_tls_total", **out, outcome="full") >= 1, "TLS")
    for name, labels, least in (("accept_to_durable_seconds", {"connector": "submission"}, 1),
                                ("accept_to_durable_seconds", {"connector": "relay"}, 1),
                                ("durable_to_first_attempt_seconds", out, 1),
                                ("attempt_seconds", out, 1),
                                ("accept_to_delivered_seconds", out, 1),
                                ("accept_to_delivered_seconds", dead, 0)):
        buckets = [values["hikyaku_" + name + "_bucket", frozenset({**labels, "le": le}.items())]
                   for le in ("0.001", "0.25", "86400", "+Inf")]
        expect_equal(buckets, sorted(buckets), "cumulative")
        count = at(values, name + "_count", **labels)
        expect(count >= least and count == buckets[-1], name, labels, count)
        expect((at(values, name + "_sum", **labels) > 0) == (count > 0), name, labels)
    until(lambda: at(scrape(g)[0], "queue_oldest_age_seconds") >= 2, "the queue's age")
    expect_equal(at(scrape(g)[0], "queue_messages_older", seconds="300"), 0.0)
    for shard in "01":
        until(lambda s=shard: 0 <= at(scrape(g)[0], "shard_utilisation_ratio", shard=s) <= 1,
              "a ratio")
    g.config["send_connectors"].reverse()  # a reload leaves counters as they are
    expect_equal(g.reload().status, 200)
    expect_equal(at(scrape(g)[0], "send_recipients_total", **out, outcome="delivered"), 2.0)
    until(lambda: g.change("remove", filter="age>=0s") >= 0 and g.queued() == 0, "an empty queue")
    until(lambda: at(scrape(g)[0], "queue_oldest_age_seconds") == 0, "an empty queue has no age")
    g.stop()


@case("labels are bounded: a thousand connectors share what is left over", 60)
def bounded(folder):
    sink = Sink(folder)
    g = Gateway(folder, sink, shards=1)
    g.config["send_connectors"] = [smart_host(f"c{i}", sink.smart_host, space=f"d{i}.test")
                                   for i in range(1000)]
    g.start()
    with smtplib.SMTP(g.host, g.port["relay"], timeout=60) as client:
        client.sendmail("a@b.test", ["x@d5.test", "x@d900.test", "x@d901.test"], "A: b\r\n\r\nx")
    values = wait(g, "their counts", a=(1, "send_recipients_total", {
        "connector": "c5", "site_class": "smart_host", "outcome": "delivered"}), b=(
            2, "send_recipients_total", {
                "connector": "other", "site_class": "any", "outcome": "delivered"}))
    names = {dict(labels)["connector"] for name, labels in values
             if name == "hikyaku_send_recipients_total"}
    expect_equal(len(names), 65, "64 and all others")
    expect(len(values) < 7000, len(values), "series")
    g.stop()


if __name__ == "__main__":
    main("metrics", beside=2)
