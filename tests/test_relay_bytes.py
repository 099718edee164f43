"""Nothing lost and nothing added at the hand-over: bytes before, with and behind the 101."""

import random
import threading

import pytest

from harness import http, relayed, relaysite, steps, wait
from harness.relaysite import CLIENTS, ORIGINS, dial

MPMS = ["event", "worker", "prefork"]


@pytest.fixture(scope="module")
def origins(shared_backend):
    return relaysite.origins(shared_backend)


@pytest.fixture(scope="module", params=MPMS)
def server(request, shared_httpd, origins):
    return relaysite.start(shared_httpd(mpm=request.param), origins)


PATHS = {"tcp": "/", "tls": "/tls/"}
#: Within one TLS record, over several, and with a record that a read of httpd's cuts.
SIZES = [1, 5_000, 16_385, 100_000, 200_000]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("to", ORIGINS)
@pytest.mark.parametrize("kind", CLIENTS)
def test_bytes_glued_to_the_101(server, origins, client, kind, to, size):
    glued = random.Random(size).randbytes(size)

    def glued_101(connection):
        send, parts = connection.send, []
        connection.send = parts.append
        steps.switch()(connection)
        connection.send = send
        connection.send(b"".join(parts) + glued)
    origins[to].answers(glued_101, steps.echo, steps.close)
    talk = dial(server, client, kind)
    with relayed.Counted(server, open=1, HandedOver=1):
        assert talk.ask(http.handshake(PATHS[to])).status == 101
        assert talk.read_exactly(size) == glued
        # Only now, so that the hand-over is not waiting for a pause.
        wait.until(lambda: relayed.figures(server)["Tunnels"] == 1, "the hand-over")
        talk.send(b"and back")
        assert talk.read_exactly(8) == b"and back"


@pytest.mark.parametrize("glue", ["one write", "two writes"])
@pytest.mark.parametrize("size", [1, 500, 5_000, 30_000])
@pytest.mark.parametrize("to", ORIGINS)
@pytest.mark.parametrize("kind", CLIENTS)
def test_bytes_of_the_client_before_the_101(server, origins, client, kind, to, size, glue):
    """Sent right behind the handshake, while the back end still thinks about it."""
    early, go = random.Random(size).randbytes(size), threading.Event()
    origins[to].answers(steps.wait_for(go), steps.switch(), steps.echo, steps.close)
    talk = dial(server, client, kind)
    with relayed.Counted(server, open=1, HandedOver=1):
        if glue == "one write":
            talk.send(http.handshake(PATHS[to]) + early)
        else:
            talk.send(http.handshake(PATHS[to]))
            talk.send(early)
        origins[to].wait_requests()
        go.set()
        assert talk.read_response().status == 101
        assert talk.read_exactly(size) == early
        talk.send(b"and more")
        assert talk.read_exactly(8) == b"and more"


@pytest.mark.parametrize("kind", CLIENTS)
def test_bytes_one_by_one_across_the_hand_over(server, origins, client, kind):
    """Each in a TLS record and in a TCP segment of its own, before, with and behind the 101."""
    sent, go = bytes(range(256)) * 4, threading.Event()
    origins["tcp"].answers(steps.wait_for(go), steps.switch(), steps.echo, steps.close)
    talk = dial(server, client, kind)
    with relayed.Counted(server, open=1, HandedOver=1):
        talk.send(http.handshake())
        origins["tcp"].wait_requests()
        for number in range(len(sent)):
            talk.send(sent[number : number + 1])
            if number == len(sent) // 2:
                go.set()
        assert talk.read_response().status == 101
        assert talk.read_exactly(len(sent)) == sent


@pytest.mark.parametrize("to", ORIGINS)
@pytest.mark.parametrize("kind", CLIENTS)
def test_flood_at_the_switch_leaves_the_thread_at_once(server, origins, client, kind, to):
    """Both sides send as fast as they can, from the first byte on and without a pause: the relay
    has the tunnel before a client that does not read can have had any of it, byte-exact."""
    block = random.Random(1).randbytes(1 << 20)

    def flood(connection):
        sending = threading.Thread(target=lambda: [connection.send(block) for _ in range(20)])
        sending.start()
        connection.received = connection.recv_exactly(20 << 20)
        sending.join()

    origins[to].answers(steps.switch(), flood, steps.echo, steps.close)
    talk = dial(server, client, kind)
    with relayed.Counted(server, open=1, HandedOver=1) as counted:
        assert talk.ask(http.handshake(PATHS[to])).status == 101
        sending = threading.Thread(target=lambda: [talk.send(block) for _ in range(20)])
        sending.start()
        counted.wait_for(HandedOver=1)
        assert talk.read_exactly(20 << 20) == block * 20
        sending.join()
        talk.send(b"end")
        assert talk.read_exactly(3) == b"end"
        assert origins[to].connections[-1].received == block * 20
    assert not server.log.matching(relayed.STAYS)
