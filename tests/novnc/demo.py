"""ci/demo --novnc: a desktop in the browser, through Apache with TLS, the recipe, and Flask."""

import argparse
import os
import shutil
import signal
import sys
import tempfile
from contextlib import ExitStack, closing
from pathlib import Path

from harness import paths
from harness.certs import Certificate
from harness.httpd import Httpd
from novnc.desktop import Bridge, site
from novnc.xserver import XServer


def check(server, port, bridge, desktop):
    """Goes a user's way in a real browser, and keeps a picture of it."""
    from novnc.browser import Browser
    from novnc.walk import walk

    with closing(Browser()) as browser:
        try:
            walk(server, port, bridge, desktop, browser)
        finally:
            print(f"  Screenshot: {browser.screenshot('novnc-demo')}")
    complaints = server.log.verdict()
    assert not complaints, "\n".join(complaints)
    print("  101, the desktop's pixels, keys both before and after a graceful reload, no connection lost\n"
          "ci/demo --novnc --check: ok")


def main():
    parser = argparse.ArgumentParser(prog="ci/demo --novnc")
    parser.add_argument("--novnc", action="store_true", required=True)
    parser.add_argument("--check", action="store_true", help="prove it with headless Chromium and exit")
    args = parser.parse_args()
    # Ctrl-C, a kill and a closed terminal all end in the same clean-up.
    ends = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in ends:
        signal.signal(number, signal.default_int_handler)
    with ExitStack() as stack:
        try:
            directory = Path(tempfile.mkdtemp(prefix="wsforward-demo."))
            stack.callback(shutil.rmtree, directory, ignore_errors=True)
            directory.chmod(0o755)
            module = shutil.copy(paths.module_under_test(), directory)
            desktop = stack.enter_context(closing(XServer()))
            novnc = os.environ.get("WSF_NOVNC", "/usr/share/novnc")
            bridge = stack.enter_context(closing(Bridge({("alice", "desk"): desktop.port}, novnc=novnc)))
            server = Httpd(module=module, certificate=Certificate.make(directory))
            stack.callback(server.forget)
            port = server.vhost(site(bridge.port) + "WSForwardRelay On\n", tls=True)
            server.start()
            if args.check:
                check(server, port, bridge, desktop)
                return 0
            print(f"""
  Page:        https://localhost:{port}/    (a self-signed certificate)
  User:        alice
  Password:    {Bridge.PASSWORD}
  Apache:      {server.directory}/httpd.conf, error.log and access.log beside it
  Flask:       {bridge.output}
  Log in, open "desk", and type. Ctrl-C ends it.""", flush=True)
            signal.pause()
        except KeyboardInterrupt:
            return 130 if args.check else 0
        finally:
            for number in ends:
                signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (AssertionError, OSError, RuntimeError) as error:
        sys.exit(f"ci/demo --novnc: {error}")
