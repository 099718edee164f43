"""strace(1) on a process that runs."""

import contextlib
import signal
import subprocess
from pathlib import Path

import pytest

from . import wait


@contextlib.contextmanager
def attached(task, *arguments):
    """Traces a process or thread meanwhile, with such arguments and no word of signals."""
    tracer = subprocess.Popen(["strace", "-qq", "-e", "signal=none", *arguments, "-p", str(task)],
                              stderr=subprocess.PIPE, text=True)  # fmt: skip
    try:
        wait.until(lambda: tracer.poll() is not None or f"TracerPid:\t{tracer.pid}" in
                   Path(f"/proc/{task}/status").read_text(), "strace is there")  # fmt: skip
        if tracer.poll() is not None:
            pytest.skip(f"strace may not trace here: {tracer.stderr.read()}")
        yield
    finally:
        if tracer.poll() is None:
            tracer.send_signal(signal.SIGINT)
        tracer.communicate()
