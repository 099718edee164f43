"""Never worse than stock httpd: the same requests through stock httpd and through httpd with the module,
same configuration but for `WSForward On`. Back end and client must see the same. Where they do not,
DEVIATIONS says why and how to get stock's behaviour back, and so does the reference."""

import re
from dataclasses import dataclass

import pytest

from harness import http, paths, steps, websocket

#: Scheme and parameters of ProxyPass.
WORKERS = {
    "http": ("http", ""),
    "http websocket": ("http", "upgrade=websocket"),
    "http tcp": ("http", "upgrade=tcp"),
    "http any": ("http", "upgrade=any"),
    "http *": ("http", "upgrade=*"),
    "http 1.0": ("http", "upgrade=any\nSetEnv force-proxy-request-1.0 1"),
    "ws": ("ws", ""),
    "ws tcp": ("ws", "upgrade=tcp"),
    "ws any": ("ws", "upgrade=any"),
}
#: Those by which stock httpd upgrades to WebSocket, and those by which it lets everything pass.
WEBSOCKET = {"http websocket", "http any", "http *", "ws", "ws any"}
ANY = {"http any", "http *", "ws any"}
EACH = set(WORKERS)

#: Who may not have /closed gets /error of the back end.
DENIED = """
ErrorDocument 403 /error
<Location "/closed">
    Require all denied
</Location>"""

BODY = b"a body"
LENGTH = {"fields": [("Content-Length", len(BODY))], "body": BODY}
CHUNKS = {"fields": [("Transfer-Encoding", "chunked")], "body": b"6\r\na body\r\n0\r\n\r\n"}
RAW = b"\0raw bytes, no frames\xff"
SECOND = http.request("/second", fields=[("Connection", "close")])


@dataclass(frozen=True)
class Case:
    """What a client sends, one request after the other, and what the back end answers to each. Compared
    for these workers; which requests shared a back end's connection, if `connections`."""

    requests: tuple
    scripts: tuple = ()
    workers: frozenset = frozenset(EACH)
    #: The client ends its sending behind its request.
    half_close: bool = False
    connections: bool = False


def asks(*requests, **kwargs):
    return Case(requests, **kwargs)


def answered(*data, fields=(), without=(), workers=WEBSOCKET, **kwargs):
    """A handshake, and the back end's answer."""
    return Case((http.handshake(fields=fields, without=without),), ((*data,),), frozenset(workers), **kwargs)


def head(start="HTTP/1.1 101 Switching Protocols", line_end="\r\n", **fields):
    """A right 101 with changed fields; None leaves one out."""
    right = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec_WebSocket_Accept": websocket.ACCEPT}
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in (right | fields).items() if value is not None]
    return line_end.join([start, *lines, "", ""]).encode()


# The back end's steps. What it saw is in `connection.backend.seen`.


def note(connection):
    """Reads the body of the request, and remembers both."""
    connection.received = b""
    steps.body(connection)
    connection.seen = {"number": connection.number, "head": connection.request.head,
                       "body": connection.received, "tunnel": b""}  # fmt: skip
    connection.backend.seen.append(connection.seen)


def tunnel(connection):
    """Sends every byte back."""
    while data := connection.recv():
        connection.seen["tunnel"] += data
        connection.send(data)
    connection.close()


def agree(connection):
    """Switches to the first protocol that it is asked for; anything else is a page."""
    offered = connection.request.all("Upgrade")
    if not offered:
        page = http.page(connection.seen["body"] or b"plain\n")
        connection.send(page if connection.request.method != "HEAD" else page[: page.index(b"\r\n\r\n") + 4])
        return
    chosen = next((token.strip() for token in offered[0].split(",") if token.strip()), "nothing")
    steps.switch(upgrade=chosen)(connection)
    tunnel(connection)


def refuse(status, *fields):
    """A refusal that keeps the connection."""
    return http.page(b"no\n", status, fields)


GET = http.handshake
CASES = {
    # Plain requests.
    "page": asks(http.request()),
    "two pages": asks(http.request(), http.request("/2")),
    "post": asks(http.request(method="POST", **LENGTH)),
    "chunked post": asks(http.request(method="POST", **CHUNKS)),
    "page of HTTP/1.0": asks(http.request(version="HTTP/1.0")),
    # Handshakes.
    "handshake": asks(GET()),
    "handshake in capitals": asks(GET(upgrade="WEBSOCKET", connection="UPGRADE")),
    "keep-alive too": asks(GET(connection="keep-alive, Upgrade")),
    "Content-Length 0": asks(GET(fields=[("Content-Length", "0")])),
    "cookies and origin": asks(GET(fields=[("Cookie", "a=1"), ("Origin", "http://site.test"), ("X-Custom", "1"),
                                           ("Keep-Alive", "timeout=5"), ("TE", "trailers")])),
    "named in Connection": asks(GET(connection="Upgrade, X-Custom", fields=[("X-Custom", "1")])),
    "key named in Connection": asks(GET(connection="Upgrade, Sec-WebSocket-Key")),
    "no key": asks(GET(without=["Sec-WebSocket-Key"])),
    "no version": asks(GET(without=["Sec-WebSocket-Version"])),
    "version 99": asks(GET(fields=[("Sec-WebSocket-Version", "99")])),
    "odd key": asks(GET(fields=[("Sec-WebSocket-Key", "x")])),
    "no offer but its field": asks(GET(fields=[("Sec-WebSocket-Protocol", "")])),
    "handshake behind a page": asks(http.request(), GET(), workers=frozenset(ANY)),
    # Upgrade and Connection that do not belong together.
    "no Connection": asks(GET(connection=())),
    "Connection close": asks(GET(connection="close")),
    "Connection keep-alive": asks(GET(connection="keep-alive")),
    "tcp, no Connection": asks(GET(connection=(), upgrade="tcp")),
    "Connection alone": asks(GET(upgrade=())),
    "HTTP/1.0": asks(GET(version="HTTP/1.0"), half_close=True),
    "tcp of HTTP/1.0": asks(GET(version="HTTP/1.0", upgrade="tcp"), half_close=True),
    # Methods.
    **{method: asks(GET(method=method)) for method in ("HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH")},
    **{f"{method} tcp": asks(GET(method=method, upgrade="tcp")) for method in ("HEAD", "POST", "PUT", "OPTIONS")},
    # Bodies.
    "GET with a body": asks(GET(**LENGTH)),
    "GET with chunks": asks(GET(**CHUNKS)),
    "GET with no chunk": asks(GET(fields=CHUNKS["fields"], body=b"0\r\n\r\n")),
    "POST with a body": asks(GET(method="POST", **LENGTH)),
    "POST with chunks": asks(GET(method="POST", **CHUNKS)),
    "docker exec": asks(GET(method="POST", upgrade="tcp", without=["Sec-WebSocket-Key", "Sec-WebSocket-Version"], **LENGTH)),
    "docker exec in chunks": asks(GET(method="POST", upgrade="tcp", **CHUNKS)),
    "a large body": asks(GET(method="POST", upgrade="tcp", fields=[("Content-Length", "100000")], body=b"x" * 100_000)),
    "length and chunks": asks(GET(method="POST", upgrade="tcp", body=CHUNKS["body"],
                                  fields=[("Content-Length", "6"), ("Transfer-Encoding", "chunked")])),
    # Tokens.
    **{f"token {token}": asks(GET(upgrade=token, without=["Sec-WebSocket-Key"]))
       for token in ("tcp", "TCP", "SPDY/3.1", "tailscale-control-protocol", "h2c", "TLS/1.0", "websocketx", "")},
    "tailscale": asks(GET(method="POST", upgrade="tailscale-control-protocol", fields=[("Content-Length", "0")])),
    "h2c as curl does": asks(GET(upgrade="h2c", connection="Upgrade, HTTP2-Settings",
                                 fields=[("HTTP2-Settings", "AAMAAABkAAQAAP__")])),
    "list of tokens": asks(GET(upgrade="websocket, h2c")),
    "list that ends with websocket": asks(GET(upgrade="tcp, websocket")),
    "lines of tokens": asks(GET(upgrade=["websocket", "h2c"])),
    "list without websocket": asks(GET(upgrade="tcp, spdy")),
    # Refusals, and what comes behind them.
    "403 and a page": Case((GET(), SECOND), ((refuse("403 Forbidden"),),), frozenset(WEBSOCKET)),
    "426 and a page": Case((GET(), SECOND), ((refuse("426 Upgrade Required", ("Upgrade", "websocket")),),),
                           frozenset(WEBSOCKET)),
    # The answer to a challenge that is not bound to a connection (Basic); one that is (NTLM) belongs here too.
    "challenge and answer": Case(
        (GET(), GET(fields=[("Authorization", "Basic YTpi")])),
        ((refuse("401 Unauthorized", ("WWW-Authenticate", 'Basic realm="r"')),),), frozenset(WEBSOCKET)),
    "tcp, challenge and answer": Case(
        (GET(upgrade="tcp"), GET(upgrade="tcp", fields=[("Authorization", "Basic YTpi")])),
        ((refuse("401 Unauthorized", ("WWW-Authenticate", 'Basic realm="r"')),),), frozenset(ANY | {"http tcp", "ws tcp"})),
    "which connection": Case((http.request(), GET(), ), (), frozenset(WEBSOCKET), connections=True),
    # Answers.
    "right 101": answered(head(), tunnel),
    "101 and 103 before": answered(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", head(), tunnel),
    "101 with headers": answered(head(Set_Cookie="a=1", X_Custom="y", Server="s"), tunnel),
    "101 with a greeting": answered(head() + b"welcome", tunnel),
    "101 with an empty subprotocol": answered(head(Sec_WebSocket_Protocol=""), tunnel),
    "101 without accept": answered(head(Sec_WebSocket_Accept=None), tunnel),
    "101 without accept, no key": answered(head(Sec_WebSocket_Accept=None), tunnel, without=["Sec-WebSocket-Key"]),
    "101 with a wrong accept": answered(head(Sec_WebSocket_Accept="AAAA"), tunnel),
    "101 with a subprotocol nobody offered": answered(head(Sec_WebSocket_Protocol="chat"), tunnel),
    "101 with an extension nobody offered": answered(head(Sec_WebSocket_Extensions="x"), tunnel),
    "101 without Connection": answered(head(Connection=None), tunnel),
    "101 of HTTP/1.0": answered(head("HTTP/1.0 101 Switching Protocols"), tunnel),
    "101 in bare LF": answered(head(line_end="\n"), tunnel),
    "101 with Content-Length": answered(head(Content_Length="0"), tunnel),
    "101 without Upgrade": answered(head(Upgrade=None), steps.drain),
    "101 to another protocol": answered(head(Upgrade="h2c"), steps.drain),
    "HTTP/1.2": answered(b"HTTP/1.2 403 No\r\nContent-Length: 0\r\n\r\n"),
    "status 600": answered(b"HTTP/1.1 600 No\r\nContent-Length: 0\r\n\r\n"),
    "no answer": answered(steps.close),
    "no answer behind a page": Case((http.request(), GET()), ((agree,), (steps.close,)), frozenset(WEBSOCKET)),
    "silence": answered(steps.drain, workers={"timeout"}),
    "denied": asks(GET("/closed"), workers=frozenset({"denied"})),
}  # fmt: skip


@dataclass(frozen=True)
class Deviation:
    """What differs, for which requests and workers, and what gives stock's behaviour back. The texts are
    those of the reference's table."""

    what: str
    directive: str
    where: dict


STRICT = "`WSForwardCheck lenient`"
NONE = "`WSForward Off` for that URL"
DEVIATIONS = [
    Deviation("WebSocket handshakes reach `http:` back ends without `upgrade=`", NONE, {
        name: {"http"} for name in ("handshake", "handshake in capitals", "keep-alive too", "Content-Length 0",
                                    "cookies and origin", "named in Connection", "key named in Connection", "no version",
                                    "version 99", "odd key", "no offer but its field", "list of tokens",
                                    "list that ends with websocket", "lines of tokens")}),
    Deviation("of several protocols in `Upgrade` one is chosen and goes on alone", NONE, {
        name: ANY | {"http websocket", "ws", "http"}
        for name in ("list of tokens", "list that ends with websocket", "lines of tokens")}),
    Deviation("`Sec-WebSocket-*`, Host and Origin stay, though the client names them in `Connection`", NONE, {
        "key named in Connection": WEBSOCKET | {"http"}}),
    Deviation("an `Upgrade` that `Connection` does not name does not reach the back end",
              '`RequestHeader set Connection Upgrade "expr=-n %{HTTP:Upgrade}"`', {
        **{name: WEBSOCKET for name in ("no Connection", "Connection close", "Connection keep-alive")},
        "tcp, no Connection": ANY | {"http tcp", "ws tcp"}}),
    Deviation("an `Upgrade` of HTTP/1.0 does not reach the back end", NONE, {
        "HTTP/1.0": WEBSOCKET, "tcp of HTTP/1.0": ANY | {"http tcp", "ws tcp"}}),
    Deviation("an `Upgrade` does not reach the back end of an error document, nor of an SSI include", NONE, {
        "denied": {"denied"}}),
    Deviation("a 101 must keep to RFC 6455", STRICT, {
        "no key": WEBSOCKET | {"http"},
        **{name: WEBSOCKET for name in ("101 without accept", "101 without accept, no key", "101 with a wrong accept",
                                        "101 with a subprotocol nobody offered", "101 with an extension nobody offered")}}),
    Deviation("a 101 must be clean HTTP/1.1, with an `Upgrade` that `Connection` names", NONE, {
        name: WEBSOCKET for name in ("101 without Connection", "101 of HTTP/1.0", "101 in bare LF")}),
    Deviation("a 101 loses Content-Length and Transfer-Encoding", NONE, {"101 with Content-Length": WEBSOCKET}),
    Deviation("an answer must be clean HTTP/1.x: [list](#what-the-back-end-may-answer)", NONE, {
        name: WEBSOCKET for name in ("HTTP/1.2", "status 600")}),
    Deviation("a back end that is silent is a 504, not a 502", NONE, {"silence": {"timeout"}}),
    Deviation("the error page of a 502 of this module has the message number", NONE, {
        name: WEBSOCKET for name in ("101 without Upgrade", "101 to another protocol", "no answer")}),
    Deviation("a client that had an answer before gets 502 for a back end that closes, not a closed connection", NONE, {
        "no answer behind a page": WEBSOCKET}),
    Deviation("a handshake has a connection to the back end of its own", NONE, {"which connection": WEBSOCKET}),
]  # fmt: skip


@pytest.fixture(scope="module")
def origin(shared_backend):
    made = shared_backend()
    made.seen = []
    return made


@pytest.fixture(scope="module")
def servers(shared_httpd, origin):
    """Stock httpd, and httpd with the module: ports by worker."""
    made = []
    for server, before in ((shared_httpd(module=None), ""), (shared_httpd(), "WSForward On\n")):
        workers = WORKERS | {"timeout": ("http", "upgrade=websocket timeout=1"), "denied": ("ws", DENIED)}
        server.ports = {name: server.vhost(f'{before}ProxyPass "/" "{origin.url(scheme)}" {parameters}')
                        for name, (scheme, parameters) in workers.items()}  # fmt: skip
        made.append(server.start())
    return made


@dataclass(frozen=True)
class Seen:
    """Of one case: what the back end saw of each request, and the client of each answer."""

    asked: tuple
    answers: tuple
    end: str


def converse(server, worker, case, origin, client):
    """Goes through a case."""
    # What each says about a refusal is the business of other tests.
    server.expect_log(r":(warn|error)\]", certain=False)
    origin.seen = []
    origin.answers_in_turn(*[[note, *script, steps.keep] for script in case.scripts], [note, agree, steps.keep])
    # Scripts are counted by requests.
    origin.requests.clear()
    answers, end = [], "answered"
    with client(server.ports[worker]) as talk:
        try:
            for request in case.requests:
                talk.send(request)
                if case.half_close:
                    talk.half_close()
                answer = talk.read_response(request.split(b" ")[0].decode())
                answers.append((undated(answer.head), answer.body))
                if answer.status == 101:
                    talk.send(RAW)
                    answers.append(talk.read_until(RAW))
                    talk.half_close()
                    answers.append(talk.read_to_end())
                    end = "tunnel"
                    break
        except (EOFError, ConnectionError) as error:
            end = type(error).__name__
        if end == "tunnel" or case.half_close:
            for connection in origin.connections:
                if connection.request is not None and "Upgrade" in connection.request:
                    connection.wait_closed()
    numbers = list(dict.fromkeys(seen["number"] for seen in origin.seen))
    asked = [(seen["head"], seen["body"], seen["tunnel"],
              numbers.index(seen["number"]) if case.connections else None) for seen in origin.seen]  # fmt: skip
    return Seen(tuple(asked), tuple(answers), end)


def undated(head):
    return re.sub(rb"(?m)^Date: .*\r$", b"Date: -\r", head)


def deviates(name, worker):
    return any(worker in deviation.where.get(name, ()) for deviation in DEVIATIONS)


@pytest.mark.parametrize("name", CASES)
def test_like_stock(servers, origin, client, name):
    """The same for back end and client, by every worker, but for the deviations, which do deviate."""
    case = CASES[name]
    for worker in sorted(case.workers):
        stock, ours = (converse(server, worker, case, origin, client) for server in servers)
        assert ours.end in ("answered", "tunnel"), worker
        if deviates(name, worker):
            assert ours != stock, f"{worker}: is no deviation"
        else:
            assert ours == stock, worker


def test_every_deviation_is_of_a_case():
    for deviation in DEVIATIONS:
        assert deviation.where
        for name, workers in deviation.where.items():
            assert name in CASES and set(workers) <= CASES[name].workers, (deviation.what, name)


def test_deviations_are_those_of_the_reference():
    """docs/mod_wsforward.md has the same list, each with what gets stock's behaviour back."""
    page = (paths.ROOT / "docs/mod_wsforward.md").read_text()
    section = page.split("\n## Where it differs from stock httpd\n")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")][1:]
    assert [(row[0], row[-1]) for row in rows] == [(deviation.what, deviation.directive) for deviation in DEVIATIONS]


def test_there_are_enough_of_them():
    assert len(CASES) >= 60 and len(WORKERS) >= 5
