"""WSForwardMessageRate and WSForwardBandwidth: a client that is too fast has to wait, and nothing else."""

import struct
import threading
import time

import pytest

from harness import relaysite, steps, wait, websocket
from harness.relaysite import CLIENTS, ORIGINS
from harness.websocket import BINARY, CLOSE, PING, TEXT, Frame

pytestmark = pytest.mark.carriers("relay", "drain")

#: WSForwardMessageRate below /messages: so many in a second, so many at once.
RATE, BURST = 10, 5
#: WSForwardBandwidth below /bytes, in bytes per second.
BANDWIDTH = 40_000
#: How long clients send, in seconds, and how much longer that may take.
TIME, SLACK = 2.0, 1.5


@pytest.fixture(scope="module")
def origins(shared_backend):
    return relaysite.origins(shared_backend)


@pytest.fixture(scope="module")
def server(carrier, shared_httpd, origins):
    return carrier.start(shared_httpd, origins, f"""<LocationMatch "^(/tls)?/messages">
    WSForwardMessageRate {RATE}/s {BURST}
</LocationMatch>
<LocationMatch "^(/tls)?/bytes">
    WSForwardBandwidth {BANDWIDTH}/s
</LocationMatch>
<LocationMatch "^(/tls)?/messages/free">
    WSForwardMessageRate 0
</LocationMatch>
<If "%{{QUERY_STRING}} == 'slow'">
    WSForwardMessageRate 1/s
</If>""")


class Seen:
    """A back end's step that notes when messages came, up to a Close, which it answers."""

    def __init__(self):
        self.frames, self.times = [], []

    def __call__(self, connection):
        while True:
            frame = websocket.read_frame(connection.recv_exactly)
            self.times.append(time.monotonic())
            self.frames.append(frame)
            if frame.opcode == CLOSE:
                connection.send(frame.encode(mask=False))
                return


def ends_well(server, carrier, talk):
    assert talk.read_frame() == websocket.close_frame(1000)
    talk.end()
    talk.close()
    carrier.ended(server, talk, "client|back end", "closed")


def is_right(took, right=TIME):
    assert right * 0.95 <= took <= right + wait.scaled(SLACK), took


@pytest.mark.parametrize("to", ORIGINS)
@pytest.mark.parametrize("kind", CLIENTS)
def test_messages_come_no_faster(server, carrier, tunnel, kind, to):
    seen = Seen()
    talk = tunnel(kind, to, seen, steps.close, path="/messages")
    count = BURST + int(RATE * TIME)
    sent = [Frame(TEXT, b"%d" % n) for n in range(count)] + [websocket.close_frame(1000)]
    talk.send(b"".join(frame.encode(mask=True) for frame in sent))
    ends_well(server, carrier, talk)
    assert seen.frames == sent
    assert seen.times[BURST - 1] - seen.times[0] < wait.scaled(SLACK), "the first ones come at once"
    is_right(seen.times[count - 1] - seen.times[0])


@pytest.mark.parametrize("to", ORIGINS)
@pytest.mark.parametrize("kind", CLIENTS)
def test_bytes_come_no_faster(server, carrier, tunnel, kind, to):
    seen = Seen()
    talk = tunnel(kind, to, seen, steps.close, path="/bytes")
    sent = [Frame(BINARY, b"x" * (BANDWIDTH - 8)), Frame(BINARY, b"y" * int(BANDWIDTH * TIME)), websocket.close_frame(1000)]
    talk.send(b"".join(frame.encode(mask=True) for frame in sent))
    ends_well(server, carrier, talk)
    assert seen.frames == sent
    is_right(seen.times[1] - seen.times[0])


@pytest.mark.slow
def test_client_waits_and_back_end_does_not(server, carrier, tunnel):
    """Backpressure reaches the client; meanwhile it gets what the back end says, orders too."""
    said = Frame(BINARY, b"z" * 200_000).encode(mask=False)
    talk = tunnel("plain", "tcp", said, steps.drain, steps.close, path="/bytes")
    data = Frame(BINARY, b"x" * (64 << 20)).encode(mask=True)
    talk.sock.settimeout(1)
    sent = 0
    with pytest.raises(TimeoutError):
        while sent < len(data):
            sent += talk.sock.send(data[sent : sent + 65536])
    talk.sock.settimeout(wait.scaled(10))
    assert sent < len(data)
    assert talk.read_exactly(len(said)) == said
    talk.reset()
    carrier.ended(server, talk, "client", "reset")
    got = talk.origin.received
    assert data.startswith(got) and len(got) < sent / 2


@pytest.mark.slow
def test_half_close_comes_behind_it(server, carrier, tunnel):
    talk = tunnel("plain", "tcp", steps.drain, steps.close, path="/bytes")
    data = struct.pack("!BBQI", 0x82, 0xFF, 2 * BANDWIDTH, 0) + b"x" * (2 * BANDWIDTH)
    begin = time.monotonic()
    talk.send(data)
    talk.half_close()
    talk.end()
    is_right(time.monotonic() - begin, 1.0)
    carrier.ended(server, talk, "client", "closed")
    assert talk.origin.received == data


@pytest.mark.carriers("relay", mpms=["event", "prefork"])
def test_reload_changes_nothing_for_who_is_held_back(server, carrier, tunnel):
    """Nothing is lost on the way to a drain process, and nothing may come at once again."""
    seen = Seen()
    talk = tunnel("plain", "tcp", seen, steps.close, path="/messages")
    count = BURST + int(RATE * 2 * TIME)
    sent = [Frame(TEXT, b"%d" % n) for n in range(count)] + [websocket.close_frame(1000)]
    begin = time.monotonic()
    talk.send(b"".join(frame.encode(mask=True) for frame in sent))
    wait.until(lambda: len(seen.frames) > BURST, "it is held back")
    server.reload()
    ends_well(server, carrier, talk)
    assert seen.frames == sent
    is_right(seen.times[count - 1] - begin, 2 * TIME)


@pytest.mark.carriers("relay", mpms=["event"])
def test_stop_is_not_held_back(httpd, carrier, origins, client, certificate):
    server = carrier.start(httpd, origins, "WSForwardMessageRate 1/s 1")
    seen = Seen()
    talk = carrier.open(server, origins, client, certificate, "plain", "tcp", [seen, steps.close])
    talk.send(Frame(PING, b"").encode(mask=True) + Frame(TEXT, b"a").encode(mask=True) * 100)
    wait.until(lambda: len(seen.frames) > 1, "it is held back")
    stopping = threading.Thread(target=server.stop)
    stopping.start()
    assert talk.read_frame() == websocket.close_frame(1001)
    stopping.join()
    wait.until(lambda: seen.frames[-1] == websocket.close_frame(1001), "the back end's Close")
    assert len(seen.frames) < 10
    talk.close()


@pytest.mark.carriers("relay", mpms=["event"])
@pytest.mark.parametrize(("path", "right"), [("/messages/free", 0.0), ("/?slow", 2.0)])
def test_section_and_if_decide(server, carrier, tunnel, path, right):
    seen = Seen()
    talk = tunnel("plain", "tcp", seen, steps.close, path=path)
    talk.send(Frame(TEXT, b"a").encode(mask=True) * 3 + websocket.close_frame(1000).encode(mask=True))
    ends_well(server, carrier, talk)
    is_right(seen.times[2] - seen.times[0], right)


@pytest.mark.carriers("thread", "http2", mpms=["event"])
def test_threads_have_no_limit(server, carrier, tunnel):
    """As the reference says."""
    seen = Seen()
    talk = tunnel(None, "tcp", seen, steps.close, path="/messages")
    begin = time.monotonic()
    talk.send(Frame(TEXT, b"a").encode(mask=True) * 200 + websocket.close_frame(1000).encode(mask=True))
    ends_well(server, carrier, talk)
    assert time.monotonic() - begin < 200 / RATE / 2
