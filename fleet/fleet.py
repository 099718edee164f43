"""A fleet behind HAProxy is upgraded, node by node, with its tunnels. Started by ci/fleet, as root in
namespaces of its own for network, mounts and processes. Needs Python's library only, and HAProxy."""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "tests"))

import picture  # noqa: E402
import world  # noqa: E402
from balancer import ADDRESS, Balancer  # noqa: E402
from clients import Clients  # noqa: E402
from harness import wait  # noqa: E402
from harness.certs import Certificate  # noqa: E402
from node import Node  # noqa: E402
from roll import Plan, Roll  # noqa: E402

#: Descriptors of every process, if they can be had.
DESCRIPTORS = 20_000
#: In place of the settings of contrib/, for a run that takes no minutes.
SMALL = "GracefulShutdownTimeout 3\nWSForwardCloseSpread 2"


class Application:
    """The back end of all nodes, a process of its own."""

    def __init__(self):
        self.process = subprocess.Popen([sys.executable, HERE / "backend.py", world.HOME, "8080"], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
        assert self.process.stdout.readline() == "listening\n"

    def stop(self):
        """Ends it, and returns what it has seen."""
        said, _ = self.process.communicate(timeout=20)
        return json.loads(said)


def run(args, directory, say):
    """The whole of it; returns what is to be said of it."""
    world.prepare()
    certificate = Certificate.make(directory)
    application = Application()
    plan = Plan(3, 2, 20) if args.small else Plan(60, 45, 60)
    nodes = [Node(directory, number, certificate, SMALL if args.small else "") for number in (1, 2, 3)]
    for node in nodes:
        node.install(args.before)
        node.ready(True)
        node.start()
    balancer = Balancer(directory, 0.1 if args.small else 0.5)
    names = [node.name for node in nodes]
    wait.until(lambda: all(balancer.states(name) == ["UP", "UP"] for name in names), "HAProxy has seen them all", 20)
    clients = Clients(ADDRESS, certificate.client_context(), args.tunnels, delay=1 if args.small else 5,
                      pause=1 if args.small else 30)  # fmt: skip
    roll = Roll(nodes, balancer, clients, plan, say)
    say(f"{args.tunnels} clients come; version {nodes[0].version()}")
    clients.start(args.tunnels / 60)
    wait.until(lambda: clients.open == args.tunnels, lambda: f"{clients.open} are there; {clients.failures[-3:]}",
               args.tunnels / 60 + plan.patience)  # fmt: skip
    roll.balanced()
    first = time.monotonic()
    for node in nodes:
        roll.upgrade(node, args.module)
    roll.even_out()
    counts = roll.balanced()
    echoing, closes, end = clients.all_echo(), len(clients.closes), time.monotonic()
    cut, failures = clients.codes[None], clients.failures
    codes = {code: number for code, number in clients.codes.items() if code}
    said = {
        "tunnels": args.tunnels, "balanced": counts, "closes": closes, "codes": codes, "cut": cut, "failed handshakes": len(failures),
        "redispatched by HAProxy": balancer.sum("wredis"), "seconds": round(end - first), "echoes": clients.echoes,
        "lost with their tunnel": clients.unanswered,
    }  # fmt: skip
    bands = [(out.began, out.ended, f"{out.name} is out, upgraded, back") for out in roll.outs]
    bands.append((*roll.evened, "evened out"))
    opened = [instant for instant in clients.opened if instant > first]
    begin = first - (1 if args.small else 10)
    args.picture.write_text(picture.draw(balancer.samples, names, opened, bands, begin, end,
                                         f"A rolling upgrade of three nodes with {args.tunnels} tunnels"))  # fmt: skip
    most, even = roll.reconnects()
    said |= {"most reconnects in a second": most, "of an even spread": round(even, 1)}
    clients.end()
    for node in nodes:
        node.stop()
    balancer.stop()
    seen = application.stop()
    assert not cut and not failures, (cut, failures[:5])
    assert set(codes) == {1012}, codes
    assert echoing == args.tunnels, f"{echoing} of {args.tunnels} echo"
    assert seen["cut"] == 0, seen
    assert seen["tunnels"] == args.tunnels + closes, seen
    complaints = [line for node in nodes for line in node.complaints()]
    assert not complaints, "\n".join(complaints)
    return said


def main():
    parser = argparse.ArgumentParser(prog="ci/fleet")
    parser.add_argument("--tunnels", type=int, default=3000)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--picture", type=Path, required=True)
    parser.add_argument("--module", type=Path, required=True)
    parser.add_argument("--before", type=Path, required=True, help="the build that the nodes begin with")
    args = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, DESCRIPTORS),) * 2)
    directory = Path(tempfile.mkdtemp(prefix="wsforward-fleet."))
    directory.chmod(0o755)
    began = time.monotonic()
    loads = []

    def say(text):
        loads.append(os.getloadavg()[0])
        print(f"{time.monotonic() - began:6.1f} s  {text}", flush=True)

    try:
        said = run(args, directory, say)
    except (AssertionError, OSError, subprocess.SubprocessError) as error:
        print(f"\nci/fleet: {error or type(error).__name__}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    say(f"load average {min(loads):.1f} to {max(loads):.1f} on {os.cpu_count()} processors")
    print(json.dumps(said))
    return 0


if __name__ == "__main__":
    # All that was started ends with this process, which is the first one of its namespace.
    sys.exit(main())
