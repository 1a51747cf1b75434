#!/usr/bin/env python3
# builds: release - its figures are those of a quick build
"""hikyaku-bench run and compare: every scenario file can be read, a short run measures and reports
what it says, a comparison finds a planted change and no change where there is none."""
import copy
import glob
import html.parser
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BENCH = os.path.join(os.environ.get("HIKYAKU_BUILD", os.path.join(ROOT, "build")), "hikyaku-bench")
sys.path.insert(0, os.path.join(ROOT, "bench", "suite"))
import account  # noqa: E402
import compare  # noqa: E402
import measure  # noqa: E402
import report_html  # noqa: E402
import report_text  # noqa: E402
import scenario  # noqa: E402
from lib.harness import until  # noqa: E402

SHORT = """
title = "Short"
about = "For the test."
[[case]]
name = "a few"
load = ["--sessions", "10", "--messages-per-session", "10", "--pipeline"]
goals = [{ metric = "cpu_us", against = "null", most = 1000.0 }, { metric = "rate", most = 0.0 }]
[[case]]
name = "at a rate"
load = ["--sessions", "10", "--messages-per-session", "1", "--rate", "50"]
[[case]]
name = "large"
cores = 100000
"""


SPREAD = """
kind = "spread"
about = "For the test."
[[case]]
name = "apart"
shards = 2
cores = 2
apart = true
sessions = 8
load = ["--messages-per-session", "5"]
[[case]]
name = "one"
shards = 2
cores = 2
sessions = 8
load = ["--messages-per-session", "5"]
goals = [{ metric = "cpu_us", against = "apart", most = 1000.0 }]
"""


def bench(*words):
    return subprocess.run([BENCH, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, timeout=120, check=False)


def write(folder, name, text):
    path = os.path.join(folder, name)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text if isinstance(text, str) else json.dumps(text))
    return path


def test_every_scenario_can_be_read(_):
    assert len(scenario.names()) >= 10
    for name in scenario.names():
        one = scenario.load(name)
        assert one.about and one.title, name
        shown = bench("run", "--help").stdout
        assert name in shown, "the help lists every scenario"


def test_a_broken_scenario_is_named(folder):
    for text, what in (("title = 1\n[[case]]\n", "without a name"), ("[[case]\n", "short.toml"),
                       ('[[case]]\nname = "a"\nlaod = []\n', "unknown key 'laod'"),
                       ('kind = "other"\n[[case]]\nname = "a"\n', "none of load")):
        done = bench("run", write(folder, "short.toml", text))
        assert done.returncode == 2 and what in done.stderr, done.stderr
        assert len(done.stderr.strip().split("\n")) == 1, done.stderr
    assert "100 sessions, 50 messages each" in bench("run", "--list").stdout


def test_wrong_words_are_answered_before_anything_is_started(folder):
    plain = write(folder, "plain", "a file")
    for words in (["nothing-of-this-name"], ["ingest", "--peers", "sendmail"],
                  ["ingest", "--rounds", "0"], ["ingest", "--seconds", "-1"],
                  ["ingest", "--seconds", "0"], ["ingest", "--minutes", "-1"],
                  ["ingest", "--minutes", "nan"], ["ingest", "--server-core", "abc"],
                  ["ingest", "--load-core", "99999"], ["ingest", "--baseline", folder],
                  ["ingest", "--disk", os.path.join(folder, "missing")],
                  ["ingest", "--out", plain], ["ingest", "--out", "/proc/missing"]):
        done = bench("run", "--disk", folder, "--out", os.path.join(folder, "out"), *words)
        assert done.returncode == 2, (words, done.stderr)
        what = f"{words[1]}:" if words[1:] else "no scenario"
        assert f"hikyaku-bench run: {what}" in done.stderr, (words, done.stderr)
        assert len(done.stderr.strip().split("\n")) == 1, (words, done.stderr)
        assert not done.stdout, done.stdout


def test_passwords_go_over_tls_alone(_):
    class Server:
        host, port, implicit, submission, pid = "127.0.0.1", 1, 2, 3, 4
    for options, port, auth in (([], 1, False), (["--tls", "starttls"], 3, True),
                                (["--tls", "implicit"], 2, True)):
        words = measure.load_words(Server, options, True, None)
        assert words[2] == f"127.0.0.1:{port}" and ("--auth" in words) == auth, words
    Server.login = "bench@bench.test"  # where names have domains
    assert "bench@bench.test:bench-password" in measure.load_words(Server, options, True, None)


class Tags(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.seen, self.outside = [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.outside += [v for k, v in attrs if k in ("src", "href")]


def test_a_run_measures_and_reports(folder):
    out = os.path.join(folder, "out")
    words = ["run", write(folder, "short.toml", SHORT), "--rounds", "1", "--seconds", "1",
             "--baseline", os.path.dirname(BENCH), "--out", out, "--disk", folder,
             "--server-core", "", "--load-core", ""]
    done = bench(*words)
    assert done.returncode == 0, done.stderr
    with open(os.path.join(out, "result.json"), encoding="utf-8") as file:
        result = json.load(file)
    few, rate, large = result["scenarios"][0]["cases"]
    assert few["samples"]["baseline"][0]["acked"] > 10
    assert "takes 100000 cores" in large["unable"]["gateway"], large
    assert result["machine"]["kernel"] and result["machine"]["cpu_counted_by"], result["machine"]
    own = few["samples"]["gateway"][0]
    assert own["acked"] > 10 and own["errors"] == 0 and own["cpu_us"] > 0, own
    assert 0 < own["syncs"] <= 1.5 and own["syscalls"] > 0, own
    assert few["samples"]["null"][0]["cpu_us"] > 0
    assert [goal["met"] for goal in few["goals"]] == [True, False], few["goals"]
    assert 10 <= rate["samples"]["gateway"][0]["acked"] <= 52, "50 a second for a second"
    assert rate["samples"]["gateway"][0]["open_p99_ms"] > 0
    with open(os.path.join(out, "report.html"), encoding="utf-8") as file:
        tags = Tags()
        page = file.read()
    tags.feed(page)
    assert "</b>, met</li>" in page and "</b>, not met</li>" in page, "not by colour alone"
    assert "svg" in tags.seen and "table" in tags.seen and not tags.outside
    with open(os.path.join(out, "report.md"), encoding="utf-8") as file:
        text = file.read()
    assert "| a few | gateway |" in text and "**not met" not in text and "not met" in text
    assert "large: gateway did not do it: it takes 100000 cores" in text
    with open(os.path.join(out, "raw.jsonl"), encoding="utf-8") as file:
        raw = [json.loads(line) for line in file]
    assert {(line["case"], line["server"]) for line in raw} == {
        ("a few", "gateway"), ("a few", "baseline"), ("a few", "null"), ("at a rate", "gateway"),
        ("at a rate", "baseline"), ("at a rate", "null")}, raw
    assert all(line["result"]["acked"] for line in raw)
    done = bench(*words, "--resume")  # nothing is left to do
    assert done.returncode == 0 and "of 1)" not in done.stderr, done.stderr
    with open(os.path.join(out, "result.json"), encoding="utf-8") as file:
        assert json.load(file)["scenarios"] == result["scenarios"]


def running_in(group):
    """Names of a process group's processes, without those that only wait to be counted out."""
    found = []
    for path in glob.glob("/proc/[0-9]*/stat"):
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                name, rest = file.read().split("(", 1)[1].rsplit(")", 1)
        except OSError:
            continue
        if int(rest.split()[2]) == group and rest.split()[0] not in "ZX":
            found.append(name)
    return found


def test_ctrl_c_leaves_nothing_behind(folder):
    out = os.path.join(folder, "out")
    process = subprocess.Popen(
        [BENCH, "run", write(folder, "short.toml", SHORT), "--seconds", "60", "--rounds", "1",
         "--out", out, "--disk", folder, "--server-core", "", "--load-core", ""],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert "a few: gateway" in process.stderr.readline()
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, errors = process.communicate(timeout=120)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130 and "Traceback" not in errors, errors
    assert f"ended; {out} has the rounds that were whole" in errors, errors
    assert sorted(os.listdir(folder)) == ["out", "short.toml"], os.listdir(folder)
    with open(os.path.join(out, "result.json"), encoding="utf-8") as file:
        assert json.load(file)["scenarios"][0]["rounds"] == 0
    until(lambda: not running_in(process.pid), "nothing of it runs any more")


def test_shards_of_one_process_against_processes(folder):
    out = os.path.join(folder, "out")
    done = bench("run", write(folder, "spread.toml", SPREAD), "--rounds", "1", "--seconds", "1",
                 "--out", out, "--disk", folder)
    assert done.returncode == 0, done.stderr
    with open(os.path.join(out, "result.json"), encoding="utf-8") as file:
        apart, one = json.load(file)["scenarios"][0]["cases"]
    if os.cpu_count() < 2:
        assert "takes 2 cores" in one["unable"]["gateway"], one
        return
    with open(os.path.join(out, "raw.jsonl"), encoding="utf-8") as file:
        raw = [json.loads(line) for line in file]
    for case, gateways in ((apart, 2), (one, 1)):
        figures = case["samples"]["gateway"][0]
        loads = [line for line in raw if line["case"] == case["name"]]
        assert len(loads) == 4, "from both cores to both"
        assert len({line["command"][line["command"].index("--to") + 1]
                    for line in loads}) == gateways, loads
        assert figures["acked"] == sum(line["result"]["acked"] for line in loads) > 0
        assert figures["cpu_us"] > 0 and 0 < figures["syncs"] <= 1.5, figures
    assert one["goals"][0]["met"], one
    assert sorted(os.listdir(folder)) == ["out", "spread.toml"], "nothing is left behind"


def test_pairs_run_at_the_same_time(folder):
    build = os.path.dirname(BENCH)
    words = [os.path.join(ROOT, "bench", "pairs"), build, "null", "--rounds", "2", "--seconds", "1",
             "--sessions", "5", "--disk", folder, "--server-core", "", "--load-core", "", "--"]
    done = subprocess.run([*words, "--messages-per-session", "10"], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    rows = [line.split("|")[1:-1] for line in done.stdout.strip().split("\n")[2:]]
    assert [row[0].strip() for row in rows] == [build, "null"], done.stdout
    assert rows[0][2].strip() == "1" and "±" in rows[1][2], done.stdout
    assert all(float(row[1].split(",")[0]) > 0 for row in rows), done.stdout
    assert os.listdir(folder) == [], "nothing is left behind"
    done = subprocess.run([*words, "--nonsense"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, timeout=120, check=False)
    assert done.returncode == 1 and "pairs: " in done.stderr, done.stderr


def test_the_first_figures_are_a_table(folder):
    words = [os.path.join(ROOT, "bench", "figures"), "--spool", folder, "--seconds", "1"]
    done = subprocess.run([*words, "--rounds", "1", "--idle", "20", "--relay", "200"],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=120,
                          check=False)
    assert done.returncode == 0, done.stderr
    rows = [line.split("|")[1:-1] for line in done.stdout.split("\n") if line.startswith("| ")]
    for row in [row for row in rows if row[0].startswith((" 100", " the same"))]:
        cpu, null, ratio = (float(cell) for cell in row[2:5])
        assert null > 0 and abs(cpu / null - ratio) < 0.05, done.stdout
    assert [row[0].strip() for row in rows[-2:]] == ["full", "resumed"], done.stdout
    assert "with 20 of 20 held" in done.stdout and "Relay end to end" in done.stdout, done.stdout
    assert os.listdir(folder) == [], "nothing is left behind"
    done = subprocess.run([*words, "--rounds", "0"], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == 2 and "must be 1 or more" in done.stderr, done.stderr


def test_every_micro_benchmark_runs(folder):
    pair = [os.path.join(folder, name) for name in ("tls.crt", "tls.key")]
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                    "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=bench.test", "-keyout",
                    pair[1], "-out", pair[0]], check=True, stderr=subprocess.DEVNULL)
    done = bench("micro", "--seconds", "1", "--json", "--certificate", pair[0], "--key", pair[1],
                 "--dir", folder)
    assert done.returncode == 0, done.stderr
    cases = {case["name"]: case for case in json.loads(done.stdout)}
    assert {"crc32c", "dots-short", "commands", "record", "route", "permit",
            "tls-record", "commit-1", "commit-16", "commit-64"} <= set(cases)
    assert all(cases[f"commit-{n}"]["disk_ns"] > 0 for n in (1, 16, 64)), cases
    assert not [name for name in os.listdir(folder) if name.startswith("hikyaku-micro")]
    assert all(case["ns"] > 0 for case in cases.values())
    assert cases["dots-long"]["mb_per_second"] < 20 * cases["copy-cached"]["mb_per_second"]
    assert bench("micro", "--certificate", pair[0]).returncode == 2


def result_of(cpu, null, seed):
    chance = random.Random(seed)
    def noisy(middle):
        return [{"cpu_us": middle * chance.uniform(0.97, 1.03)} for _ in range(9)]
    return {"rounds": 9, "seconds": 1, "version": "v", "time": "t", "command": "c",
            "cores": {"server": "0", "load": "1"},
            "machine": {"cores": 2, "processor": "p", "kernel": "k", "file_system": "f",
                        "load_average": 0.0},
            "scenarios": [{"name": "s", "title": "S", "about": "", "kind": "load", "cases": [
                {"name": "c", "samples": {"gateway": noisy(cpu), "null": noisy(null)},
                 "goals": []}]}]}


def test_compare_tells_change_from_noise(folder):
    before = write(folder, "before.json", result_of(40, 30, 1))
    for cpu, null, status, word in ((40, 30, 0, ""), (50, 30, 1, "worse"), (30, 30, 0, "better"),
                                    (60, 45, 0, "")):  # all got slower alike: the machine did
        after = write(folder, "after.json", result_of(cpu, null, 2))
        done = bench("compare", before, after)
        assert done.returncode == status and word in done.stdout, (cpu, null, done.stdout)
        assert ("worse" in done.stdout) == (status == 1), done.stdout
    assert bench("compare", before, os.path.join(folder, "missing")).returncode == 2
    assert bench("compare", before).returncode == 2, "it has no baseline"
    for name, text in (("empty.json", {}), ("list.json", []), ("text.json", "text")):
        done = bench("compare", before, write(folder, name, text))
        assert done.returncode == 2 and name in done.stderr, done.stderr
        assert len(done.stderr.strip().split("\n")) == 1, done.stderr
    assert bench("compare", before, before, "--threshold", "-1").returncode == 2
    for factor, status in ((1.0, 0), (1.2, 1)):
        paired = result_of(40, 30, 1)
        servers = paired["scenarios"][0]["cases"][0]["samples"]
        # as noisy as can be, but in pairs
        servers["baseline"] = [{"cpu_us": 40 * (1 + i)} for i in range(9)]
        servers["gateway"] = [{"cpu_us": s["cpu_us"] * factor} for s in servers["baseline"]]
        done = bench("compare", write(folder, "paired.json", paired))
        assert done.returncode == status, done.stdout
    few = copy.deepcopy(result_of(40, 30, 1))
    few["scenarios"][0]["cases"][0]["samples"]["gateway"] = [{"cpu_us": 1}]
    done = bench("compare", before, write(folder, "few.json", few))
    assert done.returncode == 2 and "repeats" in done.stderr


def test_many_noisy_rows_are_no_regression(_):
    def result(seed):
        chance = random.Random(seed)
        return {"scenarios": [{"name": "s", "cases": [
            {"name": str(row), "samples": {"gateway": [
                {"rate": 1000 * chance.lognormvariate(0, 0.08)} for _ in range(5)]}}
            for row in range(20)]}]}
    words = [row[-1] for row in compare.rows([result(3), result(1003)], 0.03)]
    assert len(words) == 20 and "worse" not in words, words


def test_cpu_of_processes_that_ended_is_counted(_):
    work = "sh -c 'i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done'; exec sleep 100"
    for mounts in (account.MOUNTS, os.devnull):  # with a control group, where one can be had
        account.MOUNTS, usual = mounts, account.MOUNTS
        one = account.Account()
        account.MOUNTS = usual
        assert mounts != os.devnull or one.kind == "/proc"
        process = subprocess.Popen(one.words(["sh", "-c", work]))
        try:
            end, counted = time.monotonic() + 60, 0
            while counted < 0.05 and time.monotonic() < end:
                time.sleep(0.05)
                counted = one.seconds(process.pid)
            assert counted >= 0.05, (one.kind, counted)
            one.quiet(process.pid, 60)
            assert one.seconds(process.pid) < 60, one.kind
        finally:
            process.kill()
            process.wait()
            one.close()
        assert one.folder is None, "the group is gone"


def test_reports_escape_what_they_show(_):
    result = result_of(40, 30, 1)
    result["scenarios"][0]["title"] = "<script>"
    assert "<script>" not in report_html.page(result)
    assert "| c | gateway |" in report_text.markdown(result)


def main():
    tests = [(name, test) for name, test in globals().items() if name.startswith("test_")]
    failed = 0
    for name, test in tests:
        with tempfile.TemporaryDirectory(prefix="hikyaku-suite-") as folder:
            try:
                test(folder)
                print(f"ok - bench suite: {name[5:].replace('_', ' ')}", flush=True)
            except Exception as error:  # pylint: disable=broad-except
                failed += 1
                print(f"not ok - bench suite: {name[5:].replace('_', ' ')}\n# {error!r}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
