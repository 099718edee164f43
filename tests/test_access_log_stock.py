"""The same traffic with and without the module, in the same logs: line by line what stock httpd writes."""

import base64
import hashlib
import re

import pytest

from harness import http, relayed, wait
from harness.accesslog import close, frame
from harness.config import MPM

#: Items that are known at the handshake; those of mod_logio are the tunnel's.
REQUEST = ("%a %{c}a %A %h %l %u %H %m %U %q %f %r %s %>s %R %k %v %V %{local}p %B %b %<s %!101{User-Agent}i %101,200{Host}i "
           "%{Cookie}i %{Upgrade}i %{Connection}i %{Sec-WebSocket-Key}i %{nothing}i %{X-Odd}i %{tunnel-name}e %{REMOTE_USER}e "
           "%{session}C %{X-Late}^ti")  # fmt: skip
RESPONSE = ("%>s %{Upgrade}o %{Connection}o %{Sec-WebSocket-Accept}o %{Content-Type}o %{Content-Length}o %{Location}o "
            "%{Server}o %{X-Member}o %{WWW-Authenticate}o %{SSL_PROTOCOL}x %{HTTPS}e")  # fmt: skip
BYTES = "%U %>s %k %I %O %S"
#: How long it took is not the same, but of the same form.
TIMES = "%U %>s %D %{us}T %{ms}T %T %{s}T"
#: Stock says of a tunnel that the client is gone, or not, as it happens to end; see the reference.
ENDS = "%U %>s %X"
LOGS = {
    "request": (REQUEST, ""), "response": (RESPONSE, ""), "bytes": (BYTES, ""), "times": (TIMES, ""), "ends": (ENDS, ""),
    "env": ("%U %>s", " env=wanted"), "noenv": ("%U %>s", " env=!wanted"),
    "expr": ("%U %>s", " \"expr=%{REQUEST_STATUS} -eq 101 || %{HTTP_COOKIE} =~ /session/\""),
}  # fmt: skip
MODULES = ("logio", "auth_basic", "authn_core", "authn_file", "authz_user")
USER = ("Authorization", "Basic " + base64.b64encode(b"alice:secret").decode())


def site_of(httpd, backend, mpm, name):
    """A server, its ports, plain and TLS, and its logs."""
    origin, refusing = backend(), backend()
    refusing.answers(http.page(b"no\n", status="403 Forbidden", fields=[("Content-Type", "text/plain")]))
    server = httpd(mpm=mpm, extra=MODULES, **({} if name == "ours" else {"module": None}))
    server.page("page", "a page\n")
    server.page("folder/index.html", "an index\n")
    users = server.page("users", "alice:{SHA}" + base64.b64encode(hashlib.sha1(b"secret").digest()).decode())
    on = "WSForward On\nWSForwardRelay On" if name == "ours" else ""
    text = f"""{on}
SetEnvIf Request_URI "/(tunnel/[a-z]*)" tunnel-name=$1
SetEnvIf Request_URI "tunnel" wanted
ErrorDocument 404 /page
RedirectMatch "^/old$" "/page"
RewriteEngine On
RewriteRule "^/rewritten/(.*)" "{origin.url("http")}$1" [P]
<Location "/tunnel/closed">
    AuthType Basic
    AuthName "tunnels"
    AuthUserFile "{users}"
    Require valid-user
</Location>
ProxyPass "/page" !
ProxyPass "/none" !
ProxyPass "/folder" !
ProxyPass "/refusing" "{refusing.url("http")}" upgrade=websocket
ProxyPass "/" "{origin.url("http")}" upgrade=websocket"""
    def logs(kind):
        return "".join(f'CustomLog "{server.directory}/{kind}-{file}.log" "{format}"{condition}\n'
                       for file, (format, condition) in LOGS.items())  # fmt: skip
    ports = {kind: server.vhost(logs(kind) + text, tls=kind == "tls") for kind in ("plain", "tls")}
    server.start()
    return server, ports


def traffic():
    """Connections: of which kind, and what is asked on each."""
    agent = ("User-Agent", 'an "agent" \\ with \xe9 and\ta tab')
    cookie = ("Cookie", "session=one; other=two")
    for kind in ("plain", "tls"):
        yield kind, [http.request("/page", fields=[agent])]
        yield kind, [http.request("/page?a=b&c=%22d%22"), http.request("/none"), http.request("/folder/"), http.request("/old")]
        yield kind, [http.request("/page", method="HEAD"), http.request("/page", fields=[("If-None-Match", "*")])]
        yield kind, [http.request("/proxied/%C3%A9%0A", fields=[cookie]), http.request("/proxied/two")]
        yield kind, [http.request("/proxied/post", method="POST", fields=[("Content-Length", "4")], body=b"body")]
        yield kind, [http.request("/tunnel/closed")]
        yield kind, [http.handshake("/tunnel/closed", fields=[agent])]
        yield kind, [http.request("/page", host=None)]
        yield kind, [http.handshake("/refusing/it")]
        # Tunnels.
        yield kind, [http.handshake("/tunnel/one")]
        yield kind, [http.handshake("/tunnel/two?query=%22%0A", fields=[agent, cookie, ("X-Odd", "a|b")])]
        yield kind, [http.request("/page"), http.request("/proxied/before"), http.handshake("/tunnel/three")]
        yield kind, [http.handshake("/tunnel/closed", fields=[USER])]
        yield kind, [http.handshake("/tunnel/other", host="other.test:8080")]


def converse(server, ports, client):
    """Has it all, one connection after the other."""
    for kind, requests in traffic():
        talk = client(ports[kind], server.certificate.client_context("tls1.3") if kind == "tls" else None)
        for request in requests:
            answer = talk.ask(request, "HEAD" if request.startswith(b"HEAD") else "GET")
        if answer.status == 101:
            for _ in range(3):
                talk.echoes(frame(b"hello"))
            close(talk)
        talk.close()


def written(server, kind, file):
    """The lines of a log in an order of their own, without what no two servers share."""
    path = server.directory / f"{kind}-{file}.log"
    lines = path.read_text().replace(str(server.directory), "ROOT").splitlines() if path.exists() else []
    return sorted(lines if file in LIKE else [re.sub(r"\b\d{5}\b", "PORT", line) for line in lines])


@pytest.mark.parametrize("mpm", MPM)
def test_mixed_traffic_leaves_the_lines_of_stock(httpd, backend, client, mpm):
    left, count = {}, {kind: sum(len(asked) for of, asked in traffic() if of == kind) for kind in ("plain", "tls")}
    for name in ("stock", "ours"):
        server, ports = site_of(httpd, backend, mpm, name)
        converse(server, ports, client)
        for kind in ports:
            for file in ("request", "response", "bytes", "times", "ends"):
                wait.until(lambda log=(server, kind, file), count=count[kind]: len(written(*log)) == count,
                           lambda log=(server, kind, file), count=count[kind]: f"{count} lines: {written(*log)}")  # fmt: skip
        if name == "ours":
            tunnels = sum(line.startswith("101 ") for kind in ports for line in written(server, kind, "response"))
            assert relayed.figures(server)["HandedOver"] == tunnels == 10
        left[name] = {(kind, file): written(server, kind, file) for kind in ports for file in LOGS}
    for (kind, file), stock in left["stock"].items():
        ours = left["ours"][kind, file]
        assert len(ours) == len(stock), (kind, file)
        for line, of_stock in zip(ours, stock, strict=True):
            like = line == of_stock if file not in LIKE else LIKE[file](kind, line.split(), of_stock.split())
            assert like, f"{kind}, {file}:\n{line}\n{of_stock}"


def like_bytes(kind, ours, stock):
    """httpd counts a byte of a request that follows another one there or here, as it happens to come. The
    size of TLS's signatures differs from handshake to handshake, and a tunnel with TLS counts otherwise."""
    *what, came, went, both = ours
    off = [abs(int(here) - int(there)) for here, there in zip((came, went), stock[3:5], strict=True)]
    follows, is_tunnel = what[2] != "0", what[1] == "101"
    near = off[0] <= follows and off[1] == 0 if kind == "plain" else is_tunnel or max(off) <= 8
    return what == stock[:3] and int(both) == int(came) + int(went) and near


def like_times(_kind, ours, stock):
    micros, *others = map(int, ours[2:])
    return ours[:2] == stock[:2] and others == [micros, micros // 1000, micros // 10**6, micros // 10**6]


def like_ends(_kind, ours, stock):
    return ours == stock or (ours[1] == "101" and ours[:2] == stock[:2])


#: Logs of which not each byte is the same.
LIKE = {"bytes": like_bytes, "times": like_times, "ends": like_ends}
