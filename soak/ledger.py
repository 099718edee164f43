"""The book of all tunnels: which are open, whose end was to come, and which ended although nobody asked for it."""

import time
from collections import Counter
from dataclasses import dataclass, field

#: How long after a fault, in seconds, the answers and resets of handshakes may be its doing.
AFTERWARDS = 5
#: A child of stock httpd's, too, resets a connection now and then that it has just accepted when it ends (event).
CHILD_ENDS = 20


@dataclass
class Tunnel:
    """`name` is what the clients call it: which client, and which of its tunnels."""

    name: str
    #: The client's and the server's: either alone may be that of another tunnel too.
    ports: tuple
    backend: int
    state: str = "handshake"
    opened: float = None
    #: Why it is to end, None if it is not; and whether it has to, or may go on.
    fault: str = None
    has_to_end: bool = False


@dataclass
class Lost:
    """A tunnel or a handshake that ended although nobody asked for it."""

    tunnel: Tunnel
    at: float
    how: str


@dataclass
class Ledger:
    """Written by the thread that hears the clients, under their lock."""

    tunnels: dict = field(default_factory=dict)
    ports: dict = field(default_factory=dict)
    lost: list = field(default_factory=list)
    #: Tunnels by how they ended, and handshakes that came to nothing by the reason they had.
    ended: Counter = field(default_factory=Counter)
    refused: Counter = field(default_factory=Counter)
    opened: int = 0
    #: Until when handshakes with a back end may fail, and those that a child may have accepted that ends.
    away: dict = field(default_factory=dict)
    child_ends: float = 0

    @property
    def open(self):
        """How many tunnels are open."""
        return self.opened - sum(self.ended.values())

    def hear(self, words):
        """A line of the clients."""
        kind, name = words[0], words[1]
        if kind == "try":
            tunnel = Tunnel(name, (int(words[2]), int(words[3])), int(words[4]))
            self.tunnels[name] = self.ports[tunnel.ports] = tunnel
            return
        tunnel = self.tunnels[name]
        if kind == "open":
            tunnel.state, tunnel.opened = "open", time.monotonic()
            self.opened += 1
        elif kind == "late":
            self.lost.append(Lost(tunnel, time.monotonic(), "no answer came"))
        elif kind == "end":
            self._end(tunnel, words[2], " ".join(words[3:]))

    def _end(self, tunnel, state, how):
        del self.tunnels[tunnel.name]
        if self.ports.get(tunnel.ports) is tunnel:
            del self.ports[tunnel.ports]
        now = time.monotonic()
        reason = None
        if not how.startswith("wrong:"):
            if how == "left":
                reason = "its client left"
            elif tunnel.fault:
                reason = tunnel.fault
            elif state == "handshake":
                reason = self._excuse(tunnel, how, now)
        if reason is None:
            self.lost.append(Lost(tunnel, now, f"{state}: {how}"))
        if tunnel.state == "handshake":
            self.refused[reason or "for no reason"] += 1
        else:
            self.ended[reason or "for no reason"] += 1

    def _excuse(self, tunnel, how, now):
        """Of a handshake that came to nothing."""
        if how.startswith("answer HTTP/1.1 50") and now < self.away.get(tunnel.backend, 0):
            return "its back end was away"
        if not how.startswith("answer ") and now < self.child_ends:
            return "its child ended before it read anything"
        return None

    # Faults.

    def child_ending(self):
        """A reload: children end."""
        self.child_ends = time.monotonic() + CHILD_ENDS

    def backend_dies(self, backend):
        """All of its tunnels are to end."""
        self.away[backend] = float("inf")
        return self._mark([one for one in self.tunnels.values() if one.backend == backend], "its back end was killed",
                          lambda one: one.state != "handshake")  # fmt: skip

    def backend_is_back(self, backend):
        """It listens again."""
        self.away[backend] = time.monotonic() + AFTERWARDS

    def process_dies(self, kind, alone, shared):
        """Tunnels at these ports are to end; those in `shared` are another process's too, and may."""
        found = [self.ports[ports] for ports in alone | shared if ports in self.ports]
        return self._mark(found, f"its {kind} was killed", lambda one: one.ports in alone)

    def _mark(self, tunnels, fault, has_to_end):
        for one in tunnels:
            one.fault, one.has_to_end = fault, one.has_to_end or has_to_end(one)
        return sum(one.has_to_end for one in tunnels), sum(not one.has_to_end for one in tunnels)

    def survivors(self):
        """Those that had to end and are there still."""
        return [one for one in self.tunnels.values() if one.has_to_end]

    def forgive(self):
        """Who may have ended by a fault and did not is like any other again."""
        for one in self.tunnels.values():
            if one.fault and not one.has_to_end:
                one.fault = None
