"""The application behind the fleet: it echoes, and knows which tunnels ended without a Close frame.

backend.py ADDRESS PORT: runs until its input ends; then prints what it saw, as JSON.
"""

import asyncio
import json
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

from frames import frame, take
from harness.websocket import CLOSE, accept

seen = {"tunnels": 0, "closed": 0, "cut": 0}
SWITCH = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n\r\n"


class Application(asyncio.Protocol):
    """One connection, which is to become a tunnel."""

    def connection_made(self, transport):
        self.transport, self.data, self.state = transport, bytearray(), "head"

    def data_received(self, data):
        self.data += data
        if self.state == "head":
            head, end, rest = self.data.partition(b"\r\n\r\n")
            if not end:
                return
            fields = dict(line.lower().split(": ", 1) for line in head.decode().split("\r\n")[1:])
            key = next(line.split(": ", 1)[1] for line in head.decode().split("\r\n")
                       if line.lower().startswith("sec-websocket-key: "))  # fmt: skip
            assert fields["upgrade"] == "websocket"
            self.transport.write(SWITCH.format(accept(key.encode()).decode()).encode())
            self.data, self.state = bytearray(rest), "open"
            seen["tunnels"] += 1
        for opcode, payload in take(self.data):
            self.transport.write(frame(opcode, payload, mask=False))
            if opcode == CLOSE:
                self.state = "closed"
                seen["closed"] += 1
                self.transport.close()

    def connection_lost(self, _error):
        if self.state == "open":
            seen["cut"] += 1


async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Application, sys.argv[1], int(sys.argv[2]), backlog=4096)
    print("listening", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()
    print(json.dumps(seen), flush=True)


asyncio.run(main())
