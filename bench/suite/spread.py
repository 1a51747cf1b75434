"""What shards share, measured where there are no cores to spare.

A gateway with n shards on n cores, or n gateways of a shard each on the same cores. In both cases
every core has a load of its own for each shard, with a part of the sessions, so cores, caches, disk
and load are the same, and what differs is that the shards are of one process.
"""
import contextlib
import time

from measure import METRICS_AGE_S, QUIET_S, at_once, load_words, unfinished
from servers import Gateway, HeldHop, RunError


def gateways(stack, bench, case):
    """One with all shards, or each on a core and in a folder of its own."""
    if not case.apart:
        stack.enter_context(HeldHop(bench))
        return [stack.enter_context(Gateway(bench, case.shards, case.key))] * case.shards
    found = []
    for core in range(case.shards):
        own = stack.enter_context(bench.beside((str(core), str(core))))
        stack.enter_context(HeldHop(own))
        found.append(stack.enter_context(Gateway(own, 1, case.key)))
    return found


def all_loads(bench, by_shard, options, tls, duration):
    """One from each core to each shard's gateway, at the same time; what they print."""
    commands = [bench.pinned(str(core), [bench.program, *load_words(server, options, tls, duration),
                                         "--json"])
                for core in range(len(by_shard)) for server in by_shard]
    results = at_once(commands)
    for command, result in zip(commands, results):
        bench.raw(command, result)
    return results


def run_spread(bench, scenario, case, server_name, args, known):
    """CPU of all gateways together, a message; deliveries are held back."""
    del server_name, known
    options = ["--sessions", str(max(1, case.sessions // case.shards ** 2)), *case.load]
    with contextlib.ExitStack() as stack:
        by_shard = gateways(stack, bench, case)
        servers = list(dict.fromkeys(by_shard))
        cpu, before = seconds(servers), syncs(servers)
        results = all_loads(bench, by_shard, options, scenario.tls, args.seconds)
        for server in servers:
            server.account.quiet(server.pid, QUIET_S["gateway"])
        time.sleep(METRICS_AGE_S)
        if not all(one.get("acked") for one in results):
            raise RunError(f"{case.name}: a load reached nothing")
        acked = sum(one["acked"] for one in results)
        return {"cpu_us": (seconds(servers) - cpu) * 1e6 / acked, "acked": acked,
                "rate": sum(one["messages_per_second"] for one in results),
                "syncs": (syncs(servers) - before) / acked,
                "errors": sum(sum(one["errors"].values()) + sum(one["refusals"].values())
                              - unfinished(one) for one in results)}


def seconds(servers):
    return sum(server.cpu_seconds() for server in servers)


def syncs(servers):
    return sum(server.metrics().get("spool_commits_total", 0) for server in servers)
