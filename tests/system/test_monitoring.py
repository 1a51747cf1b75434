#!/usr/bin/env python3
# time-limit: 120
# builds: asan
"""Alerts, runbooks and the dashboard: promtool, and every metric exists in a scrape."""
import json
import os
import re

from lib.gateway import Gateway
from lib.harness import PEERS, ROOT, Skip, case, expect, expect_equal, main, run
from lib.sink import Sink

FOLDER = os.path.join(ROOT, "deploy", "monitoring")


def text_of(*path):
    with open(os.path.join(ROOT, *path), encoding="utf-8") as file:
        return file.read()


def used():
    """name -> where: the metrics of dashboard, alerts and autoscaler."""
    found = {}
    for path in ("deploy/monitoring/dashboard.json", "deploy/monitoring/alerts.yaml"):
        for name in re.findall(r"\bhikyaku_[a-z_]+", text_of(path)):
            found.setdefault(name, path)
    return found


@case("every metric of the dashboard and the alerts is in a scrape of a running gateway")
def exist(folder):
    g = Gateway(folder, Sink(folder)).start()
    have = {re.split(r"[{ ]", line)[0] for line in g.get("/metrics").body.split("\n")
            if line.startswith("hikyaku_")}
    expect(len(used()) > 30, "only", len(used()), "metrics found")
    missing = {n: p for n, p in used().items() if n not in have}
    expect(not missing, "not there:", missing)
    g.stop()


@case("every alert has its runbook page, every page its alert")
def runbooks(_):
    alerts = text_of("deploy/monitoring/alerts.yaml")
    pages = set(re.findall(r"runbook: (docs/runbooks/[a-z-]+\.md)", alerts))
    names = re.findall(r"- alert: (\w+)", alerts)
    expect_equal(len(pages), len(names), "pages and alerts")
    have = {f"docs/runbooks/{n}" for n in os.listdir(os.path.join(ROOT, "docs/runbooks"))}
    expect_equal(have - {"docs/runbooks/README.md"}, pages)
    for page in pages:
        text = text_of(page)
        expect(re.match(r"# (\w+)\n", text)[1] in names, page)
        for part in ("## What it means", "## Where to look", "## What to do"):
            expect(part in text, page, "has no", part)
        for link in re.findall(r"\]\(([a-z-]+\.md)\)", text):
            expect(os.path.exists(os.path.join(ROOT, "docs/runbooks", link)), page, link)
        expect(os.path.basename(page) in text_of("docs/runbooks/README.md"), page, "not listed")


@case("the rules for the Prometheus operator are the same")
def operator(_):
    alerts = text_of("deploy/monitoring/alerts.yaml")
    rule = text_of("deploy/kubernetes/components/monitoring/prometheusrule.yaml")

    def plain(text):  # as parsed, without depending on a parser: words in order
        return text[text.index("groups:"):].split()
    expect_equal(plain(rule), plain(alerts))


@case("the dashboard is one that Grafana imports: ids, places, data source")
def dashboard(_):
    d = json.loads(text_of("deploy/monitoring/dashboard.json"))
    panels = d["panels"]
    expect_equal(len({p["id"] for p in panels}), len(panels), "ids")
    cells = set()
    for p in panels:
        at = p["gridPos"]
        expect(at["x"] + at["w"] <= 24, p["title"], "is too wide")
        mine = {(x, y) for x in range(at["x"], at["x"] + at["w"])
                for y in range(at["y"], at["y"] + at["h"])}
        expect(not mine & cells, p["title"], "lies over another one")
        cells |= mine
        for target in p["targets"]:
            expect("$instance" in target["expr"], p["title"])


@case("the dashboard shows numbers of things as numbers, and the phases of a drain by their names")
def units(_):
    panels = json.loads(text_of("deploy/monitoring/dashboard.json"))["panels"]
    for p in panels:
        rates = [t["expr"] for t in p["targets"] if "rate(" in t["expr"]]
        if p["fieldConfig"]["defaults"]["unit"] in ("reqps", "cps", "Bps"):
            expect(len(rates) == len(p["targets"]), p["title"], "has no rates")
    phases, = [p for p in panels if "hikyaku_drain_phase" in p["targets"][0]["expr"]]
    names = re.search(r"names\[\] = \{(\"none\".*?)\}", text_of("gateway/control_drain.c"))[1]
    options = phases["fieldConfig"]["defaults"]["mappings"][0]["options"]
    expect_equal([options[str(i)]["text"] for i in range(len(options))],
                 re.findall(r'"([a-z-]+)"', names))


@case("promtool: rules are right, each alert fires on what it is for and on nothing else")
def promtool(_):
    tool = os.path.join(PEERS, "prometheus", "usr", "bin", "promtool")
    if not os.path.exists(tool):
        raise Skip("prometheus is not unpacked below build/peers (make deploy-test)")
    run([tool, "check", "rules", "alerts.yaml"], cwd=FOLDER)
    done = run([tool, "test", "rules", "alerts_test.yaml"], cwd=FOLDER, status=None)
    expect_equal(done.returncode, 0, done.stdout + done.stderr)
    names = re.findall(r"- alert: (\w+)", text_of("deploy/monitoring/alerts.yaml"))
    tested = text_of("deploy/monitoring/alerts_test.yaml")
    expect_equal([n for n in names if f'alertname="{n}"' not in tested], [], "without a test")


if __name__ == "__main__":
    main("monitoring")
