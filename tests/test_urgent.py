"""Urgent bytes (MSG_OOB) are dropped, as httpd drops them, and what is behind them is carried."""

import contextlib
import os
import signal
import socket
import struct

import pytest

from harness import procfs, relaysite, steps, wait
from harness.relaysite import CLIENTS
from harness.websocket import TEXT, Frame

pytestmark = pytest.mark.carriers("thread", "relay")

#: Of payload in a frame: so many go by, then these come at once, around the urgent byte.
FRAME, BEFORE, FIRST, SECOND = 8 << 20, 4 << 20, 600_000, 100_000


@pytest.fixture(scope="module", params=["openssl", "native"])
def tls(request):
    return request.param


@pytest.fixture(scope="module")
def origins(shared_backend):
    return relaysite.origins(shared_backend)


@pytest.fixture(scope="module")
def server(carrier, shared_httpd, origins, tls):
    def make(**options):
        made = shared_httpd(**options)
        made.directives(f"WSForwardTLS {tls}")
        return made
    return carrier.start(make, origins)


@contextlib.contextmanager
def stopped(server, talk):
    """What is sent within has all come when the server looks."""
    pids = server.children
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
        names = talk.sock.getsockname()[1], talk.sock.getpeername()[1]
        wait.until(lambda: procfs.tcp_socket(*names)[0] == 0, "all of it has come")
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def send_urgent(talk):
    """Past TLS, which knows nothing of it."""
    with socket.socket(fileno=os.dup(talk.sock.fileno())) as below:
        below.send(b"!", socket.MSG_OOB)


@pytest.mark.parametrize("kind", CLIENTS)
def test_message_behind_an_urgent_byte(server, carrier, tunnel, kind):
    talk = tunnel(kind, "tcp", steps.echo, steps.close)
    one, two = (Frame(TEXT, text).encode(mask=True) for text in (b"one", b"two"))
    for _ in range(2):
        talk.send(one)
        assert talk.read_exactly(len(one)) == one
        with stopped(server, talk):
            talk.send(one)
            send_urgent(talk)
            talk.send(two)
        assert talk.read_exactly(len(one + two)) == one + two
    talk.half_close()
    talk.end()
    talk.close()
    carrier.ended(server, talk, "client", "closed")


@pytest.mark.carriers("relay")
def test_urgent_byte_in_a_flood(server, carrier, tunnel):
    talk = tunnel("plain", "tcp", steps.drain, steps.close)
    head = struct.pack("!BBQ", 0x82, 0xFF, FRAME) + bytes(4)
    talk.send(head + bytes(BEFORE))
    wait.until(lambda: len(talk.origin.received) == len(head) + BEFORE, "that has gone by")
    with stopped(server, talk):
        talk.send(b"a" * FIRST)
        send_urgent(talk)
        talk.send(b"b" * SECOND)
        talk.half_close()
    talk.origin.wait_closed()
    assert talk.origin.received[len(head) + BEFORE:] == b"a" * FIRST + b"b" * SECOND
    talk.close()
    carrier.ended(server, talk, "client", "closed")
