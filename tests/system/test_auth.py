#!/usr/bin/env python3
# time-limit: 90
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
from lib.harness import case, expect, expect_equal, main, program, run

CONTEXT = ssl.create_default_context(cafile=certs.authority())
CONTEXT.check_hostname = False
PASSWORDS = {"alice": "wonder land", "bob": "b:uilder", "carol": "sing"}
FREE = 10  # failures before attempts have turns


def login(g, name, password, source=None, seconds=60):
    """(reply code of AUTH, seconds it took)."""
    with smtplib.SMTP(g.host, g.port["submission"], timeout=seconds,
                      source_address=(source, 0) if source else None) as client:
        client.starttls(context=CONTEXT)
        client.ehlo()
        start = time.monotonic()
        try:
            client.user, client.password = name, password
            code = client.auth("PLAIN", client.auth_plain)[0]
        except smtplib.SMTPAuthenticationError as error:
            code = error.smtp_code
        except smtplib.SMTPServerDisconnected as error:
            code = 0 if "timed out" in str(error) else 421
        return code, time.monotonic() - start


def at_once(count, what):
    """Runs what(i) in threads that begin together; the results."""
    barrier, results = threading.Barrier(count), [None] * count

    def one(i):
        barrier.wait()
        results[i] = what(i)
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
    code, seconds = login(g, "carol", PASSWORDS["carol"], there)
    expect(code == 235 and seconds < 1, "a customer behind the same address", code, seconds)
    code, seconds = login(g, "alice", PASSWORDS["alice"], there)
    expect_equal(code, 235, "one who never logged in from there has a turn too")
    code, seconds = login(g, "bob", PASSWORDS["bob"], elsewhere)
    expect(code == 235 and seconds < 1, "another address", code, seconds)
    flood = at_once(60, lambda i: login(g, "carol", PASSWORDS["carol"], there) if i == 59 else
                    login(g, f"flood{i}", "guess", there, seconds=4))
    refused = [seconds for code, seconds in flood if code == 421]
    expect(len(refused) >= 20, "too many wait: 421", len(refused))
    expect(g.metrics()["hikyaku_auth_limited_total"] >= 20, "counted")
    code, seconds = flood[59]
    expect(code == 235 and seconds < 2, "a customer in the flood", code, seconds)
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
        client = smtplib.SMTP(g.host, g.port["submission"], timeout=30)
        client.starttls(context=CONTEXT)
        client.ehlo()
        clients.append(client)
    codes = at_once(count, lambda i: clients[i].login("dave", "costly one")[0])
    expect_equal(set(codes), {235})
    metrics = g.metrics()
    shared = metrics["hikyaku_auth_merged_total"]
    expect(shared >= 1, "some waited for the check of another", shared)
    checked = count - shared - metrics["hikyaku_auth_cached_total"]
    expect_equal(checked, 1, "checks")
    for client in clients:
        client.quit()
    wrong = at_once(2, lambda i: login(g, "dave", "costly too"))
    expect_equal({code for code, _ in wrong}, {535}, "a wrong one is wrong for all")
    g.stop()


if __name__ == "__main__":
    main("auth")
