#!/usr/bin/env python3
# time-limit: 120
# builds: release, asan
"""Receive connectors as operators of Exchange know them; the rows are those of EXCHANGE.md."""
import smtplib
import ssl

from lib import certs, dialog, harness
from lib.gateway import Gateway, smart_host
from lib.harness import case, expect, expect_equal, expect_match, main, program, run, until
from lib.sink import Sink

TEXT = b"Subject: x\r\n\r\nx\r\n"


def connector(g, name, **keys):
    g.port[name] = harness.free_port()
    made = {"name": name, "bind": g.bind(name), **keys}
    g.config["receive_connectors"].append(made)
    return made


def first_reply(host, port, source=None):
    with dialog.Line(host, port, source=source) as line:
        code, text = line.reply()
        return code, text, code != 220 and line.closed()


@case("E1 E10 AUTH on 587 only behind STARTTLS; anonymous and authenticated mail on own ports")
def submission_and_relay(folder):
    sink = Sink(folder)
    g = Gateway(folder, sink)
    g.receive("relay")["relay"] = {"networks": []}
    g.start()
    with smtplib.SMTP(g.host, g.port["submission"], timeout=60) as client:
        client.ehlo()
        expect(not client.has_extn("auth") and client.has_extn("starttls"), "no AUTH in clear")
        expect_equal(client.docmd("AUTH", "PLAIN AGEAYg==")[0], 530)
        client.starttls()
        client.ehlo()
        expect(client.has_extn("auth"), "AUTH in TLS")
        client.login("alice", "wonder land")
        client.sendmail("alice@client.test", ["b@x.test"], TEXT)
    with smtplib.SMTP(g.host, g.port["relay"], timeout=60) as client:
        client.ehlo()
        expect(not client.has_extn("auth"), "no AUTH on the port of servers")
        client.mail("s@server.test")
        expect_equal(client.rcpt("b@x.test")[0], 550)
        expect_equal(client.rcpt("b@local.test")[0], 250)
    sink.wait(1)
    g.stop()


@case("E2 E12 several virtual servers, each with its name in greeting, EHLO and Received")
def names(folder):
    sink = Sink(folder)
    g = Gateway(folder, sink)
    for name in ("one", "two"):
        connector(g, name, fqdn=f"{name}.gw.test", relay={"networks": ["127.0.0.0/8"]})
    g.start()
    for name in ("one", "two"):
        with smtplib.SMTP(timeout=60) as client:
            expect_match(rf"^{name}\.gw\.test ESMTP",
                         client.connect(g.host, g.port[name])[1].decode())
            expect_match(rf"^{name}\.gw\.test\n", client.ehlo()[1].decode())
            client.sendmail("a@x.test", ["b@x.test"], TEXT)
    received = sorted(sink.message(r).split(b" by ")[1].split()[0] for r in sink.wait(2))
    expect_equal(received, [b"one.gw.test", b"two.gw.test"])
    g.stop()


@case("E2 --check warns when no certificate has the connector's name")
def name_warning(folder):
    g = Gateway(folder, Sink(folder))
    g.receive("submission")["fqdn"] = "elsewhere.test"
    g.write_config()
    done = run([program("hikyaku"), "--config", g.config_path, "--check"])
    expect_match(r"submission.*elsewhere\.test|elsewhere\.test", done.stderr)


@case("E3 the certificate is chosen by SNI, the first one without")
def sni(folder):
    g = Gateway(folder, Sink(folder))
    other = certs.leaf("other.test", "*.wild.test")
    g.receive("submissions")["tls"]["certificates"].append(
        {"certificate": other.certificate, "key": other.key})
    g.start()
    trust = ssl.create_default_context(cafile=certs.authority())
    for name in ("gw.test", "other.test", "a.wild.test"):
        with dialog.Line(g.host, g.port["submissions"]) as line:
            line.tls(name, trust)  # raises when the certificate does not have the name
            line.wanted(220)
    g.stop()


@case("E4 two connectors on one port, told apart by the client's address")
def same_port(folder):
    sink = Sink(folder)
    g = Gateway(folder, sink)
    made = connector(g, "inner", fqdn="inner.test",
                     remote={"allow": [harness.address(50) + "/32"]},
                     relay={"networks": ["127.0.0.0/8"]})
    g.config["receive_connectors"].append(
        {"name": "outer", "bind": made["bind"], "fqdn": "outer.test",
         "remote": {"deny": [harness.address(50) + "/32"]}})
    g.start()
    expect_match("inner.test", first_reply(g.host, g.port["inner"], harness.address(50))[1])
    expect_match("outer.test", first_reply(g.host, g.port["inner"], harness.address(51))[1])
    g.stop()


@case("E14 E18 connection control: only the list, all but the list; refused is 554 and closed")
def connection_control(folder):
    g = Gateway(folder, Sink(folder))
    listed = harness.address(60)
    connector(g, "only", remote={"allow": [listed, harness.address(64) + "/30"]})
    connector(g, "but", remote={"deny": [listed, harness.address(64) + "/30"]})
    g.start()
    for last, inside in ((60, True), (61, False), (64, True), (67, True), (68, False)):
        for name, may in (("only", inside), ("but", not inside)):
            code, text, closed = first_reply(g.host, g.port[name], harness.address(last))
            if may:
                expect_equal(code, 220, f"{name} from {last}")
            else:
                expect_match(r"^554 5\.7\.1 ", text, f"{name} from {last}")
                expect(closed, "closed")
    g.stop()


@case("E15 anonymous is off where AUTH is required, mechanisms are those configured")
def mechanisms(folder):
    g = Gateway(folder, Sink(folder))
    connector(g, "login", auth={"required": True, "require_tls": False, "mechanisms": ["LOGIN"]})
    g.start()
    with smtplib.SMTP(g.host, g.port["login"], timeout=60) as client:
        client.ehlo()
        expect_equal(client.esmtp_features["auth"].split(), ["LOGIN"])
        expect_equal(client.mail("a@x.test")[0], 530)
        expect_equal(client.docmd("AUTH", "PLAIN AGEAYg==")[0], 504)
        client.login("alice", "wonder land")
        expect_equal(client.mail("a@x.test")[0], 250)
    g.stop()


@case("E16 a secure channel is required: version and strength; what is sent is encrypted")
def secure_channel(folder):
    g = Gateway(folder, Sink(folder))
    tls = g.receive("submissions")["tls"]
    tls["min_version"] = "1.3"
    strong = connector(g, "strong", tls={"mode": "implicit", "min_bits": 256,
                                         "certificates": g.certificate()})
    expect_equal(strong["tls"]["min_bits"], 256)
    g.start()

    def handshake(port, **limits):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        for key, value in limits.items():
            if key == "ciphers":
                context.set_ciphers(value)
            else:
                setattr(context, key, value)
        try:
            with dialog.Line(g.host, g.port[port], timeout=10) as line:
                line.tls("gw.test", context)
                line.wanted(220)
                return line.sock.version(), line.sock.cipher()[2]
        except (ssl.SSLError, OSError, AssertionError):
            return None
    expect_equal(handshake("submissions")[0], "TLSv1.3")
    expect_equal(handshake("submissions", maximum_version=ssl.TLSVersion.TLSv1_2), None)
    expect_equal(handshake("strong")[1], 256, "bits")
    expect_equal(handshake("strong", maximum_version=ssl.TLSVersion.TLSv1_2,
                           ciphers="ECDHE+AES128"), None, "a weaker cipher")
    g.stop()


@case("E17 E33 relaying: authenticated anywhere; addresses and ranges; others accepted domains")
def relaying(folder):
    g = Gateway(folder, Sink(folder))
    connector(g, "ranges", relay={"networks": [harness.address(70), harness.address(72) + "/31"]})
    g.start()
    for last, may in ((70, True), (71, False), (72, True), (73, True), (74, False)):
        with dialog.Line(g.host, g.port["ranges"], source=harness.address(last)) as line:
            line.wanted(220)
            line.ask("EHLO x.test", 250)
            line.ask("MAIL FROM:<a@x.test>", 250)
            line.ask("RCPT TO:<b@local.test>", 250)
            got = line.ask("RCPT TO:<b@far.test>")
            expect_match("^250 " if may else r"^550 5\.7\.1 Unable to relay$", got, f"from {last}")
    g.stop()


@case("E34 a domain with a list of recipients refuses others; relays of other systems take all")
def recipient_lists(folder):
    sink = Sink(folder)
    g = Gateway(folder, sink)
    with open(g.path("recipients"), "w", encoding="utf-8") as file:
        file.write("# ours\nalice\nbob@local.test\n")
    g.config["accepted_domains"] = [
        {"domain": "local.test", "recipients_file": g.path("recipients")},
        {"domain": "partly.test", "type": "internal_relay"},
        {"domain": "theirs.test", "type": "external_relay"}]
    g.receive("relay")["relay"] = {"networks": []}
    g.start()
    with smtplib.SMTP(g.host, g.port["relay"], timeout=60) as client:
        client.ehlo()
        client.mail("a@sender.test")
        for to, code, text in (("alice@local.test", 250, ""), ("BOB+x@Local.Test", 250, ""),
                               ("postmaster@local.test", 250, ""), ("x@partly.test", 250, ""),
                               ("x@theirs.test", 250, ""), ("carol@local.test", 550, "5.1.1"),
                               ("x@foreign.test", 550, "5.7.1 Unable to relay")):
            got = client.rcpt(to)
            expect_equal(got[0], code, to)
            expect(got[1].decode().startswith(text), to, got)
        client.rset()
        with open(g.path("recipients"), "a", encoding="utf-8") as file:
            file.write("carol\n")
        expect_equal(g.reload().status, 200)
    with smtplib.SMTP(g.host, g.port["relay"], timeout=60) as client:
        client.sendmail("a@sender.test", ["carol@local.test"], TEXT)
        sink.wait(1)
    with open(g.path("recipients"), "a", encoding="utf-8") as file:
        file.write("two words\n")
    g.write_config()
    done = run([program("hikyaku"), "--config", g.config_path, "--check"], status=2)
    expect_match("recipients:5: expected a recipient of local.test", done.stderr)
    g.stop()


@case("E20 E24 address spaces and scope choose the way out")
def ways_out(folder):
    sinks = {n: Sink(folder, name=n) for n in ("any", "exact", "below", "scoped")}
    g = Gateway(folder)
    g.config["send_connectors"] = [
        smart_host("any", sinks["any"].smart_host),
        smart_host("exact", sinks["exact"].smart_host, space="a.x.test"),
        smart_host("below", sinks["below"].smart_host, space="*.x.test"),
        smart_host("scoped", sinks["scoped"].smart_host, space="s.test",
                   receive_connectors=["submissions"])]
    g.start()
    with smtplib.SMTP(g.host, g.port["relay"], timeout=60) as client:
        client.sendmail("a@y.test", ["1@a.x.test", "2@b.x.test", "3@x.test", "4@s.test",
                                     "5@other.test"], TEXT)
    with smtplib.SMTP_SSL(g.host, g.port["submissions"], timeout=60) as client:
        client.login("alice", "wonder land")
        client.sendmail("a@y.test", ["6@s.test"], TEXT)
    g.wait_empty()
    got = {n: sorted(r for record in s.records() for r in record["rcpts"])
           for n, s in sinks.items()}
    expect_equal(got, {"any": ["4@s.test", "5@other.test"], "exact": ["1@a.x.test"],
                       "below": ["2@b.x.test", "3@x.test"], "scoped": ["6@s.test"]})
    g.stop()


@case("E21 a send connector may open its domains for relaying, and only those")
def allow_relay(folder):
    sink = Sink(folder)
    g = Gateway(folder, sink)
    g.receive("relay")["relay"] = {"networks": []}
    g.config["send_connectors"].append(
        smart_host("partner", sink.smart_host, space="partner.test", allow_relay=True))
    g.start()
    with smtplib.SMTP(g.host, g.port["relay"], timeout=60) as client:
        client.ehlo()
        client.mail("a@y.test")
        expect_equal(client.rcpt("b@partner.test")[0], 250)
        expect_equal(client.rcpt("b@other.test")[0], 550)
    g.stop()


@case("E32 the next hop's own words in the sites, the tracking log and the report")
def own_words(folder):
    words = "Primary target IP address responded with lunch"
    sink = Sink(folder, "--reply", f"rcpt~b@x*=451 4.4.0 {words}")
    g = Gateway(folder, sink, shards=1)
    g.config["retry"] = {"intervals": ["1s"], "expire": "3s", "warn_after": "0s"}
    g.start()
    with smtplib.SMTP(g.host, g.port["relay"], timeout=60) as client:
        client.sendmail("author@sender.test", ["b@x.test"], TEXT)
    expect_match(words, str(g.wait_tracking("deferred")))
    until(lambda: words in g.get("/api/v1/sites").body, "the words in the sites")
    until(lambda: sink.records(), "the report", 20)
    expect_match(words, sink.messages()[0].decode())
    g.stop()


if __name__ == "__main__":
    main("relay", beside=2)
