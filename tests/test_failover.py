"""Issue sections 1 and 5: balancers, and stale connections to a back end."""

import pytest

from harness import config, http, steps
from harness.ports import Port

MPMS = [*config.MPM]
#: What mod_proxy says of a member that refuses the connection.
REFUSED = [r"proxy:error\].*AH00957: ", r"proxy:error\].*AH00959: ", r"proxy_http:error\].*AH01114: "]


@pytest.fixture
def refusing():
    """A port that refuses connections for as long as the test runs."""
    port = Port()
    yield f"http://127.0.0.1:{port.number}"
    port.release()


def balanced(httpd, members, more="", mpm="event", tls=False, **kwargs):
    server = httpd(mpm=mpm, **kwargs)
    proxied = f"""SSLProxyEngine on
SSLProxyVerify require
SSLProxyCACertificateFile {server.certificate.cert}""" if tls else ""
    lines = "\n".join(f'    BalancerMember {member}' for member in members)
    port = server.vhost(f"""WSForward On
{proxied}
<Proxy "balancer://cluster">
{lines}
    {more}
</Proxy>
ProxyPass "/" "balancer://cluster/\"""")
    return server.start(), port


@pytest.mark.parametrize("mpm", MPMS)
def test_next_member_when_one_refuses_the_connection(httpd, backend, client, refusing, mpm):
    """Every handshake gets through, whichever member the balancer tries first."""
    origin = backend()
    server, port = balanced(httpd, [f'"{refusing}" retry=0', f'"{origin.url("http", "")}"'], mpm=mpm)
    for expected in REFUSED:
        server.expect_log(expected)
    for _ in range(6):
        with client(port) as talk:
            assert talk.ask(http.handshake(upgrade="WebSocket")).status == 101
            talk.echoes()
    # A request that was tried twice is the same request at its second member.
    assert len(origin.requests) == 6
    for asked in origin.requests:
        assert (asked.all("Upgrade"), asked.all("Connection")) == (["WebSocket"], ["Upgrade"])


def test_failover_on_a_kept_alive_connection(httpd, backend, client, refusing):
    origin = backend()
    server, port = balanced(httpd, [f'"{refusing}" retry=0', f'"{origin.url("http", "")}"'])
    for expected in REFUSED:
        server.expect_log(expected)
    talk = client(port)
    for _ in range(3):
        assert talk.ask(http.request()).status == 200
    assert talk.ask(http.handshake()).status == 101
    talk.echoes()


def test_all_members_refuse(httpd, client, refusing):
    server, port = balanced(httpd, [f'"{refusing}" retry=0'])
    for expected in REFUSED:
        server.expect_log(expected)
    for _ in range(2):
        assert client(port).ask(http.handshake()).status == 503


def test_refusal_of_the_handshake_is_no_failover(httpd, backend, client):
    """A 403 is an answer. Only 503 before any byte means: try the next member."""
    first, second = backend(name="first"), backend(name="second")
    server, port = balanced(httpd, [f'"{first.url("http", "")}"', f'"{second.url("http", "")}" status=+H'])
    first.answers(http.page(b"no\n", "403 Forbidden"), steps.keep)
    assert client(port).ask(http.handshake()).status == 403
    assert len(first.requests) == 1
    assert not second.connections


BROKEN = {
    "garbage": ((b"garbage\r\n\r\n", steps.close), "WSF0102: "),
    "wrong 101": ((steps.switch(accept="wrong"), steps.close), "WSF0103: "),
    "close": ((steps.close,), "WSF0104: the back end closed the connection after 0 bytes"),
    "reset": ((steps.reset,), "WSF0104: Connection reset by peer after 0 bytes"),
    "close within the head": ((b"HTTP/1.1 101 Sw", steps.close), "WSF0104: the back end closed the connection after 15 bytes"),
    "close after an interim answer": ((b"HTTP/1.1 103 Early Hints\r\n\r\n", steps.close),
                                      "WSF0104: the back end closed the connection after 0 bytes"),
}  # fmt: skip


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.parametrize("mpm", MPMS)
def test_member_that_breaks_after_it_got_the_request_is_502_without_failover(httpd, backend, client, mpm, how):
    """It may have acted on the request, so that no other member gets it too: not even a hot standby,
    which stands by for members that are down. And it is no worse a member for it."""
    first, second = backend(name="first"), backend(name="second")
    server, port = balanced(httpd, [f'"{first.url("http", "")}" retry=60', f'"{second.url("http", "")}" status=+H'],
                            mpm=mpm)  # fmt: skip
    script, why = BROKEN[how]
    first.answers_in_turn(script, steps.WEBSOCKET_OR_PAGE)
    server.expect_log(rf"proxy:error\].*{why}")
    talk = client(port)
    answer = talk.send(http.handshake()).read_response()
    assert answer.status == 502
    # The module's line, and mod_proxy's that quotes it.
    assert len(server.log.matching(rf":error\].*{why}")) == len(server.log.matching(":error")) == 2
    assert (len(first.requests), len(second.connections)) == (1, 0)
    assert talk.ask(http.handshake()).status == 101
    assert (len(first.requests), len(second.connections)) == (2, 0)


def test_tls_member_that_is_not_tls_is_in_error(httpd, backend, client):
    """500 for the request that found it, as for stock: then the balancer leaves it alone."""
    first, second = backend(tls=True, name="first"), backend(tls=True, name="second")
    first.on_connect(b"HTTP/1.1 400 Bad Request\r\n\r\n", steps.close)
    members = [f'"{first.url("https", "")}" retry=60', f'"{second.url("https", "")}" status=+H']
    server, port = balanced(httpd, members, tls=True)
    for expected in (r"proxy:error\].*AH01084: ", r"proxy:error\].*AH00898: Error during SSL Handshake",
                     r"proxy_http:error\].*AH01097: "):  # fmt: skip
        server.expect_log(expected)
    first_status = client(port).ask(http.handshake()).status
    second_status = client(port).ask(http.handshake()).status
    assert (first_status, second_status) == (500, 101)
    assert (len(first.connections), len(second.requests)) == (1, 1)


def test_late_answer_is_504_without_failover(httpd, backend, client):
    first, second = backend(name="first"), backend(name="second")
    server, port = balanced(httpd, [f'"{first.url("http", "")}" timeout=1', f'"{second.url("http", "")}" status=+H'])
    server.expect_log(r"proxy:error\].*WSF0105: no complete response head within 1s")
    first.answers(steps.silence)
    assert client(port).ask(http.handshake()).status == 504
    assert (len(first.requests), len(second.connections)) == (1, 0)


def test_late_by_our_own_time_is_504_whatever_is_expected(httpd, backend, client):
    """A client's Expect has mod_proxy_http wait for a 100, and blame who does not send one in time: in its own."""
    first, second = backend(name="first"), backend(name="second")
    members = [f'"{first.url("http", "")}"', f'"{second.url("http", "")}" status=+H']
    server, port = balanced(httpd, members, "ProxySet nonce=none\n</Proxy>\nWSForwardHandshakeTimeout 1\n<Proxy \"balancer://cluster\">")
    server.expect_log(r"proxy:error\].*WSF0105: no complete response head within 1s")
    first.answers(steps.silence)
    assert client(port).ask(http.handshake(fields=[("Expect", "100-continue")])).status == 504
    assert (len(first.requests), len(second.connections)) == (1, 0)


STICKY = "ProxySet stickysession=ROUTEID lbmethod=byrequests"


@pytest.mark.parametrize("which", ["stock", "ours"])
@pytest.mark.parametrize(("parameter", "asked"), [
    ("timeout=2", {"fields": [("Expect", "100-continue")]}),
    ("ping=1", {"fields": [("Expect", "100-continue")]}),
    ("ping=1", {"method": "POST", "upgrade": "tcp", "fields": [("Content-Length", 6)], "body": b"a body"}),
], ids=["timeout-expect", "ping-expect", "ping-body"])  # fmt: skip
def test_member_that_does_not_say_100_is_passed_over(httpd, backend, client, which, parameter, asked):
    """As mod_proxy_http does it: `ping=` holds until the 100 Continue, and a 503 brings the next member."""
    hung, origin = backend(name="hung"), backend()
    server = httpd(mpm="event", **({"module": None} if which == "stock" else {}))
    on = "" if which == "stock" else "WSForward On\nWSForwardProtocols websocket tcp"
    port = server.vhost(f"""{on}
ProxyTimeout 60
<Proxy "balancer://cluster">
    BalancerMember "{hung.url("http", "")}" upgrade=any {parameter}
    BalancerMember "{origin.url("http", "")}" upgrade=any {parameter} status=+H
</Proxy>
ProxyPass "/" "balancer://cluster/\"""")
    server.expect_log("AH00898: Timeout on 100-Continue|AH01102")
    server.start()
    # An interim response before it is silent: what is tried again is still an upgrade request.
    hung.answers(b"HTTP/1.1 103 Early Hints\r\n\r\n", steps.silence)
    has_body = "body" in asked
    origin.answers(b"HTTP/1.1 100 Continue\r\n\r\n", *([steps.body] if has_body else []),
                   steps.switch(upgrade=asked.get("upgrade", "websocket")), steps.silence)  # fmt: skip
    talk = client(port).send(http.handshake(**asked))
    answer = talk.read_response()
    while answer.status in (100, 103):
        answer = talk.read_response()
    assert answer.status == 101
    assert len(hung.requests) == len(origin.requests) == 1


@pytest.mark.parametrize("mpm", MPMS)
def test_sticky_sessions(httpd, backend, client, mpm):
    """A handshake goes to the member that its cookie names."""
    members = [backend(name=name) for name in ("a", "b", "c")]
    server, port = balanced(
        httpd, [f'"{one.url("http", "")}" route={one.name}' for one in members], STICKY, mpm=mpm)  # fmt: skip
    for one in members * 3:
        before = [len(other.requests) for other in members]
        with client(port) as talk:
            request = http.handshake(fields=[("Cookie", f"other=1; ROUTEID=x.{one.name}")])
            assert talk.ask(request).status == 101
            talk.echoes()
        grown = [len(other.requests) - count for other, count in zip(members, before, strict=True)]
        assert grown == [1 if other is one else 0 for other in members]


def test_sticky_session_fails_over(httpd, backend, client, refusing):
    origin = backend()
    server, port = balanced(httpd, [f'"{refusing}" route=gone retry=60', f'"{origin.url("http", "")}" route=here'], STICKY)
    for expected in REFUSED:
        server.expect_log(expected)
    for _ in range(2):
        with client(port) as talk:
            assert talk.ask(http.handshake(fields=[("Cookie", "ROUTEID=x.gone")])).status == 101
            talk.echoes()


def test_requests_are_spread(httpd, backend, client):
    members = [backend(name=name) for name in ("a", "b")]
    server, port = balanced(httpd, [f'"{one.url("http", "")}"' for one in members])
    for _ in range(8):
        with client(port) as talk:
            assert talk.ask(http.handshake()).status == 101
    assert [len(one.requests) for one in members] == [4, 4]


def test_https_members(httpd, backend, client):
    origin = backend(tls=True)
    server, port = balanced(httpd, [f'"{origin.url("https", "")}"'], tls=True)
    talk = client(port)
    assert talk.ask(http.handshake()).status == 101
    talk.echoes()


# Stale connections.


@pytest.mark.parametrize("how", [steps.close, steps.reset], ids=["close", "reset"])
@pytest.mark.parametrize("mpm", MPMS)
def test_stale_pooled_connection_never_costs_a_handshake(httpd, backend, client, mpm, how):
    """The back end closes each kept connection just when it is used again: every handshake gets 101.

    mod_proxy_http does not retry, so a handshake must never go over a used connection.
    """
    origin, server = backend(), httpd(mpm=mpm)
    # The pages, first on their client's connection, must not meet the stale ones of the round before.
    port = server.vhost(f'SetEnv proxy-initial-not-pooled 1\nWSForward On\nProxyPass "/" "{origin.url("http")}"')
    server.start()

    def page_then_end_on_the_next_request(connection):
        connection.send(http.page())
        if connection.recv():
            how(connection)
    for _ in range(10):
        # Both on one client connection, so that the same child and its pool serve them.
        origin.answers(page_then_end_on_the_next_request)
        talk = client(port)
        assert talk.ask(http.request()).status == 200
        origin.answers(*steps.WEBSOCKET_OR_PAGE)
        assert talk.ask(http.handshake()).status == 101
        talk.echoes()
        talk.close()
    # Each page left a connection that was there to be taken, and no handshake took one.
    assert len(origin.connections) == 20


def test_refused_upgrade_leaves_no_connection_for_others(httpd, backend, client):
    """What the back end sends behind a refusal must not become the next client's answer."""
    origin, server = backend(), httpd()
    port = server.vhost(f'WSForward On\nProxyPass "/" "{origin.url("http")}"')
    server.start()
    stray = http.page(b"stray\n", "200 OK")
    origin.answers_in_turn([http.page(b"no\n", "403 Forbidden") + stray, steps.keep], steps.WEBSOCKET_OR_PAGE)
    talk = client(port)
    assert talk.ask(http.handshake()).body == b"no\n"
    assert talk.ask(http.request()).body == b"plain\n"
    origin.connections[0].wait_closed()
    assert origin.connections[0].number != origin.connections[-1].number


def test_plain_requests_keep_their_pool(httpd, backend, client):
    """Handshakes in between do not keep plain requests from using a kept connection again."""
    origin, server = backend(), httpd(mpm="prefork")
    server.directives("StartServers 1")
    port = server.vhost(f'WSForward On\nProxyPass "/" "{origin.url("http")}"')
    server.start()
    talk = client(port)
    origin.answers_in_turn(*[steps.WEBSOCKET_OR_PAGE] * 3, [http.page(b"no\n", "403 Forbidden"), steps.keep],
                           steps.WEBSOCKET_OR_PAGE)  # fmt: skip
    for _ in range(3):
        assert talk.ask(http.request()).status == 200
    assert talk.ask(http.handshake()).status == 403
    for _ in range(3):
        assert talk.ask(http.request()).status == 200
    # One connection for the six pages, one for the handshake; a second pooled one is no harm.
    assert len(origin.connections) <= 3


def test_keep_alive_count_is_not_lost(httpd, backend, client):
    """MaxKeepAliveRequests counts over refused handshakes as stock counts it."""
    origin = backend()
    origin.answers(http.page(b"no\n", "403 Forbidden"), steps.keep)

    def answers_until_close(server, text):
        port = server.vhost(f"MaxKeepAliveRequests 5\n{text}")
        server.start()
        talk, count, closed = client(port), 0, False
        while not closed and count < 20:
            answer = talk.ask(http.handshake() if count % 2 else http.request())
            assert answer.status == 403
            count, closed = count + 1, answer.get("Connection") == "close"
        assert talk.end() == "eof"
        return count
    stock = answers_until_close(httpd(module=None), f'ProxyPass "/" "{origin.url("http")}" upgrade=websocket')
    assert answers_until_close(httpd(), f'WSForward On\nProxyPass "/" "{origin.url("http")}"') == stock
