"""Every route into mod_proxy, on every MPM, for plain and TLS clients, to a tunnel in its thread and to the relay."""

import pytest

from harness import http, paths, relayed, routes, websocket
from harness.libclient import connect
from harness.routestable import CLIENTS, MPMS

CLOSE_CODE, CLOSE_REASON = 4001, "done"


@pytest.fixture(scope="module")
def backends(shared_backend):
    return {"tcp": shared_backend(name="tcp"), "tls": shared_backend(tls=True, name="tls"),
            "unix": shared_backend(unix=True, name="unix")}  # fmt: skip


@pytest.fixture(scope="module")
def site(carrier, shared_httpd, backends):
    """One server with all routes, plain and TLS."""
    server = carrier.httpd(shared_httpd)
    text = f"WSForward On\n{carrier.directives}\n" + routes.directives(server, backends)
    server.ports = {"plain": server.vhost(text), "tls": server.vhost(text.replace(
        "balancer://", "balancer://tls-"), tls=True)}  # fmt: skip
    return server.start()


def is_here(route):
    """Whether this httpd has it."""
    return paths.httpd_version() >= route.since


def needs(route):
    if not is_here(route):
        pytest.skip(f"httpd {'.'.join(map(str, route.since))} has this route")


@pytest.mark.carriers("thread", "relay", mpms=MPMS)
@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize("route", routes.ROUTES, ids=str)
def test_route(site, carrier, backends, certificate, record_property, route, kind):
    """The handshake, messages of several sizes both ways, and the close code get through; the tunnel is the
    relay's while it lives if it is to be: the status page says so, and no worker is busy."""
    record_property("route", (route.name, kind, site.mpm))
    needs(route)
    origin = backends[route.to]
    if kind == "plain":
        where, options = f"ws://localhost:{site.ports['plain']}", {}
    else:
        where, options = f"wss://localhost:{site.ports['tls']}", {"ssl": certificate.client_context(kind)}
    figures = {"HandedOver": 1, "Ended": 1, "Ended_closed": 1} if carrier.is_relay else {"HandedOver": 0}
    with relayed.Counted(site, **figures) as counted:
        with connect(where + route.path, origin="http://site.test", **options) as ws:
            if carrier.is_relay:
                ws.send("first")
                assert ws.recv() == "first"
                counted.wait_for(HandedOver=1, Tunnels=1)
                site.wait_idle()
            for message in ("hello", "", "x" * 126, b"\0" * 70_000):
                ws.send(message)
                assert ws.recv() == message
            ws.close(CLOSE_CODE, CLOSE_REASON)
            assert (ws.close_code, ws.close_reason) == (CLOSE_CODE, CLOSE_REASON)
    [asked] = origin.requests
    assert asked.all("Upgrade") == ["websocket"]
    assert asked.all("Connection") == ["Upgrade"]
    assert asked.get("Origin") == "http://site.test"
    if route.target:
        assert asked.target == route.target
    else:
        assert asked.target.endswith(route.path)
    [end] = relayed.ends(site)
    assert (end.why, end.where) == ("closed", carrier.where)
    assert end.origin == (f"unix:{origin.path}" if route.to == "unix" else origin.authority)
    assert (end.client_close, end.origin_close) == ((CLOSE_CODE, CLOSE_CODE) if carrier.is_relay else (None, None))
    assert not site.log.matching(relayed.STAYS)


@pytest.mark.carriers("thread", mpms=MPMS)
@pytest.mark.parametrize("route", [r for r in routes.ROUTES if "ws" not in r.path.split("/")[1]], ids=str)
def test_plain_request_on_the_same_route(site, backends, client, route):
    """What is not an upgrade request is proxied as ever, keep-alive included."""
    needs(route)
    talk = client(site.ports["plain"])
    for _ in range(2):
        answer = talk.ask(http.request(route.path))
        assert (answer.status, answer.body) == (200, b"plain\n")
    assert all("Upgrade" not in asked for asked in backends[route.to].requests)


@pytest.mark.parametrize("order", ["proxy first", "proxy last"])
@pytest.mark.parametrize("wstunnel", ["without wstunnel", "wstunnel", "wstunnel, fallback Off"])
def test_module_order_and_wstunnel(httpd, backends, client, order, wstunnel):
    """mod_proxy loaded before or after us, mod_proxy_wstunnel not there, there, and in the way."""
    server = httpd(order=order, wstunnel=wstunnel != "without wstunnel")
    fallback = "ProxyWebsocketFallbackToProxyHttp Off\n" if "Off" in wstunnel else ""
    port = server.vhost(fallback + "WSForward On\n" + routes.directives(server, backends))
    server.start()
    for number, route in enumerate(route for route in routes.ROUTES if is_here(route)):
        with client(port) as talk:
            assert talk.ask(http.handshake(route.path, upgrade="WebSocket")).status == 101, route.name
            talk.echoes(b"%d" % number)
            talk.send_frame(websocket.close_frame(1000))
            assert talk.read_frame().opcode == websocket.CLOSE
        asked = backends[route.to].request
        # mod_proxy_wstunnel would have written its own spelling on the ws:// routes; we keep the client's.
        assert (asked.all("Upgrade"), asked.all("Connection")) == (["WebSocket"], ["Upgrade"]), route.name


RECIPE = """RewriteEngine On
RewriteCond %{{HTTP:Upgrade}} =websocket [NC]
RewriteCond %{{HTTP:Connection}} upgrade [NC]
RewriteRule ^/(.*) http://127.0.0.1:{port}/$1 [P,L,E=UPGRADE:%{{HTTP:Upgrade}},E=CONNECTION:%{{HTTP:Connection}}]
RequestHeader set Upgrade %{{UPGRADE}}e env=UPGRADE
RequestHeader set Connection %{{CONNECTION}}e env=CONNECTION
ProxyPass / http://127.0.0.1:{port}/
"""


def test_recipe_of_rewrite_and_request_header_fails_without_the_module(httpd, backend, client):
    """The popular recipe does nothing on stock Apache: the back end sees a plain request."""
    origin, server = backend(), httpd(module=None)
    port = server.vhost(RECIPE.format(port=origin.port))
    server.start()
    assert client(port).ask(http.handshake("/websockify")).status == 200
    assert "Upgrade" not in origin.request


@pytest.mark.parametrize("mpm", MPMS)
def test_recipe_of_rewrite_and_request_header_works_with_the_module(httpd, backend, client, mpm):
    """The same recipe, unchanged, with WSForward On."""
    origin, server = backend(), httpd(mpm=mpm)
    port = server.vhost("WSForward On\n" + RECIPE.format(port=origin.port))
    server.start()
    talk = client(port)
    assert talk.ask(http.handshake("/websockify", connection="keep-alive, Upgrade")).status == 101
    talk.echoes()
    asked = origin.request
    assert (asked.all("Upgrade"), asked.all("Connection")) == (["websocket"], ["Upgrade"])
    assert client(port).ask(http.request("/page")).body == b"plain\n"
