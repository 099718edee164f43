"""WSForwardOrigin: who may open a WebSocket, asked before a place or a back end is taken."""

import pytest

from harness import http, relayed, relaysite, wait
from harness.h2client import Http2Client

pytestmark = pytest.mark.carriers("thread", "relay", "http2")

REFUSED = "WSF0140"
#: The site as its clients know it.
OWN = "https://site.test"
#: More words than httpd passes to a directive by itself.
MANY = [f"https://tenant{number}.example" for number in range(100)]
SITES = f"""<Location "/many">
    WSForwardOrigin {" ".join(MANY)} required
</Location>
""" + """<Location "/same">
    WSForwardOrigin same
</Location>
<Location "/same/required">
    WSForwardOrigin same required
</Location>
<Location "/required">
    WSForwardOrigin required
</Location>
<Location "/listed">
    WSForwardOrigin https://example.com https://*.example.com http://[::1]:8080 null
</Location>
<Location "/listed/any">
    WSForwardOrigin any
</Location>
<Location "/if">
    <If "%{HTTP:X-Strict} == 'yes'">
        WSForwardOrigin same
    </If>
</Location>
<Location "/unset">
    WSForwardOrigin https://example.com
    RequestHeader unset Origin
</Location>
# Another section's, by a redirect within the server.
<Location "/moved">
    RequestHeader unset Origin
    ProxyPass "!"
    RewriteEngine On
    RewriteRule "^" "/same/there"
</Location>
<Location "/set">
    WSForwardOrigin required https://example.com
    RequestHeader set Origin https://example.com
</Location>
"""
#: Further ports: a proxy in front ends TLS; the name of the site is the canonical one.
PORTS = {
    "behind": ("ServerName https://site.test", False),
    "canonical": ("ServerName https://www.site.test:8443\nUseCanonicalName On", False),
}


@pytest.fixture(scope="module")
def origins(shared_backend):
    return relaysite.origins(shared_backend)


@pytest.fixture(scope="module")
def server(carrier, shared_httpd, origins):
    return carrier.start(shared_httpd, origins, SITES, PORTS)


@pytest.fixture
def ask(carrier, server, origins, client, certificate):
    """The status of a handshake with these fields, the site being https://site.test."""
    asked = []

    def ask(path, *origin, fields=(), host="site.test", port="tls"):
        fields = [*(("Origin", value) for value in origin), *fields]
        if carrier.name == "http2":
            talk = Http2Client(server.ports["tls"], certificate.client_context("tls1.3", ["h2"]))
            asked.append(talk.sock)
            status = talk.websocket(path, [(name.lower(), value) for name, value in fields]).status
            return 101 if status == 200 else status
        tls = certificate.client_context("tls1.3") if port == "tls" else None
        with client(server.ports[port], tls) as talk:
            return talk.ask(http.handshake(path, fields=fields, host=host)).status

    yield ask
    for sock in asked:
        sock.close()


def refusals(server):
    return relayed.figures(server)["Refused-origin"]


FOREIGN = [
    ("/same", ["https://evil.example"]), ("/same", ["http://site.test"]), ("/same", ["https://site.test:1"]),
    ("/same", ["null"]), ("/same", [""]), ("/same", ["https://site.test", "https://site.test"]),
    ("/same", ["https://site.test.evil.example"]), ("/same", ["https://site.test@evil.example"]),
    ("/same", ["https://site.test/"]), ("/same", ["site.test"]), ("/same/required", []),
    ("/required", []), ("/required", ["rubbish"]), ("/listed", ["https://evil.example"]),
    ("/listed", ["http://example.com"]), ("/listed", ["https://evilexample.com"]),
    ("/listed", ["https://a.b.example.com"]), ("/listed", ["http://[::1]"]), ("/listed", ["https://example.com:8443"]),
    ("/unset", ["https://evil.example"]), ("/set", ["https://evil.example"]), ("/set", []),
    ("/moved", ["https://evil.example"]), ("/many", []), ("/many", ["https://tenant100.example"]),
]  # fmt: skip


@pytest.mark.parametrize(("path", "origin"), FOREIGN, ids=[f"{path} {','.join(origin)}" for path, origin in FOREIGN])
def test_foreign_origin_is_refused(server, origins, ask, path, origin):
    """403, counted, with the reason in the log; the back end is not asked."""
    before, seen = refusals(server), len(origins["tcp"].connections)
    server.expect_log(REFUSED, certain=False)
    with relayed.Counted(server, Refused_origin=1):
        assert ask(path, *origin) == 403
    assert refusals(server) == before + 1
    assert len(origins["tcp"].connections) == seen


WELCOME = [
    ("/same", []), ("/same", ["own"]), ("/same/required", ["own"]), ("/required", ["https://evil.example"]),
    ("/required", ["null"]), ("/listed", []), ("/listed", ["https://example.com"]), ("/listed", ["HTTPS://EXAMPLE.COM:443"]),
    ("/listed", ["https://a.example.com."]), ("/listed", ["http://[0:0::1]:8080"]), ("/listed", ["null"]),
    ("/listed/any", ["https://evil.example"]), ("/other", ["https://evil.example", "rubbish"]),
    ("/unset", ["https://example.com"]), ("/set", ["https://example.com"]), ("/if", ["https://evil.example"]),
    ("/moved", ["own"]), ("/moved", []), ("/many", [MANY[63]]), ("/many", [MANY[64]]), ("/many", [MANY[-1]]),
]  # fmt: skip


@pytest.mark.parametrize(("path", "origin"), WELCOME, ids=[f"{path} {','.join(origin)}" for path, origin in WELCOME])
def test_welcome_origin_passes(server, ask, path, origin):
    before = refusals(server)
    assert ask(path, *(OWN if one == "own" else one for one in origin)) == 101
    assert refusals(server) == before


def test_if_decides_by_the_request(server, ask):
    server.expect_log(REFUSED, certain=False)
    assert ask("/if", "https://evil.example", fields=[("X-Strict", "yes")]) == 403


@pytest.mark.carriers("thread", "relay", mpms=["event"])
@pytest.mark.parametrize(("port", "host", "origin", "status"), [
    ("plain", "site.test", "http://site.test", 101),
    ("plain", "SITE.test.", "http://site.test:80", 101),
    ("plain", "site.test:8080", "http://site.test:8080", 101),
    ("plain", "site.test:8080", "http://site.test", 403),
    ("plain", "[::1]:8080", "http://[::1]:8080", 101),
    ("plain", "site.test", "https://site.test", 403),
    ("behind", "site.test", "https://site.test", 101),
    ("behind", "site.test", "http://site.test", 403),
    ("canonical", "inside.test", "https://www.site.test:8443", 101),
    ("canonical", "inside.test", "https://inside.test", 403),
])  # fmt: skip
def test_same_is_the_site_as_httpd_knows_it(server, ask, port, host, origin, status):
    """Host, or ServerName where UseCanonicalName says so; the scheme of ServerName, if it has one, else by TLS."""
    if status == 403:
        server.expect_log(REFUSED, certain=False)
    assert ask("/same", origin, host=host, port=port) == status


@pytest.mark.carriers("relay", mpms=["event"])
def test_plain_requests_are_not_asked(server, origins, client):
    """It is about upgrade requests: a page of another site may embed a picture of this one."""
    origins["tcp"].answers(http.page())
    answer = client(server.ports["plain"]).ask(http.request("/same", fields=[("Origin", "https://evil.example")]))
    assert answer.status == 200


@pytest.mark.carriers("relay")
def test_refused_takes_no_place_and_blames_nobody(httpd, backend, client, carrier):
    """Neither a place among the tunnels nor a member of a balancer, whatever failonstatus says."""
    origin, server = backend(), carrier.httpd(httpd)
    balancer = f"""WSForward On
WSForwardRelay On
WSForwardOrigin same
<Proxy "balancer://one">
    BalancerMember "{origin.url("http", "")}" retry=60
    ProxySet failonstatus=403
</Proxy>
ProxyPass "/" "balancer://one/"
RewriteEngine On
"""
    # An upgrade request as it comes, and one that becomes one in the handler.
    server.directives("WSForwardMaxTunnels 1")
    port = server.vhost(balancer)
    server.start()
    server.expect_log(f'{REFUSED}: .*its Origin "https://evil.example" is not among those allowed, nor the same as http://site.test')
    for _ in range(5):
        assert client(port).ask(http.handshake(fields=[("Origin", "https://evil.example")])).status == 403
    assert relayed.figures(server)["Refused-origin"] == 5
    talk = relayed.opened(server, client(port), fields=[("Origin", "http://site.test")])
    talk.echoes()
    talk.close()
    wait.until(lambda: relayed.figures(server)["Tunnels"] == 0, "it is over")
    assert client(port).ask(http.request()).body == b"plain\n"
