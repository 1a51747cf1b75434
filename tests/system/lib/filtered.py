"""Runs a program under a system call filter, as systemd or a container runtime would: `allow` or
`profile`, then the command. Needs python3-seccomp, which is there for the system's own Python only.

    /usr/bin/python3 filtered.py allow NAMES_FILE PROGRAM ...       what is not named: EPERM
    /usr/bin/python3 filtered.py profile SECCOMP_JSON PROGRAM ...   an OCI seccomp profile
"""
import ctypes
import errno
import json
import os
import sys

import seccomp

ACTIONS = {"SCMP_ACT_ALLOW": seccomp.ALLOW, "SCMP_ACT_ERRNO": seccomp.ERRNO(errno.EPERM)}


def rules_of(kind, path):
    """(action for the rest, [(action, name, arguments)])"""
    with open(path, encoding="utf-8") as file:
        if kind == "allow":
            names = file.read().split()
            return seccomp.ERRNO(errno.EPERM), [(seccomp.ALLOW, n, []) for n in names]
        profile = json.load(file)
    compare = {"SCMP_CMP_EQ": seccomp.EQ, "SCMP_CMP_NE": seccomp.NE,
               "SCMP_CMP_MASKED_EQ": seccomp.MASKED_EQ}
    rest = seccomp.ERRNO(profile.get("defaultErrnoRet", errno.EPERM)) \
        if profile["defaultAction"] == "SCMP_ACT_ERRNO" else ACTIONS[profile["defaultAction"]]
    rules = []
    for entry in profile["syscalls"]:
        action = ACTIONS[entry["action"]]
        if entry["action"] == "SCMP_ACT_ERRNO":
            action = seccomp.ERRNO(entry.get("errnoRet", errno.EPERM))
        arguments = [seccomp.Arg(a["index"], compare[a["op"]], a["value"], a.get("valueTwo", 0))
                     for a in entry.get("args") or []]
        rules += [(action, name, arguments) for name in entry["names"]]
    return rest, rules


def main():
    kind, path, *words = sys.argv[1:]
    rest, rules = rules_of(kind, path)
    made = seccomp.SyscallFilter(defaction=rest)
    for action, name, arguments in rules:
        try:
            if action != rest:
                made.add_rule(action, name, *arguments)
        except (RuntimeError, ValueError):
            pass  # not of this machine
    ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    made.load()
    os.execv(words[0], words)


main()
