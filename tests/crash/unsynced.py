#!/usr/bin/env python3
"""unsynced.py HOST PORT FOLDER - a server that answers 250 for what it has only written.

The control of the scoreboard and of the cuts: a rig that finds no loss here finds none anywhere.
"""
import os
import socketserver
import sys


class Session(socketserver.StreamRequestHandler):
    def say(self, line):
        self.wfile.write(line + b"\r\n")

    def handle(self):
        self.say(b"220 unsynced.test")
        for line in self.rfile:
            verb = line[:4].upper().rstrip()
            if verb == b"DATA":
                self.say(b"354 go on")
                self.say(self.store())
            elif verb == b"QUIT":
                self.say(b"221 bye")
                return
            else:
                self.say(b"250 ok")

    def store(self):
        lines = []
        for line in self.rfile:
            if line == b".\r\n":
                break
            lines.append(line)
        try:
            self.server.count += 1
            path = os.path.join(self.server.folder, f"{os.getpid()}.{self.server.count}")
            with open(path, "wb") as file:
                file.write(b"".join(lines))
        except OSError as error:
            return b"451 " + os.strerror(error.errno).encode("ascii")
        return b"250 ok"


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True
    request_queue_size = 128
    count = 0


if __name__ == "__main__":
    with Server((sys.argv[1], int(sys.argv[2])), Session) as server:
        server.folder = sys.argv[3]
        server.serve_forever()
