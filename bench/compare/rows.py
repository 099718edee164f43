"""The measurements. Each takes a peer, and Figures to put in what it finds."""

import os
import resource
import signal
import subprocess
import tempfile
import time
import urllib.request

from load import LoadError

SIZES = (32, 1024, 16384)

# So few tunnels are held by everything that is compared.
EVERYBODY_HOLDS = 100


def scheme(tls):
    """The scheme's name for a row."""
    return "wss" if tls else "ws"


class Figures(dict):
    """Figures by row, and what is to be said of those that there are none of."""

    def __init__(self):
        super().__init__()
        self.remarks = []


def cpu(peer):
    """CPU seconds of its processes so far."""
    return peer.session.cpu() if peer.has_proxy else None


class Echo:
    """Messages there and back on a number of tunnels."""

    def __init__(self, load, tls, tunnels, sizes, seconds):
        self.load, self.tls, self.tunnels = load, tls, tunnels
        self.sizes, self.seconds = sizes, seconds
        self.name = f"echo {self.scheme()} {tunnels}"

    def scheme(self):
        """What goes to the proxy and from it, for a row."""
        return scheme(self.tls)

    def __call__(self, peer, figures):
        if peer.most and peer.most < self.tunnels:
            figures.remarks.append(f"its settings allow {peer.most} tunnels")
            return
        with self.load.tunnels(peer.url(self.tls)) as tunnels:
            tunnels.grow_all(self.tunnels)
            for size in self.sizes:
                row = f"{self.name} x {size} B"
                figures.update(echo(peer, tunnels, size, self.seconds, row))


class EchoToTls(Echo):
    """The same in servers started for it, to back ends with TLS."""

    def scheme(self):
        return f"{scheme(self.tls)} to wss"

    def __call__(self, peer, figures):
        if not peer.has_proxy:
            return
        if not peer.can_speak_tls_to_backends:
            figures.remarks.append("it speaks no TLS to back ends")
            return
        peer.stop()
        peer.start(to_tls=True)
        try:
            super().__call__(peer, figures)
        finally:
            peer.stop()


def echo(peer, tunnels, size, seconds, row, count=None):
    """The figures of one size."""
    # The first messages after opening find cold caches, and TLS sends its tickets.
    tunnels.echo(size, min(0.1, seconds / 5), count)
    before = cpu(peer)
    result = tunnels.echo(size, seconds, count)
    figures = {f"{row}: messages/s": result["per_s"], f"{row}: p50 us": result["p50_us"],
               f"{row}: p99 us": result["p99_us"], f"{row}: p99.9 us": result["p999_us"]}
    if before is not None:
        figures[f"{row}: CPU s per million"] = (cpu(peer) - before) / result["messages"] * 1e6
    return figures


class Syscalls:
    """System calls on one busy tunnel, counted by strace: a figure without noise."""

    name = "system calls"
    is_once = True

    def __init__(self, load, sizes, seconds):
        self.load, self.sizes, self.seconds = load, sizes, seconds

    def __call__(self, peer, figures):
        if not peer.has_proxy:
            return
        with self.load.tunnels(peer.url()) as tunnels:
            tunnels.grow_all(1)
            for size in self.sizes:
                tunnels.echo(size, self.seconds / 5)
                calls, messages = self._count(peer, tunnels, size)
                figures[f"system calls, 1 tunnel x {size} B: per message and direction"] = (
                    calls / messages / 2)

    def _count(self, peer, tunnels, size):
        pids = peer.session.pids()
        command = ["strace", "-f", "-c", "-q", *(f"--attach={pid}" for pid in pids)]
        with tempfile.NamedTemporaryFile("r") as counts:
            strace = subprocess.Popen([*command, "-o", counts.name], stderr=subprocess.DEVNULL)
            try:
                deadline = time.monotonic() + 60
                while time.monotonic() < deadline and not all(map(is_traced, pids)):
                    if strace.poll() is not None:
                        raise RuntimeError("strace may not trace here")
                    time.sleep(0.05)
                messages = tunnels.echo(size, self.seconds)["messages"]
            finally:
                strace.send_signal(signal.SIGINT)
                try:
                    strace.wait(20)
                except subprocess.TimeoutExpired:
                    strace.kill()
                    strace.wait()
            total = [line.split() for line in counts if line.rstrip().endswith(" total")]
        # "100.00 SECONDS USECS CALLS [ERRORS] total"
        if not total:
            raise RuntimeError("strace counted nothing")
        return int(total[0][3]), messages


def is_traced(pid):
    """Whether every thread of a process is under strace (or it is gone)."""
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/status") as file:
                if "TracerPid:\t0\n" in file.read():
                    return False
    except OSError:
        pass
    return True


class Bulk:
    """Bytes one way or both, in frames of a length."""

    def __init__(self, load, tls, way, mib, frame):
        self.load, self.tls, self.frame = load, tls, frame
        self.settings = {"up": mib if way == "up" else mib // 2 if way == "both" else 0,
                         "down": mib if way == "down" else mib // 2 if way == "both" else 0}
        size = f"{frame >> 10} KiB frames" if frame < 1 << 30 else "one 1 GiB frame"
        self.name = f"bulk {scheme(tls)} {way}, {size}"

    def __call__(self, peer, figures):
        warm_up = {name: min(mib, 8) for name, mib in self.settings.items()}
        self.load.run("bulk", peer.url(self.tls), frame=self.frame, **warm_up)
        before = cpu(peer)
        result = self.load.run("bulk", peer.url(self.tls), frame=self.frame, **self.settings)
        figures[f"{self.name}: MiB/s"] = result["mib_per_s"]
        if before is not None:
            figures[f"{self.name}: CPU s per GiB"] = (cpu(peer) - before) / result["mib"] * 1024


class Handshakes:
    """Tunnels opened and closed at once."""

    def __init__(self, load, tls, seconds):
        self.load, self.tls, self.seconds = load, tls, seconds
        self.name = f"handshake {scheme(tls)}"

    def __call__(self, peer, figures):
        figures.update(handshakes(self.load, peer, self.tls, self.seconds, self.name))


def handshakes(load, peer, tls, seconds, row):
    """The figures of one kind."""
    load.run("handshakes", peer.url(tls), seconds=seconds / 5)
    before = cpu(peer)
    result = load.run("handshakes", peer.url(tls), seconds=seconds)
    used = cpu(peer)
    if not result["count"] or result["failed"]:
        raise LoadError(f"{result['failed']} handshakes failed, {result['count']} did not")
    figures = {f"{row}: per s": result["per_s"], f"{row}: p99 us": result["p99_us"]}
    if before is not None:
        figures[f"{row}: CPU us"] = (used - before) / result["count"] * 1e6
    return figures


def settled(session):
    """Memory once it no longer changes."""
    last = session.memory()
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        time.sleep(0.2)
        now = session.memory()
        if abs(now[1] - last[1]) <= 16 + now[1] // 1000:
            return now
        last = now
    return last


# How many tunnels wsload opens at a time (bench/tunnels.rs), and how many handshakes come before any is held.
AT_A_TIME, FIRST_REQUESTS = 32, 3000
# In so many seconds they should all be done, on a busy machine too.
FIRST_SECONDS = 60

# What the status page is asked.
PAGES = ("json", "metrics")


class Growth:
    """More and more tunnels in a server started for it: memory, threads, and what a message, a plain
    GET and, where there is a status page, a handshake and that page cost meanwhile."""

    def __init__(self, load, tls, levels, seconds, defaults=False, is_once=False):
        self.load, self.tls, self.levels, self.seconds = load, tls, levels, seconds
        self.defaults, self.is_once = defaults, is_once
        self.name = f"held {scheme(tls)}" + (" by default" if defaults else "")

    def __call__(self, peer, figures):
        if not peer.has_proxy:
            return
        if self.defaults and not peer.has_smaller_defaults:
            figures.remarks.append(peer.defaults_note)
            return
        peer.stop()
        peer.start(defaults=self.defaults)
        try:
            self._grow(peer, figures)
        finally:
            peer.stop()

    def _grow(self, peer, figures):
        # What threads and children keep of their first thousands of requests is no tunnel's.
        first = min(FIRST_REQUESTS, 3 * max(self.levels))
        self.load.run("handshakes", peer.url(self.tls), count=first, seconds=FIRST_SECONDS, clients=AT_A_TIME)
        if not self.defaults and not self.tls:
            figures.update(self._get(peer, "held ws 0"))
        # A page has much besides tunnels.
        none = {page: self._page(peer, page) for page in PAGES if peer.status}
        before, held = settled(peer.session), 0
        with self.load.tunnels(peer.url(self.tls)) as tunnels:
            for level in self.levels:
                # That it is full is shown once, without TLS.
                if self.tls and peer.most and peer.most < level:
                    figures.remarks.append(f"its settings allow {peer.most} tunnels")
                    break
                is_whole = tunnels.grow(level)
                figures[f"{self.name}: tunnels"] = tunnels.open
                if not is_whole:
                    if level <= EVERYBODY_HOLDS:
                        raise LoadError(f"{tunnels.open} of {level} tunnels: {tunnels.error}")
                    figures.remarks.append(f"full below {level:,}: {tunnels.error}")
                    if not self.tls:
                        figures.update(self._get(peer, f"{self.name}, when full", may_fail=True))
                    break
                if self.defaults:
                    continue
                after = settled(peer.session)
                row = f"{self.name} {level}"
                # Since the level before: what those that are gone left is used again first.
                pss, whole = ((now - then) / (level - held) for now, then in zip(after, before))
                figures[f"{row}: KiB each"] = pss
                figures[f"{row}: KiB each with page tables and kernel stacks"] = whole
                before, held = after, level
                figures[f"{row}: threads"] = peer.session.threads()
                if not self.tls:
                    figures.update(self._get(peer, row))
                    figures.update(echo(peer, tunnels, 1024, self.seconds,
                                        f"{row}, echo 64 x 1024 B", 64))
                if not self.tls and peer.status:
                    figures.update(handshakes(self.load, peer, False, self.seconds,
                                              f"{row}, handshake"))
                    for page, alone in none.items():
                        used = self._page(peer, page) - alone
                        figures[f"{row}, ?{page}: CPU us a tunnel"] = used / level

    def _page(self, peer, page):
        """CPU of one answer of the status page, in microseconds."""
        url = f"http://{peer.address}:{peer.port}{peer.status}?{page}"
        count, before, began = 0, cpu(peer), time.monotonic()
        while time.monotonic() - began < self.seconds:
            with urllib.request.urlopen(url, timeout=60) as answer:
                answer.read()
            count += 1
        return (cpu(peer) - before) / count * 1e6

    def _get(self, peer, row, may_fail=False):
        self.load.run("get", peer.url(), seconds=self.seconds / 5)
        result = self.load.run("get", peer.url(), seconds=self.seconds)
        if not result["count"] and not may_fail:
            raise LoadError(f"no plain GET was answered within 5 s ({row})")
        figures = {f"{row}: GETs failed": result["failed"]}
        if result["count"]:
            figures.update({f"{row}: GET p50 us": result["p50_us"],
                            f"{row}: GET p99 us": result["p99_us"]})
        return figures


def most_descriptors(wanted):
    """So many, if a process can have them, or what it can have."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if wanted <= limits[1]:
        return wanted
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
    except (ValueError, OSError):
        return limits[1]
    # Who may raise it may lower it.
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    return wanted


class Storm:
    """The back end loses all tunnels at once, and their clients come back without delay, in a
    server started for it. Plain GETs come in meanwhile."""

    # How many at a time. A visitor waits for each before the next one.
    VISITORS = 4
    # Beside two for each tunnel.
    OTHER_DESCRIPTORS = 2000

    def __init__(self, load, tls, tunnels, patience, is_once=False):
        self.load, self.tls, self.tunnels, self.patience = load, tls, tunnels, patience
        self.is_once = is_once
        self.name = f"storm {scheme(tls)} {tunnels}"

    @classmethod
    def most(cls, wanted):
        """So many tunnels, or as many as one process may have the descriptors of: a proxy that is
        one process gets them all."""
        return min(wanted, (most_descriptors(2 * wanted + cls.OTHER_DESCRIPTORS) - cls.OTHER_DESCRIPTORS) // 2)

    def __call__(self, peer, figures):
        if peer.most and peer.most < self.tunnels:
            figures.remarks.append(f"its settings allow {peer.most} tunnels")
            return
        # One process may get them all.
        with peer.bench.more_descriptors(2 * self.tunnels + self.OTHER_DESCRIPTORS):
            if peer.has_proxy:
                peer.stop()
                peer.start()
            try:
                self._run(peer, figures)
            finally:
                if peer.has_proxy:
                    peer.stop()

    def _run(self, peer, figures):
        with self.load.tunnels(peer.url(self.tls)) as tunnels:
            if not tunnels.grow(self.tunnels):
                figures.remarks.append(f"full at {tunnels.open:,}: {tunnels.error}")
                return
            visits = None
            # Without a proxy the back end is nobody's to ask in between.
            if peer.has_proxy:
                visits = self.load.start("get", peer.url(), seconds=2 * self.patience,
                                         clients=self.VISITORS, until="input")
            try:
                back, failed, took = tunnels.storm(self.patience, peer.bench.close_tunnels)
                result = visits.result() if visits else None
            finally:
                if visits:
                    visits.end()
        if back < self.tunnels:
            figures.remarks.append(f"{back:,} came back within {self.patience} s")
        else:
            figures[f"{self.name}: s until all are open"] = took
        figures[f"{self.name}: attempts failed"] = failed
        if result:
            if result["count"]:
                figures[f"{self.name}: GET p99 us"] = result["p99_us"]
            figures[f"{self.name}: GETs failed"] = result["failed"]


class Reload:
    """A reload while tunnels are open and plain requests come in."""

    name = "reload"

    def __init__(self, load, tunnels, seconds):
        self.load, self.tunnels, self.seconds = load, tunnels, seconds

    def __call__(self, peer, figures):
        if not peer.has_proxy:
            return
        if not peer.can_reload:
            figures.remarks.append("it has no configuration to reload")
            return
        peer.stop()
        peer.start()
        try:
            with self.load.tunnels(peer.url()) as tunnels:
                tunnels.grow_all(self.tunnels)
                requests = self.load.start("get", peer.url(), seconds=self.seconds)
                try:
                    time.sleep(self.seconds / 5)
                    peer.reload()
                    result = requests.result()
                finally:
                    requests.end()
                row = f"reload with {self.tunnels} tunnels"
                figures[f"{row}: alive"] = tunnels.check()
                figures[f"{row}: GET max us"] = result["max_us"]
                figures[f"{row}: GETs failed"] = result["failed"]
        finally:
            peer.stop()
