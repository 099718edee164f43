"""For tests that must do something again and again within a time, on a machine that may be too busy for it."""

import time

from . import relayed, wait


class Pauses:
    """Notes the longest time between two moments."""

    def __init__(self):
        self._last, self.longest = time.monotonic(), 0.0

    def note(self):
        """A moment at which something was done."""
        now = time.monotonic()
        self.longest, self._last = max(self.longest, now - self._last), now


def without_long_pauses(attempt, timeout, server):
    """Runs `attempt(pauses)`, which opens a tunnel that must not be silent for as long as `timeout`, in seconds,
    and notes when something was sent. If it fails after a pause of that length, the tunnel had to end: then
    once more."""
    def succeeds():
        pauses = Pauses()
        try:
            attempt(pauses)
            return True
        except (AssertionError, EOFError, OSError):
            pauses.note()
            if pauses.longest < timeout * 0.8:
                raise
            relayed.ends(server)
            server.log.open_span()
            return False
    wait.until(succeeds, f"an attempt without a pause of {timeout} s", 60)
