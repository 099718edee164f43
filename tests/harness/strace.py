"""strace(1) on a process that runs."""

import contextlib
import signal
import subprocess
from pathlib import Path

import pytest

from . import wait


@contextlib.contextmanager
def attached(tasks, *arguments):
    """Traces a process or thread, or several, meanwhile, with such arguments and no word of signals."""
    tasks = tasks if isinstance(tasks, list) else [tasks]
    tracer = subprocess.Popen(["strace", "-qq", "-e", "signal=none", *arguments, *(f"--attach={task}" for task in tasks)],
                              stderr=subprocess.PIPE, text=True)  # fmt: skip

    def is_traced(task):
        try:
            return f"TracerPid:\t{tracer.pid}\n" in Path(f"/proc/{task}/status").read_text()
        except OSError:
            # Of several one may have ended.
            return len(tasks) > 1

    try:
        wait.until(lambda: tracer.poll() is not None or all(map(is_traced, tasks)), "strace is there")
        if tracer.poll() is not None:
            pytest.skip(f"strace may not trace here: {tracer.stderr.read()}")
        yield
    finally:
        if tracer.poll() is None:
            tracer.send_signal(signal.SIGINT)
        tracer.communicate()
