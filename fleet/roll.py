"""What an operator does, in the order of docs/fleet.md, and what must be seen meanwhile."""

import time
from dataclasses import dataclass, field

from harness import wait

#: Nodes may differ from their mean by this share of it; by so many tunnels in any case, since ws and wss are
#: balanced each for itself, and which of them are closed is a matter of chance.
BALANCED, SLACK = 0.1, 4
#: So often at most the nodes are evened out.
ROUNDS = 3
#: More reconnects within so many seconds than this multiple of an even spread are a herd; and so many are none. Shorter
#: than that a busy machine itself may hold some up.
WINDOW, HERD, NO_HERD = 5, 1.5, 10
#: The Close frames of a node come over at least this share of the spread.
SPREAD = 0.7


@dataclass
class Plan:
    """Seconds: GracefulShutdownTimeout, WSForwardCloseSpread, and how long anything else may take."""

    timeout: float
    spread: float
    patience: float


@dataclass
class Out:
    """How a node was out: from when, until when, and what became of its tunnels."""

    name: str
    began: float
    ended: float = None
    #: Tunnels that it had; how long httpd took to stop; over how many seconds their Close frames came.
    tunnels: int = 0
    stopped: float = 0
    spread: float = 0


@dataclass
class Roll:
    """A rolling upgrade. `say` is told of each step."""

    nodes: list
    balancer: object
    clients: object
    plan: Plan
    say: object
    outs: list = field(default_factory=list)
    #: From when until when tunnels were closed to even out the nodes.
    evened: tuple = None

    def wait(self, condition, what):
        """For something that takes no longer than the plan's patience."""
        return wait.until(condition, what, self.plan.patience, 0.05)

    def all_are_back(self):
        """Waits until every client has a tunnel."""
        self.wait(lambda: self.clients.open == self.clients.count,
                  lambda: f"{self.clients.open} of {self.clients.count} clients have a tunnel; {self.clients.failures[-3:]}")

    def upgrade(self, node, module):
        """One node. What is left of its tunnels ends over the spread, by the server's own plan: that is one command,
        and httpd waits for the last one. Nothing has to be counted and closed by a script."""
        out = Out(node.name, time.monotonic(), tunnels=node.tunnels())
        self.outs.append(out)
        self.say(f"{node.name}: out of service; it has {out.tunnels} tunnels")
        node.ready(False)
        self.wait(lambda: self.balancer.states(node.name) == ["DOWN", "DOWN"], "HAProxy has seen it")
        closes = len(self.clients.closes)
        out.stopped = node.graceful_stop(self.plan.timeout + self.plan.patience)
        self.say(f"{node.name}: stopped within {out.stopped:.1f} s; upgrade, start")
        node.install(module)
        node.start()
        node.ready(True)
        self.wait(lambda: self.balancer.states(node.name) == ["UP", "UP"], "HAProxy has seen it")
        self.all_are_back()
        out.ended = time.monotonic()
        closed = self.clients.closes[closes:]
        out.spread = max(closed) - min(closed)
        self.say(f"{node.name}: back in service, version {node.version()}; "
                 f"{len(closed)} Close frames over {out.spread:.1f} s; all clients are back")
        assert len(closed) == out.tunnels
        assert out.stopped < self.plan.timeout + wait.scaled(2)
        assert out.spread > SPREAD * self.plan.spread

    def even_out(self):
        """The node that was the last one has no tunnels, and gets only new ones. The others let go of what they have
        too much, over the spread, and leastconn does the rest. It counts ws and wss apart, and who has too much of both
        may let go of one: then once more."""
        began = time.monotonic()
        for _ in range(ROUNDS):
            counts = [node.tunnels() for node in self.nodes]
            self.say(f"tunnels now {counts}: the nodes are evened out")
            self.let_go(counts)
            if self.is_balanced([node.tunnels() for node in self.nodes]):
                break
        self.evened = began, time.monotonic()

    def let_go(self, counts):
        """Each node closes what it has beyond the mean, and all clients come back."""
        opened, mean = len(self.clients.opened), self.clients.count / len(self.nodes)
        moved = [(node, int(count - mean)) for node, count in zip(self.nodes, counts) if count >= mean + 1]
        running = [node.close_some(count, self.plan.spread) for node, count in moved]
        for program, (node, count) in zip(running, moved):
            said, wrong = program.communicate(timeout=self.plan.spread + 4 * self.plan.patience)
            assert (program.returncode, said) == (0, f"{count} closed\n"), (node.name, said, wrong)
        self.wait(lambda: len(self.clients.opened) - opened == sum(count for _, count in moved), "they are back")
        self.all_are_back()

    def is_balanced(self, counts):
        """Whether that is within the tolerance."""
        mean = self.clients.count / len(self.nodes)
        return all(abs(count - mean) <= max(BALANCED * mean, SLACK) for count in counts)

    def balanced(self):
        """What the nodes have, within the tolerance."""
        counts = [node.tunnels() for node in self.nodes]
        assert sum(counts) == self.clients.count, counts
        assert self.is_balanced(counts), counts
        return counts

    def reconnects(self):
        """The most in any second, and how many an even spread would have at most: a second."""
        instants = [instant for instant in self.clients.opened if instant > self.outs[0].began]
        even = max(out.tunnels for out in self.outs) / self.plan.spread
        most = busiest(instants, WINDOW)
        assert most <= HERD * even * WINDOW + NO_HERD, (most, even)
        return busiest(instants, 1), even


def busiest(instants, seconds):
    """The most within that time."""
    instants, most, first = sorted(instants), 0, 0
    for last, instant in enumerate(instants):
        while instant - instants[first] > seconds:
            first += 1
        most = max(most, last - first + 1)
    return most
