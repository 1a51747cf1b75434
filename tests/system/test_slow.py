#!/usr/bin/env python3
# time-limit: 120
# builds: asan
# waits: half a minute for handshakes to end
"""Peers that take their time: a handshake has 30 seconds in all, however its bytes come."""
import os
import socket
import ssl
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib.gateway import Gateway
from lib.harness import case, expect, main, result

LIMIT_S, LATE_S = 30, 40  # the second: how much later it may be seen on a busy machine


def client_hello():
    out = ssl.MemoryBIO()
    context = ssl.create_default_context()
    tls = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname="gw.test")
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return out.read()


def closed_after(connection, give, at_most=LIMIT_S + LATE_S):
    """Seconds until the gateway closes; `give` is called once a second."""
    start = time.monotonic()
    connection.settimeout(1)
    while time.monotonic() - start < at_most:
        try:
            give(connection)
            if connection.recv(4096) == b"":
                break
        except socket.timeout:
            continue
        except OSError:
            break
    return time.monotonic() - start


def trickle(data):
    left = bytearray(data)

    def give(connection):
        connection.sendall(bytes([left.pop(0)]))
    return give


def starttls(connection):
    connection.settimeout(60)
    connection.recv(1024)
    connection.sendall(b"EHLO client.test\r\n")
    connection.recv(4096)
    connection.sendall(b"STARTTLS\r\n")
    expect(connection.recv(1024).startswith(b"220"), "STARTTLS is refused")


@case("F39 handshakes end", LIMIT_S + 40)
def handshakes_end(folder):
    gateway = Gateway(folder)
    gateway.start()
    hello = client_hello()
    ways = {
        "byte by byte": ("submissions", trickle(hello)),
        "byte by byte behind STARTTLS": ("submission", trickle(hello)),
        "byte by byte, a large one": ("submissions", trickle(
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"r" * 400)),
        "silence": ("submissions", lambda connection: None),
    }
    took = {}

    def watch(name, port, give):
        with socket.create_connection((gateway.host, gateway.port[port]), timeout=60) as connection:
            if port == "submission":
                starttls(connection)
            took[name] = closed_after(connection, give)

    threads = [threading.Thread(target=watch, args=(n, *w)) for n, w in ways.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in ways:
        seconds = took.get(name, 0)
        good = LIMIT_S - 3 <= seconds < LIMIT_S + LATE_S
        result(f"F39 {name}", None if good else f"closed after {seconds:.1f} s")
    gateway.stop()


if __name__ == "__main__":
    main("slow")
