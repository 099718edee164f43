"""Issue section 3: what counts as an upgrade request (RFC 6455 4.2.1, RFC 9110 7.6.1 and 7.8)."""

import re
import time

import pytest

from harness import config, http, steps, websocket

PLAIN_BODY = b"plain\n"


@pytest.fixture(scope="module")
def origin(shared_backend):
    return shared_backend()


@pytest.fixture(scope="module", params=config.MPM)
def server(request, shared_httpd, origin):
    made = shared_httpd(mpm=request.param)
    made.port = made.vhost(f'WSForward On\nProxyPass "/" "{origin.url("http")}"')
    return made.start()


def decisions(server):
    """What the module said about requests, without time and client."""
    said = (re.search(rb"\[wsforward:debug\].* (WSF01\d\d: .*)", line) for line in server.log.lines())
    return [found[1].decode() for found in said if found]


def assert_tunnel(server, talk, request, origin, upgrade="websocket"):
    """The request gets its 101 and an echo; the back end saw the token and one Connection."""
    assert talk.ask(request).status == 101
    talk.echoes()
    assert origin.request.all("Upgrade") == [upgrade]
    assert origin.request.all("Connection") == ["Upgrade"]
    assert decisions(server) == [f"WSF0101: asking the back end for {upgrade}"]


def assert_plain(server, talk, request, origin, why, *, method="GET", status=200):
    """The request is proxied as plain HTTP: no Upgrade reaches the back end, no tunnel opens. The log
    says why, unless it is none of the module's business."""
    answer = talk.ask(request, method)
    assert answer.status == status
    [asked] = origin.requests
    assert "Upgrade" not in asked
    assert all("upgrade" not in value.lower() for value in asked.all("Connection"))
    assert decisions(server) == ([f"WSF0100: proxied without Upgrade: {why}"] if why else [])
    return answer


FOR_SUCH = " (upgrade=websocket of ProxyPass or ProxySet sends such a request on)"
NOT_GET = f"its method is not GET{FOR_SUCH}"
OLD = "it is older than HTTP/1.1"
NOT_NAMED = "its Connection header does not name upgrade"
HAS_BODY = f"it has a body{FOR_SUCH}"
NO_TOKEN = "its Upgrade header names no protocol of WSForwardProtocols"

CONNECTIONS = ["Upgrade", "upgrade", "UPGRADE", "uPgRaDe", "keep-alive, Upgrade", "Upgrade, keep-alive",
               "keep-alive,Upgrade", "keep-alive,\tUpgrade", "keep-alive ,  Upgrade\t", ",, Upgrade ,",
               ["keep-alive", "Upgrade"], ["Upgrade", "keep-alive"], ["", "Upgrade"]]  # fmt: skip


@pytest.mark.parametrize("connection", CONNECTIONS, ids=repr)
def test_connection_is_a_token_list(server, origin, client, connection):
    assert_tunnel(server, client(server.port), http.handshake(connection=connection), origin)


@pytest.mark.parametrize("connection", [(), "", "keep-alive", "close", "NoUpgradePlease", "Upgrade-Insecure",
                                        "Upgrades", "xUpgrade", "Upgrade Upgrade", "Upgrade;q=1",
                                        "keep-alive; Upgrade", '"Upgrade"'], ids=repr)  # fmt: skip
def test_without_the_upgrade_token_in_connection(server, origin, client, connection):
    """RFC 9110 7.8: an Upgrade that Connection does not name is not for us."""
    assert_plain(server, client(server.port), http.handshake(connection=connection), origin, NOT_NAMED)


@pytest.mark.parametrize(("upgrade", "sent"), [
    ("websocket", "websocket"), ("WebSocket", "WebSocket"), ("WEBSOCKET", "WEBSOCKET"),
    ("websocket, h2c", "websocket"), ("h2c, websocket", "websocket"), ("h2c,\tWebSocket", "WebSocket"),
    (["h2c", "websocket"], "websocket"), (["websocket", "TLS/1.0"], "websocket"),
    (", websocket ,", "websocket"), ("websocketx, websocket", "websocket")], ids=repr)  # fmt: skip
def test_websocket_alone_goes_on(server, origin, client, upgrade, sent):
    """Of several tokens only the chosen one goes on, as the client spelt it."""
    assert_tunnel(server, client(server.port), http.handshake(upgrade=upgrade), origin, sent)


@pytest.mark.parametrize("upgrade", [(), "", "websocketx", "xwebsocket", "web socket", "websocket h2c", "h2c", "TLS/1.0",
                                     "h2c, TLS/1.0", "unknown", '"websocket"', "websocket;v=13"],
                         ids=repr)  # fmt: skip
def test_other_upgrade_tokens(server, origin, client, upgrade):
    assert_plain(server, client(server.port), http.handshake(upgrade=upgrade), origin, NO_TOKEN if upgrade != () else None)


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_other_methods_than_get(server, origin, client, method):
    """RFC 6455 4.1: the method of a handshake is GET."""
    assert_plain(server, client(server.port), http.handshake(method=method), origin, NOT_GET, method=method)


def test_http_1_0(server, origin, client):
    """RFC 9110 7.8: an Upgrade in an HTTP/1.0 request is ignored, and the client is answered."""
    answer = assert_plain(server, client(server.port), http.handshake(version="HTTP/1.0"), origin, OLD)
    assert answer.body == PLAIN_BODY


BODY = b"a body"


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_body_by_content_length(server, origin, client, method):
    request = http.handshake(method=method, fields=[("Content-Length", len(BODY))], body=BODY)
    assert_plain(server, client(server.port), request, origin, HAS_BODY if method == "GET" else NOT_GET, method=method)
    assert origin.connections[0].received == BODY


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_body_by_transfer_encoding(server, origin, client, method):
    request = http.handshake(method=method, fields=[("Transfer-Encoding", "chunked")],
                             body=b"6\r\na body\r\n0\r\n\r\n")  # fmt: skip
    assert_plain(server, client(server.port), request, origin, HAS_BODY if method == "GET" else NOT_GET, method=method)


def test_empty_chunked_body(server, origin, client):
    """Transfer-Encoding says that there is a body, however short."""
    request = http.handshake(fields=[("Transfer-Encoding", "chunked")], body=b"0\r\n\r\n")
    assert_plain(server, client(server.port), request, origin, HAS_BODY)


def test_content_length_zero_is_no_body(server, origin, client):
    assert_tunnel(server, client(server.port), http.handshake(fields=[("Content-Length", "0")]), origin)


@pytest.mark.parametrize("length", ["0", "6", "100"])
def test_content_length_with_transfer_encoding_never_tunnels(server, origin, client, length):
    """RFC 9112 6.3: the classic smuggling request; a tunnel would hide what comes behind it."""
    fields = [("Content-Length", length), ("Transfer-Encoding", "chunked")]
    request = http.handshake(fields=fields, body=b"6\r\na body\r\n0\r\n\r\n")
    talk = client(server.port)
    assert_plain(server, talk, request, origin, HAS_BODY)
    # httpd took the chunks for the body, and lets no second request come behind it.
    assert origin.connections[0].received in (b"", BODY)
    assert talk.end() == "eof"


@pytest.mark.parametrize("length", ["-1", "6, 6", "1x"])
def test_bad_content_length_never_tunnels(server, origin, client, length):
    """httpd refuses it before any module is asked."""
    assert client(server.port).ask(http.handshake(fields=[("Content-Length", length)], body=BODY)).status == 400
    assert not origin.requests
    assert not decisions(server)


def test_wrong_version_is_for_the_back_end_to_refuse(server, origin, client):
    """RFC 6455 4.4: the back end's 426 names the versions that it speaks."""
    origin.answers(http.page(b"13 or 8\n", "426 Upgrade Required", [("Sec-WebSocket-Version", "13, 8")]),
                   steps.keep)  # fmt: skip
    answer = client(server.port).ask(http.handshake(fields=[("Sec-WebSocket-Version", "99")]))
    assert (answer.status, answer.body) == (426, b"13 or 8\n")
    assert answer.get("Sec-WebSocket-Version") == "13, 8"
    assert origin.request.get("Sec-WebSocket-Version") == "99"


@pytest.fixture(scope="module", params=config.MPM)
def eager(request, shared_httpd, origin):
    """Routes on which stock mod_proxy_http upgrades what has an Upgrade header that the worker allows."""
    server = shared_httpd(mpm=request.param)
    http_url = origin.url("http")
    server.ports = {"ws:": server.vhost(f'WSForward On\nProxyPass "/" "{origin.url("ws")}"'),
                    "upgrade=": server.vhost(f'WSForward On\nProxyPass "/" "{http_url}" upgrade=websocket'),
                    "upgrade=any": server.vhost(f'WSForward On\nProxyPass "/" "{http_url}" upgrade=any'),
                    "mended": server.vhost(f"""WSForward On
RequestHeader set Connection Upgrade "expr=-n %{{HTTP:Upgrade}}"
ProxyPass "/" "{origin.url("ws")}\"""")}
    return server.start()


#: Where nobody may switch (RFC 9110 7.8), though stock httpd does.
FOR_NOBODY = {
    "no Connection": (http.handshake(connection=()), NOT_NAMED),
    "NoUpgradePlease": (http.handshake(connection="NoUpgradePlease"), NOT_NAMED),
    "HTTP/1.0": (http.handshake(version="HTTP/1.0"), OLD),
}
#: Not on the worker's list, so that it is plain HTTP with stock httpd too.
NOT_OF_THE_WORKER = {"h2c": (http.handshake(upgrade="h2c"), NO_TOKEN),
                     "xwebsocket": (http.handshake(upgrade="xwebsocket"), NO_TOKEN)}  # fmt: skip


@pytest.mark.parametrize("name", [*FOR_NOBODY, *NOT_OF_THE_WORKER])
@pytest.mark.parametrize("worker", ["ws:", "upgrade="])
def test_what_is_no_upgrade_request_for_anybody(eager, origin, client, worker, name):
    """It is plain HTTP also where mod_proxy_http by itself would let Upgrade pass."""
    request, why = (FOR_NOBODY | NOT_OF_THE_WORKER)[name]
    assert_plain(eager, client(eager.ports[worker]), request, origin, why)


def test_a_proxy_before_this_one_that_loses_connection_can_be_mended(eager, origin, client):
    """The reference's way to have an Upgrade that Connection does not name."""
    assert_tunnel(eager, client(eager.ports["mended"]), http.handshake(connection="close"), origin)


def posted(upgrade, method="POST"):
    """With a body, as `docker exec` sends it."""
    return http.handshake(method=method, upgrade=upgrade, fields=[("Content-Length", len(BODY))], body=BODY)


CHUNKED = {"fields": [("Transfer-Encoding", "chunked")], "body": b"6\r\na body\r\n0\r\n\r\n"}
#: Requests that are mod_proxy_http's alone: name -> request, Upgrade, body, why they are not ours.
STOCKS = {
    "POST of a WebSocket": (http.handshake(method="POST"), "websocket", b"", "its method is not GET"),
    "WebSocket with a body": (posted("websocket", "GET"), "websocket", BODY, "it has a body"),
    "WebSocket with chunks": (http.handshake(**CHUNKED), "websocket", BODY, "it has a body"),
    "tailscale": (http.handshake(method="POST", upgrade="tailscale-control-protocol",
                                 fields=[("Content-Length", "0")]), "tailscale-control-protocol", b"", NO_TOKEN),
    "docker exec": (posted("tcp"), "tcp", BODY, NO_TOKEN),
    "docker exec in chunks": (http.handshake(method="POST", upgrade="tcp", **CHUNKED), "tcp", BODY, NO_TOKEN),
    "kubectl": (http.handshake(method="POST", upgrade="SPDY/3.1"), "SPDY/3.1", b"", NO_TOKEN),
    "GET of another protocol": (http.handshake(upgrade="my/1"), "my/1", b"", NO_TOKEN),
    "h2c": (http.handshake(upgrade="h2c"), "h2c", b"", NO_TOKEN),
}  # fmt: skip


def opened(talk, request, origin, upgrade, body, *more):
    """A tunnel that echoes bytes, whose back end got the body before."""
    origin.answers(steps.body, steps.switch(without=["Sec-WebSocket-Accept"]), steps.echo, steps.close)
    assert talk.ask(request).status == 101
    talk.send(b"\0raw\xff")
    assert talk.read_exactly(5) == b"\0raw\xff"
    assert origin.request.all("Upgrade") == [upgrade]
    assert origin.request.all("Connection") == ["Upgrade"]
    assert origin.connections[-1].received == body


@pytest.mark.parametrize("name", STOCKS)
def test_what_is_not_ours_is_httpds_where_its_worker_lets_it_pass(eager, origin, client, name):
    """As without the module, unchecked: not even Sec-WebSocket-Accept is looked at."""
    request, upgrade, body, why = STOCKS[name]
    opened(client(eager.ports["upgrade=any"]), request, origin, upgrade, body)
    [said] = decisions(eager)
    assert said.startswith(f"WSF0110: left to httpd, which sends it on with Upgrade: {why}")


@pytest.mark.parametrize("worker", ["ws:", "upgrade="])
@pytest.mark.parametrize("name", [name for name, stock in STOCKS.items() if stock[1] == "websocket"])
def test_odd_websocket_requests_are_httpds_where_its_worker_lets_them_pass(eager, origin, client, worker, name):
    request, upgrade, body, _ = STOCKS[name]
    opened(client(eager.ports[worker]), request, origin, upgrade, body)


# What the configuration decides.


@pytest.fixture(scope="module", params=config.MPM)
def vhosts(request, shared_httpd, origin):
    """One server with a virtual host for each of the ways to say no."""
    server = shared_httpd(mpm=request.param, extra=["include"])
    proxied = f'ProxyPass "/app" "{origin.url("http", "/app")}"'
    server.page("ssi/page.shtml", 'before <!--#include virtual="/app/part" --> after\n')
    server.page("file.txt", "a file\n")
    texts = {
        "off": proxied,
        "explicitly off": f"WSForward Off\n{proxied}",
        "unset": f"WSForward On\n{proxied}\nRequestHeader unset Upgrade",
        "http 1.0": f"WSForward On\n{proxied}\nSetEnv force-proxy-request-1.0 1",
        "worker says h2c": f"WSForward On\n{proxied} upgrade=h2c",
        "worker says any": f"WSForward On\n{proxied} upgrade=ANY",
        "worker says websocket": f"WSForward On\n{proxied} upgrade=websocket",
        "protocols": f"WSForward On\n{proxied}\nProtocols h2c http/1.1",
        "denied": f"""WSForward On
{proxied}
ErrorDocument 403 /app/error
<Location "/closed">
    Require all denied
</Location>
<Location "/app/closed">
    Require all denied
</Location>""",
        "ssi": f"""WSForward On
{proxied}
<Location "/ssi">
    Options +Includes
    SetOutputFilter INCLUDES
</Location>""",
        "forward proxy": """WSForward On
ProxyRequests On
<Proxy "*">
    Require all granted
</Proxy>""",
        "proxy remote": f"""WSForward On
ProxyPass "/app" "http://remote.test/app"
ProxyRemote "http://remote.test" "{origin.url("http", "")}\"""",
        "file": "WSForward On",
        # mod_proxy_http asks the worker too, which allows websocket alone if upgrade= is not set.
        "tokens": f"WSForward On\nWSForwardProtocols my/1 websocket\n{proxied} upgrade=my/1,websocket",
        "other tokens": f"WSForward On\nWSForwardProtocols my/1\n{proxied} upgrade=my/1",
        "docker": f"WSForward On\nWSForwardRelay On\nWSForwardProtocols tcp websocket\n{proxied} upgrade=any",
        "in time": f"WSForward On\nWSForwardProtocols tcp\nWSForwardHandshakeTimeout 700ms\n{proxied} upgrade=tcp",
    }
    server.ports = {name: server.vhost(text) for name, text in texts.items()}
    return server.start()


NO = {"off": None, "explicitly off": None, "unset": None, "http 1.0": "force-proxy-request-1.0 is set",
      "worker says h2c": "upgrade= of its worker (ProxyPass, ProxySet) does not allow this protocol"}  # fmt: skip


@pytest.mark.parametrize("name", NO)
def test_configuration_that_says_no(vhosts, origin, client, name):
    """Off is the default; unset Upgrade, force-proxy-request-1.0 and upgrade= of others opt out."""
    assert_plain(vhosts, client(vhosts.ports[name]), http.handshake("/app"), origin, NO[name])


@pytest.mark.parametrize("name", ["worker says any", "worker says websocket", "protocols"])
def test_configuration_that_changes_nothing(vhosts, origin, client, name):
    assert_tunnel(vhosts, client(vhosts.ports[name]), http.handshake("/app", connection="keep-alive, Upgrade"), origin)


def test_protocols_h2c_and_a_client_that_offers_it(vhosts, origin, client):
    """httpd would answer h2c itself where the list names it; websocket is what the client asked too."""
    talk = client(vhosts.ports["protocols"])
    assert_tunnel(vhosts, talk, http.handshake("/app", upgrade="h2c, websocket"), origin)


@pytest.mark.parametrize("path", ["/closed", "/app/closed"])
def test_error_document_of_a_denied_client(vhosts, origin, client, path):
    """A denied client gets the proxied error page, never a tunnel to it."""
    vhosts.expect_log("AH01630: client denied")
    origin.answers(http.page(PLAIN_BODY, "403 Forbidden"), steps.keep)
    answer = assert_plain(vhosts, client(vhosts.ports["denied"]), http.handshake(path), origin,
                          "it asks for an error document", status=403)  # fmt: skip
    assert answer.body == PLAIN_BODY
    assert origin.request.target == "/app/error"


def test_ssi_include_does_not_upgrade(vhosts, origin, client):
    """A subrequest has the client's headers, but its answer is part of a page, and no HTTP version."""
    answer = assert_plain(vhosts, client(vhosts.ports["ssi"]), http.handshake("/ssi/page.shtml"), origin,
                          "a subrequest cannot switch protocols")  # fmt: skip
    assert answer.body == b"before plain\n after\n"
    assert origin.request.target == "/app/part"


def test_forward_proxy_is_not_ours(vhosts, origin, client):
    """ProxyRequests On: whom the client asks for is none of our business."""
    assert_plain(vhosts, client(vhosts.ports["forward proxy"]), http.handshake(origin.url("http", "/far")), origin, None)


def test_proxy_remote_is_not_ours(vhosts, origin, client):
    """A request that goes to another proxy is not a handshake with a back end."""
    assert_plain(vhosts, client(vhosts.ports["proxy remote"]), http.handshake("/app"), origin, None)
    assert origin.request.target == "http://remote.test/app"


def test_what_is_not_proxied_is_not_ours(vhosts, client):
    answer = client(vhosts.ports["file"]).ask(http.handshake("/file.txt"))
    assert (answer.status, answer.body) == (200, b"a file\n")
    assert not decisions(vhosts)


@pytest.mark.parametrize(("name", "upgrade", "sent"), [
    ("tokens", "my/1", "my/1"), ("tokens", "MY/1", "MY/1"),
    ("tokens", "websocket", "websocket"), ("other tokens", "websocket, my/1", "my/1")])  # fmt: skip
def test_tokens_of_wsforwardprotocols(vhosts, origin, client, name, upgrade, sent):
    """Other tokens than websocket are opaque: a 101 with the token is all that is asked for."""
    origin.answers(steps.switch(without=["Sec-WebSocket-Accept"] if "my" in sent.lower() else []),
                   steps.websocket_echo, steps.close)  # fmt: skip
    request = http.handshake("/app", upgrade=upgrade)
    assert_tunnel(vhosts, client(vhosts.ports[name]), request, origin, sent)


@pytest.mark.parametrize(("name", "upgrade"), [("tokens", "yours/1"), ("tokens", "tcp"),
                                               ("other tokens", "websocket")])  # fmt: skip
def test_tokens_that_wsforwardprotocols_leaves_out(vhosts, origin, client, name, upgrade):
    assert_plain(vhosts, client(vhosts.ports[name]), http.handshake("/app", upgrade=upgrade), origin, NO_TOKEN)


TAKEN = {
    "POST": http.handshake("/app", method="POST", upgrade="tcp"),
    "Content-Length": http.handshake("/app", method="POST", upgrade="tcp", fields=[("Content-Length", len(BODY))], body=BODY),
    "chunked": http.handshake("/app", method="POST", upgrade="tcp", **CHUNKED),
    "PUT": http.handshake("/app", method="PUT", upgrade="tcp", **CHUNKED),
    "websocket first": http.handshake("/app", method="POST", upgrade="websocket, tcp", **CHUNKED),
}


@pytest.mark.parametrize("name", TAKEN)
def test_protocols_of_wsforwardprotocols_may_post(vhosts, origin, client, name):
    """Named there, a protocol is ours with any method and any body: relayed, and its 101 checked."""
    request = TAKEN[name]
    body = BODY if b"a body" in request else b""
    opened(client(vhosts.ports["docker"]), request, origin, "tcp", body)
    assert decisions(vhosts)[0] == "WSF0101: asking the back end for tcp"
    vhosts.log.wait_for("WSF0200: ")
    origin.answers(steps.body, steps.switch(upgrade="my/1"), steps.silence)
    vhosts.expect_log(r'WSF0103: wrong 101: Upgrade is "my/1", expected "tcp"')
    assert client(vhosts.ports["docker"]).ask(request).status == 502


def test_expectation_and_a_protocol_that_posts(vhosts, origin, client):
    """A 101 that comes before the body was asked for: the body goes to the back end before the tunnel."""
    origin.answers(steps.switch(without=["Sec-WebSocket-Accept"]), steps.echo, steps.close)
    fields = [("Content-Length", len(BODY)), ("Expect", "100-continue")]
    talk = client(vhosts.ports["docker"])
    talk.send(http.handshake("/app", method="POST", upgrade="tcp", fields=fields))
    assert talk.read_head().status == 101
    talk.send(BODY + b"and raw")
    assert talk.read_exactly(13) == b"a bodyand raw"


def test_time_of_a_body_is_not_the_back_ends(vhosts, origin, client):
    """WSForwardHandshakeTimeout is for the back end: a client may take longer to send its body."""
    size = 100_000
    origin.answers(steps.body, steps.switch(without=["Sec-WebSocket-Accept"]), steps.echo, steps.close)
    talk = client(vhosts.ports["in time"])
    talk.send(http.request("/app", method="POST", fields=[("Connection", "Upgrade"), ("Upgrade", "tcp"),
                                                          ("Content-Length", size)], body=b"x" * (size - 1)))  # fmt: skip
    [asked] = origin.wait_connections()
    origin.wait_requests()
    begin = time.monotonic()
    assert talk.silent_for(1) and time.monotonic() - begin >= 1
    talk.send(b"x")
    assert talk.read_response().status == 101
    assert len(asked.received) == size
    # And the back end is still held to it.
    origin.answers(steps.body, steps.silence)
    vhosts.expect_log("WSF0105: no complete response head within 700ms")
    assert client(vhosts.ports["in time"]).ask(http.handshake("/app", method="POST", upgrade="tcp", **CHUNKED)).status == 504


@pytest.mark.parametrize("status", ["403 Forbidden", "200 OK", "426 Upgrade Required"])
def test_log_says_what_the_back_end_answered_instead(server, origin, client, status):
    origin.answers(http.page(b"no\n", status), steps.keep)
    assert client(server.port).ask(http.handshake()).status == int(status[:3])
    assert decisions(server) == ["WSF0101: asking the back end for websocket",
                                 f"WSF0112: the back end answered {status[:3]}, no tunnel"]  # fmt: skip


def test_a_tunnel_and_a_page_on_one_connection(server, origin, client):
    """A plain request first, then the handshake on the same kept-alive connection."""
    talk = client(server.port)
    assert talk.ask(http.request("/page")).body == PLAIN_BODY
    assert_tunnel(server, talk, http.handshake("/ws"), origin)
    talk.send_frame(websocket.close_frame(1000))
    assert talk.read_frame().opcode == websocket.CLOSE
    assert talk.end() == "eof"


# httpd that could speak h2c itself.


@pytest.fixture(scope="module", params=["event", "worker"])
def h2c(request, shared_httpd, origin):
    """mod_http2 is loaded and the virtual host allows h2c, so that core answers an h2c upgrade by itself."""
    server = shared_httpd(mpm=request.param, extra=["http2"])
    proxied = f'Protocols h2c http/1.1\nProxyPass "/" "{origin.url("http")}"'
    server.ports = {"on": server.vhost(f"WSForward On\n{proxied}"), "off": server.vhost(proxied)}
    return server.start()


def h2c_handshake(upgrade):
    """A handshake that offers h2c too, with all that RFC 7540 3.2 asks for."""
    return http.handshake(upgrade=upgrade, connection="Upgrade, HTTP2-Settings",
                          fields=[("HTTP2-Settings", "AAMAAABkAAQAAP__")])  # fmt: skip


@pytest.mark.parametrize("upgrade", ["websocket", "h2c, websocket", "websocket, h2c", ["h2c", "websocket"]], ids=repr)
def test_websocket_goes_before_h2c_of_httpd(h2c, origin, client, upgrade):
    """The client asked for a WebSocket: it gets its tunnel, not a switch to HTTP/2 that ends it."""
    talk = client(h2c.ports["on"])
    assert_tunnel(h2c, talk, h2c_handshake(upgrade), origin)
    assert "HTTP2-Settings" not in origin.request


def assert_h2c(talk, request):
    """httpd switches, and answers in HTTP/2."""
    switched = talk.send(request).read_head()
    assert (switched.status, switched.get("Upgrade")) == (101, "h2c")
    empty_settings = b"\0\0\0\4\0\0\0\0\0"
    talk.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + empty_settings)
    assert PLAIN_BODY in talk.read_until(PLAIN_BODY)


def test_h2c_alone_is_still_httpds(h2c, origin, client):
    assert_h2c(client(h2c.ports["on"]), h2c_handshake("h2c"))
    assert "Upgrade" not in origin.request


@pytest.mark.parametrize("upgrade", ["h2c, websocket", "websocket, h2c"])
def test_without_wsforward_h2c_is_httpds_as_ever(h2c, client, upgrade):
    assert_h2c(client(h2c.ports["off"]), h2c_handshake(upgrade))
