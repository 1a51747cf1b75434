"""Scenario files: what is measured, with which load, and what is expected of it.

A scenario is a TOML file in bench/scenarios: `title`, `about`, `kind` (load, relay, idle, recovery,
deep, spread), `tls` (the load logs in over TLS), `peers` (other mail servers can run it), and a
list of `case`. A case has a `name` that is unique in its file, the options of `hikyaku-bench load`,
and `goals`: a metric, with `most` or `least` as a bound, which with `against` is a multiple of what
another server (null, raw, disk, a peer) or an earlier case of the file had; `times_less` = n: the
other's is at least n times as much. `peers = false` keeps peers out of one case; with `messages`,
`peer_messages` is how many they get. `cores`: a case for machines with so many. `apart`: each shard
is a gateway of its own.
"""
import glob
import os
import tomllib

FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "scenarios")
KINDS = ("load", "relay", "idle", "recovery", "deep", "spread")
SCENARIO_KEYS = {"title", "about", "kind", "tls", "peers", "case"}
CASE_KEYS = {"name", "load", "background", "goals", "messages", "sessions", "shards", "key",
             "half_rate", "second_hop", "peers", "peer_messages", "cores", "apart"}
GOAL_KEYS = {"metric", "against", "most", "least", "times_less"}
BOUNDS = {"most", "least", "times_less"}


class ScenarioError(Exception):
    """A file that cannot be used; the text names it."""


def _known(path, what, found, allowed):
    unknown = sorted(set(found) - allowed)
    if unknown:
        raise ScenarioError(f"{path}: {what}: unknown key {unknown[0]!r}")


class Goal:
    def __init__(self, path, fields):
        _known(path, "goal", fields, GOAL_KEYS)
        if "metric" not in fields or len(BOUNDS & set(fields)) != 1:
            raise ScenarioError(f"{path}: a goal needs a metric, and most, least or times_less")
        self.metric, self.against = fields["metric"], fields.get("against")
        self.most, self.least = fields.get("most"), fields.get("least")
        self.times_less = fields.get("times_less")
        if self.times_less and not self.against:
            raise ScenarioError(f"{path}: times_less needs against")

    def value(self, own, base):
        """What is judged, of the gateway's figure and the other's."""
        if not self.against:
            return own
        return base / own if self.times_less else own / base

    def met(self, value):
        if self.most is not None:
            return value <= self.most
        return value >= (self.least if self.least is not None else self.times_less)

    def text(self):
        if self.times_less:
            return f"{self.metric}: at least {self.times_less:g} times less than {self.against}"
        bound = f"at most {self.most:g}" if self.most is not None else f"at least {self.least:g}"
        if not self.against:
            return f"{self.metric}: {bound}"
        return f"{self.metric}: {bound} times that of {self.against}"


class Case:
    def __init__(self, path, fields):
        _known(path, "case", fields, CASE_KEYS)
        if "name" not in fields:
            raise ScenarioError(f"{path}: a case without a name")
        self.name = fields["name"]
        self.load = fields.get("load", [])
        self.background = fields.get("background")
        self.messages = fields.get("messages", 20000)
        self.sessions = fields.get("sessions", 1000)
        self.shards = fields.get("shards", 1)
        self.key = fields.get("key", "p256")
        self.half_rate = fields.get("half_rate", False)
        self.second_hop = fields.get("second_hop")
        self.peers, self.cores = fields.get("peers", True), fields.get("cores", 1)
        self.apart = fields.get("apart", False)
        self.peer_messages = fields.get("peer_messages", self.messages)
        self.goals = [Goal(path, goal) for goal in fields.get("goals", [])]


class Scenario:
    def __init__(self, path):
        self.name = os.path.splitext(os.path.basename(path))[0]
        try:
            with open(path, "rb") as file:
                fields = tomllib.load(file)
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise ScenarioError(f"{path}: {error}") from error
        _known(path, "scenario", fields, SCENARIO_KEYS)
        self.title, self.about = fields.get("title", self.name), fields.get("about", "").strip()
        self.kind = fields.get("kind", "load")
        self.tls, self.peers = fields.get("tls", False), fields.get("peers", False)
        if self.kind not in KINDS:
            raise ScenarioError(f"{path}: kind {self.kind!r} is none of {', '.join(KINDS)}")
        self.cases = [Case(path, case) for case in fields.get("case", [])]
        if not self.cases:
            raise ScenarioError(f"{path}: no case")
        if len({case.name for case in self.cases}) != len(self.cases):
            raise ScenarioError(f"{path}: two cases of one name")


def names():
    return sorted(os.path.splitext(os.path.basename(path))[0]
                  for path in glob.glob(os.path.join(FOLDER, "*.toml")))


def load(name):
    path = name if name.endswith(".toml") else os.path.join(FOLDER, f"{name}.toml")
    if not os.path.exists(path):
        raise ScenarioError(f"no scenario {name!r}; there are: {', '.join(names())}")
    return Scenario(path)
