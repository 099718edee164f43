"""Ports for httpd: from the system, and kept from everyone else while httpd may need them."""

import socket


class Port:
    """A loopback port that is ours until `release`.

    The socket that holds it is bound with SO_REUSEADDR and never listens, so httpd, which sets
    SO_REUSEADDR too, can bind and listen there, and nobody else is given the number.
    """

    def __init__(self):
        self._holder = socket.socket()
        self._holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._holder.bind(("127.0.0.1", 0))
        self.number = self._holder.getsockname()[1]

    def release(self):
        """Gives the port back."""
        self._holder.close()
