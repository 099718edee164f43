"""What the module says about its relay: the figures of its status page and its log lines."""

import re
from dataclasses import dataclass

from . import http, wait

#: A tunnel went to the relay, stays in its thread, ended.
HANDED_OVER, STAYS, ENDED = "WSF0200", "WSF0201", "WSF0202"
#: The line of a tunnel's end.
END = re.compile(
    rb"WSF0202: tunnel \[(?P<id>[^\]]*)\] (?P<client>\S+) -> (?P<origin>\S+) ended after (?P<seconds>[\d.]+) s"
    rb" by the (?P<by>client|back end|server): (?P<why>.+?), (?P<up>\d+) bytes up, (?P<down>\d+) bytes down"
    rb"(?:, client's close code (?P<client_close>\d+))?(?:, back end's close code (?P<origin_close>\d+))?(?:, where=(?P<where>\w+))?$"
)


def figures(server):
    """The module's lines of `?auto` without their prefix, as numbers."""
    status = wait.until(server.status, "mod_status answers")
    return {name.removeprefix("WSForward"): int(value) for name, value in status.items() if name.startswith("WSForward")}


def wait_figure(server, name, value, timeout=wait.DEADLINE):
    """Waits until a figure has the value."""
    wait.until(lambda: figures(server)[name] == value,
               lambda: f"{name} is {value}; {figures(server)}", timeout, 0.02)  # fmt: skip


class Counted:
    """`with Counted(server, HandedOver=1): ...`: by then these figures have grown by so much, no other
    fallback or refusal was counted, and no tunnel but those of `open` is left open."""

    def __init__(self, server, open=0, **growth):
        self.server, self.open, self.growth = server, open, growth

    def __enter__(self):
        self.before = figures(self.server)
        return self

    def grown(self):
        """How much each figure has grown since; the number of open tunnels is as it is."""
        now = figures(self.server)
        return {name: now[name] - (0 if name == "Tunnels" else self.before[name]) for name in now}

    def wait_for(self, **growth):
        """Waits until the figures have grown by so much."""
        wait.until(lambda: growth.items() <= self.grown().items(), lambda: f"{growth}; grown by {self.grown()}")

    def __exit__(self, kind, *_):
        if kind:
            return
        wanted = {"Fallback-": 0, "Refused-": 0}
        names = {name.replace("-", "_"): name for name in self.before}
        growth = {names[name]: value for name, value in self.growth.items()}
        other = {name: 0 for name in self.before if name.startswith(tuple(wanted))}
        self.wait_for(**other | growth | {"Tunnels": self.open})


@dataclass(frozen=True)
class Ended:
    """One WSF0202 line."""

    id: str
    client: str
    origin: str
    seconds: float
    by: str
    why: str
    up: int
    down: int
    client_close: int
    origin_close: int
    #: None for the relay.
    where: str = None

    @classmethod
    def parse(cls, line):
        found = END.search(line)
        assert found, line
        text = {name: value and value.decode() for name, value in found.groupdict().items()}
        code = {name: text[name] and int(text[name]) for name in ("client_close", "origin_close")}
        return cls(**text | code | {"seconds": float(text["seconds"]), "up": int(text["up"]), "down": int(text["down"])})


def ends(server, count=1):
    """The ends logged in this span, once there are so many."""
    return [Ended.parse(line) for line in server.log.wait_for(ENDED, count)]


def opened(server, talk, path="/", **options):
    """Sends the handshake, reads the 101, and waits until the tunnel is the relay's."""
    before = figures(server)["HandedOver"]
    answer = talk.ask(http.handshake(path, **options))
    assert answer.status == 101, answer
    wait.until(lambda: figures(server)["HandedOver"] > before, lambda: f"the hand-over; {server.log.text()}")
    return talk
