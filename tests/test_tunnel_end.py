"""Issue section 6: how a tunnel ends, and that nothing is lost or piled up before."""

import hashlib
import threading
import time

import pytest

from harness import http, procfs, relayed, steps, wait, websocket
from harness.sockets import FLOOD, IN_FLIGHT

IDLE, SLACK = 1.0, 2.0
#: WSForwardIdleTimeout below /long, in seconds: longer than the Timeout of the port "short", 1.
LONG = 3.0
#: "At once" on a busy machine, in seconds.
AT_ONCE = 2.0

CLIENTS = ["plain", "tls1.2", "tls1.3"]
ORIGINS = ["tcp", "tls"]


@pytest.fixture(scope="module")
def origins(shared_backend):
    return {"tcp": shared_backend(name="tcp"), "tls": shared_backend(tls=True, name="tls")}


# A tunnel in a thread of worker is one in a thread of event.
@pytest.fixture(scope="module", params=["event", "prefork"])
def server(request, shared_httpd, origins):
    made = shared_httpd(mpm=request.param)
    text = f"""WSForward On
SSLProxyEngine on
SSLProxyVerify require
SSLProxyCACertificateFile {made.certificate.cert}
ProxyPass "/tls" "{origins["tls"].url("https")}"
ProxyPass "/" "{origins["tcp"].url("http")}"
<Location "/tls/idle">
    WSForwardIdleTimeout {IDLE:g}
</Location>
<Location "/idle">
    WSForwardIdleTimeout {IDLE:g}
</Location>
<Location "/long">
    WSForwardIdleTimeout {LONG:g}
</Location>
<Location "/never">
    WSForwardIdleTimeout 0
</Location>
"""
    made.ports = {"plain": made.vhost(text), "tls": made.vhost(text, tls=True),
                  "short": made.vhost("Timeout 1\nProxyTimeout 1\n" + text),
                  "short tls": made.vhost("Timeout 1\nProxyTimeout 1\n" + text, tls=True),
                  "proxy timeout": made.vhost(f"Timeout 1\nProxyTimeout {LONG:g}\n" + text)}  # fmt: skip
    return made.start()


@pytest.fixture
def tunnel(server, origins, client, certificate):
    """Opens one: `tunnel(kind of client, kind of back end, steps after the 101)`."""
    def open_one(kind="plain", to="tcp", *script, path="/", port=None, **options):
        origins[to].answers(steps.switch(), *(script or (steps.websocket_echo, steps.close)))
        tls = certificate.client_context(kind) if kind != "plain" else None
        talk = client(server.ports[port or ("tls" if tls else "plain")], tls, **options)
        target = path if to == "tcp" else f"/tls{path}"
        assert talk.ask(http.handshake(target)).status == 101
        talk.origin = origins[to].connections[-1]
        return talk
    return open_one


def ended(talk):
    """Reads to the end and asserts that it was no reset; close_notify has tests of its own."""
    assert talk.end() in ("eof", "close_notify", "truncated")


# Half closes.


@pytest.mark.parametrize("to", ORIGINS)
@pytest.mark.parametrize("kind", CLIENTS)
def test_half_close_of_the_client_is_carried(tunnel, kind, to):
    """The back end sees the end of the client's bytes, and what it sends then still arrives."""
    def answer_after_the_end(connection):
        steps.drain(connection)
        connection.send(b"got " + connection.received)
    talk = tunnel(kind, to, answer_after_the_end, steps.close)
    talk.send(b"all of it")
    talk.half_close()
    assert talk.read_exactly(13) == b"got all of it"
    ended(talk)


@pytest.mark.parametrize("to", ORIGINS)
@pytest.mark.parametrize("kind", CLIENTS)
def test_half_close_of_the_back_end_is_carried(tunnel, kind, to):
    """The client sees the end of the back end's bytes, and what it sends then still arrives."""
    talk = tunnel(kind, to, b"last words", steps.half_close, steps.drain)
    assert talk.read_to_end() == b"last words"
    talk.send(b"thanks, ")
    talk.send(b"bye")
    talk.half_close()
    assert talk.origin.closed.wait(AT_ONCE)
    assert talk.origin.received == b"thanks, bye"
    assert talk.origin.end.startswith("eof")


# WebSocket closes.


CODES = [(1000, b""), (1001, b"going away"), (1011, "später".encode()), (3000, b"x" * 123), (4999, b"app")]


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize(("code", "reason"), CODES, ids=[str(code) for code, _ in CODES])
def test_close_code_of_the_client_arrives(tunnel, kind, code, reason):
    talk = tunnel(kind)
    sent = websocket.close_frame(code, reason)
    talk.send_frame(sent)
    assert talk.read_frame() == sent
    ended(talk)
    assert talk.origin.closed.wait(AT_ONCE)


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize(("code", "reason"), CODES, ids=[str(code) for code, _ in CODES])
def test_close_code_of_the_back_end_arrives(tunnel, kind, code, reason):
    sent, seen = websocket.close_frame(code, reason), []

    def close_first(connection):
        connection.send(sent.encode(mask=False))
        seen.append(websocket.read_frame(connection.recv_exactly))
    talk = tunnel(kind, "tcp", close_first, steps.close)
    assert talk.read_frame() == sent
    talk.send_frame(sent)
    ended(talk)
    assert seen == [sent]


def test_close_without_a_code(tunnel):
    talk = tunnel()
    talk.send_frame(websocket.Frame(websocket.CLOSE))
    assert talk.read_frame() == websocket.Frame(websocket.CLOSE)
    assert talk.end() == "eof"


# Abrupt ends.


@pytest.mark.parametrize("to", ORIGINS)
@pytest.mark.parametrize("kind", CLIENTS)
def test_reset_of_the_client_ends_the_back_end_at_once(tunnel, kind, to):
    talk = tunnel(kind, to)
    talk.echoes()
    talk.reset()
    assert talk.origin.closed.wait(AT_ONCE)


@pytest.mark.parametrize("to", ORIGINS)
@pytest.mark.parametrize("kind", CLIENTS)
def test_reset_of_the_back_end_ends_the_client_at_once(tunnel, kind, to):
    go = threading.Event()
    talk = tunnel(kind, to, steps.wait_for(go), steps.reset)
    go.set()
    begin = time.monotonic()
    talk.end()
    assert time.monotonic() - begin < AT_ONCE


def test_reset_of_the_client_while_the_back_end_floods(server, tunnel):
    server.expect_log(FLUSHING_FAILED, certain=False)
    talk = tunnel("plain", "tcp", steps.repeat(b"x" * 65536, 1 << 32))
    talk.read_exactly(1 << 20)
    talk.reset()
    assert talk.origin.closed.wait(AT_ONCE)


def test_close_of_the_client_while_nobody_reads(server, tunnel):
    """The client stops reading, then leaves: the back end's blocked write ends."""
    server.expect_log(FLUSHING_FAILED, certain=False)
    talk = tunnel("plain", "tcp", steps.repeat(b"x" * 65536, 1 << 32), receive_buffer=65536)
    settled(talk.origin)
    talk.reset()
    assert talk.origin.closed.wait(AT_ONCE)


@pytest.mark.parametrize("to", ORIGINS)
def test_client_that_closes_without_close_notify(tunnel, to):
    """A cut TLS stream is an end like another."""
    talk = tunnel("tls1.3", to)
    talk.echoes()
    talk.close()
    assert talk.origin.closed.wait(AT_ONCE)


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("kind", CLIENTS)
def test_client_that_goes_before_the_101(server, origins, client, certificate, kind, how):
    """It went while the back end thought: the 101 finds nobody, and the back end is let go at once."""
    go = threading.Event()
    origins["tcp"].answers(steps.wait_for(go), steps.switch(), steps.websocket_echo, steps.close)
    tls = certificate.client_context(kind) if kind != "plain" else None
    server.expect_log("AH10221|AH03307|AH01110", certain=False)
    talk = client(server.ports["tls" if tls else "plain"], tls).send(http.handshake())
    [connection] = origins["tcp"].wait_requests() and origins["tcp"].connections
    getattr(talk, how)()
    go.set()
    assert connection.closed.wait(AT_ONCE)


# Bytes.


@pytest.mark.parametrize("to", ORIGINS)
@pytest.mark.parametrize("kind", CLIENTS)
def test_many_bytes_both_ways_at_once(tunnel, kind, to):
    """8 MB each way at the same time, the back end's burst glued to its 101, its end right behind."""
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
    ended(talk)
    assert hashlib.sha256(data).digest() == got.digest() == hashlib.sha256(block * count).digest()


#: What mod_proxy's tunnel says when a client goes while its bytes wait.
FLUSHING_FAILED = "AH10221: proxy: websocket: client flushing failed|AH03307: ap_proxy_transfer_between_connections"


def settled(connection, of="sent"):
    """Waits until the number of bytes no longer changes, and returns it."""
    last = [None, time.monotonic()]

    def still():
        value = connection.sent if of == "sent" else len(connection.received)
        if value != last[0]:
            last[:] = [value, time.monotonic()]
        return time.monotonic() - last[1] > 0.4 and value > 0
    wait.until(still, "the sender is held back", 30)
    return last[0]


@pytest.mark.parametrize("kind", CLIENTS)
def test_backpressure_reaches_the_back_end(server, tunnel, kind):
    """A client that does not read: the back end is held back, httpd's memory stays, nothing is lost."""
    server.expect_log(FLUSHING_FAILED, certain=False)
    go = threading.Event()
    flood = steps.repeat(b"0123456789abcdef" * 4096, FLOOD)
    talk = tunnel(kind, "tcp", steps.wait_for(go), flood, steps.close, receive_buffer=65536)
    child = server.serving(talk)
    before = procfs.private_kib(child)
    talk.origin.sent = 0
    go.set()
    sent = settled(talk.origin)
    assert sent < IN_FLIGHT
    assert procfs.private_kib(child) - before < 4096
    # What is held back flows on once the client reads.
    data = talk.read_exactly(sent)
    assert data == (b"0123456789abcdef" * (sent // 16 + 1))[:sent]
    talk.reset()


@pytest.mark.parametrize("kind", CLIENTS)
def test_backpressure_reaches_the_client(server, tunnel, kind):
    """A back end that does not read: the client is held back."""
    go = threading.Event()
    talk = tunnel(kind, "tcp", steps.wait_for(go), steps.drain, steps.close)
    child = server.serving(talk)
    before = procfs.private_kib(child)
    talk.sock.settimeout(1)
    sent, block = 0, b"0123456789abcdef" * 1024
    try:
        while sent < FLOOD:
            talk.sock.send(block)
            sent += len(block)
    except (TimeoutError, OSError) as error:
        assert "timed out" in str(error)
    assert sent < IN_FLIGHT
    assert procfs.private_kib(child) - before < 4096
    go.set()
    if kind != "plain":
        # A TLS record that was begun is sent to its end: a client that stops within one is another matter.
        talk.sock.settimeout(60)
        talk.sock.send(block)
        sent += len(block)
    wait.until(lambda: len(talk.origin.received) >= sent, "the bytes flow on", 60)
    assert talk.origin.received[:sent] == (block * (sent // len(block) + 1))[:sent]
    talk.reset()


# Idle timeout.


def ends_after(talk, least):
    begin = time.monotonic()
    end = talk.end()
    took = time.monotonic() - begin
    assert least * 0.8 <= took < least + SLACK
    return end


@pytest.mark.parametrize("to", ORIGINS)
@pytest.mark.parametrize("kind", CLIENTS)
def test_idle_timeout_ends_a_silent_tunnel(tunnel, kind, to):
    talk = tunnel(kind, to, path="/idle")
    assert ends_after(talk, IDLE) in ("eof", "close_notify", "truncated")
    assert talk.origin.closed.wait(AT_ONCE)


@pytest.mark.parametrize("direction", ["client", "back end", "both"])
def test_bytes_in_either_direction_are_not_idle(tunnel, direction):
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
        assert talk.silent_for(IDLE * 0.4)
    assert not talk.origin.closed.is_set()
    if direction != "back end":
        assert ends_after(talk, IDLE * 0.6) == "eof"


@pytest.mark.parametrize("kind", CLIENTS)
def test_silent_tunnel_ends_as_with_stock_httpd_by_default(server, tunnel, kind):
    """Timeout and ProxyTimeout are 1 s there. A tunnel that holds a thread does not hold it for good."""
    talk = tunnel(kind, port="short" if kind == "plain" else "short tls")
    assert ends_after(talk, 1) in ("eof", "close_notify", "truncated")
    assert talk.origin.closed.wait(AT_ONCE)
    [end] = relayed.ends(server)
    assert (end.by, end.why, end.where) == ("server", "idle-timeout", "thread")


def test_proxy_timeout_holds_where_it_is_longer(tunnel):
    talk = tunnel(port="proxy timeout")
    assert ends_after(talk, LONG) == "eof"


def test_bytes_keep_a_tunnel_from_ending_by_default(tunnel):
    talk = tunnel(port="short")
    begin = time.monotonic()
    while time.monotonic() - begin < 3:
        talk.echoes()
        assert talk.silent_for(0.05)
    talk.echoes()


def test_idle_timeout_of_nothing_is_for_ever(tunnel):
    """Whatever Timeout and ProxyTimeout say."""
    talk = tunnel(port="short", path="/never")
    assert talk.silent_for(3)
    talk.echoes()


def test_idle_timeout_longer_than_timeout(tunnel):
    talk = tunnel(port="short", path="/long")
    assert ends_after(talk, LONG) == "eof"


def test_idle_timeout_shorter_than_timeout(tunnel):
    talk = tunnel(path="/idle")
    assert ends_after(talk, IDLE) == "eof"


def test_timeout_is_back_after_a_refusal(tunnel, server, client, origins):
    """The tunnel's own timeouts are not those of the next request: Timeout 1 cuts a slow one."""
    origins["tcp"].answers(http.page(b"no\n", "403 Forbidden"), steps.keep)
    talk = client(server.ports["short"])
    assert talk.ask(http.handshake()).status == 403
    talk.send(b"GET / HTTP/1.1\r\nHost: si")
    assert ends_after(talk, 1) == "eof"


# close_notify.


@pytest.mark.parametrize("to", ORIGINS)
@pytest.mark.parametrize("kind", ["tls1.2", "tls1.3"])
@pytest.mark.parametrize("cause", ["end of the back end", "close frame", "idle timeout"])
def test_tls_client_gets_close_notify(tunnel, cause, kind, to):
    """Without it a client cannot tell an end from a cut (RFC 8446 6.1); stock sends none."""
    if cause == "end of the back end":
        talk = tunnel(kind, to, b"bye", steps.close)
        assert talk.read_exactly(3) == b"bye"
    elif cause == "close frame":
        talk = tunnel(kind, to)
        talk.send_frame(websocket.close_frame(1000))
        assert talk.read_frame().opcode == websocket.CLOSE
    else:
        talk = tunnel(kind, to, path="/idle")
    assert talk.end() == "close_notify"


@pytest.mark.parametrize("kind", CLIENTS)
def test_tls_back_end_gets_close_notify(tunnel, kind):
    talk = tunnel(kind, "tls", steps.drain, steps.close)
    talk.half_close()
    assert talk.origin.closed.wait(AT_ONCE)
    assert talk.origin.end == "eof"


# TLS back ends.


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
