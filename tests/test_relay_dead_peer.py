"""A peer that is gone without a word: its machine was switched off, its cable was pulled."""

import os
import threading
import time

import pytest

from harness import relayed, relaysite, steps, wait
from harness.network import Machine
from harness.rawclient import RawClient
from harness.sockets import option, relayed_sockets

IDLE, INTERVAL, COUNT = 2, 1, 3
#: When such a tunnel is to be over, in seconds, and how much later a busy machine may be.
GONE, SLACK = IDLE + INTERVAL * COUNT, 4


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
    """By keepalive where nobody sends; where the back end does, by TCP_USER_TIMEOUT."""
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
    wait.until(lambda: all(option(sock, "TCP_USER_TIMEOUT") == GONE * 1000 for sock in sockets), "keepalive is set")
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
