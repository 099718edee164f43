"""Authentication that is bound to the connection to the back end, as that of NTLM and Negotiate is."""

import pytest

from harness import http, relayed, steps

MPMS = ["event", "worker", "prefork"]
ASK, NEGOTIATE, ANSWER = None, "NTLM negotiate", "NTLM answer"


def asks(value):
    """A 401 that leaves the connection open."""
    return http.page(b"who?\n", "401 Unauthorized", [("WWW-Authenticate", value)])


def authenticates_its_connection(connection):
    """What was said on a connection before counts, and nothing else does."""
    said = (connection.request.all("Authorization") or [ASK])[0]
    if said == NEGOTIATE:
        connection.challenged = True
        connection.send(asks("NTLM challenge"))
    elif said == ANSWER and getattr(connection, "challenged", False):
        steps.websocket_or_page(connection)
    else:
        connection.send(asks("NTLM"))


def leg(said, upgrade=True):
    fields = [("Authorization", said)] if said else []
    return http.handshake(fields=fields) if upgrade else http.request(fields=fields)


def legs(talk, upgrade=True):
    """The statuses of all legs, on one connection of the client."""
    return [talk.ask(leg(said, upgrade)).status for said in (ASK, NEGOTIATE, ANSWER)]


def proxied(origin):
    proxied = "" if not origin.tls else "SSLProxyEngine on\nSSLProxyVerify none\nSSLProxyCheckPeerName off\n"
    return f'{proxied}ProxyPass "/" "{origin.url("https" if origin.tls else "http")}"'


def site(httpd, origin, mpm="event", module=True):
    server = httpd(mpm=mpm) if module else httpd(mpm=mpm, module=None)
    ours = "WSForward On\nWSForwardRelay On\n" if module else ""
    server.port = server.vhost(ours + proxied(origin) + ("" if module else " upgrade=websocket"))
    return server.start()


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("mpm", MPMS)
def test_connection_is_authenticated(httpd, backend, client, mpm, tls):
    """401, 401, 101 as with stock httpd, and the tunnel is relayed."""
    origin = backend(tls=tls)
    origin.answers(authenticates_its_connection, steps.keep)
    stock = site(httpd, origin, mpm, module=False)
    assert legs(client(stock.port)) == [401, 401, 101]
    ours = site(httpd, origin, mpm)
    for _ in range(3):
        talk = client(ours.port)
        with relayed.Counted(ours, open=1, HandedOver=1):
            assert legs(talk) == [401, 401, 101]
        talk.echoes(b"x" * 100_000)
        talk.close()
        relayed.wait_figure(ours, "Tunnels", 0)


@pytest.mark.parametrize("mpm", MPMS)
def test_plain_requests_on_a_connection_that_was_kept(httpd, backend, client, mpm):
    """They use it again, unhindered; so does what follows a page that was asked for first."""
    origin = backend()
    origin.answers(authenticates_its_connection, steps.keep)
    server = site(httpd, origin, mpm)
    talk = client(server.port)
    assert talk.ask(leg(ASK)).status == 401
    assert legs(talk, upgrade=False) == [401, 401, 200]
    for _ in range(3):
        assert talk.ask(leg(ANSWER, upgrade=False)).body == b"plain\n"
    assert len(origin.connections) == 1
    # A first handshake has a connection of its own, which nobody authenticated, and its answers are as before.
    assert legs(talk) == [401, 401, 101]
    talk.echoes()
    assert 1 < len(origin.connections) < 4


@pytest.mark.parametrize(("switch", "status"), [(steps.switch(accept="wrong"), 502), (steps.switch(), 101)],
                         ids=["wrong 101", "right 101"])  # fmt: skip
def test_answer_over_a_connection_of_plain_requests(httpd, backend, client, switch, status):
    """The pool may give the answer such a one: its 101 is checked all the same, and its tunnel is relayed."""
    origin = backend()
    server = site(httpd, origin, "prefork")
    origin.answers_in_turn([asks("NTLM"), steps.close], steps.WEBSOCKET_OR_PAGE, [switch, steps.websocket_echo, steps.close])
    talk = client(server.port)
    assert talk.ask(leg(ASK)).status == 401
    # Or httpd may still send the next request there.
    origin.connections[0].wait_closed()
    assert talk.ask(http.request()).body == b"plain\n"
    if status == 502:
        server.expect_log("WSF0103")
    with relayed.Counted(server, open=int(status == 101), HandedOver=int(status == 101)):
        assert talk.ask(leg(ANSWER)).status == status
    assert len(origin.connections) == 2
    if status == 101:
        talk.echoes()


def test_only_a_challenge_that_is_answered_uses_a_kept_connection(httpd, backend, client):
    """Without credentials, or on another connection of the client, a handshake has a fresh one."""
    origin = backend()
    server = site(httpd, origin, "prefork")
    origin.answers(asks("NTLM"), steps.keep)
    talk = client(server.port)
    for count in (1, 2, 3):
        assert talk.ask(leg(ASK)).status == 401
        assert len(origin.connections) == count
    talk.close()
    assert client(server.port).ask(leg(ANSWER)).status == 401
    assert len(origin.connections) == 4


@pytest.mark.parametrize("when", ["with it", "later"])
def test_bytes_behind_a_challenge(httpd, backend, client, when):
    """They are nobody's answer: the connection that has them is closed."""
    origin = backend()
    server = site(httpd, origin, "prefork")
    stray = http.page(b"stray\n")
    talk = client(server.port)
    sent = []

    def challenges(connection):
        if sent:
            return steps.websocket_or_page(connection)
        sent.append(connection)
        if when == "with it":
            connection.send(asks("NTLM") + stray)
        else:
            connection.send(asks("NTLM"))
        return None
    origin.answers(challenges, steps.keep)
    assert talk.ask(leg(ASK)).status == 401
    if when == "later":
        sent[0].send(stray)
    assert talk.ask(leg(ANSWER)).status == 101
    talk.echoes()
    sent[0].wait_closed()
    assert [connection.number for connection in origin.connections] == [0, 1]


def test_kept_connection_that_was_closed(httpd, backend, client):
    """By the time of the answer it is seen to be closed, and a new one is made."""
    origin = backend()
    server = site(httpd, origin, "prefork")
    origin.answers_in_turn([asks("NTLM"), steps.close], steps.WEBSOCKET_OR_PAGE)
    talk = client(server.port)
    assert talk.ask(leg(ASK)).status == 401
    origin.connections[0].wait_closed()
    assert talk.ask(leg(ANSWER)).status == 101
    talk.echoes()


@pytest.mark.parametrize("how", [steps.close, steps.reset], ids=["close", "reset"])
def test_kept_connection_that_is_closed_when_it_is_used(httpd, backend, client, how):
    """As with stock httpd: the client's connection is closed without an answer, and the client may try again."""
    origin = backend()
    origin.answers_in_turn([asks("NTLM"), steps.keep], [how], [asks("NTLM"), steps.keep], [how], steps.WEBSOCKET_OR_PAGE)
    ends = []
    for module in (False, True):
        server = site(httpd, origin, "prefork", module)
        server.expect_log("AH01102: error reading status line")
        talk = client(server.port)
        assert talk.ask(leg(ASK)).status == 401
        talk.send(leg(ANSWER))
        ends.append((talk.read_to_end(), talk.end()))
    assert ends[0] == ends[1]
    assert client(server.port).ask(leg(ANSWER)).status == 101
