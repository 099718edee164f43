"""Issue section 1: HTTP/2 clients with H2WebSockets on (RFC 8441)."""

import re
import time

import pytest

from harness import http, relayed, steps, wait, websocket
from harness.h2client import Http2Client
from harness.pauses import without_long_pauses

MPMS = ["event", "worker"]

# Seconds of the server's WSForwardIdleTimeout, below its Timeout of 60.
IDLE = 2
# Seconds that a client has to end its side, once the back end has ended its own.
LINGER = 3


@pytest.fixture(scope="module")
def origins(shared_backend):
    return {"http": shared_backend(), "https": shared_backend(tls=True), "unix": shared_backend(unix=True)}


@pytest.fixture(scope="module", params=MPMS)
def server(request, shared_httpd, origins):
    made = shared_httpd(mpm=request.param, extra=["http2"])
    made.port = made.vhost(f"""Protocols h2 http/1.1
H2WebSockets on
WSForward On
SSLProxyEngine on
SSLProxyVerify require
SSLProxyCACertificateFile {made.certificate.cert}
ProxyPass "/https" "{origins["https"].url("https")}"
ProxyPass "/unix" "{origins["unix"].url("http")}"
ProxyPass "/ws" "{origins["http"].url("ws")}"
ProxyPass "/" "{origins["http"].url("http")}"
<Location "/off">
    WSForward Off
</Location>
<Location "/quick">
    WSForwardHandshakeTimeout 500ms
</Location>
<Location "/idle">
    WSForwardIdleTimeout {IDLE}s
</Location>""", tls=True)
    made.expect_log("WSF0120: H2WebSockets on")
    return made.start()


@pytest.fixture
def h2(server, certificate):
    with Http2Client(server.port, certificate.client_context("tls1.3", ["h2"])) as client:
        yield client


def echoes(stream, payload=b"hello"):
    stream.send(websocket.Frame(websocket.BINARY, payload).encode(mask=True))
    assert websocket.read_frame(stream.read_exactly) == websocket.Frame(websocket.BINARY, payload)


@pytest.mark.parametrize(("path", "to"), [("/", "http"), ("/https/", "https"), ("/unix/", "unix"), ("/ws/", "http")])
def test_extended_connect_is_a_handshake(h2, origins, path, to):
    assert h2.connect_enabled
    fields = [("origin", "https://site.test"), ("cookie", "a=1"), ("sec-websocket-protocol", "chat")]
    stream = h2.websocket(path, fields)
    assert stream.status == 200
    echoes(stream)
    echoes(stream, b"x" * 200_000)
    asked = origins[to].request
    assert (asked.method, asked.all("Upgrade"), asked.all("Connection")) == ("GET", ["websocket"], ["Upgrade"])
    assert asked.get("Origin") == "https://site.test"
    assert asked.get("Cookie") == "a=1"
    assert asked.get("Sec-WebSocket-Protocol") == "chat"
    assert len(asked.get("Sec-WebSocket-Key")) == 24


def test_close_code_and_end(h2, origins):
    stream = h2.websocket()
    assert stream.status == 200
    sent = websocket.close_frame(4001, b"done")
    stream.send(sent.encode(mask=True))
    assert websocket.read_frame(stream.read_exactly) == sent
    assert stream.read_to_end() == b""
    origins["http"].connections[-1].wait_closed()


def test_subprotocol_of_the_back_end(h2, origins):
    origins["http"].answers(steps.switch([("Sec-WebSocket-Protocol", "chat"), ("X-Custom", "kept")]),
                            steps.websocket_echo, steps.close)  # fmt: skip
    stream = h2.websocket(fields=[("sec-websocket-protocol", "chat, other")])
    assert stream.status == 200
    assert (stream.get("sec-websocket-protocol"), stream.get("x-custom")) == ("chat", "kept")
    echoes(stream)


def test_several_tunnels_and_pages_on_one_connection(h2):
    tunnels = [h2.websocket(f"/{n}") for n in range(4)]
    page = h2.request("/page")
    assert [stream.status for stream in tunnels] == [200] * 4
    assert (page.status, page.read_to_end()) == (200, b"plain\n")
    for turn in range(3):
        for number, stream in enumerate(tunnels):
            echoes(stream, b"%d %d" % (turn, number))


def test_bytes_glued_to_the_101(h2, origins):
    origins["http"].answers(steps.switch(), b"g" * 50_000, steps.websocket_echo, steps.close)
    stream = h2.websocket()
    assert stream.status == 200
    assert stream.read_exactly(50_000) == b"g" * 50_000
    echoes(stream)


FRAME = websocket.close_frame(4321, b"at once")


@pytest.mark.parametrize(("path", "to"), [("/", "http"), ("/https/", "https"), ("/unix/", "unix")])
@pytest.mark.parametrize("then", [steps.silence, steps.half_close, steps.close], ids=["open", "half closed", "closed"])
def test_a_frame_that_comes_with_the_101_arrives_at_once(h2, origins, path, to, then):
    """With stock httpd it waits for what comes next, or is lost: mod_proxy's loop waits for a socket that
    has nothing any more."""
    origins[to].answers(steps.switch(then=FRAME.encode(mask=False)), then, steps.drain)
    stream = h2.websocket(path)
    assert stream.status == 200
    assert websocket.read_frame(stream.read_exactly) == FRAME


def test_stock_keeps_a_frame_that_comes_with_the_101(httpd, backend, certificate):
    """Why the module does more there; to be looked at again when this fails."""
    origin = backend()
    origin.answers(steps.switch(then=FRAME.encode(mask=False)), steps.websocket_echo)
    stock = httpd(module=None, extra=["http2"])
    stock.page("page", "plain")
    port = stock.vhost(f"""Protocols h2 http/1.1
H2WebSockets on
ProxyPass "/page" "!"
ProxyPass "/" "{origin.url("http")}" upgrade=websocket""", tls=True)
    stock.start()
    asked, answer = (websocket.Frame(opcode, b"hello") for opcode in (websocket.PING, websocket.PONG))
    with Http2Client(port, certificate.client_context("tls1.3", ["h2"])) as h2:
        stream = h2.websocket()
        assert stream.status == 200
        # It has as long as another request takes.
        assert h2.request("/page").read_to_end() == b"plain"
        assert stream.data == b""
        stream.send(asked.encode(mask=True))
        assert [websocket.read_frame(stream.read_exactly) for _ in range(2)] == [FRAME, answer]


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden", "404 Not Found", "302 Found", "426 Upgrade Required"])
def test_refusals_reach_the_client(h2, origins, status):
    origins["http"].answers(http.page(b"no\n", status, [("X-Why", "because")]), steps.keep)
    stream = h2.websocket()
    assert stream.status == int(status[:3])
    assert stream.get("x-why") == "because"
    assert stream.read_to_end() == b"no\n"


def refused(h2, server, path, status, log):
    """A handshake that fails with the module's error line and mod_proxy's that quotes it, on a connection
    that lives on."""
    server.expect_log(log)
    stream = h2.websocket(path)
    assert stream.status == status
    assert stream.read_to_end()
    _, line = server.log.matching(r":error\]")
    assert re.search(log.encode(), line), line
    assert h2.request("/unix/page").status == 200


WRONG = {"accept": ({"accept": "AAAAAAAAAAAAAAAAAAAAAAAAAAA="}, 'Sec-WebSocket-Accept is "AAAAAAAAAAAAAAAAAAAAAAAAAAA=", expected'),
         "no accept": ({"without": ["Sec-WebSocket-Accept"]}, "Sec-WebSocket-Accept is missing, expected"),
         "upgrade": ({"upgrade": "h2c"}, 'Upgrade is "h2c", expected "websocket"'),
         "subprotocol": ({"fields": [("Sec-WebSocket-Protocol", "chat")]}, 'Sec-WebSocket-Protocol is "chat", offered were ""')}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_101_is_502(h2, server, origins, name):
    options, why = WRONG[name]
    origins["http"].answers(steps.switch(**options), steps.silence)
    refused(h2, server, "/", 502, rf"proxy:error\].*WSF0103: wrong 101: {why}")
    # So do its tunnels.
    origins["http"].answers(*steps.WEBSOCKET_OR_PAGE)
    echoes(h2.websocket())


def test_garbage_is_502(h2, server, origins):
    origins["http"].answers(b"garbage\r\n\r\n", steps.close)
    refused(h2, server, "/", 502, r"proxy:error\].*WSF0102: ")


def test_close_instead_of_an_answer_is_502(h2, server, origins):
    origins["http"].answers(steps.close)
    refused(h2, server, "/", 502, r"proxy:error\].*WSF0104: the back end closed the connection after 0 bytes of a response head")


def test_silence_is_504(h2, server, origins):
    origins["http"].answers(steps.silence)
    refused(h2, server, "/quick", 504, r"proxy:error\].*WSF0105: no complete response head within 500ms \(0 bytes of it came\)")


def test_reset_of_the_back_end_ends_the_stream(h2, origins):
    origins["http"].answers(steps.switch(), b"x", steps.until_read, steps.reset)
    stream = h2.websocket()
    assert stream.status == 200
    assert stream.read_to_end() == b"x"
    assert h2.request("/unix/page").status == 200


def logged(server, path):
    """The requests for this path that are done with, in which a tunnel's is when it has ended."""
    return [line for line in server.access() if f'"GET {path} HTTP/2.0" 101' in line]


def test_end_of_the_back_end_resets_no_client_that_ends_too(h2, server, origins):
    """Stock httpd resets every one of them. mod_http2 takes an end that comes while it is still sending for
    more output, rarely, and resets its stream: it looks at its output in a thread of its own."""
    origins["http"].answers(steps.switch(), b"x", steps.close)
    for number in range(5):
        stream = h2.websocket(f"/both/{number}")
        assert stream.status == 200
        assert stream.read_to_end() == b"x"
        if stream.reset is None:
            stream.end()
    relayed.ends(server, 5)
    # What was sent for their streams comes first.
    assert h2.request("/unix/page").status == 200
    assert len(h2.resets) <= 1


@pytest.mark.parametrize(("path", "to"), [("/", "http"), ("/https/", "https")])
def test_a_back_end_that_has_ended_its_side_gets_what_the_client_sends_until_it_ends(h2, server, origins, path, to):
    origins[to].answers(steps.switch(), b"x", steps.half_close, steps.drain, steps.close)

    def attempt(pauses):
        stream = h2.websocket(path)
        assert stream.status == 200
        pauses.note()
        assert stream.read_to_end() == b"x"
        connection = origins[to].connections[-1]
        # Within the window: whether mod_http2 gives more of it in time is its own affair.
        stream.send(b"late" * 10_000)
        wait.until(lambda: len(connection.received) == 40_000 or connection.closed.is_set(),
                   lambda: f"{len(connection.received)} bytes came")  # fmt: skip
        assert len(connection.received) == 40_000
        # With the client's end mod_http2 drops what nobody has read.
        stream.end()
        connection.wait_closed()
        assert connection.received == b"late" * 10_000
        assert h2.request("/unix/page").status == 200
        assert stream.number not in [number for number, _ in h2.resets]

    without_long_pauses(attempt, LINGER, server)


def test_a_client_that_never_ends_holds_no_thread_for_long(h2, server, origins):
    """Six are all that a connection has at a time: the page waits for one of them."""
    origins["http"].answers(steps.switch(), b"x", steps.close)
    begin = time.monotonic()
    tunnels = []
    for number in range(6):
        tunnels.append(stream := h2.websocket(f"/never/{number}"))
        assert stream.read_to_end() == b"x"
        # The end is said at once, the reset comes when the time is up.
        assert (stream.number, 0) not in h2.resets
    assert h2.request("/unix/page").status == 200
    while len(h2.resets) < 6:
        h2.wait_reset()
    assert sorted(h2.resets) == [(stream.number, 0) for stream in tunnels]
    # Not by the access log, which mod_http2 may leave for when it next looks at the connection.
    relayed.ends(server, 6)
    assert time.monotonic() - begin < LINGER + wait.scaled(15)


def test_what_a_client_sends_to_a_back_end_that_is_gone_does_not_lengthen_its_time(h2, server, origins):
    origins["http"].answers(steps.switch(), b"x", steps.close)
    stream = h2.websocket("/gone")
    assert stream.status == 200
    begin = time.monotonic()
    while not logged(server, "/gone"):
        stream.send(b"y")
        time.sleep(0.05)
    assert time.monotonic() - begin < LINGER + wait.scaled(15)


def test_end_of_the_client_reaches_the_back_end(h2, origins):
    stream = h2.websocket()
    assert stream.status == 200
    echoes(stream)
    stream.end()
    origins["http"].connections[-1].wait_closed()


def test_off_means_that_no_back_end_sees_an_upgrade(h2, server, origins):
    """The back end answers a plain GET with 200, which mod_http2 must not take for a tunnel: a
    200 to an extended CONNECT would be one (RFC 8441 5)."""
    stream = h2.websocket("/off")
    assert stream.status == 502
    assert stream.read_to_end() == b""
    [asked] = origins["http"].requests
    assert "Upgrade" not in asked and "upgrade" not in asked.get("Connection").lower()
    assert not server.log.matching("WSF")


def test_http_1_1_on_the_same_virtual_host(server, client, certificate):
    talk = client(server.port, certificate.client_context("tls1.3", ["http/1.1"]))
    assert talk.ask(http.handshake()).status == 101
    talk.echoes()


def test_idle_timeout_ends_a_silent_stream(h2, origins):
    """Its own, not Timeout: for mod_proxy's loop a stream has none but that."""
    begin = time.monotonic()
    stream = h2.websocket("/idle")
    assert stream.status == 200
    echoes(stream)
    stream.read_to_end()
    assert IDLE * 0.8 <= time.monotonic() - begin < IDLE + wait.scaled(5)
    origins["http"].connections[-1].wait_closed()


def test_a_stream_that_talks_is_not_idle(h2, server):
    def attempt(pauses):
        stream = h2.websocket("/idle")
        assert stream.status == 200
        end = time.monotonic() + IDLE * 2
        while time.monotonic() < end:
            echoes(stream)
            pauses.note()
            time.sleep(IDLE / 4)
        echoes(stream)

    without_long_pauses(attempt, IDLE, server)
