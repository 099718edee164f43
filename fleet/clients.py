"""The clients of the fleet. Whoever's tunnel ends comes back after a random delay, as a browser's page does."""

import asyncio
import asyncio.sslproto
import random
import struct
import threading
import time
from collections import Counter

from frames import frame, take
from harness import http
from harness.websocket import BINARY, CLOSE

#: Seconds that a handshake may take, and the end of a tunnel after its Close frame.
PATIENCE = 20
# One for each TLS connection, filled with zeros: 256 KiB by default.
asyncio.sslproto.SSLProtocol.max_size = 16384


class Failed(Exception):
    """A handshake that did not lead to a tunnel."""


class Tunnel(asyncio.Protocol):
    """One connection of a client."""

    def __init__(self, loop):
        self.data, self.is_open, self.asked, self.echoes = bytearray(), False, None, 0
        #: Of its Close frame: the code, and the instant.
        self.code = self.closed = None
        #: Done when it echoes, and when it is over.
        self.ready, self.over = loop.create_future(), loop.create_future()

    def connection_made(self, transport):
        self.transport = transport
        transport.write(http.handshake("/", host="www.example.com"))

    def data_received(self, data):
        self.data += data
        if not self.is_open:
            head, end, rest = self.data.partition(b"\r\n\r\n")
            if not end:
                return
            if not head.startswith(b"HTTP/1.1 101 "):
                self._ready(Failed(head.split(b"\r\n")[0].decode()))
                self.transport.abort()
                return
            self.data, self.is_open = bytearray(rest), True
            self.ask()
        for opcode, payload in take(self.data):
            if opcode == CLOSE and self.code is None:
                (self.code,), self.closed = struct.unpack("!H", payload[:2]), time.monotonic()
                self.transport.write(frame(CLOSE, payload[:2], mask=True))
                self._ready(Failed(f"closed with {self.code} at once"))
            elif opcode == BINARY:
                assert payload == self.asked, "another message comes back"
                self.asked, self.echoes = None, self.echoes + 1
                self._ready(None)

    def connection_lost(self, error):
        self._ready(Failed(f"the connection ended: {error}"))
        if not self.over.done():
            self.over.set_result(None)

    def ask(self):
        """Sends a message that is to come back."""
        self.asked = random.randbytes(random.randrange(1, 100))
        self.transport.write(frame(BINARY, self.asked, mask=True))

    def _ready(self, error):
        if not self.ready.done():
            self.ready.set_exception(error) if error else self.ready.set_result(None)


class Clients:
    """`count` clients, half of them with TLS, in a thread of their own. Instants are time.monotonic()."""

    def __init__(self, address, context, count, delay, pause):
        """They come back within `delay` seconds, and say something about each `pause` seconds."""
        self.address, self.context, self.count, self.delay, self.pause = address, context, count, delay, pause
        #: Instants of tunnels opened, and of Close frames; (instant, why) of handshakes that failed.
        self.opened, self.closes, self.failures = [], [], []
        #: How tunnels ended: by close code, None without a Close frame.
        self.codes = Counter()
        #: Messages that came back, and those that did not when their tunnel was closed.
        self.echoes, self.unanswered = 0, 0
        self.tunnels = set()
        self.is_ending = False
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def start(self, seconds):
        """They come over so many seconds."""
        self._tasks = [asyncio.run_coroutine_threadsafe(self._live(number % 2 == 1, random.uniform(0, seconds)), self.loop)
                       for number in range(self.count)]  # fmt: skip

    @property
    def open(self):
        """How many have a tunnel."""
        return len(self.tunnels)

    async def _live(self, with_tls, delay):
        await asyncio.sleep(delay)
        while not self.is_ending:
            tunnel = None
            try:
                tunnel = await asyncio.wait_for(self._connect(with_tls), PATIENCE)
            except (OSError, Failed, TimeoutError) as error:
                self.failures.append((time.monotonic(), str(error) or type(error).__name__))
            else:
                self.tunnels.add(tunnel)
                self.opened.append(time.monotonic())
                await self._talk(tunnel)
                self.tunnels.discard(tunnel)
                self.codes[tunnel.code] += 1
                self.echoes += tunnel.echoes
                self.unanswered += tunnel.asked is not None
                if tunnel.closed:
                    self.closes.append(tunnel.closed)
            await asyncio.sleep(0 if self.is_ending else random.uniform(0, self.delay))

    async def _connect(self, with_tls):
        more = {"ssl": self.context, "server_hostname": "site.test"} if with_tls else {}
        port = 443 if with_tls else 80
        transport, tunnel = await self.loop.create_connection(lambda: Tunnel(self.loop), self.address, port, **more)
        try:
            await tunnel.ready
        except BaseException:
            transport.abort()
            raise
        return tunnel

    async def _talk(self, tunnel):
        while not tunnel.over.done():
            await asyncio.wait([tunnel.over], timeout=random.uniform(0.5, 1.5) * self.pause)
            if tunnel.code is not None:
                await asyncio.wait([tunnel.over], timeout=PATIENCE)
                tunnel.transport.abort()
                return
            if not tunnel.over.done() and tunnel.asked is None:
                tunnel.ask()

    def all_echo(self):
        """How many of those that are open echo just now."""
        async def ask():
            asked = [tunnel for tunnel in self.tunnels if tunnel.asked is None]
            for tunnel in asked:
                tunnel.ask()
            waited = [tunnel for tunnel in self.tunnels if tunnel.asked is not None]
            end = time.monotonic() + PATIENCE
            while any(tunnel.asked is not None for tunnel in waited) and time.monotonic() < end:
                await asyncio.sleep(0.05)
            return sum(tunnel.asked is None for tunnel in waited)

        return asyncio.run_coroutine_threadsafe(ask(), self.loop).result(2 * PATIENCE)

    def end(self):
        """All close, and do not come back."""
        self.is_ending = True
        self.loop.call_soon_threadsafe(
            lambda: [tunnel.transport.write(frame(CLOSE, struct.pack("!H", 1000), mask=True)) for tunnel in self.tunnels])
        for task in self._tasks:
            task.result(2 * PATIENCE)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()
