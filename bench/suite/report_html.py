"""The report as one HTML page without links: bars of the medians, every sample a dot."""
import html

import machine
import report_text
import stats

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em;
       color: #222 }
table { border-collapse: collapse; margin: 1em 0; font-size: 13px }
td, th { border: 1px solid #ccc; padding: .25em .5em; text-align: right }
td:first-child, th:first-child, td:nth-child(2) { text-align: left }
td:first-child { min-width: 13em }
.met { color: #176117 } .missed { color: #a11 } .small { color: #666; font-size: 13px }
"""
COLOURS = {"gateway": "#2a6fb0", "baseline": "#7fb0dd", "null": "#999999", "raw": "#c28f2c",
           "disk": "#c28f2c",
           "postfix": "#8a5a9e", "exim": "#5f8f5a", "opensmtpd": "#b0603f", "haraka": "#508a92"}
PLOTTED = (("cpu_us", "CPU us a message"), ("eod_p99_ms", "end of data to 250, p99 ms"),
           ("open_p99_9_ms", "due to 250, p99.9 ms"), ("kib_per_session", "KiB a session"),
           ("first_delivery_ms", "first delivery after start, ms"))
BAR, GAP, LEFT, WIDTH = 16, 6, 330, 760


def plot(scenario, metric, title):
    """Bars, one for each case and server; None where the metric was not measured."""
    bars = [(case["name"], server, [s[metric] for s in samples if s.get(metric) is not None])
            for case in scenario["cases"] for server, samples in case["samples"].items()]
    bars = [bar for bar in bars if bar[2]]
    if not bars:
        return None
    top = max(max(values) for _, _, values in bars) or 1
    height = 26 + len(bars) * (BAR + GAP)
    scale = (WIDTH - LEFT - 70) / top
    out = [f'<svg viewBox="0 0 {WIDTH} {height}" width="100%" role="img" '
           f'aria-label="{html.escape(title)}"><text x="0" y="14" font-size="13" '
           f'font-weight="bold">{html.escape(title)}</text>']
    for index, (name, server, values) in enumerate(bars):
        y, middle = 24 + index * (BAR + GAP), stats.median(values)
        out.append(f'<text x="{LEFT - 8}" y="{y + 12}" font-size="11" text-anchor="end">'
                   f'{html.escape(name)}: {server}</text>'
                   f'<rect x="{LEFT}" y="{y}" width="{middle * scale:.1f}" height="{BAR}" '
                   f'fill="{COLOURS.get(server, "#6a4f8f")}" opacity="0.75"/>')
        out += [f'<circle cx="{LEFT + v * scale:.1f}" cy="{y + BAR / 2}" r="2.5" fill="#222"/>'
                for v in values]
        out.append(f'<text x="{LEFT + max(values) * scale + 6:.1f}" y="{y + 12}" font-size="11">'
                   f'{middle:.4g}</text>')
    return "".join(out) + "</svg>"


def html_table(text):
    """A Markdown table of report_text as HTML."""
    lines = [line.strip("|").split(" | ") for line in text.split("\n")]
    head = "".join(f"<th>{html.escape(cell.strip())}</th>" for cell in lines[0])
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell.strip())}</td>" for cell in line)
                   + "</tr>" for line in lines[2:])
    return f"<table><tr>{head}</tr>{body}</table>"


def goals(scenario):
    items = []
    for case in scenario["cases"]:
        for goal in case["goals"]:
            missing, why = goal["value"] is None, goal.get("why")
            value = f"not measured{f' ({why})' if why else ''}" if missing \
                else f"{goal['value']:.3g}"
            kind = "small" if missing else "met" if goal["met"] else "missed"
            word = "" if missing else ", met" if goal["met"] else ", not met"
            items.append(f'<li class="{kind}">{html.escape(case["name"])}: '
                         f'{html.escape(goal["text"])}: <b>{html.escape(value)}</b>{word}</li>')
    return f"<ul>{''.join(items)}</ul>" if items else ""


def items(text, kind="small"):
    """The lines of a Markdown list as HTML."""
    lines = "".join(f"<li>{html.escape(line.removeprefix('- ').replace('**', ''))}</li>"
                    for line in text.split("\n") if line)
    return f'<ul class="{kind}">{lines}</ul>' if lines else ""


def section(scenario, result):
    parts = [f"<h2>{html.escape(scenario['title'])}</h2><p>{html.escape(scenario['about'])}</p>"]
    if "failed" in scenario:
        parts.append(f'<p class="missed">Did not run: {html.escape(scenario["failed"])}</p>')
    plots = (plot(scenario, metric, title) for metric, title in PLOTTED)
    parts += [p for p in plots if p]
    if any(any(case["samples"].values()) for case in scenario["cases"]):
        parts.append(html_table(report_text.table(scenario, result)))
    shown = [html_table(text.replace("`", "")) for text in report_text.profiles(scenario)]
    return parts + [goals(scenario), items(report_text.remarks(scenario)), *shown]


def page(result):
    parts = [f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Hikyaku: benchmarks'
             f'</title><style>{STYLE}</style><h1>Benchmarks</h1>'
             f'<p class="small">{html.escape(report_text.conditions(result))}</p>'
             f'{items(report_text.peer_lines(result))}']
    for scenario in result["scenarios"]:
        parts += section(scenario, result)
    known = "\n".join(f"- {name}: {text}" for name, text in machine.details(result["machine"]))
    parts.append(f"<h2>The machine</h2>{items(known)}")
    return "\n".join(parts) + "</html>\n"
