"""Bytes of an open tunnel, whatever carries it: nothing is lost, nothing is added, nothing piles up."""

import hashlib
import threading

import pytest

from harness import procfs, relaysite, steps, wait
from harness.carriers import FLUSHING_FAILED
from harness.relaysite import CLIENTS, ORIGINS
from harness.sockets import FLOOD, IN_FLIGHT, held_back

pytestmark = pytest.mark.carriers("thread", "relay")

#: What httpd's child may grow by while one side does not read, in KiB.
GROWN = 4096


@pytest.fixture(scope="module")
def origins(shared_backend):
    return relaysite.origins(shared_backend)


@pytest.fixture(scope="module")
def server(carrier, shared_httpd, origins):
    return carrier.start(shared_httpd, origins)


@pytest.mark.parametrize("to", ORIGINS)
@pytest.mark.parametrize("kind", CLIENTS)
def test_many_bytes_both_ways_at_once(server, carrier, tunnel, kind, to):
    """8 MB each way at the same time, and the end right behind; in a thread the burst is glued to the 101."""
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
    end = carrier.ended(server, talk, "back end", "closed")
    assert (end.up, end.down) == (count * len(block),) * 2
    assert hashlib.sha256(data).digest() == got.digest() == hashlib.sha256(block * count).digest()


@pytest.mark.parametrize("to", ORIGINS)
@pytest.mark.parametrize("kind", CLIENTS)
def test_backpressure_reaches_the_back_end(server, tunnel, kind, to):
    """A client that does not read: the back end is held back, httpd's memory stays, nothing is lost."""
    server.expect_log(FLUSHING_FAILED, certain=False)
    go, chunk = threading.Event(), b"0123456789abcdef" * 4096
    talk = tunnel(kind, to, steps.wait_for(go), steps.repeat(chunk, FLOOD), steps.close, receive_buffer=65536)
    child = server.serving(talk)
    before = procfs.private_kib(child)
    talk.origin.sent = 0
    go.set()
    sent = held_back(lambda: talk.origin.sent)
    assert sent < IN_FLIGHT
    assert procfs.private_kib(child) - before < GROWN
    # What is held back flows on once the client reads.
    assert talk.read_exactly(sent) == (chunk * (sent // len(chunk) + 1))[:sent]
    talk.reset()


@pytest.mark.slow
@pytest.mark.parametrize("to", ORIGINS)
@pytest.mark.parametrize("kind", CLIENTS)
def test_backpressure_reaches_the_client(server, tunnel, kind, to):
    """A back end that does not read: the client is held back."""
    go = threading.Event()
    talk = tunnel(kind, to, steps.wait_for(go), steps.drain, steps.close)
    child = server.serving(talk)
    before = procfs.private_kib(child)
    talk.sock.settimeout(1)
    sent, block = 0, b"0123456789abcdef" * 1024
    with pytest.raises(TimeoutError):
        while sent < FLOOD:
            talk.sock.send(block)
            sent += len(block)
    assert sent < IN_FLIGHT
    assert procfs.private_kib(child) - before < GROWN
    go.set()
    if kind != "plain":
        # A TLS record that was begun is sent to its end: a client that stops within one is another matter.
        talk.sock.settimeout(60)
        talk.sock.send(block)
        sent += len(block)
    wait.until(lambda: len(talk.origin.received) >= sent, "the bytes flow on", 60)
    assert talk.origin.received[:sent] == (block * (sent // len(block) + 1))[:sent]
    talk.reset()
