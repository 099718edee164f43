"""Very many tunnels for a long time, with a reload a minute, processes and back ends that are killed, and a wall clock
that jumps. Started by ci/soak. It ends with what was found, and writes it into docs/reliability.md."""

import argparse
import contextlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "tests"))

import measure  # noqa: E402
import page  # noqa: E402
import picture  # noqa: E402
from harness import paths, procfs, wait  # noqa: E402
from harness.certs import Certificate  # noqa: E402
from harness.wallclock import WallClock  # noqa: E402
from log import Log  # noqa: E402
from peers import Clients  # noqa: E402
from server import Site  # noqa: E402

#: What httpd says when a back end is not there.
AWAY = r"AH00957|AH01114|AH01102|AH00898|AH01084|AH01097|AH02003|AH02004|WSF0104"
#: Hours by which a clock is wrong, each as likely.
WRONG = [-1, 0, 1]
#: The error log of a run that failed.
KEPT = paths.ROOT / "target" / "soak" / "error.log"
KINDS = ["child", "drain process", "back end", "clock"]


@dataclass
class Plan:
    """Times in seconds: between two reloads, how long tunnels are wanted, within which clients come back, between two
    samples, for how long nothing needs to come."""

    every: float
    shortest: float
    longest: float
    reopen: float
    sampled: float
    patience: float
    #: Clients that come in a second at first, and what is multiplied with their pauses, in hundredths.
    rate: int
    pace: int

    @classmethod
    def long(cls, seconds):
        longest = min(600, seconds / 4)
        return cls(60, longest / 10, longest, 15, 10, 60, 100, 100)

    @classmethod
    def small(cls):
        return cls(4, 1, 4, 1, 1, 30, 100, 5)


class Soak:
    """One run. `say` is told of each step."""

    def __init__(self, args, directory, say):
        self.args, self.say = args, say
        self.random = random.Random(args.seed)
        self.plan = Plan.small() if args.small else Plan.long(args.hours * 3600)
        self.clock = WallClock(directory)
        # Made half a day ago, so that it is good when the clock is wrong.
        self.clock.set(-12)
        with self.clock.seen():
            certificate = Certificate.make(directory)
        self.clock.set(0)
        self.site = Site(args.module, certificate, self.clock)
        self.log = Log(self.site.server.log.path)
        self.did, self.wrong, self.marks = Counter(), [], []
        #: All samples, and those of quiet times.
        self.samples, self.settled = [], []
        #: Tunnels that went with a process: (at least, at most).
        self.gone = {}
        #: Descriptors of a process besides two for each tunnel: all that were seen.
        self.besides = {"child": Counter(), "drain process": Counter()}
        #: The same drain processes again and again: (instant, KiB of its own, tunnels) by process id.
        self.drains = {}
        self.began = time.monotonic()
        self.clients = Clients(count=args.tunnels, backends=len(self.site.backends), seed=args.seed, rate=self.plan.rate,
                               opening=48, shortest=int(1000 * self.plan.shortest), longest=int(1000 * self.plan.longest),
                               reopen=int(1000 * self.plan.reopen), pace=self.plan.pace,
                               patience=int(1000 * self.plan.patience), **self.site.ports)  # fmt: skip

    # Time.

    def until(self, instant):
        """Passes the time until then, and looks around."""
        while True:
            self.log.read()
            now = time.monotonic()
            if not self.samples or now - self.samples[-1].at >= self.plan.sampled:
                self.samples.append(measure.sample(self.site.server, self.site.mark, self.clients))
            if now >= instant:
                return
            time.sleep(min(0.2, max(0.01, instant - now)))

    def wait(self, condition, what):
        """For something that takes no longer than the plan's patience."""
        def holds():
            self.log.read()
            return condition()
        return wait.until(holds, what, self.plan.patience, 0.05)

    def cycle(self, faults):
        """A reload, these faults at any time, and then all is counted."""
        every = self.plan.every
        self.reload()
        # Some come when the children that end are still there.
        begin, soonest = time.monotonic(), 0.2 if self.args.small else 0
        for share, kind in sorted((self.random.uniform(soonest, 0.6), kind) for kind in faults):
            self.until(begin + share * every)
            self.happen(kind)
        self.until(begin + 0.75 * every)
        self.count()
        self.until(begin + every)

    # What happens.

    def reload(self):
        before = self.log.restarts
        with self.clients.lock:
            self.clients.ledger.child_ending()
        self.site.server.send_signal(signal.SIGUSR1)
        self.wait(lambda: self.log.restarts > before, "the new generation")
        self.did["reload"] += 1

    def happen(self, kind):
        """One fault."""
        if kind == "clock":
            self.clock.set(self.random.choice([hours for hours in WRONG if hours != self.clock.hours]))
            self.say(f"the wall clock is wrong by {self.clock.hours:+d} h")
        elif kind == "back end":
            self.kill_backend(self.random.choice(self.site.backends))
        else:
            found = sorted(self.site.children() if kind == "child" else self.site.drains())
            if not found:
                return
            # Who has much is the likelier victim, and the one where there is but one kill.
            weights = [len(procfs.descriptors(pid)) for pid in found]
            # They may have ended since.
            if not any(weights):
                return
            [pid] = [max(found, key=dict(zip(found, weights)).get)] if self.args.small else self.random.choices(found, weights)
            self.kill_process(kind, pid)
        self.did[kind] += 1
        self.marks.append((time.monotonic(), kind))

    def kill_process(self, kind, pid):
        """What it has is known exactly: it stands still meanwhile."""
        try:
            os.kill(pid, signal.SIGSTOP)
        except ProcessLookupError:
            return
        self.wait(lambda: procfs.stopped(pid), f"{pid} stands still")
        alone, shared = self.site.ports_of(pid)
        self.clients.catch_up()
        with self.clients.lock:
            ledger = self.clients.ledger
            is_open = sum(ledger.ports[ports].state == "open" for ports in alone if ports in ledger.ports)
            certain, possible = ledger.process_dies(kind, alone, shared)
        self.log.expect(rf"AH0005[12]: child pid {pid} exit signal Killed", 30, "a child was killed")
        self.log.expect(rf"WSF0310: process {pid} is gone", 180, "a process was killed")
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        self.gone[pid] = kind, is_open, len(alone) + len(shared)
        self.say(f"{kind} {pid} is killed, with {certain} tunnels" + (f", perhaps {possible} more" if possible else ""))

    def kill_backend(self, one):
        one.freeze()
        self.clients.catch_up()
        with self.clients.lock:
            certain, possible = self.clients.ledger.backend_dies(one.number)
        self.log.expect(AWAY, 60, "a back end was away")
        one.kill()
        self.say(f"back end {one.number} is killed, with {certain} tunnels and {possible} handshakes")
        self.until(time.monotonic() + self.random.uniform(0.1, 0.5) * min(self.plan.reopen, 4))
        one.start()
        with self.clients.lock:
            self.clients.ledger.backend_is_back(one.number)

    # What must be seen.

    def count(self):
        """A quiet time: all that are open answer, and the server knows the same tunnels as the clients do."""
        opened = self.clients.quiet(2 * self.plan.patience)
        with self.clients.lock:
            ledger = self.clients.ledger
            names = {name for name, one in ledger.tunnels.items() if one.state == "open"}
            survivors = ledger.survivors()
            ledger.forgive()
        if len(names) != opened:
            self.wrong.append(f"{opened} tunnels are open at the clients, {len(names)} in the book")
        self.wrong += [f"tunnel {one.name} is still there, though {one.fault}" for one in survivors]
        seen = {}

        def is_same():
            seen["status"] = status = self.site.status()
            seen["listed"] = Counter(one["path"].rpartition("/")[2] for one in status["list"])
            drains = {one["pid"] for one in status["processes"] if one["kind"] == "drain"}
            return (seen["listed"] == Counter(names) and status["tunnels"]["open"] == opened
                    and drains == set(self.site.drains()))  # fmt: skip
        try:
            self.wait(is_same, "the register has what the clients have")
        except wait.TimedOut:
            listed = seen["listed"]
            missing, more = Counter(names) - listed, listed - Counter(names)
            self.wrong.append(f"{opened} tunnels are open, {seen['status']['tunnels']['open']} are counted; not in the register: "
                              f"{list(missing)[:5]}, too much in it: {list(more)[:5]}; processes: {seen['status']['processes']}")  # fmt: skip
        self.check_ages(seen["status"])
        self.settle(seen["status"], opened)
        self.clients.go()

    def check_ages(self, status):
        """Whatever the wall clock was meanwhile."""
        now, allowed = time.monotonic(), wait.scaled(5)
        with self.clients.lock:
            opened = {name: one.opened for name, one in self.clients.ledger.tunnels.items()}
        for one in status["list"]:
            name = one["path"].rpartition("/")[2]
            if opened.get(name) and abs(now - opened[name] - one["seconds"]) > allowed:
                self.wrong.append(f"tunnel {name} is open for {now - opened[name]:.0f} s, the register says {one['seconds']}")

    def settle(self, status, opened):
        """A sample that has no handshake in it."""
        one = measure.sample(self.site.server, self.site.mark, self.clients)
        one.listed, one.counted, one.open = len(status["list"]), status["tunnels"]["open"], opened
        self.fallbacks = {why: number for why, number in status["tunnels"]["fallbacks"].items() if number}
        held = Counter(each["pid"] for each in status["list"])
        for kind, processes in (("child", one.children), ("drain process", one.drains)):
            for pid, (_, descriptors) in processes.items():
                if pid in held:
                    self.besides[kind][descriptors - 2 * held[pid]] += 1
        for pid, kib in one.drains_own_kib.items():
            self.drains.setdefault(pid, []).append((one.at, kib, held[pid]))
        self.samples.append(one)
        self.settled.append(one)
        for pid, (kind, least, most) in list(self.gone.items()):
            # Whoever notices it tells the log, which is not at once.
            with contextlib.suppress(wait.TimedOut):
                wait.until(lambda: self.log.read() or least <= self.log.gone[pid] <= most, "WSF0310 is said", 5, 0.05)
            if not least <= self.log.gone[pid] <= most:
                self.wrong.append(f"{kind} {pid} was killed with {least} to {most} tunnels, WSF0310 says {self.log.gone[pid]}")
            del self.gone[pid]
        self.tell()

    def tell(self):
        """What has gone wrong since it was told last."""
        with self.clients.lock:
            lost, self.clients.ledger.lost = self.clients.ledger.lost, []
        for one in lost:
            line = self.log.ends.get((one.tunnel.ports[0], self.site.backends[one.tunnel.backend].port.number), "no WSF0202 of it")
            self.wrong.append(f"{one.at - self.began:.1f} s: {one.tunnel}: {one.how}; {line}")
        self.wrong += [f"not expected: {line}" for line in self.log.unexpected]
        self.did["unexpected"] += len(self.log.unexpected)
        self.log.unexpected = []
        for backend in self.site.backends:
            self.wrong += backend.failures
            backend.failures = []
        for text in self.wrong[self.did["told"]:]:
            self.say(f"WRONG: {text}")
        self.did["told"] = len(self.wrong)

    def empty(self):
        """All have left: nothing is left of them."""
        self.clients.quiet(2 * self.plan.patience)
        self.clients.end(2 * self.plan.patience)

        def is_empty():
            status = self.site.status()
            return not (status["tunnels"]["open"] or status["list"] or self.site.drains())
        self.wait(is_empty, lambda: f"nothing is left; {self.site.drains()}, {self.site.status()}")
        self.tell()

    # The whole.

    def faults(self):
        """Those of a cycle."""
        if self.args.small:
            return [["child", "clock"], ["drain process"]][self.did["reload"] % 2]
        return self.random.sample(KINDS, self.random.choice([1, 2, 2, 3]))

    def run(self):
        plan, count = self.plan, self.args.tunnels
        self.say(f"seed {self.args.seed}; {count} clients come")
        while self.clients.open < 0.9 * count and time.monotonic() - self.began < 3 * count / plan.rate:
            self.until(time.monotonic() + 0.5)
        self.say(f"{self.clients.open} tunnels are open")
        self.steady = time.monotonic() + (0 if self.args.small else plan.longest)
        end = time.monotonic() + 3600 * self.args.hours
        while self.did["reload"] < 2 if self.args.small else time.monotonic() + 0.9 * plan.every < end:
            self.cycle(self.faults())
            last = self.settled[-1]
            if self.args.small or self.did["reload"] % 5 == 0:
                self.say(f"{self.did['reload']} reloads; {last.open} tunnels, {len(last.drains)} drain processes, {last.kib / 1024:.0f} MiB")
        self.ended = time.monotonic()
        self.empty()
        self.version, self.httpd = (self.site.status()[name] for name in ("version", "httpd"))
        self.site.server.stop()
        self.log.read()
        self.tell()

    def stop(self):
        """Ends all programs. Of a run in which something is wrong the error log is kept."""
        if self.wrong:
            KEPT.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self.site.server.log.path, KEPT)
            self.say(f"the error log is in {KEPT}")
        self.site.stop()
        if self.clients.process.poll() is None:
            self.clients.process.kill()


def main():
    parser = argparse.ArgumentParser(prog="ci/soak")
    parser.add_argument("hours", type=float, nargs="?", default=0)
    parser.add_argument("--tunnels", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "big"))
    parser.add_argument("--small", action="store_true", help="two reloads, a second or so apart")
    parser.add_argument("--module", type=Path, required=True)
    parser.add_argument("--page", type=Path, required=True, help="where the table is written")
    parser.add_argument("--picture", type=Path, required=True, help="where the curves are drawn")
    args = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    directory = Path(tempfile.mkdtemp(prefix="wsforward-soak."))
    directory.chmod(0o755)
    module = directory / "mod_wsforward.so"
    shutil.copy(args.module, module)
    args.module = module
    began, loads = time.monotonic(), []

    def say(text):
        loads.append(os.getloadavg()[0])
        print(f"{time.monotonic() - began:7.1f} s  {text}", flush=True)

    soak = None
    try:
        soak = Soak(args, directory, say)
        soak.run()
    except (AssertionError, OSError, subprocess.SubprocessError, paths.Missing) as error:
        print(f"\nci/soak: {error or type(error).__name__}", file=sys.stderr)
        if soak:
            soak.tell()
            soak.wrong.append(str(error))
        return 1
    finally:
        if soak:
            soak.stop()
        shutil.rmtree(directory, ignore_errors=True)
    say(f"load average {min(loads):.1f} to {max(loads):.1f} on {os.cpu_count()} processors")
    said, rows = page.figures(soak, loads)
    soak.wrong += [f"{row.what}: {row.said} is beyond {row.allowed}" for row in rows if not row.holds]
    if not args.small and page.grown(soak) > page.ONE_DRAIN:
        soak.wrong.append(f"a drain process grew by {page.grown(soak)} KiB of its own")
    print(said["text"], *(row.line() for row in rows), "", json.dumps(said), sep="\n")
    if soak.wrong:
        print("ci/soak: nothing is written, since this is wrong:", *soak.wrong, sep="\n", file=sys.stderr)
        return 1
    args.picture.write_text(picture.draw(soak))
    page.write(args.page, args.picture.name, said, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
