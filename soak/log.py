"""httpd's error log, read as it grows: lines that nobody expected, and the last line of each tunnel's ports."""

import re
import time
from collections import Counter

from harness import relayed
from harness.errorlog import CRASH, HARMLESS, LINE, OF_THE_MACHINE

#: What is said of a process that is gone: its id, and how many tunnels went with it.
GONE = re.compile(rb"WSF0310: process (\d+) is gone, and with it (\d+) relayed tunnel")


class Log:
    """`expect` says which lines may come, and until when."""

    def __init__(self, path):
        self._file = path.open("rb")
        self._part = b""
        self._expected = []
        self.unexpected, self.came = [], Counter()
        #: Tunnels that WSF0310 says went with a process; WSF0202 by the client's and the back end's port; its whys.
        self.gone, self.ends, self.whys = Counter(), {}, Counter()
        self.restarts = 0

    def expect(self, regex, seconds, name):
        """Lines like this are no surprise for so long; they are counted by this name."""
        self._expected.append((re.compile(regex.encode()), time.monotonic() + seconds, name))

    def read(self):
        """Reads what is new."""
        *lines, self._part = (self._part + self._file.read()).split(b"\n")
        for line in lines:
            self._take(line)
        now = time.monotonic()
        self._expected = [one for one in self._expected if one[1] > now]

    def _take(self, line):
        if b"WSF0202" in line:
            if found := relayed.END.search(line):
                ports = tuple(int(found[side].rpartition(b":")[2]) for side in ("client", "origin"))
                self.ends[ports] = line.decode(errors="replace")
                self.whys[f"{found['why'].decode()} by the {found['by'].decode()}"] += 1
        elif b"resuming normal operations" in line:
            self.restarts += 1
        elif found := GONE.search(line):
            self.gone[int(found[1])] += int(found[2])
        parsed = LINE.match(line)
        if not CRASH.search(line) and (not line or parsed and (HARMLESS.match(parsed["level"]) or OF_THE_MACHINE.search(line))):
            return
        for regex, _, name in self._expected:
            if regex.search(line):
                self.came[name] += 1
                return
        self.unexpected.append(line.decode(errors="replace"))
