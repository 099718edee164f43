"""Both ends of one tunnel, in a process of their own, that echo all the time: how long that takes beside others.

    python -m harness.probe

It prints the port of its back end, reads the server's, and prints `open`; for each further line it says how long echoes
took since the last one: the longest, the 99th percentile and the median, in seconds, and how many there were.
"""

import select
import socket
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import dataclass

from . import http, paths
from .herd import SWITCH


@dataclass(frozen=True)
class Took:
    """How long echoes took, in seconds."""

    longest: float
    p99: float
    median: float
    count: int

    def __str__(self):
        times = " ".join(f"{name} {value * 1000:.2f}" for name, value in
                         (("median", self.median), ("p99", self.p99), ("longest", self.longest)))  # fmt: skip
        return f"{times} ms ({self.count} echoes)"


class Probe:
    """The running program; `port` is its back end's."""

    def __init__(self):
        self._process = subprocess.Popen([sys.executable, "-m", "harness.probe"], text=True, bufsize=1,
                                         cwd=paths.ROOT / "tests", stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
        self.port = int(self._process.stdout.readline())

    def begin(self, port):
        """Opens the tunnel, through this port."""
        self._process.stdin.write(f"{port}\n")
        assert self._process.stdout.readline() == "open\n"

    def took(self):
        """How long echoes took since this was asked last."""
        self._process.stdin.write("?\n")
        *times, count = self._process.stdout.readline().split()
        assert int(count) > 0
        return Took(*map(float, times), int(count))

    def close(self):
        """Ends the program."""
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


def _serve(listener):
    talk, _ = listener.accept()
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += talk.recv(65536)
    talk.sendall(SWITCH)
    while talk.recv(7, socket.MSG_WAITALL):
        talk.sendall(b"\x82\x01x")


def main():
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    threading.Thread(target=_serve, args=(listener,), daemon=True).start()
    talk = socket.create_connection(("127.0.0.1", int(sys.stdin.readline())))
    talk.sendall(http.handshake("/probe"))
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += talk.recv(1)
    # Whoever reads this has not written the next line before.
    print("open", flush=True)
    times = []
    while True:
        begin = time.monotonic()
        talk.sendall(b"\x82\x81\0\0\0\0x")
        assert talk.recv(3, socket.MSG_WAITALL) == b"\x82\x01x"
        times.append(time.monotonic() - begin)
        if select.select([sys.stdin], [], [], 0.001)[0]:
            if not sys.stdin.readline():
                break
            p99 = sorted(times)[len(times) * 99 // 100]
            print(max(times), p99, statistics.median(times), len(times), flush=True)
            times = []


if __name__ == "__main__":
    main()
