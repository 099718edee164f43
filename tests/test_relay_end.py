"""How a relayed tunnel ends: by halves, by codes, by reset, by silence, with and without close_notify."""

import threading
import time

import pytest

from harness import relayed, relaysite, steps, wait, websocket
from harness.relaysite import CLIENTS, IDLE, ORIGINS

#: "At once" on a busy machine, in seconds.
AT_ONCE, SLACK = 2.0, 2.0
#: How long peers get to answer a Close of the relay's own, in seconds.
GRACE = 2.0
MPMS = ["event", "worker", "prefork"]


@pytest.fixture(scope="module")
def origins(shared_backend):
    return relaysite.origins(shared_backend)


@pytest.fixture(scope="module", params=MPMS)
def server(request, shared_httpd, origins):
    return relaysite.start(shared_httpd(mpm=request.param), origins)


@pytest.fixture
def tunnel(server, origins, client, certificate):
    return relaysite.opener(server, origins, client, certificate)


def end_of(kind):
    """How an orderly end looks to a client."""
    return "eof" if kind == "plain" else "close_notify"


# Half closes.


@pytest.mark.parametrize("to", ORIGINS)
@pytest.mark.parametrize("kind", CLIENTS)
def test_half_close_of_the_client_is_carried(server, tunnel, kind, to):
    """The back end sees the end of the client's bytes, and what it sends then still arrives."""
    def answer_after_the_end(connection):
        steps.drain(connection)
        connection.send(b"got " + connection.received)
    talk = tunnel(kind, to, answer_after_the_end, steps.close)
    talk.send(b"all of it")
    talk.half_close()
    assert talk.read_exactly(13) == b"got all of it"
    assert talk.end() == end_of(kind)
    assert talk.origin.end == "eof"
    relaysite.ended(server, talk, "client", "closed")


@pytest.mark.parametrize("to", ORIGINS)
@pytest.mark.parametrize("kind", CLIENTS)
def test_half_close_of_the_back_end_is_carried(server, tunnel, kind, to):
    """The client sees the end of the back end's bytes, and what it sends then still arrives."""
    talk = tunnel(kind, to, b"last words", steps.half_close, steps.drain)
    assert talk.read_to_end() == b"last words"
    talk.send(b"thanks, ")
    talk.send(b"bye")
    talk.half_close()
    assert talk.origin.closed.wait(AT_ONCE)
    assert (talk.origin.received, talk.origin.end) == (b"thanks, bye", "eof")
    relaysite.ended(server, talk, "back end", "closed")


# WebSocket closes.


CODES = [(1000, b""), (1001, b"going away"), (1011, "später".encode()), (3000, b"x" * 123), (4999, b"app")]


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize(("code", "reason"), CODES, ids=[str(code) for code, _ in CODES])
def test_close_code_of_the_client_arrives(server, tunnel, kind, code, reason):
    talk = tunnel(kind)
    sent = websocket.close_frame(code, reason)
    talk.send_frame(sent)
    assert talk.read_frame() == sent
    assert talk.end() == end_of(kind)
    talk.close()
    end = relaysite.ended(server, talk, "client|back end", "closed")
    assert (end.client_close, end.origin_close) == (code, code)


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize(("code", "reason"), CODES, ids=[str(code) for code, _ in CODES])
def test_close_code_of_the_back_end_arrives(server, tunnel, kind, code, reason):
    sent, seen = websocket.close_frame(code, reason), []

    def close_first(connection):
        connection.send(sent.encode(mask=False))
        seen.append(websocket.read_frame(connection.recv_exactly))
    talk = tunnel(kind, "tcp", close_first, steps.close)
    assert talk.read_frame() == sent
    talk.send_frame(sent)
    assert talk.end() == end_of(kind)
    talk.close()
    end = relaysite.ended(server, talk, "back end", "closed")
    assert seen == [sent]
    assert (end.client_close, end.origin_close) == (code, code)


def test_close_without_a_code(server, tunnel):
    """RFC 6455 7.1.5: such a Close counts as 1005."""
    talk = tunnel()
    talk.send_frame(websocket.Frame(websocket.CLOSE))
    assert talk.read_frame() == websocket.Frame(websocket.CLOSE)
    assert talk.end() == "eof"
    talk.close()
    end = relaysite.ended(server, talk, "back end", "closed")
    assert (end.client_close, end.origin_close) == (1005, 1005)


def answer_close(connection):
    """Answers a Close with the same one."""
    connection.send(websocket.read_frame(connection.recv_exactly).encode(mask=False))


@pytest.mark.parametrize("to", ORIGINS)
@pytest.mark.parametrize("kind", CLIENTS)
def test_after_both_closes_the_client_need_not_hang_up(server, tunnel, kind, to):
    """RFC 6455 5.5.1: the server closes at once, and so does who stands in for it."""
    talk = tunnel(kind, to, answer_close, steps.close)
    sent = websocket.close_frame(1000)
    talk.send_frame(sent)
    relaysite.ended(server, talk, "back end", "closed")
    assert talk.read_frame() == sent
    assert talk.end() == end_of(kind)


@pytest.mark.parametrize("to", ORIGINS)
@pytest.mark.parametrize("kind", CLIENTS)
def test_after_both_closes_the_back_end_need_not_hang_up(server, tunnel, kind, to):
    release = threading.Event()
    talk = tunnel(kind, to, answer_close, steps.wait_for(release), steps.drain)
    talk.send_frame(websocket.close_frame(1000))
    assert talk.read_frame().opcode == websocket.CLOSE
    talk.half_close()
    [end] = relayed.ends(server)
    assert (end.by, end.why) == ("client", "closed")
    release.set()
    assert talk.origin.closed.wait(AT_ONCE)
    assert talk.origin.end == "eof"


@pytest.mark.parametrize("to", ORIGINS)
@pytest.mark.parametrize("kind", CLIENTS)
def test_one_close_and_a_hang_up_leave_the_other_way_open(server, tunnel, kind, to):
    """What comes before the other Close still arrives."""
    closes = websocket.close_frame(1001)
    talk = tunnel(kind, to, closes.encode(mask=False), steps.half_close, steps.drain)
    assert talk.read_frame() == closes
    frames = [websocket.Frame(websocket.BINARY, bytes([n]) * 1000).encode(mask=True) for n in range(20)]
    frames.append(closes.encode(mask=True))
    for frame in frames:
        talk.send(frame)
    end = relaysite.ended(server, talk, "back end", "closed")
    assert talk.origin.closed.wait(AT_ONCE)
    assert (talk.origin.received, talk.origin.end) == (b"".join(frames), "eof")
    assert (end.client_close, end.origin_close) == (1001, 1001)


# Abrupt ends.


@pytest.mark.parametrize("to", ORIGINS)
@pytest.mark.parametrize("kind", CLIENTS)
def test_reset_of_the_client_is_carried(server, tunnel, kind, to):
    talk = tunnel(kind, to)
    talk.echoes()
    talk.reset()
    relaysite.ended(server, talk, "client", "reset")
    assert talk.origin.end == "reset"


@pytest.mark.parametrize("to", ORIGINS)
@pytest.mark.parametrize("kind", CLIENTS)
def test_reset_of_the_back_end_is_carried(server, tunnel, kind, to):
    go = threading.Event()
    talk = tunnel(kind, to, steps.wait_for(go), steps.reset)
    go.set()
    begin = time.monotonic()
    assert talk.end() == "reset"
    assert time.monotonic() - begin < AT_ONCE
    relaysite.ended(server, talk, "back end", "reset")


@pytest.mark.parametrize("kind", CLIENTS)
def test_reset_of_the_client_while_the_back_end_floods(server, tunnel, kind):
    talk = tunnel(kind, "tcp", b"x", steps.repeat(b"x" * 65536, 1 << 32))
    talk.read_exactly(1 << 20)
    talk.reset()
    relaysite.ended(server, talk, "client", "reset")


@pytest.mark.parametrize("kind", CLIENTS)
def test_reset_of_the_client_that_does_not_read(server, tunnel, kind):
    """The back end's blocked write ends."""
    talk = tunnel(kind, "tcp", steps.repeat(b"x" * 65536, 1 << 32), receive_buffer=65536)
    last = [-1]

    def held():
        before, last[0] = last[0], talk.origin.sent
        return before == last[0] > 0
    wait.until(held, "the back end is held back", 30, 0.3)
    talk.reset()
    relaysite.ended(server, talk, "client", "reset")


@pytest.mark.parametrize("to", ORIGINS)
@pytest.mark.parametrize("kind", ["tls1.2", "tls1.3"])
def test_client_that_closes_without_close_notify(server, tunnel, kind, to):
    """A cut TLS stream may be truncated (RFC 8446 6.1): an end like another, with a name of its own."""
    talk = tunnel(kind, to)
    talk.echoes()
    talk.close()
    relaysite.ended(server, talk, "client", "truncated")
    assert talk.origin.end is None or talk.origin.end.startswith("eof")


@pytest.mark.parametrize("to", ORIGINS)
@pytest.mark.parametrize("kind", ["tls1.2", "tls1.3"])
def test_browser_that_closes_without_close_notify(server, tunnel, kind, to):
    """Browsers do so after their Close frame, which is the end of the WebSocket: nothing can be missing."""
    with relayed.Counted(server, Ended_closed=1):
        talk = tunnel(kind, to, steps.drain, steps.close)
        talk.send_frame(websocket.close_frame(1001))
        talk.close()
        end = relaysite.ended(server, talk, "client", "closed")
        assert (end.client_close, end.origin_close) == (1001, None)


@pytest.mark.parametrize("kind", CLIENTS)
def test_back_end_that_closes_without_close_notify_behind_its_close(server, tunnel, kind):
    closes = websocket.close_frame(1011)
    talk = tunnel(kind, "tls", closes.encode(mask=False), lambda connection: connection._close())
    assert talk.read_frame() == closes
    talk.end()
    talk.close()
    relaysite.ended(server, talk, "back end", "closed|reset")


@pytest.mark.parametrize("kind", CLIENTS)
def test_back_end_that_closes_without_close_notify(server, tunnel, kind):
    talk = tunnel(kind, "tls", b"cut", lambda connection: connection._close())
    assert talk.read_exactly(3) == b"cut"
    talk.end()
    talk.close()
    relaysite.ended(server, talk, "back end", "truncated|reset")


# Idle timeout.


def read_close(talk):
    frame = talk.read_frame()
    assert frame == websocket.close_frame(1001)


@pytest.mark.parametrize("to", ORIGINS)
@pytest.mark.parametrize("kind", CLIENTS)
def test_idle_timeout_ends_a_silent_tunnel(server, tunnel, kind, to):
    """Both sides get Close 1001 (RFC 6455 7.4.1), and those that answer it end at once."""
    talk = tunnel(kind, to, steps.websocket_echo, steps.close, path="/idle")
    begin = time.monotonic()
    read_close(talk)
    assert IDLE * 0.8 <= time.monotonic() - begin < IDLE + AT_ONCE
    talk.send_frame(websocket.close_frame(1001))
    assert talk.end() == end_of(kind)
    talk.close()
    end = relaysite.ended(server, talk, "server", "idle-timeout")
    assert IDLE * 0.8 < end.seconds < IDLE + AT_ONCE
    assert talk.origin.end in (None, "eof")


@pytest.mark.parametrize("to", ORIGINS)
@pytest.mark.parametrize("kind", CLIENTS)
def test_idle_timeout_waits_a_little_for_the_peers(server, tunnel, kind, to):
    """Neither side answers the Close: the end comes all the same, and orderly."""
    talk = tunnel(kind, to, steps.drain, steps.close, path="/idle")
    read_close(talk)
    assert talk.end() == end_of(kind)
    end = relaysite.ended(server, talk, "server", "idle-timeout")
    assert IDLE * 0.8 < end.seconds < IDLE + GRACE + SLACK
    assert talk.origin.end == "eof"
    at = iter(talk.origin.received)
    frame = websocket.read_frame(lambda size: bytes(next(at) for _ in range(size)))
    assert frame == websocket.close_frame(1001)


def test_idle_timeout_within_a_frame_inserts_nothing(server, tunnel):
    """A Close between the halves of a frame would be taken for its payload."""
    half = websocket.Frame(websocket.BINARY, b"x" * 100).encode(mask=False)[:50]
    talk = tunnel("plain", "tcp", half, steps.drain, steps.close, path="/idle")
    assert talk.read_to_end() == half
    talk.close()
    relaysite.ended(server, talk, "server", "idle-timeout")


@pytest.mark.parametrize("direction", ["client", "back end", "both"])
def test_bytes_in_either_direction_are_not_idle(server, tunnel, direction):
    script = {"client": (steps.drain, steps.close), "both": (steps.echo, steps.close),
              "back end": (steps.drip(b"x" * 10, IDLE * 0.4), steps.silence)}[direction]  # fmt: skip
    talk = tunnel("plain", "tcp", *script, path="/idle")
    begin = time.monotonic()
    while time.monotonic() - begin < IDLE * 3:
        if direction == "back end":
            assert talk.recv()
            continue
        talk.send(b"x")
        if direction == "both":
            assert talk.recv() == b"x"
        time.sleep(IDLE * 0.4)
    assert not talk.origin.closed.is_set()
    talk.end()
    relaysite.ended(server, talk, "server", "idle-timeout")


# close_notify.


@pytest.mark.parametrize("to", ORIGINS)
@pytest.mark.parametrize("kind", ["tls1.2", "tls1.3"])
def test_tls_client_gets_close_notify_at_the_end_of_the_back_end(server, tunnel, kind, to):
    """Without it a client cannot tell an end from a cut (RFC 8446 6.1)."""
    talk = tunnel(kind, to, b"bye", steps.close)
    assert talk.read_exactly(3) == b"bye"
    assert talk.end() == "close_notify"
    talk.half_close()
    relaysite.ended(server, talk, "back end", "closed")


@pytest.mark.parametrize("kind", CLIENTS)
def test_tls_back_end_gets_close_notify(server, tunnel, kind):
    talk = tunnel(kind, "tls", steps.drain, steps.close)
    talk.half_close()
    assert talk.origin.closed.wait(AT_ONCE)
    assert talk.origin.end == "eof"
    relaysite.ended(server, talk, "client", "closed")


def test_nothing_of_httpd_is_heard_on_a_tunnel_that_is_ours(server, tunnel):
    """The end of httpd's own connection sends no FIN, no close_notify, no byte."""
    for kind in CLIENTS:
        for to in ORIGINS:
            talk = tunnel(kind, to, steps.silence)
            server.wait_idle()
            talk.sock.settimeout(0.3)
            with pytest.raises(TimeoutError):
                talk.recv()
            assert talk.origin.received == b"" and not talk.origin.closed.is_set()
            talk.close()
