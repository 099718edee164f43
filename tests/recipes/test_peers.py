"""Rules for open tunnels disturb nobody who is right: libraries and a browser as clients and as back ends, all of
them at once, with Pings in every silence and WSForwardStrict.

Each talks first to a peer that is ours and sees every frame, then to another library, with permessage-deflate
where both know it.
"""

import json
import os
import subprocess
import sys
import threading

import pytest

from harness import http, paths, relayed, steps, wait, websocket
from harness.websocket import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Frame

from .application import HERE
from .conftest import program
from .test_nodered import NODE_RED

BACK_ENDS = ["websockets", "aiohttp", "tornado", "gevent", "ws"]
CLIENTS = ["websockets", "aiohttp", "tornado", "ws"]
#: Who talks to whom.
PAIRS = {"websockets": "ws", "aiohttp": "tornado", "tornado": "aiohttp", "ws": "websockets"}
#: Whom the browser talks to, with the code of their Close: gevent-websocket's has none.
BROWSERS = {"gevent": 1005, "websockets": 1000}
RULES = """WSForward On
WSForwardRelay On
WSForwardStrict On
WSForwardMaxMessage 100000000 100000000
WSForwardMessageRate 1000/s
WSForwardBandwidth 100000000/s
WSForwardMaxLifetime 1h
# Whoever is late on a busy machine is not gone.
WSForwardPing 1s 30s
"""
#: How many Pings a peer answers while a message that was sent to it in part waits for its end.
PINGS = 2
BIG = os.urandom(300_000)
PAGE = """<!DOCTYPE html><title>peer</title>
<script>
const MESSAGES = ["text", "x".repeat(70000), crypto.getRandomValues(new Uint8Array(50000)), ""], SILENCE = 2200;
const ended = {};
const bytes = message => Array.from(typeof message === "string" ? new TextEncoder().encode(message) : new Uint8Array(message));
function open(path) {
  const socket = new WebSocket(`ws://${location.host}/${path}`);
  socket.binaryType = "arraybuffer";
  socket.onclose = event => { ended[path] = event.code; };
  return socket;
}
function talk(path) {
  const socket = open(path);
  let number = 0;
  const say = () => number < MESSAGES.length ? socket.send(MESSAGES[number]) : socket.close(1000);
  socket.onopen = say;
  socket.onmessage = event => {
    if (bytes(event.data).join() !== bytes(MESSAGES[number]).join()) socket.close(4000, `message ${number} is wrong`);
    number += 1;
    setTimeout(say, number === 1 ? SILENCE : 0);
  };
}
const echo = open("client/chromium");
echo.onmessage = event => echo.send(event.data);
for (const library of LIBRARIES) talk(`back-end/${library}`);
</script>
"""


def command(library, role, where):
    """The program that is this library's peer."""
    if library == "ws":
        return [program("node"), HERE / "peer.js", role, where]
    return [sys.executable, HERE / "peer.py", library, role, where]


def environment():
    """With the `ws` that comes with Node-RED, and without proxies."""
    if not NODE_RED.exists():
        raise paths.Missing(f"{NODE_RED} (ci/test fetches it)")
    variables = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    return variables | {"NODE_PATH": str(NODE_RED.parent.parent / "mqtt" / "node_modules")}


def converse(read, send, close=1000):
    """What our own end does: a message in two parts, and as many Pings answered by the peer in between as PINGS says;
    a big one; then a Close. It answers Pings itself, so that the peer gets Pongs that it never asked for."""
    pings = pongs = 0

    def message(is_over=lambda: False):
        nonlocal pings, pongs
        parts = []
        while not is_over():
            frame = read()
            if frame.opcode == PING:
                assert frame == Frame(PING)
                send(Frame(PONG))
                pings += 1
            elif frame.opcode == PONG:
                assert frame == Frame(PONG)
                pongs += 1
            elif frame.opcode == CLOSE:
                return frame
            else:
                parts.append(frame.payload)
                if frame.fin:
                    return b"".join(parts)
        return None

    send(Frame(TEXT, b"hel", fin=False))
    assert message(lambda: pings >= PINGS and pongs >= PINGS) is None
    send(Frame(CONTINUATION, b"lo"))
    assert message() == b"hello"
    send(Frame(BINARY, BIG))
    assert message() == BIG
    send(websocket.close_frame(1000))
    assert message() == (Frame(CLOSE) if close == 1005 else websocket.close_frame(close))


class Tasks:
    """Threads that run at once; `join` raises what one of them raised."""

    def __init__(self):
        self._threads, self._failed = [], {}

    def start(self, name, work, *arguments):
        def run():
            try:
                work(*arguments)
            except BaseException as error:
                self._failed[name] = error
        self._threads.append(threading.Thread(target=run, name=name))
        self._threads[-1].start()

    def join(self):
        for thread in self._threads:
            thread.join()
        assert not self._failed, self._failed


@pytest.mark.timeout(300)
def test_nobody_is_disturbed(run, httpd, backend, client, browser):
    scripted, served = backend(), []

    def step(connection):
        converse(lambda: websocket.read_frame(connection.recv_exactly), lambda frame: connection.send(frame.encode(mask=False)))
        served.append(connection.request.target.rpartition("/")[2])
    scripted.answers(steps.switch(), step, steps.close)
    apps = {name: run(lambda port, _: command(name, "serve", port), **environment()) for name in BACK_ENDS}
    routes = "\n".join(f'ProxyPass "/back-end/{name}" "http://127.0.0.1:{app.port}/"' for name, app in apps.items())
    server = httpd()
    port = server.vhost(f'{RULES}{routes}\nProxyPass "/client" "{scripted.url("http")}client"')
    server.page("page.html", PAGE.replace("LIBRARIES", json.dumps([*BROWSERS])))
    server.start()
    at = f"ws://127.0.0.1:{port}"
    tasks = Tasks()

    def ask_back_end(name):
        with client(port) as talk:
            assert talk.ask(http.handshake(f"/back-end/{name}")).status == 101
            converse(talk.read_frame, talk.send_frame, BROWSERS.get(name, 1000))
            talk.end()

    def run_client(name, role, url):
        done = subprocess.run(list(map(str, command(name, role, url))), capture_output=True, text=True, timeout=200,
                              env=environment(), stdin=subprocess.DEVNULL)  # fmt: skip
        assert (done.returncode, done.stdout) == (0, "1000\n"), done

    for name in BACK_ENDS:
        tasks.start(f"back end {name}", ask_back_end, name)
    for name in CLIENTS:
        tasks.start(f"client {name}", run_client, name, "echo", f"{at}/client/{name}")
        tasks.start(f"{name} to {PAIRS[name]}", run_client, name, "talk", f"{at}/back-end/{PAIRS[name]}")
    browser.driver.get(f"http://127.0.0.1:{port}/page.html")
    tasks.join()
    ended = {"client/chromium": 1000} | {f"back-end/{name}": code for name, code in BROWSERS.items()}
    wait.until(lambda: browser.driver.execute_script("return ended") == ended,
               lambda: json.dumps(browser.driver.execute_script("return ended")), 60)
    assert sorted(served) == sorted([*CLIENTS, "chromium"])
    count = len(BACK_ENDS) + len(CLIENTS) + len(PAIRS) + 1 + len(BROWSERS)
    ends = relayed.ends(server, count)
    assert [end.why for end in ends] == ["closed"] * count, ends
    assert relayed.figures(server)["HandedOver"] == count
