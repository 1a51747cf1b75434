"""A tracking log in all its files, each line once, whatever is done to them between two looks.

The gateway (gateway/log_file.c) writes PATH. When that is long enough it renames it to PATH-TIME,
begins PATH anew, packs PATH-TIME into PATH-TIME.gz.tmp, names that PATH-TIME.gz and removes
PATH-TIME. Killed in between it leaves both, and packs at its next start. A power cut may take back
lines, names and removals. So a file is known by its first line, not by its name, and what was seen
of it is compared line by line.
"""
import array
import glob
import gzip
import io
import re

ASIDE = re.compile(r"-\d{8}T\d{6}(\.\d{6})?Z(\.gz)?")


class TrackingLog:
    """new(): the lines since the last call, those of older files first."""

    def __init__(self, path):
        self.path = path
        self.seen = {}  # {first line: hashes of the lines}
        self.packed = set()  # paths that do not change any more

    def new(self):
        # Opened before the others are listed: if it is set aside meanwhile, it is still read to its
        # end, and the one that is begun then is for the next call.
        try:
            current = open(self.path, "rb")
        except FileNotFoundError:
            current = io.BytesIO()
        with current:
            lines = []
            for path in sorted(self.aside() - self.packed):
                lines += self.unseen(self.read_aside(path))
                if path.endswith(".gz"):
                    self.packed.add(path)
            lines += self.unseen(current.read())
        # What a gateway that was killed left of a line was ended by the next one; it tells nothing.
        return [line.decode("utf-8", "replace") for line in lines if line.endswith(b"}")]

    def aside(self):
        return {path for path in glob.glob(glob.escape(self.path) + "-*")
                if ASIDE.fullmatch(path[len(self.path):])}

    @staticmethod
    def read_aside(path):
        """A plain one that is gone since it was listed is packed by now, or too old and removed."""
        for name in (path, path + ".gz"):
            try:
                with (gzip.open if name.endswith(".gz") else open)(name, "rb") as file:
                    return file.read()
            except FileNotFoundError:
                pass
        return b""

    def unseen(self, data):
        lines = data.split(b"\n")[:-1]
        if not lines:
            return []
        now, before = array.array("q", map(hash, lines)), self.seen.get(lines[0], array.array("q"))
        both = min(len(now), len(before))
        same = both if now[:both] == before[:both] else \
            next(i for i in range(both) if now[i] != before[i])
        if same < len(now):  # else it is what we know, or an older state of it
            self.seen[lines[0]] = now
        return lines[same:]
