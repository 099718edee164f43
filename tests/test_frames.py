"""Rules about frames: WSForwardMaxMessage and WSForwardStrict, whatever carries the tunnel."""

import struct

import pytest

from harness import http, relaysite, steps, websocket
from harness.relaysite import CLIENTS, ORIGINS
from harness.websocket import BINARY, CONTINUATION, PING, PONG, TEXT, Frame

pytestmark = pytest.mark.carriers("thread", "relay", "drain", "http2")

#: WSForwardMaxMessage below /max, in bytes: of the client, of the back end.
MOST, BACK_ENDS_MOST = 1000, 70_000
#: How long a side may take to end once its tunnel was ended, in seconds: longer than the usual two.
AT_ONCE = 5.0


@pytest.fixture(scope="module")
def origins(shared_backend):
    return relaysite.origins(shared_backend)


@pytest.fixture(scope="module")
def server(carrier, shared_httpd, origins):
    return carrier.start(shared_httpd, origins, f"""<LocationMatch "^(/tls)?/max">
    WSForwardMaxMessage {MOST} {BACK_ENDS_MOST}
</LocationMatch>
<LocationMatch "^(/tls)?/strict">
    WSForwardStrict On
</LocationMatch>
<LocationMatch "^(/tls)?/strict/off">
    WSForwardStrict Off
</LocationMatch>
<If "%{{QUERY_STRING}} == 'small'">
    WSForwardMaxMessage 10
</If>""")


def frames_of(data):
    """The frames that these bytes are."""
    frames = []
    while data:
        at = 0

        def exactly(size):
            nonlocal at
            at += size
            return data[at - size : at]
        frames.append(websocket.read_frame(exactly))
        data = data[at:]
    return frames


def closed(talk, carrier, server, sender, code, why):
    """The sender got this code, the other side 1001, and nothing else came."""
    by, codes = ("client", (code, 1001)) if sender == "client" else ("back end", (1001, code))
    assert talk.read_frame() == websocket.close_frame(codes[0])
    assert talk.end() in ("eof", "close_notify", "end of stream")
    talk.close()
    talk.origin.wait_closed(AT_ONCE)
    carrier.ended(server, talk, by, why)
    return codes[1]


@pytest.mark.parametrize("to", ORIGINS)
@pytest.mark.parametrize("kind", CLIENTS)
def test_message_of_the_client_that_is_too_big_ends_the_tunnel(server, carrier, tunnel, kind, to):
    talk = tunnel(kind, to, steps.drain, steps.close, path="/max")
    good = [Frame(BINARY, b"x" * MOST), Frame(TEXT, b"y" * (MOST - 9), fin=False), Frame(PING, b"z" * 125),
            Frame(CONTINUATION, b"y" * 9, fin=False)]  # fmt: skip
    for frame in good:
        talk.send_frame(frame)
    # Its header is enough.
    talk.send(Frame(CONTINUATION, b"y").encode(mask=True)[:2])
    other = closed(talk, carrier, server, "client", 1009, "message-too-big")
    assert frames_of(talk.origin.received) == [*good, websocket.close_frame(other)]


@pytest.mark.parametrize("to", ORIGINS)
@pytest.mark.parametrize("kind", CLIENTS)
def test_message_of_the_back_end_that_is_too_big_ends_the_tunnel(server, carrier, tunnel, kind, to):
    good = [Frame(BINARY, b"x" * BACK_ENDS_MOST), Frame(TEXT, b"y" * 9)]
    bad = Frame(BINARY, b"x" * (BACK_ENDS_MOST + 1))
    talk = tunnel(kind, to, b"".join(frame.encode(mask=False) for frame in [*good, bad]), steps.drain, steps.close,
                  path="/max")  # fmt: skip
    for frame in good:
        assert talk.read_frame() == frame
    other = closed(talk, carrier, server, "back end", 1009, "message-too-big")
    assert frames_of(talk.origin.received) == [websocket.close_frame(other)]


@pytest.mark.parametrize("length", [MOST + 1, 1 << 62, (1 << 64) - 1])
def test_no_length_gets_past_the_limit(server, carrier, tunnel, length):
    talk = tunnel(None, "tcp", steps.drain, steps.close, path="/max")
    talk.send(b"\x82\xff" + struct.pack("!Q", length))
    other = closed(talk, carrier, server, "client", 1009, "message-too-big")
    assert frames_of(talk.origin.received) == [websocket.close_frame(other)]


def test_a_limit_may_stand_in_an_if_and_has_none_for_the_back_end(server, carrier, tunnel):
    talk = tunnel(path="/max?small")
    talk.echoes(b"x" * 10)
    talk.send_frame(Frame(BINARY, b"x" * 11))
    closed(talk, carrier, server, "client", 1009, "message-too-big")


def test_without_a_limit_everything_passes(server, carrier, tunnel):
    talk = tunnel()
    talk.echoes(b"x" * 200_000)
    talk.send_frame(websocket.close_frame(1000))
    assert talk.read_frame() == websocket.close_frame(1000)
    talk.end()
    talk.close()
    carrier.ended(server, talk, "client|back end", "closed")


#: What is not RFC 6455 framing, by what is wrong: bytes of a client.
VIOLATIONS = {
    "unmasked": b"\x81\x01",
    "RSV1 without an extension": b"\xc1",
    "RSV2": b"\xa1",
    "RSV3": b"\x91",
    "reserved data opcode": b"\x83",
    "reserved control opcode": b"\x8b",
    "fragmented Ping": b"\x09",
    "fragmented Close": b"\x08",
    "Ping of 126 bytes": b"\x89\xfe\x00\x7e",
    "Close of one byte": b"\x88\x81",
    "continuation of nothing": b"\x80",
    "message within a message": b"\x01\x80\0\0\0\0\x81",
    "16 bits for 125": b"\x82\xfe\x00\x7d",
    "64 bits for 65535": b"\x82\xff\0\0\0\0\0\0\xff\xff",
    "64-bit length with the top bit": b"\x82\xff\x80\0\0\0\0\0\0\0",
}


@pytest.mark.parametrize("what", VIOLATIONS)
def test_strict_ends_what_is_not_rfc_6455(server, carrier, tunnel, what):
    talk = tunnel(None, "tcp", steps.drain, steps.close, path="/strict")
    good = [Frame(TEXT, b"hello"), Frame(PING, b"")]
    bad = VIOLATIONS[what]
    talk.send(b"".join(frame.encode(mask=True) for frame in good) + bad)
    other = closed(talk, carrier, server, "client", 1002, "protocol-error")
    if what == "message within a message":
        good.append(Frame(TEXT, b"", fin=False))
    assert frames_of(talk.origin.received) == [*good, websocket.close_frame(other)]


@pytest.mark.parametrize("to", ORIGINS)
def test_strict_ends_a_back_end_that_masks(server, carrier, tunnel, to):
    talk = tunnel(None, to, Frame(TEXT, b"hello").encode(mask=True), steps.drain, steps.close, path="/strict")
    other = closed(talk, carrier, server, "back end", 1002, "protocol-error")
    assert frames_of(talk.origin.received) == [websocket.close_frame(other)]


@pytest.mark.carriers("thread", "relay", "http2", mpms=["event"])
def test_strict_lets_pass_what_is_right_in_every_split(server, carrier, tunnel):
    frames = [Frame(BINARY, b"x" * 70_000), Frame(TEXT, b"a", fin=False), Frame(PING, b"p" * 125),
              Frame(CONTINUATION, b"b" * 126, fin=False), Frame(CONTINUATION)]  # fmt: skip
    talk = tunnel(path="/strict")
    for frame in frames:
        data = frame.encode(mask=True)
        for at in range(14):
            talk.send(data[at : at + 1])
        talk.send(data[14:])
        got = talk.read_frame()
        assert got == (Frame(PONG, frame.payload) if frame.opcode == PING else frame)
    talk.send_frame(websocket.close_frame(3999))
    assert talk.read_frame() == websocket.close_frame(3999)
    talk.end()
    talk.close()
    carrier.ended(server, talk, "client|back end", "closed")


@pytest.mark.parametrize(("extension", "first", "passes"), [
    ("permessage-deflate; server_no_context_takeover", 0xC1, True), ("permessage-deflate", 0xA1, False),
    ("permessage-deflate", 0xC9, False), ("x-mine", 0xF3, True), ("x-mine", 0x09, False)])  # fmt: skip
@pytest.mark.carriers("thread", "relay", mpms=["event"])
def test_strict_lets_extensions_define_bits(server, carrier, client, origins, extension, first, passes):
    origins["tcp"].answers(steps.switch([("Sec-WebSocket-Extensions", extension)]), steps.echo, steps.close)
    talk = client(server.ports["plain"])
    asked = http.handshake("/strict", fields=[("Sec-WebSocket-Extensions", "permessage-deflate, x-mine")])
    assert talk.ask(asked).status == 101
    talk.origin = origins["tcp"].connections[-1]
    # Another byte of a header, so that what comes back is not refused.
    talk.send(bytes([first]))
    if passes:
        assert talk.read_exactly(1) == bytes([first])
        talk.half_close()
        talk.end()
        carrier.ended(server, talk, "client", "closed")
    else:
        closed(talk, carrier, server, "client", 1002, "protocol-error")


@pytest.mark.parametrize("what", ["RSV1 without an extension", "reserved data opcode"])
@pytest.mark.carriers("thread", "relay", mpms=["event"])
def test_without_strict_it_passes(server, carrier, tunnel, what):
    talk = tunnel(None, "tcp", steps.echo, steps.close, path="/strict/off")
    data = VIOLATIONS[what] + b"\x80\0\0\0\0 and whatever follows"
    talk.send(data)
    assert talk.read_exactly(len(data)) == data
    talk.half_close()
    talk.end()
    carrier.ended(server, talk, "client", "closed")
