#!/usr/bin/env python3
# time-limit: 150
"""Message tracking: every step of every recipient, whatever the level of the log."""
import smtplib
import ssl

from lib.gateway import PASSWORDS, Gateway, smart_host
from lib.harness import case, expect, expect_equal, expect_match, main
from lib.sink import Sink


def send(g, *recipients, sender="a@sender.test", text=b"Message-ID: <m1@x.test>\r\n\r\nx\r\n"):
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with smtplib.SMTP_SSL(g.host, g.port["submissions"], timeout=20, context=context) as client:
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
    expect_equal((report["kind"], report["about"]), ("failed", g.tracking("failed")[0]["qid"]))
    expect_equal([x for x in g.log() if x["level"] not in ("error",)], [], "standard error")
    g.stop()


if __name__ == "__main__":
    main("trace")
