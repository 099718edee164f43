"""Waiting for a condition, never for a time; and bounds in seconds that hold on a busy machine too."""

import os
import time
from pathlib import Path

#: Seconds after which a condition that should hold at once is given up.
DEADLINE = 10.0
#: Seconds after which a client gives up a read or a write: no bound of a test, but the end of one that fails.
PATIENCE = 30.0
#: No bound grows by more than this factor, however busy the machine is.
MAX_FACTOR = 8.0
#: How much longer httpd takes where its every access to memory is looked at (ci/sanitizers).
SLOWNESS = float(os.environ.get("WSF_SLOWNESS", "1"))


class TimedOut(AssertionError):
    """The condition did not come true before its deadline."""


def scaled(seconds):
    """A bound for a machine that has nothing else to do, made longer by as much as others use this one.

    For what was measured with time.monotonic(); ask for it when the measurement is over.
    """
    running = int(Path("/proc/loadavg").read_text().split()[3].split("/")[0])
    return SLOWNESS * seconds * min(MAX_FACTOR, max(1.0, max(os.getloadavg()[0], running) / os.cpu_count()))


def until(condition, what, timeout=DEADLINE, every=0.01):
    """Polls `condition` until it returns something true and returns that.

    Raises TimedOut with `what` (a string, or a callable that makes one) after `timeout` seconds, or
    later where the machine is busy.
    """
    begin = time.monotonic()
    while True:
        took = time.monotonic() - begin
        value = condition()
        if value:
            return value
        if took >= timeout and took >= scaled(timeout):
            raise TimedOut(f"not within {took:.1f} s: {what() if callable(what) else what}")
        time.sleep(every)


def steady(count, seconds=0.5, timeout=DEADLINE):
    """What `count` returns once it stays for so long: things that linger are not counted."""
    last = [None, time.monotonic()]

    def stays():
        value = count()
        if value != last[0]:
            last[:] = [value, time.monotonic()]
        return time.monotonic() - last[1] > seconds
    until(stays, lambda: f"a steady number, {last[0]} just now", timeout)
    return last[0]
