#!/usr/bin/env python3
# time-limit: 400
# builds: release - other servers stand beside a quick build
"""The benchmark suite with another mail server beside the gateway. Nothing is measured here: that
Postfix starts, takes mail over TLS with resumed sessions, relays, is counted and is gone."""
import glob
import json
import os

from lib import peers
from lib.harness import case, expect, expect_equal, main, program, run

SUBMISSION = """
title = "Submission"
about = "For the test."
tls = true
peers = true
[[case]]
name = "resumed"
load = ["--sessions", "4", "--messages", "40", "--tls", "starttls", "--resume"]
goals = [{ metric = "cpu_us", against = "postfix", times_less = 0.001 },
         { metric = "cpu_us", against = "exim", times_less = 6.0 }]
"""
RELAY = """
title = "Relay"
about = "For the test."
kind = "relay"
peers = true
[[case]]
name = "to a sink"
load = ["--sessions", "4", "--messages-per-session", "10"]
messages = 80
peer_messages = 40
"""


def suite(folder, *words):
    out = os.path.join(folder, "out")
    done = run([program("hikyaku-bench"), "run", *words, "--rounds", "1", "--seconds", "20",
                "--out", out, "--disk", folder, "--server-core", "", "--load-core", ""],
               seconds=300, status=None)
    expect_equal(done.returncode, 0, done.stderr)
    with open(os.path.join(out, "result.json"), encoding="utf-8") as file, \
            open(os.path.join(out, "report.md"), encoding="utf-8") as report:
        return json.load(file), report.read()


def groups_left():
    """Control groups of suites that are no more."""
    groups = glob.glob("/sys/fs/cgroup/**/hikyaku-bench-*", recursive=True)
    return {g for g in groups if not os.path.exists(f"/proc/{g.split('-')[-2]}")}


def scenario_file(folder, name, text):
    path = os.path.join(folder, name)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


@case("Postfix submits and relays beside the gateway", limit_s=360)
def postfix(folder):
    peers.namespaces()
    peers.peer("postfix")
    before = groups_left()
    result, report = suite(folder, scenario_file(folder, "submission.toml", SUBMISSION),
                           scenario_file(folder, "relay.toml", RELAY), "--peers", "postfix")
    found = result["peers"]["postfix"]
    expect("3." in found["version"], found)
    if found["syncs"] is not None:  # else strace is not here
        expect(0.9 <= found["syncs"] < 4, "it syncs each message:", found)
    by_name = {s["name"]: s["cases"][0] for s in result["scenarios"]}
    for name, acked in (("submission", 40), ("relay", 40)):
        expect_equal(by_name[name]["unable"], {}, name)
        figures, = by_name[name]["samples"]["postfix"]
        expect_equal((figures["acked"], figures["errors"]), (acked, 0), name)
        expect(figures["cpu_us"] > 0, name, figures)
    goals = by_name["submission"]["goals"]
    expect_equal([g["met"] for g in goals], [True, False], goals)
    expect("exim: not measured" in report and "| resumed | postfix |" in report, report)
    expect_equal(groups_left() - before, set(), "control groups left behind")


@case("a peer that is not there is named, and the gateway measured all the same", limit_s=120)
def missing(folder):
    os.environ["HIKYAKU_PEERS"] = os.path.join(folder, "nothing")
    try:
        result, report = suite(folder, scenario_file(folder, "relay.toml", RELAY), "--peers",
                               "postfix")
    finally:
        del os.environ["HIKYAKU_PEERS"]
    only = result["scenarios"][0]["cases"][0]
    expect("postfix" in only["unable"] and "postfix did not do it" in report, report)
    expect_equal(only["samples"]["gateway"][0]["acked"], 80)


if __name__ == "__main__":
    main("bench peers")
