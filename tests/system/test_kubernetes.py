#!/usr/bin/env python3
# time-limit: 120
# builds: asan
"""The Kubernetes manifests: rendered, validated, within policy, and their configurations good."""
import json
import os
import re
import shutil
import sys

from lib import certs, gateway, harness
from lib.gateway import Gateway
from lib.harness import (ROOT, Skip, case, expect, expect_equal, expect_match, main, program, run,
                         tool)
from lib.sink import Sink

sys.path.insert(0, os.path.join(ROOT, "tests", "kubernetes"))
OVERLAYS = ("minimal", "isp", "smart-host", "handoff")
HEADLESS = "hikyaku-headless.mail.svc.cluster.local"
FOLDER = os.path.join(ROOT, "deploy", "kubernetes")


def rendered(name):
    try:
        import render  # needs PyYAML
    except ImportError:
        raise Skip("python3-yaml is not there for this Python") from None
    return render.render(os.path.join(FOLDER, "overlays", name))


def of_kind(objects, kind):
    found = [o for o in objects if o["kind"] == kind]
    expect(found, "no", kind)
    return found


def size(text):
    found = re.match(r"(\d+)(m|[KMGT]i?B?)?$", str(text))
    unit = (found[2] or "").rstrip("B")
    return int(found[1]) * {"": 1, "m": 1e-3, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}[unit]


def seconds(text):
    found = re.match(r"(\d+)([smh])$", str(text))
    return int(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]


def recent_kubectl():
    kubectl = tool("kubectl")
    version = run([kubectl, "version", "--client"], status=None).stdout
    if not re.search(r"Kustomize Version: v[5-9]", version):
        raise Skip("this kubectl's kustomize is older than 5")
    return kubectl


@case("our rendering is that of kubectl kustomize, where there is one")
def same_as_kubectl(_):
    kubectl = recent_kubectl()
    import yaml
    for name in OVERLAYS:
        ours = rendered(name)
        text = run([kubectl, "kustomize", os.path.join(FOLDER, "overlays", name)]).stdout
        theirs = [d for d in yaml.safe_load_all(text) if d]

        def by(objects):
            return {(o["kind"], o["metadata"]["name"]): o for o in objects}
        expect_equal(sorted(by(ours)), sorted(by(theirs)), name)
        for key, thing in by(theirs).items():
            expect_equal(json.dumps(by(ours)[key], sort_keys=True),
                         json.dumps(thing, sort_keys=True), f"{name}: {key}")


@case("every object is valid by the schema of its kind")
def valid(folder):
    modules = os.path.join(ROOT, "build", "npm-kubernetes", "node_modules")
    if not os.path.isdir(modules):
        raise Skip("no schemas below build/npm-kubernetes (make deploy-test)")
    for name in OVERLAYS:
        done = run([tool("node"), os.path.join(ROOT, "tests/kubernetes/validate.js")],
                   input=json.dumps(rendered(name)), env=dict(os.environ, NODE_PATH=modules),
                   status=None, seconds=60)
        expect_equal((done.returncode, done.stdout), (0, ""), name)
    broken = rendered("minimal")  # the check finds a mistake
    of_kind(broken, "StatefulSet")[0]["spec"]["replicas"] = "many"
    done = run([tool("node"), os.path.join(ROOT, "tests/kubernetes/validate.js")],
               input=json.dumps(broken), env=dict(os.environ, NODE_PATH=modules), status=1)
    expect_match("replicas", done.stdout)


@case("policy: no root, no privilege, read-only root, limits, nothing of the host")
def policy(_):
    for name in OVERLAYS:
        pods = [o["spec"]["template"]["spec"] for o in rendered(name)
                if o["kind"] in ("StatefulSet", "Deployment", "DaemonSet", "Job")]
        expect(pods, "no pods")
        for pod in pods:
            own = pod["securityContext"]
            expect(own["runAsNonRoot"] and own["runAsUser"] > 1000 and own["fsGroup"] > 1000, own)
            expect(own["seccompProfile"]["type"] in ("Localhost", "RuntimeDefault"), own)
            expect(pod["automountServiceAccountToken"] is False, "a token")
            for key in ("hostNetwork", "hostPID", "hostIPC"):
                expect(not pod.get(key), key)
            for volume in pod["volumes"]:
                expect("hostPath" not in volume, volume)
            for sysctl in own.get("sysctls", []):
                expect(sysctl["name"] in ("net.ipv4.ip_unprivileged_port_start",), sysctl)
            for c in pod["containers"] + pod.get("initContainers", []):
                s = c["securityContext"]
                expect(s["allowPrivilegeEscalation"] is False and not s.get("privileged"), s)
                expect(s["readOnlyRootFilesystem"] is True, s)
                expect_equal(s["capabilities"]["drop"], ["ALL"])
                expect(set(s["capabilities"].get("add", [])) <= {"NET_BIND_SERVICE"}, s)
                for kind in ("requests", "limits"):
                    expect({"cpu", "memory"} <= set(c["resources"][kind]), c["resources"])
                expect(":" in c["image"].rsplit("/", 1)[-1] and not c["image"].endswith(":latest"),
                       c["image"], "is no fixed version")


@case("what an installation needs is there, and fits together")
def complete(_):
    for name in OVERLAYS:
        objects = rendered(name)
        pods = of_kind(objects, "StatefulSet")[0]["spec"]
        labels = pods["template"]["metadata"]["labels"].items()
        expect(pods["selector"]["matchLabels"].items() <= labels, "selector")
        ports = {p["name"] for p in pods["template"]["spec"]["containers"][0]["ports"]}
        services = of_kind(objects, "Service")
        expect(pods["serviceName"] in [s["metadata"]["name"] for s in services], "serviceName")
        public = [s["spec"] for s in services if s["spec"].get("type") == "LoadBalancer"]
        expect_equal([s["externalTrafficPolicy"] for s in public], ["Local"])
        for s in services:
            expect(s["spec"]["selector"].items() <= labels, s)
            expect({p["targetPort"] for p in s["spec"]["ports"]} <= ports, s)
        expect("admin" not in [p["name"] for p in public[0]["ports"]], "admin for the world")
        for kind, path in (("PodDisruptionBudget", "selector"), ("NetworkPolicy", "podSelector")):
            selector = of_kind(objects, kind)[0]["spec"][path]["matchLabels"]
            expect(selector.items() <= labels, kind)
        spec = pods["template"]["spec"]
        expect(spec["affinity"]["podAntiAffinity"] and spec["topologySpreadConstraints"], "spread")
        mounted = {m["name"] for m in spec["containers"][0]["volumeMounts"]}
        have = {v["name"] for v in spec["volumes"]} | \
            {c["metadata"]["name"] for c in pods["volumeClaimTemplates"]}
        expect_equal(mounted, have, "volumes")
        stop = spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
        expect_equal((stop[0], stop[-1]), ("hikyakuctl", "drain"))
    isp = rendered("isp")
    scaler = of_kind(isp, "HorizontalPodAutoscaler")[0]["spec"]
    expect_equal(scaler["scaleTargetRef"]["name"],
                 of_kind(isp, "StatefulSet")[0]["metadata"]["name"])
    expect_equal(of_kind(isp, "Certificate")[0]["spec"]["secretName"], "hikyaku-tls")
    expect(of_kind(isp, "ServiceMonitor") and of_kind(isp, "PrometheusRule"), "monitoring")


@case("each overlay's configuration is good, and fits the pod")
def configurations(folder):
    leaf = certs.leaf("mail.example.com")
    for name in OVERLAYS:
        at = os.path.join(folder, name)
        for sub in ("hikyaku", "hikyaku-tls", "hikyaku-secrets", "hikyaku-peers-tls"):
            os.makedirs(os.path.join(at, sub))
        shutil.copy(leaf.certificate, f"{at}/hikyaku-tls/tls.crt")
        shutil.copy(leaf.key, f"{at}/hikyaku-tls/tls.key")
        peers = certs.leaf(f"*.{HEADLESS}")
        shutil.copy(peers.certificate, f"{at}/hikyaku-peers-tls/tls.crt")
        shutil.copy(peers.key, f"{at}/hikyaku-peers-tls/tls.key")
        shutil.copy(certs.authority(), f"{at}/hikyaku-peers-tls/ca.crt")
        gateway.users_file(f"{at}/hikyaku-secrets/users", {"joe": "a long one", "peer": "another"})
        for secret in ("token", "smart-host-password", "peer-password"):
            with open(f"{at}/hikyaku-secrets/{secret}", "w", encoding="utf-8") as file:
                file.write("0123456789abcdef0123456789abcdef\n")
        objects = rendered(name)
        text = of_kind(objects, "ConfigMap")[0]["data"]["hikyaku.yaml"]
        with open(f"{at}/hikyaku/hikyaku.yaml", "w", encoding="utf-8") as file:
            file.write(text)
        done = run([program("hikyaku"), "--config", f"{at}/hikyaku/hikyaku.yaml", "--check"],
                   env=dict(os.environ, POD_NAME="hikyaku-0"))
        for warning in ("open relay", "clear text", "no certificate is for"):
            expect(warning not in done.stderr, done.stderr)
        import yaml
        conf = yaml.safe_load(text)
        pods = of_kind(objects, "StatefulSet")[0]["spec"]
        container = pods["template"]["spec"]["containers"][0]
        bound = {int(b.rsplit(":", 1)[1]) for c in conf["receive_connectors"] for b in c["bind"]}
        bound.add(int(conf["admin"]["http"].rsplit(":", 1)[1]))
        expect_equal(bound, {p["containerPort"] for p in container["ports"]}, "ports")
        expect_equal(conf["shards"], int(size(container["resources"]["limits"]["cpu"])), "shards")
        claim = pods["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"]
        expect(size(conf["spool"]["max_size"]) + size(conf["spool"]["min_free"]) <= size(claim),
               "the spool may grow past its volume")
        places = [m["mountPath"] for m in container["volumeMounts"]]
        for path in (conf["spool"]["path"], conf["log"]["tracking"], conf["admin"]["socket"]):
            expect(any(path == p or path.startswith(p + "/") for p in places), path)
        drain, handoff = conf["drain"], conf.get("handoff", {})
        need = seconds(drain["accept"]) + seconds(drain["deliveries"]) + \
            (seconds(handoff["timeout"]) if handoff else 0) + 60  # what is under way; the spool
        readiness = container["readinessProbe"]
        expect(pods["template"]["spec"]["terminationGracePeriodSeconds"] >= need, "to drain", need)
        expect(seconds(drain["accept"]) >= readiness["periodSeconds"], "nobody notices")
        proxied = any("proxy_protocol" in c for c in conf["receive_connectors"])
        annotated = any("proxy" in a for s in of_kind(objects, "Service")
                        for a in s["metadata"].get("annotations", {}))
        expect_equal(proxied, annotated, "PROXY protocol on one side only")


@case("hand-off: every pod is a peer by its name, which its certificate has, and can be reached")
def handoff(_):
    objects = rendered("handoff")
    import yaml
    conf = yaml.safe_load(of_kind(objects, "ConfigMap")[0]["data"]["hikyaku.yaml"])
    pods = of_kind(objects, "StatefulSet")[0]
    send = {c["name"]: c for c in conf["send_connectors"]}
    names = [send[p]["smart_hosts"][0]["host"] for p in conf["handoff"]["peers"]]
    service = pods["spec"]["serviceName"]
    expect_equal(f"{service}.{pods['metadata']['namespace']}.svc.cluster.local", HEADLESS)
    way_in, = [c for c in conf["receive_connectors"] if "handoff_accounts" in c]
    port = int(way_in["bind"][0].rsplit(":", 1)[1])
    expect_equal(names, [f"{pods['metadata']['name']}-{i}.{HEADLESS}:{port}"
                         for i in range(pods["spec"]["replicas"])])
    for name in conf["handoff"]["peers"]:
        expect_equal((send[name]["tls"]["level"], send[name]["address_spaces"]), ("verify", []))
        expect_equal([send[name]["auth"]["username"]], way_in["handoff_accounts"])
    expect_equal(way_in["fqdn"], f"${{POD_NAME}}.{HEADLESS}")
    certificate, = [c["spec"] for c in of_kind(objects, "Certificate")
                    if c["spec"].get("dnsNames") == [f"*.{HEADLESS}"]]
    mounts = {v["secret"]["secretName"] for v in pods["spec"]["template"]["spec"]["volumes"]
              if "secret" in v}
    expect(certificate["secretName"] in mounts, mounts)
    headless, = [s["spec"] for s in of_kind(objects, "Service") if s["metadata"]["name"] == service]
    expect(headless["publishNotReadyAddresses"], "one that stops is not found any more")
    expect(port in [p["port"] for p in headless["ports"]], headless)
    policy, = [p["spec"] for p in of_kind(objects, "NetworkPolicy")
               if p["metadata"]["name"] == "hikyaku-peers"]
    for rule in policy["ingress"] + policy["egress"]:
        expect_equal([p["port"] for p in rule["ports"]], [port])


@case("the guide, line by line, as far as no cluster is needed")
def guide(folder):
    kubectl = recent_kubectl()
    text = open(os.path.join(ROOT, "deploy", "README.md"), encoding="utf-8").read()
    text = expect_match(r"\n## Kubernetes\n(.*?)\nWhat to know", text)[1]
    lines = "\n".join(line[7:] for line in text.split("\n") if line.startswith(" " * 7))
    lines = lines[:lines.index("kubectl -n mail rollout")]  # from there on pods have to run
    expect(lines.count("kubectl") == 4 and "--check" in lines, lines)
    shutil.copytree(os.path.join(ROOT, "deploy"), os.path.join(folder, "deploy"),
                    ignore=shutil.ignore_patterns("hikyaku-*", "mine"))
    programs = os.path.join(folder, "programs")
    os.mkdir(programs)
    for name in ("hikyaku", "hikyakuctl"):
        os.symlink(os.path.abspath(program(name)), os.path.join(programs, name))
    with open(os.path.join(programs, "kubectl"), "w", encoding="utf-8") as file:
        file.write(f"""#!/bin/sh
case "$*" in
*create*) {kubectl} "$@" --dry-run=client -o name ;;
"apply -k "*) {kubectl} kustomize "$3" | grep '^kind: StatefulSet' ;;
*) exit 1 ;;
esac
""")
        os.chmod(file.name, 0o755)
    done = run(["bash", "-ec", lines], cwd=folder, status=None,
               env=dict(os.environ, PATH=f"{programs}:{os.environ['PATH']}"))
    expect_equal((done.returncode, done.stdout.split("\n")[-5:-1]),
                 (0, ["namespace/mail", "secret/hikyaku-secrets", "secret/hikyaku-tls",
                      "kind: StatefulSet"]), done.stderr)


@case("probes ask for what the gateway serves")
def probes(folder):
    spec = of_kind(rendered("minimal"), "StatefulSet")[0]["spec"]["template"]["spec"]
    g = Gateway(folder, Sink(folder)).start()
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        probe = spec["containers"][0][kind]["httpGet"]
        expect_equal(probe["port"], "admin")
        expect_equal(g.request("GET", probe["path"], token=False).status, 200, kind)
    command = spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    run([{"hikyakuctl": program("hikyakuctl"), "/run/hikyaku/ctl.sock": g.socket}.get(word, word)
         for word in command])
    expect_equal(g.process.wait(), 0)
    harness.end_all()


if __name__ == "__main__":
    main("kubernetes")
