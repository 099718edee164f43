"""What the processes of the server hold, at an instant; and what that does over time."""

import math
import os
import statistics
import time
from dataclasses import dataclass, field

from harness import procfs


@dataclass
class Sample:
    """KiB, descriptors and tunnels of the parent, of children and of drain processes."""

    at: float
    #: By process id: its share of memory in KiB (Pss), and its descriptors.
    children: dict = field(default_factory=dict)
    drains: dict = field(default_factory=dict)
    parent_kib: int = 0
    #: Anonymous memory, whoever shares it: what the process has by itself. Its share grows without its doing, too,
    #: when the process that it was forked from ends.
    parent_own_kib: int = 0
    #: Likewise of drain processes, by process id.
    drains_own_kib: dict = field(default_factory=dict)
    parent_descriptors: int = 0
    #: As the clients know it.
    open: int = 0
    #: Only in a quiet time: what the register lists, what is counted, and how many processes it knows.
    listed: int = None
    counted: int = None

    @property
    def children_kib(self):
        return sum(kib for kib, _ in self.children.values())

    @property
    def drains_kib(self):
        return sum(kib for kib, _ in self.drains.values())

    @property
    def kib(self):
        return self.parent_kib + self.children_kib + self.drains_kib

    @property
    def descriptors(self):
        return self.parent_descriptors + sum(number for _, number in [*self.children.values(), *self.drains.values()])


def sample(server, mark, clients):
    """One of now. Processes that end meanwhile are not in it."""
    made = Sample(time.monotonic(), open=clients.open)
    made.parent_kib, made.parent_descriptors = _of(server.pid)
    made.parent_own_kib = procfs.anonymous_kib(server.pid)
    drains = procfs.named("wsforward-drain", mark)
    for pid in drains:
        _put(made.drains, pid, _of)
        _put(made.drains_own_kib, pid, procfs.anonymous_kib)
    for pid in server.children:
        if pid not in drains:
            _put(made.children, pid, _of)
    return made


def _put(processes, pid, of):
    try:
        processes[pid] = of(pid)
    except (OSError, KeyError):
        return


def _of(pid):
    return procfs.shared_out_kib(pid), len(os.listdir(f"/proc/{pid}/fd"))


@dataclass
class Slope:
    """A line through points: what it is at the first and the last of them, and how sure that is."""

    first: float
    last: float
    #: For each hour, and its standard error.
    an_hour: float
    error: float
    mean: float

    @classmethod
    def of(cls, points):
        """Of (instant in seconds, value)."""
        times, values = zip(*points)
        middle, mean = statistics.fmean(times), statistics.fmean(values)
        spread = sum((at - middle) ** 2 for at in times)
        slope = sum((at - middle) * (value - mean) for at, value in points) / spread
        wrong = sum((value - mean - slope * (at - middle)) ** 2 for at, value in points)
        error = math.sqrt(wrong / (len(points) - 2) / spread)
        return cls(mean + slope * (times[0] - middle), mean + slope * (times[-1] - middle), 3600 * slope, 3600 * error, mean)
