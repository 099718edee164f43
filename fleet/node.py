"""A node: an httpd on a machine of its own, with the module's settings of contrib/."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

from harness import paths, procfs, wait
from world import Machine

HERE = Path(__file__).resolve().parent
SETTINGS = HERE.parent / "contrib" / "fleet" / "wsforward.conf"
CLOSE_SOME = SETTINGS.with_name("close-some")
MODULES = ["mpm_event", "authz_core", "authz_host", "socache_shmcb", "ssl", "remoteip", "proxy", "proxy_http"]
STATUS = "/wsforward-status"
#: What may be in its log: that it stops gracefully, handshakes that find all workers busy for a moment, an OpenSSL
#: that is older than mod_ssl's.
USUAL = "WSF0480|AH00484|AH10159|AH01882"


class Node:
    """`name` is www1 and so on. `more` are directives that come last."""

    def __init__(self, directory, number, certificate, more=""):
        self.name, self.directory = f"www{number}", directory / f"www{number}"
        self.machine = Machine(self.name, f"10.0.0.{10 + number}")
        self.run, self.module = self.directory / "run", self.directory / "mod_wsforward.so"
        self.run.mkdir(parents=True)
        shutil.copy(certificate.cert, self.directory / "cert.pem")
        shutil.copy(certificate.key, self.directory / "key.pem")
        lines = [f"LoadModule {name}_module {paths.module_file(name)}" for name in MODULES
                 if name not in paths.static_modules()]  # fmt: skip
        (self.directory / "httpd.conf").write_text("\n".join([
            *lines, f"LoadModule wsforward_module {self.module}", f"Define NODE {self.directory}",
            f"Include {HERE / 'node.conf'}", f"Include {SETTINGS}", more, ""]))  # fmt: skip
        self.process = None

    def install(self, module):
        """Puts a build of the module in place, as a package does: the old file lives on while it is in use."""
        shutil.copy(module, self.module.with_suffix(".new"))
        self.module.with_suffix(".new").rename(self.module)

    def start(self):
        """Starts it, and waits for its answer."""
        with (self.directory / "output.log").open("ab") as log:
            self.process = self.machine.start(paths.httpd(), "-f", self.directory / "httpd.conf", "-D", "FOREGROUND",
                                              bind=(self.run, "/run/wsforward"), stdout=log, stderr=log)  # fmt: skip
        wait.until(self._answers, lambda: f"{self.name} answers\n{self.log()}", 20)
        # The new build, and nothing of the old one.
        assert procfs.mapped_inodes(self.process.pid, self.module) == {self.module.stat().st_ino}

    def ready(self, is_ready):
        """Puts it into service, or takes it out."""
        file = self.run / "ready"
        if is_ready:
            file.touch()
        else:
            file.unlink()

    def graceful_stop(self, timeout):
        """As apachectl does it. Waits until httpd has ended, and returns how long it took."""
        began = time.monotonic()
        os.kill(self.process.pid, signal.SIGWINCH)
        status = self.process.wait(timeout)
        assert status == 0, f"{self.name} ended with {status}\n{self.log()}"
        return time.monotonic() - began

    def stop(self):
        """At once."""
        if self.process and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(20)

    def tunnels(self):
        """How many it has, as its status page says."""
        _, body = self.machine.get(8081, f"{STATUS}?json")
        return json.loads(body)["tunnels"]["open"]

    def version(self):
        """Of the module."""
        _, body = self.machine.get(8081, f"{STATUS}?metrics")
        return re.search(rb'wsforward_build_info\{version="([^"]*)"', body).group(1).decode()

    def close_some(self, count, seconds):
        """Starts what closes so many of its tunnels over that time."""
        return self.machine.start(CLOSE_SOME, count, seconds, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def log(self):
        """Its error log, and what it printed."""
        return "".join((self.directory / name).read_text(errors="replace") for name in ("output.log", "error.log")
                       if (self.directory / name).exists())  # fmt: skip

    def complaints(self):
        """Lines of its log that are not to be there."""
        return [line for line in self.log().splitlines()
                if re.search(r":(warn|error|crit|alert|emerg)\]|exit signal", line) and not re.search(USUAL, line)]  # fmt: skip

    def _answers(self):
        assert self.process.poll() is None, self.log()
        try:
            status, _ = self.machine.get(8081, f"{STATUS}?ready")
            return status in (200, 503)
        except (OSError, IndexError):
            return False
