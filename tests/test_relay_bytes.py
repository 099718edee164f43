"""Nothing lost and nothing added at the hand-over: bytes before, with and behind the 101."""

import hashlib
import random
import threading

import pytest

from harness import http, procfs, relayed, relaysite, steps, wait
from harness.relaysite import CLIENTS, ORIGINS
from harness.sockets import FLOOD, IN_FLIGHT

MPMS = ["event", "worker", "prefork"]


@pytest.fixture(scope="module")
def origins(shared_backend):
    return relaysite.origins(shared_backend)


@pytest.fixture(scope="module", params=MPMS)
def server(request, shared_httpd, origins):
    return relaysite.start(shared_httpd(mpm=request.param), origins)


@pytest.fixture
def dial(server, origins, client, certificate):
    """A connected client of a kind, and the path of a back end."""
    def dial_one(kind, **options):
        tls = certificate.client_context(kind) if kind != "plain" else None
        return client(server.ports["tls" if tls else "plain"], tls, **options)
    return dial_one


@pytest.fixture
def tunnel(server, origins, client, certificate):
    return relaysite.opener(server, origins, client, certificate)


PATHS = {"tcp": "/", "tls": "/tls/"}
#: Within one TLS record, over several, and with a record that a read of httpd's cuts.
SIZES = [1, 5_000, 16_385, 100_000, 200_000]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("to", ORIGINS)
@pytest.mark.parametrize("kind", CLIENTS)
def test_bytes_glued_to_the_101(server, origins, dial, kind, to, size):
    glued = random.Random(size).randbytes(size)

    def glued_101(connection):
        send, parts = connection.send, []
        connection.send = parts.append
        steps.switch()(connection)
        connection.send = send
        connection.send(b"".join(parts) + glued)
    origins[to].answers(glued_101, steps.echo, steps.close)
    talk = dial(kind)
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
def test_bytes_of_the_client_before_the_101(server, origins, dial, kind, to, size, glue):
    """Sent right behind the handshake, while the back end still thinks about it."""
    early, go = random.Random(size).randbytes(size), threading.Event()
    origins[to].answers(steps.wait_for(go), steps.switch(), steps.echo, steps.close)
    talk = dial(kind)
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
def test_bytes_one_by_one_across_the_hand_over(server, origins, dial, kind):
    """Each in a TLS record and in a TCP segment of its own, before, with and behind the 101."""
    sent, go = bytes(range(256)) * 4, threading.Event()
    origins["tcp"].answers(steps.wait_for(go), steps.switch(), steps.echo, steps.close)
    talk = dial(kind)
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
def test_many_bytes_both_ways_at_once(server, tunnel, kind, to):
    """8 MB each way at the same time."""
    block = hashlib.sha512(kind.encode() + to.encode()).digest() * 1024
    count = (8 << 20) // len(block)
    got = hashlib.sha256()

    def both(connection):
        reader = threading.Thread(target=lambda: got.update(connection.recv_exactly(count * len(block))))
        reader.start()
        for _ in range(count):
            connection.send(block)
        reader.join(30)
        connection.close()
    talk = tunnel(kind, to, both)
    writer = threading.Thread(target=lambda: talk.send(block * count))
    writer.start()
    data = talk.read_exactly(count * len(block))
    writer.join(30)
    assert talk.end() == ("eof" if kind == "plain" else "close_notify")
    talk.half_close()
    end = relaysite.ended(server, talk, "back end", "closed")
    assert (end.up, end.down) == (count * len(block),) * 2
    assert hashlib.sha256(data).digest() == got.digest() == hashlib.sha256(block * count).digest()


@pytest.mark.parametrize("to", ORIGINS)
@pytest.mark.parametrize("kind", CLIENTS)
def test_flood_at_the_switch_leaves_the_thread_at_once(server, origins, dial, kind, to):
    """Both sides send as fast as they can, from the first byte on and without a pause: the relay
    has the tunnel before a client that does not read can have had any of it, byte-exact."""
    block = random.Random(1).randbytes(1 << 20)

    def flood(connection):
        sending = threading.Thread(target=lambda: [connection.send(block) for _ in range(20)])
        sending.start()
        connection.received = connection.recv_exactly(20 << 20)
        sending.join()

    origins[to].answers(steps.switch(), flood, steps.echo, steps.close)
    talk = dial(kind)
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


def settled(value):
    """Waits until the number no longer changes, and returns it."""
    last = [None]

    def still():
        before, last[0] = last[0], value()
        return before == last[0] and last[0] > 0
    wait.until(still, "the sender is held back", 30, 0.5)
    return last[0]


def memory(server):
    return sum(procfs.private_kib(child) for child in server.children)


@pytest.mark.parametrize("to", ORIGINS)
@pytest.mark.parametrize("kind", CLIENTS)
def test_backpressure_reaches_the_back_end(server, tunnel, kind, to):
    """A client that does not read: the back end is held back, httpd's memory stays, nothing is lost."""
    chunk = b"0123456789abcdef" * 4096
    talk = tunnel(kind, to, steps.repeat(chunk, FLOOD), steps.close, receive_buffer=65536)
    before = memory(server)
    sent = settled(lambda: talk.origin.sent)
    assert sent < IN_FLIGHT
    assert memory(server) - before < 4096
    assert talk.read_exactly(sent) == (chunk * (sent // len(chunk) + 1))[:sent]
    talk.reset()


@pytest.mark.parametrize("to", ORIGINS)
@pytest.mark.parametrize("kind", CLIENTS)
def test_backpressure_reaches_the_client(server, tunnel, kind, to):
    """A back end that does not read: the client is held back."""
    go = threading.Event()
    talk = tunnel(kind, to, steps.wait_for(go), steps.drain, steps.close)
    before = memory(server)
    talk.sock.settimeout(1)
    sent, block = 0, b"0123456789abcdef" * 1024
    with pytest.raises(TimeoutError):
        while sent < FLOOD:
            talk.sock.send(block)
            sent += len(block)
    assert sent < IN_FLIGHT
    assert memory(server) - before < 4096
    go.set()
    wait.until(lambda: len(talk.origin.received) >= sent, "the bytes flow on")
    assert talk.origin.received[:sent] == (block * (sent // len(block) + 1))[:sent]
    talk.reset()
