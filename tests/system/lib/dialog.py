r"""Dialogs with a server, as data: tests/dialogs/*.dialog.

    == F20 RCPT before MAIL          a dialog, its name begins with the row it shows
    to: relay                        the port it connects to (default: relay)
    expect: 1                        messages that arrive with a sender of this dialog (default 0)
    body: text\r\n                   what their body is
    whole                            not tried byte by byte
    S: 220 *                         a whole reply, lines joined with \n; * and ? as in file names
    S~ ^250-PIPELINING               a regular expression, searched in the whole reply
    S!~ STARTTLS                     the last reply does not have it
    C: EHLO client.test              a line with CRLF. Lines without a reply between them are sent
    C> half a line                   in one piece; C> sends without CRLF
    --                               what stands above is sent by itself, then a short pause
    TLS                              a handshake, after 220 or on a port with TLS
    CLOSED                           the server has closed
    DROPPED                          the same; at most a 220 or a TLS alert came before
    SILENT                           no reply comes for a while

In C lines \r \n \t \0 \\ \xHH are bytes, {70000*a} is a repetition, ${from} is a sender of this
dialog alone, ${plain:alice} the base64 of a PLAIN message, ${b64:TEXT} base64 of a text.
Every dialog runs twice, as it stands and with each byte in a segment of its own.
"""
import base64
import fnmatch
import re
import socket
import ssl
import time

from lib.harness import patient, short

REPLY_LIMIT_S = 15
BYTEWISE_MAX = 3000


class Dialog:
    def __init__(self, name, where):
        self.name, self.where = name, where
        self.to, self.expect, self.body, self.whole = "relay", 0, None, False
        self.steps = []  # (line number, verb, argument)


def load(path):
    dialogs = []
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            line = line.rstrip("\n")
            if not line or line.startswith("#"):
                continue
            if line.startswith("== "):
                dialogs.append(Dialog(line[3:], path))
                continue
            d = dialogs[-1]
            found = re.match(r"(to|expect|body): (.*)$", line)
            if found and found[1] == "expect":
                d.expect = int(found[2])
            elif found:
                setattr(d, found[1], found[2])
            elif line == "whole":
                d.whole = True
            elif line in ("--", "TLS", "CLOSED", "DROPPED", "SILENT"):
                d.steps.append((number, line, ""))
            else:
                found = re.match(r"(S:|S~|S!~|C:|C>) ?(.*)$", line)
                if not found:
                    raise ValueError(f"{path}:{number}: {line!r}")
                d.steps.append((number, found[1], found[2]))
    return dialogs


def encoded(text, values):
    """The bytes that a C line stands for."""
    def value(found):
        kind, _, rest = found[1].partition(":")
        if kind == "plain":
            rest = f"\0{rest}\0{values['passwords'][rest]}"
        if kind in ("plain", "b64"):
            rest = bytes(rest, "utf-8").decode("unicode_escape").encode("latin-1") \
                if "\\" in rest else rest.encode("utf-8")
            return base64.b64encode(rest).decode("ascii")
        return values[kind]

    text = re.sub(r"\$\{([^}]*)\}", value, text)
    text = re.sub(r"\{(\d+)\*([^}]*)\}", lambda m: m[2] * int(m[1]), text)
    out, i = bytearray(), 0
    named = {"r": b"\r", "n": b"\n", "t": b"\t", "0": b"\0", "\\": b"\\"}
    while i < len(text):
        if text[i] != "\\":
            out += text[i].encode("utf-8")
            i += 1
        elif text[i + 1] == "x":
            out.append(int(text[i + 2:i + 4], 16))
            i += 4
        else:
            out += named[text[i + 1]]
            i += 2
    return bytes(out)


class Line:
    """A client's end of a connection: sends bytes, reads whole replies."""

    def __init__(self, host, port, bytewise=False, source=None, timeout=REPLY_LIMIT_S):
        self.limit_s = patient(timeout)
        self.sock = socket.create_connection(
            (host, port), timeout=self.limit_s, source_address=(source, 0) if source else None)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.bytewise, self.buffer, self.eof = bytewise, b"", False

    def send(self, data):
        if not self.bytewise:
            self.sock.sendall(data)
            return
        for i in range(len(data)):
            self.sock.sendall(data[i:i + 1])

    def tls(self, name="gw.test", context=None):
        if context is None:
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.buffer:
            raise AssertionError(f"plaintext before the handshake: {short(self.buffer)}")
        self.sock = context.wrap_socket(self.sock, server_hostname=name)

    def more(self):
        if self.eof:
            return False
        try:
            got = self.sock.recv(65536)
        except (ConnectionResetError, BrokenPipeError, ssl.SSLEOFError, ssl.SSLZeroReturnError):
            got = b""
        self.eof = not got
        self.buffer += got
        return not self.eof

    def reply(self):
        """(code, text of all lines); (0, "") when the server has closed."""
        lines = []
        while True:
            end = self.buffer.find(b"\r\n")
            if end < 0:
                if not self.more():
                    if lines or self.buffer:
                        raise AssertionError(f"half a reply: {lines} {short(self.buffer)}")
                    return 0, ""
                continue
            line, self.buffer = self.buffer[:end].decode("latin-1"), self.buffer[end + 2:]
            if b"\n" in line.encode("latin-1") or not re.match(r"\d\d\d([ -]|$)", line):
                raise AssertionError(f"no reply line: {short(line)}")
            lines.append(line)
            if line[3:4] != "-":
                return int(line[:3]), "\n".join(lines)

    def ask(self, text, code=None):
        self.send(text.encode("utf-8") + b"\r\n")
        return self.wanted(code)

    def wanted(self, code=None):
        got, text = self.reply()
        if code is not None and got != code:
            raise AssertionError(f"wanted {code}, got {text or 'a close'}")
        return text

    def closed(self, seconds=REPLY_LIMIT_S):
        self.sock.settimeout(patient(seconds))
        try:
            return not self.buffer and not self.more()
        except TimeoutError:
            return False

    def silent(self, seconds=0.3):
        self.sock.settimeout(seconds)
        try:
            return not self.buffer and self.more() and False
        except TimeoutError:
            return True
        finally:
            self.sock.settimeout(self.limit_s)

    def close(self):
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Failure(AssertionError):
    def __init__(self, dialog, number, text):
        super().__init__(f"{dialog.where}:{number}: {text}")


def ask_unread(line, quiet_s=2):
    """Sends recipients (max_recipients: 20000) and reads no reply, until no more can be sent for a
    while. The number of commands sent, of which the last may lack its end, and that end.
    """
    transaction = b"MAIL FROM:<s@client.test>\r\n" + \
        b"".join(b"RCPT TO:<%05d@example.net>\r\n" % i for i in range(15_000)) + b"RSET\r\n"
    line.sock.settimeout(quiet_s)
    count, at = 0, 0
    try:
        for _ in range(90):
            at = 0
            while at < len(transaction):
                at += line.sock.send(transaction[at:at + 65536])
            count += transaction.count(b"\n")
    except TimeoutError:
        end = transaction.index(b"\n", at - 1) + 1
        return count + transaction[:end].count(b"\n"), transaction[at:end]
    raise AssertionError("all was read although no reply was")


def _step(d, line, verb, argument, number, last):
    if verb == "TLS":
        line.tls()
    elif verb == "CLOSED":
        if not line.closed():
            raise Failure(d, number, f"still open: {short(line.buffer)}")
    elif verb == "DROPPED":
        while line.more():
            pass
        if not re.fullmatch(rb"(220[ -][^\r]*\r\n)?(\x15\x03.\0.{2,30})?", line.buffer, re.S):
            raise Failure(d, number, f"the server said {short(line.buffer)}")
    elif verb == "SILENT":
        if not line.silent():
            raise Failure(d, number, f"not silent: {short(line.buffer)}")
    elif verb == "S!~":
        if re.search(argument, last, re.M):
            raise Failure(d, number, f"reply {short(last)} has {argument!r}")
    else:
        code, last = line.reply()
        fits = (fnmatch.fnmatchcase(last, argument) if verb == "S:"
                else re.search(argument, last, re.M))
        if not fits:
            got = short(last) if code else "a close"
            raise Failure(d, number, f"wanted {argument!r}, got {got}")
    return last


def perform(d, host, port, values, bytewise=False):
    """Runs one dialog; raises Failure with the place in its file."""
    with Line(host, port, bytewise) as line:
        pending, last = b"", ""
        for number, verb, argument in d.steps:
            try:
                if verb in ("C:", "C>"):
                    pending += encoded(argument, values) + (b"\r\n" if verb == "C:" else b"")
                    continue
                if pending:
                    line.send(pending)
                    pending = b""
                if verb == "--":
                    time.sleep(0.03)
                else:
                    last = _step(d, line, verb, argument, number, last)
            except (TimeoutError, OSError) as error:
                if isinstance(error, (BrokenPipeError, ConnectionResetError)) and verb[-1:] == "D":
                    continue
                raise Failure(d, number, f"{verb} {argument}: {error!r}") from error
        if pending:
            line.send(pending)
            time.sleep(0.05)


def can_be_bytewise(d, values):
    size = sum(len(encoded(a, values)) for _, v, a in d.steps if v in ("C:", "C>"))
    return not d.whole and size <= BYTEWISE_MAX
