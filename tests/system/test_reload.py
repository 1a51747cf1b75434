#!/usr/bin/env python3
# time-limit: 120
# builds: asan
"""A reload is over when it says so: on every shard, for users, addresses and files."""
import base64
import os
import shutil
import smtplib
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

from lib.gateway import PASSWORDS, Gateway, users_file
from lib.harness import case, expect, expect_equal, expect_match, main, stays, until
from lib.sink import Sink


def may_log_in(g, user):
    words = base64.b64encode(f"\0{user}\0{PASSWORDS[user]}".encode()).decode()
    with smtplib.SMTP_SSL(g.host, g.port["submissions"], timeout=60) as client:
        client.ehlo()
        return client.docmd("AUTH", f"PLAIN {words}")[0] == 235


@case("E26 a login right behind the answer to a reload uses the new users, on every shard", 90)
def users(folder):
    g = Gateway(folder, Sink(folder), shards=4).start()
    for turn in range(8):
        known = {k: v for k, v in PASSWORDS.items() if k != "alice" or turn % 2}
        users_file(g.path("users"), known)
        expect_equal(g.reload().status, 200)
        expect_equal(may_log_in(g, "alice"), turn % 2 == 1, f"turn {turn}")
    g.stop()


def greeting(g, port):
    try:
        with socket.create_connection((g.host, port), timeout=60) as s:
            return s.recv(100)[:3] == b"220"
    except ConnectionRefusedError:
        return False


@case("an address that a reload drops is closed when it answers, and bound again by the next")
def address(folder):
    g = Gateway(folder, Sink(folder), shards=4).start()
    extra = dict(g.receive("relay"))
    for turn in range(20):
        wanted = turn % 2 == 1
        g.config["receive_connectors"] = [
            c for c in g.config["receive_connectors"] if c["name"] != "relay"] + [extra] * wanted
        expect_equal(g.reload().status, 200)
        for _ in range(8):  # the kernel deals them out to the shards
            expect_equal(greeting(g, g.port["relay"]), wanted, f"turn {turn}")
    expect(g.process.alive(), "alive")
    g.stop()


@case("an address that a reload keeps greets everybody, whatever comes and goes beside it", 90)
def kept(folder):
    g = Gateway(folder, Sink(folder), shards=4).start()
    extra = dict(g.receive("relay"))
    over, answers = threading.Event(), []

    def client():
        while not over.is_set():
            answers.append(greeting(g, g.port["submission"]))

    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(client) for _ in range(4)]
        try:
            for turn in range(20):
                known = len(answers)
                g.config["receive_connectors"] = [
                    c for c in g.config["receive_connectors"] if c["name"] != "relay"]
                if turn % 2:
                    g.config["receive_connectors"].append(extra)
                g.receive("submission")["fqdn"] = f"turn{turn}.example"
                expect_equal(g.reload().status, 200)
                until(lambda seen=known: len(answers) >= seen + 8 or any(
                    c.done() for c in clients), "connections")
        finally:
            over.set()
        for c in clients:
            c.result()
    expect(all(answers), f"{answers.count(False)} of {len(answers)} were refused")
    g.stop()


def config_map(g, turn):
    """The file as Kubernetes shows it: hikyaku.yaml -> ..data/hikyaku.yaml, ..data -> ..TURN."""
    folder = g.path("map")
    real = os.path.join(folder, f"..{turn}")
    os.makedirs(real)
    for name in ("hikyaku.yaml", "users"):
        shutil.copy(g.path(name + ".new"), os.path.join(real, name))
    os.symlink(f"..{turn}", os.path.join(folder, "..data_tmp"))
    os.rename(os.path.join(folder, "..data_tmp"), os.path.join(folder, "..data"))
    if turn:
        shutil.rmtree(os.path.join(folder, f"..{turn - 1}"))
    else:
        for name in ("hikyaku.yaml", "users"):
            os.symlink(f"..data/{name}", os.path.join(folder, name))


@case("reload: {watch: true} takes a ConfigMap's swap; a bad file changes nothing and is told", 60)
def watched(folder):
    g = Gateway(folder, Sink(folder))
    g.config["reload"] = {"watch": True}
    g.config["users"]["file"] = "users"
    g.config_path = g.path("hikyaku.yaml.new")
    g.write_config()
    users_file(g.path("users.new"))
    config_map(g, 0)
    g.write_config = lambda: None
    g.config_path = g.path("map", "hikyaku.yaml")
    g.start()
    expect(may_log_in(g, "alice"), "alice")
    users_file(g.path("users.new"), {"bob": PASSWORDS["bob"]})
    config_map(g, 1)
    until(lambda: g.status()["config_generation"] == 2, "the users of the new map", 10)
    expect(not may_log_in(g, "alice") and may_log_in(g, "bob"), "bob only")

    with open(g.path("hikyaku.yaml.new"), encoding="utf-8") as file:
        good = file.read()
    with open(g.path("hikyaku.yaml.new"), "w", encoding="utf-8") as file:
        file.write('{"frob": 1, ' + good[1:])
    config_map(g, 2)
    error = until(lambda: g.status().get("last_reload_error"), "the refusal", 10)
    expect_match(r"map/hikyaku.yaml:1:2: ", error)
    g.wait_metrics(config_last_reload_successful=0)
    expect(may_log_in(g, "bob"), "as before")
    until(lambda: g.log("reload-failed"), "the failure in the log")
    stays(lambda: len(g.log("reload-failed")) == 1, 1, "one try for one change")
    with open(g.path("hikyaku.yaml.new"), "w", encoding="utf-8") as file:
        file.write(good)
    config_map(g, 3)
    until(lambda: "last_reload_error" not in g.status(), "the good one", 10)
    g.wait_metrics(config_last_reload_successful=1)

    generation = g.status()["config_generation"]
    with open(g.path("map", "users"), "a", encoding="utf-8") as file:  # an editor's way
        file.write("# more\n")
    until(lambda: g.status()["config_generation"] > generation, "a file written in place", 10)
    os.utime(g.path("map"))
    generation = g.status()["config_generation"]
    with open(g.path("map", "other"), "w", encoding="utf-8") as file:
        file.write("x")
    stays(lambda: g.status()["config_generation"] == generation, 1, "other files are none of ours")
    g.stop()


if __name__ == "__main__":
    main("reload", beside=3)
