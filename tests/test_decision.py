"""Issue section 3: what counts as an upgrade request (RFC 6455 4.2.1, RFC 9110 7.6.1 and 7.8)."""

import re

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


NOT_GET = "its method is not GET"
OLD = "it is older than HTTP/1.1"
NOT_NAMED = "its Connection header does not name upgrade"
HAS_BODY = "it has a body"
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
    """Routes on which stock mod_proxy_http upgrades whatever has an Upgrade header."""
    server = shared_httpd(mpm=request.param)
    server.ports = {"ws:": server.vhost(f'WSForward On\nProxyPass "/" "{origin.url("ws")}"'),
                    "upgrade=": server.vhost(f'WSForward On\nProxyPass "/" "{origin.url("http")}" upgrade=websocket')}
    return server.start()


NOT_UPGRADES = {
    "no Connection": (http.handshake(connection=()), NOT_NAMED),
    "NoUpgradePlease": (http.handshake(connection="NoUpgradePlease"), NOT_NAMED),
    "POST": (http.handshake(method="POST", fields=[("Content-Length", "6")], body=BODY), NOT_GET),
    "HTTP/1.0": (http.handshake(version="HTTP/1.0"), OLD),
    "Content-Length": (http.handshake(fields=[("Content-Length", "6")], body=BODY), HAS_BODY),
    "chunked": (http.handshake(fields=[("Transfer-Encoding", "chunked")], body=b"0\r\n\r\n"), HAS_BODY),
    "Content-Length and chunked": (http.handshake(
        fields=[("Content-Length", "6"), ("Transfer-Encoding", "chunked")], body=b"0\r\n\r\n"), HAS_BODY),
    "h2c": (http.handshake(upgrade="h2c"), NO_TOKEN),
    "websocketx": (http.handshake(upgrade="websocketx"), NO_TOKEN),
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_UPGRADES)
@pytest.mark.parametrize("worker", ["ws:", "upgrade="])
def test_what_is_no_upgrade_request_where_stock_would_upgrade(eager, origin, client, worker, name):
    """What we decline is plain HTTP also where mod_proxy_http by itself would let Upgrade pass."""
    request, why = NOT_UPGRADES[name]
    assert_plain(eager, client(eager.ports[worker]), request, origin, why)


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
    }
    server.ports = {name: server.vhost(text) for name, text in texts.items()}
    return server.start()


NO = {"off": None, "explicitly off": None, "unset": None, "http 1.0": "force-proxy-request-1.0 is set",
      "worker says h2c": "its worker lets the protocol not pass (upgrade= of ProxyPass or ProxySet)"}  # fmt: skip


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
    answer = assert_plain(vhosts, client(vhosts.ports["ssi"]), http.handshake("/ssi/page.shtml"), origin, OLD)
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


@pytest.mark.parametrize(("name", "upgrade"), [("tokens", "my/2"), ("tokens", "my"),
                                               ("other tokens", "websocket")])  # fmt: skip
def test_tokens_that_wsforwardprotocols_leaves_out(vhosts, origin, client, name, upgrade):
    assert_plain(vhosts, client(vhosts.ports[name]), http.handshake("/app", upgrade=upgrade), origin, NO_TOKEN)


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
