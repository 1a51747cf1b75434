#!/usr/bin/env python3
# time-limit: 90
# builds: asan
"""Logging in under attack: guesses are counted over sessions and slowed down, customers behind the
same address are not; equal passwords that come at once cost one check."""
import os
import smtplib
import ssl
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import certs
from lib.gateway import Gateway, users_file
from lib.harness import case, expect, expect_equal, main, program, run, until

CONTEXT = ssl.create_default_context(cafile=certs.authority())
CONTEXT.check_hostname = False
PASSWORDS = {"alice": "wonder land", "bob": "b:uilder", "carol": "sing"}
FREE = 10  # failures before attempts have turns


def login(g, name, password, source=None, seconds=120):
    """(reply code of AUTH, seconds it took); code 0: none within so many seconds."""
    with smtplib.SMTP(g.host, g.port["submission"], timeout=120,
                      source_address=(source, 0) if source else None) as client:
        client.starttls(context=CONTEXT)
        client.ehlo()
        client.sock.settimeout(seconds)
        start = time.monotonic()
        try:
            client.user, client.password = name, password
            code = client.auth("PLAIN", client.auth_plain)[0]
        except smtplib.SMTPAuthenticationError as error:
            code = error.smtp_code
        except smtplib.SMTPServerDisconnected as error:
            code = 0 if "timed out" in str(error) else 421
        return code, time.monotonic() - start


def at_most(limit_s, g, name, source, what):
    """A login that nobody delays: on a busy machine one of a few is quick. Who is delayed is so
    each time."""
    tried = []
    while len(tried) < 5 and (not tried or tried[-1][1] >= limit_s):
        tried.append(login(g, name, PASSWORDS[name], source))
        expect_equal(tried[-1][0], 235, what)
    expect(tried[-1][1] < limit_s, what, tried)


def at_once(count, what):
    """Runs what(i) in threads that begin together; the results."""
    barrier, results = threading.Barrier(count), [None] * count

    def one(i):
        barrier.wait()
        try:
            results[i] = what(i)
        except AssertionError as error:
            print("#", error, flush=True)
            results[i] = "failed"
    threads = [threading.Thread(target=one, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@case("F46 guesses over many sessions are slowed down; who is known there is not")
def guesses(folder):
    g = Gateway(folder, shards=1)
    users_file(g.path("users"), PASSWORDS)
    g.start()
    there, elsewhere = "127.66.0.1", "127.66.0.2"
    expect_equal(login(g, "carol", PASSWORDS["carol"], there)[0], 235)
    failed = at_once(FREE, lambda i: login(g, f"user{i}", "guess", there))
    expect_equal({code for code, _ in failed}, {535})
    expect(max(seconds for _, seconds in failed) > 3.5, "answers come later and later", failed)
    failed = at_once(3, lambda i: login(g, f"other{i}", "guess", there))
    waits = sorted(seconds for _, seconds in failed)
    expect(waits[2] > waits[0] + 1, "turns, one after another", waits)
    at_most(1, g, "carol", there, "a customer behind the same address")
    code, _ = login(g, "alice", PASSWORDS["alice"], there)
    expect_equal(code, 235, "one who never logged in from there has a turn too")
    at_most(1, g, "bob", elsewhere, "another address")
    flood = at_once(60, lambda i: at_most(2, g, "carol", there, "a customer in the flood")
                    if i == 59 else login(g, f"flood{i}", "guess", there, seconds=4))
    expect(flood[59] != "failed", "a customer in the flood")
    refused = [code for code, _ in flood[:59] if code == 421]
    expect(len(refused) >= 20, "too many wait: 421", len(refused))
    g.wait_metric("auth_limited_total", 20)
    g.kill()  # answers held back would make a stop wait for them


@case("many sessions of one account with the same password cost one check")
def equal_passwords(folder):
    g = Gateway(folder, shards=1)
    done = run([program("hikyakuctl"), "hash-password"], input="costly one\n")
    with open(g.path("users"), "a", encoding="utf-8") as file:
        file.write(f"dave:{done.stdout.strip()}\n")
    g.start()
    count = 40
    clients = []
    for _ in range(count):
        client = smtplib.SMTP(g.host, g.port["submission"], timeout=120)
        client.starttls(context=CONTEXT)
        client.ehlo()
        clients.append(client)
    codes = at_once(count, lambda i: clients[i].login("dave", "costly one")[0])
    expect_equal(set(codes), {235})
    shared = g.wait_metric("auth_merged_total")["hikyaku_auth_merged_total"]
    expect(shared >= 1, "some waited for the check of another", shared)
    until(lambda: (m := g.metrics())["hikyaku_auth_merged_total"] +
          m["hikyaku_auth_cached_total"] >= count - 1, "all but one cost no check")
    expect_equal(sum(g.metrics()[f"hikyaku_auth_{kind}_total"] for kind in ("merged", "cached")),
                 count - 1, "and one did")
    for client in clients:
        client.quit()
    wrong = at_once(2, lambda i: login(g, "dave", "costly too"))
    expect_equal({code for code, _ in wrong}, {535}, "a wrong one is wrong for all")
    g.stop()


if __name__ == "__main__":
    main("auth", beside=2)
