"""A program of the harness that runs in a process of its own and is told what to do, line by line."""

import subprocess
import sys

from . import paths


class Program:
    """`harness.NAME`, with such arguments; what it says first is `greeting`. `inside` is what its command begins with."""

    def __init__(self, name, *arguments, inside=()):
        self._process = subprocess.Popen([*inside, sys.executable, "-m", f"harness.{name}", *map(str, arguments)], text=True,
                                         bufsize=1, cwd=paths.ROOT / "tests", stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE)  # fmt: skip
        self.greeting = self.hear()

    def say(self, line):
        self._process.stdin.write(f"{line}\n")

    def hear(self):
        """The next line that it says."""
        return self._process.stdout.readline().strip()

    def ask(self, line):
        self.say(line)
        return self.hear()

    def close(self):
        """Ends it."""
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()
