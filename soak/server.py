"""The server of the soak, its back ends, and what it says of itself."""

import json
import os
import urllib.request
import uuid
from pathlib import Path

from harness import procfs, statuspage, wait
from harness.httpd import Httpd
from peers import Backend

SETTINGS = Path(__file__).with_name("site.conf")
BACKENDS = 8
#: Of the back ends the last ones have TLS.
TLS_BACKENDS = 2
MARK = "WSF_SOAK_MARK"


class Site:
    """`certificate` is everybody's. Its processes see the wall clock that is given."""

    def __init__(self, module, certificate, clock):
        self.backends = [Backend(number, certificate if number >= BACKENDS - TLS_BACKENDS else None)
                         for number in range(BACKENDS)]  # fmt: skip
        self.server = Httpd(module=module, certificate=certificate)
        lines = ["WSForward On", "WSForwardRelay On", "SSLProxyEngine on", "SSLProxyVerify require",
                 f"SSLProxyCACertificateFile {certificate.cert}"]  # fmt: skip
        # One that was away is asked again at once.
        lines += [f'ProxyPass "/b{one.number}/" "{one.url}" retry=0' for one in self.backends]
        self.server.directives(SETTINGS.read_text())
        self.ports = {"plain": self.server.vhost("\n".join(lines)), "tls": self.server.vhost("\n".join(lines), tls=True)}
        self.page = self.server.vhost(statuspage.SECTION.format(""))
        self.mark = f"{MARK}={uuid.uuid4()}"
        os.environ[MARK] = self.mark.partition("=")[2]
        with clock.seen():
            self.server.start()

    def drains(self):
        return procfs.named("wsforward-drain", self.mark)

    def children(self):
        """Those that httpd's parent has started, and no drain process that has come home to it."""
        drains = self.drains()
        return [pid for pid in self.server.children if pid not in drains]

    def status(self):
        """All of its status page."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.page}/status?json", headers={"Connection": "close"})
        with urllib.request.urlopen(request, timeout=wait.scaled(10)) as answer:
            return json.load(answer)

    def ports_of(self, pid):
        """Ports (client's, server's) of the connections that this process has alone, and of those that another one has too."""
        inodes = {}
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            _, local, remote, _, _, _, _, _, _, inode, *_ = line.split()
            here, there = (int(address.partition(":")[2], 16) for address in (local, remote))
            if here in self.ports.values():
                inodes[f"socket:[{inode}]"] = there, here
        others = set()
        for other in {self.server.pid, *self.server.children, *self.drains()} - {pid}:
            others.update(procfs.descriptors(other))
        mine = inodes.keys() & set(procfs.descriptors(pid))
        return {inodes[inode] for inode in mine - others}, {inodes[inode] for inode in mine & others}

    def stop(self):
        """Ends all of it."""
        try:
            self.server.stop()
        finally:
            self.server.forget()
            for one in self.backends:
                one.stop()
