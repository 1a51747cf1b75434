"""One measurement of one case on one server: a flat dictionary of figures."""
import json
import os
import subprocess
import time
import urllib.error
import urllib.request

from account import machine_busy_seconds
from peers import Peer, Unable
from servers import PASSWORD, USER, Gateway, HeldHop, Null, RunError, Sink, note

WARM_UP_TRIES = 80
WARM_UP_S, WARM_UP_RELAYED, WARM_UP_PATIENCE_S = 1, 100, 15
METRICS_AGE_S = 1.2
QUIET_S = {"gateway": 1, "null": 1}
QUIET_PEER_S = 10
SINK_S = 180


def bench_json(bench, *words, core=None):
    """The one line of JSON that a hikyaku-bench command prints."""
    done = subprocess.run(bench.pinned(core or bench.load_core, [bench.program, *words, "--json"]),
                          stdout=subprocess.PIPE, text=True, check=False)
    if not done.stdout:
        raise RunError(f"hikyaku-bench {' '.join(words)} failed")
    result = json.loads(done.stdout)
    bench.raw(["hikyaku-bench", *words], result)
    return result


def at_once(commands):
    """What loads that run at the same time print, each one line of JSON."""
    running = [subprocess.Popen(one, stdout=subprocess.PIPE, text=True) for one in commands]
    return [json.loads(one.communicate()[0] or "{}") for one in running]


def credentials(server):
    return ["--auth", f"{getattr(server, 'login', USER)}:{PASSWORD}"]


def port_of(server, options):
    if "starttls" in options:
        return server.submission
    return server.implicit if "implicit" in options else server.port


def load_words(server, options, tls, seconds):
    words = ["load", "--to", f"{server.host}:{port_of(server, options)}", "--server-pid",
             str(server.pid), *options]
    words += credentials(server) if tls and "--tls" in options else []
    return [*words, "--seconds", str(seconds)] if seconds else words


def load(bench, server, options, tls, seconds=None, quiet=True):
    """Result of the load; CPU is that of all processes until they have nothing left to do."""
    if port_of(server, options) is None:
        raise Unable(f"{server.name} is not set up for implicit TLS")
    cpu, (busy, stolen), begun = server.cpu_seconds(), machine_busy_seconds(), time.monotonic()
    kernel = server.account.kernel_seconds(server.pid)
    result = bench_json(bench, *load_words(server, options, tls, seconds))
    wall, (busy_after, stolen_after) = time.monotonic() - begun, machine_busy_seconds()
    in_time = server.cpu_seconds() - cpu
    if quiet:
        server.account.quiet(server.pid, QUIET_S.get(server.name, QUIET_PEER_S))
    if "server" in result and result["acked"]:
        used = server.cpu_seconds() - cpu
        result["server"]["cpu_us_per_message"] = used * 1e6 / result["acked"]
        if kernel is not None and used > 0:
            kernel = server.account.kernel_seconds(server.pid) - kernel
            result["server"]["kernel_share"] = kernel / used
    others = busy_after - busy - in_time - result["generator_share"] * wall
    result["others"] = max(0.0, others) / wall / os.cpu_count()
    result["stolen"] = (stolen_after - stolen) / wall / os.cpu_count()
    if result["errors"] or result["refusals"] or result["lost"]:
        note(f"load had errors: {troubles(result)}")
        if isinstance(server, Peer) and not merely_slow(result):
            raise Unable(troubles(result))
    return result


def unfinished(result):
    """Sessions that were cut off behind the end of the time; what they did is in the CPU."""
    return sum(count for name, count in result["errors"].items()
               if name.startswith("unfinished at the end"))


def merely_slow(result):
    """Nothing went wrong but that, and not with most of the sessions."""
    return result["acked"] and not result["refusals"] \
        and unfinished(result) == sum(result["errors"].values()) <= result["sessions"] / 2


def check_resumed(result, options):
    """A server that resumes nothing shall not stand among those that do. The first connection of
    each session has nothing to resume."""
    resumed, could = result["tls_resumed"], result["tls_handshakes"] - result["sessions"]
    if "--resume" in options and resumed <= could / 2:
        raise Unable(f"it resumed {resumed} sessions, where {max(0, could)} could have been")


def troubles(result):
    """What went wrong, the most frequent first."""
    kinds = sorted((*result["errors"].items(), *result["refusals"].items()), key=lambda k: -k[1])
    text = "; ".join(f"{count} x {name}" for name, count in kinds[:3])
    return f"{text or result['lost']} lost or refused, {result['acked']} acknowledged"


def figures(result):
    """What is kept of a load's result, by the names that goals and reports use."""
    flat = {"rate": result["messages_per_second"], "acked": result["acked"],
            "connections_per_second": result["connections_per_second"],
            "mb_per_second": result["bytes_sent"] / result["seconds"] / 1e6,
            "errors": sum(result["errors"].values()) + sum(result["refusals"].values())
                      - unfinished(result), "unfinished": unfinished(result),
            "others": result["others"], "stolen": result["stolen"],
            "generator_was_limit": int(result["generator_was_limit"])}
    if result["tls_resumed"]:
        flat["resumed_share"] = result["tls_resumed"] / result["tls_handshakes"]
    for name in ("eod", "open", "session"):
        if result[f"{name}_ms"]["count"]:
            for quantile in ("p50", "p99", "p99_9", "p99_99"):
                flat[f"{name}_{quantile}_ms"] = result[f"{name}_ms"][quantile]
    if "server" in result:
        flat["cpu_us"] = result["server"]["cpu_us_per_message"]
        flat["rss_mib"] = result["server"]["rss_bytes"] / 1048576
        flat["pss_mib"] = result["server"]["pss_bytes"] / 1048576
        flat["processes"] = result["server"]["processes"]
        if "kernel_share" in result["server"]:
            flat["kernel_share"] = result["server"]["kernel_share"]
        if result["acked"]:
            flat["switches"] = result["server"]["switches"] / result["acked"]
    return flat


def counted(server, before, flat):
    """What the gateway itself counted, a message. Its gauges are a second old at most."""
    time.sleep(METRICS_AGE_S)
    after, messages = server.metrics(), flat["acked"]
    if messages:
        for name, metric in (("syncs", "spool_commits_total"), ("syscalls", "loop_enters_total"),
                             ("written_bytes", "spool_written_bytes_total")):
            if metric in after:
                flat[name] = (after[metric] - before.get(metric, 0)) / messages
    return flat


def warm_up(bench, server, tls, options=()):
    """One session: its port answers, and the password is known from then on. Peers get their load
    for a second: they start processes, or compile, with the first of it."""
    if isinstance(server, Peer):
        load(bench, server, [*options, "--timeout", str(WARM_UP_PATIENCE_S)], tls, WARM_UP_S)
        return
    if not tls:
        return
    for _ in range(WARM_UP_TRIES):
        done = bench_json(bench, "load", "--to", f"127.0.0.1:{server.submission}", "--sessions",
                          "1", "--messages", "1", "--tls", "starttls", *credentials(server))
        if done["acked"]:
            return
        time.sleep(0.05)
    raise RunError(f"no submission on port {server.submission}")


class Background:
    """Another load at the same time, on no core of its own; ended with its block. No options: none.
    """

    def __init__(self, bench, server, options):
        self.process = None
        if not options:
            return
        words = ["load", "--to", f"{server.host}:{port_of(server, options)}", "--seconds", "120",
                 "--from", "noisy%@bench.test", *options]
        self.process = subprocess.Popen(bench.pinned(bench.load_core, [bench.program, *words]),
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(0.5)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process:
            self.process.kill()
            self.process.wait()


# ---- kinds ---------------------------------------------------------------------------------------

def run_load(bench, scenario, case, server_name, args, known):
    """The load alone; deliveries are held back."""
    options = list(case.load)
    if case.half_rate:
        if "half_rate" not in known:
            known["half_rate"] = max(1, int(half_rate(bench, scenario, case, args)))
        options += ["--rate", str(known["half_rate"])]
    if server_name == "null":
        with Null(bench) as server, Background(bench, server, case.background):
            return figures(load(bench, server, options, scenario.tls, args.seconds))
    if server_name != "gateway":
        with HeldHop(bench), Peer(bench, server_name, case.key) as server:
            warm_up(bench, server, scenario.tls, options)
            result = load(bench, server, options, scenario.tls, args.seconds)
            check_resumed(result, options)
            return figures(result)
    with HeldHop(bench), Gateway(bench, case.shards, case.key) as server:
        warm_up(bench, server, scenario.tls)
        before = server.metrics()
        if not case.background:
            flat = counted(server, before,
                           figures(load(bench, server, options, scenario.tls, args.seconds)))
            known["sync_rate"] = flat["rate"] * flat.get("syncs", 0)
            return flat
        with Background(bench, server, case.background):
            return figures(load(bench, server, options, scenario.tls, args.seconds, quiet=False))


def half_rate(bench, scenario, case, args):
    """Half of what a closed loop reaches."""
    with HeldHop(bench), Gateway(bench, case.shards, case.key) as server:
        warm_up(bench, server, scenario.tls)
        return load(bench, server, case.load, scenario.tls,
                    args.seconds)["messages_per_second"] / 2


def run_relay(bench, scenario, case, server_name, args, known):
    """Until the sink has every message that goes there. The null server is only handed the load:
    goals are multiples of what taking a message costs at least."""
    del args, known
    options, expected = [*case.load, "--messages", str(case.messages)], case.messages
    if server_name == "null":
        with Null(bench) as server:
            return figures(load(bench, server, options, scenario.tls))
    if server_name != "gateway":
        with Peer(bench, server_name, case.key, held=False) as server:
            relay_until(bench, scenario, server, [*case.load, "--timeout", str(WARM_UP_PATIENCE_S)],
                        WARM_UP_RELAYED, WARM_UP_RELAYED)
            return relay_until(bench, scenario, server, case.load, case.peer_messages,
                               case.peer_messages)
    sent = expected
    if case.second_hop:
        options = [*case.load, "--to-pattern", "user@d%.test", "--to-count", "2"]
        expected = sent // 2
    else:
        options = case.load
    if case.second_hop != "slow":
        with Gateway(bench, case.shards, case.key) as server:
            return relay_until(bench, scenario, server, options, sent, expected)
    delays = [word for phase in ("ehlo", "mail", "rcpt", "data", "eod")
              for word in ("--delay-ms", f"{phase}=2000")]
    with Sink(bench, "other", *delays), Gateway(bench, case.shards, case.key) as server:
        return relay_until(bench, scenario, server, options, sent, expected)


def relay_until(bench, scenario, server, options, sent, expected):
    """From the first message to the last one's arrival at the sink, and all that is left to do."""
    with Sink(bench, "sink", "--messages", str(expected)) as sink:
        before, begun = server.cpu_seconds(), time.monotonic()
        result = load(bench, server, [*options, "--messages", str(sent)], scenario.tls, quiet=False)
        try:
            sink.process.wait(timeout=SINK_S)
        except subprocess.TimeoutExpired as error:
            kind = Unable if isinstance(server, Peer) else RunError
            raise kind(f"the sink did not get all messages within {SINK_S} s") from error
        wall = time.monotonic() - begun
        server.account.quiet(server.pid, QUIET_S.get(server.name, QUIET_PEER_S))
        flat = figures(result)
        for name in ("others", "kernel_share"):  # the sink's work; a part of the time only
            flat.pop(name, None)
        flat.update(rate=expected / wall, cpu_us=(server.cpu_seconds() - before) * 1e6 / sent)
        return flat


def run_idle(bench, scenario, case, server_name, args, known):
    """Memory for each held session, and ingest beside them as a share of ingest without."""
    del server_name, known
    options = ["--sessions", "100", "--messages-per-session", "50"]
    with HeldHop(bench), Gateway(bench, case.shards, case.key) as server:
        warm_up(bench, server, scenario.tls)
        alone = load(bench, server, options, False, args.seconds)
    hold = str(args.seconds + 15)
    with HeldHop(bench), Gateway(bench, case.shards, case.key) as server:
        warm_up(bench, server, scenario.tls)
        words = [bench.program, "idle", "--to", f"127.0.0.1:{server.submission}", "--sessions",
                 str(case.sessions), "--tls", "starttls", *credentials(server), "--hold", hold,
                 "--source-ips", "20", "--server-pid", str(server.pid), "--json"]
        holder = subprocess.Popen(bench.pinned(bench.load_core, words), stdout=subprocess.PIPE,
                                  text=True)
        wait_for_sessions(server, case.sessions)
        beside = load(bench, server, options, False, args.seconds, quiet=False)
        held = json.loads(holder.communicate(timeout=180)[0])
    return {"kib_per_session": held["rss_per_session"] / 1024, "stayed": held["stayed"],
            "ingest_share": alone["server"]["cpu_us_per_message"] /
            beside["server"]["cpu_us_per_message"]}


def wait_for_sessions(server, count):
    for _ in range(600):
        if server.metrics().get("sessions", 0) >= count:
            return
        time.sleep(0.1)
    raise RunError(f"{count} sessions did not come up within 60 s")


def fill(bench, server, case):
    load(bench, server, ["--sessions", "100", "--messages-per-session", "50", "--pipeline",
                         "--messages", str(case.messages)], False)


def run_recovery(bench, scenario, case, server_name, args, known):
    """From the start of the process to ready, and to the first old message at the sink."""
    del scenario, server_name, args, known
    with HeldHop(bench), Gateway(bench, case.shards) as server:
        fill(bench, server, case)
    with Sink(bench, "sink", "--messages", "1") as sink:
        begun = time.monotonic()
        with Gateway(bench, case.shards, fresh=False) as server:
            ready = until_ready(server, begun)
            sink.process.wait(timeout=60)
            first = time.monotonic() - begun
            rss = server.metrics().get("queue_messages", 0)
    return {"ready_ms": ready * 1000, "first_delivery_ms": first * 1000, "queued": rss}


def until_ready(server, begun):
    while time.monotonic() - begun < 60:
        try:
            url = f"http://127.0.0.1:{server.admin}/readyz"
            with urllib.request.urlopen(url, timeout=5) as answer:
                if answer.status == 200:
                    return time.monotonic() - begun
        except (urllib.error.URLError, OSError):
            time.sleep(0.002)
    raise RunError("not ready within 60 s")


def run_deep(bench, scenario, case, server_name, args, known):
    """CPU a message with an empty spool as a share of that with a deep queue."""
    del scenario, server_name, known
    with HeldHop(bench), Gateway(bench, case.shards) as server:
        empty = figures(load(bench, server, case.load, False, args.seconds))
        fill(bench, server, case)
        deep = figures(load(bench, server, case.load, False, args.seconds))
    return {**deep, "empty_cpu_us": empty["cpu_us"], "empty_rate": empty["rate"],
            "share": empty["cpu_us"] / deep["cpu_us"]}


KINDS = {"load": run_load, "relay": run_relay, "idle": run_idle, "recovery": run_recovery,
         "deep": run_deep}


# ---- floors --------------------------------------------------------------------------------------

def run_raw(bench, case, args):
    """wolfSSL's handshake, the server's side of it, plus a null server's message: the ceiling."""
    pair = bench.pair(case.key)
    options = ["--resume"] if "--resume" in case.load else []
    raw = bench_json(bench, "tls-handshake", "--certificate", f"{pair}.crt", "--key",
                     f"{pair}.key", "--seconds", str(max(1, args.seconds // 2)), *options,
                     core=bench.server_core)
    with Null(bench) as server:
        message = figures(load(bench, server, ["--sessions", "100", "--messages-per-session", "1"],
                               False, args.seconds))
    return {"cpu_us": raw["server_us"] + message["cpu_us"], "handshake_us": raw["server_us"]}


def run_disk(bench, known):
    """Synced appends to a preallocated file: single records, a stream of 64 KiB and more, and
    single ones due as often as the gateway had synced: the next one waits for no answer."""
    cases = bench_json(bench, "disk", "--dir", bench.folder)
    most = max(cases, key=lambda c: c["syncs_per_second"] * c["batch"])
    flat = {"disk_sync_p99_ms": best_p99_ms(cases), "eod_p99_ms": best_p99_ms(cases),
            "mb_per_second": most["syncs_per_second"] * most["batch"] * 4096 / 1e6}
    if known.get("sync_rate"):
        flat["rate"] = known["sync_rate"]
        flat["open_p99_ms"] = best_p99_ms(bench_json(bench, "disk", "--dir", bench.folder, "--rate",
                                                     str(max(1, int(known["sync_rate"])))))
    return flat


def best_p99_ms(cases):
    """Of the ways to write single records to a preallocated file."""
    return min(c["p99_us"] for c in cases
               if c["batch"] == 1 and "preallocated" in c["way"]) / 1000
