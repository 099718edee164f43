"""Issue section 5: any other answer than 101 reaches the client as stock `upgrade=websocket` delivers it.

One test, run over all scripts: stock httpd and httpd with the module get the same request from the
same client and the same answer from the same back end. Heads are compared byte for byte except
Date, bodies after their framing (whose chunk sizes depend on how TCP cut the stream) was checked.
"""

import os
import re
from dataclasses import dataclass, field

import pytest

from harness import config, http, procfs, steps

BODY = b"refused, and here is why\n"
MEGABYTES = bytes(range(256)) * 4096 * 5


def answer(status, *lines, body=BODY, version="HTTP/1.1", length=True):
    """A response; `lines` as they are, Content-Length unless told otherwise."""
    head = [f"{version} {status}", *lines]
    if length:
        head.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*head, "", ""]).encode("latin-1") + body


def chunked(*chunks, trailer=b"", status="200 OK", lines=()):
    """A chunked response."""
    head = answer(status, *lines, "Transfer-Encoding: chunked", body=b"", length=False)
    return head + b"".join(b"%x\r\n%s\r\n" % (len(c), c) for c in chunks) + b"0\r\n" + trailer + b"\r\n"


@dataclass(frozen=True)
class Script:
    """What the back end answers, and what httpd may log about it on both sides."""

    steps: tuple
    vhost: str = "plain"
    logs: tuple = field(default=())


def keep(*data, **kwargs):
    return Script((*data, steps.keep), **kwargs)


def close(*data, **kwargs):
    return Script((*data, steps.close), **kwargs)


INTERIM_100 = b"HTTP/1.1 100 Continue\r\n\r\n"
INTERIM_103 = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n"
BACK = "http://{origin}"

SAME = {
    # Statuses.
    "200": keep(answer("200 OK")),
    "201": keep(answer("201 Created", "Location: /made")),
    "299": keep(answer("299 Whatever")),
    "400": keep(answer("400 Bad Request")),
    "401": keep(answer("401 Unauthorized", 'WWW-Authenticate: Basic realm="r"', "WWW-Authenticate: Bearer")),
    "403": keep(answer("403 Forbidden", "Content-Type: text/plain")),
    "404": keep(answer("404 Not Found")),
    "407": keep(answer("407 Proxy Authentication Required", 'Proxy-Authenticate: Basic realm="p"')),
    "418": keep(answer("418 I'm a teapot")),
    "426": keep(answer("426 Upgrade Required", "Upgrade: websocket", "Connection: Upgrade",
                       "Sec-WebSocket-Version: 13")),
    "429": keep(answer("429 Too Many Requests", "Retry-After: 5")),
    "500": keep(answer("500 Internal Server Error")),
    "502": keep(answer("502 Bad Gateway")),
    "503": keep(answer("503 Service Unavailable", "Retry-After: 7")),
    "504": keep(answer("504 Gateway Timeout")),
    "599": keep(answer("599 Odd")),
    "reason phrase of the back end": keep(answer("403 Not You")),
    "empty reason phrase": keep(answer("200 ")),
    "no reason phrase": keep(answer("403")),
    # Headers.
    "several Set-Cookie": keep(answer("401 Unauthorized", "Set-Cookie: a=1", "Set-Cookie: b=2; HttpOnly",
                                      "set-cookie: c=3")),
    "cookie domain and path are mapped": keep(answer("403 Forbidden", "Set-Cookie: a=1; Domain=origin.test; Path=/inside",
                                                     "Set-Cookie: b=2; path=/inside/x")),
    "Location through ProxyPassReverse": keep(answer("302 Found", f"Location: {BACK}/login?next=1")),
    "Location elsewhere": keep(answer("301 Moved Permanently", "Location: https://elsewhere.test/x")),
    "relative Location": keep(answer("307 Temporary Redirect", "Location: /login")),
    "Content-Location and URI": keep(answer("200 OK", f"Content-Location: {BACK}/a", f"URI: {BACK}/b")),
    "hop-by-hop headers": keep(answer("403 Forbidden", "Connection: X-Hop", "X-Hop: 1", "Keep-Alive: timeout=1",
                                      "X-End: 2", "Proxy-Connection: keep-alive")),
    "Server and Date of the back end": keep(answer("403 Forbidden", "Server: origin/1",
                                                   "Date: Thu, 01 Jan 1970 00:00:00 GMT")),
    "header order and case": keep(answer("403 Forbidden", "x-b: 1", "X-A: 2", "x-B: 3")),
    "empty header": keep(answer("403 Forbidden", "X-Empty:", "X-Blank:   ")),
    "bytes above ASCII": keep(answer("403 Forbidden", "X-Text: gr\xfc\xdfe")),
    "folded header": keep(answer("403 Forbidden", "X-Folded: a", "  b", "X-After: c")),
    "header of 7 KB": keep(answer("403 Forbidden", "X-Long: " + "x" * 7000)),
    "header of 12 KB": keep(answer("403 Forbidden", "X-Long: " + "x" * 12000), logs=["AH10124", "AH01106"]),
    "100 fields": keep(answer("403 Forbidden", *[f"X-{n}: {n}" for n in range(99)])),
    "head of bare LF": keep(answer("403 Forbidden", "X-A: 1", length=False, body=b"").replace(b"\r\n", b"\n")[:-1]
                            + b"Content-Length: 2\n\nok"),
    "Upgrade header in a refusal": keep(answer("403 Forbidden", "Upgrade: h2c", "Connection: Upgrade")),
    "Sec-WebSocket-Accept in a refusal": keep(answer("403 Forbidden", "Sec-WebSocket-Accept: x")),
    # Interim answers.
    "100": keep(INTERIM_100 + answer("403 Forbidden")),
    "103": keep(INTERIM_103 + answer("403 Forbidden")),
    "100 and 103 apart": keep(INTERIM_100, steps.until_read, INTERIM_103, answer("403 Forbidden")),
    # Framing.
    "empty body": keep(answer("200 OK", body=b"")),
    "204": keep(answer("204 No Content", body=b"", length=False)),
    "304": keep(answer("304 Not Modified", 'ETag: "x"', body=b"", length=False)),
    "304 with Content-Length": keep(answer("304 Not Modified", "Content-Length: 25", body=b"", length=False)),
    "chunked": keep(chunked(BODY, b"x", BODY * 3)),
    "chunked and empty": keep(chunked()),
    "chunked with trailer": keep(chunked(BODY, trailer=b"X-Trailer: 1\r\n")),
    "chunked refusal": keep(chunked(BODY, status="401 Unauthorized", lines=["WWW-Authenticate: Bearer"])),
    "until close": close(answer("200 OK", length=False)),
    "until close, said so": close(answer("200 OK", "Connection: close", length=False)),
    "Content-Length and close": close(answer("403 Forbidden", "Connection: close")),
    "HTTP/1.0 until close": close(answer("403 Forbidden", version="HTTP/1.0", length=False)),
    "HTTP/1.0 with Content-Length": close(answer("403 Forbidden", version="HTTP/1.0")),
    "HTTP/1.0 keep-alive": keep(answer("403 Forbidden", "Connection: keep-alive", version="HTTP/1.0")),
    "head and body apart": keep(answer("403 Forbidden", body=b"", length=False)[:-2] + b"Content-Length: 25\r\n\r\n",
                                steps.until_read, BODY),
    "head byte by byte": keep(steps.drip(answer("403 Forbidden"), 0.0005)),
    "5 MB by Content-Length": keep(answer("200 OK", body=MEGABYTES)),
    "5 MB chunked": keep(chunked(*[MEGABYTES[n : n + 50_000] for n in range(0, len(MEGABYTES), 50_000)])),
    "5 MB until close": close(answer("200 OK", body=MEGABYTES, length=False)),
    # Framing that lies.
    "cut within Content-Length": close(answer("200 OK", "Content-Length: 100", length=False), logs=["AH01102|AH01110|AH02609"]),
    "cut within a chunk": close(chunked(BODY)[:-20], logs=["AH01102|AH01110|AH02609"]),
    "cut within a chunk size": close(chunked(BODY)[: -len(b"0\r\n\r\n")], logs=["AH01102|AH01110|AH02609"]),
    "Content-Length twice, the same": keep(answer("200 OK", "Content-Length: 25")),
    "Content-Length twice, different": close(answer("200 OK", "Content-Length: 7")),
    "bad Content-Length": close(answer("200 OK", "Content-Length: x", length=False), logs=["AH0"]),
    "Content-Length and chunked": close(answer("200 OK", "Transfer-Encoding: chunked", body=b"3\r\nabc\r\n0\r\n\r\n")),
    "unknown Transfer-Encoding": close(answer("200 OK", "Transfer-Encoding: odd", length=False)),
    # ProxyErrorOverride.
    "override 401": keep(answer("401 Unauthorized", "WWW-Authenticate: Bearer", "Set-Cookie: a=1"), vhost="override"),
    "override 403": keep(answer("403 Forbidden"), vhost="override"),
    "override 404": keep(answer("404 Not Found", "X-Lost: 1"), vhost="override"),
    "override 502": keep(answer("502 Bad Gateway"), vhost="override"),
    "override leaves 200": keep(answer("200 OK"), vhost="override"),
    "override leaves 302": keep(answer("302 Found", f"Location: {BACK}/x"), vhost="override"),
    # Other directives.
    "Header directives": keep(answer("403 Forbidden", "X-Drop: 1"), vhost="headers"),
}  # fmt: skip

#: What the module refuses with 502 and stock does not (the list is in the docs), with what stock logs
#: about it, and what the module says.
DEVIATIONS = {
    "more than 100 fields": (close(answer("403 Forbidden", *[f"X-{n}: {n}" for n in range(100)])),
                             "the response head has more than 100 header lines"),
    "head over 64 KiB": (close(answer("403 Forbidden", *[f"X-{n}: {'x' * 7000}" for n in range(12)])),
                         "the response head is longer than 65536 bytes"),
    "bare CR in a header": (close(answer("403 Forbidden", "X-Bare: a\rb"), logs=["AH02430"]),
                            "the response head contains a CR without LF"),
    "status 600": (close(answer("600 Too High")), "the response status is 600, expected 100 to 599"),
    "status 999": (close(answer("999 Too High")), "the response status is 999, expected 100 to 599"),
    "HTTP/0.9": (close(BODY), "the answer does not begin with an HTTP/1.x status line"),
}  # fmt: skip

COMMON = """ProxyPassReverse "/" "{url}"
ProxyPassReverseCookieDomain "origin.test" "site.test"
ProxyPassReverseCookiePath "/inside" "/outside"
"""
VHOSTS = {
    "plain": COMMON,
    "override": COMMON + "ProxyErrorOverride On\nErrorDocument 403 'own page'\nErrorDocument 404 /own/404.txt\n",
    "headers": COMMON + "Header set X-Ours 1\nHeader always set X-Always 2\nHeader unset X-Drop\n",
}
SECOND = http.request("/second", fields=[("Connection", "close")])


@pytest.fixture(scope="module")
def origin(shared_backend):
    return shared_backend()


@pytest.fixture(scope="module", params=config.MPM)
def mpm(request):
    return request.param


@pytest.fixture(scope="module")
def stock(shared_httpd, origin, mpm):
    """httpd without the module."""
    return _server(shared_httpd(module=None, mpm=mpm), origin, "", "upgrade=websocket")


@pytest.fixture(scope="module")
def ours(shared_httpd, origin, mpm):
    """httpd with it; the rest of the configuration is the same."""
    return _server(shared_httpd(mpm=mpm), origin, "WSForward On\n", "")


def _server(server, origin, before, parameter):
    # The same time of change on both sides, for Last-Modified and ETag.
    os.utime(server.page("own/404.txt", "own 404\n"), (0, 0))
    url = origin.url("http")
    server.ports = {}
    for name, text in VHOSTS.items():
        proxied = f'ProxyPass "/own" "!"\nProxyPass "/" "{url}" {parameter}\n'
        server.ports[name] = server.vhost(before + proxied + text.format(url=url))
    return server.start()


@dataclass(frozen=True)
class Heard:
    """What a client got: heads as they came but for Date, bodies without their framing, the end."""

    heads: tuple
    bodies: tuple
    end: str


def converse(server, script, origin, client, connection="Upgrade", logs=None):
    """Sends a handshake, then a plain request on the same connection if it still stands."""
    fill = origin.authority.encode()
    origin.answers_in_turn([step.replace(b"{origin}", fill) if isinstance(step, bytes) else step
                            for step in script.steps], steps.WEBSOCKET_OR_PAGE)  # fmt: skip
    for pattern in script.logs if logs is None else logs:
        server.expect_log(pattern)
    heads, bodies, end = [], [], "answered"
    with client(server.ports[script.vhost]) as talk:
        try:
            for request in (http.handshake("/x", connection=connection), SECOND):
                talk.send(request)
                first = len(heads)
                answered = talk.read_head()
                heads.append(answered.head)
                while answered.status in (100, 103):
                    answered = talk.read_head()
                    heads.append(answered.head)
                bodies.append(_body(talk, answered))
                if script.steps[-1] is steps.close and len(bodies) == 1:
                    # Stock pools some of these connections: it must see the end before it takes one.
                    origin.connections[-1].wait_closed()
                assert len(heads) > first
            end = talk.end()
        except (EOFError, ConnectionError) as error:
            end = f"{type(error).__name__} after {len(heads)} heads"
    return Heard(tuple(_undated(head) for head in heads), tuple(bodies), end)


def _body(talk, answered):
    talk._buffered = answered.head + talk._buffered
    return talk.read_response().body


def _undated(head):
    return re.sub(rb"(?m)^(Date|Expires): \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT\r$", rb"\1: -\r", head)


@pytest.mark.parametrize("name", SAME)
def test_same_as_stock(stock, ours, origin, client, name):
    expected = converse(stock, SAME[name], origin, client)
    asked = [request.head for request in origin.requests]
    origin.requests.clear()
    assert converse(ours, SAME[name], origin, client) == expected
    assert [request.head for request in origin.requests] == asked


@pytest.mark.parametrize("connection", ["keep-alive, Upgrade", "Upgrade, Keep-Alive", "close, Upgrade"])
@pytest.mark.parametrize("name", ["200", "403", "chunked", "until close", "HTTP/1.0 until close", "204", "override 404"])
def test_same_as_stock_whatever_else_the_client_says_in_connection(stock, ours, origin, client, name, connection):
    """A client that asks for keep-alive is told that it got it, one that asks for close gets it."""
    expected = converse(stock, SAME[name], origin, client, connection)
    origin.requests.clear()
    assert converse(ours, SAME[name], origin, client, connection) == expected


@pytest.mark.parametrize("name", DEVIATIONS)
def test_deviation_from_stock(stock, ours, origin, client, name):
    """The list stays honest: each of them is 502 here, and something else there."""
    script, why = DEVIATIONS[name]
    expected = converse(stock, script, origin, client)
    origin.requests.clear()
    heard = converse(ours, script, origin, client, logs=[rf"proxy:error\].*WSF0102: {re.escape(why)}"])
    assert heard.heads[0].startswith(b"HTTP/1.1 502 ")
    assert not expected.heads[0].startswith(b"HTTP/1.1 502 ")
    # What follows on the connection is served all the same.
    assert (heard.heads[1].split(b"\r\n")[0], heard.bodies[1], heard.end) == (b"HTTP/1.1 200 OK", b"plain\n", "eof")


@pytest.mark.slow
def test_large_refusal_is_streamed_in_bounded_memory(ours, origin, client):
    """200 MB behind a 403: neither httpd's nor our memory may grow with it."""
    size = 200 << 20
    head = f"HTTP/1.1 403 Forbidden\r\nContent-Length: {size}\r\n\r\n".encode()
    origin.answers(head, steps.repeat(b"x" * (1 << 16), size), steps.keep)
    talk = client(ours.ports["plain"])
    answered = talk.send(http.handshake()).read_head()
    assert answered.status == 403
    child = ours.serving(talk)
    talk.seen = _Uncounted()
    before, most, left = procfs.private_kib(child), 0, size
    while left:
        data = talk.recv(1 << 20)
        assert data
        left -= len(data)
        if left % (10 << 20) < len(data):
            most = max(most, procfs.private_kib(child))
    assert most - before < 8 * 1024
    assert talk.ask(http.request()).status == 403


class _Uncounted(bytearray):
    def __iadd__(self, _data):
        return self


@pytest.mark.parametrize("which", ["stock", "ours"])
def test_include_in_an_answer_is_a_request_of_its_own(httpd, backend, client, which):
    """The page that answers a handshake includes another one (SSI), whose head has more lines than one that
    answers a handshake may have."""
    page, part = backend(), backend(name="part")
    server = httpd(mpm="event", extra=["include"], **({"module": None} if which == "stock" else {}))
    on, off = ("", "") if which == "stock" else ("WSForward On", '<Location "/part">\nWSForward Off\n</Location>')
    port = server.vhost(f"""{on}
{off}
ProxyPass "/part" "{part.url("http", "/part")}"
ProxyPass "/" "{page.url("http")}" upgrade=websocket
<Location "/page">
    Options +Includes
    SetOutputFilter INCLUDES
</Location>""")
    server.start()
    text = b'before <!--#include virtual="/part" --> after\n'
    page.answers(http.page(text, "200 OK", [("Content-Type", "text/html")]), steps.keep)
    part.answers(http.page(b"included", "200 OK", [(f"X-{number}", "y") for number in range(120)]), steps.keep)
    talk = client(port)
    for _ in range(2):
        assert talk.ask(http.handshake("/page")).body == b"before included after\n"
