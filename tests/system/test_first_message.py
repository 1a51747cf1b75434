#!/usr/bin/env python3
# time-limit: 120
# builds: release, asan
# alone: the demo's ports are fixed
"""The first message, as `make run` shows it: curl submits over STARTTLS with a password, and the
body lies in the Maildir of the next hop byte for byte.
"""
import os
import re
import signal
import subprocess
import sys

from lib import certs, harness
from lib.gateway import Gateway
from lib.harness import ROOT, Program, case, expect, expect_equal, main, run, tool, until
from lib.sink import Sink, without_trace

BODY = b"Hello,\r\n\r\n.\r\n..two dots\r\n\ttabs, trailing blanks  \r\n" + b"x" * 900 + b"\r\nend"
MESSAGE = b"From: <alice@client.test>\r\nTo: <friend@example.net>\r\nSubject: first\r\n" \
          b"Date: Sun, 22 Nov 2026 05:00:00 +0000\r\nMessage-ID: <1@client.test>\r\n\r\n" + BODY


@case("curl submits, the body arrives byte for byte")
def first_message(folder):
    sink = Sink(folder)
    g = Gateway(folder, sink).start()
    lines = until(lambda: g.log("listen"), "its addresses in the log")
    expect("shard" not in lines[0], "a line of no shard:", lines[0])
    message = os.path.join(folder, "message")
    with open(message, "wb") as file:
        file.write(MESSAGE + b"\r\n")
    run([tool("curl"), "-sS", "--url", f"smtp://localhost:{g.port['submission']}", "--resolve",
         f"localhost:{g.port['submission']}:{g.host}", "--ssl-reqd", "--cacert",
         certs.authority(), "--user", "alice:wonder land",
         "--mail-from", "alice@client.test", "--mail-rcpt", "friend@example.net", "--upload-file",
         message])
    record, = sink.wait(1)
    added, rest = without_trace(sink.message(record))
    expect_equal(len(added), 1, "Received lines")
    expect(re.search(rb"with ESMTPSA id \S+", added[0]), "RFC 3848 keyword", added[0])
    expect_equal(rest, MESSAGE + b"\r\n", "message")
    expect_equal(record["from"], "alice@client.test")
    g.wait_empty()
    accepted, = g.wait_tracking("accepted")
    delivered, = g.wait_tracking("delivered")
    expect_equal(accepted["qid"], delivered["qid"], "queue id")
    g.stop()
    expect_equal(sink.stop()["messages"], 1)


@case("HIKYAKU_BUILD may be relative to where the tests are started")
def relative(_):
    words = [sys.executable, "-c", "from lib import harness; print(harness.BUILD)"]
    there = {"HIKYAKU_BUILD": "build", "PYTHONPATH": os.path.dirname(os.path.abspath(__file__))}
    told = subprocess.run(words, cwd=ROOT, env=dict(os.environ, **there), check=True, text=True,
                          capture_output=True, timeout=60).stdout
    expect_equal(told.strip(), os.path.join(ROOT, "build"))


@case("make run's demo takes the message it prints", 80)
def demo(folder):
    ports = (2525, 2526, 2587, 2465, 9025)
    if any(harness.answers("127.0.0.1", p) for p in ports):
        raise harness.Skip("a port of the demo is in use")
    for name in ("deploy", "build"):
        source = harness.BUILD if name == "build" else os.path.join(ROOT, name)
        os.symlink(source, os.path.join(folder, name))
    script = os.path.join(folder, "deploy", "run-demo")
    # The script goes to its own parent folder; a copy makes that ours.
    os.unlink(os.path.join(folder, "deploy"))
    os.mkdir(os.path.join(folder, "deploy"))
    with open(os.path.join(ROOT, "deploy", "run-demo"), encoding="utf-8") as file:
        text = file.read()
    with open(script, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(script, 0o755)
    demo_run = Program([script], os.path.join(folder, "demo.log"), group=True,
                       env={"HIKYAKU_BUILD": "build"})
    until(lambda: "curl --url" in demo_run.log() or not demo_run.alive(), "the demo's hint", 40)
    expect(demo_run.alive(), "the demo runs:", demo_run.log())
    hint = re.search(r"^ *(curl --url(?:.*\\\n)*.*)$", demo_run.log(), re.M)[1]
    subprocess.run(["bash", "-c", hint], cwd=folder, check=True, timeout=60,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    new = os.path.join(folder, "run", "mail", "new")
    until(lambda: os.listdir(new), "the message in run/mail/new")
    with open(os.path.join(new, os.listdir(new)[0]), "rb") as file:
        _, got = without_trace(file.read())
    with open(os.path.join(folder, "run", "message.eml"), "rb") as file:
        expect_equal(got, file.read(), "message")
    demo_run.process.send_signal(signal.SIGINT)
    expect_equal(demo_run.wait(), 0, "exit status at Ctrl-C")


if __name__ == "__main__":
    main("first message")
