"""A peer that is gone without a word: its machine was switched off, its cable was pulled."""

import fcntl
import os
import socket
import sys
import termios
import threading
import time

import pytest

from harness import relayed, relaysite, steps, wait
from harness.network import Machine
from harness.rawclient import RawClient
from harness.sockets import IN_FLIGHT, option, relayed_sockets

pytestmark = pytest.mark.slow

IDLE, INTERVAL, COUNT = 2, 1, 3
#: When such a tunnel is to be over, in seconds, and how much later it may be: by an interval, by the
#: time that TCP waits before it sends again, and by what a busy machine takes.
GONE, SLACK = IDLE + INTERVAL * COUNT, INTERVAL + 4


@pytest.fixture
def machine():
    try:
        made = Machine()
    except OSError as error:
        # Where root may not do it, a container may be the reason; in the whole check nothing is.
        if os.geteuid() == 0 and os.environ.get("CI") == "true":
            raise
        pytest.skip(f"no network namespace: {error}")
    yield made
    RawClient.close_all()
    made.close()


@pytest.mark.parametrize("back_end", ["silent", "sending"])
@pytest.mark.parametrize("kind", ["plain", "tls1.3"])
def test_client_that_is_gone(httpd, backend, machine, certificate, kind, back_end):
    """By keepalive where nobody sends; where the back end does, by what TCP says of its answers."""
    origins, server = relaysite.origins(backend), httpd()
    server.directives(f"WSForwardKeepAlive {IDLE} {INTERVAL} {COUNT}")
    tls = certificate.client_context(kind) if kind != "plain" else None
    port = server.vhost(f'WSForward On\nWSForwardRelay On\nProxyPass "/" "{origins["tcp"].url("http")}"',
                        tls=bool(tls), address=machine.ours)  # fmt: skip
    server.start()
    pulled = threading.Event()
    origins["tcp"].answers(steps.switch(), lambda connection: connection.send(connection.recv_exactly(5)), steps.wait_for(pulled),
                           b"x" * 1000 if back_end == "sending" else b"", steps.drain, steps.close)  # fmt: skip
    talk = relayed.opened(server, machine.run(lambda: RawClient(port, tls, host=machine.ours)))
    talk.send(b"hello")
    assert talk.read_exactly(5) == b"hello"
    # It is asked for once the tunnel has lasted for a while.
    sockets = relayed_sockets(server)
    wait.until(lambda: all(option(sock, "TCP_KEEPCNT") == COUNT for sock in sockets), "keepalive is set")
    for sock in sockets:
        sock.close()
    machine.pull_cable()
    begin = time.monotonic()
    pulled.set()
    wait.until(lambda: server.log.matching(relayed.ENDED), server.log.text, GONE + SLACK)
    took = time.monotonic() - begin
    print(f"{kind}, back end {back_end}: over after {took:.1f} s")
    talk.origin = origins["tcp"].connections[-1]
    end = relaysite.ended(server, talk, "client", "error: Connection timed out.*")
    assert (end.up, end.down) == (5, 1005 if back_end == "sending" else 5)
    assert talk.origin.end == "reset"
    assert relayed.figures(server)["Ended-error"] == 1


#: More than the client's socket takes, but not more than the server's; and so much that the back end waits.
SIZES = {"some": 1_000_000, "much": IN_FLIGHT}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["plain", "tls1.3"])
def test_client_that_does_not_read_is_there(httpd, backend, client, kind, size):
    """It answers the probes of its window, for as long as it likes, and gets all of it in the end."""
    origins, server = relaysite.origins(backend), httpd()
    server.directives(f"WSForwardKeepAlive {IDLE} {INTERVAL} {COUNT}")
    relaysite.start(server, origins)
    origins["tcp"].answers(steps.switch(), b"x" * SIZES[size], steps.echo, steps.close)
    talk = relaysite.dial(server, client, kind, receive_buffer=65536)
    with relayed.Counted(server, HandedOver=1, Ended_closed=1):
        relayed.opened(server, talk)
        # An observation: it would be over by now.
        end = time.monotonic() + GONE + SLACK
        while time.monotonic() < end:
            assert not server.log.matching(relayed.ENDED), server.log.text()
            time.sleep(0.2)
        # A window that opens is told at once, and what is late is probed for.
        assert talk.read_exactly(SIZES[size]) == b"x" * SIZES[size]
        talk.send(b"still here")
        assert talk.read_exactly(10) == b"still here"
        talk.half_close()
        talk.end()
        talk.close()


@pytest.mark.parametrize("kind", ["plain", "tls1.3"])
def test_client_that_is_gone_while_it_does_not_read(httpd, backend, machine, certificate, kind):
    """The next probe of its window is not answered."""
    origins, server = relaysite.origins(backend), httpd()
    server.directives(f"WSForwardKeepAlive {IDLE} {INTERVAL} {COUNT}")
    tls = certificate.client_context(kind) if kind != "plain" else None
    port = server.vhost(f'WSForward On\nWSForwardRelay On\nProxyPass "/" "{origins["tcp"].url("http")}"',
                        tls=bool(tls), address=machine.ours)  # fmt: skip
    server.start()
    origins["tcp"].answers(steps.switch(), b"x" * SIZES["some"], steps.drain, steps.close)
    talk = relayed.opened(server, machine.run(lambda: RawClient(port, tls, host=machine.ours, receive_buffer=65536)))
    [blocked] = wait.until(lambda: [sock for sock in relayed_sockets(server) if unsent(sock)], "its window is full")
    wait.until(lambda: probed(blocked), "its window is probed")
    machine.pull_cable()
    wait.until(lambda: server.log.matching(relayed.ENDED), server.log.text, 3 * GONE + SLACK)
    talk.origin = origins["tcp"].connections[-1]
    relaysite.ended(server, talk, "client", "error: Connection timed out.*")


def unsent(sock):
    """How many bytes wait in the kernel to be acknowledged (SIOCOUTQ of tcp(7))."""
    return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)


def probed(sock):
    """Whether the kernel has waited for the peer's window (tcpi_backoff of tcp_info)."""
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)[4] > 0
