#!/usr/bin/env python3
# time-limit: 240
# builds: asan
"""What operators do: reload, stop, look at the queue and change it, ask about routes, scrape."""
import json
import os
import re
import smtplib
import subprocess
import threading

from lib import harness
from lib.gateway import Gateway, smart_host
from lib.harness import (Program, case, expect, expect_equal, expect_match, main, program, stays,
                         until)
from lib.sink import Sink

TEXT = b"Subject: kept\r\n\r\nkept\r\n"


def send(g, *recipients, sender="a@sender.test", text=TEXT, port="relay"):
    with smtplib.SMTP(g.host, g.port[port], timeout=60) as client:
        client.sendmail(sender, list(recipients), text)


def nowhere():
    return f"[{harness.address()}]:{harness.free_port()}"


def with_queue(folder, **domains):
    """A gateway whose next hop is dead and whose queue has a message for each name."""
    g = Gateway(folder, shards=2)
    g.config["send_connectors"] = [smart_host("out", nowhere())]
    g.config["retry"]["intervals"] = ["1h"]
    g.start()
    for name, domain in domains.items():
        send(g, f"{name}@{domain}", sender=f"{name}@sender.test")
    until(lambda: len(g.queue("status=deferred")) == len(domains), "all wait", 20)
    return g


# ---- reload -------------------------------------------------------------------------------------


@case("E26 reload by SIGHUP and by /api: a good one is taken, a bad one keeps the old and says why")
def reload(folder):
    one, two = Sink(folder, name="one"), Sink(folder, name="two")
    g = Gateway(folder, one).start()
    with smtplib.SMTP(g.host, g.port["relay"], timeout=60) as session:  # lives through it all
        session.sendmail("a@sender.test", ["b1@x.test"], TEXT)
        one.wait(1)
        g.config["send_connectors"] = [smart_host("out", two.smart_host)]
        g.write_config()
        generation = g.status()["config_generation"]
        g.hangup()
        until(lambda: g.status()["config_generation"] > generation, "the new configuration")
        session.sendmail("a@sender.test", ["b2@x.test"], TEXT)
        two.wait(1)
        for change in ("frob: 1\n", "retry: {intervals: [never]}\n"):
            with open(g.config_path, "a", encoding="utf-8") as file:
                file.write(change)
            answer = g.ask_reload()
            expect(400 <= answer.status < 500, answer.status, answer.body)
            expect_match(re.escape(g.config_path) + r":\d+:\d+: ", answer.json["error"])
            g.write_config()
        with open(g.config_path, "w", encoding="utf-8") as file:
            file.write("nonsense: [\n")
        failed = len(g.log("reload-failed"))
        g.hangup()
        until(lambda: len(g.log("reload-failed")) > failed, "the failure in the log")
        until(lambda: ":" in g.status().get("last_reload_error", ""), "and in the status")
        session.sendmail("a@sender.test", ["b3@x.test"], TEXT)
        two.wait(2)
        g.config["log"]["level"] = "info"
        expect_equal(g.reload().status, 200)
        expect("last_reload_error" not in g.status(), "forgotten after a good one")
    g.stop()


@case("a changed certificate and users file are used after a reload")
def reload_files(folder):
    g = Gateway(folder, Sink(folder)).start()

    def may_log_in(user, password):
        with smtplib.SMTP_SSL(g.host, g.port["submissions"], timeout=60) as client:
            try:
                client.login(user, password)
            except smtplib.SMTPAuthenticationError:
                return False
            return True
    expect(may_log_in("alice", "wonder land"), "alice may")
    with open(g.path("users"), encoding="utf-8") as file:
        lines = file.read().split("\n")
    with open(g.path("users"), "w", encoding="utf-8") as file:
        file.write("\n".join(x for x in lines if not x.startswith("alice:")))
    expect_equal(g.reload().status, 200)
    until(lambda: not may_log_in("alice", "wonder land"), "alice is gone, also from the cache", 5)
    expect(may_log_in("bob", "b:uilder"), "bob may")
    g.stop()


@case("E27 mail without a route waits, and is routed again after a reload")
def unreachable(folder):
    sink = Sink(folder)
    g = Gateway(folder)
    g.config["send_connectors"] = [smart_host("other", sink.smart_host, space="other.test")]
    g.start()
    send(g, "b@x.test")
    until(lambda: g.queue("status=unreachable"), "it is unreachable")
    stays(lambda: not sink.records(), 0.5, "nothing leaves")
    g.config["send_connectors"].append(smart_host("out", sink.smart_host))
    expect_equal(g.reload().status, 200)
    sink.wait(1)
    g.wait_empty()
    g.stop()


@case("unreachable and deferred mail survives a restart")
def restart(folder):
    sink = Sink(folder)
    g = with_queue(folder, one="x.test", two="y.test")
    g.change("hold", filter="sender=two@sender.test")
    g.stop()
    g.config["send_connectors"] = [smart_host("out", sink.smart_host)]
    g.config["retry"]["intervals"] = ["1s"]
    g.start()
    until(lambda: len(g.log("recovered")) == 2, "recovery")
    expect_equal([m["status"] for m in g.queue("sender=two@sender.test")], ["held"])
    g.change("retry", filter="sender=one@sender.test")
    expect_equal(sink.wait(1)[0]["rcpts"], ["one@x.test"])
    g.change("release", filter="status=held")
    sink.wait(2)
    g.wait_empty()
    g.stop()


# ---- stopping -----------------------------------------------------------------------------------


@case("F66 SIGTERM under load: nothing is lost, nothing is doubled, then 421", 90)
def stop_under_load(folder):
    sink = Sink(folder, maildir=False)
    g = Gateway(folder, sink)
    g.config["log"]["level"] = "info"
    acked = [os.path.join(folder, f"acked{i}") for i in range(3)]

    def read(path):
        try:
            with open(path, encoding="ascii") as file:
                return file.read().split("\n")[:-1]
        except FileNotFoundError:
            return []
    for i, path in enumerate(acked):
        g.start()
        log = os.path.join(folder, f"load{i}")
        load = Program([program("hikyaku-bench"), "load", "--to", f"{g.host}:{g.port['relay']}",
                        "--sessions", "20", "--messages-per-session", "7", "--seconds", "600",
                        "--keep-going", "--record", path, "--run-id", f"s{i}"], log)
        until(lambda p=path: len(read(p)) >= 50, "some mail went in")
        g.stop()
        load.kill()
    g.start()
    g.wait_empty()
    g.stop()
    wanted = sum(map(read, acked), [])
    got = [r["id"] for r in sink.records()]
    expect(len(wanted) > 100, "messages", len(wanted))
    expect(not set(wanted) - set(got), "lost:", len(set(wanted) - set(got)))
    expect_equal(len(got), len(set(got)), "no duplicates")


@case("an idle session hears 421 4.3.2 at the stop, one in the text may end it")
def stop_sessions(folder):
    g = Gateway(folder, Sink(folder)).start()
    idle = smtplib.SMTP(g.host, g.port["relay"], timeout=60)
    idle.ehlo()
    busy = smtplib.SMTP(g.host, g.port["relay"], timeout=60)
    busy.ehlo()
    busy.mail("a@sender.test")
    busy.rcpt("b@x.test")
    expect_equal(busy.docmd("DATA")[0], 354)
    g.process.signal(15)
    expect_equal(idle.getreply(), (421, b"4.3.2 Service is shutting down"))
    until(lambda: g.get("/readyz").status == 503, "not ready any more")
    busy.send(b"Subject: late\r\n\r\nlate\r\n.\r\n")
    expect_equal(busy.getreply()[0], 250)
    expect_equal(g.process.wait(40), 0, "exit status")
    idle.close()
    busy.close()
    g.start()
    g.wait_empty()
    g.stop()


@case("/api/v1/drain stops as SIGTERM does")
def drain(folder):
    g = Gateway(folder, Sink(folder)).start()
    expect_equal(g.post("/api/v1/drain").status, 200)
    expect_equal(g.process.wait(30), 0, "exit status")


# ---- the queue ----------------------------------------------------------------------------------


@case("E28 queue list, show, filters; hold, release, retry, remove, bounce by id and by filter", 80)
def queue(folder):
    home = Sink(folder, name="home")
    g = with_queue(folder, one="x.test", two="x.test", three="y.test", four="y.test")
    rows = {m["sender"].partition("@")[0]: m for m in g.queue()}
    expect_equal(sorted(rows), ["four", "one", "three", "two"])
    one = rows["one"]
    expect_equal((one["status"], one["connector"], one["recipients"][0]["address"]),
                 ("deferred", "out", "one@x.test"))
    shown = g.get(f"/api/v1/queue/{one['qid']}").json
    expect_equal(shown["qid"], one["qid"])
    expect_equal([r["sender"] for r in rows.values() if "refused" not in r["last_error"]], [],
                 "without their last error")
    expect_match("refused", shown["last_error"], "last error")
    for text, wanted in (("recipient~*@x.test", "one two"), ("domain=y.test", "four three"),
                         ("sender=one@sender.test", "one"), ("size<1MiB", "four one three two"),
                         ("age>1h", ""), ("retries>=1 and domain=x.test", "one two"),
                         ("last_error=frob", ""),
                         ("last_error~*refused*", "four one three two"),
                         ("source_ip=127.0.0.1", "four one three two"),
                         (f"qid={one['qid']}", "one"), ("sender!=one@sender.test",
                                                        "four three two"),
                         ("connector=out and status=deferred", "four one three two"),
                         ("status=held", "")):
        got = " ".join(sorted(m["sender"].partition("@")[0] for m in g.queue(text)))
        expect_equal(got, wanted, text)
    expect_equal(g.get("/api/v1/queue", filter="frob=1").status, 400)
    expect_equal(g.get("/api/v1/queue", filter="age>soon").status, 400)
    expect_equal(g.get("/api/v1/queue/0000000000000").status // 100, 4)
    expect_equal(g.get("/api/v1/progress").json, {"items": []})
    expect_match("nothing is under way", g.ctl("queue", "progress").stdout)
    answer = g.get("/api/v1/queue", limit=1).json
    expect_equal((answer["matched"], len(answer["items"]) >= 1), (4, True))

    expect_equal(g.change("hold", qid=one["qid"]), 1)
    expect_equal(g.queue("status=held")[0]["qid"], one["qid"])
    expect_equal(g.change("release", filter="status=held"), 1)
    expect_equal(g.queue("status=held"), [])
    expect_equal(g.change("remove", qid=rows["two"]["qid"]), 1)
    until(lambda: len(g.queue()) == 3, "two is gone")
    g.config["send_connectors"].append(smart_host("home", home.smart_host, space="sender.test"))
    g.config["send_connectors"][0] = smart_host("out", home.smart_host)
    expect_equal(g.reload().status, 200)
    expect_equal(g.change("bounce", qid=rows["three"]["qid"]), 1)
    report = until(lambda: [r for r in home.records() if r["rcpts"] == ["three@sender.test"]],
                   "the report about three")
    expect_equal(report[0]["from"], "")
    g.change("retry", filter="domain=x.test")
    g.change("retry", filter="domain=y.test")
    until(lambda: {"one@x.test", "four@y.test"} <= {r["rcpts"][0] for r in home.records()},
          "one and four arrive")
    g.wait_empty()
    senders = [r["from"] for r in home.records()]
    expect(not {"two@sender.test", "three@sender.test"} & set(senders), "removed, bounced", senders)
    until(lambda: {x["action"] for x in g.tracking("operator")} ==
          {"bounce", "hold", "release", "remove", "retry"}, "all actions in the tracking log")
    g.stop()


@case("E28 the subject is shown and filtered by, and stands in no log")
def subject(folder):
    g = Gateway(folder)
    g.config["send_connectors"] = [smart_host("out", nowhere())]
    g.config["retry"]["intervals"] = ["1h"]
    g.start()
    send(g, "b@x.test", text=b"From: a@x.test\r\nSubject: Quarterly \r\n  secret figures\r\n"
                             b"\r\nx\r\n")
    send(g, "c@x.test", text=b"Subject: =?UTF-8?Q?caf=C3=A9?=\r\n\r\nx\r\n")
    until(lambda: len(g.queue("status=deferred")) == 2, "both wait", 20)
    for _ in range(2):  # from memory, then from the spool
        until(lambda: len(g.queue()) == 2, "recovery")
        rows = g.queue("subject~*FIGURES*")
        expect_equal([m["recipients"][0]["address"] for m in rows], ["b@x.test"])
        expect_equal(rows[0]["subject"], "Quarterly   secret figures")
        expect_equal(len(g.queue('subject="=?utf-8?q?caf=c3=a9?="')), 1)
        expect_match("subject +Quarterly", g.ctl("queue", "show", rows[0]["qid"]).stdout)
        g.restart()
    for path in (g.log_path, g.tracking_path):
        with open(path, encoding="utf-8") as file:
            expect("ecret" not in file.read(), path)
    g.stop()


@case("hikyakuctl says the same, as text and as JSON; exit status 1 and 2")
def ctl(folder):
    g = with_queue(folder, one="x.test", two="y.test")
    qid = g.queue("domain=x.test")[0]["qid"]
    listed = g.ctl("queue", "list").stdout
    expect(qid in listed and "one@" in listed, listed)
    items = json.loads(g.ctl("--json", "queue", "list", "--filter", "domain=x.test").stdout)
    expect_equal([m["qid"] for m in items["items"]], [qid])
    expect_equal(json.loads(g.ctl("--json", "queue", "show", qid).stdout)["qid"], qid)
    expect_match("refused", g.ctl("queue", "sites").stdout)
    expect_match("running", g.ctl("status").stdout)
    g.ctl("queue", "hold", qid)
    expect_equal(len(g.queue("status=held")), 1)
    g.ctl("queue", "remove", "--filter", "domain=y.test")
    until(lambda: len(g.queue()) == 1, "one is left")
    g.ctl("queue", "show", "0000000000000", status=1)
    for words in (["frob"], ["queue"], ["queue", "hold"], []):
        done = g.ctl(*words, status=2)
        expect_equal(done.stderr.count("\n"), 1, f"{words}: {done.stderr}")
    expect_match("out", g.ctl("route", "explain", "a@x.test").stdout)
    g.ctl("reload")
    g.stop()
    done = g.ctl("status", status=1)
    expect_equal(done.stderr.count("\n"), 1, done.stderr)


@case("E35 route explain: each step, and why the others lost")
def route(folder):
    g = Gateway(folder)
    g.config["send_connectors"] = [
        smart_host("any", nowhere(), cost=10), smart_host("exact", nowhere(), space="sub.x.test"),
        smart_host("below", nowhere(), space="*.x.test"),
        smart_host("off", nowhere(), space="sub.x.test", enabled=False),
        smart_host("small", nowhere(), space="y.test", max_message_size="1KiB"),
        smart_host("scoped", nowhere(), space="z.test", receive_connectors=["submission"])]
    g.start()
    for address, query, wanted in (
            ("a@sub.x.test", {}, "exact"), ("a@x.test", {}, "below"), ("a@d.e.x.test", {}, "below"),
            ("a@other.test", {}, "any"), ("a@y.test", {"size": 100}, "small"),
            ("a@y.test", {"size": 5000}, "any"),
            ("a@z.test", {"receive_connector": "submission"}, "scoped"),
            ("a@z.test", {"receive_connector": "relay"}, "any")):
        answer = g.get("/api/v1/route", address=address, **query).json
        expect_equal((answer["verdict"], answer["connector"]), ("found", wanted), address)
        named = {s["connector"] for s in answer["steps"]}
        expect({c["name"] for c in g.config["send_connectors"]} <= named, "every step:", answer)
    expect_equal(g.get("/api/v1/route", address="none").status, 400)
    g.stop()


# ---- numbers, doors -----------------------------------------------------------------------------


@case("/metrics: text that Prometheus reads, names and types, counts that agree")
def metrics(folder):
    sink = Sink(folder)
    g = Gateway(folder, sink).start()
    for i in range(5):
        send(g, f"b{i}@x.test", f"c{i}@x.test")
    sink.wait(5)
    g.wait_empty()
    # Counters are added up about once a second.
    names = ("messages_accepted_total", "recipients_accepted_total", "recipients_delivered_total",
             "queue_messages")
    until(lambda: tuple(g.metrics()[f"hikyaku_{n}"] for n in names) == (5, 10, 10, 0),
          "counts that agree")
    text = g.request("GET", "/metrics", token=False).body
    types, helps, last = {}, set(), ""
    for line in text.rstrip("\n").split("\n"):
        if line.startswith("# HELP "):
            last = line.split(" ")[2]
            expect(last not in helps, "HELP twice:", last)
            helps.add(last)
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            expect_equal(name, last, "TYPE follows its HELP")
            expect(kind in ("counter", "gauge", "histogram"), line)
            types[name] = kind
        else:
            found = expect_match(r'^([a-z_][a-z0-9_]*)(\{[a-z_]+="[^"]*"(,[a-z_]+="[^"]*")*\})? '
                                 r"([0-9.eE+-]+|NaN|\+Inf)$", line, "sample")
            name = re.sub(r"_(bucket|sum|count)$", "", found[1]) \
                if found[1] not in types else found[1]
            expect(name in types, "a sample without TYPE:", line)
            expect(name.startswith("hikyaku_"), name)
            expect(name.endswith("_total") == (types[name] == "counter"), "_total:", name)
    g.stop()


@case("/api asks for the token on TCP and none on the socket; /metrics and /healthz for none")
def doors(folder):
    g = Gateway(folder, Sink(folder)).start()
    for token in (False, "wrong", g.token + "x", g.token[:-1]):
        for method, path in (("GET", "/api/v1/status"), ("GET", "/api/v1/queue"),
                             ("POST", "/api/v1/reload"), ("POST", "/api/v1/drain")):
            expect_equal(g.request(method, path, token=token).status, 401, f"{token} {path}")
    for path in ("/metrics", "/healthz", "/readyz"):
        expect_equal(g.request("GET", path, token=False).status, 200, path)
    expect_equal(g.request("GET", "/api/v1/status", unix=True).json["state"], "running")
    mode = os.stat(g.socket).st_mode & 0o777
    expect(mode & 0o007 == 0, "others may not use the socket", oct(mode))
    expect_equal(g.get("/nowhere").status, 404)
    expect_equal(g.post("/api/v1/status").status, 405)
    g.config["admin"].pop("token_file")
    g.stop()
    g.start()
    expect_equal(g.request("GET", "/api/v1/status").status, 401, "no token configured: closed")
    g.stop()


@case("F69 a log that nobody reads never blocks mail")
def blocked_log(folder):
    sink = Sink(folder, maildir=False)
    g = Gateway(folder, sink)
    g.write_config()
    reader, writer = os.pipe()
    process = subprocess.Popen([program("hikyaku"), "--config", g.config_path], stderr=writer,
                               stdin=subprocess.DEVNULL)
    os.close(writer)
    try:
        until(g.ready, "ready", 20)
        done = harness.run([program("hikyaku-bench"), "load", "--to",
                            f"{g.host}:{g.port['relay']}", "--sessions", "4", "--messages", "1500",
                            "--json"], seconds=40)
        expect_equal(json.loads(done.stdout)["acked"], 1500)
        until(lambda: len(sink.records()) == 1500, "all arrive", 20)
    finally:
        threading.Thread(target=lambda: [None for _ in iter(lambda: os.read(reader, 65536), b"")],
                         daemon=True).start()
        process.terminate()
        try:
            expect_equal(process.wait(harness.patient(30)), 0, "exit status")
        except subprocess.TimeoutExpired:
            process.kill()
            raise


if __name__ == "__main__":
    main("operate", beside=3)
