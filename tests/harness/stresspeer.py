"""Both ends of very many tunnels: the program of tests/stress, built on demand."""

import functools
import os
import subprocess
from pathlib import Path

from . import paths

#: Kinds of clients and back ends, as the program numbers them.
PLAIN, TLS12, TLS13 = 0, 1, 2


@functools.cache
def program():
    """`WSF_STRESS_PEER`, else what cargo builds."""
    named = os.environ.get("WSF_STRESS_PEER")
    if named:
        return Path(named)
    # pytest-xdist's workers take turns: cargo locks its target directory.
    done = subprocess.run(["cargo", "build", "--release", "--locked", "-p", "stress"],
                          cwd=paths.ROOT, capture_output=True, text=True)  # fmt: skip
    if done.returncode:
        raise paths.Missing(f"tests/stress does not build:\n{done.stderr}")
    return Path(os.environ.get("CARGO_TARGET_DIR", paths.ROOT / "target")) / "release" / "stress"


class StressPeer:
    """The running program; see tests/stress/src/main.rs."""

    def __init__(self, certificate):
        self._process = subprocess.Popen([program(), certificate.cert, certificate.key], text=True, bufsize=1,
                                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
        word, *ports = self._line().split()
        assert word == "origins"
        self.origins = [int(port) for port in ports]

    @property
    def pid(self):
        return self._process.pid

    def _line(self):
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the stress peer ended with {self._process.wait()}")
        return line.rstrip("\n")

    def directives(self, certificate):
        """The routes to its back ends, as a virtual host has them."""
        plain, tls12, tls13 = self.origins
        return f"""WSForward On
WSForwardRelay On
SSLProxyEngine on
SSLProxyVerify require
SSLProxyCACertificateFile {certificate.cert}
ProxyPass "/plain/" "http://127.0.0.1:{plain}/"
ProxyPass "/tls12/" "https://127.0.0.1:{tls12}/"
ProxyPass "/tls13/" "https://127.0.0.1:{tls13}/"
"""

    def vhosts(self, server, more=""):
        """Adds a plain and a TLS virtual host to a server; returns their ports as a run takes them."""
        text = self.directives(server.certificate) + more
        self.ports = {"plain": server.vhost(text), "tls": server.vhost(text, tls=True)}

    def begin(self, **run):
        """Starts a run; see `end`."""
        words = [f"{name}={value}" for name, value in (self.ports | run).items()]
        self._process.stdin.write(" ".join(["run", *words]) + "\n")

    def end(self):
        """What became of the run, and its failures as text."""
        failures = []
        while not (line := self._line()).startswith("result "):
            failures.append(line)
        result = {name: int(value) for name, value in (word.split("=") for word in line.split()[1:])}
        return result, failures

    def run(self, **run):
        """A run from its start to its end."""
        self.begin(**run)
        return self.end()

    def hold(self, **run):
        """Opens tunnels and returns when all of them had their conversation and are quiet."""
        self.begin(**run, hold=1)
        line = self._line()
        assert line == "held", [line, *self.end()]

    def release(self):
        """Ends the tunnels that are held, and tells what became of them."""
        self._process.stdin.write("\n")
        return self.end()

    def close(self):
        """Ends the program."""
        self._process.stdin.close()
        try:
            self._process.wait(5)
        finally:
            self._process.kill()
            self._process.wait()
