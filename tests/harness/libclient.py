"""Python `websockets` as the independent client, without a thread of its own.

Its sync client reads in a second thread while the first writes; over TLS 1.3 Python 3.11's ssl
module then loses a wake-up now and then, and the handshake hangs, with any server. One event
loop that runs only while it is asked has no such race.
"""

import asyncio
from contextlib import contextmanager

from websockets.asyncio.client import connect as connect_async

from .wait import PATIENCE


class Connection:
    """An open WebSocket, driven from the outside by `loop`."""

    def __init__(self, loop, ws):
        self._loop, self._ws = loop, ws

    def __getattr__(self, name):
        return getattr(self._ws, name)

    def _run(self, what, timeout=PATIENCE):
        return self._loop.run_until_complete(asyncio.wait_for(what, timeout))

    def send(self, message):
        """Sends a message, text or bytes."""
        self._run(self._ws.send(message))

    def recv(self, timeout=PATIENCE):
        """The next message, TimeoutError after `timeout` seconds."""
        return self._run(self._ws.recv(), timeout)

    def close(self, code=1000, reason=""):
        """The closing handshake (RFC 6455 7)."""
        self._run(self._ws.close(code, reason))


@contextmanager
def connect(url, **options):
    """A connection for the length of a with block; options as of websockets' own connect."""
    loop = asyncio.new_event_loop()
    try:
        ws = Connection(loop, loop.run_until_complete(_opened(url, options)))
        try:
            yield ws
        finally:
            ws.close()
    finally:
        loop.close()


async def _opened(url, options):
    return await connect_async(url, proxy=None, **options)
