"""Certificates made with the openssl command: one authority for a test run, leaves by name."""
import os
import shutil
import tempfile
import threading
import atexit

from lib.harness import run, tool

_folder, _lock = [], threading.Lock()


def _openssl(*words):
    run([tool("openssl"), *words])


def folder():
    """Where this process keeps its authority and leaves; made on first use, gone at exit."""
    if not _folder:
        _folder.append(tempfile.mkdtemp(prefix="hikyaku-certs-"))
        os.chmod(_folder[0], 0o755)
        atexit.register(shutil.rmtree, _folder[0], True)
        _openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                 "-days", "30", "-subj", "/CN=Hikyaku test CA", "-addext",
                 "keyUsage=critical,keyCertSign,cRLSign", "-keyout", f"{_folder[0]}/ca.key",
                 "-out", f"{_folder[0]}/ca.crt")
    return _folder[0]


def authority():
    return os.path.join(folder(), "ca.crt")


class Leaf:
    """certificate and key: paths of PEM files."""

    def __init__(self, stem):
        self.certificate, self.key = f"{stem}.crt", f"{stem}.key"

    @property
    def pair(self):
        return f"{self.certificate}:{self.key}"


def leaf(*names, self_signed=False, again=False):
    """A certificate for these DNS names and addresses, from the authority or by itself. `again`: a
    new one in its place."""
    with _lock:
        return _leaf(names, self_signed, again)


def _leaf(names, self_signed, again):
    stem = os.path.join(folder(), ("self-" if self_signed else "") + names[0].replace(":", "_"))
    made = Leaf(stem)
    if os.path.exists(made.certificate) and not again:
        return made
    alternatives = ",".join(("IP:" if n[0].isdigit() else "DNS:") + n for n in names)
    if self_signed:
        _openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                 "-days", "30", "-subj", f"/CN={names[0]}", "-addext",
                 f"subjectAltName={alternatives}", "-keyout", made.key, "-out", made.certificate)
        os.chmod(made.key, 0o644)  # servers that drop their rights read it too
        return made
    _openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj",
             f"/CN={names[0]}", "-keyout", made.key, "-out", f"{stem}.csr")
    with open(f"{stem}.ext", "w", encoding="utf-8") as file:
        file.write(f"subjectAltName={alternatives}\nbasicConstraints=CA:FALSE\n"
                   "keyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth\n")
    _openssl("x509", "-req", "-in", f"{stem}.csr", "-CA", authority(), "-CAkey",
             f"{folder()}/ca.key", "-CAcreateserial", "-days", "30", "-extfile", f"{stem}.ext",
             "-out", made.certificate)
    os.chmod(made.key, 0o644)
    return made
