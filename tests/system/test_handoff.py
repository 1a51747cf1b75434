#!/usr/bin/env python3
# time-limit: 240
"""A gateway that stops gives its queue to its peers (docs/handoff.md): everything that is known of
a message goes along, and whoever is killed, each message has one owner."""
import base64
import smtplib
import ssl
import struct
import time

from lib.handoff import PASSWORD, Hosts, spool_is_empty
from lib.harness import case, expect, expect_equal, expect_match, main, until


def drain(g):
    g.process.signal(15)


@case("2,000 messages to two peers; the source is killed twice, a peer once: the books balance",
      180)
def killed(folder):
    h = Hosts(folder)
    h.start()
    h.fill(2000)
    drain(h.source)
    until(lambda: h.taken() >= 300, "the first are taken", 60, 0.01)
    h.source.kill()
    before = h.held()
    expect(before < 2000, "killed midway", before)
    h.source.start()
    drain(h.source)
    until(lambda: h.held() >= before + 300, "more are taken", 60, 0.01)
    h.peers[0].kill()
    h.peers[0].start()
    until(lambda: h.held() >= min(before + 600, 1500), "it goes on with both", 90, 0.01)
    if h.source.process.alive():
        h.source.kill()
    h.source.start()
    drain(h.source)
    expect_equal(h.source.process.wait(90), 0, "exit status of the source")
    h.close_books()
    spool_is_empty(h.source)


def received(message):
    head = message.split(b"\r\n\r\n", 1)[0]
    return sum(line.lower().startswith(b"received:") for line in head.split(b"\r\n"))


@case("all that is known of a message goes along: tries, times, recipients left, account, trace")
def state_goes_along(folder):
    h = Hosts(folder, peers=1, shards=1, maildir=True)
    h.sink.restart("--reply", "rcpt~later*=450 4.2.0 Later")
    h.start()
    g, peer = h.source, h.peers[0]
    with smtplib.SMTP(g.host, g.port["submission"], timeout=20) as client:
        client.starttls(context=no_check())
        client.login("alice", "wonder land")
        client.sendmail("alice@client.test", ["now@routed.test", "later@routed.test"],
                        b"Subject: kept\r\nFrom: a\r\n\r\n.dots\r\n..and more\r\n",
                        mail_options=["ENVID=abc", "RET=HDRS"], rcpt_options=["NOTIFY=FAILURE"])
        client.sendmail("alice@client.test", ["held@nowhere.test"],
                        b"Subject: held\r\n\r\nx\r\n")
    until(lambda: sorted(m["status"] for m in g.queue()) == ["deferred", "unreachable"], "one try")
    held = g.queue("subject~held*")[0]["qid"]
    g.ctl("queue", "hold", held)
    before = {m["subject"]: m for m in g.queue()}
    expect_equal((before["kept"]["status"], before["held"]["status"]), ("deferred", "held"))
    drain(g)
    expect_equal(g.process.wait(60), 0, "exit status")
    after = {m["subject"]: m for m in peer.queue()}
    expect_equal(sorted(after), ["held", "kept"])
    expect_equal((after["kept"]["status"], after["held"]["status"]), ("deferred", "held"))
    for key in ("size", "accepted", "attempts", "sender", "account", "source_ip", "session",
                "receive_connector"):
        for subject in before:
            expect_equal(after[subject][key], before[subject][key], f"{subject}: {key}")
    expect_equal(after["kept"]["next_attempt"], before["kept"]["next_attempt"], "its next try")
    expect_equal([r["address"] for r in after["kept"]["recipients"]], ["later@routed.test"])
    h.sink.restart("--idle-timeout", "100")
    peer.ctl("connector", "resume", "out")
    peer.ctl("queue", "retry", after["kept"]["qid"])
    until(lambda: any("later@routed.test" in r["rcpts"] for r in h.sink.records()),
          "it is delivered")
    got = next(r for r in h.sink.records() if "later@routed.test" in r["rcpts"])
    message = h.sink.message(got)
    expect_equal(received(message), 1, "Received lines: none is added")
    expect(message.endswith(b"\r\n\r\n.dots\r\n..and more\r\n"), "the bytes", message[-60:])
    delivered = until(lambda: peer.tracking("delivered"), "tracking")[0]
    expect_equal(delivered["origin"], before["kept"]["qid"], "its first queue id")
    spool_is_empty(g)


# ---- the extension, word by word ----------------------------------------------------------------


def no_check():
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def login(peer, name="peer", password=PASSWORD):
    client = smtplib.SMTP(peer.host, peer.port["handoff"], timeout=30)
    client.starttls(context=no_check())
    client.login(name, password)
    return client


def string(text):
    return struct.pack("<H", len(text)) + text


def state_text(recipient=b"b@x.test"):
    """As gateway/handoff_text.c makes it."""
    envelope = struct.pack("<IIQII", 1, 0, time.time_ns(), 1, 8)
    envelope += b"".join(string(s) for s in (b"a@x.test", b"", b"", b"in", b"192.0.2.9", b"c.test",
                                             b"0-1", b"s"))
    envelope += string(recipient) + string(b"") + b"\0"
    head = struct.pack("<IIQII", 1, 0, 0, 2, len(envelope))
    return base64.b64encode(head + envelope) + b"\r\n"


def offer(client, ident, text=None, body=b"Subject: s\r\n\r\nx\r\n"):
    text = state_text() if text is None else text
    code, reply = client.docmd(f"XHANDOFF id={ident} state={len(text)}")
    if code != 354:
        return code, reply.decode()
    client.send(text + body + b".\r\n")
    code, reply = client.getreply()
    return code, reply.decode()


def command(client, *words):
    code, reply = client.docmd(" ".join(words))
    return code, reply.decode()


@case("prepared, given and taken back, word by word; prepared alone delivers nothing")
def word_by_word(folder):
    h = Hosts(folder, peers=1, shards=2)
    h.start()
    peer = h.peers[0]
    peer.ctl("connector", "resume", "out")
    with login(peer, "other", "no peer") as stranger:
        expect_equal(offer(stranger, "aaaa0000/1")[0], 550, "an account that is no peer's")
    with smtplib.SMTP(peer.host, peer.port["submission"], timeout=20) as client:
        client.starttls(context=no_check())
        client.ehlo()
        expect(not client.has_extn("xhandoff"), "offered where it is not configured")
        expect_equal(client.docmd("XHANDOFF id=a/1 state=5")[0], 502)
    with login(peer) as client:
        expect_equal(offer(client, "aaaa0000/1", b"AAAA\r\n")[0], 554, "no state")
        expect_equal(offer(client, "aaaa0000/1", state_text()[:-8] + b"AA==\r\n")[0], 554)
        code, reply = offer(client, "aaaa0000/1")
        expect_equal(code, 250, reply)
        instance = expect_match(r"prepared (\w{8})$", reply)[1]
        expect_equal(offer(client, "aaaa0000/1")[0], 250, "the same once more takes its place")
        expect_equal(offer(client, "aaaa0000/2")[0], 250)
        expect_equal([m["status"] for m in peer.queue()], ["prepared", "prepared"])
        expect_equal(peer.change("retry", filter="status=prepared"), 2)
        expect_equal([m["status"] for m in peer.queue()], ["prepared", "prepared"])
    peer.kill()
    peer.start()
    with login(peer) as client:
        until(lambda: command(client, "XHANDOFF-NEXT", "from=aaaa0000", "after=-")[0] == 250,
              "what was prepared is known again")
        expect_equal([m["status"] for m in peer.queue()], ["prepared", "prepared"])
        expect_equal(command(client, "XHANDOFF-NEXT", "from=aaaa0000", "after=aaaa0000/1")[1],
                     f"2.0.0 prepared aaaa0000/2 of {instance}")
        expect_equal(command(client, "XHANDOFF-NEXT", "from=aaaa0000", "after=aaaa0000/2")[1],
                     f"2.0.0 none of {instance}")
        expect_equal(command(client, "XHANDOFF-NEXT", "from=bbbb0000", "after=-")[1],
                     f"2.0.0 none of {instance}")
        expect_equal(command(client, "XHANDOFF-COMMIT", "id=aaaa0000/1", "to=zzzz0000")[0], 450)
        expect_equal(len(h.sink.records()), 0, "delivered although only prepared")
        expect_equal(command(client, "XHANDOFF-ABORT", "id=aaaa0000/2", f"to={instance}")[0], 250)
        for _ in range(2):  # the second time it is not known any more: it was taken
            expect_equal(command(client, "XHANDOFF-COMMIT", "id=aaaa0000/1", f"to={instance}")[0],
                         250)
        expect_equal(h.sink.wait(1)[0]["rcpts"], ["b@x.test"])
        code, reply = offer(client, "aaaa0000/3", state_text(b"c@x.test"))
        expect_equal(code, 250, reply)
    until(lambda: len(peer.queue()) == 1, "one is left")
    left = peer.queue()[0]
    expect_equal(left["status"], "prepared")
    peer.ctl("queue", "release", left["qid"])  # its source never comes back
    expect_equal(h.sink.wait(2)[1]["rcpts"], ["c@x.test"])
    peer.wait_empty()
    peer.stop()


if __name__ == "__main__":
    main("handoff")
