"""Whether the machine does nothing but this run: what else runs shows in its figures."""

import os
import statistics
import time

# More than this of the CPUs may not be busy while nothing of the run is.
MOST_BUSY = 0.10
# Nor may a hypervisor have taken more of them.
MOST_STOLEN = 0.02

# Looks are so long.
SECONDS = 0.3


def cpu_times():
    """Seconds of all CPUs together since the system began, in ticks: (all, idle, stolen)."""
    with open("/proc/stat") as file:
        # user, nice, system, idle, iowait, irq, softirq, steal (proc_stat(5)).
        user, nice, system, idle, wait, irq, softirq, steal = map(int, file.readline().split()[1:9])
    return user + nice + system + idle + wait + irq + softirq + steal, idle + wait, steal


def shares(before, after):
    """Of the CPUs, between two times: (busy, stolen)."""
    whole, idle, stolen = (now - then for now, then in zip(after, before))
    return (1 - idle / whole, stolen / whole) if whole else (0.0, 0.0)


class Quiet:
    """Looks at the machine while the run itself does nothing: before it, and after each
    measurement."""

    def __init__(self, times=cpu_times, sleep=time.sleep):
        self.times, self.sleep = times, sleep
        self.began, self.looks = times(), []
        # Whatever was built right before this, it says little.
        self.load = os.getloadavg()[0]

    def look(self, looks=1):
        """Waits a moment, in which nothing of the run may be at work."""
        for _ in range(looks):
            before = self.times()
            self.sleep(SECONDS)
            self.looks.append(shares(before, self.times())[0])

    @property
    def busy(self):
        """The share of the CPUs that others had, in most looks."""
        return statistics.median(self.looks) if self.looks else 0.0

    @property
    def stolen(self):
        """The share of the CPUs that was stolen, over the whole run."""
        return shares(self.began, self.times())[1]

    def why_not(self):
        """Why the run is not to be trusted; empty if it is."""
        found = []
        if self.busy > MOST_BUSY:
            found.append(f"other processes had {self.busy:.0%} of the CPUs between measurements "
                         f"(load average at the beginning: {self.load:.1f})")
        if self.stolen > MOST_STOLEN:
            found.append(f"{self.stolen:.0%} of the CPUs were stolen")
        return " and ".join(found)
