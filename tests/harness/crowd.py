"""Both ends of very many tunnels, as a program: `python -m harness.crowd COUNT`.

It prints the URL of its back end, reads the server's port and the path that leads there, opens the tunnels, and
prints `open`. For the next line it reads the Close frame 4001 of each, and prints `closed`.
"""

import socket
import sys

from . import http as raw
from .members import Members

#: Opened at a time.
BATCH = 20


def opened(port, count, path, host="127.0.0.1"):
    """So many tunnels."""
    talks = []
    while len(talks) < count:
        batch = [socket.create_connection((host, port)) for _ in range(min(BATCH, count - len(talks)))]
        for talk in batch:
            talk.sendall(raw.handshake(path + "p" * 40))
        for talk in batch:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += talk.recv(1)
            assert b" 101 " in head, head
        talks += batch
    return talks


def main():
    members = Members(1)
    print(members.url(0), flush=True)
    port, path = sys.stdin.readline().split()
    talks = opened(int(port), int(sys.argv[1]), path)
    print("open", flush=True)
    if sys.stdin.readline():
        for talk in talks:
            assert talk.recv(4, socket.MSG_WAITALL) == b"\x88\x02\x0f\xa1"
        print("closed", flush=True)
        sys.stdin.readline()
    members.close()


if __name__ == "__main__":
    main()
