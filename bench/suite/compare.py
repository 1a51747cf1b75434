"""Two results side by side, or two builds in one: which figures changed by more than noise."""
import json
import sys

import stats

# What is compared, and which direction is worse. Rates and latencies on a shared machine need a
# longer run than CPU to say something.
METRICS = {"cpu_us": "more", "syscalls": "more", "syncs": "more", "kib_per_session": "more",
           "rate": "less", "eod_p99_ms": "more", "open_p99_ms": "more", "ready_ms": "more",
           "first_delivery_ms": "more", "share": "less", "ingest_share": "less"}
REPEATS_MIN = 5  # with fewer, chance alone puts all of one side above all of the other


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


def pairs(before, after):
    """(scenario, case, metric) and the values of two results, where each has enough of them."""
    old, new = samples(before), samples(after)
    for key in old:
        for metric in METRICS if key in new else ():
            a, b = normalized(old[key], metric), normalized(new[key], metric)
            if min(len(a), len(b)) >= REPEATS_MIN:
                yield (*key, metric), a, b


def inner_pairs(result):
    """The same of the build of --baseline and the gateway, measured in the same rounds."""
    for key, servers in samples(result).items():
        for metric in METRICS:
            both = [(a.get(metric), b.get(metric)) for a, b in
                    zip(servers.get("baseline", []), servers.get("gateway", []))]
            both = [pair for pair in both if all(pair)]
            if len(both) >= REPEATS_MIN:
                yield ((*key, metric), *zip(*both))


def rows(results, threshold):
    """What changed from the first to the second, or inside the only one; all intervals together
    hold the truth 19 times in 20, so that many rows do not make an alarm out of noise."""
    interval = stats.ratio_interval if len(results) > 1 else stats.paired_interval
    found = list((pairs if len(results) > 1 else inner_pairs)(*results))
    for about, a, b in found:
        ratio, low, high = interval(a, b, len(found))
        yield (*about, ratio, low, high, verdict(about[-1], low, high, threshold))


def result_in(path):
    """The result of a run; OSError or ValueError when the file has none."""
    with open(path, encoding="utf-8") as file:
        result = json.load(file)
    if not isinstance(result, dict) or not isinstance(result.get("scenarios"), list):
        raise ValueError("not a result of hikyaku-bench run")
    return result


def main(args):
    if not 0 <= args.threshold < 1:
        print(f"hikyaku-bench compare: --threshold: {args.threshold:g} is not from 0 to 1 (0.03: "
              "3 %)", file=sys.stderr)
        return 2
    results = []
    for path in (args.before, args.after) if args.after else (args.before,):
        try:
            results.append(result_in(path))
        except (OSError, ValueError) as error:
            what = getattr(error, "strerror", None) or error
            print(f"hikyaku-bench compare: {path}: {what}", file=sys.stderr)
            return 2
    found = list(rows(results, args.threshold))
    if not found:
        print("hikyaku-bench compare: " + (
            "the two have no case in common" if args.after else
            "no case of this result was measured with --baseline, too,") +
            f" with {REPEATS_MIN} repeats each", file=sys.stderr)
        return 2
    print("| scenario | case | figure | after / before | interval (95 % for all) | |")
    print("|---|---|---|---|---|---|")
    for name, case, metric, ratio, low, high, word in found:
        print(f"| {name} | {case} | {metric} | {ratio:.3f} | {low:.3f} to {high:.3f} | {word} |")
    return 1 if any(row[-1] == "worse" for row in found) else 0
