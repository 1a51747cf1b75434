#!/usr/bin/env python3
# builds: release - what documents say, no gateway
"""What the documents say, held against the programs and the tree: examples that --check accepts,
links that lead somewhere, commands and options that stand in a man page, tests that exist."""
import glob
import os
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("HIKYAKU_BUILD", os.path.join(ROOT, "build"))
PAGES = sorted(glob.glob(f"{ROOT}/deploy/man/*.[1-8]"))


class Skip(Exception):
    """Cannot be tried here; the text says why."""


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        return file.read()


def program(name):
    path = os.path.join(BUILD, name)
    if not os.access(path, os.X_OK):
        raise Skip(f"{name} is not built")
    return path


def markdown():
    out = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, check=True, capture_output=True,
                         text=True).stdout.split()
    return out or [os.path.relpath(p, ROOT) for p in glob.glob(f"{ROOT}/**/*.md", recursive=True)]


def page(name):
    return next(read(p) for p in PAGES if os.path.basename(p) == name)


def plain(roff):
    """The words of a page, without macros and escapes."""
    text = re.sub(r'^\.\S+', " ", roff, flags=re.M)
    return re.sub(r"\b(Ar|Cm|Fl|Oo|Oc|Op|Ns|Li|Dv|Ev|Pa|Pq)\b", " ", text)


def examples():
    """Where a configuration stands, and its text."""
    for path in markdown():
        for number, block in enumerate(re.findall(r"^```yaml\n(.*?)^```", read(path), re.M | re.S)):
            yield f"{path} ({number + 1})", block
    for path in glob.glob(f"{ROOT}/deploy/examples/*.yaml"):
        yield os.path.basename(path), read(path)
    text = page("hikyaku.yaml.5")
    found = re.search(r"^\.Bd -literal.*?\n(hostname:.*?)^\.Ed", text, re.M | re.S)
    yield "hikyaku.yaml.5", found.group(1)


def rule_examples():
    """every example of a configuration passes --check"""
    hikyaku = program("hikyaku")
    count = 0
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                        "ec_paramgen_curve:P-256", "-nodes", "-days", "30", "-subj",
                        "/CN=localhost", "-keyout", "tls.key", "-out", "tls.crt"], cwd=folder,
                       check=True, capture_output=True)
        for name, text in (("token", "token\n"), ("isp.secret", "secret\n"), ("users", "a:!\n")):
            with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
                file.write(text)
        for where, text in examples():
            count += 1
            path = os.path.join(folder, "hikyaku.yaml")
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
            done = subprocess.run([hikyaku, "--config", path, "--check"], capture_output=True,
                                  text=True, timeout=60, check=False)
            if done.returncode != 0:
                yield f"{where}: {done.stderr.strip()}"
    if count < 4:
        yield f"only {count} examples were found"


def rule_links():
    """every link of a document leads to a file"""
    for path in markdown():
        text = re.sub(r"^```.*?^```", "", read(path), flags=re.M | re.S)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if re.match(r"[a-z]+:|#", target):
                continue
            file = os.path.join(ROOT, os.path.dirname(path), target.split("#")[0])
            if not os.path.exists(file):
                yield f"{path}: {target}"


def rule_options():
    """every option of a program stands in its man page"""
    for name, man in (("hikyaku", "hikyaku.8"), ("hikyakuctl", "hikyakuctl.8")):
        usage = subprocess.run([program(name), "--help"], capture_output=True, text=True,
                               timeout=60, check=True).stdout
        text = page(man)
        for option in sorted(set(re.findall(r"--([a-z][a-z-]+)", usage))):
            if not re.search(rf"Fl -{option}\b|-{option}\b", text):
                yield f"{man}: --{option}"


def rule_commands():
    """every command of hikyakuctl stands in its man page"""
    usage = subprocess.run([program("hikyakuctl"), "--help"], capture_output=True, text=True,
                           timeout=60, check=True).stdout
    text = plain(page("hikyakuctl.8"))
    count = 0
    for line in re.findall(r"^  ([a-z][a-z|-]*(?: [a-z|-]+)?)", usage, re.M):
        group, _, words = line.strip().partition(" ")
        for word in words.split("|") if words else [""]:
            count += 1
            command = f"{group} {word}".strip()
            if not re.search(rf"^ *{command}\b", text, re.M):
                yield f"hikyakuctl.8: {command}"
    if count < 10:
        yield f"only {count} commands were found"


def rule_roff():
    """the man pages are formatted without a warning"""
    if not shutil.which("groff"):
        raise Skip("no groff")
    for path in PAGES:
        done = subprocess.run(["groff", "-ww", "-mdoc", "-Tutf8", path], capture_output=True,
                              text=True, timeout=60, check=False)
        if "tmac" in done.stderr and "cannot" in done.stderr:
            raise Skip("groff has no mdoc")
        yield from done.stderr.splitlines()
    if len(PAGES) < 4:
        yield f"only {len(PAGES)} pages were found"


def rule_faults():
    """every test named in docs/faults.md exists and names its row"""
    count = 0
    for line in read("docs/faults.md").splitlines():
        cells = [c.strip() for c in line.strip("|").split("|")]
        if len(cells) != 5 or not re.match(r"\d", cells[0]):
            continue
        for words in (test.split() for test in cells[4].split(",") if test.strip()):
            count += 1
            paths = [p for p in (f"tests/unit/test_{words[0]}.c", f"tests/fuzz/{words[0]}.c",
                                 f"tests/system/test_{words[0]}.py", f"tests/sim/test_{words[0]}.c",
                                 f"tests/{words[0]}.dialog", words[0])
                     if os.path.exists(os.path.join(ROOT, p))]
            if not paths:
                yield f"row {cells[0]}: no test {words[0]}"
            for mark in words[1:] if paths else ():
                if not any(re.search(rf"(\b|_){mark}(_|\b)", read(p), re.I) for p in paths):
                    yield f"row {cells[0]}: {words[0]} does not name {mark}"
    if count < 50:
        yield f"only {count} tests are named"


def main():
    failed = 0
    for key, rule in sorted(globals().items()):
        if not key.startswith("rule_"):
            continue
        name = f"docs: {rule.__doc__}"
        try:
            found = list(rule())
        except Skip as why:
            print(f"ok - {name} # SKIP {why}")
            continue
        failed += bool(found)
        print(f"{'not ok' if found else 'ok'} - {name}")
        for text in found:
            print(f"#   {text}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
