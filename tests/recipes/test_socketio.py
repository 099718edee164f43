"""Socket.IO before two members of a balancer: each session polls first, then upgrades, at one member."""

import sys
from contextlib import ExitStack

import pytest
import requests
import socketio

from harness import wait

from .application import HERE
from .conftest import reload_and_stay

CLIENTS = 6


@pytest.fixture
def members(run):
    """Two processes that know nothing of each other: a session at one is unknown at the other."""
    return [run(lambda port, _: [sys.executable, "-m", "uvicorn", "socketio_app:app", "--app-dir", HERE,
                                 "--host=127.0.0.1", f"--port={port}", "--log-level=warning"], MEMBER=name)
            for name in ("one", "two")]  # fmt: skip


def client_of(certificate):
    """With cookies of its own, and no settings of the machine's."""
    session = requests.Session()
    session.trust_env, session.verify = False, str(certificate.cert)
    return socketio.SimpleClient(http_session=session, reconnection=False)


def test_socketio_over_a_balancer(site, members, certificate):
    server = site("Socket.IO over a balancer", p3001=members[0].port, p3002=members[1].port)
    with ExitStack() as stack:
        clients = [client_of(certificate) for _ in range(CLIENTS)]
        homes = {}
        for client in clients:
            stack.callback(client.disconnect)
            client.connect(f"https://{server.local}", wait_timeout=20)
            homes[client] = client.call("where", timeout=20)
            wait.until(lambda: client.transport == "websocket", lambda: f"{client.transport} becomes websocket")
        assert set(homes.values()) == {"one", "two"}

        def talk():
            for number, client in enumerate(clients):
                # The member, and all that this session ever said to it.
                talk.said[number] += "x"
                assert client.call("say", "x", timeout=20) == [homes[client], talk.said[number]]
        talk.said = [""] * CLIENTS

        talk()
        reload_and_stay(server, talk)
        assert [client.transport for client in clients] == ["websocket"] * CLIENTS
