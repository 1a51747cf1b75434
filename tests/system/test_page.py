#!/usr/bin/env python3
# time-limit: 150
# builds: asan
"""The operators' web page (E28, E30) and the search of the tracking log behind it."""
import os
import smtplib
import subprocess
import threading

from lib.gateway import Gateway, smart_host
from lib.harness import ROOT, Skip, case, expect, expect_equal, expect_match, main, result, until
from lib.sink import Sink

ADDRESS = "user1@dead.test"


def started(folder, **tracking):
    sink = Sink(folder)
    g = Gateway(folder, sink, shards=2)
    g.config["log"].update(tracking)
    g.config["send_connectors"].append(
        smart_host("dead", "[127.0.0.1]:1", space="dead.test", cost=5, failover=False))
    g.config["retry"]["intervals"] = ["1h"]
    return g.start()


def send(g, *recipients):
    with smtplib.SMTP(g.host, g.port["relay"], timeout=60) as client:
        for recipient in recipients:
            client.sendmail("a@sender.test", [recipient],
                            "Subject: <img src=x onerror=alert(1)>\r\n\r\nhello\r\n")


@case("E28 E30 the page in a browser: queue, next hops, connectors, tracking, routes", 120)
def browser(folder):
    if not os.path.isdir(os.path.join(ROOT, "build/npm-page/node_modules/jsdom")):
        raise Skip("jsdom is missing: make peers")
    g = started(folder)
    send(g, *(f"user{i}@dead.test" for i in range(4)))
    g.wait_tracking("deferred", 4)
    until(lambda: len(g.queue("status=deferred")) == 4, "they wait")
    run = subprocess.run(["node", os.path.join(ROOT, "tests/page/drive.js"),
                          f"http://{g.host}:{g.port['admin']}/", g.token, ADDRESS],
                         capture_output=True, text=True, timeout=400, check=False)
    for line in run.stdout.splitlines():
        if "ok - " in line:
            result(line.split(": ", 1)[1], None if line.startswith("ok") else "did not come")
    expect(run.returncode == 0, run.stdout, run.stderr)
    expect(run.stdout.count("ok - ") >= 19, "all of it ran", run.stdout)
    g.stop()


@case("what the page consists of needs no token, may do little, and nothing else is there")
def files(folder):
    g = started(folder)
    for path, type_ in (("/", "html"), ("/page.css", "css"), ("/page.js", "javascript")):
        answer = g.request("GET", path, token=False)
        expect_equal(answer.status, 200, path)
        with open(os.path.join(ROOT, "gateway/page", path.strip("/") or "index.html"),
                  encoding="utf-8") as file:
            expect_equal(answer.body, file.read(), path)
        expect_match(type_, answer.headers["Content-Type"])
        expect_match("default-src 'none'; script-src 'self';",
                     answer.headers["Content-Security-Policy"])
        expect_equal(answer.headers["X-Content-Type-Options"], "nosniff")
    expect_equal(g.request("GET", "/../page.js", token=False).status, 404)
    expect_equal(g.request("POST", "/", token=False).status, 404)
    expect_equal(g.request("GET", "/api/v1/trace", token=False, expr="qid=1").status, 401)
    g.stop()


@case("/api/v1/trace: wrong expressions, no log, one search at a time, a stop in the middle")
def search(folder):
    g = started(folder)
    send(g, "one@example.net")
    g.wait_tracking("delivered")
    found = g.get("/api/v1/trace", expr="recipient=one@example.net").json
    expect_equal((found["matched"], found["shown"], found["more"]), (1, 1, False))
    events = [event["event"] for event in found["messages"][0]["events"]]
    expect(events[0] == "accepted" and events[-1] == "delivered", events)
    expect_equal(g.get("/api/v1/trace", expr="recipient=two@example.net").json["matched"], 0)
    for query in ({"expr": "nonsense"}, {}):
        answer = g.get("/api/v1/trace", **query)
        expect_equal(answer.status, 400)
        expect_match("recipient=a@example.com", answer.body)
    # A packed file that comes slowly holds up a search as long as a test wants.
    slow = g.tracking_path + "-20260101T000000Z"
    os.mkfifo(slow)
    first = []
    asking = threading.Thread(target=lambda: first.append(
        g.get("/api/v1/trace", expr="recipient=one@example.net")))
    asking.start()
    with open(slow, "wb") as pipe:  # opens when the search reads it
        answer = g.get("/api/v1/trace", expr="recipient=one@example.net")
        expect_equal(answer.status, 409)
        expect(g.get("/api/v1/status").status == 200, "others are served meanwhile")
        os.unlink(slow)
        pipe.write(b"{}\n")
    asking.join(20)
    expect_equal(first[0].json["matched"], 1)
    os.mkfifo(slow)
    asking = threading.Thread(target=lambda: first.append(
        g.get("/api/v1/trace", expr="recipient=one@example.net")))
    asking.start()
    with open(slow, "wb") as pipe:
        os.unlink(slow)
        g.process.signal(15)
        until(lambda: '"event":"stop"' in g.process.log(1000), "it stops")
        pipe.write(b"{}\n")
    asking.join(20)
    expect(first[1].status in (200, 500, 503), "the search is answered", first[1].status)
    g.process.wait(20)


@case("a gateway that keeps no tracking log says so")
def no_log(folder):
    g = Gateway(folder, Sink(folder))
    del g.config["log"]["tracking"]
    g.start()
    answer = g.get("/api/v1/trace", expr="recipient=a@example.com")
    expect_equal(answer.status, 404)
    expect_match("log.tracking", answer.body)
    g.stop()


if __name__ == "__main__":
    main("page")
