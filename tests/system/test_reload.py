#!/usr/bin/env python3
# time-limit: 120
"""A reload is over when it says so: on every shard, for users, addresses and files."""
import base64
import smtplib
import socket

from lib.gateway import PASSWORDS, Gateway, users_file
from lib.harness import case, expect, expect_equal, main
from lib.sink import Sink


def may_log_in(g, user):
    words = base64.b64encode(f"\0{user}\0{PASSWORDS[user]}".encode()).decode()
    with smtplib.SMTP_SSL(g.host, g.port["submissions"], timeout=20) as client:
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
        with socket.create_connection((g.host, port), timeout=20) as s:
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


if __name__ == "__main__":
    main("reload")
