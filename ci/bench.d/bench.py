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
import sys
import tempfile
import time

import peers
import rows
import table
from load import LoadError, Wsload


def plan(mode, load):
    """What is measured: (measurements with all peers up, those that start their own)."""
    echo, bulk = (functools.partial(kind, load) for kind in (rows.Echo, rows.Bulk))
    if mode == "smoke":
        return ([echo(False, 8, (32, 16384), 0.2), echo(True, 8, (1024,), 0.2),
                 bulk(False, "both", 16, 65536), bulk(True, "down", 16, 65536),
                 rows.Handshakes(load, False, 0.2), rows.Handshakes(load, True, 0.2)],
                [rows.Growth(load, False, (64, 128), 0.2), rows.Growth(load, True, (32,), 0.2),
                 rows.Reload(load, 8, 1)])
    if mode == "quick":
        return ([echo(False, 64, rows.SIZES, 0.4), echo(True, 64, rows.SIZES, 0.4),
                 echo(False, 1000, (1024,), 0.6), bulk(False, "down", 256, 65536),
                 rows.Handshakes(load, False, 0.5), rows.Handshakes(load, True, 0.5)],
                [rows.Growth(load, False, (100, 1000), 0.4, is_once=True),
                 rows.Growth(load, True, (100, 500), 0.4, is_once=True)])
    steady = [echo(tls, tunnels, rows.SIZES, 1) for tls in (False, True)
              for tunnels in (1, 64, 1000)]
    steady += [bulk(tls, way, 512, 65536) for tls in (False, True)
               for way in ("up", "down", "both")]
    steady += [bulk(False, "down", 1024, 1 << 30), bulk(False, "up", 1024, 1 << 30)]
    steady += [rows.Handshakes(load, tls, 1.5) for tls in (False, True)]
    steady += [rows.Syscalls(load, 0.5)]
    # One back end address has some 28,000 ports to be reached from.
    return steady, [rows.Growth(load, False, (100, 1000, 9000, 20000, 26000), 1),
                    rows.Growth(load, True, (100, 1000, 5000), 1),
                    rows.Growth(load, False, (20000,), 1, defaults=True),
                    rows.Reload(load, 20, 3)]


class Run:
    """Collects the figures of all rounds."""

    def __init__(self, chosen, rounds, is_strict):
        self.peers, self.rounds, self.is_strict = chosen, rounds, is_strict
        self.results, self.notes, self.loads = {}, [], []

    def measure(self, measurement):
        """All rounds of one measurement, each peer in turn."""
        for number in range(1 if getattr(measurement, "is_once", False) else self.rounds):
            self.round(measurement, number)

    def round(self, measurement, number):
        """One round."""
        # Another first each time, so that no peer is always after the same one.
        shift = number % len(self.peers)
        for peer in self.peers[shift:] + self.peers[:shift]:
            self.loads.append(os.getloadavg()[0])
            try:
                figures = measurement(peer)
            except (LoadError, OSError, RuntimeError) as error:
                if self.is_strict:
                    raise
                self.notes.append(f"{peer.name}, {measurement.name}: {error}")
                print(f"   {self.notes[-1]}", flush=True)
                continue
            for row, value in figures.items():
                by_peer = self.results.setdefault(row, {})
                by_peer.setdefault(peer.name, [None] * self.rounds)[number] = value

    def all(self, steady, growing):
        """Every measurement, interleaved."""
        started = time.monotonic()
        try:
            for peer in self.peers:
                peer.start()
            for measurement in steady:
                self.measure(measurement)
                self.tell(measurement, started)
        finally:
            for peer in self.peers:
                peer.stop()
        for measurement in growing:
            self.measure(measurement)
            self.tell(measurement, started)

    def tell(self, measurement, started):
        """Says how far it got."""
        print(f"   {time.monotonic() - started:5.0f} s  {measurement.name}", flush=True)


def machine():
    """What it ran on, in a line."""
    model = "unknown CPU"
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
    return (f"{len(os.sched_getaffinity(0))} x {model}, {memory} GiB, "
            f"Linux {platform.release()}, client, proxy and back end together on loopback")


def versions(chosen):
    """The versions of the programs, by Debian's packages."""
    found = []
    for package in ("apache2-bin", *(peer.needs for peer in chosen if peer.needs)):
        with os.popen(f"dpkg-query -W -f '${{Package}} ${{Version}}' {package} 2>/dev/null") as out:
            found.append(out.read() or package)
    return ", ".join(found)


def main():
    parser = argparse.ArgumentParser()
    for name in ("module", "wsload", "output", "version"):
        parser.add_argument(f"--{name}", required=True)
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--quick", dest="mode", action="store_const", const="quick", default="full")
    mode.add_argument("--smoke", dest="mode", action="store_const", const="smoke")
    parser.add_argument("--peers", help="names, separated by commas")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--document", type=pathlib.Path, help="put the tables into this file")
    arguments = parser.parse_args()

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    descriptors = 20000 if hard == resource.RLIM_INFINITY else min(hard, 20000)
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, hard))

    load = Wsload(arguments.wsload)
    directory = pathlib.Path(tempfile.mkdtemp(prefix="wsforward-bench-"))
    # The servers' workers are another user.
    directory.chmod(0o755)
    bench = peers.Bench(directory, arguments.module, load)
    names = arguments.peers or {"smoke": "apache,relay"}.get(arguments.mode)
    every = [kind(bench, index) for index, kind in enumerate(peers.ALL)]
    chosen = [peer for peer in every if names is None or peer.name in names.split(",")]
    if names and len(chosen) != len(names.split(",")):
        sys.exit(f"--peers: known are {', '.join(peer.name for peer in every)}")
    for peer in chosen:
        if not peer.is_here():
            sys.exit(f"{peer.name} is not installed")
    rounds = arguments.rounds or (1 if arguments.mode == "smoke" else 3)

    started = datetime.datetime.now(datetime.timezone.utc)
    run = Run(chosen, rounds, is_strict=arguments.mode == "smoke")
    try:
        bench.start_backends([peer.backend_address for peer in every],
                             1 if arguments.mode == "smoke" else 2)
        run.all(*plan(arguments.mode, load))
    finally:
        bench.stop()
    shutil.rmtree(directory, ignore_errors=True)

    table.means(run.results)
    loads = sorted(run.loads)
    about = {
        "Run": f"`ci/bench{'' if arguments.mode == 'full' else ' --' + arguments.mode}`, "
               f"{rounds} rounds, on {started:%Y-%m-%d %H:%M} UTC, "
               f"mod_wsforward {arguments.version}",
        "Machine": machine(),
        "Load average meanwhile": f"{loads[0]:.1f} to {loads[-1]:.1f}",
        "Versions": versions(chosen),
        "Descriptors": f"{descriptors:,} a process",
        "Peers": "; ".join(f"{peer.name} ({peer.note})" for peer in chosen),
    }
    if run.notes:
        about["Failed"] = "; ".join(run.notes)
    names = [peer.name for peer in chosen]
    text = table.document(run.results, names, about)
    output = pathlib.Path(arguments.output)
    output.mkdir(parents=True, exist_ok=True)
    (output / f"{arguments.mode}.md").write_text(text)
    (output / f"{arguments.mode}.json").write_text(
        json.dumps({"about": about, "peers": names, "rows": run.results}, indent=1))
    if arguments.document:
        table.put_into(arguments.document, text)
    print(text)
    print(f"Written to {output}/{arguments.mode}.md and .json, after "
          f"{(datetime.datetime.now(datetime.timezone.utc) - started).total_seconds():.0f} s")


if __name__ == "__main__":
    main()
