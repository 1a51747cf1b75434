"""Two results side by side, or two builds in one: which figures changed by more than noise."""
import json
import sys

import stats

# What is compared, and which direction is worse. Rates and latencies on a shared machine need a
# longer run than CPU to say something.
METRICS = {"cpu_us": "more", "syscalls": "more", "syncs": "more", "kib_per_session": "more",
           "rate": "less", "eod_p99_ms": "more", "open_p99_ms": "more", "ready_ms": "more",
           "first_delivery_ms": "more", "share": "less", "ingest_share": "less"}
REPEATS_MIN = 3


def samples(result):
    """(scenario, case) -> server -> list of figures."""
    return {(s["name"], c["name"]): c["samples"] for s in result["scenarios"] for c in s["cases"]}


def normalized(case, metric):
    """The gateway's values; CPU as multiples of the null server's of the same round where there is
    one: what the machine did meanwhile goes out of the ratio."""
    own = [s.get(metric) for s in case.get("gateway", [])]
    if metric == "cpu_us" and len(case.get("null", [])) == len(own):
        own = [v / n["cpu_us"] if v and n.get("cpu_us") else None
               for v, n in zip(own, case["null"])]
    return [v for v in own if v]


def verdict(metric, low, high, threshold):
    """'worse', 'better', 'same' (within the threshold) or 'unclear'."""
    if METRICS[metric] == "less":
        low, high = 1 / high, 1 / low
    if low > 1 + threshold:
        return "worse"
    if high < 1 - threshold:
        return "better"
    return "same" if low > 1 - threshold and high < 1 + threshold else "unclear"


def rows(before, after, threshold):
    old, new = samples(before), samples(after)
    for key in old:
        for metric in METRICS if key in new else ():
            a, b = normalized(old[key], metric), normalized(new[key], metric)
            if len(a) < REPEATS_MIN or len(b) < REPEATS_MIN:
                continue
            ratio, low, high = stats.ratio_interval(a, b)
            yield (*key, metric, ratio, low, high, verdict(metric, low, high, threshold))


def inner_rows(result, threshold):
    """The gateway against the build of --baseline that was measured in the same rounds."""
    for key, servers in samples(result).items():
        for metric in METRICS:
            pairs = [(a.get(metric), b.get(metric)) for a, b in
                     zip(servers.get("baseline", []), servers.get("gateway", []))]
            pairs = [pair for pair in pairs if all(pair)]
            if len(pairs) >= REPEATS_MIN:
                ratio, low, high = stats.paired_interval(*zip(*pairs))
                yield (*key, metric, ratio, low, high, verdict(metric, low, high, threshold))


def main(args):
    results = []
    for path in (args.before, args.after) if args.after else (args.before,):
        try:
            with open(path, encoding="utf-8") as file:
                results.append(json.load(file))
        except (OSError, ValueError) as error:
            print(f"hikyaku-bench compare: {path}: {error}", file=sys.stderr)
            return 2
    found = list((rows if args.after else inner_rows)(*results, args.threshold))
    if not found:
        print("hikyaku-bench compare: " + (
            "the two have no case in common" if args.after else
            "no case of this result was measured with --baseline, too,") +
            f" with {REPEATS_MIN} repeats each", file=sys.stderr)
        return 2
    print("| scenario | case | figure | after / before | 95 % interval | |")
    print("|---|---|---|---|---|---|")
    for name, case, metric, ratio, low, high, word in found:
        print(f"| {name} | {case} | {metric} | {ratio:.3f} | {low:.3f} to {high:.3f} | {word} |")
    return 1 if any(row[-1] == "worse" for row in found) else 0
