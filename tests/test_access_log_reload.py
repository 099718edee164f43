"""Lines of tunnels in drain processes, when a reload takes away what they came from: the relay, a log, or the files."""

import os
import signal
import threading

import pytest

from harness import http, procfs, relayed, statuspage, steps, wait
from harness.accesslog import close, directives, frame, lines, tunnel
from harness.config import MPM
from harness.draining import site  # noqa: F401


def turn_off(made):
    """A reload with a configuration that has no relay."""
    made.server._directives[:] = [text.replace("WSForwardRelay On", "WSForwardRelay Off") for text in made.server._directives]
    made.server.reload()


@pytest.mark.parametrize("mpm", MPM)
def test_relay_that_was_turned_off(site, client, mpm):
    """The tunnels that it left have their lines, in the access log and in the error log; those that come stay in threads."""
    made = site(mpm, directives, extra=["logio"])
    server, talks = made.server, [client(made.plain) for _ in range(3)]
    for number, talk in enumerate(talks):
        tunnel(talk, f"/kept{number}")
    relayed.wait_figure(server, "Tunnels", len(talks))
    turn_off(made)
    wait.until(made.drains, "a drain process")
    # Of children that come later too.
    server.reload()
    for talk in talks:
        talk.echoes(frame(b"still here"))
        close(talk)
    found = lines(server, count=len(talks), request="/kept")
    assert {line["id"] for line in found} == {end.id for end in relayed.ends(server, len(talks))}
    assert {line["code-client"] for line in found} == {"1000"}
    wait.until(lambda: not made.drains(), "no drain process is left")
    talk = client(made.plain)
    tunnel(talk, "/thread")
    close(talk)
    [line] = lines(server, count=1, request="/thread")
    assert line["id"] in {end.id for end in relayed.ends(server, len(talks) + 1) if end.where == "thread"}
    figures = relayed.figures(server)
    assert figures["AccessLinesLost"] == figures["LinesLost"] == 0


@pytest.mark.parametrize("mpm", MPM)
def test_stop_after_the_relay_was_turned_off(site, client, mpm):
    made = site(mpm, directives)
    talk = client(made.plain)
    tunnel(talk, "/kept")
    relayed.wait_figure(made.server, "Tunnels", 1)
    turn_off(made)
    wait.until(made.drains, "a drain process")
    made.server.stop()
    [line] = lines(made.server, request="/kept")
    assert (line["by"], line["reason"]) == ("server", "stopped")


def test_tunnel_on_its_way_to_a_process_that_is_gone_when_no_relay_is_left(site, client):
    """Nobody could carry it: it ends, with its line, and is counted."""
    made = site("prefork", lambda server: directives(server) + "\nMaxConnectionsPerChild 1")
    server = made.server
    # Their children end with their connections, and leave them to the first drain process.
    first, second = client(made.plain), client(made.plain)
    tunnel(first, "/first")
    [collector] = wait.until(made.drains, "a drain process")
    os.kill(collector, signal.SIGSTOP)
    # It is under way before a byte could go through it.
    assert second.ask(http.handshake("/second")).status == 101
    *_, inode = procfs.tcp_socket(second.plain.getpeername()[1], second.plain.getsockname()[1])
    wait.until(lambda: not any(f"socket:[{inode}]" in procfs.descriptors(pid) for pid in server.children), "its child has sent it")
    assert made.drains() == [collector]
    turn_off(made)
    server.log.expect("WSF0203: tunnel .* lost: the process that was to carry it is gone, and no other has a relay any more")
    server.log.expect("WSF0310")
    os.kill(collector, signal.SIGKILL)
    # Found by whoever looks. The one that was being carried is gone with its process.
    relayed.wait_figure(server, "Tunnels", 0)
    [line] = lines(server, count=1, request="/second")
    assert (line["by"], line["reason"]) == ("server", "thread-died")
    second.end()
    assert lines(server, request="/first") == []


def test_ready_while_drain_processes_carry_the_last_tunnels(httpd, backend, client):
    """Without a relay there is no limit of ours."""
    server = httpd()
    page = statuspage.start(server, client, backend())
    for _ in range(3):
        relayed.opened(server, client(server.port))
    assert page.get("ready").status == 200
    server._directives[:] = [text.replace("WSForwardRelay On", "WSForwardRelay Off") for text in server._directives]
    server.reload()
    wait.until(lambda: [one["where"] for one in page.tunnels()] == ["drain"] * 3, lambda: f"{page.tunnels()}")
    answer = page.get("ready")
    assert (answer.status, answer.body) == (200, b"ready\n")


class Busy:
    """A request that holds a child until it is told to go on."""

    def __init__(self, made, client, origin):
        self._go_on = threading.Event()
        origin.answers(steps.wait_for(self._go_on), http.page(), steps.close)
        before = len(origin.requests)
        self._talk = client(made.plain)
        self._talk.send(http.request("/slow"))
        origin.wait_requests(before + 1)

    def end(self):
        self._go_on.set()
        assert self._talk.read_response().status == 200


def rotate(server, number):
    """As logrotate does, and a reload. Returns the children that are of the configuration before, and stay."""
    os.rename(server.directory / "ws.log", server.directory / f"ws.log.{number}")
    old = set(server.children)
    server.reload()
    return old & set(server.children)


@pytest.fixture
def lingering(site, client, backend):
    """Tunnels in drain processes, and a child that a request holds over the next reloads."""
    made, busy = [], []

    def start(mpm, count):
        origin = backend()
        one = site(mpm, directives, origin=origin, extra=["logio"])
        made.append(one)
        talks = [client(one.plain) for _ in range(count)]
        for number, talk in enumerate(talks):
            tunnel(talk, f"/kept{number}/")
        relayed.wait_figure(one.server, "Tunnels", count)
        one.server.reload()
        wait.until(one.drains, "a drain process")
        for talk in talks:
            talk.echoes(frame(b"still here"))
        busy.append(Busy(one, client, origin))
        return one, talks

    yield start
    for one in busy:
        one.end()


@pytest.mark.parametrize("mpm", MPM)
def test_child_that_lingers_takes_no_lines(lingering, mpm):
    """It has the old files open, which may be removed by now: lines go into the new ones, and into the new error log."""
    made, talks = lingering(mpm, 20)
    server = made.server
    for number, some in enumerate((talks[:10], talks[10:])):
        assert rotate(server, number), "a child lingers"
        for talk in some:
            close(talk)
        assert len(lines(server, count=10, request="/kept")) == 10
    wait.until(lambda: not made.drains(), "no drain process is left")
    assert relayed.figures(server)["AccessLinesLost"] == 0
    assert len(relayed.ends(server, len(talks))) == len(talks)
    assert lines(server, "ws.log.1", request="/kept") != []
    assert lines(server, "ws.log.0", request="/kept") == []


def test_lines_wait_until_there_is_a_child_that_may_take_them(lingering, client):
    """The parent stands still between the end of the configuration before and the first new child."""
    made, talks = lingering("event", 4)
    server = made.server
    old = set(server.children)
    os.rename(server.directory / "ws.log", server.directory / "ws.log.0")
    server.reload()
    young = set(server.children) - old
    assert young and old & set(server.children)
    for pid in young:
        os.kill(pid, signal.SIGSTOP)
    try:
        for talk in talks:
            close(talk)
        wait.until(lambda: not made.drains(), "their tunnels have ended")
    finally:
        for pid in young:
            os.kill(pid, signal.SIGCONT)
    assert len(lines(server, count=len(talks), request="/kept")) == len(talks)
    assert lines(server, "ws.log.0", request="/kept") == []
    assert relayed.figures(server)["AccessLinesLost"] == 0


def test_log_that_is_gone_is_said_by_the_new_children(lingering):
    """One that lingers knows it still."""
    made, talks = lingering("event", 3)
    server = made.server
    at = server._directives.index(made.directives)
    server._directives[at] = "LogLevel wsforward:info"
    server.reload()
    server.log.expect("WSF0131: .*ws.log, which is not in the configuration any more")
    for talk in talks:
        close(talk)
    wait.until(lambda: relayed.figures(server)["AccessLinesLost"] == 3, "three lines are counted as lost")
    assert len(server.log.wait_for("WSF0131")) == 1
    assert lines(server, request="/kept") == []
