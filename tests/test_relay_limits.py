"""The relay's own limits: the MPM counts no tunnel that it does not hold."""

import os
import re
import resource
import signal
import struct
import threading
import time

import pytest

from harness import cmodule, config, http, procfs, relayed, steps, wait
from harness.ports import Port

MPMS = ["event", "worker", "prefork"]
REFUSED = "WSF0108"
#: More than all buffers on the way to a client hold.
LONG = b"x" * 30_000_000


def site(httpd, origin, mpm, directives="", extra=(), order="proxy first"):
    """A balancer of one member, so that blame would show."""
    server = httpd(mpm=mpm, extra=extra, order=order)
    server.directives(directives)
    server.port = server.vhost(f"""WSForward On
WSForwardRelay On
<Proxy "balancer://one">
    BalancerMember "{origin.url("http", "")}" retry=60
</Proxy>
ProxyPass "/" "balancer://one/\"""")
    return server.start()


def refused(client, server, **options):
    """A 503 with Retry-After."""
    answer = client(server.port).ask(http.handshake(**options))
    assert answer.status == 503, answer
    assert int(answer.get("Retry-After")) > 0


def accepted(client, server, **options):
    return relayed.opened(server, client(server.port), **options)


@pytest.mark.parametrize("mpm", MPMS)
def test_max_tunnels(httpd, backend, client, mpm):
    """Over all processes; the back end is not bothered and not blamed, and a place that is free is used."""
    origin = backend()
    server = site(httpd, origin, mpm, "WSForwardMaxTunnels 5")
    server.expect_log(f"{REFUSED}.*WSForwardMaxTunnels 5 is reached")
    talks = [accepted(client, server) for _ in range(5)]
    server.wait_idle()
    seen = len(origin.connections)
    for _ in range(10):
        refused(client, server)
    assert len(origin.connections) == seen
    figures = relayed.figures(server)
    assert (figures["Tunnels"], figures["Refused-max-tunnels"]) == (5, 10)
    # The member of the balancer is well: plain requests pass, and so does the next tunnel.
    assert client(server.port).ask(http.request()).body == b"plain\n"
    talks[0].close()
    relayed.wait_figure(server, "Tunnels", 4)
    accepted(client, server).echoes()
    talks[1].echoes()
    refused(client, server)


@pytest.mark.parametrize("mpm", MPMS)
def test_max_tunnels_is_not_passed_by_many_at_once(httpd, backend, client, mpm):
    """Forty handshakes whose back end takes its time: the limit counts those on their way."""
    origin = backend()
    # Each of them has a worker at once: prefork starts new ones slowly, and says so if they do not do.
    processes = "StartServers 48\nServerLimit 64\nMaxRequestWorkers 64\nMaxSpareServers 64\n" if mpm == "prefork" else ""
    server = site(httpd, origin, mpm, f"{processes}WSForwardMaxTunnels 8")
    server.expect_log(REFUSED)
    decided = threading.Event()
    origin.answers(steps.wait_for(decided), steps.switch(), steps.websocket_echo, steps.close)
    talks = [client(server.port).send(http.handshake()) for _ in range(40)]
    wait.until(lambda: len(origin.connections) + relayed.figures(server)["Refused-max-tunnels"] == 40, "all are decided")
    decided.set()
    statuses = [talk.read_response().status for talk in talks]
    assert set(statuses) == {101, 503}
    assert statuses.count(101) <= 8
    wait.until(lambda: relayed.figures(server)["Tunnels"] == statuses.count(101), "all are handed over")
    assert len(origin.connections) == statuses.count(101)


def test_refusals_and_ends_give_their_places_back(httpd, backend, client):
    """A handshake that the back end refuses, and a tunnel that ends, each free a place."""
    origin = backend()
    server = site(httpd, origin, "event", "WSForwardMaxTunnels 2")
    for _ in range(20):
        origin.answers(http.page(b"no\n", "403 Forbidden"), steps.close)
        assert client(server.port).ask(http.handshake()).status == 403
        # It is the request that holds the place, for a moment longer than its answer takes.
        server.wait_idle()
    origin.answers(*steps.WEBSOCKET_OR_PAGE)
    for _ in range(20):
        accepted(client, server).close()
        relayed.wait_figure(server, "Tunnels", 0)
    talks = [accepted(client, server) for _ in range(2)]
    server.expect_log(REFUSED)
    refused(client, server)
    assert len(talks) == 2


@pytest.mark.parametrize("mpm", MPMS)
def test_max_tunnels_per_client(httpd, backend, client, mpm):
    """By the address that mod_remoteip says, in all processes, IPv6 too."""
    origin = backend()
    server = site(httpd, origin, mpm, """WSForwardMaxTunnelsPerClient 3
RemoteIPHeader X-Forwarded-For
RemoteIPInternalProxy 127.0.0.1""", ["remoteip"])
    server.expect_log(f"{REFUSED}.*WSForwardMaxTunnelsPerClient 3 is reached by (192.0.2.[12]|2001:db8::1)")
    clients = {name: {"fields": [("X-Forwarded-For", name)]} for name in ("192.0.2.1", "192.0.2.2", "2001:db8::1")}
    talks = {name: [accepted(client, server, **options) for _ in range(3)] for name, options in clients.items()}
    seen = len(origin.connections)
    for options in clients.values():
        refused(client, server, **options)
    # Who says nothing of itself is 127.0.0.1, and has its own three.
    accepted(client, server).echoes()
    assert len(origin.connections) == seen + 1
    assert relayed.figures(server)["Refused-max-tunnels-per-client"] == 3
    talks["192.0.2.1"][0].close()
    relayed.wait_figure(server, "Tunnels", 9)
    accepted(client, server, **clients["192.0.2.1"]).echoes()
    refused(client, server, **clients["192.0.2.1"])
    refused(client, server, **clients["192.0.2.2"])


def test_protocols_that_post_are_limited(httpd, backend, client):
    """With a token of WSForwardProtocols a POST and its body count like any handshake; another token, which
    is httpd's own, does not."""
    origin, server = backend(), httpd()
    server.directives("WSForwardMaxTunnels 2")
    port = server.vhost(f"""WSForward On
WSForwardRelay On
WSForwardProtocols tcp
ProxyPass "/" "{origin.url("http")}" upgrade=any""")
    server.start()
    server.expect_log(f"{REFUSED}.*WSForwardMaxTunnels 2 is reached")
    origin.answers(steps.body, steps.switch(without=["Sec-WebSocket-Accept"]), steps.echo, steps.close)

    def post(upgrade):
        talk = client(port)
        asked = http.handshake(method="POST", upgrade=upgrade, fields=[("Content-Length", "2")], body=b"{}")
        return talk.ask(asked), talk

    for _ in range(2):
        assert post("tcp")[0].status == 101
    relayed.wait_figure(server, "Tunnels", 2)
    answer, _ = post("tcp")
    assert (answer.status, answer.get("Retry-After")) == (503, "10")
    answer, talk = post("my/1")
    assert answer.status == 101
    talk.send(b"raw")
    assert talk.read_exactly(3) == b"raw"
    assert relayed.figures(server)["Tunnels"] == 2


#: WSForwardClientPrefix, addresses that are one client, and one that is not.
CLIENTS = {
    "one /64": ("", ["2001:db8:1:2::1", "2001:db8:1:2:3:4:5:6"], "2001:db8:1:3::1", r"\(2001:db8:1:2::/64\)"),
    "a /56": ("32 56", ["2001:db8:1:200::1", "2001:db8:1:2ff::1"], "2001:db8:1:300::1", r"\(2001:db8:1:200::/56\)"),
    "an address": ("32 128", ["2001:db8::1", "2001:db8:0::1"], "2001:db8::2", r"\(2001:db8::1/128\)"),
    "IPv4 within IPv6": ("", ["192.0.2.1", "::ffff:192.0.2.1"], "192.0.2.2", r"\(192.0.2.1/32\)"),
    "a /24": ("24 64", ["192.0.2.1", "192.0.2.254"], "192.0.3.1", r"\(192.0.2.0/24\)"),
    "all": ("1 1", ["1.2.3.4", "127.0.2.1"], "128.0.0.1", r"\(0.0.0.0/1\)"),
}


@pytest.mark.parametrize("which", CLIENTS)
@pytest.mark.parametrize("mpm", MPMS)
def test_clients_are_counted_by_network(httpd, backend, client, mpm, which):
    """Whoever has a network of addresses is one client; his neighbour is another."""
    prefix, [first, second], neighbour, said = CLIENTS[which]
    lines = f"WSForwardClientPrefix {prefix}" if prefix else ""
    server = site(httpd, backend(), mpm, f"""WSForwardMaxTunnelsPerClient 1
RemoteIPHeader X-Forwarded-For
RemoteIPInternalProxy 127.0.0.1
{lines}""", ["remoteip"])
    server.expect_log(f"{REFUSED}.*WSForwardMaxTunnelsPerClient 1 is reached by .* {said}")
    by = lambda address: {"fields": [("X-Forwarded-For", address)]}  # noqa: E731
    talk = accepted(client, server, **by(first))
    refused(client, server, **by(second))
    accepted(client, server, **by(neighbour)).echoes()
    talk.close()
    relayed.wait_figure(server, "Tunnels", 1)
    accepted(client, server, **by(second)).echoes()


def test_link_local_client_is_counted(httpd, backend, client, scratch):
    """Its address has a scope, by which it is no address to a parser."""
    load = cmodule.build("useragent_scope", scratch)
    server = site(httpd, backend(), "event", f"{load}\nWSForwardMaxTunnelsPerClient 1")
    server.expect_log(rf"{REFUSED}.*WSForwardMaxTunnelsPerClient 1 is reached by fe80::1 \(fe80::/64\)")
    accepted(client, server).echoes()
    refused(client, server)


def test_plain_requests_are_not_limited(httpd, backend, client):
    origin = backend()
    server = site(httpd, origin, "event", "WSForwardMaxTunnels 1\nWSForwardMaxTunnelsPerClient 1")
    accepted(client, server)
    for _ in range(5):
        assert client(server.port).ask(http.request()).body == b"plain\n"
        # Upgrade without Connection is no upgrade request.
        assert client(server.port).ask(http.handshake(connection=[])).status == 200


# Memory.


def small(server, scratch, kib):
    """Has the server see a machine with so much memory."""
    meminfo = scratch / f"meminfo-{kib}"
    meminfo.write_text(f"MemTotal:       {kib} kB\nMemFree:        1 kB\n")
    meminfo.chmod(0o644)
    server.prefix = ["unshare", "--mount", "sh", "-c", f'mount --bind {meminfo} /proc/meminfo && "$@"; exit $?', "sh"]


def memory_site(httpd, origin, scratch, mpm, directives=""):
    server = httpd(mpm=mpm)
    small(server, scratch, 384)
    server.directives(f"LogLevel wsforward:debug\n{directives}")
    server.port = server.vhost(f'WSForward On\nWSForwardRelay On\nProxyPass "/" "{origin.url("http")}"')
    return server.start()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts")
@pytest.mark.parametrize("mpm", MPMS)
def test_unset_limit_is_by_memory(httpd, backend, client, scratch, mpm):
    """Half of it, at 32 KiB for each tunnel: said at the start, and where it refuses."""
    server = memory_site(httpd, backend(), scratch, mpm)
    bound = re.escape("6 (half of the 0 MiB of the machine, at 32 KiB each)")
    assert len(server.log.matching(f"WSF0115: relayed tunnels that fit the memory: {bound}")) == 1
    talks = [accepted(client, server) for _ in range(6)]
    server.expect_log(f"{REFUSED}.*WSForwardMaxTunnels is not set, and no more tunnels fit the memory: {bound}")
    refused(client, server)
    assert relayed.figures(server)["Refused-memory"] == 1
    for talk in talks:
        talk.echoes()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts")
@pytest.mark.parametrize("most", [0, 8])
def test_limit_that_is_set_is_not_by_memory(httpd, backend, client, scratch, most):
    server = memory_site(httpd, backend(), scratch, "event", f"WSForwardMaxTunnels {most}")
    assert not server.log.matching("WSF0115")
    talks = [accepted(client, server) for _ in range(8)]
    if most:
        server.expect_log(f"{REFUSED}.*WSForwardMaxTunnels 8 is reached")
        refused(client, server)
    assert len(talks) == 8


# Upgrade requests that become such only within httpd.


@pytest.mark.parametrize("order", ["ours first", "proxy first"])
@pytest.mark.parametrize("mpm", MPMS)
def test_max_tunnels_where_mod_headers_makes_the_upgrade(httpd, backend, client, mpm, order):
    """Whichever module is loaded first."""
    server = site(httpd, backend(), mpm, "RequestHeader set Connection Upgrade\nWSForwardMaxTunnels 2", order=order)
    server.expect_log(f"{REFUSED}.*WSForwardMaxTunnels 2 is reached")
    talks = [accepted(client, server, connection=[]) for _ in range(2)]
    for _ in range(4):
        refused(client, server, connection=[])
    assert relayed.figures(server)["Refused-max-tunnels"] == 4
    for talk in talks:
        talk.echoes()


def late(what):
    return {"fields": [("X-Late", what)]}


@pytest.mark.parametrize("mpm", MPMS)
def test_max_tunnels_where_a_handler_makes_the_upgrade(httpd, backend, client, scratch, mpm):
    """Too late for a decision before the balancer's: refused all the same, no member is in error, none is tried."""
    origin, standby = backend(), backend(name="standby")
    server = httpd(mpm=mpm)
    server.directives(f"{cmodule.build('late_headers', scratch)}\nWSForwardMaxTunnels 2")
    server.port = server.vhost(f"""WSForward On
WSForwardRelay On
<Proxy "balancer://two">
    BalancerMember "{origin.url("http", "")}" retry=60
    BalancerMember "{standby.url("http", "")}" status=+H
    ProxySet failonstatus=503
</Proxy>
ProxyPass "/" "balancer://two/\"""")
    server.start()
    server.expect_log(f"{REFUSED}.*WSForwardMaxTunnels 2 is reached")
    talks = [accepted(client, server, connection=[], **late("set")) for _ in range(2)]
    seen = len(origin.connections)
    for _ in range(5):
        refused(client, server, connection=[], **late("set"))
    assert relayed.figures(server)["Refused-max-tunnels"] == 5
    assert len(origin.connections) == seen
    assert client(server.port).ask(http.request()).body == b"plain\n"
    talks[0].close()
    relayed.wait_figure(server, "Tunnels", 1)
    accepted(client, server, connection=[], **late("set")).echoes()
    assert not standby.connections


@pytest.mark.parametrize("by", ["a handler", "the back end"])
def test_answer_of_another_kind_holds_no_place(httpd, backend, client, scratch, by):
    """The upgrade is taken away, or not granted: however long the answer takes, others may come."""
    origin = backend()
    server = site(httpd, origin, "event", f"{cmodule.build('late_headers', scratch)}\nWSForwardMaxTunnels 1")
    over = threading.Event()
    origin.answers_in_turn(
        [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", steps.wait_for(over), b"long\n", steps.keep],
        steps.WEBSOCKET_OR_PAGE)  # fmt: skip
    slow = client(server.port).send(http.handshake(**(late("unset") if by == "a handler" else {})))
    head = slow.read_head()
    assert ("Upgrade" in origin.requests[0]) == (by == "the back end")
    accepted(client, server).echoes()
    over.set()
    assert (head.status, slow.read_exactly(5)) == (200, b"long\n")


@pytest.mark.parametrize("scheme", ["fcgi", "ajp"])
def test_other_schemes_hold_no_place_and_are_not_asked(httpd, backend, client, scheme):
    """Their modules are loaded before mod_proxy_http, as on Debian, and ask to be first: for a member of a balancer too."""
    origin = backend()
    origin.answers(*steps.WEBSOCKET_OR_PAGE)
    address = origin.url(scheme, "")
    server = httpd(mpm="event", without=["proxy_http"], wstunnel=False)
    server.directives(f"{config.load(f'proxy_{scheme}')}\n{config.load('proxy_http')}\nWSForwardMaxTunnels 1")
    port = server.vhost(f"""WSForward On
WSForwardRelay On
<Proxy "balancer://apps">
    BalancerMember "{address}"
</Proxy>
ProxyPass "/app" "{address}"
ProxyPass "/balanced" "balancer://apps"
ProxyPass "/" "{origin.url("http")}"
<Location "/app">
    WSForwardOrigin same
</Location>""")
    server.expect_log(r"proxy_ajp:error|proxy_fcgi:error|proxy:error|AH00878|AH01075|AH00992", certain=False)
    server.start()
    for path in ("/app", "/balanced"):
        before = len(origin.connections)
        held = client(port).send(http.handshake(path, fields=[("Origin", "https://evil.example")]))
        wait.until(lambda before=before: len(origin.connections) > before, "the back end is asked")
        relayed.opened(server, client(port)).close()
        relayed.wait_figure(server, "Tunnels", 0)
        held.close()


def test_page_of_a_cache_holds_no_place(httpd, backend, client):
    """It comes from a handler before mod_proxy's, and a client may take all the time it wants."""
    origin = backend()
    server = httpd(mpm="event", extra=["cache", "cache_disk"])
    cache = server.directory / "cache"
    cache.mkdir()
    cache.chmod(0o777)
    server.directives(f"WSForwardMaxTunnels 1\nCacheRoot {cache}\nCacheMaxFileSize 100000000\nCacheQuickHandler Off")
    port = server.vhost(f"""WSForward On
WSForwardRelay On
CacheEnable disk /big
ProxyPass "/" "{origin.url("http")}"""+'"')
    server.start()
    kept = [("Cache-Control", "max-age=3600"), ("Content-Type", "text/plain")]
    origin.answers_in_turn([http.page(LONG, "200 OK", kept), steps.keep], steps.WEBSOCKET_OR_PAGE)
    assert client(port).ask(http.request("/big")).status == 200
    slow = client(port, receive_buffer=4096).send(http.handshake("/big"))
    assert slow.read_head().status == 200
    assert len(origin.requests) == 1
    relayed.opened(server, client(port))


def test_error_page_holds_no_place(httpd, backend, client):
    origin = backend()
    refusing = Port()
    server = httpd(mpm="event")
    server.directives("WSForwardMaxTunnels 1")
    (server.htdocs / "long.html").write_bytes(LONG)
    port = server.vhost(f"""WSForward On
WSForwardRelay On
ErrorDocument 503 /long.html
ProxyPass "/long.html" "!"
ProxyPass "/down" "http://127.0.0.1:{refusing.number}"
ProxyPass "/" "{origin.url("http")}"""+'"')
    server.expect_log(r"AH00957|AH00959|AH01114")
    server.start()
    slow = client(port, receive_buffer=4096).send(http.handshake("/down"))
    assert slow.read_head().status == 503
    relayed.opened(server, client(port))
    refusing.release()


def test_redirected_request_has_one_place(httpd, backend, client, scratch):
    """An upgrade request that a handler redirects within httpd is counted once."""
    server = site(httpd, backend(), "event", f"{cmodule.build('late_headers', scratch)}\nWSForwardMaxTunnels 1")
    accepted(client, server, **late("redirect /elsewhere")).echoes()
    server.expect_log(REFUSED)
    refused(client, server)


@pytest.mark.parametrize("tls", [False, True], ids=["ws", "wss"])
@pytest.mark.parametrize("mpm", MPMS)
def test_redirect_within_httpd_writes_nothing_into_the_tunnel(httpd, backend, client, certificate, mpm, tls):
    """As a RewriteRule in .htaccess makes it. httpd ends the first request as well, and the socket is the relay's."""
    origin, server = backend(), httpd(mpm=mpm)
    port = server.vhost(f"""WSForward On
WSForwardRelay On
ProxyPass "/ws/" "{origin.url("http")}"
<Directory "{server.htdocs}">
    RewriteEngine On
    RewriteRule "^old$" "/ws/new"
</Directory>""", tls=tls)  # fmt: skip
    server.start()
    talk = client(port, certificate.client_context() if tls else None)
    relayed.opened(server, talk, "/old")
    server.wait_idle()
    assert origin.request.target == "/new"
    talk.echoes().echoes()


# Descriptors.


def cpu_seconds(server):
    total = 0
    for child in server.children:
        with open(f"/proc/{child}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("mpm", ["event", "worker"])
@pytest.mark.parametrize("limit", [160, 300])
def test_few_descriptors(httpd, backend, client, mpm, limit):
    """A clear line and a 503, no spin, no dead listener, and all is well when tunnels close."""
    origin = backend()
    server = site(httpd, origin, mpm)
    # Children inherit it; the parent has read all that it needs.
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (limit, limit))
    old = server.children
    server.reload()
    wait.until(lambda: not set(old) & set(server.children), "the old generation is gone")
    server.expect_log(f"{REFUSED}.*descriptors")
    figures = relayed.figures(server)
    possible = figures["TunnelsPossible"]
    assert 10 < possible * 2 < limit
    assert figures["DescriptorsPossible"] == possible * 2
    talks, refusals = [], 0
    for _ in range(possible + 30):
        talk = client(server.port)
        status = talk.ask(http.handshake()).status
        assert status in (101, 503)
        if status == 101:
            talks.append(talk)
        else:
            refusals += 1
            talk.close()
    assert len(talks) <= possible * len(server.children)
    assert refusals > 0
    wait.until(lambda: relayed.figures(server)["Tunnels"] == len(talks), "all are handed over")
    for child in server.children:
        assert len(procfs.descriptors(child)) < limit
    begin = cpu_seconds(server)
    time.sleep(1)
    assert cpu_seconds(server) - begin < 0.3
    for _ in range(20):
        with client(server.port) as talk:
            assert talk.ask(http.request(fields=[("Connection", "close")])).body == b"plain\n"
    for talk in talks:
        talk.echoes()
        talk.close()
    relayed.wait_figure(server, "Tunnels", 0)
    for _ in range(5):
        accepted(client, server).echoes()


@pytest.mark.slow
@pytest.mark.parametrize("mpm", MPMS)
@pytest.mark.parametrize(("soft", "hard"), [(512, 8192), (2048, 8192)])
def test_descriptors_are_high_and_end_with_the_process(httpd, backend, client, mpm, soft, hard):
    """The soft limit is raised; what httpd had to itself before, and what select() knows, stays free of ours."""
    server = site(httpd, backend(), mpm)
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (soft, hard))
    old = server.children
    server.reload()
    wait.until(lambda: not set(old) & set(server.children), "the old generation is gone")
    figures = lambda: [procfs.descriptor_limits(child) for child in server.children]  # noqa: E731
    assert procfs.descriptor_limits(server.pid) == (soft, hard)
    wait.until(lambda: set(figures()) == {(hard, hard)}, figures)
    talks = [accepted(client, server).echoes() for _ in range(20)]
    server.wait_idle()
    holders = [child for child in server.children if procfs.connections(child)]
    ours = [number for child in holders for number in procfs.connections(child)]
    assert len(ours) == 2 * len(talks)
    assert min(ours) >= max(1024, soft)
    # Those of the relay itself too.
    for child in holders:
        high = [number for number in procfs.numbers(child) if number >= 1024]
        assert min(high) >= max(1024, soft)
        assert all(procfs.is_cloexec(child, number) for number in high)


# Counters.


@pytest.mark.parametrize("mpm", MPMS)
def test_figures_after_a_child_was_killed(httpd, backend, client, mpm):
    """Its tunnels are gone from the gauge, what it did stays in the totals."""
    origin = backend()
    # Several children that all serve.
    small = {"prefork": "StartServers 4\nMaxSpareServers 8"}
    server = site(httpd, origin, mpm, small.get(
        mpm, "StartServers 3\nThreadsPerChild 4\nMaxRequestWorkers 64\nMinSpareThreads 12\nMaxSpareThreads 64"))
    talks = [accepted(client, server) for _ in range(24)]
    holders = {}
    for line in server.log.matching(relayed.HANDED_OVER):
        pid = int(line.split(b"[pid ")[1].split(b":")[0])
        holders[pid] = holders.get(pid, 0) + 1
    assert sum(holders.values()) == 24
    victim, lost = max(holders.items(), key=lambda item: item[1])
    before = relayed.figures(server)
    assert before["Tunnels"] == 24
    server.expect_log(f"WSF0310: process {victim} is gone, and with it {lost} relayed tunnels")
    os.kill(victim, signal.SIGKILL)
    relayed.wait_figure(server, "Tunnels", 24 - lost)
    after = relayed.figures(server)
    assert after["HandedOver"] == 24
    assert after["Descriptors"] == 2 * (24 - lost)
    for talk in talks:
        talk.close()
    relayed.wait_figure(server, "Tunnels", 0)
    accepted(client, server).echoes()
    assert relayed.figures(server)["HandedOver"] == 25


@pytest.mark.parametrize("mpm", MPMS)
def test_figures_over_reloads(httpd, backend, client, mpm):
    """Totals go on over a graceful restart; each tunnel is counted once, wherever it lives."""
    origin = backend()
    server = site(httpd, origin, mpm)
    talks = [accepted(client, server) for _ in range(6)]
    server.reload()
    wait.until(lambda: relayed.figures(server)["Tunnels"] == 6, "the tunnels outlive their children")

    def possible():
        figures = relayed.figures(server)
        return figures["DescriptorsPossible"] == 2 * (figures["TunnelsPossible"] + 6)
    wait.until(possible, lambda: f"room for new tunnels, and what old ones have: {relayed.figures(server)}")
    more = [accepted(client, server) for _ in range(3)]
    assert relayed.figures(server)["HandedOver"] == 9
    for talk in [*talks, *more]:
        talk.echoes()
        talk.close()
    relayed.wait_figure(server, "Tunnels", 0)
    assert relayed.figures(server)["Ended"] == 9


def words(memory):
    """The numbers of eight bytes in a piece of shared memory."""
    return struct.unpack(f"<{len(memory) // 8}Q", memory)


def test_entry_that_is_another_tunnels_by_now_is_left_alone(httpd, backend, client):
    """A tunnel that ends takes its own client's entry back, and no other that stands there."""
    server = site(httpd, backend(), "event", "WSForwardMaxTunnelsPerClient 5")
    memory = procfs.SharedMemory(server.pid)
    before = words(memory.read())
    talk = accepted(client, server)
    # The entries of a tunnel and the counts of its client and its back end have upper bits; the client's are first.
    grown = [at for at, (old, new) in enumerate(zip(before, words(memory.read()), strict=True))
             if old == 0 and new >> 48]  # fmt: skip
    at, *_ = grown
    [value] = words(memory.read(8 * at, 8))
    other = value ^ 1 << 40
    memory.write(8 * at, struct.pack("<Q", other))
    talk.close()
    relayed.wait_figure(server, "Tunnels", 0)
    assert words(memory.read(8 * at, 8)) == (other,)
    memory.write(8 * at, struct.pack("<Q", 0))


def test_place_of_a_child_that_was_killed_while_it_gave_it_back(httpd, backend, client):
    """Whoever looks next goes on with it: no count and no client's tunnel stays behind."""
    server = site(httpd, backend(), "event", "WSForwardMaxTunnelsPerClient 2")
    [child] = server.children
    for _ in range(2):
        accepted(client, server)
    memory = procfs.SharedMemory(server.pid)
    halves = struct.unpack(f"<{len(memory.read()) // 4}I", memory.read())
    [at] = [at for at, number in enumerate(halves) if number == child]
    # As src/shared/slot.rs marks a place that this process is clearing.
    memory.write(4 * at, struct.pack("<I", 1 << 31 | child))
    server.expect_log(f"WSF0310: process {child} is gone, and with it 2 relayed tunnels")
    os.kill(child, signal.SIGKILL)
    wait.until(lambda: child not in server.children and server.status(), "another child serves")
    relayed.wait_figure(server, "Tunnels", 0)
    for _ in range(2):
        accepted(client, server).echoes()
    assert memory.read(4 * at, 4) != struct.pack("<I", 1 << 31 | child)
