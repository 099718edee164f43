"""WSForwardPing: sides of a relayed tunnel that say nothing are asked."""

import time

import pytest

from harness import relaysite, steps, websocket
from harness.relaysite import CLIENTS, ORIGINS
from harness.websocket import BINARY, CLOSE, PING, PONG, TEXT, Frame

pytestmark = pytest.mark.carriers("relay", "drain")

#: WSForwardPing, in seconds.
INTERVAL, TIMEOUT = 1, 2
#: How much later than its time something may come, in seconds.
SLACK = 5.0


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


@pytest.mark.carriers("relay", mpms=["event"])
def test_off_sends_none(server, carrier, tunnel):
    talk = tunnel(None, "tcp", steps.silence, steps.close, path="/off")
    assert talk.silent_for(INTERVAL + TIMEOUT + 1)
    talk.half_close()
    talk.end()
    carrier.ended(server, talk, "client", "closed")
