"""HAProxy, with the file of contrib/ as it is."""

import csv
import socket
import threading
import time
from pathlib import Path

from harness import wait
from world import Machine

CONFIGURATION = Path(__file__).resolve().parents[1] / "contrib" / "haproxy" / "haproxy.cfg"
SOCKET = "/run/haproxy/admin.sock"
ADDRESS = "10.0.0.10"


class Balancer:
    """Runs until `stop`. `samples` are (instant, open sessions of each node), some a second."""

    def __init__(self, directory, every):
        self.log = directory / "haproxy.log"
        self.machine = Machine("balancer", ADDRESS)
        with self.log.open("wb") as log:
            self.process = self.machine.start("haproxy", "-db", "-f", CONFIGURATION, stdout=log, stderr=log)
        wait.until(self._answers, self.log.read_text, 20)
        self.samples, self._end, self._every = [], threading.Event(), every
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def ask(self, command):
        """What it answers to a command."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(10)
            sock.connect(SOCKET)
            sock.sendall(command.encode() + b"\n")
            return b"".join(iter(lambda: sock.recv(65536), b"")).decode()

    def rows(self):
        """The rows of its statistics: of each server of ws and wss."""
        rows = csv.DictReader(self.ask("show stat").removeprefix("# ").splitlines())
        return [row for row in rows if row["pxname"] in ("ws", "wss") and row["svname"].startswith("www")]

    def states(self, name):
        """Whether it gives a node new connections: UP or DOWN, once for ws and once for wss."""
        return [row["status"].split()[0] for row in self.rows() if row["svname"] == name]

    def sum(self, field):
        """Of a figure, over all servers."""
        return sum(int(row[field] or 0) for row in self.rows())

    def stop(self):
        """Ends it."""
        self._end.set()
        self._thread.join()
        self.process.terminate()
        self.process.wait(10)

    def _answers(self):
        assert self.process.poll() is None, self.log.read_text()
        try:
            return self.ask("show info")
        except OSError:
            return False

    def _sample(self):
        while not self._end.wait(self._every):
            counts = {}
            for row in self.rows():
                counts[row["svname"]] = counts.get(row["svname"], 0) + int(row["scur"])
            self.samples.append((time.monotonic(), [counts[name] for name in sorted(counts)]))
