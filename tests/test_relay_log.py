"""The error log and the relay: a log that stands still holds nobody up but those who write it themselves."""

import contextlib
import os
import re
import signal
import uuid

import pytest

from harness import http, procfs, relayed, wait
from harness.draining import Site, Traffic, site  # noqa: F401
from harness.stresspeer import StressPeer

MPMS = ["event", "worker", "prefork"]
#: Lines of more tunnels than this are more than a pipe of 64 KiB holds.
MANY = 800
#: Two children, so that each has tunnels that end and tunnels that go on.
FEW_CHILDREN = {"prefork": "StartServers 2\nServerLimit 8\nMaxRequestWorkers 2\nMinSpareServers 1\nMaxSpareServers 2"}


class Log:
    """An error log that is piped to a program, whose process can stand still."""

    def __init__(self, directory):
        self.pid_file = directory / "logger.pid"
        script = directory / "logger.sh"
        script.write_text(f"echo $$ > {self.pid_file}\nexec cat >> {directory}/error.log\n")
        self.directive = f'ErrorLog "||/bin/sh {script}"\nLogLevel wsforward:info'

    @contextlib.contextmanager
    def still(self):
        pid = int(self.pid_file.read_text())
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)


def briefly(client, one, count):
    """So many tunnels, one after another, that end."""
    for _ in range(count):
        with client(one.plain) as talk:
            assert talk.ask(http.handshake()).status == 101
            talk.echoes()


@pytest.fixture
def piped(site):
    """Makes servers as `site` does, whose log can stand still."""
    def make(mpm, more=""):
        logs = []

        def directives(server):
            logs.append(Log(server.directory))
            return f"{logs[0].directive}\n{FEW_CHILDREN.get(mpm, '')}\n{more}"
        one = site(mpm, directives)
        one.log = logs[0]
        # Of prefork's few children all may be busy.
        one.server.log.expect("AH00161", certain=False)
        return one
    return make


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("mpm", MPMS)
def test_a_log_that_stands_still_holds_no_tunnel(piped, client, mpm):
    one = piped(mpm)
    talks = []
    for _ in range(4):
        talks.append(client(one.plain))
        assert talks[-1].ask(http.handshake()).status == 101
        talks[-1].echoes()
    wait.until(lambda: one.count("Tunnels") == 4, "they are relayed")
    with one.log.still():
        traffic = Traffic(talks)
        briefly(client, one, MANY)
        wait.until(lambda: one.count("Ended") == MANY, lambda: f"{one.count('Ended')} tunnels have ended")
        before = traffic.messages
        wait.until(lambda: traffic.messages > before + 20, "messages go on")
        traffic.end()
        assert not one.server.log.matching("WSF0202")
    # It goes on, and nothing is missing.
    assert len(one.server.log.wait_for("WSF0202", MANY)) == MANY
    assert one.count("LinesLost") == 0


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("mpm", MPMS)
def test_a_child_ends_although_its_log_stands_still(piped, client, mpm):
    """Its tunnels go on elsewhere at once; its lines have a second."""
    one = piped(mpm, "MaxConnectionsPerChild 100")
    talk = client(one.plain)
    assert talk.ask(http.handshake()).status == 101
    talk.echoes()
    first = one.server.serving(talk)
    with one.log.still():
        traffic = Traffic([talk])
        briefly(client, one, MANY)
        wait.until(lambda: one.count("Ended") >= MANY, lambda: f"{one.count('Ended')} tunnels have ended")
        wait.until(lambda: first not in one.server.children, "the child has ended")
        children = set(one.server.children)
        briefly(client, one, 250)
        wait.until(lambda: not children <= set(one.server.children), "one that could not log has ended, too")
        traffic.end()
    talk.close()
    one.server.log.expect("WSF0305", certain=False)
    wait.until(lambda: one.count("Tunnels") == 0, "all tunnels have ended")
    wait.until(lambda: not one.drains(), "drain processes end with their tunnels")
    # Every line is there, or counted.
    total = MANY + 250 + 1
    wait.until(lambda: len(one.server.log.matching("WSF0202")) + one.count("LinesLost") == total,
               lambda: (len(one.server.log.matching("WSF0202")), one.count("LinesLost"), total))  # fmt: skip


#: Lines that wait for the log at most, and those that a pipe holds, are fewer.
CROWD = 9000


def lost(server):
    """How many lines were lost, as the log says."""
    said = [re.search(rb"WSF0305: (\d+) lines", line) for line in server.log.matching("WSF0305")]
    return sum(int(number[1]) for number in said)


@pytest.fixture
def crowd(httpd, certificate, monkeypatch):
    """A server whose log can stand still, and very many tunnels in its one child."""
    mark = f"WSF_TEST_MARK={uuid.uuid4()}"
    monkeypatch.setenv(*mark.split("="))
    peer = StressPeer(certificate)
    server = httpd()
    log = Log(server.directory)
    server.directives(f"{log.directive}\nServerLimit 1\nMaxRequestWorkers 32")
    peer.vhosts(server)
    server.start()
    peer.hold(count=CROWD, at_once=CROWD, size=20, rounds=2, seconds=240)
    relayed.wait_figure(server, "Tunnels", CROWD, 30)
    yield server, peer, log, mark
    peer.close()


def every_line_is_there_or_counted(server):
    wait.until(lambda: len(server.log.matching("WSF0202")) + relayed.figures(server)["LinesLost"] == CROWD,
               lambda: (len(server.log.matching("WSF0202")), relayed.figures(server)), 30)  # fmt: skip
    wait.until(lambda: lost(server) == relayed.figures(server)["LinesLost"] > 0,
               lambda: (lost(server), relayed.figures(server)["LinesLost"]))  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_lines_that_the_log_did_not_take_are_counted(crowd):
    """What waits for it is bounded."""
    server, peer, log, _ = crowd
    server.log.expect("AH00484", certain=False)
    server.expect_log("WSF0305: [0-9]+ lines about tunnels were lost")
    with log.still():
        peer.release()
        relayed.wait_figure(server, "Ended", CROWD, 60)
        assert relayed.figures(server)["LinesLost"] > 0
    every_line_is_there_or_counted(server)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_lines_of_a_drain_process_that_nobody_took_are_counted(crowd):
    """The pipe to the children is bounded, and no child reads it."""
    server, peer, _, mark = crowd
    server.log.expect("AH00484", certain=False)
    server.expect_log("WSF0305: [0-9]+ lines about tunnels were lost")
    before = set(server.children)
    server.reload()
    wait.until(lambda: "G" not in server.status()["Scoreboard"], "the tunnels are a drain process's")
    children = [pid for pid in server.children if pid not in before and procfs.thread(pid, "wsf-log")]
    [drain] = Site(server, None, None, mark).drains()
    for pid in children:
        os.kill(pid, signal.SIGSTOP)
    try:
        peer.release()
        # Its own descriptors, and the queue.
        wait.until(lambda: len(procfs.descriptors(drain)) < 20, "all of them have ended", 60)
    finally:
        for pid in children:
            os.kill(pid, signal.SIGCONT)
    every_line_is_there_or_counted(server)
