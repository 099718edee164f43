"""Very many tunnels: each has its line, whole and once, and an idle one costs little for it.

`WSF_STRESS=long` is for by-hand runs: 108,000 ends. Figures: `pytest -rP` shows them.
"""

import os
import re
import time

import pytest

from harness import procfs, relayed, wait
from harness.accesslog import FORMAT
from harness.stresspeer import PLAIN, StressPeer

pytestmark = pytest.mark.slow

LONG = os.environ.get("WSF_STRESS") == "long"
#: How often so many tunnels are opened, and end at once. A process may have 20,000 descriptors or so.
ROUNDS, COUNT = (12, 9000) if LONG else (1, 2000)
#: What the access log is to bear.
ENDS, SECONDS = 100_000, 60
RUN = {"at_once": COUNT, "size": 10, "rounds": 1, "opening": 16, "clients": PLAIN, "origins": PLAIN, "seconds": 600}
LINE = re.compile(rb"line GET /plain/(\d+) HTTP/1\.1\|101(?:\|\d+){7}\|\d+\.\d{3}(?:\|\d+){2}(?:\|(?:\d+|-)){2}\|(?:client|backend)"
                  rb"\|closed(?:\|(?:\d+|-)){2}\|127\.0\.0\.1:\d+\|([^|]+)")  # fmt: skip
BROWSER = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36"
#: Bytes that an idle tunnel may take for its line in Apache's format `combined`, with the browser's name above:
#: the block itself, and what the allocator and the measuring add.
FOR_A_LINE = 500 if LONG else 700


@pytest.fixture
def peer(certificate):
    made = StressPeer(certificate)
    yield made
    made.close()


class Log:
    """Reads a log as it grows."""

    def __init__(self, path):
        self.path, self.lines, self._file, self._rest = path, [], None, b""

    def count(self):
        if self._file is None and self.path.exists():
            self._file = self.path.open("rb")
        if self._file:
            *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
            self.lines += lines
        return len(self.lines)


def start(server, peer, more):
    """Its own log is not of interest, nor is what it says of each tunnel."""
    server.directives("LogLevel wsforward:warn\n")
    peer.vhosts(server, f"LogLevel wsforward:warn\n{more}")
    return server.start()


@pytest.mark.timeout(1800 if LONG else 90)
@pytest.mark.parametrize("where", ["child", "drain process"])
def test_line_of_each_of_very_many_ends(httpd, peer, where):
    """They end at once. What a drain process cannot send on is counted."""
    server = httpd(extra=["logio"])
    escaped = FORMAT.replace('"', '\\"')
    start(server, peer, f'CustomLog "{server.directory}/ws.log" "{escaped}"')
    log, opening, ending = Log(server.directory / "ws.log"), 0, 0
    server.log.expect("WSF0130", certain=False)
    for number in range(1, ROUNDS + 1):
        begin = time.monotonic()
        peer.hold(count=COUNT, **RUN)
        relayed.wait_figure(server, "Tunnels", COUNT)
        if where != "child":
            server.reload()
            wait.until(lambda: relayed.figures(server)["DrainProcesses"] > 0, "a drain process")
            relayed.wait_figure(server, "Tunnels", COUNT)
        opening += time.monotonic() - begin
        assert log.count() + relayed.figures(server)["AccessLinesLost"] == (number - 1) * COUNT
        begin = time.monotonic()
        result, failures = peer.release()
        wait.until(lambda number=number: log.count() + relayed.figures(server)["AccessLinesLost"] == number * COUNT,
                   lambda number=number: f"{number * COUNT} lines, {log.count()}; {relayed.figures(server)}", 60, 0.02)  # fmt: skip
        ending += time.monotonic() - begin
        assert not failures, failures[:10]
        relayed.wait_figure(server, "Tunnels", 0)
    lost, all_of_them = relayed.figures(server)["AccessLinesLost"], ROUNDS * COUNT
    print(f"{where}: {all_of_them} tunnels opened in {opening:.1f} s, ended in {ending:.1f} s: "
          f"{all_of_them / ending * 60:.0f} ends a minute, {all_of_them / (opening + ending) * 60:.0f} tunnels a minute; {lost} lines lost")  # fmt: skip
    found = [LINE.fullmatch(line) for line in log.lines]
    assert all(found), [line for line, match in zip(log.lines, found, strict=True) if not match][:10]
    assert len({match[2] for match in found}) == len(found)
    if where == "child":
        assert lost == 0 and len(found) == all_of_them
        assert ending * ENDS / all_of_them < wait.scaled(SECONDS)


@pytest.mark.timeout(900 if LONG else 90)
def test_memory_of_an_idle_tunnel_with_and_without_a_line(httpd, peer, monkeypatch):
    """Only where a log wants its line, and in one block."""
    # With an arena for each thread, what these have to spare would be measured too.
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    costs, count = {}, COUNT
    for log in ("env=never", "env=!never"):
        server = httpd()
        start(server, peer, rf'''LogFormat "%h %l %u %t \"%r\" %>s %O \"%{{Referer}}i\" \"%{{User-Agent}}i\"" combined
RequestHeader set User-Agent "{BROWSER}" early
CustomLog "{server.directory}/combined.log" combined {log}''')
        peer.run(count=200, **RUN)
        relayed.wait_figure(server, "Tunnels", 0)
        [child] = server.children
        before = procfs.private_kib(child)
        peer.hold(count=count, **RUN)
        relayed.wait_figure(server, "Tunnels", count)
        costs[log] = (procfs.private_kib(child) - before) * 1024 / count
        peer.release()
        relayed.wait_figure(server, "Tunnels", 0)
        server.stop()
    print(f"{count} idle tunnels, bytes of the child for each: {costs['env=never']:.0f} without a line, {costs['env=!never']:.0f} with one")
    assert costs["env=!never"] - costs["env=never"] < FOR_A_LINE
