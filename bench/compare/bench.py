#!/usr/bin/env python3
"""The benchmark: every peer in one interleaved run. Started by ci/bench."""

import argparse
import datetime
import functools
import json
import os
import pathlib
import platform
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import instructions
import network
import peers
import rows
import table
import targets
from guard import Guard
from load import LoadError, Wsload
from processes import Session
from quiet import Quiet

# The limit of descriptors of every process, if it can be had: enough for the tunnels that are tried, in two
# children of httpd's.
DESCRIPTORS = 40_000


def plan(mode, load):
    """What is measured: (measurements with all peers up, those that start their own)."""
    echo, bulk = (functools.partial(kind, load) for kind in (rows.Echo, rows.Bulk))
    if mode == "smoke":
        return ([echo(False, 8, rows.SIZES, 0.05), echo(True, 8, (1024,), 0.05),
                 *(bulk(tls, way, 2, 65536) for tls in (False, True)
                   for way in ("up", "down", "both")),
                 rows.Handshakes(load, False, 0.05), rows.Handshakes(load, True, 0.05),
                 rows.Syscalls(load, (1024,), 0.05)],
                [rows.EchoToTls(load, True, 8, (1024,), 0.05),
                 rows.Growth(load, False, (16, 32), 0.05), rows.Growth(load, True, (16,), 0.05),
                 rows.Growth(load, False, (32,), 0.05, defaults=True),
                 rows.Storm(load, False, 32, 10), rows.Storm(load, True, 16, 10),
                 rows.Reload(load, 8, 0.5)])
    if mode == "quick":
        return ([echo(False, 64, rows.SIZES, 0.4), echo(True, 64, rows.SIZES, 0.4),
                 echo(False, 1000, (1024,), 0.5), bulk(False, "down", 256, 65536),
                 rows.Handshakes(load, False, 0.4), rows.Handshakes(load, True, 0.4)],
                [rows.Growth(load, False, (100, 1000), 0.4, is_once=True),
                 rows.Growth(load, True, (100, 500), 0.4, is_once=True),
                 rows.Storm(load, False, 500, 20, is_once=True),
                 rows.Storm(load, True, 500, 20, is_once=True)])
    storm = rows.Storm.most(targets.STORM)
    steady = [echo(tls, tunnels, rows.SIZES, 1) for tls in (False, True)
              for tunnels in (1, 64, 1000)]
    steady += [bulk(tls, way, 512, 65536) for tls in (False, True)
               for way in ("up", "down", "both")]
    steady += [bulk(False, way, 1024, 1 << 30) for way in ("down", "up")]
    steady += [rows.Handshakes(load, tls, 2.5) for tls in (False, True)]
    steady += [rows.Syscalls(load, rows.SIZES, 0.5)]
    return steady, [rows.EchoToTls(load, True, 64, rows.SIZES, 1),
                    rows.Growth(load, False, (100, 1000, 9000, 10000, 20000, 26000), 1),
                    rows.Growth(load, True, (100, 1000, 9000), 1),
                    rows.Growth(load, False, (20000,), 1, defaults=True, is_once=True),
                    rows.Storm(load, False, storm, 60),
                    rows.Storm(load, True, storm, 120, is_once=True),
                    rows.Reload(load, 20, 2.5)]


class Run:
    """Collects the figures of all rounds."""

    def __init__(self, chosen, rounds, keep, quiet=None):
        """`keep` is called after each measurement, to save what there is. `quiet` looks then whether
        anything else runs."""
        self.peers, self.rounds, self.keep, self.quiet = chosen, rounds, keep, quiet
        self.results, self.notes, self.once, self.loads = {}, [], set(), []

    def measure(self, measurement, is_steady):
        """All rounds of one measurement, each peer in turn."""
        is_once = getattr(measurement, "is_once", False)
        peers_of_it = [peer for peer in self.peers
                       if not peer.is_only_tls or getattr(measurement, "tls", False)]
        for number in range(1 if is_once else self.rounds):
            # Another first each time, so that no peer is always after the same one.
            shift = number % max(1, len(peers_of_it))
            for peer in peers_of_it[shift:] + peers_of_it[:shift]:
                figures = rows.Figures()
                try:
                    self.one(measurement, peer, figures, number, is_steady)
                finally:
                    for row, value in figures.items():
                        by_peer = self.results.setdefault(row, {})
                        by_peer.setdefault(peer.name, [None] * self.rounds)[number] = value
                    for remark in figures.remarks:
                        self.note(peer, measurement, number, "not measured", remark)
                    if is_once and self.rounds > 1:
                        self.once.update(figures)

    def one(self, measurement, peer, figures, number, is_steady):
        """One peer's turn. What goes wrong is noted, and is not the end of the run."""
        self.loads.append(os.getloadavg()[0])
        try:
            if is_steady and not peer.is_up():
                peer.stop()
                peer.start()
            measurement(peer, figures)
        except (LoadError, OSError, RuntimeError, ValueError,
                subprocess.SubprocessError) as error:
            self.note(peer, measurement, number, "failed", f"{type(error).__name__}: {error}")

    def note(self, peer, measurement, number, kind, text):
        """Has something said below the table."""
        text = " ".join(text.split()).replace("|", "/")[:400]
        self.notes.append({"peer": peer.name, "measurement": measurement.name,
                           "round": number + 1, "kind": kind, "text": text})
        if kind == "failed":
            print(f"   {peer.name}, {measurement.name}: {text}", flush=True)

    @property
    def failed(self):
        """How often a measurement failed."""
        return sum(note["kind"] == "failed" for note in self.notes)

    def all(self, steady, growing):
        """Every measurement, interleaved."""
        started = time.monotonic()
        for is_steady, measurements in ((True, steady), (False, growing)):
            for measurement in measurements:
                self.measure(measurement, is_steady)
                if self.quiet:
                    self.quiet.look()
                print(f"   {time.monotonic() - started:5.0f} s  {measurement.name}", flush=True)
                self.keep(self)
            for peer in self.peers:
                peer.stop()


def machine():
    """What it ran on, in a line."""
    model = "unknown CPU"
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
    return (f"{len(os.sched_getaffinity(0))} x {model}, {memory} GiB, Linux "
            f"{platform.release()}, TCP congestion control "
            f"{network.setting('ipv4/tcp_congestion_control')}; "
            "client, proxy and back end together on loopback")


def versions(chosen):
    """The versions of the programs, by Debian's packages, and of the machine's OpenSSL: the memory
    of a tunnel with TLS is mostly what its sessions take."""
    found = []
    for package in ("apache2-bin", *(peer.needs for peer in chosen if peer.needs)):
        try:
            asked = subprocess.run(["dpkg-query", "-W", "-f", "${Package} ${Version}", package],
                                   capture_output=True, text=True, check=False)
            found.append(asked.stdout or package)
        except OSError:
            found.append(package)
    try:
        asked = subprocess.run(["openssl", "version"], capture_output=True, text=True, check=False)
        found.append(" ".join(asked.stdout.split()[:2]) or "openssl")
    except OSError:
        found.append("openssl")
    return ", ".join(found)


def limit_descriptors():
    """The same limit for all that is started, soft and hard, as some raise theirs by themselves
    and some do not."""
    for wanted in (DESCRIPTORS, resource.getrlimit(resource.RLIMIT_NOFILE)[1]):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
            return wanted
        except (ValueError, OSError):
            continue
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def stop(number, _):
    """A signal: everything is cleaned up once, whatever comes after."""
    for other in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(other, signal.SIG_IGN)
    raise KeyboardInterrupt(number)


def words():
    """What was asked for."""
    parser = argparse.ArgumentParser()
    for name in ("module", "wsload", "output", "version"):
        parser.add_argument(f"--{name}", required=True)
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--quick", dest="mode", action="store_const", const="quick", default="full")
    mode.add_argument("--smoke", dest="mode", action="store_const", const="smoke")
    parser.add_argument("--peers", help="names, separated by commas")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--only", help="measurements whose names contain this")
    parser.add_argument("--before", help="the module of another revision, as one more peer")
    parser.add_argument("--before-version", help="what git calls that revision")
    parser.add_argument("--document", type=pathlib.Path,
                        help="put the tables into this file, unless other things ran meanwhile")
    parser.add_argument("--force", action="store_true", help="whatever else ran meanwhile")
    parser.add_argument("--guard", action="store_true",
                        help="judges whether this module needs more CPU than the other revision's")
    parser.add_argument("--instructions", action="store_true",
                        help="counts what a handshake and a message take, and compares with what is kept")
    parser.add_argument("--record", action="store_true", help="--instructions: keeps what was counted")
    return parser.parse_args()


def choose(every, asked, is_smoke):
    """The peers of this run."""
    if asked:
        names = set(asked.split(","))
        # Named by --against already.
        chosen = [peer for peer in every if peer.name in names | {peers.Before.name}]
        if not names <= {peer.name for peer in chosen}:
            sys.exit(f"--peers: known are {', '.join(peer.name for peer in every)}")
    else:
        chosen = [peer for peer in every
                  if not peer.is_extra and (peer.is_here() or not is_smoke)]
    for peer in chosen:
        if not peer.is_here():
            sys.exit(f"{peer.name} is not installed")
    return chosen


class Report:
    """What is told and kept of a run."""

    def __init__(self, arguments, chosen, descriptors, is_own_network, most_tunnels):
        self.arguments, self.chosen, self.most_tunnels = arguments, chosen, most_tunnels
        self.descriptors, self.is_own_network = descriptors, is_own_network
        self.started = datetime.datetime.now(datetime.timezone.utc)
        self.versions = versions(chosen)
        self.output = pathlib.Path(arguments.output)
        self.output.mkdir(parents=True, exist_ok=True)

    def about(self, run, state):
        """The circumstances, by name."""
        mode = self.arguments.mode
        elapsed = round((datetime.datetime.now(datetime.timezone.utc) - self.started)
                        .total_seconds())
        why_not = run.quiet.why_not() if run.quiet else ""
        about = {
            **({"**Not to be trusted**": why_not} if why_not else {}),
            "Run": f"`ci/bench{'' if mode == 'full' else ' --' + mode}`, {run.rounds} "
                   f"round{'s' if run.rounds > 1 else ''}, on {self.started:%Y-%m-%d %H:%M} UTC, "
                   f"mod_wsforward {self.arguments.version}",
            "Duration": f"{elapsed // 60} min {elapsed % 60} s{state}",
            "Machine": machine(),
            "Network": network.description(self.is_own_network),
            "Load average meanwhile": f"{min(run.loads, default=0):.1f} to "
                                      f"{max(run.loads, default=0):.1f}",
            "Versions": self.versions,
            "Descriptors": f"{self.descriptors:,} a process, soft and hard limit, for every "
                           "proxy, back end and client",
            "Clients": "16 source addresses a process; echo on one process of one thread, "
                       "handshakes by 16 clients in one, tunnels held "
                       f"{run.per_process:,} a process",
            "Peers": "; ".join(f"{peer.name} ({peer.note})" for peer in self.chosen),
        }
        if run.failed:
            about["Failed"] = f"{run.failed} measurements, named below their tables"
        return about

    def write(self, run, state=" so far"):
        """Leaves what there is as Markdown and JSON; the Markdown."""
        about, names = self.about(run, state), [peer.name for peer in self.chosen]
        results = table.derived(run.results)
        reached = [] if self.arguments.mode == "smoke" else targets.targets(results, self.most_tunnels)
        text = table.document(results, names, about, run.notes, run.once, reached)
        whole = {"about": about, "peers": names, "rows": results, "once": sorted(run.once),
                 "notes": run.notes, "targets": reached}
        for ending, content in (("md", text), ("json", json.dumps(whole, indent=1))):
            new = self.output / f"{self.arguments.mode}.{ending}.new"
            new.write_text(content)
            new.rename(self.output / f"{self.arguments.mode}.{ending}")
        return text


def guard(bench, every, load):
    """The small comparison. The status to end with."""
    ours, before = (peer for peer in every if type(peer) in (peers.Relay, peers.Before))
    bench.start_backends([ours.backend_address, before.backend_address], 1)
    for peer in (ours, before):
        peer.start()
    is_right = True
    for measurement in (rows.Echo(load, False, 64, (1024,), 0.4), rows.Handshakes(load, False, 0.4)):
        judged = Guard(measurement, ours, before)
        is_right &= judged.run()
        print(judged.said, flush=True)
    return 0 if is_right else 1


def main():
    arguments = words()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    is_own_network = network.enter()
    descriptors = limit_descriptors()
    load = Wsload(arguments.wsload, descriptors)
    measurements = [[measurement for measurement in half
                     if arguments.only is None or arguments.only in measurement.name]
                    for half in plan(arguments.mode, load)]
    most_tunnels = max((max(measurement.levels) for measurement in measurements[1]
                        if isinstance(measurement, rows.Growth)), default=0)
    directory = pathlib.Path(tempfile.mkdtemp(prefix="wsforward-bench-"))
    try:
        # The servers' workers are another user.
        directory.chmod(0o755)
        bench = peers.Bench(directory, arguments.module, load, descriptors,
                            arguments.before, arguments.before_version)
        every = peers.all_of(bench)
        if arguments.guard:
            return guard(bench, every, load)
        if arguments.instructions:
            return instructions.run(bench, pathlib.Path(arguments.output), arguments.record)
        chosen = choose(every, arguments.peers, arguments.mode == "smoke")
        report = Report(arguments, chosen, descriptors, is_own_network, most_tunnels)
        rounds = arguments.rounds or (1 if arguments.mode == "smoke" else 3)
        quiet = Quiet()
        quiet.look(5)
        run = Run(chosen, rounds, report.write, quiet)
        run.per_process = load.per_process
        # With room for an uneven spread over them.
        bench.start_backends([peer.backend_address for peer in every],
                             max(2, most_tunnels * 3 // 2 // descriptors + 1))
        state, status = "", 0
        try:
            run.all(*measurements)
        except KeyboardInterrupt as interrupt:
            state, status = ", stopped before its end", 128 + (interrupt.args or (2,))[0]
        text = report.write(run, state)
    finally:
        Session.stop_all()
        shutil.rmtree(directory, ignore_errors=True)
    print(text)
    if arguments.document and not status:
        status = put_into_document(arguments, text, quiet.why_not())
    print(f"Written to {report.output}/{arguments.mode}.md and .json")
    return status or (1 if run.failed else 0)


def put_into_document(arguments, text, why_not):
    """Puts the tables there, unless the run is not to be trusted. The status to end with."""
    if why_not and not arguments.force:
        print(f"{arguments.document} stays as it is, since {why_not}. --force would change it.")
        return 1
    table.put_into(arguments.document, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
