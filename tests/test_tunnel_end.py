"""How a tunnel ends, whatever carries it: by halves, by codes, by reset, by silence, with and without close_notify."""

import threading
import time

import pytest

from harness import http, procfs, relayed, relaysite, steps, wait, websocket
from harness.carriers import FLUSHING_FAILED
from harness.pauses import without_long_pauses
from harness.relaysite import CLIENTS, IDLE, ORIGINS
from harness.sockets import held_back

pytestmark = pytest.mark.carriers("thread", "relay")

#: "At once", in seconds: far less than any timeout of the server.
AT_ONCE = 2.0
#: How long peers get to answer a Close of the relay's own, in seconds.
GRACE = 2.0
#: How much later than its time an end may come, in seconds.
SLACK = 2.0
#: WSForwardIdleTimeout below /long, in seconds: longer than the Timeout of the ports SHORT.
LONG = 3.0
#: Further ports: a Timeout that is over soon, and a ProxyTimeout that is not.
SHORT = {"short": ("Timeout 1\nProxyTimeout 1", False), "short tls": ("Timeout 1\nProxyTimeout 1", True),
         "proxy timeout": (f"Timeout 1\nProxyTimeout {LONG:g}", False)}  # fmt: skip


@pytest.fixture(scope="module")
def origins(shared_backend):
    return relaysite.origins(shared_backend)


@pytest.fixture(scope="module")
def server(carrier, shared_httpd, origins):
    return carrier.start(shared_httpd, origins, f"""<Location "/long">
    WSForwardIdleTimeout {LONG:g}
</Location>
<Location "/never">
    WSForwardIdleTimeout 0
</Location>""", SHORT)


def end_of(kind):
    """How an orderly end looks to a client: with TLS it can tell it from a cut (RFC 8446 6.1)."""
    return "eof" if kind == "plain" else "close_notify"


# Half closes.


@pytest.mark.carriers("thread", "relay", "drain")
@pytest.mark.parametrize("to", ORIGINS)
@pytest.mark.parametrize("kind", CLIENTS)
def test_half_close_of_the_client_is_carried(server, carrier, tunnel, kind, to):
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
    carrier.ended(server, talk, "client", "closed")


@pytest.mark.carriers("thread", "relay", "drain")
@pytest.mark.parametrize("to", ORIGINS)
@pytest.mark.parametrize("kind", CLIENTS)
def test_half_close_of_the_back_end_is_carried(server, carrier, tunnel, kind, to):
    """The client sees the end of the back end's bytes, and what it sends then still arrives."""
    talk = tunnel(kind, to, b"last words", steps.half_close, steps.drain)
    assert talk.read_to_end() == b"last words"
    talk.send(b"thanks, ")
    talk.send(b"bye")
    talk.half_close()
    talk.origin.wait_closed(AT_ONCE)
    assert (talk.origin.received, talk.origin.end) == (b"thanks, bye", "eof")
    carrier.ended(server, talk, "back end", "closed")


# WebSocket closes.


CODES = [(1000, b""), (1001, b"going away"), (1011, "später".encode()), (3000, b"x" * 123), (4999, b"app")]


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize(("code", "reason"), CODES, ids=[str(code) for code, _ in CODES])
def test_close_code_of_the_client_arrives(server, carrier, tunnel, kind, code, reason):
    talk = tunnel(kind)
    sent = websocket.close_frame(code, reason)
    talk.send_frame(sent)
    assert talk.read_frame() == sent
    assert talk.end() == end_of(kind)
    talk.close()
    talk.origin.wait_closed(AT_ONCE)
    end = carrier.ended(server, talk, "client|back end", "closed")
    assert (end.client_close, end.origin_close) == codes(carrier, code)


def codes(carrier, code):
    """What the line of the end has of a Close in both directions."""
    return (code, code) if carrier.is_relay else (None, None)


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize(("code", "reason"), CODES, ids=[str(code) for code, _ in CODES])
def test_close_code_of_the_back_end_arrives(server, carrier, tunnel, kind, code, reason):
    sent, seen = websocket.close_frame(code, reason), []

    def close_first(connection):
        connection.send(sent.encode(mask=False))
        seen.append(websocket.read_frame(connection.recv_exactly))
    talk = tunnel(kind, "tcp", close_first, steps.close)
    assert talk.read_frame() == sent
    talk.send_frame(sent)
    assert talk.end() == end_of(kind)
    talk.close()
    end = carrier.ended(server, talk, "back end", "closed")
    assert seen == [sent]
    assert (end.client_close, end.origin_close) == codes(carrier, code)


def test_close_without_a_code(server, carrier, tunnel):
    """RFC 6455 7.1.5: such a Close counts as 1005."""
    talk = tunnel()
    talk.send_frame(websocket.Frame(websocket.CLOSE))
    assert talk.read_frame() == websocket.Frame(websocket.CLOSE)
    assert talk.end() == "eof"
    talk.close()
    end = carrier.ended(server, talk, "back end", "closed")
    assert (end.client_close, end.origin_close) == codes(carrier, 1005)


def answer_close(connection):
    """Answers a Close with the same one."""
    connection.send(websocket.read_frame(connection.recv_exactly).encode(mask=False))


@pytest.mark.parametrize("to", ORIGINS)
@pytest.mark.parametrize("kind", CLIENTS)
def test_after_both_closes_the_client_need_not_hang_up(server, carrier, tunnel, kind, to):
    """RFC 6455 5.5.1: the server closes at once, and so does who stands in for it."""
    talk = tunnel(kind, to, answer_close, steps.close)
    sent = websocket.close_frame(1000)
    talk.send_frame(sent)
    if carrier.is_relay:
        carrier.ended(server, talk, "back end", "closed")
    assert talk.read_frame() == sent
    assert talk.end() == end_of(kind)


@pytest.mark.carriers("relay")
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
    talk.origin.wait_closed(AT_ONCE)
    assert talk.origin.end == "eof"


@pytest.mark.parametrize("to", ORIGINS)
@pytest.mark.parametrize("kind", CLIENTS)
def test_one_close_and_a_hang_up_leave_the_other_way_open(server, carrier, tunnel, kind, to):
    """What comes before the other Close still arrives."""
    closes = websocket.close_frame(1001)
    talk = tunnel(kind, to, closes.encode(mask=False), steps.half_close, steps.drain)
    assert talk.read_frame() == closes
    frames = [websocket.Frame(websocket.BINARY, bytes([n]) * 1000).encode(mask=True) for n in range(20)]
    frames.append(closes.encode(mask=True))
    for frame in frames:
        talk.send(frame)
    if not carrier.is_relay:
        # It does not know that this was the last one. Its end may be seen before the back end's.
        talk.half_close()
    end = carrier.ended(server, talk, "back end" if carrier.is_relay else "back end|client", "closed")
    talk.origin.wait_closed(AT_ONCE)
    assert (talk.origin.received, talk.origin.end) == (b"".join(frames), "eof")
    assert (end.client_close, end.origin_close) == codes(carrier, 1001)


# Abrupt ends.


@pytest.mark.carriers("thread", "relay", "drain")
@pytest.mark.parametrize("to", ORIGINS)
@pytest.mark.parametrize("kind", CLIENTS)
def test_reset_of_the_client_is_carried(server, carrier, tunnel, kind, to):
    talk = tunnel(kind, to)
    talk.echoes()
    talk.reset()
    talk.origin.wait_closed(AT_ONCE)
    carrier.ended(server, talk, "client", "reset")
    if carrier.is_relay:
        assert talk.origin.end == "reset"


@pytest.mark.carriers("thread", "relay", "drain")
@pytest.mark.parametrize("to", ORIGINS)
@pytest.mark.parametrize("kind", CLIENTS)
def test_reset_of_the_back_end_is_carried(server, carrier, tunnel, kind, to):
    go = threading.Event()
    talk = tunnel(kind, to, steps.wait_for(go), steps.reset)
    if carrier.is_relay:
        here, there = talk.sock.getsockname()[1], talk.sock.getpeername()[1]
        wait.until(lambda: procfs.tcp_socket(there, here)[0] == 0, "nothing is under way that a reset would throw away")
    go.set()
    begin = time.monotonic()
    end = talk.end()
    assert time.monotonic() - begin < wait.scaled(AT_ONCE)
    if carrier.is_relay:
        assert end == "reset"
    talk.close()
    carrier.ended(server, talk, "back end", "reset")


@pytest.mark.parametrize("kind", CLIENTS)
def test_reset_of_the_client_while_the_back_end_floods(server, carrier, tunnel, kind):
    server.expect_log(FLUSHING_FAILED, certain=False)
    talk = tunnel(kind, "tcp", b"x", steps.repeat(b"x" * 65536, 1 << 32))
    talk.read_exactly(1 << 20)
    talk.reset()
    talk.origin.wait_closed(AT_ONCE)
    carrier.ended(server, talk, "client", "reset")


@pytest.mark.parametrize("kind", CLIENTS)
def test_reset_of_the_client_that_does_not_read(server, carrier, tunnel, kind):
    """The back end's blocked write ends."""
    server.expect_log(FLUSHING_FAILED, certain=False)
    talk = tunnel(kind, "tcp", steps.repeat(b"x" * 65536, 1 << 32), receive_buffer=65536)
    held_back(lambda: talk.origin.sent)
    talk.reset()
    talk.origin.wait_closed(AT_ONCE)
    carrier.ended(server, talk, "client", "reset")


@pytest.mark.parametrize("to", ORIGINS)
@pytest.mark.parametrize("kind", ["tls1.2", "tls1.3"])
def test_client_that_closes_without_close_notify(server, carrier, tunnel, kind, to):
    """A cut TLS stream may be truncated (RFC 8446 6.1): an end like another, with a name of its own."""
    talk = tunnel(kind, to)
    talk.echoes()
    talk.close()
    talk.origin.wait_closed(AT_ONCE)
    carrier.ended(server, talk, "client", "truncated" if carrier.is_relay else "truncated|closed")
    assert talk.origin.end is None or talk.origin.end.startswith("eof")


@pytest.mark.carriers("relay")
@pytest.mark.parametrize("to", ORIGINS)
@pytest.mark.parametrize("kind", ["tls1.2", "tls1.3"])
def test_browser_that_closes_without_close_notify(server, carrier, tunnel, kind, to):
    """Browsers do so after their Close frame, which is the end of the WebSocket: nothing can be missing."""
    with relayed.Counted(server, Ended_closed=1):
        talk = tunnel(kind, to, steps.drain, steps.close)
        talk.send_frame(websocket.close_frame(1001))
        talk.close()
        end = carrier.ended(server, talk, "client", "closed")
        assert (end.client_close, end.origin_close) == (1001, None)


@pytest.mark.carriers("relay")
@pytest.mark.parametrize("kind", CLIENTS)
def test_back_end_that_closes_without_close_notify_behind_its_close(server, carrier, tunnel, kind):
    closes = websocket.close_frame(1011)
    talk = tunnel(kind, "tls", closes.encode(mask=False), lambda connection: connection._close())
    assert talk.read_frame() == closes
    talk.end()
    talk.close()
    carrier.ended(server, talk, "back end", "closed|reset")


@pytest.mark.carriers("relay")
@pytest.mark.parametrize("kind", CLIENTS)
def test_back_end_that_closes_without_close_notify(server, carrier, tunnel, kind):
    talk = tunnel(kind, "tls", b"cut", lambda connection: connection._close())
    assert talk.read_exactly(3) == b"cut"
    talk.end()
    talk.close()
    carrier.ended(server, talk, "back end", "truncated|reset")


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("kind", CLIENTS)
def test_client_that_goes_before_the_101(server, origins, client, kind, how):
    """It went while the back end thought: the 101 finds nobody, and the back end is let go at once."""
    go = threading.Event()
    origins["tcp"].answers(steps.wait_for(go), steps.switch(), steps.websocket_echo, steps.close)
    server.expect_log("AH10221|AH03307|AH01110", certain=False)
    talk = relaysite.dial(server, client, kind).send(http.handshake())
    [connection] = origins["tcp"].wait_requests() and origins["tcp"].connections
    getattr(talk, how)()
    go.set()
    connection.wait_closed(AT_ONCE)


# Idle timeout.


def took(end, seconds, slack=SLACK):
    """Asserts that a tunnel lasted so long, by its line."""
    assert seconds * 0.8 <= end.seconds < seconds + wait.scaled(slack), end


def read_close(talk):
    frame = talk.read_frame()
    assert frame == websocket.close_frame(1001)


@pytest.mark.parametrize("to", ORIGINS)
@pytest.mark.parametrize("kind", CLIENTS)
def test_idle_timeout_ends_a_silent_tunnel(server, carrier, tunnel, kind, to):
    """From the relay both sides get Close 1001 (RFC 6455 7.4.1), and those that answer it end at once."""
    talk = tunnel(kind, to, steps.websocket_echo, steps.close, path="/idle")
    if carrier.is_relay:
        read_close(talk)
        talk.send_frame(websocket.close_frame(1001))
    assert talk.end() == end_of(kind)
    talk.close()
    end = carrier.ended(server, talk, "server", "idle-timeout")
    took(end, IDLE)
    assert talk.origin.end in ((None, "eof") if carrier.is_relay else ("eof", "eof without close_notify"))


@pytest.mark.slow
@pytest.mark.carriers("relay")
@pytest.mark.parametrize("to", ORIGINS)
@pytest.mark.parametrize("kind", CLIENTS)
def test_idle_timeout_waits_a_little_for_the_peers(server, carrier, tunnel, kind, to):
    """Neither side answers the Close: the end comes all the same, and orderly."""
    talk = tunnel(kind, to, steps.drain, steps.close, path="/idle")
    read_close(talk)
    assert talk.end() == end_of(kind)
    end = carrier.ended(server, talk, "server", "idle-timeout")
    took(end, IDLE, GRACE + SLACK)
    assert talk.origin.end == "eof"
    at = iter(talk.origin.received)
    frame = websocket.read_frame(lambda size: bytes(next(at) for _ in range(size)))
    assert frame == websocket.close_frame(1001)


@pytest.mark.carriers("relay")
def test_idle_timeout_within_a_frame_inserts_nothing(server, carrier, tunnel):
    """A Close between the halves of a frame would be taken for its payload."""
    half = websocket.Frame(websocket.BINARY, b"x" * 100).encode(mask=False)[:50]
    talk = tunnel("plain", "tcp", half, steps.drain, steps.close, path="/idle")
    assert talk.read_to_end() == half
    talk.close()
    carrier.ended(server, talk, "server", "idle-timeout")


@pytest.mark.slow
@pytest.mark.parametrize("direction", ["client", "back end", "both"])
def test_bytes_in_either_direction_are_not_idle(server, carrier, tunnel, direction):
    # A quarter is far below it, on a busy machine too.
    step, count = IDLE / 4, 12

    def attempt(pauses):
        def drip(connection):
            for _ in range(count):
                connection.send(b"x")
                pauses.note()
                time.sleep(step)

        script = {"client": (steps.drain, steps.close), "both": (steps.echo, steps.close),
                  "back end": (drip, steps.silence)}[direction]  # fmt: skip
        talk = tunnel("plain", "tcp", *script, path="/idle")
        if direction == "back end":
            assert talk.read_exactly(count) == b"x" * count
        else:
            for _ in range(count):
                talk.send(b"x")
                if direction == "both":
                    assert talk.recv() == b"x"
                pauses.note()
                assert talk.silent_for(step)
        assert not talk.origin.closed.is_set()
        assert talk.end() == "eof"
        end = carrier.ended(server, talk, "server", "idle-timeout")
        assert end.seconds >= step * (count - 1) + IDLE * 0.8

    without_long_pauses(attempt, IDLE, server)


@pytest.mark.carriers("thread")
@pytest.mark.parametrize("kind", CLIENTS)
def test_silent_tunnel_ends_as_with_stock_httpd_by_default(server, carrier, tunnel, kind):
    """Timeout and ProxyTimeout are 1 s there. A tunnel that holds a thread does not hold it for good."""
    talk = tunnel(kind, port="short" if kind == "plain" else "short tls")
    assert talk.end() == end_of(kind)
    talk.origin.wait_closed(AT_ONCE)
    took(carrier.ended(server, talk, "server", "idle-timeout"), 1)


@pytest.mark.slow
@pytest.mark.carriers("thread")
def test_proxy_timeout_holds_where_it_is_longer(server, carrier, tunnel):
    talk = tunnel(port="proxy timeout")
    assert talk.end() == "eof"
    took(carrier.ended(server, talk, "server", "idle-timeout"), LONG)


@pytest.mark.slow
@pytest.mark.carriers("thread")
def test_bytes_keep_a_tunnel_from_ending_by_default(server, tunnel):
    def attempt(pauses):
        talk = tunnel(port="short")
        begin = time.monotonic()
        while time.monotonic() - begin < 3:
            talk.echoes()
            pauses.note()
            assert talk.silent_for(0.05)
        talk.echoes()

    without_long_pauses(attempt, 1, server)


@pytest.mark.slow
@pytest.mark.carriers("thread")
def test_idle_timeout_of_nothing_is_for_ever(tunnel):
    """Whatever Timeout and ProxyTimeout say."""
    talk = tunnel(port="short", path="/never")
    assert talk.silent_for(3)
    talk.echoes()


@pytest.mark.slow
@pytest.mark.carriers("thread")
def test_idle_timeout_longer_than_timeout(server, carrier, tunnel):
    talk = tunnel(port="short", path="/long")
    assert talk.end() == "eof"
    took(carrier.ended(server, talk, "server", "idle-timeout"), LONG)


@pytest.mark.carriers("thread")
def test_timeout_is_back_after_a_refusal(server, client, origins):
    """The tunnel's own timeouts are not those of the next request: Timeout 1 cuts a slow one."""
    origins["tcp"].answers(http.page(b"no\n", "403 Forbidden"), steps.keep)
    talk = client(server.ports["short"])
    assert talk.ask(http.handshake()).status == 403
    begin = time.monotonic()
    talk.send(b"GET / HTTP/1.1\r\nHost: si")
    assert talk.end() == "eof"
    assert 0.8 <= time.monotonic() - begin < 1 + wait.scaled(SLACK)


# close_notify.


@pytest.mark.parametrize("to", ORIGINS)
@pytest.mark.parametrize("kind", ["tls1.2", "tls1.3"])
@pytest.mark.parametrize("cause", ["end of the back end", "close frame"])
def test_tls_client_gets_close_notify(server, carrier, tunnel, cause, kind, to):
    """Without it a client cannot tell an end from a cut (RFC 8446 6.1); stock sends none."""
    if cause == "end of the back end":
        talk = tunnel(kind, to, b"bye", steps.close)
        assert talk.read_exactly(3) == b"bye"
    else:
        talk = tunnel(kind, to)
        talk.send_frame(websocket.close_frame(1000))
        assert talk.read_frame().opcode == websocket.CLOSE
    assert talk.end() == "close_notify"
    talk.close()
    carrier.ended(server, talk, "back end", "closed")


@pytest.mark.parametrize("kind", CLIENTS)
def test_tls_back_end_gets_close_notify(server, carrier, tunnel, kind):
    talk = tunnel(kind, "tls", steps.drain, steps.close)
    talk.half_close()
    talk.origin.wait_closed(AT_ONCE)
    assert talk.origin.end == "eof"
    carrier.ended(server, talk, "client", "closed")


@pytest.mark.carriers("relay")
def test_nothing_of_httpd_is_heard_on_a_tunnel_that_is_ours(server, tunnel):
    """The end of httpd's own connection sends no FIN, no close_notify, no byte."""
    for kind in CLIENTS:
        for to in ORIGINS:
            talk = tunnel(kind, to, steps.silence)
            server.wait_idle()
            assert talk.silent_for(0.3)
            assert talk.origin.received == b"" and not talk.origin.closed.is_set()
            talk.close()


# TLS back ends.


@pytest.mark.slow
@pytest.mark.carriers("thread")
def test_handshakes_with_a_tls_1_3_back_end_never_hang(tunnel):
    """Session tickets arrive before or with the 101: what comes behind them must be seen (httpd
    clears SSL_MODE_AUTO_RETRY, and a read then says "nothing there" after each ticket)."""
    for number in range(150):
        talk = tunnel("tls1.3" if number % 2 else "plain", "tls", b"hello", steps.websocket_echo, steps.close)
        assert talk.read_exactly(5) == b"hello"
        talk.echoes(b"%d" % number)
        talk.send_frame(websocket.close_frame(1000))
        assert talk.read_frame().opcode == websocket.CLOSE
        talk.close()
