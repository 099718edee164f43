"""The status page: what it shows of tunnels, whether the server is ready, and how it closes tunnels."""

import base64
import os
import re
import signal
import urllib.parse

import pytest

from harness import http, relayed, statuspage, steps, wait
from harness.websocket import TEXT, close_frame

MPMS = ["event", "worker", "prefork"]


@pytest.fixture
def site(httpd, client):
    """A server with a status page, and that page."""

    def make(origin, mpm="event", **options):
        server = httpd(mpm=mpm, extra=options.pop("extra", ()))
        return server, statuspage.start(server, client, origin, **options)

    return make


@pytest.mark.parametrize("mpm", MPMS)
@pytest.mark.parametrize("relay", ["relay", "thread"])
def test_a_tunnel_is_listed_from_its_101_to_its_end(site, backend, client, mpm, relay):
    origin = backend()
    server, page = site(origin, mpm, relay="WSForwardRelay " + ("On" if relay == "relay" else "Off"))
    assert page.tunnels() == []
    talk = client(server.port)
    origin.answers(steps.switch([("Sec-WebSocket-Protocol", "chat")]), steps.websocket_echo, steps.close)
    answer = talk.ask(http.handshake("/a%20b?secret", fields=[("Sec-WebSocket-Protocol", "chat")]))
    assert answer.status == 101, answer
    wait.until(lambda: [one["where"] for one in page.tunnels()] == [relay], lambda: f"{page.tunnels()}")
    [one] = page.tunnels()
    address = talk.plain.getsockname()
    assert (one["client"], one["port"]) == address[:2]
    assert one["vhost"] == f"tunnels.example:{server.port}"
    assert one["path"] == "/a b"
    assert one["subprotocol"] == "chat"
    assert one["user"] == ""
    assert one["backend"] == origin.url("http", "")
    assert one["pid"] in server.children
    assert (one["tls_client"], one["tls_backend"]) == (False, False)
    assert (one["bytes_up"], one["bytes_down"]) == (0, 0)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", one["since"])
    talk.echoes(b"hello", TEXT)
    wait.until(lambda: page.tunnels()[0]["bytes_up"] == 11 and page.tunnels()[0]["bytes_down"] == 7, lambda: f"{page.tunnels()}")
    if relay == "relay":
        wait.until(lambda: [page.tunnels()[0][name] for name in ("messages_up", "messages_down")] == [1, 1], lambda: f"{page.tunnels()}")
    talk.close()
    page.wait_tunnels(0)


def test_page_is_served_only_where_the_handler_is_set(site, backend):
    origin = backend()
    server, page = site(origin)
    answer = page.client(server.port).ask(http.request("/wsforward-status?json"))
    assert answer.body == b"plain\n"


HOSTILE = '<script>alert(1)</script>"&\'\x1b[31m\u202e'


def test_text_of_clients_is_hostile(site, backend, client):
    """Path, user and subprotocol: in JSON it is what was sent, in HTML it is escaped, in metrics it is not."""
    origin = backend()
    users = """<Location "/ws">
    AuthType Basic
    AuthName all
    AuthBasicProvider anon
    Anonymous_NoUserId on
    Anonymous_MustGiveEmail off
    Anonymous_VerifyEmail off
    Anonymous "*"
    Require valid-user
</Location>"""
    server, page = site(origin, more=users, extra=("auth_basic", "authn_anon", "authn_core", "authz_user"))
    origin.answers(steps.switch([("Sec-WebSocket-Protocol", "a'b")]), steps.websocket_echo, steps.close)
    login = base64.b64encode(f"{HOSTILE}:x".encode()).decode()
    talk = client(server.port)
    path = "/ws/" + urllib.parse.quote(HOSTILE) + "%FF"
    answer = talk.ask(http.handshake(path, fields=[
        ("Authorization", f"Basic {login}"), ("Sec-WebSocket-Protocol", "a'b")]))  # fmt: skip
    assert answer.status == 101, answer
    [one] = page.wait_tunnels(1)
    assert (one["user"], one["path"], one["subprotocol"]) == (HOSTILE, f"/ws/{HOSTILE}\ufffd", "a'b")
    html = page.get().body.decode()
    assert "<script" not in html and "\x1b" not in html and "\u202e" not in html
    assert "&lt;script&gt;" in html
    metrics = page.get("metrics").body.decode()
    assert "alert(1)" not in metrics and "a'b" not in metrics
    assert page.close(user=HOSTILE[:-1]) == 0
    assert page.close(user=HOSTILE) == 1
    talk.read_frame()
    talk.send_frame(close_frame(1001))


def test_long_text_is_cut_and_more_than_the_register_has_are_counted(site, backend, client):
    origin = backend()
    server, page = site(origin, main="WSForwardRegisterSize 1")
    relayed.opened(server, client(server.port), "/" + "p" * 300)
    talk = relayed.opened(server, client(server.port), "/second")
    [one] = page.wait_tunnels(1)
    assert one["path"] == "/" + "p" * 127
    overview = page.json()
    assert (overview["tunnels"]["open"], overview["tunnels"]["unlisted"]) == (2, 1)
    # It is carried and counted like any other.
    talk.echoes(b"hello")
    talk.close()
    wait.until(lambda: page.json()["tunnels"]["open"] == 1, lambda: f"{page.json()}")
    page.wait_metric(1, "tunnels_closed_total")


@pytest.mark.parametrize("mpm", ["event", "prefork"])
def test_tunnels_of_a_killed_child_are_listed_no_more(site, backend, client, mpm):
    """And what they carried stays in the totals."""
    origin = backend()
    server, page = site(origin, mpm)
    server.expect_log("AH00051|AH00052", certain=False)
    talk = relayed.opened(server, client(server.port))
    talk.echoes(b"hello")
    wait.until(lambda: page.metric("bytes_total", direction="up") == 11, lambda: f"{page.metrics()}")
    [one] = page.tunnels()
    server.expect_log(f"WSF0310: process {one['pid']} is gone, and with it 1 relayed tunnels")
    os.kill(one["pid"], signal.SIGKILL)
    page.wait_tunnels(0)
    assert page.metric("bytes_total", direction="up") == 11
    page.wait_metric(1, "tunnels_closed_total", reason="process-ended")
    talk.read_to_end()


def test_totals_never_go_back(site, backend, client):
    """Over reloads and killed children."""
    origin = backend()
    server, page = site(origin)
    server.expect_log("AH00051|AH00052", certain=False)
    seen = {}

    def check():
        now = page.metrics()
        for key, value in now.items():
            name = key[0].removesuffix("_bucket").removesuffix("_sum").removesuffix("_count")
            if name.endswith(("_total", "_seconds")) and "cpu" not in name:
                assert value >= seen.get(key, 0), key
        for key in seen:
            assert key in now or "cpu" in key[0] or not key[0].endswith("_total"), key
        seen.update({key: value for key, value in now.items() if key[0].endswith(("_total", "_bucket", "_sum", "_count"))})

    for turn in range(4):
        talks = [relayed.opened(server, client(server.port)) for _ in range(3)]
        for talk in talks:
            talk.echoes(b"x" * 1000)
        check()
        talks[0].close()
        check()
        if turn % 2:
            server.reload()
        else:
            pids = {one["pid"] for one in page.tunnels()} & set(server.children)
            server.expect_log("WSF0310")
            os.kill(min(pids), signal.SIGKILL)
            wait.until(lambda: server.status() is not None, "httpd answers")
        check()
    assert page.metric("tunnels_opened_total") == 12
    assert page.metric("handshakes_total", result="101") == 12


def test_results_of_handshakes(site, backend, client):
    origin = backend()
    server, page = site(origin, more="WSForwardOrigin same\nWSForwardHandshakeTimeout 300ms")
    server.expect_log("WSF010[235]|WSF0140")

    def ask(**options):
        return client(server.port).ask(http.handshake(**options)).status

    assert ask() == 101
    origin.answers(steps.websocket_or_page)
    origin.answers(steps.body, steps.switch(accept="wrong"))
    assert ask() == 502
    origin.answers(lambda connection: connection.send(b"nonsense\r\n\r\n"))
    assert ask() == 502
    origin.answers(lambda connection: connection.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"))
    assert ask() == 404
    origin.answers(steps.silence)
    assert ask() == 504
    assert ask(fields=[("Origin", "https://elsewhere.example")]) == 403
    for result in ("101", "bad_101", "bad_head", "answer", "timeout", "origin"):
        assert page.metric("handshakes_total", result=result, vhost=f"tunnels.example:{server.port}") == 1, result
    assert page.metric("handshake_duration_seconds_count") == 2


@pytest.mark.parametrize("accept, content_type, end", [
    ("", "text/plain; version=0.0.4; charset=utf-8", b""),
    ("application/openmetrics-text;version=1.0.0,text/plain;q=0.5", "application/openmetrics-text; version=1.0.0; charset=utf-8", b"# EOF\n"),
])  # fmt: skip
def test_formats_of_metrics(site, backend, client, accept, content_type, end):
    server, page = site(backend())
    relayed.opened(server, client(server.port))
    page.wait_tunnels(1)
    answer = page.get("metrics", [("Accept", accept)] if accept else [])
    assert answer.get("Content-Type") == content_type
    assert answer.body.endswith(end)
    assert b"wsforward_build_info" in answer.body


def test_page_is_framed_by_nobody_and_runs_nothing(site, backend):
    """So no other site has somebody press its buttons."""
    _, page = site(backend())
    answer = page.get()
    assert answer.get("Content-Type") == "text/html; charset=utf-8"
    policy = answer.get("Content-Security-Policy").split("; ")
    assert {"default-src 'none'", "frame-ancestors 'none'", "form-action 'self'"} <= {*policy}


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
def test_other_methods_are_not_allowed(site, backend, method):
    _, page = site(backend())
    answer = page.client(page.port).ask(http.request("/status", method=method))
    assert answer.status == 405
    assert {"GET", "POST"} <= set(answer.get("Allow").split(","))


@pytest.mark.parametrize("query", ["nothing", "json=1", "tunnels&colour=red", "tunnels&older=soon", "tunnels&limit=-1", "ready&json"])
def test_query_that_is_wrong(site, backend, query):
    _, page = site(backend())
    answer = page.get(query)
    assert answer.status == 400
    assert answer.get("Content-Type").startswith("text/plain")


@pytest.mark.parametrize("where", ["", "VirtualHost 127.0.0.1:1"])
def test_actions_are_for_one_place(httpd, where):
    """Not for a whole server, by mistake."""
    server = httpd()
    server.directives(f"<{where}>\n{statuspage.ACTIONS}\n</VirtualHost>" if where else statuspage.ACTIONS)
    status, text = server.configtest()
    assert status != 0
    assert "WSForwardStatusActions" in text


# Ready.


@pytest.mark.parametrize("mpm", MPMS)
def test_while_the_ready_file_is_absent_there_are_no_new_tunnels(site, backend, client, scratch, mpm):
    """Pages go on, and so do the tunnels that are open."""
    origin = backend()
    file = scratch / f"ready-{mpm}"
    file.write_text("")
    server, page = site(origin, mpm, main=f'WSForwardReadyFile "{file}"')
    assert (page.get("ready").status, page.get("ready").body) == (200, b"ready\n")
    assert page.json()["ready"] is True
    talk = relayed.opened(server, client(server.port))
    file.unlink()
    wait.until(lambda: page.get("ready").status == 503, "it is seen that the file is gone")
    # All processes go by the same look.
    assert {page.get("ready").status for _ in range(20)} == {503}
    assert str(file) in page.get("ready").body.decode()
    answer = client(server.port).ask(http.handshake())
    assert (answer.status, answer.get("Retry-After")) == (503, "10")
    assert client(server.port).ask(http.request()).body == b"plain\n"
    talk.echoes(b"still there")
    assert relayed.figures(server)["Refused-not-ready"] >= 1
    file.write_text("")
    wait.until(lambda: page.get("ready").status == 200, "it is seen that the file is back")
    # A load balancer that was told so by one child sends clients to all.
    assert {page.get("ready").status for _ in range(20)} == {200}
    assert {client(server.port).ask(http.handshake()).status for _ in range(20)} == {101}


def test_a_server_that_is_nearly_full_is_not_ready(site, backend, client):
    server, page = site(backend(), main="WSForwardMaxTunnels 4\nWSForwardReadyBelow 50%")
    relayed.opened(server, client(server.port))
    assert page.get("ready").status == 200
    talk = relayed.opened(server, client(server.port))
    answer = page.get("ready")
    assert answer.status == 503
    assert re.search(rb"2 .*4", answer.body), answer.body
    # It still takes tunnels.
    relayed.opened(server, client(server.port)).close()
    talk.close()
    wait.until(lambda: page.get("ready").status == 200, "it is ready again")


def test_tunnels_in_drain_processes_take_no_room(site, backend, client):
    """A server whose children are new is ready, however many tunnels those before them have left."""
    server, page = site(backend())
    before = page.json()["tunnels"]["possible"]
    for _ in range(3):
        relayed.opened(server, client(server.port))
    server.reload()
    wait.until(lambda: [one["where"] for one in page.tunnels()] == ["drain"] * 3, lambda: f"{page.tunnels()}")
    wait.until(lambda: page.json()["tunnels"]["possible"] == before + 3, lambda: f"{before}: {page.json()}")


# Closing.


@pytest.mark.parametrize("mpm", MPMS)
@pytest.mark.parametrize("relay", ["relay", "drain", "thread"])
def test_a_tunnel_is_closed_by_its_id(site, backend, client, mpm, relay):
    """Both sides get the code and the reason; nothing else ends."""
    origin = backend()
    server, page = site(origin, mpm, relay="WSForwardRelay " + ("Off" if relay == "thread" else "On"))
    talks = [client(server.port) for _ in range(3)]
    for talk in talks:
        assert talk.ask(http.handshake()).status == 101
    ports = [talk.plain.getsockname()[1] for talk in talks]
    origins = {talk: origin.connections[at] for at, talk in enumerate(talks)}
    where = "thread" if relay == "thread" else "relay"
    wait.until(lambda: [one["where"] for one in page.tunnels()] == [where] * 3, lambda: f"{page.tunnels()}")
    if relay == "drain":
        server.reload()
        wait.until(lambda: [one["where"] for one in page.tunnels()] == ["drain"] * 3, lambda: f"{page.tunnels()}")
    [one] = [one for one in page.tunnels() if one["port"] == ports[1]]
    assert page.close(id=one["id"], code=4001, reason="That is enough") == 1
    frame = talks[1].read_frame()
    assert (frame.opcode, frame.payload) == (8, (4001).to_bytes(2, "big") + b"That is enough")
    talks[1].send_frame(close_frame(4001))
    talks[1].read_to_end()
    [end] = relayed.ends(server)
    assert (end.by, end.why) == ("server", "closed-by-admin")
    wait.until(origins[talks[1]].closed.is_set, "the back end's connection is over")
    page.wait_tunnels(2)
    for talk in (talks[0], talks[2]):
        talk.echoes(b"still here")


def test_filters_are_exact(site, backend, client):
    origin = backend()
    server, page = site(origin)
    talks = [relayed.opened(server, client(server.port)) for _ in range(4)]
    listed = page.wait_tunnels(4)
    assert page.close(client="127.0.0.2") == 0
    assert page.close(vhost="tunnels.example") == 0
    assert page.close(backend=origin.url("http", "") + "0") == 0
    assert page.close(user="nobody") == 0
    assert page.close(older=3600) == 0
    assert page.close(idle=3600, client="127.0.0.1") == 0
    assert page.close(id=listed[0]["id"], backend="http://elsewhere:1") == 0
    assert len(page.tunnels()) == 4
    assert page.close(client="127.0.0.1", vhost=f"tunnels.example:{server.port}", backend=origin.url("http", "")) == 4
    for talk in talks:
        assert talk.read_frame().payload[:2] == (1001).to_bytes(2, "big")
        talk.send_frame(close_frame(1001))
    page.wait_tunnels(0)


WRONG = [
    ({}, 400), ({"code": "1002"}, 400), ({"id": "x", "code": "1005"}, 400), ({"id": "x", "code": "many"}, 400),
    ({"id": "x", "colour": "red"}, 400), ({"older": "soon"}, 400), ({"id": "x", "reason": "x" * 124}, 400),
    ({"id": "x", "action": "open"}, 400), ({"id": "x", "nonce": ""}, 403), ({"id": "x", "nonce": "0" * 32}, 403),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "status"), WRONG, ids=[str(fields) for fields, _ in WRONG])
def test_what_is_wrong_closes_nothing(site, backend, client, fields, status):
    server, page = site(backend())
    talk = relayed.opened(server, client(server.port))
    [one] = page.wait_tunnels(1)
    fields = {name: one["id"] if name == "id" else value for name, value in fields.items()}
    answer = page.post(**{"action": "close", "nonce": page.json()["nonce"]} | fields)
    assert answer.status == status, answer.body
    talk.echoes(b"open")
    assert len(page.tunnels()) == 1


def test_a_nonce_is_good_once(site, backend, client):
    server, page = site(backend())
    relayed.opened(server, client(server.port))
    [one] = page.wait_tunnels(1)
    nonce = page.json()["nonce"]
    assert nonce != page.json()["nonce"]
    assert page.post(action="close", nonce=nonce, id="none").status == 200
    assert page.post(action="close", nonce=nonce, id=one["id"]).status == 403
    assert len(page.tunnels()) == 1


def test_get_never_closes(site, backend, client):
    server, page = site(backend())
    relayed.opened(server, client(server.port))
    [one] = page.wait_tunnels(1)
    query = urllib.parse.urlencode({"action": "close", "nonce": page.json()["nonce"], "id": one["id"]})
    assert page.get(query).status == 400
    assert len(page.tunnels()) == 1


@pytest.mark.parametrize("actions", ["", "WSForwardStatusActions Off"])
def test_actions_are_off_unless_allowed(site, backend, client, actions):
    server, page = site(backend(), actions=actions)
    relayed.opened(server, client(server.port))
    [one] = page.wait_tunnels(1)
    nonce = page.json()["nonce"]
    assert page.post(action="close", nonce=nonce or "0", id=one["id"]).status == 403
    assert b"<button" not in page.get().body or b"close" not in page.get().body.lower().split(b"<table")[-1]
    assert len(page.tunnels()) == 1
