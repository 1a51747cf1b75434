#!/usr/bin/env python3
# time-limit: 90
# builds: asan
"""What an operator takes out, or looks up beforehand: a message's bytes, what a reload changes."""
import copy
import json
import os
import smtplib
import subprocess
import xml.etree.ElementTree

from lib import harness
from lib.gateway import Gateway, smart_host
from lib.harness import case, expect, expect_equal, expect_match, main, program, until


def dead():
    return f"[{harness.address()}]:{harness.free_port()}"


@case("queue export gives the message as a next hop would get it, small and large, also when held")
def export(folder):
    g = Gateway(folder)
    g.config["send_connectors"] = [smart_host("out", dead())]
    g.config["retry"]["intervals"] = ["1h"]
    g.start()
    small = b"Subject: dots\r\n\r\n.one\r\n..\r\n\xff\r\n"
    large = b"Subject: large\r\n\r\n" + b"".join(
        os.urandom(35).hex().encode() + b"\r\n" for _ in range(40000))
    for text in (small, large):
        with smtplib.SMTP(g.host, g.port["relay"], timeout=60) as client:
            client.sendmail("a@sender.test", ["b@x.test"], text)
    until(lambda: len(g.queue("status=deferred")) == 2, "both wait", 30)
    for row in g.queue():
        if row["subject"] == "dots":
            g.ctl("queue", "hold", row["qid"])
        done = subprocess.run([program("hikyakuctl"), "--socket", g.socket, "queue", "export",
                               row["qid"]], check=True, capture_output=True, timeout=30)
        head, sent = done.stdout.split(b"Subject: ", 1)
        expect_match(rb"^Received: from ", head)
        expect_equal(len(done.stdout), row["size"], "size")
        expect(b"Subject: " + sent == (small if row["subject"] == "dots" else large), "bytes")
    g.ctl("queue", "export", "0000000000000", status=1)
    g.ctl("queue", "export", status=2)
    g.ctl("queue", "remove", "--filter", "age>=0s")
    g.wait_empty()
    g.stop()


@case("config diff names each key that a reload would change, and no value")
def diff(folder):
    g = Gateway(folder)
    g.config["send_connectors"] = [smart_host("out", dead()), smart_host("old", dead(), cost=5)]
    g.config["users"]["file"] = "users"  # beside the file, both behind a link
    os.symlink(g.dir, g.path("link"))
    g.config_path = os.path.relpath(g.path("link", "hikyaku.yaml"))
    g.start()
    expect_equal(g.ctl("config", "diff", g.config_path).stdout, "no difference\n")
    g.config["users"]["file"] = g.path("users")
    expect_equal(g.ctl("config", "diff", g.path("link", "hikyaku.yaml")).stdout,
                 "changed  users.file\n")
    g.write_config()
    g.ctl("reload")
    path = g.path("next.yaml")

    def changes(config):
        with open(path, "w", encoding="utf-8") as file:
            json.dump(config, file)
        answer = json.loads(g.ctl("--json", "config", "diff", path).stdout)
        return {c["key"]: (c["change"], c["restart"]) for c in answer["changes"]}
    expect_equal(changes(g.config), {})
    expect_equal(g.ctl("config", "diff", path).stdout, "no difference\n")
    config = copy.deepcopy(g.config)
    config["retry"]["expire"] = "3d"
    config["shards"] = 3
    config["send_connectors"] = [smart_host("out", dead(), max_connections=7),
                                 smart_host("new", dead(), cost=5)]
    config["accepted_domains"].append({"domain": "more.test"})
    config["receive_connectors"][0]["max_recipients"] = 7
    expect_equal(changes(config), {
        "retry.expire": ("changed", False), "shards": ("changed", True),
        "send_connectors[out].max_connections": ("changed", False),
        "send_connectors[out].smart_hosts": ("changed", False),
        "send_connectors[old]": ("removed", False), "send_connectors[new]": ("added", False),
        "accepted_domains[more.test]": ("added", False),
        "receive_connectors[submission].max_recipients": ("changed", False)})
    expect_match("changed +shards +.needs a restart", g.ctl("config", "diff", path).stdout)
    with open(path, "a", encoding="utf-8") as file:
        file.write("frob: [")
    expect_match(r"next.yaml:\d+:\d+: ", g.ctl("config", "diff", path, status=1).stderr)
    g.ctl("config", "diff", g.path("none"), status=1)
    g.ctl("config", "frob", status=2)
    g.stop()


@case("E5 what users enter: host, port, encryption, SRV records, autoconfig without a token")
def client_settings(folder):
    g = Gateway(folder).start()
    text = g.ctl("connector", "list", "--client-settings").stdout
    port, secure = g.port["submission"], g.port["submissions"]
    expect_match(rf"gw.test +{port} +starttls\n", text)
    expect_match(rf"gw.test +{secure} +tls\n", text)
    expect(str(g.port["relay"]) not in text, "servers' port is not for users")
    expect_match(rf"_submission._tcp.local.test. IN SRV 0 1 {port} gw.test.\n", text)
    expect_match(rf"_submissions._tcp.local.test. IN SRV 0 1 {secure} gw.test.\n", text)
    answer = g.request("GET", "/.well-known/autoconfig/mail/config-v1.1.xml", token=False)
    expect_equal(answer.status, 200)
    root = xml.etree.ElementTree.fromstring(answer.body)
    expect_equal([d.text for d in root.iter("domain")], ["local.test"])
    expect_equal([(s.findtext("port"), s.findtext("socketType"))
                  for s in root.iter("outgoingServer")],
                 [(str(port), "STARTTLS"), (str(secure), "SSL")])
    g.stop()


if __name__ == "__main__":
    main("export", beside=3)
