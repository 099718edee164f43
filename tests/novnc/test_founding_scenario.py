"""The recipe that does nothing in stock Apache, and works with `WSForward On`."""

import pytest
from websockets.exceptions import ConnectionClosedOK

from harness import http
from harness.libclient import connect
from harness.rawclient import RawClient

from .desktop import recipe

MPMS = ["event", "worker", "prefork"]
#: The recipe alone, and with the rest of the application proxied too, as most sites have it.
SITES = {
    "recipe": "",
    "recipe and ProxyPass": 'ProxyPass "/" "http://localhost:{port}/"\n'
                            'ProxyPassReverse "/" "http://localhost:{port}/"\n',
}  # fmt: skip


@pytest.fixture(scope="module", params=MPMS)
def sites(request, shared_httpd, module, running_bridge):
    """Ports of virtual hosts, by (site, plain or tls), with the module and WSForward On."""
    return start(shared_httpd(mpm=request.param, module=module), running_bridge, "WSForward On\n")


@pytest.fixture(scope="module", params=MPMS)
def stock_sites(request, shared_httpd, running_bridge):
    """The same without the module."""
    return start(shared_httpd(mpm=request.param, module=None), running_bridge, "")


def start(server, bridge, more):
    ports = {}
    for site, rest in SITES.items():
        text = recipe(bridge.port) + rest.format(port=bridge.port) + more
        for transport in ("plain", "tls"):
            ports[site, transport] = server.vhost(text, tls=transport == "tls")
    server.start()
    return ports


@pytest.fixture(params=["plain", "tls"])
def transport(request):
    return request.param


def visit(port, transport, certificate, **headers):
    """Connects as a browser with these headers would."""
    scheme, context = ("ws", None) if transport == "plain" else ("wss", certificate.client_context())
    return connect(f"{scheme}://localhost:{port}/websockify", ssl=context, additional_headers=headers,
                   compression=None, max_size=None)  # fmt: skip


@pytest.mark.parametrize("site", SITES)
def test_stock_apache_hands_over_a_plain_get(stock_sites, site, transport, bridge, certificate):
    cookie = bridge.login(bridge.port, "alice")
    bridge.open_span()
    tls = certificate.client_context() if transport == "tls" else None
    fields = [("Cookie", cookie), ("Referer", "https://site.test/desk/one/vnc.html")]
    with RawClient(stock_sites[site, transport], tls) as client:
        answer = client.ask(http.handshake("/websockify", fields=fields))
    assert (answer.status, answer.body) == (400, b"This address speaks WebSocket only")
    assert bridge.messages() == [
        "WebSocket request at /websockify with Referer: https://site.test/desk/one/vnc.html",
        "NOT a WebSocket upgrade request",
    ]


@pytest.mark.parametrize("site", SITES)
def test_the_recipe_works(sites, site, transport, bridge, containers, certificate):
    one, _ = containers
    cookie = bridge.login(bridge.port, "alice")
    bridge.open_span()
    referer = "https://site.test/desk/one/vnc.html"
    with visit(sites[site, transport], transport, certificate, Cookie=cookie, Referer=referer) as ws:
        assert ws.response.status_code == 101
        assert ws.recv() == one.greeting
        ws.send(b"both Ways")
        assert ws.recv() == b"BOTH wAYS"
        # The whole expected log, in its order: no other line, so not the one that must never be.
        assert bridge.messages() == [
            f"WebSocket request at /websockify with Referer: {referer}",
            "WebSocket upgrade request detected",
            "wsgi.websocket object is available",
            "Found container from Referer: one",
            f"Proxying WebSocket to container on port {one.port}",
            f"Successfully connected to container port {one.port}",
            "WebSocket upgrade successful, starting bidirectional proxy",
        ]
    bridge.wait_for(f"Bridge to container port {one.port} closed")


def test_many_bytes_arrive_as_they_were(sites, transport, bridge, containers, certificate):
    cookie = bridge.login(bridge.port, "alice")
    data = bytes(range(256)) * 8192
    with visit(sites["recipe", transport], transport, certificate, Cookie=cookie,
               Referer="https://site.test/desk/two/") as ws:  # fmt: skip
        assert ws.recv() == containers[1].greeting
        for start in range(0, len(data), 65536):
            ws.send(data[start : start + 65536])
        got = bytearray()
        while len(got) < len(data):
            got += ws.recv()
        assert bytes(got) == data.swapcase()


def test_two_users_get_their_own_containers_at_once(sites, transport, bridge, containers, certificate):
    one, two = containers
    port = sites["recipe", transport]
    cookies = {user: bridge.login(bridge.port, user) for user in ("alice", "bob")}
    with (visit(port, transport, certificate, Cookie=cookies["alice"],
                Referer="https://site.test/desk/one/") as first,
          visit(port, transport, certificate, Cookie=cookies["bob"],
                Referer="https://site.test/desk/two/") as second):  # fmt: skip
        assert (first.recv(), second.recv()) == (one.greeting, two.greeting)
        first.send(b"alice")
        second.send(b"bob")
        assert (first.recv(), second.recv()) == (b"ALICE", b"BOB")


def test_without_referer_the_session_says_which(sites, transport, bridge, containers, certificate):
    """Browsers send no Referer on a WebSocket handshake: the page visited last decides."""
    _, two = containers
    port = sites["recipe and ProxyPass", transport]
    tls = certificate.client_context() if transport == "tls" else None
    cookie = bridge.login(port, "alice", tls)
    with RawClient(port, tls) as client:
        page = client.ask(http.request("/desk/two/vnc.html", fields=[("Cookie", cookie), ("Connection", "close")]))
    assert page.status == 200
    cookie = page.get("Set-Cookie").split(";")[0]
    with visit(port, transport, certificate, Cookie=cookie) as ws:
        assert ws.recv() == two.greeting
        assert "Found container from session: two" in bridge.messages()


def test_the_close_frame_of_the_bridge_arrives(sites, transport, bridge, containers, certificate):
    """A container that hangs up: the bridge closes with 1000, and that is what the client sees."""
    cookie = bridge.login(bridge.port, "alice")
    with visit(sites["recipe", transport], transport, certificate, Cookie=cookie,
               Referer="https://site.test/desk/one/") as ws:  # fmt: skip
        ws.recv()
        containers[0].hang_up()
        with pytest.raises(ConnectionClosedOK) as closed:
            ws.recv()
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1000, "the container hung up")


REFUSALS = {
    "not logged in": (401, {}, ("WWW-Authenticate", 'Session realm="desktops"')),
    "not theirs": (403, {"user": "bob"}, None),
    "session expired": (302, {"user": "alice", "expired": "yes"}, ("Location", "/login?next=/websockify")),
}


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("why", REFUSALS)
def test_refusals_before_the_upgrade_reach_the_client(sites, site, transport, why, bridge, certificate):
    status, who, field = REFUSALS[why]
    referer = "https://site.test/desk/one/"
    fields = [("Referer", referer)]
    if who:
        fields.append(("Cookie", bridge.login(bridge.port, **who)))
    bridge.open_span()
    tls = certificate.client_context() if transport == "tls" else None
    with RawClient(sites[site, transport], tls) as client:
        answer = client.ask(http.handshake("/websockify", fields=fields))
    # By httpd alone: the direct request comes later.
    assert bridge.messages() == [
        f"WebSocket request at /websockify with Referer: {referer}",
        "WebSocket upgrade request detected",
        "Refused before the upgrade",
    ]
    with RawClient(bridge.port) as direct:
        wanted = direct.ask(http.handshake("/websockify", fields=fields))
    assert answer.status == wanted.status == status
    assert answer.body == wanted.body != b""
    assert "Upgrade" not in answer
    for name in ("WWW-Authenticate", "Location"):
        assert answer.all(name) == wanted.all(name)
    if field:
        assert answer.get(field[0]) == field[1]


def test_a_container_that_is_down_closes_with_1011(sites, transport, bridge, containers, certificate):
    """After the upgrade only a close code can tell: it arrives unchanged."""
    cookie = bridge.login(bridge.port, "alice")
    with RawClient(sites["recipe", transport],
                   certificate.client_context() if transport == "tls" else None) as client:  # fmt: skip
        fields = [("Cookie", cookie), ("Referer", "https://site.test/desk/gone/")]
        assert client.ask(http.handshake("/websockify", fields=fields)).status == 101
        frame = client.read_frame()
    assert frame.payload == b"\x03\xf3container is down"
