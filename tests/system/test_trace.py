#!/usr/bin/env python3
# time-limit: 150
# builds: asan
"""Message tracking: every step of every recipient, whatever the level of the log."""
import json
import os
import smtplib
import ssl

from lib.gateway import PASSWORDS, Gateway, smart_host
from lib.harness import case, expect, expect_equal, expect_match, main, until
from lib.sink import Sink


def send(g, *recipients, sender="a@sender.test", text=b"Message-ID: <m1@x.test>\r\n\r\nx\r\n"):
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with smtplib.SMTP_SSL(g.host, g.port["submissions"], timeout=60, context=context) as client:
        client.login("alice", PASSWORDS["alice"])
        client.sendmail(sender, list(recipients), text)


@case("E30 the tracking log has each step of each recipient, also at level error", 60)
def steps(folder):
    sink = Sink(folder)
    g = Gateway(folder, sink)
    g.config["log"]["level"] = "error"
    g.config["send_connectors"] = [
        smart_host("out", sink.smart_host, max_message_size="2KiB"),
        smart_host("dead", "[127.0.0.1]:1", space="dead.test", failover=False)]
    g.config["retry"]["intervals"] = ["1h"]
    g.start()
    send(g, "one@x.test", "two@x.test", "three@dead.test", sender="alice@client.test")
    g.wait_tracking("deferred")
    g.wait_tracking("delivered", 2)
    accepted = g.tracking("accepted")[0]
    expect_equal((accepted["message_id"], accepted["account"], accepted["recipients"]),
                 ("<m1@x.test>", "alice", 3))
    expect_match("^TLSv1.3 ", accepted["tls"])
    expect(accepted["durable_us"] > 0, "durable")
    g.wait_tracking("routed", 3)
    routed = {e["recipient"]: e["connector"] for e in g.tracking("routed")}
    expect_equal(routed, {"one@x.test": "out", "two@x.test": "out", "three@dead.test": "dead"})
    for event in g.tracking("delivered"):
        expect_equal((event["connector"], event["code"]), ("out", 250))
        expect_match("127", event["remote"])
    deferred = g.tracking("deferred")[0]
    expect_equal((deferred["connector"], deferred["attempt"]), ("dead", 1))
    expect_match("refused", deferred["reply"])
    send(g, "four@x.test", sender="alice@client.test", text=b"A: b\r\n\r\n" + b"x\r\n" * 1000)
    report = g.wait_tracking("dsn")[0]
    expect_equal((report["kind"], report["about"]),
                 ("failed", g.wait_tracking("failed")[0]["qid"]))
    expect_equal([x for x in g.log() if x["level"] not in ("error",)], [], "standard error")
    g.stop()


@case("E30 trace by sender, recipient, id and time finds every step; rotated files are packed", 90)
def trace(folder):
    sink = Sink(folder)
    g = Gateway(folder, sink)
    g.config["log"]["tracking_size"] = "1MiB"
    with open(g.tracking_path, "w", encoding="utf-8") as file:  # old, due to be rotated
        for i in range(9000):
            who = json.dumps(f'o"{i}@old.test')
            file.write(f'{{"time":"2001-11-21T{i // 500:02}:00:00.000000Z","level":"info",'
                       f'"event":"accepted","shard":0,"qid":"OLD{i}","sender":{who},'
                       f'"recipient":"r{i % 10}@old.test","message_id":"<{i}@old>",'
                       f'"origin":"FIRST{i}"}}\n')
    g.start()
    send(g, "one@x.test", "two@x.test", sender="alice@client.test")
    g.wait_tracking("delivered", 1)
    until(lambda: [n for n in os.listdir(g.dir) if n.endswith(".gz.idx")], "the packed file")
    until(lambda: not [n for n in os.listdir(g.dir) if n.endswith("Z")], "the plain one is gone")

    def found(expr, *options):
        answer = json.loads(g.ctl("--json", "trace", expr, *options).stdout)
        return {m["qid"]: [e["event"] for e in m["events"]] for m in answer["messages"]}
    one = until(lambda: {q: e for q, e in found("recipient=ONE@x.test").items()
                         if e.count("delivered") == 2}, "all steps")
    qid, events = next(iter(one.items()))
    expect_equal(sorted(events), ["accepted", "delivered", "delivered", "routed", "routed"])
    for expr in (f"qid={qid}", "sender=alice@client.test", "message_id=<m1@x.test>",
                 "recipient=two@x.test and time>=2002", "account=alice and event=delivered",
                 "recipient~*@x.test and message_id~<m1*", "client=127.0.0.1 and event!=failed"):
        expect_equal(set(found(expr)), {qid}, expr)
    for expr in ("recipient=two@x.test and time<2002", "sender=nobody@x.test",
                 "recipient=one@x.test and event!=accepted"):
        expect_equal(found(expr), {}, expr)
    expect_equal(found('sender="o\\"17@old.test"'), {"OLD17": ["accepted"]})
    expect_equal(found("message_id=<8999@old>"), {"OLD8999": ["accepted"]})
    expect_equal(found("origin=FIRST123"), {"OLD123": ["accepted"]})
    expect_equal(len(found("recipient=r3@old.test", "--limit", "7")), 7)
    expect_match("^0 messages, 0 shown; 'recipent' is not one of the usual fields",
                 g.ctl("trace", "recipent=r3@old.test").stdout)
    expect_equal(g.ctl("trace", "recipient=nobody@old.test").stdout, "0 messages, 0 shown\n")
    expect_match("900 messages, 100 shown", g.ctl("trace", "recipient=r3@old.test").stdout)
    expect_match(r"delivered +.*recipient=one@x.test.*reply=Ok",
                 g.ctl("trace", f"qid={qid}").stdout)
    g.ctl("trace", "frob", status=2)
    g.stop()
    expect_match(qid, g.ctl("trace", f"qid={qid}", "--file", g.tracking_path).stdout)


if __name__ == "__main__":
    main("trace", beside=2)
