"""Starts Apache with the module before a demo back end, proves it, and shows a page.

Started by ci/demo, which installs and builds what this needs. Needs Python's
library only. Everything lives in one temporary folder and ends with this program.
"""

import argparse
import grp
import json
import os
import pwd
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

from backend import Backend  # noqa: E402
from client import Failed, Holder, plain, prove  # noqa: E402
from harness import paths  # noqa: E402
from harness.ports import Port  # noqa: E402

#: What a client may say on top of the handshake: what must arrive, and what must not.
EXTRA = [
    ("Origin", "http://127.0.0.1"),
    ("Referer", "http://127.0.0.1/desk/7/vnc.html"),
    ("Cookie", "session=3f9a; theme=dark"),
    ("Authorization", "Bearer demo"),
    ("Sec-WebSocket-Extensions", "permessage-deflate"),
    ("X-Request-Id", "demo-1"),
    ("Keep-Alive", "timeout=5"),
    ("TE", "trailers"),
]


def first(names, lookup):
    """The first of the names that this system knows."""
    for name in names:
        try:
            lookup(name)
            return name
        except KeyError:
            continue
    return names[-1]


class Apache:
    """An httpd of the demo's own, in `root`, with demo/httpd.conf."""

    def __init__(self, root, module, backend_port, port):
        self.root = root
        self._held = [Port(), Port()]
        self.port = port or self._held[0].number
        self.stock_port = self._held[1].number
        self.process = None
        shutil.copytree(HERE / "page", root / "page")
        (root / "page" / "ports.json").write_text(json.dumps({"backend": backend_port}))
        self.env = dict(
            os.environ, DEMO_ROOT=str(root), DEMO_MODULE=str(module),
            DEMO_MODULES=paths.apxs("LIBEXECDIR"), DEMO_BACKEND_PORT=str(backend_port),
            DEMO_PORT=str(self.port), DEMO_STOCK_PORT=str(self.stock_port),
            DEMO_USER=first(["www-data", "apache", "nobody"], pwd.getpwnam),
            DEMO_GROUP=first(["www-data", "apache", "nogroup", "nobody"], grp.getgrnam))
        self.command = [str(paths.httpd()), "-f", str(HERE / "httpd.conf")]

    def start(self):
        """Starts it in the foreground and waits until it answers."""
        output = self.root / "httpd.out"
        with output.open("wb") as file:
            # Its own session: Ctrl-C is for this program, which then stops httpd.
            self.process = subprocess.Popen([*self.command, "-D", "FOREGROUND"], env=self.env,
                                            stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                                            start_new_session=True)
        deadline = time.monotonic() + 20
        while True:
            try:
                return plain(self.port, "/server-status?auto")
            except (OSError, EOFError, Failed) as error:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise Failed(f"Apache does not answer: {error}\n{output.read_text()}{self.log()}") from error
                time.sleep(0.05)

    def stop(self):
        """Ends it, and returns only when it is gone."""
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()

    def log(self):
        """Its error log."""
        log = self.root / "error.log"
        return log.read_text(errors="replace") if log.exists() else ""

    def status(self):
        """The lines of server-status?auto, as a dict."""
        lines = plain(self.port, "/server-status?auto").decode().splitlines()
        return dict(line.split(": ", 1) for line in lines if ": " in line)


def demonstrate(apache, holder, tunnels):
    """Proves the main job and prints what was seen. Returns nothing, or raises Failed."""
    proof = prove(apache.port, apache.stock_port, EXTRA)
    (apache.root / "page" / "proof.json").write_text(json.dumps(proof))
    arrived = {name.lower(): value for name, value in proof["on"]}
    print(f"  WSForward Off: the back end got a plain GET, the client its 426\n"
          f"  WSForward On:  the back end got Upgrade: {arrived['upgrade']}, Connection: {arrived['connection']};\n"
          f"                 the client got its 101, and echoes of 1 byte to 1 MiB")
    begun = time.monotonic()
    holder.hold(tunnels)
    took = time.monotonic() - begun
    status = apache.status()
    print(f"  {tunnels} tunnels opened in {took:.1f} s, all echo; busy workers meanwhile: "
          f"{status['BusyWorkers']} of {int(status['BusyWorkers']) + int(status['IdleWorkers'])}")
    if int(status["BusyWorkers"]) > 8:
        raise Failed("the tunnels keep workers busy, in spite of the relay")
    holder.release()


def main():
    parser = argparse.ArgumentParser(prog="ci/demo")
    parser.add_argument("--check", action="store_true", help="prove it and exit")
    parser.add_argument("--port", type=int, default=0, help="port of the page (default: a free one)")
    parser.add_argument("--tunnels", type=int, default=500, help="tunnels of the proof")
    parser.add_argument("--module", required=True, help=argparse.SUPPRESS)
    args = parser.parse_args()
    # Three descriptors of this program, and four of Apache, for each tunnel.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # Ctrl-C, a kill and a closed terminal all end in the same clean-up.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)

    root = Path(tempfile.mkdtemp(prefix="wsforward-demo."))
    root.chmod(0o755)
    holder = Holder()
    backend = Backend(holder.hold, holder.release)
    apache = None
    try:
        apache = Apache(root, Path(args.module).resolve(), backend.port, args.port)
        apache.start()
        print(f"  Apache answers at http://127.0.0.1:{apache.port}/", flush=True)
        holder.port = apache.port
        demonstrate(apache, holder, args.tunnels)
        if args.check:
            print("ci/demo --check: ok")
            return 0
        print(f"""
  Page:       http://127.0.0.1:{apache.port}/
  Status:     http://127.0.0.1:{apache.port}/server-status
  Error log:  {root}/error.log
  By hand:    curl -sN -m 2 -D- --http1.1 -H 'Connection: Upgrade' -H 'Upgrade: websocket' \\
                -H 'Sec-WebSocket-Version: 13' -H 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==' \\
                http://127.0.0.1:{apache.port}/back/seen -o-
              and the same at port {apache.stock_port}, where WSForward is Off
  Look at what the back end saw of the request, the live echo, and at the workers
  while 500 tunnels are open. Ctrl-C ends it.""", flush=True)
        apache.process.wait()
        raise Failed(f"Apache ended by itself:\n{apache.log()}")
    except (Failed, AssertionError, EOFError, OSError, paths.Missing) as error:
        print(f"ci/demo: {error or type(error).__name__}", file=sys.stderr)
        if apache:
            print("".join(apache.log().splitlines(keepends=True)[-15:]), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130 if args.check else 0
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        if apache:
            apache.stop()
        backend.server_close()
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
