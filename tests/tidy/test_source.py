#!/usr/bin/env python3
"""Style and structure of the source text, as tests: who includes whom, sizes, headers, forbidden
calls. One result per rule, with file and line of every breach."""
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
COLUMNS_MAX = 100
FILE_LINES_MAX = 800
FUNCTION_LINES_MAX = 70
HEADER_LINES_MAX = 25
CONTRACT = ("Owns", "Runs on", "Contract", "Failure", "Tests")  # Bounds: where something grows

# Folder or file -> what it may include; the longest match counts. ARCHITECTURE.md, "Folders".
# gateway/limits.h is open to all; a file may always include its own folder.
BASE, IO = "gateway/base/", "gateway/io/"
LAYERS = {
    "gateway/base/": [],
    "gateway/io/": [BASE],
    "gateway/smtp/": [BASE, "gateway/auth/sasl.h"],
    "gateway/auth/": [BASE, IO],
    "gateway/auth/sasl": [BASE],
    "queue/": [BASE, IO],
    "tls/": [BASE, IO],
    "routing/": [BASE, IO],
    "gateway/": [""],
    "bench/": [""],
    "tests/": [""],
}
PRODUCT = ("gateway/", "queue/", "tls/", "routing/")
OWN_PROGRAM = ("gateway/ctl/",)
CLOCKS = re.compile(r"\b(clock_gettime|gettimeofday|time|clock|timespec_get|nanosleep|usleep|sleep)"
                    r"\s*\(")
CODE_TEXT = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)
INCLUDE = re.compile(r'^\s*#\s*include\s+([<"])([^>"]+)[>"]', re.M)


def tracked():
    try:
        command = ["git", "ls-files", "-co", "--exclude-standard"]
        names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True,
                               text=True).stdout.split("\n")
    except (OSError, subprocess.CalledProcessError):
        names = [os.path.relpath(os.path.join(folder, name), ROOT)
                 for top in (*PRODUCT, "bench", "tests")
                 for folder, _, files in os.walk(os.path.join(ROOT, top)) for name in files]
    return sorted(n for n in names if n and os.path.isfile(os.path.join(ROOT, n)))


def read(name):
    with open(os.path.join(ROOT, name), encoding="utf-8", errors="replace") as file:
        return file.read()


def without_comments(text):
    """The code alone: comments and literals blanked, lines kept."""
    return CODE_TEXT.sub(lambda m: re.sub(r"[^\n]", " ", m.group()), text)


def line_of(text, offset):
    return text.count("\n", 0, offset) + 1


FILES = {n: read(n) for n in tracked() if n.endswith((".c", ".h"))}
CODE = {n: without_comments(t) for n, t in FILES.items()}
PRODUCT_FILES = [n for n in FILES if n.startswith(PRODUCT)]
SCRIPTS = [n for n in tracked() if n.endswith((".py", ".sh", "Makefile"))]


def allowed(name):
    best = max((p for p in LAYERS if name.startswith(p)), key=len, default=None)
    return None if best is None else LAYERS[best]


def rule_include_direction():
    """each folder includes only what lies below it"""
    for name, text in FILES.items():
        may = allowed(name)
        if may is None:
            yield name, 1, "in no folder that ARCHITECTURE.md knows"
            continue
        own = os.path.dirname(name) + "/"
        for match in INCLUDE.finditer(text):
            kind, target = match.groups()
            if kind == "<" or target == "gateway/limits.h" or target.startswith(own):
                continue
            if not any(target.startswith(p) for p in may):
                yield name, line_of(text, match.start()), f"may not include {target}"


def rule_composition_headers():
    """only the gateway itself, its tools and tests include the gateway's own headers"""
    for name, text in FILES.items():
        for match in INCLUDE.finditer(text):
            target = match.group(2)
            own = re.fullmatch(r"gateway/[^/]+\.h", target) and target != "gateway/limits.h"
            inside = re.fullmatch(r"gateway/[^/]+|gateway/ctl/.*|(bench|tests)/.*", name)
            if own and not inside:
                yield name, line_of(text, match.start()), f"may not include {target}"


def rule_internal_headers():
    """internal headers stay in their folder; a unit test includes one at most"""
    for name, text in FILES.items():
        inner = [m for m in INCLUDE.finditer(text) if m.group(2).endswith("_internal.h")]
        for match in inner:
            if os.path.dirname(match.group(2)) != os.path.dirname(name) and \
                    not name.startswith("tests/"):
                yield name, line_of(text, match.start()), f"{match.group(2)} is internal"
        if name.startswith("tests/") and len(inner) > 1:
            yield name, line_of(text, inner[1].start()), "more than one internal header"


def rule_include_paths():
    """include paths start at the root of the repository"""
    for name, text in FILES.items():
        for match in INCLUDE.finditer(text):
            kind, target = match.groups()
            if kind == '"' and not os.path.isfile(os.path.join(ROOT, target)):
                yield name, line_of(text, match.start()), f"no such file: {target}"


def rule_one_seam():
    """only gateway/io includes liburing.h"""
    for name, text in FILES.items():
        for match in INCLUDE.finditer(text):
            if match.group(2).startswith("liburing") and not name.startswith(IO):
                yield name, line_of(text, match.start()), "includes liburing.h"


def rule_clock():
    """the product reads the clock and sleeps only in gateway/io"""
    for name in PRODUCT_FILES:
        if name.startswith((IO,) + OWN_PROGRAM):
            continue
        for match in CLOCKS.finditer(CODE[name]):
            line = line_of(CODE[name], match.start())
            if "tidy: clock" not in FILES[name].splitlines()[line - 1]:
                yield name, line, f"calls {match.group(1)}"


def rule_file_length():
    """files have 800 lines at most"""
    for name, text in FILES.items():
        count = text.count("\n")
        if count > FILE_LINES_MAX and "tidy: long file" not in text:
            yield name, count, f"{count} lines"


def functions(name):
    """Start and end line of every function, by the layout clang-format gives."""
    start = None
    for number, line in enumerate(CODE[name].split("\n"), 1):
        if line.rstrip() == "{":
            start = number
        elif line.rstrip() == "}" and start:
            yield start, number
            start = None


def rule_function_length():
    """functions have 70 lines at most, or say why not: `tidy: long`"""
    for name in FILES:
        lines = FILES[name].split("\n")
        for start, end in functions(name):
            above = "\n".join(lines[max(0, start - 8):end])
            if end - start + 1 > FUNCTION_LINES_MAX and "tidy: long" not in above:
                yield name, start, f"{end - start + 1} lines"


def rule_columns():
    """lines have 100 columns at most"""
    for name, text in list(FILES.items()) + [(n, read(n)) for n in SCRIPTS]:
        for number, line in enumerate(text.split("\n"), 1):
            if len(line) > COLUMNS_MAX and "tidy: wide" not in line:
                yield name, number, f"{len(line)} columns"


def rule_whitespace():
    """no tabs, no blanks at the end of a line, a newline at the end of the file"""
    for name, text in FILES.items():
        for number, line in enumerate(text.split("\n"), 1):
            if "\t" in line:
                yield name, number, "tab"
            elif line != line.rstrip():
                yield name, number, "blanks at the end"
        if text and not text.endswith("\n"):
            yield name, line_of(text, len(text)), "no newline at the end"


def rule_contract_header():
    """every .c starts with its contract: what it owns, thread, promise, failure, tests"""
    for name, text in FILES.items():
        if not name.endswith(".c"):
            continue
        if name.startswith("tests/"):
            if not text.startswith("/*"):
                yield name, 1, "does not start with a comment that says what is tested"
            continue
        header = re.match(r"/\*(?:\n \*)? (\S+) - .*?\*/", text, re.S)
        if not header or header.group(1) != name:
            yield name, 1, f"does not start with a comment `{name} - what it is`"
            continue
        if header.group().count("\n") + 1 > HEADER_LINES_MAX:
            yield name, 1, f"header of more than {HEADER_LINES_MAX} lines"
        missing = [f for f in CONTRACT if f" * {f}:" not in header.group()]
        if missing:
            yield name, 1, f"header lacks {', '.join(missing)}"


def rule_header_guard():
    """every .h names itself in its first comment and is guarded"""
    for name, text in FILES.items():
        if not name.endswith(".h") or name.startswith("tests/thread/"):
            continue
        if not text.startswith("/*\n * " + name + " - "):
            yield name, 1, f"does not start with a comment `{name} - what it is`"
        if not re.search(r"#ifndef (\w+)\n#define \1\b", text) and "#pragma once" not in text:
            yield name, 1, "no include guard"


def rule_typedef():
    """no typedef of structs, unions and enums"""
    for name in PRODUCT_FILES:
        for match in re.finditer(r"\btypedef\s+(struct|union|enum)\b", CODE[name]):
            yield name, line_of(CODE[name], match.start()), "typedef"


def rule_unsafe_calls():
    """no call that cannot bound what it writes"""
    unsafe = re.compile(r"\b(gets|strcpy|strcat|sprintf|vsprintf|strtok|alloca|atoi|atol)\s*\(")
    for name in PRODUCT_FILES:
        for match in unsafe.finditer(CODE[name]):
            yield name, line_of(CODE[name], match.start()), f"calls {match.group(1)}"


def rule_left_overs():
    """no conflict marks, no notes to self, no code commented out"""
    marks = re.compile(r"^(<{7}|>{7}|={7}$)|\b(XXX|FIXME|TODO|HACK)\b|^#if 0\b", re.M)
    for name, text in FILES.items():
        for match in marks.finditer(text):
            yield name, line_of(text, match.start()), match.group().strip()


def rule_unit_tests():
    """every test named in a contract header exists"""
    for name in PRODUCT_FILES:
        if name.endswith(".h"):
            continue
        header = re.match(r"/\*.*?\*/", FILES[name], re.S)
        for path in re.findall(r"tests/[\w/]+\.(?:c|py|sh)", header.group() if header else ""):
            if not os.path.isfile(os.path.join(ROOT, path)):
                yield name, 1, f"{path} does not exist"


def main():
    failed = 0
    for key, rule in sorted(globals().items()):
        if key.startswith("rule_"):
            breaches = list(rule())
            failed += bool(breaches)
            print(f"{'not ok' if breaches else 'ok'} - source: {rule.__doc__}")
            for name, line, text in breaches:
                print(f"#   {name}:{line}: {text}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
