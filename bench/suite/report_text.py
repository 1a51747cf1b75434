"""The report in Markdown."""
import machine
import stats

NOISE, RESUMED = 0.05, 0.9

COLUMNS = (("rate", "messages/s", "{:,.0f}"), ("cpu_us", "CPU us a message", "{:.1f}"),
           ("kernel_share", "in the kernel", "{:.0%}"),
           ("eod_p50_ms", "end of data to 250, p50 ms", "{:.2f}"),
           ("eod_p99_ms", "p99 ms", "{:.2f}"), ("eod_p99_9_ms", "p99.9 ms", "{:.2f}"),
           ("open_p99_ms", "due to 250, p99 ms", "{:.2f}"),
           ("open_p99_9_ms", "p99.9 ms", "{:.2f}"), ("syncs", "syncs a message", "{:.3f}"),
           ("syscalls", "system calls a message", "{:.2f}"),
           ("switches", "context switches a message", "{:.2f}"),
           ("kib_per_session", "KiB a session", "{:.1f}"), ("ready_ms", "ready, ms", "{:,.0f}"),
           ("first_delivery_ms", "first delivery, ms", "{:,.0f}"),
           ("mb_per_second", "MB/s", "{:,.0f}"), ("pss_mib", "PSS MiB", "{:,.0f}"))


def conditions(result):
    m = result["machine"]
    after = m.get("load_average_after", 0)
    return (f"{m['cores']} cores, {m['processor']}, Linux {m['kernel']}, {m['file_system']}, load "
            f"average {m['load_average']:.1f} before and {after:.1f} after. Server on core "
            f"{result['cores']['server']}, load on core {result['cores']['load']}; "
            f"medians of {result['rounds']} interleaved rounds of {result['seconds']} s. "
            f"{result['version']}, {result['time']}. Command: `{result['command']}`.")


def peer_lines(result):
    """Each peer with its version, and whether it syncs: durable and not are different races."""
    lines = []
    for name, found in result.get("peers", {}).items():
        if "unable" in found:
            lines.append(f"- {name}: not measured: {found['unable']}")
        elif found["syncs"] is None:
            lines.append(f"- {name} {found['version']}: syncs not counted: no strace here, "
                         "or it may not trace")
        else:
            lines.append(f"- {name} {found['version']}: {found['syncs']:.2f} syncs a message"
                         f"{'' if found['syncs'] >= 1 else ': it is in another race'}")
    return "\n".join(lines)


def label(result, server):
    """A server's name, with what it does not do."""
    syncs = result.get("peers", {}).get(server, {}).get("syncs")
    return f"{server} (does not sync)" if syncs is not None and syncs < 1 else server


def table(scenario, result):
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
            lines.append(f"| {case['name']} | {label(result, server)} | " + " | ".join(cells)
                         + " |")
    return "\n".join(lines)


def profiles(scenario):
    """Tables of where the gateway's CPU went, for the cases that have one."""
    tables = []
    for case in scenario["cases"]:
        if case.get("profile"):
            tables.append(f"| {case['name']}: share of CPU | where | function |\n|---|---|---|\n"
                          + "\n".join(f"| {share:.1f} % | {place} | `{name}` |"
                                      for share, place, name in case["profile"]))
    return tables


def remarks(scenario):
    """What a reader of the table has to know: who could not, what failed, what disturbed."""
    lines = []
    for case in scenario["cases"]:
        lines += [f"- {case['name']}: {server} did not do it: {why}"
                  for server, why in case.get("unable", {}).items()]
        lines += [f"- **{case['name']}: {server} refused or lost {count} messages**"
                  for server, count in case.get("errors", {}).items()]
        for server, samples in case["samples"].items():
            resumed = stats.median([s["resumed_share"] for s in samples if "resumed_share" in s])
            if resumed is not None and resumed < RESUMED:
                lines.append(f"- {case['name']}: {server} resumed {resumed:.0%} of its sessions; "
                             "a longer run has fewer that are the first of theirs")
            cut_off = sum(s.get("unfinished", 0) for s in samples)
            if cut_off:
                lines.append(f"- {case['name']}: {server}: {cut_off} sessions were not through 5 s "
                             "after the end; what they took is in its figures")
        noise = min(1.0, max((s["others"] + s["stolen"] for samples in case["samples"].values()
                              for s in samples if "others" in s), default=0))
        if noise > NOISE:
            lines.append(f"- {case['name']}: other work took up to {noise:.0%} of the machine")
    return "\n".join(lines)


def goals(scenario):
    lines = []
    for case in scenario["cases"]:
        for goal in case["goals"]:
            if goal["value"] is None:
                why = f" ({goal['why']})" if goal.get("why") else ""
                lines.append(f"- {case['name']}: {goal['text']}: not measured{why}")
                continue
            lines.append(f"- {case['name']}: {goal['text']}: **{goal['value']:.3g}**, "
                         f"{'met' if goal['met'] else 'not met'}"
                         f"{'; the load was the limit' if goal.get('load_was_limit') else ''}")
    return "\n".join(lines)


def markdown(result):
    parts = ["# Benchmarks", conditions(result), peer_lines(result)]
    for scenario in result["scenarios"]:
        parts += [f"## {scenario['title']}", " ".join(scenario["about"].split())]
        if scenario.get("rounds", result["rounds"]) < result["rounds"]:
            parts.append(f"{scenario['rounds']} of {result['rounds']} rounds were measured.")
        if "failed" in scenario:
            parts.append(f"**Did not run:** {scenario['failed']}")
        if any(any(case["samples"].values()) for case in scenario["cases"]):
            parts.append(table(scenario, result))
        parts += [goals(scenario), remarks(scenario), *profiles(scenario)]
    parts.append("## The machine")
    parts.append("\n".join(f"- {name}: {text}"
                           for name, text in machine.details(result["machine"])))
    return "\n\n".join(part for part in parts if part) + "\n"
