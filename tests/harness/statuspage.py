"""The status page of a server, as an administrator, a script and Prometheus ask it."""

import json
import re
import urllib.parse

from . import http, wait

#: The section of the page; `{}` is for more directives.
SECTION = """<Location "/status">
    SetHandler wsforward-status
    {}
</Location>
"""
ACTIONS = "WSForwardStatusActions On"
#: A line of Prometheus's format: a name, labels, a value.
SAMPLE = re.compile(r'(\w+)(?:\{((?:[^"}]|"(?:\\.|[^"\\])*")*)\})? (\S+)$')


class Page:
    """One page. `server` runs, and serves it below /status on this port."""

    def __init__(self, server, client, port, fields=()):
        self.server, self.client, self.port, self.fields = server, client, port, list(fields)

    def get(self, query="", fields=()):
        """The answer to a GET."""
        talk = self.client(self.port)
        target = f"/status{'?' + query if query else ''}"
        answer = talk.ask(http.request(target, fields=[*self.fields, *fields]))
        talk.close()
        return answer

    def json(self, query="json"):
        """What it answers in JSON."""
        answer = self.get(query)
        assert answer.status == 200, answer
        assert answer.get("Content-Type") == "application/json; charset=utf-8"
        assert answer.get("Cache-Control") == "no-store"
        return json.loads(answer.body)

    def tunnels(self, **filters):
        """The tunnels that are listed."""
        query = urllib.parse.urlencode(filters)
        return self.json("tunnels" + ("&" + query if query else ""))

    def wait_tunnels(self, count, **filters):
        """Waits until so many are listed, and returns them."""
        wait.until(lambda: len(self.tunnels(**filters)) == count, lambda: f"{count} tunnels; {self.tunnels()}")
        return self.tunnels(**filters)

    def metrics(self):
        """The values of all metrics, by name and labels: `{(name, frozenset of (label, value)): number}`."""
        answer = self.get("metrics")
        assert answer.status == 200, answer
        found = {}
        for line in answer.body.decode().splitlines():
            if line and not line.startswith("#"):
                name, labels, value = SAMPLE.fullmatch(line).groups()
                pairs = re.findall(r'(\w+)="((?:\\.|[^"\\])*)"', labels or "")
                found[name, frozenset(pairs)] = float(value)
        return found

    def metric(self, name, **labels):
        """The sum of a metric over all samples that have these labels."""
        wanted = set(labels.items())
        return sum(value for (of, has), value in self.metrics().items() if of == f"wsforward_{name}" and wanted <= has)

    def wait_metric(self, value, name, **labels):
        """Waits until that is this."""
        wait.until(lambda: self.metric(name, **labels) == value,
                   lambda: f"{name} {labels} is {value}; {self.metrics()}")  # fmt: skip

    def post(self, **fields):
        """The answer to a POST of these fields."""
        body = urllib.parse.urlencode(fields).encode()
        talk = self.client(self.port)
        answer = talk.ask(http.request("/status", method="POST", body=body, fields=[
            *self.fields, ("Content-Type", "application/x-www-form-urlencoded"), ("Content-Length", str(len(body)))]))  # fmt: skip
        talk.close()
        return answer

    def close(self, **fields):
        """Closes tunnels with a fresh nonce, and says how many."""
        answer = self.post(action="close", nonce=self.json()["nonce"], **fields)
        assert answer.status == 200, (answer, answer.body)
        return json.loads(answer.body)["closed"]


def start(server, client, origin, more="", relay="WSForwardRelay On", actions=ACTIONS, main="", **vhost):
    """Configures and starts a server with a status page and one back end; returns the page."""
    server.directives(main)
    server.port = server.vhost(f"""ServerName tunnels.example
WSForward On
{relay}
{more}
{SECTION.format(actions)}
ProxyPass "/status" "!"
ProxyPass "/" "{origin.url("http", "")}/\"""", **vhost)
    server.start()
    return Page(server, client, server.port)
