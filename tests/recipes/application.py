"""One application in a process group of its own, on a loopback port, until closed."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

from harness import wait
from harness.ports import Port

HERE = Path(__file__).resolve().parent


class Application:
    """Runs `command`, a function of the port and the application's own directory, which is its home too."""

    def __init__(self, command, **environment):
        self.directory = Path(tempfile.mkdtemp(prefix="wsf-recipe-"))
        self.output = self.directory / "output"
        self._held = Port()
        self.port = self._held.number
        variables = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        variables |= {"HOME": str(self.directory), "PYTHONUNBUFFERED": "1"} | environment
        with self.output.open("wb") as output:
            self._process = subprocess.Popen([str(word) for word in command(self.port, self.directory)], cwd=self.directory,
                                             stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=variables,
                                             start_new_session=True)  # fmt: skip
        try:
            wait.until(self._listens, lambda: f"it listens:\n{self.text()}", 60, 0.05)
        except BaseException:
            self.close()
            raise

    def _listens(self):
        if self._process.poll() is not None:
            raise RuntimeError(f"the application ended with {self._process.returncode}:\n{self.text()}")
        try:
            socket.create_connection(("127.0.0.1", self.port), 5).close()
        except OSError:
            return False
        return True

    def text(self):
        """What it wrote so far."""
        return self.output.read_text(errors="replace")

    def close(self):
        """Ends it and all that it started."""
        for number, seconds in (signal.SIGTERM, 10), (signal.SIGKILL, 10):
            try:
                os.killpg(self._process.pid, number)
                self._process.wait(seconds)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue
        self._process.wait()
        self._held.release()
        shutil.rmtree(self.directory, ignore_errors=True)
