#!/usr/bin/env python3
# time-limit: 150
# builds: asan
"""What becomes of mail on its way out: limits that span shards, delay and expiry notifications,
mail without a route, what is in a body.
"""
import email
import json
import smtplib
import subprocess

from lib import harness
from lib.gateway import Gateway, smart_host
from lib.harness import case, expect, expect_equal, main, program, until
from lib.sink import Sink

MESSAGE = "From: alice@client.test\r\nSubject: to be late\r\n\r\nHello\r\n"


def send(g, recipient, message=MESSAGE, sender="alice@client.test", options=()):
    with smtplib.SMTP(g.host, g.port["relay"], timeout=60) as client:
        client.sendmail(sender, [recipient], message, mail_options=options)


def dead_host(cost=1, space="*"):
    host = harness.address()
    return smart_host("dead", f"[{host}]:{harness.free_port(host)}", cost=cost, space=space)


def report_of(message):
    """(subject, fields of the first recipient) of a notification."""
    parsed = email.message_from_bytes(message)
    expect_equal(parsed.get_content_type(), "multipart/report", "type")
    fields = parsed.get_payload()[1].get_payload()
    return parsed["Subject"], fields[1]


@case("max_connections holds over four shards, and every shard gets its turn", 60)
def permits(folder):
    sink = Sink(folder, maildir=False)
    g = Gateway(folder, sink, shards=4)
    g.send("out")["max_connections"] = 3
    g.config["log"]["level"] = "warning"
    g.start()
    done = subprocess.run([program("hikyaku-bench"), "load", "--to", f"{g.host}:{g.port['relay']}",
                           "--sessions", "40", "--messages-per-session", "25", "--messages", "3000",
                           "--size", "2000", "--seconds", "300", "--json"], check=True,
                          capture_output=True, text=True, timeout=harness.patient(60))
    acknowledged = json.loads(done.stdout)["acked"]
    expect_equal(acknowledged, 3000, "acknowledged")
    sink.wait(3000, 30)
    sites = g.get("/api/v1/sites").json["items"]
    expect(sum(s["delivered"] > 0 for s in sites) >= 2, "shards that delivered", sites)
    g.stop()
    totals = sink.stop()
    expect_equal(totals["messages"], 3000, "delivered")
    expect(totals["connections_open_max"] <= 3, "connections at once", totals)


@case("E39: the sender hears once of a delay, then of the end", 60)
def delay(folder):
    sink = Sink(folder)
    g = Gateway(folder, sink)
    g.config["send_connectors"] = [dead_host(space="far.test"),
                                   smart_host("back", sink.smart_host, space="client.test")]
    g.config["retry"] = {"intervals": ["1s"], "warn_after": "2s", "expire": "14s"}
    g.start()
    send(g, "friend@far.test")
    sink.wait(1)
    g.restart()  # that it was told is kept on disk
    sink.wait(2, 30)
    harness.stays(lambda: len(sink.records()) == 2, 3, "two notifications")
    (first, delayed), (second, failed) = (report_of(m) for m in sink.messages())
    expect(first.startswith("Delayed"), first)
    expect_equal(delayed["Action"], "delayed")
    expect_equal(delayed["Status"][0], "4")
    expect("Will-Retry-Until" in delayed, delayed.as_string())
    expect(second.startswith("Undeliverable"), second)
    expect_equal(failed["Action"], "failed")
    expect("refused" in failed["Diagnostic-Code"], "the last reason", failed.as_string())
    g.wait_empty()
    g.stop()


@case("E27: without a route mail waits, leaves at a reload, or expires with a notification", 60)
def unreachable(folder):
    sink = Sink(folder)
    g = Gateway(folder, sink)
    back = smart_host("back", sink.smart_host, space="client.test")
    g.config["send_connectors"] = [back]
    g.start()
    send(g, "friend@nowhere.test")
    until(lambda: g.get("/api/v1/queue?filter=status%3Dunreachable").json["matched"] == 1,
          "the message in the unreachable queue")
    g.config["send_connectors"] = [back, smart_host("out", sink.smart_host)]
    g.write_config()
    g.hangup()
    record, = sink.wait(1)
    expect_equal(record["rcpts"] if "rcpts" in record else record["to"], ["friend@nowhere.test"])
    g.config["send_connectors"] = [back]
    g.config["retry"] = {"intervals": ["1s"], "expire": "3s", "warn_after": "0s"}
    g.write_config()
    g.hangup()
    until(lambda: g.log("reload")[1:], "the second reload")
    send(g, "friend@nowhere.test")
    sink.wait(2)
    _, failed = report_of(sink.messages()[1])
    expect_equal(failed["Final-Recipient"], "rfc822; friend@nowhere.test")
    g.stop()


@case("FAULTS 29: 8-bit content to a 7-bit hop comes back, declared 8BITMIME alone does not")
def eightbit(folder):
    sink = Sink(folder)
    seven = Sink(folder, "--without", "8BITMIME", name="seven")
    g = Gateway(folder, sink)
    g.config["send_connectors"] = [smart_host("seven", seven.smart_host, space="seven.test"),
                                   smart_host("out", sink.smart_host)]
    g.start()
    send(g, "friend@seven.test", options=["BODY=8BITMIME"])
    seven.wait(1)
    send(g, "friend@seven.test", MESSAGE.encode() + "Grüße\r\n".encode("latin-1"))
    _, failed = report_of((sink.wait(1), sink.messages()[0])[1])
    expect_equal(failed["Status"], "5.6.3")
    expect_equal(len(seven.records()), 1, "messages at the 7-bit hop")
    g.stop()


if __name__ == "__main__":
    main("delivery", beside=4)
