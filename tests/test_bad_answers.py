"""Issue section 5: garbage, endless heads, silence and early ends. Cut early, in bounded memory."""

import os
import time

import pytest

from harness import http, procfs, steps, wait, websocket
from harness.backend import Backend
from harness.ports import Port

SWITCH = (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
          b"Sec-WebSocket-Accept: " + websocket.ACCEPT.encode() + b"\r\n")  # fmt: skip
#: The deadline of the tests that wait for it, and the slack that a busy machine gets.
TIMEOUT, SLACK = 0.5, 1.5
#: What fits into the sockets' buffers between httpd and a back end that nobody reads from.
SOCKET_BUFFERS = 8 << 20


@pytest.fixture(scope="module")
def origin(shared_backend):
    return shared_backend()


@pytest.fixture(scope="module")
def tls_origin(shared_backend):
    return shared_backend(tls=True)


@pytest.fixture(scope="module")
def server(shared_httpd, origin, tls_origin):
    made = shared_httpd()
    made.port = made.vhost(f"""WSForward On
SSLProxyEngine on
SSLProxyVerify require
SSLProxyCACertificateFile {made.certificate.cert}
ProxyPass "/quick" "{origin.url("http", "/quick")}"
ProxyPass "/tls-quick" "{tls_origin.url("https")}"
ProxyPass "/worker" "{origin.url("http", "/worker")}" timeout=1
ProxyPass "/" "{origin.url("http")}"
<Location "/quick">
    WSForwardHandshakeTimeout {int(TIMEOUT * 1000)}ms
</Location>
<Location "/tls-quick">
    WSForwardHandshakeTimeout {int(TIMEOUT * 1000)}ms
</Location>""")
    return made.start()


def refused(server, client, path="/", status=502, log=r"WSF\d{4}"):
    """The client is answered, with one error line, and its connection serves the next request."""
    if log:
        server.expect_log(log)
    talk = client(server.port)
    # Not the first request of this connection: mod_proxy_http would close that without an answer.
    answer = talk.ask(http.handshake(path))
    assert answer.status == status
    if log:
        errors = [line for line in server.log.matching(log) if b":error]" in line]
        assert len(errors) == 1, errors
    return talk


GARBAGE = {
    "garbage": b"\x16\x03\x01garbage\r\n\r\n",
    "a TLS alert": b"\x15\x03\x03\x00\x02\x02\x28",
    "an SSH banner": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "HTTP/0.9": b"<html>hello</html>\r\n\r\n",
    "HTTP/0.9 without an end": b"<html>hello</html>",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/9.9": b"HTTP/9.9 101 Switching Protocols\r\n\r\n",
    "HTTP/1.x": b"HTTP/1.x 200 OK\r\n\r\n",
    "http/1.1": b"http/1.1 200 OK\r\n\r\n",
    "HTTP/1.1x": b"HTTP/1.1x 200 OK\r\n\r\n",
    "no status": b"HTTP/1.1\r\n\r\n",
    "two digits": b"HTTP/1.1 20 OK\r\n\r\n",
    "four digits": b"HTTP/1.1 2000 OK\r\n\r\n",
    "letters": b"HTTP/1.1 abc OK\r\n\r\n",
    "negative": b"HTTP/1.1 -10 OK\r\n\r\n",
    "status 099": b"HTTP/1.1 099 Low\r\n\r\n",
    "status 000": b"HTTP/1.1 000 None\r\n\r\n",
    "status 600": b"HTTP/1.1 600 High\r\n\r\n",
    "status 999": b"HTTP/1.1 999 High\r\n\r\n",
    "blank lines": b"\r\n" * 10,
    "NUL in the status line": b"HTTP/1.1 200 O\0K\r\n\r\n",
    "bare CR in the status line": b"HTTP/1.1 200 O\rK\r\n\r\n",
    "NUL in a header of a 101": SWITCH + b"X-Nul: a\0b\r\n\r\n",
    "bare CR in a header of a 101": SWITCH + b"X-Bare: a\rb\r\n\r\n",
    "NUL in a header": b"HTTP/1.1 403 No\r\nX-Nul: a\0b\r\nContent-Length: 0\r\n\r\n",
    "bare CR in a header": b"HTTP/1.1 403 No\r\nX-Bare: a\rb\r\nContent-Length: 0\r\n\r\n",
    "NUL in a header name": SWITCH + b"X\0Y: a\r\n\r\n",
    "control byte in a header of a 101": SWITCH + b"X-Ctl: a\x01b\r\n\r\n",
    "101 fields": SWITCH + b"".join(b"X-%d: 1\r\n" % n for n in range(98)) + b"\r\n",
    "a line of 70 KB": SWITCH + b"X-Long: " + b"x" * 70_000 + b"\r\n\r\n",
    "64 KiB and one byte": SWITCH + b"X-Long: " + b"x" * (65_536 - len(SWITCH) - 8 - 4 + 1) + b"\r\n\r\n",
    "no end of a status line": b"HTTP/1.1 101 " + b"x" * 70_000,
}  # fmt: skip


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage(server, origin, client, name):
    origin.answers(GARBAGE[name], steps.half_close, steps.drain)
    refused(server, client)


@pytest.mark.parametrize("name", [n for n in GARBAGE if GARBAGE[n].endswith(b"\r\n\r\n") or len(GARBAGE[n]) > 65_536])
def test_garbage_is_refused_without_waiting_for_an_end(server, origin, client, name):
    """A complete head, or one that is too large, is judged at once, though the connection stands."""
    origin.answers(GARBAGE[name], steps.silence)
    refused(server, client)


def test_garbage_on_a_kept_alive_connection_is_answered(server, origin, client):
    """No answer ever leaves a kept-alive client without a response (mod_proxy_http would)."""
    talk = client(server.port)
    for _ in range(3):
        origin.answers(http.page(), steps.keep)
        assert talk.ask(http.request()).status == 200
        for name in ("garbage", "NUL in a header of a 101"):
            origin.answers(GARBAGE[name], steps.close)
            server.expect_log(r"WSF\d{4}")
            assert talk.ask(http.handshake()).status == 502


def test_64_kib_and_100_fields_are_allowed(server, origin, client):
    """The bounds themselves: 97 more fields, one of them as long as a head may be with them."""
    fields = b"".join(b"X-%d: 1\r\n" % n for n in range(96))
    room = 65_536 - len(SWITCH) - len(fields) - len(b"X-Pad: \r\n\r\n")
    # mod_proxy_http allows 8 KiB a line unless responsefieldsize= says more, so several long ones.
    origin.answers(SWITCH + fields + b"X-Pad: " + b"x" * min(room, 8_000) + b"\r\n\r\n",
                   steps.websocket_echo, steps.close)  # fmt: skip
    talk = client(server.port)
    assert talk.ask(http.handshake()).status == 101
    talk.echoes()


@pytest.mark.parametrize("piece", [b"X-Endless: x\r\n", b"X-Endless: " + b"x" * 60 + b"\r\n", b"x" * 1000, b" folded\r\n", b"\r"],
                         ids=["short fields", "fields", "one line", "folds", "CR"])  # fmt: skip
def test_endless_head_is_cut_in_bounded_memory(server, origin, client, piece):
    """A back end that never ends its head: cut after 64 KiB, whatever it still wants to say."""
    origin.answers(b"HTTP/1.1 101 Switching Protocols\r\nX-First: ", steps.repeat(piece * (4096 // len(piece)), 1 << 30))
    [child] = server.children
    refused(server, client)
    before = procfs.private_kib(child)
    for _ in range(8):
        assert client(server.port).ask(http.handshake()).status == 502
    assert procfs.private_kib(child) - before < 4096
    for connection in origin.wait_connections(9):
        assert connection.closed.wait(5)
        assert connection.sent < SOCKET_BUFFERS


def test_endless_interim_answers_are_cut(server, origin, client):
    origin.answers(steps.repeat(b"HTTP/1.1 102 Processing\r\n\r\n" * 100, 1 << 30))
    server.expect_log(r"WSF\d{4}|AH00898: Too many")
    talk = client(server.port).send(http.handshake())
    answer = talk.read_head()
    while answer.status == 102:
        answer = talk.read_head()
    assert answer.status == 502
    assert origin.connections[0].closed.wait(5)
    assert origin.connections[0].sent < SOCKET_BUFFERS


# Too late.


#: What mod_proxy itself says when the TLS handshake with a back end fails.
TLS_FAILED = ["AH01084: pass request body failed", "AH00898: Error during SSL Handshake", "AH01097: pass request body failed"]


def late(server, client, path="/quick/", at_least=TIMEOUT, log=r"WSF\d{4}"):
    """504, after the deadline and soon after it."""
    begin = time.monotonic()
    talk = refused(server, client, path, 504, log)
    took = time.monotonic() - begin
    assert at_least * 0.9 <= took < at_least + SLACK
    return talk


def test_silence_is_504(server, origin, client):
    origin.answers(steps.silence)
    talk = late(server, client)
    assert origin.connections[0].closed.wait(5)
    # The client's connection lives on.
    origin.answers(http.page(b"next\n"), steps.keep)
    assert talk.ask(http.request()).body == b"next\n"


@pytest.mark.parametrize("every", [0.02, 0.2])
def test_dribbling_head_is_504(server, origin, client, every):
    """The time is for the whole head, not for each read: every byte in time is still too late."""
    origin.answers(steps.drip(SWITCH + b"X-Slow: " + b"x" * 10_000, every))
    late(server, client)


def test_dribbling_status_line_is_504(server, origin, client):
    origin.answers(steps.drip(b"HTTP/1.1 101 " + b"x" * 10_000, 0.02))
    late(server, client)


def test_head_cut_off_and_silence_is_504(server, origin, client):
    origin.answers(SWITCH, steps.silence)
    late(server, client)


def test_interim_answers_do_not_extend_the_deadline(server, origin, client):
    def drip(connection):
        for _ in range(8):
            connection.send(b"HTTP/1.1 102 Processing\r\n\r\n")
            time.sleep(TIMEOUT / 5)
        steps.silence(connection)
    origin.answers(drip)
    begin = time.monotonic()
    server.expect_log(r"WSF\d{4}")
    talk = client(server.port).send(http.handshake("/quick/"))
    answer = talk.read_head()
    while answer.status == 102:
        answer = talk.read_head()
    assert answer.status == 504
    assert time.monotonic() - begin < TIMEOUT + SLACK


def test_silent_tls_handshake_is_504(server, tls_origin, client):
    """The time runs from connect, so a back end that accepts and never says hello counts."""
    tls_origin.on_connect(steps.silence)
    for expected in TLS_FAILED:
        server.expect_log(expected)
    late(server, client, "/tls-quick/")


def test_dribbling_tls_handshake_is_504(server, tls_origin, client):
    tls_origin.on_connect(steps.drip(b"\x16\x03\x03\x40\x00" + b"\x02" * 1000, 0.05))
    for expected in TLS_FAILED:
        server.expect_log(expected)
    late(server, client, "/tls-quick/")


def test_silence_after_the_tls_handshake_is_504(server, tls_origin, client):
    tls_origin.answers(steps.silence)
    late(server, client, "/tls-quick/")


def test_default_deadline_is_the_workers_timeout(server, origin, client):
    origin.answers(steps.silence)
    late(server, client, "/worker/", at_least=1)


def test_dribble_against_the_workers_timeout(server, origin, client):
    """The default too is for the whole head."""
    origin.answers(steps.drip(SWITCH + b"X-Slow: " + b"x" * 10_000, 0.1))
    late(server, client, "/worker/", at_least=1)


def test_deadline_does_not_hold_for_plain_requests(server, origin, client):
    """WSForwardHandshakeTimeout is about handshakes: a slow page comes as ever."""
    origin.answers(lambda c: c.silent_for(TIMEOUT * 2), http.page(b"slow\n"), steps.keep)
    assert client(server.port).ask(http.request("/quick/")).body == b"slow\n"


def test_deadline_ends_with_the_head(server, origin, client):
    """Neither a slow body of a refusal nor a quiet tunnel is cut by it."""
    origin.answers(http.page(b"slow\n", "403 Forbidden")[:-5], lambda c: c.silent_for(TIMEOUT * 2), b"slow\n", steps.keep)
    talk = client(server.port)
    answer = talk.ask(http.handshake("/quick/"))
    assert (answer.status, answer.body) == (403, b"slow\n")
    origin.answers(steps.switch(), lambda c: c.silent_for(TIMEOUT * 2), steps.websocket_echo, steps.close)
    assert talk.ask(http.handshake("/quick/")).status == 101
    wait.until(lambda: origin.requests[1:], "the second handshake")
    time.sleep(TIMEOUT * 2)
    talk.echoes()


# Ends and refusals.


@pytest.mark.parametrize("how", [steps.close, steps.reset], ids=["close", "reset"])
@pytest.mark.parametrize("sent", [b"", b"H", b"HTTP/1.1 101 Swi", SWITCH, SWITCH + b"\r", SWITCH[:-1]], ids=len)
def test_end_within_the_head_is_502(server, origin, client, how, sent):
    def let_it_arrive(connection):
        # A reset would take away what is still unread; the bytes go first.
        connection.silent_for(0.05)
    origin.answers(sent, let_it_arrive, how)
    talk = refused(server, client)
    origin.answers(http.page(b"next\n"), steps.keep)
    assert talk.ask(http.request()).body == b"next\n"


@pytest.mark.parametrize("how", [steps.close, steps.reset], ids=["close", "reset"])
def test_end_right_after_accept_is_answered(server, origin, client, how):
    """Before or while the request is written: 502 or, where not a byte went out, 503."""
    origin.on_connect(how)
    server.expect_log(r"WSF\d{4}|AH\d{5}")
    talk = client(server.port)
    assert talk.ask(http.handshake()).status in (502, 503)


def test_tls_back_end_that_is_not_tls_is_answered(server, tls_origin, client):
    tls_origin.on_connect(b"HTTP/1.1 400 Bad Request\r\n\r\n", steps.close)
    server.expect_log(r"WSF\d{4}|AH\d{5}")
    assert client(server.port).ask(http.handshake("/tls-quick/")).status in (500, 502)


def test_connection_refused_is_503_and_the_workers_error_state(httpd, client):
    """As always: a balancer's member is in error for retry= seconds, and recovers after them."""
    held, server = Port(), httpd()
    port = server.vhost(f"""WSForward On
<Proxy "balancer://one">
    BalancerMember "http://127.0.0.1:{held.number}" retry=1
    ProxySet forcerecovery=Off
</Proxy>
ProxyPass "/" "balancer://one/\"""")
    server.start()
    for expected in ("AH00957", "AH00959: ap_proxy_connect_backend disabling worker", "AH01114", "AH01170"):
        server.expect_log(expected)
    assert client(port).ask(http.handshake()).status == 503
    # In error: nobody tries to connect.
    assert client(port).ask(http.handshake()).status == 503
    assert len(server.log.matching("AH00957")) == 1
    origin = Backend(port=held.number)
    try:
        wait.until(lambda: client(port).ask(http.handshake()).status == 101, "the worker recovers", 10, 0.2)
    finally:
        client.close_all()
        origin.close()
        held.release()


def test_connection_refused_without_a_balancer_is_503(httpd, client):
    """The worker of a ProxyPass ignores errors, and the next request tries again."""
    held, server = Port(), httpd()
    port = server.vhost(f'WSForward On\nProxyPass "/" "http://127.0.0.1:{held.number}/"')
    server.start()
    server.expect_log("AH00957")
    server.expect_log("AH01114")
    for _ in range(2):
        assert client(port).ask(http.handshake()).status == 503
    origin = Backend(port=held.number)
    try:
        assert client(port).ask(http.handshake()).status == 101
    finally:
        client.close_all()
        origin.close()
        held.release()


def test_no_descriptor_is_left_behind(server, origin, client):
    """After all kinds of bad ends the child has the descriptors that it had before."""
    [child] = server.children
    server.expect_log(r"WSF\d{4}")
    client(server.port).ask(http.handshake("/quick/"))
    client.close_all()

    def count():
        return len([d for d in procfs.descriptors(child) if d.startswith("socket:")])

    server.wait_idle()
    wait.until(lambda: count() <= 4, lambda: f"the child's sockets close: {procfs.descriptors(child)}")
    before = count()
    for name in ("garbage", "NUL in a header of a 101", "a line of 70 KB"):
        origin.answers(GARBAGE[name], steps.close)
        for _ in range(20):
            with client(server.port) as talk:
                assert talk.ask(http.handshake()).status == 502
    origin.answers(steps.silence)
    with client(server.port) as talk:
        assert talk.ask(http.handshake("/quick/")).status == 504
    wait.until(lambda: count() <= before, lambda: f"{before} sockets, has {count()}")
    assert os.path.exists(f"/proc/{child}")
