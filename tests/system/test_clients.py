#!/usr/bin/env python3
# time-limit: 300
# builds: release, asan
"""Clients that nobody here wrote submit over 587 with STARTTLS and 465 with TLS: swaks, curl,
msmtp, Python's smtplib, nodemailer. Every message arrives unchanged but for the trace lines added.
"""
import email.message
import email.policy
import os
import random
import smtplib
import ssl

from lib import certs
from lib.gateway import Gateway
from lib.harness import ROOT, Skip, case, expect, expect_equal, main, run, tool
from lib.sink import Sink, without_trace

USER, PASSWORD, SENDER = "alice", "wonder land", "alice@client.test"
HEAD = (b"From: Alice <alice@client.test>\r\nTo: Bob <bob@else.test>\r\nSubject: %s\r\n"
        b"Date: Sun, 22 Nov 2026 05:00:00 +0000\r\nMessage-ID: <%s@client.test>\r\n"
        b"MIME-Version: 1.0\r\n")


def attachment(size):
    """A multipart message with an attachment of this size, as a library makes it."""
    message = email.message.EmailMessage(email.policy.SMTP)
    message["From"], message["To"], message["Subject"] = SENDER, "bob@else.test", "attached"
    message["Date"] = "Sun, 22 Nov 2026 05:00:00 +0000"
    message["Message-ID"] = f"<att{size}@client.test>"
    message.set_content("see below\n.\n..\n")
    message.add_attachment(random.Random(size).randbytes(size), maintype="application",
                           subtype="octet-stream", filename="data.bin")
    return message.as_bytes()


def bodies():
    """(name, message), CRLF ends every line."""
    def of(name, body):
        return name, HEAD % (name.encode(), name.encode()) + b"\r\n" + body
    chance = random.Random(1)
    lines = b"".join(bytes(chance.choices(range(32, 127), k=chance.randint(0, 990))) + b"\r\n"
                     for _ in range(600))
    return [of("one", b"x\r\n"), of("empty", b""), of("dots", b".\r\n..\r\n.x\r\n\r\n.\r\n"),
            of("lines", lines), of("utf8", "grüße 🙂 用户\r\n".encode() * 50),
            ("attachment", attachment(300_000))]


def big():
    line = b"0123456789" * 7 + b"abcdef\r\n"
    return "big", HEAD % (b"big", b"big") + b"\r\n" + line * (30_000_000 // len(line))


class World:
    """A sink, a gateway, and what each client is to send."""

    def __init__(self, folder):
        self.folder, self.sink = folder, Sink(folder)
        self.gateway = Gateway(folder, self.sink)
        self.gateway.start()
        self.count = 0
        self.authority = certs.authority()

    def ways(self):
        g = self.gateway
        return (("STARTTLS", g.host, g.port["submission"]), ("TLS", g.host, g.port["submissions"]))

    def file(self, text):
        path = os.path.join(self.folder, "message")
        with open(path, "wb") as file:
            file.write(text)
        return path

    def check(self, name, sent, exact=True):
        """The newest message at the sink is what was sent; gives it without trace lines."""
        self.count += 1
        records = self.sink.wait(self.count, 40)
        expect_equal(len(records), self.count, f"messages after {name}")
        record = records[-1]
        expect_equal(record["from"], SENDER, name)
        added, got = without_trace(self.sink.message(record))
        expect_equal(len(added), 1, f"{name}: Received lines")
        expect(b"SMTPSA" in added[0], name, added[0])
        if exact:
            expect_equal(got, sent, name)
        return got

    def end(self):
        self.gateway.wait_empty()
        self.gateway.stop()


@case("curl, 1 byte to 30 MB", 90)
def curl(folder):
    w = World(folder)
    for way, host, port in w.ways():
        for name, text in bodies() + [big()]:
            scheme = "smtps" if way == "TLS" else "smtp"
            run([tool("curl"), "-sS", "--url", f"{scheme}://localhost:{port}/client.test",
                 "--resolve", f"localhost:{port}:{host}", "--ssl-reqd", "--cacert", w.authority,
                 "--user", f"{USER}:{PASSWORD}", "--mail-from", SENDER, "--mail-rcpt",
                 "bob@else.test", "--upload-file", w.file(text)], seconds=60)
            w.check(f"curl {way} {name}", text)
    w.end()


@case("swaks, AUTH PLAIN and LOGIN, with and without pipelining, 1 byte to 30 MB", 150)
def swaks(folder):
    w = World(folder)
    for way, host, port in w.ways():
        for mechanism in ("PLAIN", "LOGIN"):
            for pipeline in (["--pipeline"], []):
                # The big one takes swaks seconds: pipelined behind STARTTLS, not so in TLS.
                with_big = mechanism == "PLAIN" and bool(pipeline) == (way == "STARTTLS")
                texts = [bodies()[i] for i in (0, 4, 5)] + [big()] * with_big
                for name, text in texts:
                    run([tool("swaks"), "--server", host, "--port", str(port),
                         "--tls" if way == "STARTTLS" else "--tls-on-connect", "--tls-verify",
                         "--tls-ca-path", w.authority, "--auth", mechanism, "--auth-user", USER,
                         "--auth-password", PASSWORD, "--from", SENDER, "--to",
                         "bob@else.test,carol@else.test", "--silent", "2", "--data",
                         "@" + w.file(text), "--helo", "client.test", *pipeline], seconds=60)
                    got = w.check(f"swaks {way} {mechanism} {name}", text, exact=False)
                    # swaks ends the text with one more line end of its own.
                    expect_equal(got.rstrip(b"\r\n"), text.rstrip(b"\r\n"), name)
    w.end()


@case("msmtp, 1 byte to 30 MB", 90)
def msmtp(folder):
    w = World(folder)
    secret = os.path.join(folder, "secret")
    with open(secret, "w", encoding="utf-8") as file:
        file.write(PASSWORD + "\n")
    for way, host, port in w.ways():
        for name, text in bodies() + [big()]:
            config = os.path.join(folder, "msmtprc")
            with open(config, "w", encoding="utf-8") as file:
                file.write(f"account default\nhost localhost\nport {port}\nauth on\n"
                           f"user {USER}\npasswordeval cat {secret}\ntls on\n"
                           f"tls_starttls {'on' if way == 'STARTTLS' else 'off'}\n"
                           f"tls_trust_file {w.authority}\nfrom {SENDER}\nset_from_header off\n"
                           f"set_date_header off\nset_msgid_header off\n".replace(
                               "localhost", host))
            os.chmod(config, 0o600)
            run([tool("msmtp"), "-C", config, "--", "bob@else.test"], seconds=60, text=False,
                input=text.replace(b"\r\n", b"\n"))
            w.check(f"msmtp {way} {name}", text)
    w.end()


@case("smtplib, 8BITMIME, SMTPUTF8, several recipients, many in one session", 90)
def python(folder):
    w = World(folder)
    trust = ssl.create_default_context(cafile=w.authority)
    for way, _, port in w.ways():
        make = smtplib.SMTP_SSL if way == "TLS" else smtplib.SMTP
        keys = {"context": trust} if way == "TLS" else {}
        with make(w.gateway.host, port, timeout=60, **keys) as client:
            if way == "STARTTLS":
                client.starttls(context=trust)
            client.login(USER, PASSWORD)
            for name, text in bodies() + [big()]:
                client.sendmail(SENDER, ["bob@else.test", "carol@else.test"], text,
                                ["BODY=8BITMIME"])
                w.check(f"smtplib {way} {name}", text)
            name, text = bodies()[4]
            client.sendmail(SENDER, "用户@else.test", text, ["SMTPUTF8", "BODY=8BITMIME"])
            w.check(f"smtplib {way} SMTPUTF8", text)
            expect_equal(w.sink.records()[-1]["rcpts"], ["用户@else.test"])
    w.end()


@case("a submission without Date and Message-ID gets both")
def missing_fields(folder):
    w = World(folder)
    with smtplib.SMTP_SSL(w.gateway.host, w.gateway.port["submissions"]) as client:
        client.login(USER, PASSWORD)
        client.sendmail(SENDER, "bob@else.test", b"Subject: bare\r\n\r\nx\r\n")
    got = w.check("bare", b"", exact=False)
    fields = email.message_from_bytes(got)
    expect(fields["Date"] and fields["Message-ID"] and fields["Subject"] == "bare", got)
    expect_equal(fields.get_payload(), "x\r\n")
    w.end()


@case("nodemailer, 1 byte to 30 MB", 90)
def nodemailer(folder):
    modules = os.path.join(ROOT, "build", "npm", "node_modules")
    if not os.path.isdir(os.path.join(modules, "nodemailer")):
        raise Skip("nodemailer is not below build/npm (make peers)")
    w = World(folder)
    script = os.path.join(ROOT, "tests", "peers", "nodemailer.js")
    for way, host, port in w.ways():
        for name, text in bodies() + [big()]:
            run([tool("node"), script, host, str(port), "tls" if way == "TLS" else "starttls",
                 w.authority, USER, PASSWORD, SENDER, "bob@else.test", w.file(text)],
                seconds=60, env=dict(os.environ, NODE_PATH=modules))
            got = w.check(f"nodemailer {way} {name}", text, exact=False)
            expect_equal(got.rstrip(b"\r\n"), text.rstrip(b"\r\n"), f"nodemailer {way} {name}")
    w.end()


if __name__ == "__main__":
    main("clients")
