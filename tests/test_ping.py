"""WSForwardPing: sides of a relayed tunnel that say nothing are asked."""

import os
import struct
import threading
import time

import pytest

from harness import procfs, relaysite, steps, wait, websocket
from harness.relaysite import CLIENTS, ORIGINS
from harness.websocket import BINARY, CLOSE, PING, PONG, TEXT, Frame

pytestmark = pytest.mark.carriers("relay", "drain")

#: WSForwardPing, in seconds.
INTERVAL, TIMEOUT = 1, 2
#: How much later than its time something may come, in seconds.
SLACK = 5.0
#: A frame that takes longer than the interval: the bytes of its payload, in how many parts they are sent, and how many
#: seconds apart. `WSF_STRESS=long` sends a GiB.
FRAME, PARTS, PAUSE = (1 << 30 if os.environ.get("WSF_STRESS") == "long" else 64 << 20), 10, 0.2

#: Frames of 64 KiB that are more than all buffers.
FLOODED = 400


@pytest.fixture(scope="module")
def origins(shared_backend):
    return relaysite.origins(shared_backend)


@pytest.fixture(scope="module")
def server(carrier, shared_httpd, origins):
    return carrier.start(shared_httpd, origins, f"""WSForwardPing {INTERVAL} {TIMEOUT}
<LocationMatch "^(/tls)?/off">
    WSForwardPing Off
</LocationMatch>""")


def answer_pings(seen, count):
    """A back end that answers so many Pings and keeps them in `seen`."""
    def step(connection):
        while len(seen) < count:
            frame = websocket.read_frame(connection.recv_exactly)
            if frame.opcode == PING:
                seen.append(frame)
                connection.send(Frame(PONG, frame.payload).encode(mask=False))
            elif frame.opcode == CLOSE:
                return
    return step


@pytest.mark.parametrize("to", ORIGINS)
@pytest.mark.parametrize("kind", CLIENTS)
def test_back_end_that_answers_no_more_is_gone(server, carrier, tunnel, kind, to):
    seen = []
    talk = tunnel(kind, to, answer_pings(seen, 1), steps.drain, steps.close)
    frames = []
    while (frame := talk.read_frame()).opcode != CLOSE:
        frames.append(frame.opcode)
        if frame.opcode == PING:
            talk.send_frame(Frame(TEXT, b"here"))
    assert frame == websocket.close_frame(1001)
    assert PONG in frames, "the back end's answer goes on"
    assert seen == [Frame(PING)]
    talk.end()
    talk.close()
    carrier.ended(server, talk, "back end", "ping-timeout")


@pytest.mark.parametrize("to", ORIGINS)
@pytest.mark.parametrize("kind", CLIENTS)
def test_client_that_does_not_answer_is_gone(server, carrier, tunnel, kind, to):
    begin = time.monotonic()
    talk = tunnel(kind, to, answer_pings([], 10), steps.close)
    assert talk.read_frame().opcode in (PING, PONG)
    talk.origin.wait_closed(INTERVAL + TIMEOUT + 2 + SLACK)
    assert time.monotonic() - begin >= INTERVAL * 7 / 8 + TIMEOUT
    carrier.ended(server, talk, "client", "ping-timeout")


@pytest.mark.slow
@pytest.mark.carriers("relay", mpms=["event"])
def test_nothing_is_put_into_a_long_frame(server, carrier, tunnel):
    """Nor is who is sent one gone for want of an answer, before it could be asked."""
    talk = tunnel(None, "tcp", steps.drain, steps.close)
    data = Frame(BINARY, b"x" * 1000).encode(mask=True)
    begin, at = time.monotonic(), 0
    while time.monotonic() - begin < INTERVAL + TIMEOUT + 1:
        talk.send(data[at : at + 1])
        at += 1
        time.sleep(0.02)
    assert at < len(data)
    talk.send(data[at:])
    talk.end()
    talk.close()
    carrier.ended(server, talk, "client|back end", "ping-timeout")
    assert talk.origin.received.startswith(data)
    assert talk.origin.received[len(data) :][:2] == b"\x89\x80"


def frame_in_parts(send, mask):
    """Sends it."""
    send(struct.pack("!BBQ", 0x82, mask | 127, FRAME) + (bytes(4) if mask else b""))
    for _ in range(PARTS):
        send(bytes(FRAME // PARTS))
        time.sleep(PAUSE)
    send(bytes(FRAME % PARTS))


def is_whole(read_exactly, mask):
    """Reads it: nothing stands within it, and a Ping comes behind it."""
    head = read_exactly(14 if mask else 10)
    assert head[:10] == struct.pack("!BBQ", 0x82, mask | 127, FRAME)
    for _ in range(64):
        assert not read_exactly(FRAME // 64).strip(b"\0")
    assert read_exactly(2) == bytes([0x89, mask])


@pytest.mark.slow
@pytest.mark.carriers("relay", mpms=["event"])
@pytest.mark.timeout(300)
def test_nothing_is_put_into_a_frame_that_the_kernel_carries(server, carrier, tunnel, origins):
    """Bytes of a very long frame go from socket to socket by way of a pipe, and are not looked at. In both
    directions at once, in a tunnel each, whose other side is silent meanwhile."""
    def pipes():
        return sum(link.startswith("pipe:") for pid in server.children for link in procfs.descriptors(pid))
    before, whole = pipes(), threading.Event()

    def read(connection):
        is_whole(connection.recv_exactly, 0x80)
        whole.set()

    up = tunnel(None, "tcp", read, steps.close)
    down = tunnel(None, "tcp", lambda connection: frame_in_parts(connection.send, 0), steps.drain, steps.close)
    sending = threading.Thread(target=frame_in_parts, args=(up.send, 0x80))
    sending.start()
    wait.until(lambda: pipes() >= before + 4, "the kernel carries both")
    is_whole(down.read_exactly, 0)
    sending.join()
    wait.until(whole.is_set, "the back end has got the other")
    for talk in up, down:
        talk.reset()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "tls1.3"])
@pytest.mark.carriers("relay", mpms=["event"])
def test_back_end_that_is_not_read_is_not_asked(server, carrier, tunnel, kind):
    """A client takes nothing for a while: what the back end would answer lies behind what is not read of it."""
    frame = Frame(BINARY, bytes(1 << 16)).encode(mask=False)
    talk = tunnel(kind, "tcp", steps.repeat(frame, FLOODED * len(frame)), steps.drain, steps.close)
    time.sleep(INTERVAL + 2 * TIMEOUT)
    assert not talk.origin.closed.is_set()
    whole = 0
    while whole < FLOODED:
        kind = talk.read_frame().opcode
        assert kind in (BINARY, PING)
        whole += kind == BINARY
        if not whole % 50:
            talk.send_frame(Frame(TEXT, b"here"))
    talk.half_close()
    talk.end()
    carrier.ended(server, talk, "client", "closed")


@pytest.mark.carriers("relay", mpms=["event"])
def test_off_sends_none(server, carrier, tunnel):
    talk = tunnel(None, "tcp", steps.silence, steps.close, path="/off")
    assert talk.silent_for(INTERVAL + TIMEOUT + 1)
    talk.half_close()
    talk.end()
    carrier.ended(server, talk, "client", "closed")
