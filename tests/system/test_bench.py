#!/usr/bin/env python3
# builds: asan
"""The bench's programs against each other: what load calls acknowledged is what sink took, byte
for byte, over every transport, and whatever the sink does to it."""
import json
import os
import signal
import smtplib
import subprocess
import sys
import tempfile
import time
import zlib

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BENCH = os.path.join(os.environ.get("HIKYAKU_BUILD", os.path.join(ROOT, "build")), "hikyaku-bench")


class Server:
    """hikyaku-bench sink or null on a free port; stop() gives its totals."""

    def __init__(self, command, *options):
        self.process = subprocess.Popen([BENCH, command, "--bind", "127.0.0.1:0", *options],
                                        stdout=subprocess.PIPE, text=True)
        self.address = self.process.stdout.readline().split()[-1]

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        out, _ = self.process.communicate(timeout=120)
        assert self.process.returncode == 0, f"exit status {self.process.returncode}"
        return json.loads(out.strip().split("\n")[-1])


def load(address, *options, status=0):
    done = subprocess.run([BENCH, "load", "--to", address, "--json", *options], text=True,
                          stdout=subprocess.PIPE, timeout=600, check=False)
    assert done.returncode == status, f"exit status {done.returncode}: {done.stdout}"
    return json.loads(done.stdout)


def lines(path):
    with open(path, encoding="utf-8") as file:
        return file.read().split("\n")[:-1]


def audit(folder, options, sink_options=(), load_status=0):
    """Runs load against sink; returns the acknowledged ids, the sink's records and both totals."""
    took, acked = os.path.join(folder, "took"), os.path.join(folder, "acked")
    for path in (took, acked):
        if os.path.exists(path):
            os.unlink(path)
    sink = Server("sink", "--record", took, *sink_options)
    result = load(sink.address, "--record", acked, *options, status=load_status)
    totals = sink.stop()
    return lines(acked), [json.loads(line) for line in lines(took)], result, totals


def check_same(acked, records, result):
    assert len(acked) == len(set(acked)) == result["acked"]
    assert sorted(acked) == sorted(r["id"] for r in records)
    assert all(r["body_crc32"] == result["body_crc32"] for r in records), "a body changed"


def test_every_transport(folder, tls):
    for options in ([], ["--pipeline"], ["--pipeline-deep"], ["--tls", "starttls"],
                    ["--tls", "starttls", "--pipeline-deep", "--resume"],
                    ["--size", "20KiB"], ["--size", "300KiB", "--pipeline-deep"],
                    ["--size", "3MiB"], ["--size", "3MiB", "--tls", "starttls"]):
        count = 40 if "3MiB" not in options else 6
        acked, records, result, totals = audit(
            folder, ["--sessions", "8", "--messages", str(count), "--messages-per-session", "3",
                     "--rcpt-count", "2", "--auth", "u:p:w", *options],
            ["--tls", tls, "--auth", "u:p:w"])
        check_same(acked, records, result)
        assert result["acked"] == totals["messages"] == count, options
        assert totals["recipients"] == 2 * count and result["rcpts_acked"] == 2 * count
        assert all(r["tls"] == ("--tls" in options) and r["auth"] == "u" for r in records)
        assert ("--resume" in options) == (totals["tls_resumed"] > 0)


def test_implicit_tls(folder, tls):
    acked, records, result, _ = audit(folder, ["--messages", "5", "--tls", "implicit"],
                                      ["--tls", tls, "--tls-implicit"])
    check_same(acked, records, result)
    assert result["acked"] == 5 and result["tls_handshakes"] == 5


def test_maildir_keeps_every_byte(folder, tls):
    maildir = os.path.join(folder, "mail")
    sink = Server("sink", "--maildir", maildir, "--tls", tls)
    bodies = [b"", b".", b"..", b"a\r\n.\r\nb", b".a\r\n..b\r\n...", b"x" * 100000,
              bytes(range(128, 256)) * 50, b"\r\n\r\n.\r\n\r\n", b"end."]
    host, port = sink.address.split(":")
    sent = []
    with smtplib.SMTP(host, int(port)) as client:
        for body in bodies:
            message = b"Subject: x\r\n\r\n" + body + b"\r\n"
            client.sendmail("a@x.test", "b@y.test", message)
            sent.append(message)
    sink.stop()
    kept = []
    for name in os.listdir(os.path.join(maildir, "new")):
        with open(os.path.join(maildir, "new", name), "rb") as file:
            kept.append(file.read())
    assert sorted(kept) == sorted(sent)
    assert not os.listdir(os.path.join(maildir, "tmp"))


def test_refusals_are_not_acknowledged(folder, _):
    acked, records, result, _ = audit(
        folder, ["--messages", "20", "--sessions", "4", "--pipeline"],
        ["--reply", "rcpt#3=550 5.1.1 no", "--reply", "eod#4=451 4.3.0 later",
         "--reply", "mail#2=452 4.3.1 full"], load_status=1)
    check_same(acked, records, result)
    assert result["acked"] == 11 and result["refused"] == 9, result
    assert result["refusals"] == {"554 at data": 3, "451 at eod": 4, "503 at data": 2}, result


def test_a_cut_behind_the_dot_loses_the_reply_not_the_message(folder, _):
    acked, records, result, totals = audit(
        folder, ["--messages", "50", "--sessions", "5", "--keep-going", "--messages-per-session",
                 "10"], ["--drop-after-dot=eod#3", "--drop-at", "body#2"])
    ids = [r["id"] for r in records]
    assert result["acked"] == 50 and result["lost"] == 5
    assert len(ids) == len(set(ids)) == 53 and set(acked) < set(ids)
    assert totals["dropped"] == 5 and totals["abandoned"] == 2


def test_a_server_killed_under_load(folder, _):
    acked = os.path.join(folder, "acked")
    took = os.path.join(folder, "took")
    for path in (acked, took):
        if os.path.exists(path):
            os.unlink(path)
    sink = Server("sink", "--record", took)
    running = subprocess.Popen(
        [BENCH, "load", "--to", sink.address, "--sessions", "10", "--messages-per-session", "5",
         "--seconds", "8", "--keep-going", "--record", acked, "--json"],
        stdout=subprocess.PIPE, text=True)
    for _ in range(3):
        before = os.path.getsize(acked) if os.path.exists(acked) else 0
        while running.poll() is None and not (
                os.path.exists(acked) and os.path.getsize(acked) > before + 1000):
            time.sleep(0.02)
        sink.process.kill()
        sink.process.wait()
        sink.process = subprocess.Popen([BENCH, "sink", "--bind", sink.address, "--record", took],
                                        stdout=subprocess.PIPE, text=True)
    out, _ = running.communicate(timeout=120)
    result = json.loads(out)
    sink.stop()
    ids = [json.loads(line)["id"] for line in lines(took)]
    assert result["errors"] and result["acked"] > 100, result
    assert len(lines(acked)) == result["acked"]
    assert set(lines(acked)) <= set(ids), "acknowledged and not recorded"
    assert len(ids) == len(set(ids))


def test_delays_are_in_the_latency(folder, _):
    _, _, result, _ = audit(folder, ["--messages", "8", "--sessions", "4"],
                            ["--delay-ms", "eod=200"])
    assert 199 < result["eod_ms"]["p50"] < 20000, result["eod_ms"]


def test_a_slow_next_hop(folder, _):
    _, _, result, _ = audit(folder, ["--messages", "11", "--sessions", "11"], ["--rate", "eod=10"])
    assert result["acked"] == 11 and result["seconds"] >= 0.95, result["seconds"]
    acked, records, result, _ = audit(folder, ["--messages", "2", "--sessions", "2", "--size",
                                               "100KiB"], ["--rate-bytes", "200KiB"])
    check_same(acked, records, result)
    assert result["seconds"] >= 0.85, result["seconds"]


def test_an_open_loop_counts_from_the_time_a_message_was_due(folder, _):
    _, _, result, _ = audit(folder, ["--messages", "8", "--messages-per-session", "0", "--rate",
                                     "20", "--source-ips", "3"], ["--delay-ms", "eod=200"])
    assert result["acked"] == 8
    # the last one is due after 350 ms, and its turn comes after 1400
    assert result["open_ms"]["max"] >= 1200, result["open_ms"]
    assert result["eod_ms"]["p50"] >= 195, result["eod_ms"]


def test_a_server_that_says_nothing_is_given_up(folder, _):
    acked, records, result, _ = audit(folder, ["--messages", "1", "--timeout", "1"],
                                      ["--delay-ms", "eod=60000"], load_status=1)
    assert result["errors"] == {"timeout (eod)": 1} and result["lost"] == 1, result
    assert not acked and len(records) <= 1


FAULTS = ("vanish-mail", "vanish-data", "vanish-dot", "half-close", "slow", "long-command",
          "bad-command", "long-line", "bare-lf")


def test_faults_on_request_are_counted_apart(folder, tls):
    options = ["--sessions", "8", "--messages", "400", "--messages-per-session", "2",
               "--slow-rate", "100KiB", *(f"--fault={kind}=9" for kind in FAULTS)]
    for more in ([], ["--pipeline-deep", "--size", "40KiB"], ["--tls", "starttls"]):
        acked, records, result, totals = audit(folder, [*options, *more], ["--tls", tls])
        faults = result["faults"]
        assert set(faults) == set(FAULTS) and not result["errors"] and not result["lost"], result
        ids = [r["id"] for r in records]
        assert len(acked) == len(set(acked)) == result["acked"] and set(acked) <= set(ids)
        gone = sum(faults[kind]["begun"] for kind in FAULTS[:3])
        # a line that comes in pieces ends the connection with a 500, which may be read or not
        assert sum(faults["long-command"].values()) >= 2 * faults["long-command"]["begun"], faults
        assert result["acked"] + gone + faults["long-command"]["cut"] == 400, result
        assert len(ids) - len(acked) <= faults["vanish-dot"]["begun"], (len(ids), result)
        assert totals["abandoned"] >= faults["vanish-data"]["begun"], (totals, faults)
        for kind in ("half-close", "slow", "long-line", "bare-lf"):
            assert faults[kind]["accepted"] == faults[kind]["begun"] > 0, faults
        assert faults["bad-command"]["refused"] == faults["bad-command"]["begun"] > 0, faults


def test_faults_follow_the_seed(folder, _):
    def begun(seed):
        _, _, result, _ = audit(folder, ["--messages", "60", "--fault", "bad-command=20",
                                         "--fault", "vanish-mail=20", "--fault-seed", seed])
        return {kind: fault["begun"] for kind, fault in result["faults"].items()}
    assert begun("1") == begun("1") != begun("2")


def test_null_holds_the_conversation(*_):
    null = Server("null")
    for options in ([], ["--pipeline"], ["--pipeline-deep"], ["--auth", "u:p"]):
        result = load(null.address, "--sessions", "10", "--messages", "200", "--rcpt-count", "3",
                      "--messages-per-session", "10", "--server-pid", str(null.process.pid),
                      *options)
        assert result["acked"] == 200 and result["server"]["processes"] == 1
    assert null.stop()["messages"] == 800


def test_idle_holds_all(_, tls):
    sink = Server("sink", "--tls", tls, "--auth", "u:p")
    done = subprocess.run([BENCH, "idle", "--to", sink.address, "--sessions", "100", "--tls",
                           "starttls", "--auth", "u:p", "--hold", "1", "--json", "--server-pid",
                           str(sink.process.pid)], stdout=subprocess.PIPE, text=True, timeout=60,
                          check=False)
    result = json.loads(done.stdout)
    assert done.returncode == 0 and result["stayed"] == 100, result
    assert sink.stop()["connections_open_max"] == 100


def test_disk_appends_are_not_before_they_are_due(folder, _):
    done = subprocess.run([BENCH, "disk", "--dir", folder, "--rate", "50", "--file-size", "1MiB",
                           "--json"], stdout=subprocess.PIPE, text=True, timeout=60, check=False)
    ways = json.loads(done.stdout)
    assert done.returncode == 0 and len(ways) >= 3, ways
    assert all(way["batch"] == 1 and 0 < way["syncs_per_second"] <= 52 for way in ways), ways


def test_wrong_use_is_status_2_and_one_line(*_):
    for words in ([], ["nope"], ["load"], ["load", "--to", "x"], ["sink"], ["idle"], ["null"],
                  ["load", "--to", "127.0.0.1:1", "--size", "1"], ["disk"], ["tls-handshake"],
                  ["sink", "--bind", "127.0.0.1:0", "--reply", "mail=x"]):
        done = subprocess.run([BENCH, *words], stderr=subprocess.PIPE, stdout=subprocess.PIPE,
                              text=True, timeout=60, check=False)
        assert done.returncode == 2 and done.stderr.count("\n") == 1, (words, done.stderr)


def test_checksum_is_the_common_one(folder, _):
    took = os.path.join(folder, "took_one")
    sink = Server("sink", "--record", took)
    host, port = sink.address.split(":")
    with smtplib.SMTP(host, int(port)) as client:
        client.sendmail("a@x.test", "b@y.test", b"Subject: x\r\n\r\nbody\r\n")
    sink.stop()
    record = json.loads(lines(took)[0])
    assert record["body_crc32"] == f"{zlib.crc32(b'body' + bytes([13, 10])):08x}"
    assert record["from"] == "a@x.test" and record["rcpts"] == ["b@y.test"]


def main():
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        key, certificate = os.path.join(folder, "key.pem"), os.path.join(folder, "crt.pem")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                        "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=localhost", "-keyout",
                        key, "-out", certificate], check=True, stderr=subprocess.DEVNULL)
        for name, test in sorted(globals().items()):
            if not name.startswith("test_"):
                continue
            title = "bench: " + name[5:].replace("_", " ")
            try:
                test(folder, f"{certificate}:{key}")
                print("ok -", title)
            except (AssertionError, OSError, ValueError, subprocess.SubprocessError) as error:
                failed = True
                print("not ok -", title)
                print("#", str(error).replace("\n", "\n# "))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
