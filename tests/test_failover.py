"""Issue sections 1 and 5: balancers, and stale connections to a back end."""

import pytest

from harness import http, steps, wait
from harness.ports import Port

MPMS = ["event", "worker", "prefork"]


@pytest.fixture
def refusing():
    """A port that refuses connections for as long as the test runs."""
    port = Port()
    yield f"http://127.0.0.1:{port.number}"
    port.release()


def balanced(httpd, members, more="", mpm="event", **kwargs):
    server = httpd(mpm=mpm, **kwargs)
    lines = "\n".join(f'    BalancerMember {member}' for member in members)
    port = server.vhost(f"""WSForward On
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
    for expected in ("AH00957", "AH00959", "AH01114"):
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
    for expected in ("AH00957", "AH00959", "AH01114"):
        server.expect_log(expected)
    talk = client(port)
    for _ in range(3):
        assert talk.ask(http.request()).status == 200
    assert talk.ask(http.handshake()).status == 101
    talk.echoes()


def test_all_members_refuse(httpd, client, refusing):
    server, port = balanced(httpd, [f'"{refusing}" retry=0'])
    for expected in ("AH00957", "AH00959", "AH01114"):
        server.expect_log(expected)
    for _ in range(2):
        assert client(port).ask(http.handshake()).status == 503


def test_refusal_of_the_handshake_is_no_failover(httpd, backend, client):
    """A 403 is an answer. Only 503 before any byte means: try the next member."""
    first, second = backend(name="first"), backend(name="second")
    server, port = balanced(httpd, [f'"{first.url("http", "")}"', f'"{second.url("http", "")}" status=+H'])
    first.answers(http.page(b"no\n", "403 Forbidden"), steps.keep)
    assert client(port).ask(http.handshake()).status == 403
    first.answers(b"garbage\r\n\r\n", steps.close)
    server.expect_log(r"WSF\d{4}")
    assert client(port).ask(http.handshake()).status == 502
    assert not second.connections


def test_wrong_101_does_not_put_the_member_in_error(httpd, backend, client):
    """What a back end answered to one client says nothing about the next one."""
    origin = backend()
    server, port = balanced(httpd, [f'"{origin.url("http", "")}" retry=60'])
    server.expect_log(r"WSF\d{4}")
    origin.answers_in_turn([steps.switch(accept="wrong"), steps.close], steps.WEBSOCKET_OR_PAGE)
    assert client(port).ask(http.handshake()).status == 502
    assert client(port).ask(http.handshake()).status == 101


def test_late_answer_is_504_without_failover(httpd, backend, client):
    first, second = backend(name="first"), backend(name="second")
    server, port = balanced(httpd, [f'"{first.url("http", "")}" timeout=1', f'"{second.url("http", "")}" status=+H'])
    server.expect_log(r"WSF\d{4}")
    first.answers(steps.silence)
    assert client(port).ask(http.handshake()).status == 504
    assert not second.connections


STICKY = "ProxySet stickysession=ROUTEID lbmethod=byrequests"


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
    for expected in ("AH00957", "AH00959", "AH01114"):
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
    server = httpd()
    port = server.vhost(f"""WSForward On
SSLProxyEngine on
SSLProxyVerify require
SSLProxyCACertificateFile {server.certificate.cert}
<Proxy "balancer://cluster">
    BalancerMember "{origin.url("https", "")}"
</Proxy>
ProxyPass "/" "balancer://cluster/\"""")
    server.start()
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
    # The pooled connections were there to be taken, and no handshake took one.
    wait.until(lambda: len(origin.connections) >= 11, "a fresh connection for each handshake")


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
    assert origin.connections[0].closed.wait(5)
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
