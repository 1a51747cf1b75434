#!/usr/bin/env python3
# time-limit: 120
# builds: asan
"""Back pressure: slow, then 452 4.3.1, deliveries and the operator's changes meanwhile, and an end
by itself."""
import smtplib
import time

from lib import harness
from lib.gateway import Gateway, smart_host
from lib.harness import case, expect, expect_equal, main, until
from lib.sink import Sink

TEXT = b"Subject: x\r\n\r\n" + (b"x" * 70 + b"\r\n") * 40


def nowhere():
    return f"[{harness.address()}]:{harness.free_port()}"


def send(g, count=1):
    with smtplib.SMTP(g.host, g.port["relay"], timeout=60) as client:
        for i in range(count):
            client.sendmail("a@sender.test", [f"b{i}@x.test"], TEXT)


def mail_reply(g):
    with smtplib.SMTP(g.host, g.port["relay"], timeout=60) as client:
        client.ehlo()
        begun = time.monotonic()
        code, text = client.mail("a@sender.test")
        return code, text.decode(), time.monotonic() - begun


def level(g, resource="queue"):
    status = g.status()
    return status["pressure"], status[f"pressure_{resource}"]


@case("E37 F57 by the depth of the queue: medium delays, high refuses, both end by themselves")
def queue_depth(folder):
    sink = Sink(folder)
    g = Gateway(folder, shards=1)
    g.config["send_connectors"] = [smart_host("out", nowhere())]
    g.config["retry"]["intervals"] = ["1h"]
    g.config["back_pressure"] = {"queue_messages": 100, "delay": "700ms"}
    g.start()
    send(g, 60)
    until(lambda: g.status()["queue_messages"] == 60, "queued")
    time.sleep(1.2)  # the pressure is looked at once a second
    expect_equal(level(g), ("normal", "normal"))
    expect(min(mail_reply(g)[2] for _ in range(5)) < 0.6, "no delay yet")
    send(g, 25)
    until(lambda: level(g) == ("medium", "medium"), "medium")
    expect_equal(g.get("/readyz").status, 200, "ready, slowly")
    code, _, took = mail_reply(g)
    expect(code == 250 and took >= 0.7, "delayed", code, took)
    g.wait_metric("pressure_delayed_total")
    g.config["back_pressure"]["delay"] = "0s"
    g.reload()
    send(g, 12)
    until(lambda: level(g) == ("high", "high"), "high")
    code, text, _ = mail_reply(g)
    expect_equal((code, text[:5]), (452, "4.3.1"))
    ready = g.get("/readyz")
    expect(ready.status == 503 and "queue" in str(ready.body), ready.body)
    g.wait_metrics(pressure_queue=2)
    g.wait_metric("pressure_refused_total")
    expect_equal(g.change("remove", filter="recipient=b1@x.test"), 3, "removals go on")
    g.config["send_connectors"] = [smart_host("out", sink.smart_host)]
    g.reload()
    g.change("retry", filter="status=deferred")
    g.wait_empty()
    until(lambda: level(g) == ("normal", "normal"), "over")
    expect_equal(mail_reply(g)[0], 250)
    expect_equal(g.get("/readyz").status, 200)
    until(lambda: {(line["resource"], line["to"]) for line in g.log("pressure")} >=
          {("queue", "medium"), ("queue", "high"), ("queue", "normal")}, "events")
    g.stop()


@case("E37 by memory: a limit below what the process has refuses, a reload lifts it")
def memory(folder):
    sink = Sink(folder)
    g = Gateway(folder, sink, shards=1)  # each shard looks for itself, once a second
    g.config["back_pressure"] = {"memory": "1MiB"}
    g.start()
    until(lambda: level(g, "memory") == ("high", "high"), "high")
    expect_equal(mail_reply(g)[0], 452)
    g.config["back_pressure"] = {"memory": "4GiB"}
    g.reload()
    until(lambda: level(g, "memory") == ("normal", "normal"), "normal")
    send(g)
    sink.wait(1)
    g.stop()


@case("E37 F57 by the room in the spool: full, removals free it, mail is taken again", 60)
def spool(folder):
    g = Gateway(folder, shards=1)
    g.config["spool"].update({"max_size": "128MiB", "min_free": "0"})
    g.config["send_connectors"] = [smart_host("out", nowhere())]
    g.config["retry"]["intervals"] = ["1h"]
    g.config["back_pressure"] = {"delay": "0s"}
    g.start()
    with smtplib.SMTP(g.host, g.port["relay"], timeout=60) as client:
        body = b"Subject: x\r\n\r\n" + (b"x" * 70 + b"\r\n") * 14000
        for i in range(200):
            try:
                client.sendmail("a@sender.test", [f"b{i}@x.test"], body)
            except (smtplib.SMTPSenderRefused, smtplib.SMTPDataError) as error:
                expect_equal(error.smtp_code, 452)
                break
        else:
            raise AssertionError("never full")
    until(lambda: level(g, "spool")[1] != "normal", "pressure")
    until(lambda: g.get("/readyz").status == 503, "not ready")
    left = len(g.queue())
    expect(left > 50, "messages", left)
    expect_equal(g.change("remove", filter="sender=a@sender.test"), left)
    until(lambda: level(g, "spool") == ("normal", "normal"), "room again", 20)
    until(lambda: g.get("/readyz").status == 200, "ready")
    send(g)
    g.stop()


main("pressure", beside=3)
