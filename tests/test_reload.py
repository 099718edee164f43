"""What becomes of relayed tunnels when their child ends: reload, recycle, stop, restart."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from harness import http, procfs, wait, websocket
from harness.draining import Traffic, opened, site  # noqa: F401

MPMS = ["event", "worker", "prefork"]
RELOADS = 20
#: prefork has a process for each connection being accepted: fewer tunnels, the same reloads.
TUNNELS = {"event": 200, "worker": 200, "prefork": 40}


@pytest.mark.timeout(180)
@pytest.mark.parametrize("mpm", MPMS)
def test_reloads_drop_no_tunnel_and_hold_no_slot(site, client, certificate, mpm):
    one = site(mpm)
    tunnels = opened(client, certificate, one, TUNNELS[mpm])
    traffic = [Traffic(tunnels[part::4]) for part in range(4)]
    for number in range(RELOADS):
        one.server.reload()
        # Old generations are gone: no slot is held by one.
        wait.until(lambda: "G" not in one.server.status()["Scoreboard"], f"slots are free after reload {number}")
        with client(one.plain) as talk:
            assert talk.ask(http.handshake()).status == 101
    for each in traffic:
        each.end()
    assert len(one.drains()) >= 1
    wait.until(lambda: one.count("Tunnels") == len(tunnels), "every tunnel is counted")
    for talk in tunnels:
        talk.echoes()
        talk.close()
    wait.until(lambda: not one.drains(), "drain processes end with their tunnels")
    wait.until(lambda: one.count("Tunnels") == 0, "no tunnel is counted")
    # Lines of drain processes are logged by a child, a moment later.
    said = one.server.log.wait_for("WSF0202", len(tunnels) + RELOADS)
    assert len(said) == len(tunnels) + RELOADS


@pytest.mark.parametrize("mpm", MPMS)
def test_recycled_children_drop_no_tunnel(site, client, certificate, mpm):
    one = site(mpm, "MaxConnectionsPerChild 10")
    tunnels = opened(client, certificate, one, 30)
    for _ in range(60):
        with client(one.plain) as talk:
            talk.ask(http.request("/plain"))
    wait.until(one.drains, "a child was recycled")
    for talk in tunnels:
        talk.echoes()


STOPS = {"stop": signal.SIGTERM, "graceful-stop": signal.SIGWINCH, "restart": signal.SIGHUP}


@pytest.mark.parametrize("mpm", MPMS)
@pytest.mark.parametrize("how", STOPS)
def test_stops_end_tunnels_in_order(site, client, certificate, mpm, how):
    """Close 1001 and an end, in children and in drain processes, at once."""
    one = site(mpm)
    older = opened(client, certificate, one, 6)
    one.server.reload()
    tunnels = older + [client(one.plain) for _ in range(6)]
    for talk in tunnels[6:]:
        assert talk.ask(http.handshake()).status == 101
        talk.echoes()
    wait.until(lambda: one.count("Tunnels") == 12, "all tunnels are relayed")
    began = time.monotonic()
    if how == "restart":
        one.server.send_signal(STOPS[how])
    else:
        stopping = threading.Thread(target=one.server.stop, args=(STOPS[how],))
        stopping.start()
    for talk in tunnels:
        frame = talk.read_frame()
        assert (frame.opcode, frame.payload[:2]) == (websocket.CLOSE, (1001).to_bytes(2))
        assert talk.read_to_end() == b""
        talk.close()
    if how != "restart":
        stopping.join()
    wait.until(lambda: not one.drains(), "no process is left", 5)
    assert time.monotonic() - began < 8


@pytest.mark.parametrize("mpm", MPMS)
def test_a_killed_parent_leaves_no_drain_process(site, client, certificate, mpm):
    one = site(mpm)
    opened(client, certificate, one, 4)
    one.server.reload()
    wait.until(one.drains, "there is a drain process")
    children = procfs.children(one.server.pid)
    os.kill(one.server.pid, signal.SIGKILL)
    wait.until(lambda: not one.drains(), "drain processes end with the parent", 5)
    for pid in children:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    one.server.stop()


def test_drain_process_keeps_nothing_of_httpd(site, client, certificate):
    """No listening socket, log or scoreboard; a title that says what it is."""
    one = site("event")
    opened(client, certificate, one, 3)
    one.server.reload()
    wait.until(one.drains, "there is a drain process")
    [pid] = one.drains()
    process = Path(f"/proc/{pid}")
    title = lambda: (process / "cmdline").read_bytes().split(b"\0")[0]  # noqa: E731
    wait.until(lambda: title() == b"mod_wsforward: 3 tunnels of a child that is gone", title)
    targets = [os.readlink(fd) for fd in (process / "fd").iterdir()]
    assert sum(target.startswith("socket:") for target in targets) <= 6 + 2, targets
    assert not [target for target in targets if str(one.server.directory) in target], targets


def test_drain_timeout(site, client, certificate):
    one = site("event", "WSForwardDrainTimeout 1s")
    tunnels = opened(client, certificate, one, 4)
    one.server.reload()
    for talk in tunnels:
        assert talk.read_frame().payload[:2] == (1001).to_bytes(2)
        talk.close()
    wait.until(lambda: not one.drains(), "the drain process ends")
    assert len(one.server.log.wait_for("WSF0202.*drain-timeout", 4)) == 4


def test_max_drain_processes(site, client, certificate):
    """Beyond the bound the oldest ends its tunnels."""
    one = site("event", "WSForwardMaxDrainProcesses 2")
    one.server.expect_log("WSF0301.*WSForwardMaxDrainProcesses 2")
    generations = []
    for _ in range(3):
        talk = client(one.plain)
        assert talk.ask(http.handshake()).status == 101
        talk.echoes()
        generations.append(talk)
        one.server.reload()
    assert generations[0].read_frame().payload[:2] == (1001).to_bytes(2)
    wait.until(lambda: len(one.drains()) <= 2, "the oldest has ended")
    for talk in generations[1:]:
        talk.echoes()
