"""Waiting for a condition, never for a time."""

import time

#: Seconds after which a condition that should hold at once is given up.
DEADLINE = 10.0


class TimedOut(AssertionError):
    """The condition did not come true before its deadline."""


def until(condition, what, timeout=DEADLINE, every=0.01):
    """Polls `condition` until it returns something true and returns that.

    Raises TimedOut with `what` (a string, or a callable that makes one) after `timeout` seconds.
    """
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= end:
            raise TimedOut(f"not within {timeout:g} s: {what() if callable(what) else what}")
        time.sleep(every)


def steady(count, seconds=0.5):
    """What `count` returns once it stays for so long: things that linger are not counted."""
    last = [None, time.monotonic()]

    def stays():
        value = count()
        if value != last[0]:
            last[:] = [value, time.monotonic()]
        return time.monotonic() - last[1] > seconds
    until(stays, lambda: f"a steady number, {last[0]} just now")
    return last[0]
