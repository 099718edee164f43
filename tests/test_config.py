"""Issue section 7: directives, their wrong values, and how sections merge."""

import re
import subprocess

import pytest

from harness import http, paths, steps, wait

# Messages of configtest.

FLAG, TOKENS = "On or Off", "Upgrade tokens such as websocket"
TIME, ABOVE_0 = "a time such as 30, 30s, 500ms or 5min", "a time above 0 such as 30, 30s, 500ms or 5min"
KEEP_ALIVE = "Off, or three numbers such as 60 20 3"
SECONDS, COUNT = "a number from 1 to 32767", "a number from 1 to 127"
TUNNELS, THREADS = "a number from 0 to 4294967295", "a number from 1 to 64"
CHECK, CLOSE_CODE, TLS = "strict, lenient or off", "1001 or 1012", "openssl or native"
EXTENSIONS = "any, none, or names of extensions such as permessage-deflate"
LIFETIME = "a time such as 8h, and a percentage from 0% to 100%"
ORIGIN = "any, or of same, required, null and origins such as https://example.com or https://*.example.com"
PING = "Off, or one or two times from 1s on such as 30s 10s"
RATE = "0, or a number of messages in a second such as 20/s, and one of those at once, each up to 1000000"
BANDWIDTH = "0, or a number of bytes in a second such as 65536/s, up to 1000000000000/s"
MESSAGE = "one or two numbers of bytes such as 1048576, 0 is no limit"
LOG_INTERVAL = "0, or a time from 1s on such as 10min"
PREFIXES = "two numbers such as 32 64"
BYTES, PROCESSES = "a number from 4096 to 1048576", "auto, or a number from 1 to 1536"

REGISTER, FILE, PERCENT = "a number from 1 to 262144", "the path of a file", "a number of percent from 1 to 100"

WRONG = [
    ("WSForward", None, FLAG),
    ("WSForward Maybe", "Maybe", FLAG),
    ("WSForward On Off", "On Off", FLAG),
    ("WSForwardRelay", None, FLAG),
    ("WSForwardRelay Maybe", "Maybe", FLAG),
    ("WSForwardProtocols", None, TOKENS),
    ('WSForwardProtocols ""', None, TOKENS),
    ('WSForwardProtocols "web socket"', "web socket", TOKENS),
    ("WSForwardProtocols websocket,mqtt", "websocket,mqtt", TOKENS),
    ("WSForwardProtocols websocket h2c", "h2c", TOKENS),
    ("WSForwardProtocols H2C", "H2C", TOKENS),
    ("WSForwardProtocols TLS/1.0", "TLS/1.0", TOKENS),
    ("WSForwardCheck", None, CHECK),
    ("WSForwardCheck on", "on", CHECK),
    ("WSForwardCheck strict off", "strict off", CHECK),
    ("WSForwardMaxLifetime", None, LIFETIME),
    ("WSForwardMaxLifetime long", "long", LIFETIME),
    ("WSForwardMaxLifetime -1", "-1", LIFETIME),
    ("WSForwardMaxLifetime 9999999999", "9999999999", LIFETIME),
    ("WSForwardMaxLifetime 1h 10", "1h 10", LIFETIME),
    ("WSForwardMaxLifetime 1h 101%", "1h 101%", LIFETIME),
    ("WSForwardMaxLifetime 1h 1% 1%", "1h 1% 1%", LIFETIME),
    ("WSForwardOrigin", None, ORIGIN),
    ("WSForwardOrigin example.com", "example.com", ORIGIN),
    ("WSForwardOrigin any same", "any same", ORIGIN),
    ("WSForwardOrigin same https://example.com/", "https://example.com/", ORIGIN),
    ("WSForwardOrigin https://user@example.com", "https://user@example.com", ORIGIN),
    ("WSForwardOrigin https://*", "https://*", ORIGIN),
    ("WSForwardOrigin https://a.*.example", "https://a.*.example", ORIGIN),
    ("WSForwardOrigin https://example.com:0", "https://example.com:0", ORIGIN),
    ("WSForwardExtensions", None, EXTENSIONS),
    ("WSForwardExtensions a,b", "a,b", EXTENSIONS),
    ("WSForwardExtensions none x", "none x", EXTENSIONS),
    ("WSForwardExtensions x any", "x any", EXTENSIONS),
    ('WSForwardExtensions "a; b"', "a; b", EXTENSIONS),
    ("WSForwardHandshakeTimeout", None, ABOVE_0),
    ("WSForwardHandshakeTimeout 0", "0", ABOVE_0),
    ("WSForwardHandshakeTimeout -1", "-1", ABOVE_0),
    ("WSForwardHandshakeTimeout soon", "soon", ABOVE_0),
    ("WSForwardHandshakeTimeout s", "s", ABOVE_0),
    ("WSForwardHandshakeTimeout 5parsecs", "5parsecs", ABOVE_0),
    ("WSForwardHandshakeTimeout 1 2", "1 2", ABOVE_0),
    ("WSForwardHandshakeTimeout 99999999999999999999", "99999999999999999999", ABOVE_0),
    ("WSForwardIdleTimeout", None, TIME),
    ("WSForwardIdleTimeout never", "never", TIME),
    ("WSForwardIdleTimeout -5", "-5", TIME),
    ("WSForwardIdleTimeout 99999999999999999999", "99999999999999999999", TIME),
    ("WSForwardAccessLogInterval", None, LOG_INTERVAL),
    ("WSForwardAccessLogInterval Off", "Off", LOG_INTERVAL),
    ("WSForwardAccessLogInterval 500ms", "500ms", LOG_INTERVAL),
    ("WSForwardAccessLogInterval -1", "-1", LOG_INTERVAL),
    ("WSForwardAccessLogInterval 1 2", "1 2", LOG_INTERVAL),
    ("WSForwardPing", None, PING),
    ("WSForwardPing On", "On", PING),
    ("WSForwardPing 0", "0", PING),
    ("WSForwardPing 500ms", "500ms", PING),
    ("WSForwardPing 30s never", "30s never", PING),
    ("WSForwardPing Off 10", "Off 10", PING),
    ("WSForwardPing 1 2 3", "1 2 3", PING),
    ("WSForwardMaxMessage", None, MESSAGE),
    ("WSForwardMaxMessage 64k", "64k", MESSAGE),
    ("WSForwardMaxMessage -1", "-1", MESSAGE),
    ("WSForwardMaxMessage 9223372036854775808", "9223372036854775808", MESSAGE),
    ("WSForwardMaxMessage 1 -2", "1 -2", MESSAGE),
    ("WSForwardMaxMessage 1 2 3", "1 2 3", MESSAGE),
    ("WSForwardMessageRate", None, RATE),
    ("WSForwardMessageRate 20", "20", RATE),
    ("WSForwardMessageRate 0/s", "0/s", RATE),
    ("WSForwardMessageRate -1/s", "-1/s", RATE),
    ("WSForwardMessageRate 20/min", "20/min", RATE),
    ("WSForwardMessageRate 1000001/s", "1000001/s", RATE),
    ("WSForwardMessageRate 20/s 0", "20/s 0", RATE),
    ("WSForwardMessageRate 20/s 40/s", "20/s 40/s", RATE),
    ("WSForwardMessageRate 0 10", "0 10", RATE),
    ("WSForwardMessageRate 20/s 40 1", "20/s 40 1", RATE),
    ("WSForwardBandwidth", None, BANDWIDTH),
    ("WSForwardBandwidth 64k", "64k", BANDWIDTH),
    ("WSForwardBandwidth -1/s", "-1/s", BANDWIDTH),
    ("WSForwardBandwidth 1000000000001/s", "1000000000001/s", BANDWIDTH),
    ("WSForwardBandwidth 65536/s 131072", "65536/s 131072", BANDWIDTH),
    ("WSForwardStrict", None, FLAG),
    ("WSForwardStrict Maybe", "Maybe", FLAG),
    ("WSForwardStrict On Off", "On Off", FLAG),
    ("WSForwardDrainTimeout", None, TIME),
    ("WSForwardDrainTimeout never", "never", TIME),
    ("WSForwardDrainTimeout 1 2", "1 2", TIME),
    ("WSForwardDrainTimeout 1h30min", "1h30min", TIME),
    ("WSForwardDrainTimeout 30sx", "30sx", TIME),
    ("WSForwardDrainTimeout 500msec", "500msec", TIME),
    ("WSForwardDrainTimeout 10s5", "10s5", TIME),
    ("WSForwardDrainTimeout h", "h", TIME),
    (f"WSForwardProtocols websocket {' '.join(f'p{n}' for n in range(100))} ,", ",", TOKENS),
    ("WSForwardMaxTunnels", None, TUNNELS),
    ("WSForwardMaxTunnels many", "many", TUNNELS),
    ("WSForwardMaxTunnels -1", "-1", TUNNELS),
    ("WSForwardMaxTunnels 4294967296", "4294967296", TUNNELS),
    ("WSForwardMaxTunnels 1 2", "1 2", TUNNELS),
    ("WSForwardMaxTunnelsPerClient", None, TUNNELS),
    ("WSForwardMaxTunnelsPerClient -1", "-1", TUNNELS),
    ("WSForwardMaxTunnelsPerClient some", "some", TUNNELS),
    ("WSForwardMaxTunnelsPerBackend", None, TUNNELS),
    ("WSForwardMaxTunnelsPerBackend -1", "-1", TUNNELS),
    ("WSForwardMaxTunnelsPerBackend 4294967296", "4294967296", TUNNELS),
    ("WSForwardClientPrefix", None, PREFIXES),
    ("WSForwardClientPrefix 32", "32", PREFIXES),
    ("WSForwardClientPrefix 32 64 96", "32 64 96", PREFIXES),
    ("WSForwardClientPrefix 0 64", "0", "a number from 1 to 32"),
    ("WSForwardClientPrefix 33 64", "33", "a number from 1 to 32"),
    ("WSForwardClientPrefix 32 0", "0", "a number from 1 to 128"),
    ("WSForwardClientPrefix 32 129", "129", "a number from 1 to 128"),
    ("WSForwardClientPrefix /24 64", "/24", "a number from 1 to 32"),
    ("WSForwardMaxDrainProcesses", None, PROCESSES),
    ("WSForwardMaxDrainProcesses 0", "0", PROCESSES),
    ("WSForwardMaxDrainProcesses 1537", "1537", PROCESSES),
    ("WSForwardCloseSpread", None, TIME),
    ("WSForwardCloseSpread never", "never", TIME),
    ("WSForwardCloseSpread -1", "-1", TIME),
    ("WSForwardCloseSpread 1 2", "1 2", TIME),
    ("WSForwardCloseCode", None, CLOSE_CODE),
    ("WSForwardCloseCode 1000", "1000", CLOSE_CODE),
    ("WSForwardCloseCode 01012", "01012", CLOSE_CODE),
    ("WSForwardCloseCode 1001 1012", "1001 1012", CLOSE_CODE),
    ("WSForwardRelayThreads", None, THREADS),
    ("WSForwardRelayThreads 0", "0", THREADS),
    ("WSForwardRelayThreads 65", "65", THREADS),
    ("WSForwardRelayThreads two", "two", THREADS),
    ("WSForwardTLS", None, TLS),
    ("WSForwardTLS On", "On", TLS),
    ("WSForwardTLS native openssl", "native openssl", TLS),
    ("WSForwardBufferSize", None, BYTES),
    ("WSForwardBufferSize 4095", "4095", BYTES),
    ("WSForwardBufferSize 1048577", "1048577", BYTES),
    ("WSForwardBufferSize 64k", "64k", BYTES),
    ("WSForwardRegisterSize", None, REGISTER),
    ("WSForwardRegisterSize 0", "0", REGISTER),
    ("WSForwardRegisterSize 262145", "262145", REGISTER),
    ("WSForwardRegisterSize 1 2", "1 2", REGISTER),
    ("WSForwardReadyFile", None, FILE),
    ("WSForwardReadyFile a b", "a b", FILE),
    ("WSForwardReadyBelow", None, PERCENT),
    ("WSForwardReadyBelow 0", "0", PERCENT),
    ("WSForwardReadyBelow 101%", "101%", PERCENT),
    ("WSForwardReadyBelow %", "%", PERCENT),
    ("WSForwardReadyBelow half", "half", PERCENT),
    ("WSForwardKeepAlive", None, KEEP_ALIVE),
    ("WSForwardKeepAlive On", "On", KEEP_ALIVE),
    ("WSForwardKeepAlive 60", "60", KEEP_ALIVE),
    ("WSForwardKeepAlive 60 20", "60 20", KEEP_ALIVE),
    ("WSForwardKeepAlive 60 20 3 1", "60 20 3 1", KEEP_ALIVE),
    ("WSForwardKeepAlive 0 20 3", "0", SECONDS),
    ("WSForwardKeepAlive 60 0 3", "0", SECONDS),
    ("WSForwardKeepAlive 60 20 128", "128", COUNT),
    ("WSForwardKeepAlive 60 20 -3", "-3", COUNT),
    ("WSForwardKeepAlive a b c", "a", SECONDS),
]


@pytest.mark.parametrize(("line", "value", "allowed"), WRONG, ids=[line for line, *_ in WRONG])
def test_wrong_value_fails_configtest(httpd, line, value, allowed):
    """With the directive, the value and what is allowed, in one line."""
    server = httpd()
    server.directives(line)
    status, text = server.configtest()
    assert status != 0, text
    [message] = [part for part in text.splitlines() if part and "Syntax error on line" not in part and "AH01882" not in part]
    seen = "no value" if value is None else f'"{value}" is not allowed'
    assert message == f"{line.split()[0]}: {seen}, expected {allowed}"


OVERRIDE = '<Directory "/var/empty">\nAllowOverride {}\n</Directory>\n'
LOCATION = '<Location "/chat">\n{}\n</Location>\n'
VHOST = '<VirtualHost 127.0.0.1:1>\n{}\n</VirtualHost>\n'
RELAY, FORWARD = "WSForwardRelay On", "WSForward On"


@pytest.mark.parametrize(("text", "warnings"), [
    (RELAY, 1),
    (LOCATION.format('WSForwardRelay "on"'), 1),
    (f"{RELAY}\nWSForward Off", 1),
    (LOCATION.format(f"<If \"true\">\n{RELAY}\n</If>"), 1),
    (VHOST.format(RELAY) + VHOST.format(FORWARD), 1),
    (RELAY + "\n" + VHOST.format(RELAY), 2),
    (OVERRIDE.format("AuthConfig Limit") + RELAY, 1),
    ("WSForwardRelay Off", 0),
    (FORWARD, 0),
    (f"{RELAY}\n{FORWARD}", 0),
    (f"{RELAY}\n" + LOCATION.format(FORWARD), 0),
    (f"{RELAY}\n" + VHOST.format(FORWARD), 0),
    (f"{FORWARD}\n" + VHOST.format(RELAY), 0),
    (VHOST.format(LOCATION.format(RELAY) + "<IfModule !no.c>\n" + FORWARD + "\n</IfModule>"), 0),
    (OVERRIDE.format("Limit FileInfo") + RELAY, 0),
    (OVERRIDE.format("All") + RELAY, 0),
    ('<Directory "/var/empty">\nAllowOverrideList WSForward\n</Directory>\n' + RELAY, 0),
])  # fmt: skip
def test_relay_without_forward_is_a_warning(httpd, text, warnings):
    """For what cannot be meant, and for nothing else: what could be right has no warning."""
    server = httpd()
    server.directives(text)
    status, said = server.configtest()
    assert status == 0, said
    assert said.count("WSF0114: WSForwardRelay On (") == warnings, said


def test_relay_without_forward_is_in_the_log(httpd):
    """At the start and at each reload."""
    server = httpd()
    server.directives(RELAY)
    server.log.expect("WSF0114: .*httpd.conf:[0-9]+. does nothing without WSForward On", True)
    server.start()
    count = len(server.log.matching("WSF0114"))
    assert count > 0
    server.reload()
    assert len(server.log.matching("WSF0114")) == count + 1


@pytest.mark.parametrize("line", [
    "WSForward On", "WSForward off", "wsforward ON", "WSForwardProtocols websocket", "WSForwardProtocols websocket my/1",
    "WSForwardCheck strict", "WSForwardCheck LENIENT", "WSForwardCheck off", "WSForwardHandshakeTimeout 5", "WSForwardHandshakeTimeout 5s", "WSForwardHandshakeTimeout 500ms",
    "WSForwardOrigin any", "WSForwardOrigin SAME required null https://*.example.com:8443",
    "WSForwardMaxLifetime 0", "WSForwardMaxLifetime 8h 10%", "WSForwardExtensions None", "WSForwardExtensions permessage-deflate x-a",
    "WSForwardHandshakeTimeout 1min", "WSForwardHandshakeTimeout 1mi", "WSForwardIdleTimeout 0", "WSForwardIdleTimeout 60", "WSForwardIdleTimeout 1h",
    "WSForwardAccessLogInterval 0", "WSForwardAccessLogInterval 1", "WSForwardAccessLogInterval 10min", "WSForwardPing Off", "WSForwardPing 30s", "WSForwardPing 1 1min", "WSForwardMaxMessage 0", "WSForwardMaxMessage 1048576 0", "WSForwardMaxMessage 1 9223372036854775807", "WSForwardStrict On",
    "WSForwardMessageRate 0", "WSForwardMessageRate 20/s", "WSForwardMessageRate 1/s 1000000", "WSForwardBandwidth 0", "WSForwardBandwidth 65536/s", "WSForwardBandwidth 65536",
])
@pytest.mark.parametrize("where", ["server", "vhost", "Directory", "Location", "Proxy", "If"])
def test_right_value_passes_configtest_everywhere(httpd, line, where):
    server = httpd()
    if where == "server":
        server.directives(line)
    elif where == "vhost":
        server.vhost(line)
    else:
        argument = {"Directory": '"/srv"', "Location": '"/x"', "Proxy": '"http://127.0.0.1:1/"', "If": '"true"'}[where]
        server.vhost(f"<{where} {argument}>\n{line}\n</{where}>")
    status, text = server.configtest()
    assert status == 0, text


def said(text):
    """The one line of configtest that is the module's."""
    [line] = [line for line in text.splitlines() if "WSF" in line]
    return line


def test_on_without_mod_proxy_says_so(httpd):
    """One line that names what is missing, and configtest fails."""
    server = httpd(without=["proxy", "proxy_http", "proxy_balancer", "lbmethod_byrequests"], wstunnel=False)
    server.directives("WSForward On")
    status, text = server.configtest()
    assert status != 0
    assert "WSF0001: WSForward On needs mod_proxy and mod_proxy_http: load both" in said(text)


def test_on_without_mod_proxy_http_says_so(httpd):
    server = httpd(without=["proxy_http"], wstunnel=False)
    server.directives("WSForward On")
    status, text = server.configtest()
    assert status != 0
    assert "WSF0001: WSForward On needs mod_proxy and mod_proxy_http: load both" in said(text)


@pytest.mark.parametrize("text", ["", "WSForward Off"])
def test_off_without_mod_proxy_is_fine(httpd, client, text):
    """Loaded and unused it is in nobody's way."""
    server = httpd(without=["proxy", "proxy_http", "proxy_balancer", "lbmethod_byrequests"], wstunnel=False)
    server.page("x.txt", "a file\n")
    port = server.vhost(text)
    assert server.configtest()[0] == 0
    server.start()
    assert client(port).ask(http.request("/x.txt")).body == b"a file\n"


def test_loads_without_mod_ssl(httpd, backend, client):
    origin, server = backend(), httpd(without=["ssl", "socache_shmcb"])
    port = server.vhost(f'WSForward On\nProxyPass "/" "{origin.url("http")}"')
    server.start()
    assert client(port).ask(http.handshake()).status == 101


def test_htaccess_without_fileinfo_is_refused(httpd, backend, client):
    """.htaccess needs AllowOverride FileInfo: with less, httpd says what is not allowed here."""
    origin, server = backend(), httpd()
    server.page("x/.htaccess", "WSForward On\n")
    port = server.vhost(f"""<Directory "{server.htdocs}/x">
    AllowOverride AuthConfig
</Directory>""")
    server.start()
    server.expect_log(r"core:alert\].*WSForward not allowed here")
    assert client(port).ask(http.request("/x/file")).status == 500
    assert not origin.requests


def test_wrong_value_in_htaccess_is_an_error_of_the_request(httpd, client):
    server = httpd()
    server.page("x/.htaccess", "WSForward Maybe\n")
    port = server.vhost(f"""<Directory "{server.htdocs}/x">
    AllowOverride FileInfo
</Directory>""")
    server.start()
    server.expect_log(r'core:alert\].*WSForward: .*"Maybe".*On or Off')
    assert client(port).ask(http.request("/x/file")).status == 500


# Which section decides.


@pytest.fixture(scope="module")
def origin(shared_backend):
    return shared_backend()


@pytest.fixture(scope="module")
def server(shared_httpd, origin):
    made = shared_httpd()
    url = origin.url("http", "")
    made.page("on/.htaccess", f'WSForward On\nRewriteEngine On\nRewriteRule "^(.*)" "{url}/$1" [P]\n')
    made.page("off/.htaccess", f'WSForward Off\nRewriteEngine On\nRewriteRule "^(.*)" "{url}/$1" [P]\n')
    htaccess = f'<Directory "{made.htdocs}">\n    AllowOverride FileInfo\n</Directory>'
    ways = f"""ProxyPass "/a" "{url}/a"
ProxyPass "/b" "{url}/b"
"""
    texts = {
        "inherited": ways,
        "vhost off": "WSForward Off\n" + ways,
        "location on": f'WSForward Off\n{ways}<Location "/a">\n    WSForward On\n</Location>',
        "location off": f'{ways}<Location "/a">\n    WSForward Off\n</Location>',
        "nested": f"""{ways}<Location "/a">
    WSForward Off
</Location>
<Location "/a/deeper">
    WSForward On
</Location>""",
        "unset keeps": f"""{ways}<Location "/a">
    WSForwardIdleTimeout 60
</Location>""",
        "proxy off": f'{ways}<Proxy "{url}/a*">\n    WSForward Off\n</Proxy>',
        "proxy on": f'WSForward Off\n{ways}<Proxy "{url}/a*">\n    WSForward On\n</Proxy>',
        "proxymatch on": f'WSForward Off\n{ways}<ProxyMatch "^{url}/a">\n    WSForward On\n</ProxyMatch>',
        "if": f"""WSForward Off
{ways}<If "%{{HTTP:X-Please}} == 'yes'">
    WSForward On
</If>""",
        "htaccess": "WSForward Off\n" + htaccess,
        "htaccess off": htaccess,
        "fields": f"""WSForwardProtocols my/1
{ways.replace('/a"' + chr(10), '/a" upgrade=my/1' + chr(10))}<Location "/b">
    WSForwardProtocols websocket
</Location>""",
    }
    made.directives("WSForward On")
    made.ports = {name: made.vhost("RewriteEngine Off\n" + text) for name, text in texts.items()}
    return made.start()


def upgraded(server, client, name, path, fields=(), upgrade="websocket"):
    """True if the handshake got through, False if it was proxied as a plain request."""
    answer = client(server.ports[name]).ask(http.handshake(path, fields=fields, upgrade=upgrade))
    assert answer.status in (101, 200)
    return answer.status == 101


@pytest.mark.parametrize(("name", "path", "expected"), [
    ("inherited", "/a", True), ("vhost off", "/a", False),
    ("location on", "/a", True), ("location on", "/b", False),
    ("location off", "/a", False), ("location off", "/b", True),
    ("nested", "/a", False), ("nested", "/a/deeper", True), ("unset keeps", "/a", True),
    ("proxy off", "/a", False), ("proxy off", "/b", True), ("proxy on", "/a", True), ("proxy on", "/b", False),
    ("proxymatch on", "/a", True), ("proxymatch on", "/b", False),
    ("htaccess", "/on/x", True), ("htaccess off", "/off/x", False)])  # fmt: skip
def test_section_decides(server, origin, client, name, path, expected):
    """The innermost section that says something; unset is not Off."""
    assert upgraded(server, client, name, path) is expected


def test_if_decides_by_the_request(server, origin, client):
    assert upgraded(server, client, "if", "/a", [("X-Please", "yes")])
    assert not upgraded(server, client, "if", "/a", [("X-Please", "no")])


def test_fields_merge_one_by_one(server, origin, client):
    """WSForward comes from the server, WSForwardProtocols from the vhost or the location."""
    origin.answers(steps.switch(), steps.echo, steps.close)
    assert upgraded(server, client, "fields", "/a", upgrade="my/1")
    assert upgraded(server, client, "fields", "/b", upgrade="websocket")
    origin.answers(http.page(), steps.keep)
    assert not upgraded(server, client, "fields", "/a", upgrade="websocket")


def test_log_level_of_the_module(httpd, backend, client):
    """LogLevel wsforward:... works by itself, and by directory."""
    origin, server = backend(), httpd()
    proxied = f'WSForward On\nProxyPass "/" "{origin.url("http")}"\n'
    quiet = server.vhost(proxied + "LogLevel wsforward:info")
    loud = server.vhost(proxied + "LogLevel wsforward:debug")
    by_location = server.vhost(proxied + 'LogLevel wsforward:info\n<Location "/loud">\n    LogLevel wsforward:debug\n</Location>')
    server.start()
    for port, path, expected in ((quiet, "/", False), (loud, "/", True), (by_location, "/", False), (by_location, "/loud", True)):
        server.log.open_span()
        with client(port) as talk:
            assert talk.ask(http.handshake(path)).status == 101
        server.wait_idle()
        lines = server.log.matching(r"\[wsforward:debug\].*\[client 127\.0\.0\.1:\d+\] WSF0101: asking the back end for websocket$")
        assert bool(lines) is expected, server.log.text()
        assert bool(server.log.matching("wsforward:debug")) is expected


def test_log_lines_name_the_module_and_the_client_once(httpd, backend, client):
    """httpd's own log format: a module, a level, a client, a number of ours."""
    origin, server = backend(), httpd()
    port = server.vhost(f'WSForward On\nProxyPass "/" "{origin.url("http")}"')
    server.start()
    assert client(port).ask(http.handshake()).status == 101
    for line in server.log.wait_for("wsforward:debug"):
        assert line.count(b"[client ") == 1, line
        assert line.count(b"WSF") == 1, line


# What httpd's own means say of the module.


def directives():
    """The directives that the module has, by its source."""
    found = re.findall(r'name: c"(WSForward\w*)"', (paths.ROOT / "src/config/directives.rs").read_text())
    assert len(found) >= 12
    return found


def test_mod_info_shows_the_module(httpd, client):
    """Its name, each directive with what it is for, and where the configuration has them."""
    server = httpd(extra=["info"])
    server.directives("WSForwardMaxTunnels 7")
    port = server.vhost('WSForward On\nWSForwardRelay On\n<Location "/info">\n    SetHandler server-info\n</Location>')
    server.start()
    page = client(port).ask(http.request("/info?mod_wsforward.c", fields=[("Connection", "close")])).body.decode()
    assert '<a name="mod_wsforward.c">' in page
    shown = dict(re.findall(r"<dd><tt>(\w+) - <i>([^<]+)</i>", page))
    assert sorted(shown) == sorted(directives())
    assert all(len(purpose) > 20 for purpose in shown.values())
    current = page.split("Current Configuration")[1]
    for name, value in (("WSForwardMaxTunnels", "7"), ("WSForward", "On"), ("WSForwardRelay", "On")):
        assert f";{name} <i>{value}</i>" in current


def test_commands_of_apachectl_know_the_module(httpd):
    """-t, -M, -S and -L, with the module in use."""
    server = httpd()
    port = server.vhost("WSForward On\nWSForwardRelay On")
    said = {}
    for option in ("-t", "-M", "-S", "-L"):
        done = subprocess.run(server._command(option), capture_output=True, text=True, timeout=wait.scaled(30))
        assert done.returncode == 0, done.stderr
        said[option] = done.stdout + done.stderr
    assert "Syntax OK" in said["-t"]
    assert " wsforward_module (shared)\n" in said["-M"]
    assert re.search(rf"^127\.0\.0\.1:{port} +site\.test ", said["-S"], re.M)
    assert sorted(re.findall(r"^(\w+) \(mod_wsforward\.c\)$", said["-L"], re.M)) == sorted(directives())
