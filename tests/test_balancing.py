"""Members of balancers by their open tunnels: `lbmethod=bytunnels` and WSForwardMaxTunnelsPerBackend."""

import os
import random
import re
import signal

import pytest

from harness import config, http, procfs, relayed, wait
from harness.backend import Backend
from harness.h2client import Http2Client
from harness.members import Members
from harness.ports import Port

MPMS = [*config.MPM]
METHODS = [f"lbmethod_{name}" for name in ("bybusyness", "bytraffic")]
#: Several children, all there from the start and as long as the test.
CHILDREN = {
    "event": "StartServers 4\nMaxRequestWorkers 128\nMinSpareThreads 64\nMaxSpareThreads 128",
    "prefork": "StartServers 8\nMinSpareServers 8\nMaxSpareServers 32",
}
CHILDREN["worker"] = CHILDREN["event"]
REFUSED = "WSF0108"


@pytest.fixture
def members():
    """Makes back ends for very many tunnels."""
    made = []

    def make(count):
        made.append(Members(count))
        return made[-1]

    yield make
    for one in made:
        one.close()


def site(httpd, lines, mpm="event", method="bytunnels", directives="", balancer="", relay="On", **options):
    """A server with one balancer."""
    server = httpd(mpm=mpm, extra=METHODS, **options)
    server.directives(f"{CHILDREN[mpm]}\n{directives}")
    lines = "\n".join(f"    BalancerMember {line}" for line in lines)
    server.port = server.vhost(f"""WSForward On
WSForwardRelay {relay}
<Location "/manager">
    SetHandler balancer-manager
</Location>
ProxyPass "/manager" "!"
<Proxy "balancer://members">
{lines}
    ProxySet lbmethod={method} {balancer}
</Proxy>
ProxyPass "/" "balancer://members/\"""")
    server.manager = f"http://site.test:{server.port}/manager"
    return server.start()


def opened(client, server, count, **options):
    """So many tunnels, of which several are opened at a time."""
    talks = []
    while len(talks) < count:
        batch = [client(server.port).send(http.handshake(**options)) for _ in range(min(16, count - len(talks)))]
        for talk in batch:
            answer = talk.read_response()
            assert answer.status == 101, answer
            talk.member = int(answer.get("X-Member") or 0)
        talks += batch
    return talks


def one_by_one(client, server, count):
    """The same, one after the other: two processes that choose at the same moment may take the same member."""
    return [opened(client, server, 1)[0] for _ in range(count)]


def settled(server, count):
    """All tunnels are the relay's, and those that have ended are not counted any more."""
    relayed.wait_figure(server, "Tunnels", count)
    server.wait_idle()


def refused(client, server, **options):
    with client(server.port) as talk:
        answer = talk.ask(http.handshake(**options))
    assert answer.status == 503, answer
    assert int(answer.get("Retry-After")) > 0


def manager(client, server):
    """The page of balancer-manager."""
    with client(server.port) as talk:
        answer = talk.ask(http.request("/manager", fields=[("Referer", server.manager)]))
    assert answer.status == 200, answer
    return answer.body.decode()


def statuses(client, server):
    """What balancer-manager says of each member, in the order of the configuration."""
    page = manager(client, server)
    rows = re.findall(r'<tr>\s*<td><a href="[^"]*">([^<]*)</a></td>(.*?)</tr>', page, re.S)
    return {name: re.findall(r"<td[^>]*>([^<]*)</td>", row)[4].strip() for name, row in rows}


def manage(client, server, member, **fields):
    """Changes a member as the form of balancer-manager does."""
    page = manager(client, server)
    nonce = re.search(r"nonce=([0-9a-f-]+)", page)[1]
    words = {"b": "members", "w": member, "nonce": nonce} | fields
    body = "&".join(f"{name}={value}" for name, value in words.items()).encode()
    with client(server.port) as talk:
        answer = talk.ask(http.request("/manager", method="POST", body=body, fields=[
            ("Content-Length", str(len(body))), ("Content-Type", "application/x-www-form-urlencoded"),
            ("Referer", server.manager)]))  # fmt: skip
    assert answer.status == 200, answer


def assert_all_ok(client, server):
    found = statuses(client, server)
    assert found
    assert not {name: said for name, said in found.items() if "Ok" not in said}, found


def assert_shares(found, factors):
    """Each has its share, within 2 %: one at the least, which a part of a tunnel makes."""
    total = sum(found)
    for has, factor in zip(found, factors, strict=True):
        share = total * factor / sum(factors)
        assert abs(has - share) <= max(1, 0.02 * share), found


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("mpm", MPMS)
def test_tunnels_are_shared_by_load_factor(httpd, members, client, mpm):
    """1,000 of them over 1, 2 and 5: as they are opened by several children, after any of them have ended and others
    have come, and when those of old children go on beside new ones."""
    back = members(3)
    factors = [1, 2, 5]
    server = site(httpd, [f'"{back.url(n)}" loadfactor={factor}' for n, factor in enumerate(factors)], mpm)
    chance = random.Random(mpm)
    talks = opened(client, server, 1000)
    settled(server, 1000)
    assert len([child for child in server.children if procfs.connections(child)]) > 1
    assert_shares(back.wait_open(1000), factors)

    def end(count, of=None):
        """Ends so many by chance, and then all that one of the members has."""
        chance.shuffle(talks)
        ending = talks[:count] + [talk for talk in talks[count:] if talk.member == of]
        for talk in ending:
            talk.close()
        talks[:] = [talk for talk in talks if talk not in ending]
        back.wait_open(len(talks))
        settled(server, len(talks))

    def fill():
        talks.extend(opened(client, server, 1000 - len(talks)))
        settled(server, 1000)
        assert_shares(back.wait_open(1000), factors)
    for member in (None, 2, 0, 1):
        end(200, member)
        fill()
    before = server.children
    server.reload()
    wait.until(lambda: not set(before) & set(server.children), "the old children are gone", 60)
    for member in (2, None, 1):
        end(100, member)
        fill()
    print(mpm, back.open)
    end(1000)
    # Nothing of them is left in the counts.
    talks.extend(opened(client, server, 80))
    assert_shares(back.wait_open(80), factors)
    assert_all_ok(client, server)


@pytest.mark.parametrize("relay", ["On", "Off"])
@pytest.mark.parametrize("mpm", MPMS)
def test_fewest_tunnels_win(httpd, members, client, mpm, relay):
    """Wherever they are carried: all that one has lost it gets again."""
    back = members(2)
    server = site(httpd, [f'"{back.url(n)}"' for n in (0, 1)], mpm, relay=relay)
    talks = one_by_one(client, server, 12)
    assert back.open == [6, 6]
    for talk in talks:
        if talk.member == 0:
            talk.close()
    back.wait_open(6)
    if relay == "On":
        settled(server, 6)
    else:
        wait.until(lambda: int(server.status()["BusyWorkers"]) == 7, server.status)
    one_by_one(client, server, 6)
    assert back.open == [6, 6]


def test_equal_members_take_turns(httpd, members, client):
    """Tunnels of which none is open when the next one comes, and pages: these also while tunnels are not shared evenly."""
    back = members(2)
    server = site(httpd, [f'"{back.url(0)}" loadfactor=1', f'"{back.url(1)}" loadfactor=3'])
    seen = [0, 0]
    for _ in range(16):
        [talk] = opened(client, server, 1)
        seen = [count + now for count, now in zip(seen, back.wait_open(1), strict=True)]
        talk.close()
        back.wait_open(0)
        settled(server, 0)
    assert seen == [4, 12]
    for talk in opened(client, server, 8):
        if talk.member == 1:
            talk.close()
    back.wait_open(2)
    for _ in range(16):
        with client(server.port) as talk:
            assert talk.ask(http.request()).status == 200
    # Whose turn it was before is not known.
    assert sum(back.pages) == 16 and abs(back.pages[1] - 12) <= 1, back.pages


def test_hot_standby_stands_by(httpd, members, client):
    """It gets tunnels while no other member can have them, and none before or after."""
    port = Port()
    back = members(1)
    url = f"http://127.0.0.1:{port.number}"
    server = site(httpd, [f'"{url}" retry=1', f'"{back.url(0)}" status=+H'])
    for expected in (r"proxy:error\].*AH00957: ", r"proxy:error\].*AH00959: ", r"proxy_http:error\].*AH01114: "):
        server.expect_log(expected)
    # Of those that come together one may have chosen the member that another then finds gone.
    server.expect_log("AH00940", certain=False)
    opened(client, server, 4)
    assert back.open == [4]
    number = port.number
    port.release()
    main = Backend(name="main", port=number)
    try:
        # Once its time to be tried again has come.
        wait.until(lambda: opened(client, server, 1) and main.connections, "the member is tried again", 20, 0.1)
        stood = list(back.open)
        opened(client, server, 8)
        assert back.open == stood
        assert_all_ok(client, server)
    finally:
        client.close_all()
        main.close()


def test_members_of_a_higher_set_wait(httpd, members, client):
    """As for httpd's own methods: lbset 1 is for when nobody in lbset 0 can have it."""
    back = members(3)
    server = site(httpd, [f'"{back.url(0)}"', f'"{back.url(1)}" lbset=1', f'"{back.url(2)}" lbset=2'],
                  directives="WSForwardMaxTunnelsPerBackend 4")  # fmt: skip
    opened(client, server, 3)
    assert back.open == [3, 0, 0]
    opened(client, server, 3)
    assert back.open == [4, 2, 0]


def test_drained_member_gets_none(httpd, members, client):
    """By balancer-manager; its tunnels go on, and it gets others when it is back."""
    back = members(2)
    server = site(httpd, [f'"{back.url(n)}"' for n in (0, 1)])
    first = one_by_one(client, server, 6)
    assert back.open == [3, 3]
    manage(client, server, back.url(1), w_status_N="1")
    # Each child learns of it with its next request.
    opened(client, server, 20)
    assert back.open == [23, 3]
    for talk in first:
        assert talk.silent_for(0)
    manage(client, server, back.url(1), w_status_N="0")
    opened(client, server, 20)
    assert back.open == [23, 23]


def test_disabled_and_added_members(httpd, members, client):
    """A member that is off gets nothing; one that is switched on has the fewest."""
    back = members(2)
    server = site(httpd, [f'"{back.url(0)}"', f'"{back.url(1)}" status=+D'])
    opened(client, server, 5)
    assert back.open == [5, 0]
    manage(client, server, back.url(1), w_status_D="0")
    opened(client, server, 5)
    assert back.open == [5, 5]


def test_method_is_changed_in_the_manager(httpd, members, client):
    """bytunnels is among those that it offers, and knows what was opened before."""
    back = members(2)
    server = site(httpd, [f'"{back.url(0)}" route=a', f'"{back.url(1)}" route=b'], method="byrequests",
                  balancer="stickysession=ROUTE", directives="StartServers 1\nMaxRequestWorkers 32\nMinSpareThreads 1")  # fmt: skip
    opened(client, server, 6, fields=[("Cookie", "ROUTE=x.a")])
    manage(client, server, "", b_lbm="bytunnels")
    opened(client, server, 6)
    assert back.open == [6, 6]


@pytest.mark.parametrize("mpm", MPMS)
def test_sticky_session_wins(httpd, members, client, mpm):
    """However many tunnels its member has."""
    back = members(2)
    server = site(httpd, [f'"{back.url(0)}" route=a', f'"{back.url(1)}" route=b'], mpm, balancer="stickysession=ROUTE")
    opened(client, server, 10, fields=[("Cookie", "ROUTE=x.a")])
    assert back.open == [10, 0]
    # And they count for those without.
    opened(client, server, 10)
    assert back.open == [10, 10]


@pytest.mark.slow
@pytest.mark.parametrize("mpm", MPMS)
def test_counts_of_a_killed_child_are_free(httpd, members, client, mpm):
    """As its tunnels are: others come in their place, and no limit is reached too soon."""
    back = members(2)
    server = site(httpd, [f'"{back.url(0)}" route=a', f'"{back.url(1)}" route=b'], mpm,
                  balancer="stickysession=ROUTE", directives="WSForwardMaxTunnelsPerBackend 20")  # fmt: skip
    opened(client, server, 20, fields=[("Cookie", "ROUTE=x.a")])
    settled(server, 20)
    holder = max(server.children, key=lambda child: len(procfs.connections(child)))
    server.expect_log(f"WSF0310: process {holder} is gone")
    os.kill(holder, signal.SIGKILL)
    wait.until(lambda: back.open[0] < 20, "its tunnels are gone")
    wait.until(lambda: holder not in server.children, "httpd knows that it is gone", 20)
    settled(server, back.open[0])
    opened(client, server, 40 - back.open[0])
    assert back.open == [20, 20]


# WSForwardMaxTunnelsPerBackend.


@pytest.mark.parametrize("relay", ["On", "Off"])
@pytest.mark.parametrize("mpm", MPMS)
def test_limit_of_one_back_end(httpd, members, client, mpm, relay):
    """Without a balancer. Refused before a connection to it, and a place that is free is used."""
    back = members(1)
    server = httpd(mpm=mpm)
    server.directives(f"{CHILDREN[mpm]}\nWSForwardMaxTunnelsPerBackend 3")
    server.port = server.vhost(f'WSForward On\nWSForwardRelay {relay}\nProxyPass "/" "{back.url(0)}/"')
    server.start()
    server.expect_log(f"{REFUSED}: .*WSForwardMaxTunnelsPerBackend 3 is reached by {back.url(0)}")
    talks = opened(client, server, 3)
    for _ in range(4):
        refused(client, server)
    assert back.open == [3]
    with client(server.port) as talk:
        assert talk.ask(http.request()).body == b"0"
    assert relayed.figures(server)["Refused-max-tunnels-per-backend"] == 4
    talks[0].close()
    back.wait_open(2)
    wait.until(lambda: opened_now(client, server), "the place is free")
    refused(client, server)


def opened_now(client, server):
    return client(server.port).ask(http.handshake()).status == 101


@pytest.mark.parametrize("method", ["bytunnels", "byrequests", "bybusyness", "bytraffic"])
@pytest.mark.parametrize("mpm", MPMS)
def test_full_members_are_passed_over(httpd, members, client, mpm, method):
    """Whichever method chooses. When all are full: 503, and no member is in error for that."""
    back = members(3)
    lines = [f'"{back.url(0)}" retry=600', f'"{back.url(1)}" retry=600 loadfactor=20', f'"{back.url(2)}" retry=600']
    server = site(httpd, lines, mpm, method, "WSForwardMaxTunnelsPerBackend 5", "failonstatus=503")
    server.expect_log(f"{REFUSED}: .*WSForwardMaxTunnelsPerBackend 5 is reached by http://127.0.0.1:")
    talks = opened(client, server, 10) + [opened(client, server, 1)[0] for _ in range(5)]
    assert back.open == [5, 5, 5]
    for _ in range(6):
        refused(client, server)
    assert back.open == [5, 5, 5]
    assert_all_ok(client, server)
    for _ in range(6):
        with client(server.port) as talk:
            assert talk.ask(http.request()).status == 200
    assert relayed.figures(server)["Refused-max-tunnels-per-backend"] == 6
    for talk in talks[:7]:
        talk.close()
    back.wait_open(8)
    settled(server, 8)
    for _ in range(7):
        opened(client, server, 1)
    assert back.open == [5, 5, 5]
    assert_all_ok(client, server)


def test_full_members_leave_the_hot_standby(httpd, members, client):
    back = members(2)
    server = site(httpd, [f'"{back.url(0)}"', f'"{back.url(1)}" status=+H'], directives="WSForwardMaxTunnelsPerBackend 2")
    server.expect_log(REFUSED)
    for _ in range(4):
        opened(client, server, 1)
    assert back.open == [2, 2]
    refused(client, server)


def test_full_member_of_a_session(httpd, members, client):
    """It is bound to that one: 503, though others have room."""
    back = members(2)
    server = site(httpd, [f'"{back.url(0)}" route=a', f'"{back.url(1)}" route=b'],
                  balancer="stickysession=ROUTE", directives="WSForwardMaxTunnelsPerBackend 2")  # fmt: skip
    server.expect_log(f"{REFUSED}: .*reached by {back.url(0)}")
    bound = {"fields": [("Cookie", "ROUTE=x.a")]}
    opened(client, server, 2, **bound)
    refused(client, server, **bound)
    opened(client, server, 2)
    assert back.open == [2, 2]
    assert_all_ok(client, server)


@pytest.mark.parametrize("mpm", MPMS)
def test_limit_is_not_passed_by_many_at_once(httpd, members, client, mpm):
    """Forty handshakes at a time, of which no more are let through, and as many as there is room for."""
    back = members(2)
    server = site(httpd, [f'"{back.url(n)}"' for n in (0, 1)], mpm,
                  directives="WSForwardMaxTunnelsPerBackend 5\nStartServers 30" if mpm == "prefork" else
                  "WSForwardMaxTunnelsPerBackend 5")  # fmt: skip
    server.expect_log(REFUSED)
    talks = [client(server.port).send(http.handshake()) for _ in range(40)]
    found = [talk.read_response().status for talk in talks]
    assert (found.count(101), found.count(503)) == (10, 30)
    assert back.open == [5, 5]


def test_back_end_is_one_whatever_leads_to_it(httpd, members, client):
    """By ws: and http:, by a balancer, a plain worker and a rule, on any path: it is one limit."""
    back = members(1)
    authority = back.url(0).removeprefix("http://")
    server = httpd()
    server.directives("WSForwardMaxTunnelsPerBackend 4")
    server.port = server.vhost(f"""WSForward On
WSForwardRelay On
<Proxy "balancer://one">
    BalancerMember "ws://{authority}"
</Proxy>
ProxyPass "/balanced/" "balancer://one/"
ProxyPass "/a/" "http://{authority}/b/"
ProxyPass "/c/" "ws://{authority}/c/"
RewriteEngine On
RewriteRule "^/d/(.*)" "http://{authority}/$1" [P]""")
    server.start()
    server.expect_log(REFUSED)
    paths = ["/balanced/", "/a/", "/c/", "/d/"]
    for path in paths:
        assert client(server.port).ask(http.handshake(path)).status == 101
    for path in paths:
        refused(client, server, path=path)


def test_unix_sockets_are_back_ends(httpd, backend, client):
    """Each of its own, by a worker and by a rule."""
    one, two = backend(unix=True, name="one"), backend(unix=True, name="two")
    server = httpd()
    server.directives("WSForwardMaxTunnelsPerBackend 2")
    server.port = server.vhost(f"""WSForward On
WSForwardRelay On
ProxyPass "/one/" "{one.url("http")}"
ProxyPass "/two/" "unix:{two.path}|http://two/"
RewriteEngine On
RewriteRule "^/rule/(.*)" "{one.url("http")}$1" [P]""")
    server.start()
    server.expect_log(f"{REFUSED}: .*reached by unix:{one.path}")
    for path in ("/one/", "/rule/", "/two/", "/two/"):
        assert client(server.port).ask(http.handshake(path)).status == 101
    refused(client, server, path="/one/")
    refused(client, server, path="/rule/")
    assert (len(one.requests), len(two.requests)) == (2, 2)


def test_limit_is_changed_by_a_reload(httpd, members, client):
    """Tunnels that were opened before count."""
    back = members(1)
    server = site(httpd, [f'"{back.url(0)}"'])
    opened(client, server, 3)
    settled(server, 3)
    server.directives("WSForwardMaxTunnelsPerBackend 4")
    before = server.children
    server.reload()
    wait.until(lambda: not set(before) & set(server.children), "the old children are gone", 60)
    server.expect_log(REFUSED)
    opened(client, server, 1)
    refused(client, server)


def test_answers_of_another_kind_are_no_tunnels(httpd, backend, client):
    """What the back end does not switch is not counted, nor is what httpd tunnels without this module."""
    origin, server = backend(), httpd()
    server.directives("WSForwardMaxTunnelsPerBackend 1")
    server.port = server.vhost(f"""ProxyPass "/" "{origin.url("http")}" upgrade=websocket
<Location "/ours/">
    WSForward On
    WSForwardRelay On
</Location>""")
    server.start()
    for _ in range(3):
        assert client(server.port).ask(http.handshake("/stock/")).status == 101
    origin.answers(http.page(b"no\n", "403 Forbidden"))
    for _ in range(3):
        assert client(server.port).ask(http.handshake("/ours/")).status == 403


def test_streams_of_http2_are_tunnels(httpd, members, certificate, client):
    """They are shared, limited and counted as others are, though they never leave their thread."""
    back = members(2)
    server = httpd(extra=["http2"])
    server.directives("WSForwardMaxTunnelsPerBackend 2")
    server.port = server.vhost(f"""Protocols h2 http/1.1
H2WebSockets on
WSForward On
<Proxy "balancer://members">
    BalancerMember "{back.url(0)}"
    BalancerMember "{back.url(1)}"
    ProxySet lbmethod=bytunnels
</Proxy>
ProxyPass "/" "balancer://members/\"""", tls=True)
    server.expect_log("WSF0120: H2WebSockets on")
    server.start()
    server.expect_log(REFUSED)
    with Http2Client(server.port, certificate.client_context("tls1.3", ["h2"])) as h2:
        streams = [h2.websocket("/") for _ in range(4)]
        assert [stream.status for stream in streams] == [200] * 4
        assert back.open == [2, 2]
        assert h2.websocket("/").status == 503
    assert back.wait_open(0) == [0, 0]
    server.wait_idle()
    talk = client(server.port, certificate.client_context("tls1.3"))
    assert talk.ask(http.handshake()).status == 101


@pytest.mark.parametrize("order", ["ours first", "proxy last"])
def test_any_order_of_modules(httpd, members, client, order):
    """mod_proxy may be loaded after this module."""
    back = members(2)
    server = site(httpd, [f'"{back.url(n)}"' for n in (0, 1)], order=order)
    one_by_one(client, server, 6)
    assert back.open == [3, 3]
