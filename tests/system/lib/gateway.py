"""A gateway under test: its configuration, life, logs and administration."""
import http.client
import json
import os
import signal
import socket
import urllib.parse

from lib import certs, harness
from lib.harness import Program, expect, expect_equal, program, run, until
from lib.tracking import TrackingLog

HOSTNAME = "gw.test"
PASSWORDS = {"alice": "wonder land", "bob": "b:uilder", "carol": "päßword"}
SENDERS = {"alice": "alice@client.test,sales@client.test", "bob": "*@bob.test", "carol": ""}
_hashes = {}


def hash_of(password):
    """Cheap to check: tests log in often, and how costly it may be is not what they ask."""
    if password not in _hashes:
        done = run(["openssl", "passwd", "-6", "-salt", "hikyakutest", "-stdin"],
                   input=password + "\n")
        _hashes[password] = done.stdout.strip()
    return _hashes[password]


def users_file(path, accounts=None):
    with open(path, "w", encoding="utf-8") as file:
        for name, password in (accounts or PASSWORDS).items():
            senders = SENDERS.get(name, "")
            file.write(f"{name}:{hash_of(password)}" + (f":{senders}" if senders else "") + "\n")
        file.write("disabled:!\n")


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("hikyaku", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Answer:
    def __init__(self, status, body, headers):
        self.status, self.body, self.headers = status, body, headers

    @property
    def json(self):
        return json.loads(self.body)


class Gateway:
    """
    g = Gateway(folder, sink)      a configuration with ports `submission` (STARTTLS), `submissions`
                                   (TLS), `relay` (plain 25) and one smart host
    g.config[...] = ...            any change, in the keys of the configuration file
    g.start(); ...; g.stop()       stop asks for exit status 0
    """

    def __init__(self, folder, sink=None, name="gw", shards=2):
        self.folder, self.name = folder, name
        self.host = harness.address()
        self.dir = os.path.join(folder, name)
        os.makedirs(self.dir, exist_ok=True)
        self.leaf = certs.leaf(HOSTNAME, "localhost", self.host)
        self.port = {name: harness.free_port()
                     for name in ("submission", "submissions", "relay", "admin")}
        self.token = "0123456789abcdef-test"
        self.process = None
        self.starts = 0
        self.config_path = self.path("hikyaku.yaml")
        self.socket = self.path("ctl.sock")
        self.tracking_path = self.path("tracking.jsonl")
        users_file(self.path("users"))
        with open(self.path("token"), "w", encoding="utf-8") as file:
            file.write(self.token + "\n")
        self.config = self.default_config(sink, shards)

    def path(self, *parts):
        return os.path.join(self.dir, *parts)

    def certificate(self):
        return [{"certificate": self.leaf.certificate, "key": self.leaf.key}]

    def bind(self, name):
        return [f"{self.host}:{self.port[name]}"]

    def default_config(self, sink, shards):
        password = {"required": True, "require_tls": True, "mechanisms": ["PLAIN", "LOGIN"]}
        return {
            "hostname": HOSTNAME,
            "shards": shards,
            "spool": {"path": self.path("spool"), "max_size": "2GiB", "min_free": "16MiB"},
            "admin": {"socket": self.socket, "http": f"{self.host}:{self.port['admin']}",
                      "token_file": self.path("token")},
            "log": {"level": "debug", "format": "json", "tracking": self.tracking_path},
            "users": {"file": self.path("users")},
            "accepted_domains": [{"domain": "local.test", "type": "authoritative"}],
            "receive_connectors": [
                {"name": "submission", "bind": self.bind("submission"), "fqdn": HOSTNAME,
                 "tls": {"mode": "starttls", "required": True, "certificates": self.certificate()},
                 "auth": dict(password), "sender_identity": "off"},
                {"name": "submissions", "bind": self.bind("submissions"), "fqdn": HOSTNAME,
                 "tls": {"mode": "implicit", "required": True, "certificates": self.certificate()},
                 "auth": dict(password)},
                {"name": "relay", "bind": self.bind("relay"), "fqdn": HOSTNAME,
                 "tls": {"mode": "starttls", "certificates": self.certificate()},
                 "relay": {"networks": ["127.0.0.0/8"]}}],
            "send_connectors": [smart_host("out", sink.smart_host)] if sink else [],
            "retry": {"intervals": ["1s"], "expire": "1h", "warn_after": "0s"}}

    def receive(self, name):
        return next(c for c in self.config["receive_connectors"] if c["name"] == name)

    def send(self, name):
        return next(c for c in self.config["send_connectors"] if c["name"] == name)

    def write_config(self):
        """JSON is YAML."""
        with open(self.config_path, "w", encoding="utf-8") as file:
            json.dump(self.config, file, indent=1)

    # ---- life ----

    def launch(self):
        """Starts the process and does not wait."""
        self.write_config()
        self.starts += 1
        self.log_path = self.path(f"log.{self.starts}")
        self.process = Program([program("hikyaku"), "--config", self.config_path], self.log_path)

    def start(self, seconds=30):
        self.launch()
        until(lambda: self.ready() or not self.process.alive(), "the gateway is ready", seconds)
        expect(self.process.alive(), "the gateway started:", self.process.log())
        return self

    def ready(self):
        try:
            return self.get("/readyz").status == 200
        except OSError:
            return False

    def stop(self, seconds=harness.STOP_LIMIT_S):
        expect_equal(self.process.stop(seconds), 0, "exit status of the gateway")

    def kill(self):
        self.process.kill()

    def restart(self):
        self.stop()
        return self.start()

    def hangup(self):
        self.process.signal(signal.SIGHUP)

    # ---- logs ----

    @staticmethod
    def events(lines, event=None):
        mark = f'"event":"{event}"' if event else ""
        return [json.loads(line) for line in lines if line.startswith("{") and mark in line]

    def log(self, event=None):
        try:
            with open(self.log_path, encoding="utf-8", errors="replace") as file:
                return self.events(file.read().split("\n")[:-1], event)
        except FileNotFoundError:
            return []

    def tracking(self, event=None):
        return self.events(TrackingLog(self.tracking_path).new(), event)

    def wait_tracking(self, event, count=1, seconds=20):
        until(lambda: len(self.tracking(event)) >= count, f"{count} {event} in the tracking log",
              seconds)
        return self.tracking(event)

    # ---- administration ----

    def request(self, method, path, unix=False, token=None, seconds=20, **query):
        seconds = harness.patient(seconds)
        if query:
            path += "?" + urllib.parse.urlencode(query)
        if unix:
            connection = UnixConnection(self.socket, seconds)
        else:
            connection = http.client.HTTPConnection(self.host, self.port["admin"], timeout=seconds)
        headers = {}
        if not unix and token is not False:
            headers["Authorization"] = "Bearer " + (token or self.token)
        try:
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            return Answer(response.status, response.read().decode("utf-8"), response.headers)
        except http.client.HTTPException as error:
            raise OSError(f"{path}: {error!r}") from error
        finally:
            connection.close()

    def get(self, path, **query):
        return self.request("GET", path, **query)

    def post(self, path, **query):
        return self.request("POST", path, **query)

    def status(self):
        return self.get("/api/v1/status").json

    def queue(self, filter=None, limit=1000):
        query = {"limit": limit}
        if filter:
            query["filter"] = filter
        answer = self.get("/api/v1/queue", **query)
        expect_equal(answer.status, 200, f"queue {filter}: {answer.body}")
        return answer.json["items"]

    def change(self, action, **which):
        answer = self.post(f"/api/v1/queue/{action}", **which)
        expect_equal(answer.status, 200, f"{action} {which}: {answer.body}")
        return answer.json["changed"]

    def reload(self):
        self.write_config()
        return self.ask_reload()

    def ask_reload(self):
        """Of the file as it is. One under way, by a signal or by the watch, is waited for: a new
        generation is seen before all shards have it."""
        def answer():
            got = self.post("/api/v1/reload")
            return got if got.status != 409 else None
        return until(answer, "no other reload is under way")

    def metrics(self):
        """Sums over all labels, by name."""
        sums = {}
        for line in self.get("/metrics").body.split("\n"):
            if line and not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                name = name.split("{")[0]
                sums[name] = sums.get(name, 0.0) + float(value)
        return sums

    def wait_metrics(self, **wanted):
        """Until each of these, without its hikyaku_, has its value. Shards count by themselves."""
        wanted = {f"hikyaku_{name}": value for name, value in wanted.items()}
        until(lambda: wanted.items() <= self.metrics().items(), f"metrics {wanted}", every=0.1)

    def wait_metric(self, name, least=1):
        """Until the metric hikyaku_NAME is so high; the metrics then."""
        def probe():
            metrics = self.metrics()
            return metrics[f"hikyaku_{name}"] >= least and metrics
        return until(probe, f"hikyaku_{name} of {least}", every=0.1)

    def queued(self):
        """Messages in the queue, counted now."""
        return self.get("/api/v1/queue", limit=0).json["matched"]

    def wait_empty(self, seconds=30):
        """All lanes are read and nothing is queued."""
        until(lambda: len(self.log("recovered")) >= self.config["shards"], "recovery ends", seconds)
        until(lambda: self.queued() == 0, "the queue is empty", seconds, 0.05)

    def ctl(self, *words, status=0, **options):
        return run([program("hikyakuctl"), "--socket", self.socket, *words], status=status,
                   **options)


def smart_host(name, *hosts, space="*", cost=1, **more):
    """A send connector to smart hosts, in clear unless told otherwise."""
    return {"name": name, "address_spaces": [{"space": space, "cost": cost}],
            "delivery": "smart_hosts",
            "smart_hosts": [h if isinstance(h, dict) else {"host": h} for h in hosts],
            "tls": {"level": "none"}, **more}
