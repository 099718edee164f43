"""Very many quiet tunnels: both ends in one thread, and when and how each of them ended."""

import asyncio
import resource
import struct
import threading
import time
from dataclasses import dataclass

from . import http, wait
from .websocket import CLOSE, KEY, Frame, accept, close_frame

SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: " + accept(KEY.encode()) + b"\r\n\r\n"
)


@dataclass
class Closed:
    """How a tunnel ended, as its client saw it."""

    #: When its Close frame came (time.monotonic()), None without one; its code; when the connection ended.
    at: float = None
    code: int = None
    over: float = None


class _Origin(asyncio.Protocol):
    """A back end that switches, and answers a Close with a Close."""

    def connection_made(self, transport):
        self.transport, self.head, self.frames = transport, b"", b""

    def data_received(self, data):
        if self.head is not None:
            self.head += data
            if b"\r\n\r\n" in self.head:
                self.head = None
                self.transport.write(SWITCH)
            return
        self.frames += data
        if self.frames and self.frames[0] & 0x0F == CLOSE:
            self.transport.write(close_frame(1000).encode(mask=False))
            self.transport.close()


class _Client(asyncio.Protocol):
    def __init__(self, herd):
        self.herd, self.closed, self.data, self.opened = herd, Closed(), b"", asyncio.Event()

    def connection_made(self, transport):
        self.transport = transport
        transport.write(http.handshake())

    def data_received(self, data):
        self.data += data
        if not self.opened.is_set():
            head, end, rest = self.data.partition(b"\r\n\r\n")
            if not end:
                return
            assert head.startswith(b"HTTP/1.1 101 "), head
            self.data = rest
            self.opened.set()
        if self.closed.at is None and len(self.data) >= 4 and self.data[0] & 0x0F == CLOSE:
            self.closed.at = time.monotonic()
            (self.closed.code,) = struct.unpack("!H", self.data[2:4])
            self.transport.write(Frame(CLOSE, self.data[2:4]).encode(mask=True))

    def connection_lost(self, _error):
        self.opened.set()
        self.closed.over = time.monotonic()


class Herd:
    """`port` is that of its back end; `open` makes tunnels."""

    def __init__(self):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < hard:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.clients = []
        origin = self._run(self.loop.create_server(_Origin, "127.0.0.1", 0, backlog=1000))
        self.port = origin.sockets[0].getsockname()[1]

    def url(self, _scheme):
        """As that of a `Backend`."""
        return f"http://127.0.0.1:{self.port}"

    def _run(self, coroutine, timeout=120):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(timeout)

    def open(self, port, count, at_once=20):
        """So many tunnels more, through httpd's port; returns what becomes of each."""
        made = []

        async def some(number):
            for _ in range(number):
                _, one = await self.loop.create_connection(lambda: _Client(self), "127.0.0.1", port)
                await one.opened.wait()
                assert one.closed.over is None, "it ended with its handshake"
                made.append(one)

        async def all_of_them():
            share, rest = divmod(count, at_once)
            await asyncio.gather(*(some(share + (number < rest)) for number in range(at_once)))

        self._run(all_of_them())
        self.clients += made
        return [one.closed for one in made]

    def ends(self, closed, timeout=wait.DEADLINE):
        """Waits until all of them have ended."""
        left = lambda: sum(one.over is None for one in closed)  # noqa: E731
        wait.until(lambda: left() == 0, lambda: f"all have ended, {left()} have not", timeout, 0.05)

    def hang_up(self):
        """All clients close."""
        self.loop.call_soon_threadsafe(lambda: [one.transport.abort() for one in self.clients])

    def close(self):
        self.hang_up()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        for transport in [one.transport for one in self.clients]:
            transport.abort()
        self.loop.close()


def by_part(closed, begin, end, parts):
    """How many Close frames came in each part of that time; those before and after it in the first and last."""
    counts = [0] * parts
    for one in closed:
        part = int((one.at - begin) / (end - begin) * parts)
        counts[min(max(part, 0), parts - 1)] += 1
    return counts
