"""Issue section 5: garbage, endless heads, silence and early ends. Cut early, in bounded memory."""

import re
import time

import pytest

from harness import config, http, procfs, sockets, steps, wait, websocket
from harness.backend import Backend
from harness.ports import Port

SWITCH = (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
          b"Sec-WebSocket-Accept: " + websocket.ACCEPT.encode() + b"\r\n")  # fmt: skip
#: The deadline of the tests that wait for it, and the slack that a busy machine gets.
TIMEOUT, SLACK = 0.5, 1.5


@pytest.fixture(scope="module")
def origin(shared_backend):
    return shared_backend()


@pytest.fixture(scope="module")
def tls_origin(shared_backend):
    return shared_backend(tls=True)


@pytest.fixture(scope="module")
def neighbour(shared_backend):
    """A back end that behaves, whatever the others do."""
    return shared_backend()


@pytest.fixture(scope="module", params=config.MPM)
def server(request, shared_httpd, origin, tls_origin, neighbour):
    made = shared_httpd(mpm=request.param)
    made.port = made.vhost(f"""WSForward On
SSLProxyEngine on
SSLProxyVerify require
SSLProxyCACertificateFile {made.certificate.cert}
ProxyPass "/page" "{neighbour.url("http", "/page")}"
ProxyPass "/quick" "{origin.url("http", "/quick")}"
ProxyPass "/tls-quick" "{tls_origin.url("https")}"
ProxyPass "/worker" "{origin.url("http", "/worker")}" timeout=1
ProxyPass "/large" "{origin.url("http", "/large")}" responsefieldsize=65536
ProxyPass "/" "{origin.url("http")}"
<Location "/quick">
    WSForwardHandshakeTimeout {int(TIMEOUT * 1000)}ms
</Location>
<Location "/tls-quick">
    WSForwardHandshakeTimeout {int(TIMEOUT * 1000)}ms
</Location>""")
    return made.start()


def served(talk):
    """A page comes over this connection, which stays open."""
    answer = talk.ask(http.request("/page"))
    assert (answer.status, answer.body, answer.get("Connection")) == (200, b"plain\n", None)


def refused(server, client, path="/", status=502, log=None):
    """A handshake between two pages on one connection, which all are answered; the module's error line
    has the message `log` (a regex that begins with its number), mod_proxy's behind it quotes that, and a
    502 tells the client the number."""
    error = rf":error\].*{log}"
    server.expect_log(error)
    talk = client(server.port)
    served(talk)
    answer = talk.ask(http.handshake(path))
    assert answer.status == status
    # httpd's page of a 504 has no room for notes.
    assert status != 502 or log[:7].encode() in answer.body
    served(talk)
    ours, *quoted = server.log.matching(r":error\].*WSF\d{4}")
    assert re.search(rf"wsforward:error\] .* {log}".encode(), ours), ours
    if log != TLS_LATE:
        said = re.search(rb"(WSF\d{4}: .*); AH00898 repeats this, its HTTP/9.9 is not from the back end", ours)[1]
        [line] = quoted
        assert re.search(rb"proxy:error\] .*AH00898: Corrupt status line .*: HTTP/9.9 502 " + re.escape(said), line), line
    else:
        assert not quoted
    return talk


NOT_HTTP = "WSF0102: the answer does not begin with an HTTP/1.x status line"
NUL = "WSF0102: the response head contains a NUL byte"
BARE_CR = "WSF0102: the response head contains a CR without LF"
TOO_LONG = "WSF0102: the response head is longer than 65536 bytes"
TOO_MANY = "WSF0102: the response head has more than 100 header lines"


def of_status(code):
    return f"WSF0102: the response status is {code}, expected 100 to 599"


def lines(count):
    """So many header lines."""
    return b"".join(b"X-%d: 1\r\n" % n for n in range(count))


def of_size(size, lead):
    """A head of exactly so many bytes, beginning with `lead`, in lines that mod_proxy_http takes."""
    head = lead
    while (left := size - len(head) - len(b"\r\n")) > 0:
        # A line of at most 8000 bytes, and never a rest that is too short for another.
        line = left if left <= 8000 else min(8000, left - 100)
        head += b"X-Pad: " + b"x" * (line - len(b"X-Pad: \r\n")) + b"\r\n"
    return head + b"\r\n"


#: What the back end sends, and what the log says of it.
GARBAGE = {
    "garbage": (b"\x16\x03\x01garbage\r\n\r\n", NOT_HTTP),
    "a TLS alert": (b"\x15\x03\x03\x00\x02\x02\x28", NOT_HTTP),
    "an SSH banner": (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", NOT_HTTP),
    "HTTP/0.9": (b"<html>hello</html>\r\n\r\n", NOT_HTTP),
    "HTTP/0.9 without an end": (b"<html>hello</html>", NOT_HTTP),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", NOT_HTTP),
    "HTTP/2.0": (b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n", NOT_HTTP),
    "HTTP/9.9": (b"HTTP/9.9 101 Switching Protocols\r\n\r\n", NOT_HTTP),
    "HTTP/1.x": (b"HTTP/1.x 200 OK\r\n\r\n", NOT_HTTP),
    "http/1.1": (b"http/1.1 200 OK\r\n\r\n", NOT_HTTP),
    "HTTP/1.1x": (b"HTTP/1.1x 200 OK\r\n\r\n", NOT_HTTP),
    "no status": (b"HTTP/1.1\r\n\r\n", NOT_HTTP),
    "two digits": (b"HTTP/1.1 20 OK\r\n\r\n", NOT_HTTP),
    "four digits": (b"HTTP/1.1 2000 OK\r\n\r\n", NOT_HTTP),
    "letters": (b"HTTP/1.1 abc OK\r\n\r\n", NOT_HTTP),
    "negative": (b"HTTP/1.1 -10 OK\r\n\r\n", NOT_HTTP),
    "status 099": (b"HTTP/1.1 099 Low\r\n\r\n", of_status("099")),
    "status 000": (b"HTTP/1.1 000 None\r\n\r\n", of_status("000")),
    "status 600": (b"HTTP/1.1 600 High\r\n\r\n", of_status("600")),
    "status 999": (b"HTTP/1.1 999 High\r\n\r\n", of_status("999")),
    "blank lines": (b"\r\n" * 10, NOT_HTTP),
    "NUL in the status line": (b"HTTP/1.1 200 O\0K\r\n\r\n", NUL),
    "bare CR in the status line": (b"HTTP/1.1 200 O\rK\r\n\r\n", BARE_CR),
    "NUL in a header of a 101": (SWITCH + b"X-Nul: a\0b\r\n\r\n", NUL),
    "bare CR in a header of a 101": (SWITCH + b"X-Bare: a\rb\r\n\r\n", BARE_CR),
    "NUL in a header": (b"HTTP/1.1 403 No\r\nX-Nul: a\0b\r\nContent-Length: 0\r\n\r\n", NUL),
    "bare CR in a header": (b"HTTP/1.1 403 No\r\nX-Bare: a\rb\r\nContent-Length: 0\r\n\r\n", BARE_CR),
    "NUL in a header name": (SWITCH + b"X\0Y: a\r\n\r\n", NUL),
    "control byte in a header of a 101": (SWITCH + b"X-Ctl: a\x01b\r\n\r\n",
                                          "WSF0103: wrong 101: its header fields are malformed"),
    "101 fields of a 101": (SWITCH + lines(98) + b"\r\n", TOO_MANY),
    "101 fields of a refusal": (b"HTTP/1.1 403 No\r\n" + lines(100) + b"Content-Length: 0\r\n\r\n", TOO_MANY),
    "a line of 70 KB": (SWITCH + b"X-Long: " + b"x" * 70_000 + b"\r\n\r\n", TOO_LONG),
    "64 KiB and one byte": (of_size(65_537, SWITCH), TOO_LONG),
    "64 KiB and one byte of a refusal": (of_size(65_537, b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n"), TOO_LONG),
    "no end of a status line": (b"HTTP/1.1 101 " + b"x" * 70_000, NOT_HTTP),
}  # fmt: skip


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage(server, origin, client, name):
    answer, log = GARBAGE[name]
    origin.answers(answer, steps.half_close, steps.drain)
    refused(server, client, log=log)


@pytest.mark.parametrize("name", [n for n, (answer, _) in GARBAGE.items()
                                  if answer.endswith(b"\r\n\r\n") or len(answer) > 65_536])  # fmt: skip
def test_garbage_is_refused_without_waiting_for_an_end(server, origin, client, name):
    """A complete head, or one that is too large, is judged at once, though the connection stands."""
    answer, log = GARBAGE[name]
    origin.answers(answer, steps.silence)
    refused(server, client, log=log)


def test_garbage_on_a_kept_alive_connection_is_answered(server, origin, client):
    """No answer ever leaves a kept-alive client without a response (mod_proxy_http would)."""
    talk = client(server.port)
    for _ in range(3):
        origin.answers(http.page(), steps.keep)
        assert talk.ask(http.request()).status == 200
        for name in ("garbage", "NUL in a header of a 101"):
            answer, log = GARBAGE[name]
            origin.answers(answer, steps.close)
            server.expect_log(log)
            assert talk.ask(http.handshake()).status == 502


LIMITS = {
    "100 fields": SWITCH + lines(97) + b"\r\n",
    "64 KiB": of_size(65_536, SWITCH),
    "64 KiB but one byte": of_size(65_535, SWITCH),
    "64 KiB and 100 fields": of_size(65_536, SWITCH + lines(88)),
}


def test_the_limits_are_met_exactly():
    """What the tests below send is what they say."""
    for name, size, fields in (("100 fields", None, 100), ("64 KiB", 65_536, None), ("64 KiB but one byte", 65_535, None),
                               ("64 KiB and 100 fields", 65_536, 100)):  # fmt: skip
        assert size in (None, len(LIMITS[name]))
        assert fields in (None, LIMITS[name].count(b"\r\n") - 2)
    assert len(GARBAGE["64 KiB and one byte"][0]) == len(GARBAGE["64 KiB and one byte of a refusal"][0]) == 65_537
    for name in ("101 fields of a 101", "101 fields of a refusal"):
        assert GARBAGE[name][0].count(b"\r\n") - 2 == 101


@pytest.mark.parametrize("name", LIMITS)
def test_heads_at_the_limits_pass(server, origin, client, name):
    origin.answers(LIMITS[name], steps.websocket_echo, steps.close)
    talk = client(server.port)
    answer = talk.ask(http.handshake())
    assert answer.status == 101
    sent = http.Message(LIMITS[name]).fields
    # Neither a field nor a byte of one is lost on the way.
    assert [f for f in answer.fields if f[0].startswith("X-")] == [f for f in sent if f[0].startswith("X-")]
    talk.echoes()


def test_one_line_of_almost_64_kib_passes_where_mod_proxy_http_allows_it(server, origin, client):
    """The limit is for the head, not for a line; that one is responsefieldsize= of the worker."""
    pad = b"x" * (65_536 - len(SWITCH) - len(b"X-Pad: \r\n\r\n"))
    origin.answers(SWITCH + b"X-Pad: " + pad + b"\r\n\r\n", steps.websocket_echo, steps.close)
    talk = client(server.port)
    answer = talk.ask(http.handshake("/large"))
    assert (answer.status, answer.get("X-Pad")) == (101, pad.decode())
    talk.echoes()


@pytest.mark.parametrize("piece", [b"X-Endless: x\r\n", b"X-Endless: " + b"x" * 60 + b"\r\n", b"x" * 1000, b" folded\r\n", b"\r"],
                         ids=["short fields", "fields", "one line", "folds", "CR"])  # fmt: skip
def test_endless_head_is_cut_in_bounded_memory(server, origin, client, piece):
    """A back end that never ends its head: cut after 64 KiB, whatever it still wants to say."""
    origin.answers(b"HTTP/1.1 101 Switching Protocols\r\nX-First: ", steps.repeat(piece * (4096 // len(piece)), 1 << 30))
    talk = refused(server, client, log=TOO_LONG)
    child = server.serving(talk)
    before = procfs.private_kib(child)
    for _ in range(8):
        assert talk.ask(http.handshake()).status == 502
    assert procfs.private_kib(child) - before < 4096
    for connection in origin.wait_connections(9):
        connection.wait_closed()
        assert connection.sent < sockets.BUFFERS


def test_endless_interim_answers_are_cut(server, origin, client):
    origin.answers(steps.repeat(b"HTTP/1.1 102 Processing\r\n\r\n" * 100, 1 << 30))
    server.expect_log(r"proxy:error\].*AH00898: Too many \(10\) interim responses")
    talk = client(server.port)
    served(talk)
    talk.send(http.handshake())
    heads = [talk.read_head() for _ in range(11)]
    assert [head.status for head in heads] == [102] * 10 + [502]
    talk.read_exactly(int(heads[-1].get("Content-Length")))
    served(talk)
    origin.connections[0].wait_closed()
    assert origin.connections[0].sent < sockets.BUFFERS


# Too late.


#: What mod_proxy itself says when the TLS handshake with a back end fails.
TLS_LATE = "WSF0107: the back end's TLS handshake took longer than 500ms"
TLS_FAILED = ["AH01084: pass request body failed", "AH00898: Error during SSL Handshake", "AH01097: pass request body failed"]


def late(server, client, path="/quick/", at_least=TIMEOUT, log=r"WSF0105: no complete response head within \S+ \(\d+ bytes of it came\)"):
    """504, after the deadline and soon after it."""
    begin = time.monotonic()
    talk = refused(server, client, path, 504, log)
    took = time.monotonic() - begin
    assert at_least * 0.9 <= took < at_least + wait.scaled(SLACK)
    return talk


def test_silence_is_504(server, origin, client):
    origin.answers(steps.silence)
    talk = late(server, client)
    origin.connections[0].wait_closed()
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
            connection.silent_for(TIMEOUT / 5)
        steps.silence(connection)
    origin.answers(drip)
    begin = time.monotonic()
    server.expect_log(r"proxy:error\].*WSF0105: no complete response head within 500ms")
    talk = client(server.port).send(http.handshake("/quick/"))
    answer = talk.read_head()
    while answer.status == 102:
        answer = talk.read_head()
    assert answer.status == 504
    assert time.monotonic() - begin < TIMEOUT + wait.scaled(SLACK)


def test_silent_tls_handshake_is_504(server, tls_origin, client):
    """The time runs from connect, so a back end that accepts and never says hello counts."""
    tls_origin.on_connect(steps.silence)
    for expected in TLS_FAILED:
        server.expect_log(expected)
    late(server, client, "/tls-quick/", log=TLS_LATE)


def test_dribbling_tls_handshake_is_504(server, tls_origin, client):
    tls_origin.on_connect(steps.drip(b"\x16\x03\x03\x40\x00" + b"\x02" * 1000, 0.05))
    for expected in TLS_FAILED:
        server.expect_log(expected)
    late(server, client, "/tls-quick/", log=TLS_LATE)


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
    assert talk.silent_for(TIMEOUT * 2)
    talk.echoes()


# Ends and refusals.


ENDS = {"close": (steps.close, "the back end closed the connection"), "reset": (steps.reset, "Connection reset by peer")}


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("sent", [b"", b"H", b"HTTP/1.1 101 Swi", SWITCH, SWITCH + b"\r", SWITCH[:-1]], ids=len)
def test_end_within_the_head_is_502(server, origin, client, how, sent):
    """With the number of bytes in the log, of which a reset must not take any away."""
    end, said = ENDS[how]
    origin.answers(sent, steps.until_read, end)
    talk = refused(server, client, log=rf"WSF0104: {said} after {len(sent)} bytes of a response head")
    origin.answers(http.page(b"next\n"), steps.keep)
    assert talk.ask(http.request()).body == b"next\n"


def answered(server, client, path):
    """What a handshake between two pages gets. httpd itself closes a connection after a 500 or 503,
    and says so; after anything else it stays open."""
    talk = client(server.port)
    served(talk)
    answer = talk.ask(http.handshake(path))
    if answer.status in (500, 503):
        assert answer.get("Connection") == "close"
        assert talk.end() == "eof"
    else:
        served(talk)
    return answer.status


@pytest.mark.parametrize("how", ENDS)
def test_end_right_after_accept_is_answered(server, origin, client, how):
    """502, or 503 where the end was quicker than connect, so that not a byte went out."""
    origin.on_connect(ENDS[how][0])
    server.expect_log(r"proxy:error\].*(WSF0104: .* after 0 bytes|AH00957: )")
    server.expect_log(r"proxy_http:error\].*AH01114: ", certain=False)
    status = answered(server, client, "/")
    early = server.log.matching(r"AH00957: .* attempt to connect to \S+ \(\S+\) failed")
    assert status == (503 if early else 502)


@pytest.mark.parametrize("first", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n", b""],
                         ids=["HTTP", "SSH", "nothing"])  # fmt: skip
def test_tls_back_end_that_is_not_tls_is_500(server, tls_origin, client, first):
    """The TLS handshake is mod_proxy's and mod_ssl's: status and lines are those of stock httpd. As 500
    means to a balancer that its member is broken, which this one is."""
    tls_origin.on_connect(first, steps.until_read, steps.close)
    for expected in TLS_FAILED:
        server.expect_log(rf":error\].*{expected}")
    assert answered(server, client, "/tls-quick/") == 500
    assert not server.log.matching(r":error\].*WSF")


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
    talk = client(server.port)
    served(talk)
    child = server.serving(talk)

    def count():
        return len([d for d in procfs.descriptors(child) if d.startswith("socket:")])

    server.expect_log("WSF0102")
    server.expect_log("WSF0105")
    for turn in range(2):
        for name in ("garbage", "NUL in a header of a 101", "a line of 70 KB"):
            origin.answers(GARBAGE[name][0], steps.close)
            for _ in range(20):
                assert talk.ask(http.handshake()).status == 502
        origin.answers(steps.silence)
        assert talk.ask(http.handshake("/quick/")).status == 504
        if turn == 0:
            before = count()
    assert count() <= before
