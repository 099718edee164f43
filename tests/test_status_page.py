"""The status page: what it shows of tunnels, whether the server is ready, and how it closes tunnels."""

import json
import re
import urllib.parse

import pytest

from harness import http, relayed, steps, wait
from harness.websocket import close_frame

MPMS = ["event", "worker", "prefork"]
STATUS = """<Location "/status">
    SetHandler wsforward-status
    {}
</Location>
"""
ACTIONS = "WSForwardStatusActions On"


class Page:
    """The status page of a server, as an administrator asks it."""

    def __init__(self, server, client, port=None):
        self.server, self.client, self.port = server, client, port or server.port

    def get(self, query="", **options):
        talk = self.client(self.port)
        answer = talk.ask(http.request(f"/status{'?' + query if query else ''}", **options))
        talk.close()
        return answer

    def json(self, query="json"):
        answer = self.get(query)
        assert answer.status == 200, answer
        assert answer.get("Content-Type") == "application/json; charset=utf-8"
        assert answer.get("Cache-Control") == "no-store"
        return json.loads(answer.body)

    def tunnels(self, **filters):
        query = urllib.parse.urlencode(filters)
        return self.json("tunnels" + ("&" + query if query else ""))

    def wait_tunnels(self, count, **filters):
        wait.until(lambda: len(self.tunnels(**filters)) == count, lambda: f"{count} tunnels; {self.tunnels()}")
        return self.tunnels(**filters)

    def post(self, **fields):
        body = urllib.parse.urlencode(fields).encode()
        talk = self.client(self.port)
        answer = talk.ask(http.request("/status", method="POST", body=body, fields=[
            ("Content-Type", "application/x-www-form-urlencoded"), ("Content-Length", str(len(body)))]))  # fmt: skip
        talk.close()
        return answer

    def close(self, **fields):
        """Closes tunnels with a fresh nonce, and says how many."""
        answer = self.post(action="close", nonce=self.json()["nonce"], **fields)
        assert answer.status == 200, (answer, answer.body)
        return json.loads(answer.body)["closed"]


@pytest.fixture
def site(httpd, client):
    """A server with a status page; `relay` is what its tunnels are carried by."""

    def make(origin, mpm="event", more="", relay="WSForwardRelay On", actions=ACTIONS, server=""):
        made = httpd(mpm=mpm)
        made.directives(server)
        made.port = made.vhost(f"""ServerName tunnels.example
WSForward On
{relay}
{more}
{STATUS.format(actions)}
<Location "/status">
    ProxyPass "!"
</Location>
ProxyPass "/status" "!"
ProxyPass "/" "{origin.url("http", "")}/\"""")
        made.start()
        return made, Page(made, client)

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
    talk.echoes(b"hello")
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
    server.directives(f"<{where}>\n{ACTIONS}\n</VirtualHost>" if where else ACTIONS)
    status, text = server.configtest()
    assert status != 0
    assert "WSForwardStatusActions" in text


# Ready.


@pytest.mark.parametrize("mpm", MPMS)
def test_while_the_ready_file_is_absent_there_are_no_new_tunnels(site, backend, client, scratch, mpm, request):
    """Pages go on, and so do the tunnels that are open."""
    origin = backend()
    file = scratch / f"ready-{mpm}"
    file.write_text("")
    server, page = site(origin, mpm, server=f'WSForwardReadyFile "{file}"')
    assert (page.get("ready").status, page.get("ready").body) == (200, b"ready\n")
    assert page.json()["ready"] is True
    talk = relayed.opened(server, client(server.port))
    file.unlink()
    # Each child looks for itself.
    wait.until(lambda: all(page.get("ready").status == 503 for _ in range(20)), "it is seen that the file is gone")
    assert str(file) in page.get("ready").body.decode()
    wait.until(lambda: client(server.port).ask(http.handshake()).status == 503, "upgrade requests are refused")
    answer = client(server.port).ask(http.handshake())
    assert (answer.status, answer.get("Retry-After")) == (503, "10")
    assert client(server.port).ask(http.request()).body == b"plain\n"
    talk.echoes(b"still there")
    assert relayed.figures(server)["Refused-not-ready"] >= 1
    file.write_text("")
    wait.until(lambda: all(page.get("ready").status == 200 for _ in range(20)), "it is seen that the file is back")
    relayed.opened(server, client(server.port))


def test_a_server_that_is_nearly_full_is_not_ready(site, backend, client):
    server, page = site(backend(), server="WSForwardMaxTunnels 4\nWSForwardReadyBelow 50%")
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
