"""What becomes of relayed tunnels when their child ends: reload, recycle, stop, restart."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from harness import http, procfs, wait, websocket
from harness.draining import BY_FORK, Traffic, opened, site  # noqa: F401
from harness.httpd import Httpd
from harness.libclient import connect
from harness.stresspeer import StressPeer

MPMS = ["event", "worker", "prefork"]
RELOADS = 20
#: prefork has a process for each connection being accepted: fewer tunnels, the same reloads.
TUNNELS = {"event": 200, "worker": 200, "prefork": 40}


@pytest.mark.slow
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


@pytest.mark.slow
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
    """Close 1001 and an end, in children and in drain processes: at once, or, with grace, within
    GracefulShutdownTimeout."""
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
    assert time.monotonic() - began < wait.scaled(8)


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


#: What a drain process has besides its tunnels: tokio's epoll, twice, and the event that wakes it; an
#: event of its own, that which its child waits for, SIGTERM, the parent, the pipe for lines, the file of locks.
OWN = {"/dev/null": 3, "/memfd:mod_wsforward locks (deleted)": 1, "anon_inode:[eventfd]": 3, "anon_inode:[eventpoll]": 2, "anon_inode:[signalfd]": 1,
       "anon_inode:[pidfd]": 1, "pipe": 1}  # fmt: skip


@pytest.mark.parametrize("mpm", MPMS)
def test_drain_process_keeps_nothing_of_httpd(site, client, certificate, mpm):
    """No listening socket, log, lock, pod pipe or scoreboard: two sockets a tunnel, its way to the access logs,
    its queue, its own."""
    # Such that no process collects those of others.
    one = site(mpm, BY_FORK)
    tunnels = []
    for _ in range(3):
        talk = client(one.tls, certificate.client_context("tls1.3"))
        assert talk.ask(http.handshake()).status == 101
        tunnels.append(talk.echoes())
    one.server.reload()
    wait.until(lambda: one.count("Tunnels") == 3 and "G" not in one.server.status()["Scoreboard"], "the tunnels go on")
    sockets = 0
    drains = wait.until(one.drains, "there is a drain process")
    for pid in drains:
        targets = [target.split(":[")[0] if target.startswith(("pipe", "socket")) else target
                   for target in procfs.descriptors(pid)]  # fmt: skip
        sockets += targets.count("socket")
        found = {target: targets.count(target) for target in targets if target != "socket"}
        assert found == OWN, procfs.descriptors(pid)
        status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        assert int(status[3]) == pid, "a session of its own"
    assert sockets == 6 + len(drains)
    for talk in tunnels:
        talk.echoes()


@pytest.mark.parametrize("length", ["long", "short"])
def test_title_says_what_it_is(site, client, certificate, monkeypatch, length):
    """Whatever room the command line left."""
    if length == "short":
        command = Httpd._command
        monkeypatch.setattr(Httpd, "_command", lambda self, *more: [command(self)[0], "-f", self._write(), *more])
    one = site("event")
    opened(client, certificate, one, 3)
    one.server.reload()
    [pid] = wait.until(one.drains, "there is a drain process")
    shown = lambda: Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]  # noqa: E731
    wait.until(lambda: shown() == b"mod_wsforward: 3 tunnels of a child that is gone", shown)


def test_memory_of_a_drain_process(site, client, certificate):
    """At most 2 MiB, and what its few tunnels need."""
    one = site("event")
    opened(client, certificate, one, 4)
    one.server.reload()
    [pid] = wait.until(one.drains, "there is a drain process")
    wait.until(lambda: "G" not in one.server.status()["Scoreboard"], "the child is gone")
    private = procfs.private_kib(pid)
    print(f"private memory of a drain process with 4 tunnels: {private} KiB")
    assert private < 2048 + 4 * 40


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
        before = set(one.server.children)
        one.server.reload()
        # Until then one of them may take the next tunnel, and leave both to one process.
        wait.until(lambda: before.isdisjoint(one.server.children), "the children of before have ended")
    assert generations[0].read_frame().payload[:2] == (1001).to_bytes(2)
    wait.until(lambda: len(one.drains()) <= 2, "the oldest has ended")
    for talk in generations[1:]:
        talk.echoes()


@pytest.mark.parametrize("mpm", MPMS)
def test_max_drain_processes_holds_for_children_that_end_together(site, client, certificate, mpm):
    """Each child of prefork that has a TLS tunnel needs a process of its own."""
    one = site(mpm, "WSForwardMaxDrainProcesses 2")
    one.server.log.expect("WSF0301.*WSForwardMaxDrainProcesses 2", certain=False)
    tunnels = []
    for _ in range(12):
        talk = client(one.tls, certificate.client_context("tls1.3"))
        assert talk.ask(http.handshake()).status == 101
        tunnels.append(talk.echoes())
    one.server.reload()
    wait.until(lambda: one.drains() and "G" not in one.server.status()["Scoreboard"], "the children are gone")
    wait.until(lambda: len(one.drains()) <= 2, one.drains)
    ended = one.server.log.matching("WSF0202")
    assert len(ended) == 12 - wait.until(lambda: one.count("Tunnels"), "some go on")


def test_a_library_s_client_sees_going_away(site, certificate):
    """Close 1001 as a client of others sees it, from a child and from a drain process."""
    one = site("event")
    tls = certificate.client_context("tls1.3")
    with connect(f"ws://127.0.0.1:{one.plain}/") as older:
        one.server.reload()
        with connect(f"wss://localhost:{one.tls}/", ssl=tls) as later:
            for ws in (older, later):
                ws.send("hello")
                assert ws.recv() == "hello"
            wait.until(lambda: one.count("Tunnels") == 2, "both are relayed")
            one.server.stop()
            for ws in (older, later):
                with pytest.raises(ConnectionClosed) as closed:
                    ws.recv()
                assert closed.value.rcvd.code == 1001


#: Tunnels at a stop; 5,000 by hand.
MANY = 5000 if os.environ.get("WSF_STRESS") == "long" else 1500


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("mpm", ["event", "worker"])
def test_stop_with_many_tunnels(httpd, certificate, mpm):
    """At most a second longer than without any, and no child is killed for it."""
    seconds = {}
    for count in (0, MANY):
        peer = StressPeer(certificate)
        server = httpd(mpm=mpm)
        server.directives("LogLevel wsforward:warn")
        peer.vhosts(server, "LogLevel wsforward:warn")
        # So many handshakes at once may find all workers busy, for a moment.
        server.expect_log("AH00484", certain=False)
        server.start()
        if count:
            peer.hold(count=count, at_once=count, size=100, rounds=2, seconds=120)
            wait.until(lambda: int(server.status()["WSForwardTunnels"]) == count, "all are relayed", 30)
        server.stop()
        seconds[count] = server.stopped_in
        peer.close()
    print(f"{mpm}: stop takes {seconds[0]:.2f} s, with {MANY} tunnels {seconds[MANY]:.2f} s")
    assert seconds[MANY] < seconds[0] + wait.scaled(1)


@pytest.mark.timeout(60)
def test_first_process_of_a_container(site, client, certificate, monkeypatch):
    """httpd as PID 1 reaps drain processes, and knows them: no "long lost child"."""
    if os.geteuid() != 0:
        pytest.skip("needs to be root")
    monkeypatch.setattr(Httpd, "default_prefix", ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"])
    one = site("event")
    tunnels = opened(client, certificate, one, 4)
    one.server.reload()
    [pid] = wait.until(one.drains, "there is a drain process")
    # The next configuration finds it.
    one.server.reload()
    for talk in tunnels:
        talk.echoes().close()
    wait.until(lambda: not Path(f"/proc/{pid}").exists(), "it was reaped")
    assert not one.server.log.matching("AH00488")
    # On stop it is told, as ever.
    talk = opened(client, certificate, one, 1)[0]
    one.server.reload()
    one.server.log.expect("AH00488", certain=False)
    wait.until(one.drains, "there is another")
    one.server.stop()
    assert talk.read_frame().payload[:2] == (1001).to_bytes(2)
