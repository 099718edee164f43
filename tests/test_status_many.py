"""Very many tunnels: listed and closed without a pause for those that go on. By hand with as many as
`WSF_MANY_TUNNELS` says, `-s` prints the figures."""

import http.client
import json
import os
import subprocess
import sys
import time

import pytest

from harness import paths, statuspage, wait

COUNT = int(os.environ.get("WSF_MANY_TUNNELS", "1000"))
#: Tunnels of a process: within the usual limit of descriptors, of which its client and its back end need one each.
MOST = 7000

#: Both ends of one tunnel, in a process of their own: echoes, and says for each line that it reads how long the
#: longest took since the last one.
PROBE = r"""
import base64, hashlib, re, select, socket, sys, threading, time
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)

def answer():
    talk, _ = listener.accept()
    head = b""
    while b"\r\n\r\n" not in head:
        head += talk.recv(65536)
    key = re.search(rb"(?i)sec-websocket-key: *(\S+)", head)[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    accept = base64.b64encode(hashlib.sha1(key).digest())
    talk.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                 b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n")
    while talk.recv(7, socket.MSG_WAITALL):
        talk.sendall(b"\x82\x01x")

threading.Thread(target=answer, daemon=True).start()
port = int(sys.stdin.readline())
talk = socket.create_connection(("127.0.0.1", port))
talk.sendall(b"GET /probe HTTP/1.1\r\nHost: site.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
             b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
head = b""
while b"\r\n\r\n" not in head:
    head += talk.recv(1)
# Whoever reads this has not written the next line before.
print("open", flush=True)
longest, count = 0.0, 0
while True:
    begin = time.monotonic()
    talk.sendall(b"\x82\x81\0\0\0\0x")
    assert talk.recv(3, socket.MSG_WAITALL) == b"\x82\x01x"
    longest, count = max(longest, time.monotonic() - begin), count + 1
    if select.select([sys.stdin], [], [], 0.001)[0]:
        if not sys.stdin.readline():
            break
        print(longest, count, flush=True)
        longest, count = 0.0, 0
"""


class Probe:
    def __init__(self):
        self._process = subprocess.Popen([sys.executable, "-c", PROBE], text=True, bufsize=1,
                                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
        self.port = int(self._process.stdout.readline())

    def begin(self, port):
        self._process.stdin.write(f"{port}\n")
        assert self._process.stdout.readline() == "open\n"

    def longest(self):
        """The longest echo since this was asked last, in seconds."""
        self._process.stdin.write("?\n")
        longest, count = self._process.stdout.readline().split()
        assert int(count) > 0
        return float(longest)

    def close(self):
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


@pytest.fixture
def probe():
    made = Probe()
    yield made
    made.close()


class Crowd:
    """Both ends of so many tunnels, in a process of their own: see harness/crowd.py."""

    def __init__(self, count):
        self.count = count
        self._process = subprocess.Popen([sys.executable, "-m", "harness.crowd", str(count)], text=True, bufsize=1,
                                         cwd=paths.ROOT / "tests", stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
        self.backend = self._process.stdout.readline().strip()

    def open(self, port, path):
        """Opens them."""
        self._process.stdin.write(f"{port} {path}\n")
        assert self._process.stdout.readline() == "open\n"

    def check_closed(self):
        """All of them have got the Close frame."""
        self._process.stdin.write("closed?\n")
        assert self._process.stdout.readline() == "closed\n"

    def close(self):
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()


@pytest.fixture
def crowds():
    made = [Crowd(min(MOST, COUNT - at)) for at in range(0, COUNT, MOST)]
    yield made
    for one in made:
        one.close()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_very_many_are_listed_and_closed_without_a_pause(httpd, client, crowds, probe):
    server = httpd()
    routes = "\n".join(f'ProxyPass "/{at}/" "{crowd.backend}/"' for at, crowd in enumerate(crowds))
    server.port = server.vhost(f"""WSForward On
WSForwardRelay On
{statuspage.SECTION.format(statuspage.ACTIONS)}
ProxyPass "/status" "!"
ProxyPass "/probe" "http://127.0.0.1:{probe.port}/"
{routes}""")
    server.start()
    page = statuspage.Page(server, client, server.port)
    probe.begin(server.port)
    alone = probe.longest()
    for at, crowd in enumerate(crowds):
        # What one child may have is not enough for all: those of before go on in drain processes.
        if at:
            server.reload()
        crowd.open(server.port, f"/{at}/")
    wait.until(lambda: page.metric("tunnels") == COUNT + 1, lambda: f"{page.metrics()}")
    time.sleep(1)
    probe.longest()
    time.sleep(2)
    idle = probe.longest()
    took = []
    for _ in range(5):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        begin = time.monotonic()
        connection.request("GET", "/status?tunnels")
        body = connection.getresponse().read()
        took.append(time.monotonic() - begin)
        connection.close()
    listing = probe.longest()
    assert len(json.loads(body)) == COUNT + 1
    begin = time.monotonic()
    assert sum(page.close(backend=crowd.backend, code=4001) for crowd in crowds) == COUNT
    told = time.monotonic() - begin
    wait.until(lambda: page.metric("tunnels") == 1, lambda: f"{page.metrics()}", 60, every=0.2)
    ended = time.monotonic() - begin
    closing = probe.longest()
    for crowd in crowds:
        crowd.check_closed()
    print(f"{COUNT} tunnels: listed in {min(took) * 1000:.0f} to {max(took) * 1000:.0f} ms ({len(body)} bytes), "
          f"told to close in {told * 1000:.0f} ms, all ended after {ended:.1f} s; longest echo, in ms: {alone * 1000:.1f} alone, "
          f"{idle * 1000:.1f} beside them, {listing * 1000:.1f} while they are listed, {closing * 1000:.1f} while they end")  # fmt: skip
    assert min(took) < wait.scaled(max(0.3, 0.3 * COUNT / 20000))
    assert max(listing, closing) < wait.scaled(0.1) + idle
