"""Tunnels that outlive their child where ChrootDir leaves children and drain processes no /proc and no /dev."""

import os
import signal

import pytest

from harness import http, procfs, strace, wait, websocket
from harness.draining import site  # noqa: F401

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="chroot"),
    pytest.mark.skipif("WSF_REPORTS" in os.environ, reason="AddressSanitizer needs /proc, and its files"),
]

MPMS = ["event", "prefork"]
STOPS = {"stop": signal.SIGTERM, "graceful-stop": signal.SIGWINCH, "restart": signal.SIGHUP}


def chrooted(server):
    """In an empty directory."""
    root = server.directory / "chroot"
    root.mkdir(exist_ok=True, mode=0o755)
    return f"ChrootDir {root}\nWSForwardMaxDrainProcesses 2"


def is_going_away(talk):
    frame = talk.read_frame()
    return (frame.opcode, frame.payload[:2]) == (websocket.CLOSE, (1001).to_bytes(2))


@pytest.mark.parametrize("mpm", MPMS)
@pytest.mark.parametrize("how", STOPS)
def test_drain_processes_are_counted_bounded_and_told(site, client, certificate, mpm, how):
    one = site(mpm, chrooted)
    one.server.expect_log("WSF0301.*WSForwardMaxDrainProcesses 2")
    generations = []
    for _ in range(3):
        # Nobody collects those with TLS: each has a process of its own.
        talk = client(one.tls, certificate.client_context("tls1.3"))
        assert talk.ask(http.handshake()).status == 101
        generations.append(talk.echoes())
        old = set(one.server.children)
        one.server.reload()
        wait.until(lambda: not old.intersection(one.server.children), "the child is gone")
    assert is_going_away(generations[0]), "the oldest ends"
    wait.until(lambda: len(one.drains()) == 2, one.drains)
    wait.until(lambda: one.count("DrainProcesses") == 2, one.server.status)
    for talk in generations[1:]:
        talk.echoes()
    if how == "restart":
        one.server.reload(STOPS[how])
    else:
        one.server.stop(STOPS[how])
        assert one.server.stopped_in < wait.scaled(5)
        assert not one.drains(), "the parent waits for them"
    assert all(map(is_going_away, generations[1:]))
    wait.until(lambda: not one.drains(), one.drains)


def test_a_drain_process_keeps_no_listener_without_close_range(site, client):
    """As with Linux 5.3 to 5.8: with no /proc either, it finds by itself what is open."""
    one = site("event", chrooted)
    talk = client(one.plain)
    assert talk.ask(http.handshake()).status == 101
    talk.echoes()
    wait.until(lambda: one.count("Tunnels") == 1, "it is relayed")
    [child] = one.server.children
    options = ("-f", "-o", "/dev/null", "-e", "trace=close_range", "-e", "inject=close_range:error=ENOSYS")
    with strace.attached(child, *options):
        one.server.reload()
        wait.until(one.drains, "the tunnel goes on")
        wait.until(lambda: child not in one.server.children, "the child has ended")
        talk.echoes()
        [drain] = one.drains()
        held = procfs.descriptors(drain)
        assert not procfs.listeners(drain), held
        assert not [name for name in held if name.endswith(".log")], held
        talk.close()
        wait.until(lambda: not one.drains(), "it has ended")
