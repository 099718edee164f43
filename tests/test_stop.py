"""Stop and restart while other requests hold their threads: relayed tunnels end at once all the same."""

import contextlib
import os
import re
import signal
import threading
import time

import pytest

from harness import http, procfs, steps, strace, wait, websocket
from harness.draining import site  # noqa: F401
from harness.herd import Herd

MPMS = ["event", "worker", "prefork"]
#: One process per generation, so that held request and tunnels share it where they can.
ONE = {
    "event": "ServerLimit 8\nStartServers 1",
    "worker": "ServerLimit 8\nStartServers 1",
    "prefork": "",
}
STOPS = {"stop": signal.SIGTERM, "restart": signal.SIGHUP}
#: httpd repeats its SIGTERM after so many seconds, and kills what is left after nine. What is measured
#: is a few hundredths; the bound is for a machine that is busy.
REPEATED = 3 * wait.SLOWNESS


class Holding:
    """A request that holds its thread until the end of the test: an event stream that is silent, a tunnel
    in its thread, or an upload that pauses."""

    def __init__(self, kind, backend, client):
        self.kind, self.client, self.release = kind, client, threading.Event()
        self.origin = backend(name="held")
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n"
        self.origin.script = {
            "events": [head, steps.wait_for(self.release), steps.close],
            "thread": [steps.switch(), steps.wait_for(self.release), steps.close],
            "upload": [steps.wait_for(self.release), steps.close],
        }[kind]  # fmt: skip
        self.config = f"""<Location "/held">
ProxyPass "{self.origin.url("http")}" upgrade=websocket
WSForwardRelay Off
SetEnv proxy-sendchunked 1
</Location>"""

    def begin(self, port):
        """The request, once its thread is held."""
        talk = self.client(port)
        if self.kind == "events":
            talk.send(http.request("/held"))
            talk.read_until(b"data: 1\n\n")
        elif self.kind == "thread":
            assert talk.ask(http.handshake("/held")).status == 101
        else:
            talk.send(b"POST /held HTTP/1.1\r\nHost: site.test\r\nContent-Length: 1000000\r\n\r\n" + bytes(20000))
            wait.until(lambda: self.origin.connections, "the upload has begun")
        return talk


def tunnels(client, certificate, one, before=0):
    """A plain one and one with TLS, both with the relay, which has so many before."""
    made = [client(one.plain), client(one.tls, certificate.client_context("tls1.3"))]
    for talk in made:
        assert talk.ask(http.handshake()).status == 101
        talk.echoes()
    wait.until(lambda: one.count("Tunnels") == before + 2, "both are relayed")
    return made


@pytest.mark.timeout(120)
@pytest.mark.parametrize("child", ["serving", "ending"])
@pytest.mark.parametrize("how", STOPS)
@pytest.mark.parametrize("kind", ["events", "thread", "upload"])
@pytest.mark.parametrize("mpm", MPMS)
def test_tunnels_end_at_once_beside_a_held_thread(site, backend, client, certificate, mpm, kind, how, child):
    """In a drain process, in a child that ends already, where its thread is held, and in one that serves."""
    holding = Holding(kind, backend, client)
    one = site(mpm, ONE[mpm], holding.config)
    open_ones = tunnels(client, certificate, one)
    one.server.reload()
    wait.until(lambda: one.drains() and "G" not in one.server.status()["Scoreboard"], "they are in a drain process")
    held = [holding.begin(one.plain)]
    open_ones += tunnels(client, certificate, one, len(open_ones))
    if child == "ending":
        old = one.server.serving(held[0])
        threads = procfs.threads(old)
        one.server.reload()
        # It waits for that thread, of all its workers.
        wait.until(lambda: procfs.threads(old) < threads or "G" in one.server.status()["Scoreboard"], "a child ends")
        assert old in one.server.children
        # In the new one too.
        held.append(holding.begin(one.plain))
        open_ones += tunnels(client, certificate, one, len(open_ones))
    # httpd's words for a child that has to be killed.
    one.server.expect_log("AH0004[56]", certain=False)
    # What the end does to the held ones.
    one.server.expect_log("AH0(1102|1110|1113|2611|0898|1097|1084|1086|0574)|proxy|core:error", certain=False)
    # As in Httpd.stop: a hard end races with a worker that frees its connection, in stock httpd.
    wait.until(lambda: all(map(procfs.asleep, one.server.children)), "httpd's threads sleep")
    said = len(one.server.log.matching("resuming normal operations"))
    began = time.monotonic()
    one.server.send_signal(STOPS[how])
    for talk in open_ones:
        frame = talk.read_frame()
        assert (frame.opcode, frame.payload[:2]) == (websocket.CLOSE, (1001).to_bytes(2))
    last = time.monotonic() - began
    print(f"{mpm} {kind} {how} {child}: Close after {last:.3f} s")
    for talk in open_ones:
        talk.read_to_end()
        talk.close()
    wait.until(lambda: not one.drains(), "no drain process is left")
    over = time.monotonic() - began
    assert last < REPEATED and over < REPEATED, (last, over)
    # Those of drain processes wait for the parent, where no child of the present configuration is left.
    one.server.log.wait_for("WSF0202.*by the server: (stop|server)", len(open_ones))
    holding.release.set()
    for talk in held:
        talk.close()
    if how == "stop":
        one.server.stop()
    else:
        # A tunnel in a thread may have to be killed.
        wait.until(lambda: len(one.server.log.matching("resuming")) > said, "it has restarted", 20)
        wait.until(one.server.status, "it serves again")
        for talk in tunnels(client, certificate, one):
            talk.echoes().close()


@pytest.fixture
def many():
    """A back end of many quiet tunnels, and their clients."""
    one = Herd()
    yield one
    one.close()


@pytest.mark.parametrize("log", ["quick", "slow"])
def test_lines_of_access_logs_that_nobody_took_before_the_stop(site, many, log):
    """A drain process has sent them, and its children stood still. The parent takes all of them, and says how many it
    did not write in its time."""
    count = 200

    def more(server):
        return f'LogLevel wsforward:warn\nCustomLog "{server.directory}/ws.log" "%{{reason}}^WS"'

    one = site("event", more, origin=many)
    # Its children are killed.
    one.server.expect_log("AH00052", certain=False)
    closed = many.open(one.plain, count)
    wait.until(lambda: one.count("Tunnels") == count, "all are relayed", 30)
    one.server.reload()
    wait.until(lambda: one.drains() and "G" not in one.server.status()["Scoreboard"], "they are in a drain process")
    [drain] = one.drains()
    children = one.server.children
    for child in children:
        os.kill(child, signal.SIGSTOP)
    os.kill(drain, signal.SIGTERM)
    many.ends(closed)
    wait.until(lambda: not one.drains(), "it has sent its lines")
    if log == "slow":
        one.server.log.expect("WSF0130")
    # So many milliseconds for each line.
    slow = ("-o", "/dev/null", "-e", "trace=write", "-e", "inject=write:delay_enter=5000")
    with strace.attached(one.server.pid, *slow) if log == "slow" else contextlib.nullcontext():
        one.server.send_signal(signal.SIGTERM)
        for child in children:
            os.kill(child, signal.SIGKILL)
        wait.until(lambda: one.server._process.poll() is not None, "the parent has ended", 20)
    written = (one.server.directory / "ws.log").read_text().count("stopped\n")
    said = one.server.log.matching("WSF0130")
    lost = sum(int(re.search(rb"WSF0130: (\d+) lines", line)[1]) for line in said)
    # Each tunnel has a line in the server's own log too.
    assert 2 * written + lost == 2 * count and (lost > 0) == (log == "slow"), (written, lost)
    one.server.stop()
