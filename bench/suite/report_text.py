"""The report in Markdown."""
import stats

COLUMNS = (("rate", "messages/s", "{:,.0f}"), ("cpu_us", "CPU us a message", "{:.1f}"),
           ("eod_p50_ms", "end of data to 250, p50 ms", "{:.2f}"),
           ("eod_p99_ms", "p99 ms", "{:.2f}"), ("open_p99_ms", "due to 250, p99 ms", "{:.2f}"),
           ("open_p99_9_ms", "p99.9 ms", "{:.2f}"), ("syncs", "syncs a message", "{:.3f}"),
           ("syscalls", "system calls a message", "{:.2f}"),
           ("kib_per_session", "KiB a session", "{:.1f}"), ("ready_ms", "ready, ms", "{:,.0f}"),
           ("first_delivery_ms", "first delivery, ms", "{:,.0f}"),
           ("mb_per_second", "MB/s", "{:,.0f}"))


def conditions(result):
    m = result["machine"]
    after = m.get("load_average_after", 0)
    return (f"{m['cores']} cores, {m['processor']}, Linux {m['kernel']}, {m['file_system']}, load "
            f"average {m['load_average']:.1f} before and {after:.1f} after. Server on core "
            f"{result['cores']['server']}, load on core {result['cores']['load']}; "
            f"medians of {result['rounds']} interleaved rounds of {result['seconds']} s. "
            f"{result['version']}, {result['time']}. Command: `{result['command']}`.")


def table(scenario):
    used = [column for column in COLUMNS
            if any(s.get(column[0]) is not None for case in scenario["cases"]
                   for server in case["samples"].values() for s in server)]
    titles = " | ".join(title for _, title, _ in used)
    lines = [f"| case | server | {titles} | spread of CPU |",
             "|---|---|" + "---|" * len(used) + "---|"]
    for case in scenario["cases"]:
        for server, samples in case["samples"].items():
            cells = []
            for metric, _, form in used:
                middle = stats.median([s[metric] for s in samples if s.get(metric) is not None])
                cells.append(form.format(middle) if middle is not None else "")
            limit = sum(s.get("generator_was_limit", 0) for s in samples)
            if limit and cells:
                cells[0] += f" (load was the limit in {limit} of {len(samples)})"
            spread = stats.spread([s["cpu_us"] for s in samples if s.get("cpu_us")])
            cells.append(f"{spread:.0%}" if spread is not None else "")
            lines.append(f"| {case['name']} | {server} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def goals(scenario):
    lines = []
    for case in scenario["cases"]:
        for goal in case["goals"]:
            value = "not measured" if goal["value"] is None else f"{goal['value']:.3g}"
            lines.append(f"- {case['name']}: {goal['text']}: **{value}**, "
                         f"{'met' if goal['met'] else 'not met'}")
    return "\n".join(lines)


def markdown(result):
    parts = ["# Benchmarks", conditions(result)]
    for scenario in result["scenarios"]:
        parts += [f"## {scenario['title']}", " ".join(scenario["about"].split())]
        if "failed" in scenario:
            parts.append(f"**Did not run:** {scenario['failed']}")
            continue
        parts += [table(scenario), goals(scenario)]
    return "\n\n".join(part for part in parts if part) + "\n"
