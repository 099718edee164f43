"""The container of the browser scenario: an X server that speaks VNC, with a terminal in it."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from harness import paths, wait
from harness.ports import Port

#: Background of the terminal, red, green and blue: what a screenshot must be full of.
COLOUR = (29, 78, 107)
#: Keys go to the file at once, and show in the terminal.
TYPEWRITER = 'printf "%s\\n\\n" "$2"; stty -icanon; exec cat >"$1"'


class XServer:
    """Xvnc on a loopback port, until closed."""

    def __init__(self, title="An X server behind Flask behind Apache. Type something:"):
        for program in ("Xtigervnc", "xterm"):
            if not shutil.which(program):
                raise paths.Missing(f"{program} (Debian: tigervnc-standalone-server, xterm)")
        self.directory = Path(tempfile.mkdtemp(prefix="wsf-x-"))
        self._typed = self.directory / "typed"
        self._typed.touch()
        self._held = Port()
        self.port = self._held.number
        self._processes = []
        self.display = self._start_server()
        self._start(["xterm", "-bg", "#{:02x}{:02x}{:02x}".format(*COLOUR), "-fg", "white", "-fa", "DejaVu Sans Mono",
                     "-fs", "12", "-geometry", "100x40+0+0", "-e", "sh", "-c", TYPEWRITER, "sh", self._typed, title])

    def _start(self, command, **more):
        environment = dict(os.environ, DISPLAY=getattr(self, "display", ""))
        with (self.directory / "output").open("ab") as output:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                       start_new_session=True, env=environment, **more)  # fmt: skip
        self._processes.append(process)
        return process

    def _start_server(self):
        reading, writing = os.pipe()
        try:
            server = self._start(["Xtigervnc", "-displayfd", str(writing), "-rfbport", str(self.port),
                                  "-interface", "127.0.0.1", "-SecurityTypes", "None", "-nolisten", "tcp", "-ac",
                                  "-geometry", "1024x700", "-depth", "24"], pass_fds=[writing])  # fmt: skip
            os.close(writing)
            os.set_blocking(reading, False)
            number = b""

            def ready():
                nonlocal number
                if server.poll() is not None:
                    raise RuntimeError(f"Xvnc ended:\n{(self.directory / 'output').read_text()}")
                try:
                    number += os.read(reading, 16)
                except BlockingIOError:
                    pass
                return number.endswith(b"\n")
            wait.until(ready, "Xvnc is ready", 20)
        finally:
            os.close(reading)
        return f":{int(number)}"

    def typed(self):
        """The keys that arrived in the terminal."""
        return self._typed.read_text()

    def wait_typed(self, text):
        """Waits until these keys, and no others, have arrived."""
        wait.until(lambda: self.typed() == text, lambda: f"typed: {self.typed()!r}, wanted {text!r}", 20)

    def close(self):
        """Ends its programs and itself."""
        for process in reversed(self._processes):
            process.terminate()
            process.wait(10)
        self._held.release()
        shutil.rmtree(self.directory, ignore_errors=True)
