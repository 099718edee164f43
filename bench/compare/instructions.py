"""What a handshake and a message take of httpd's process, counted: instructions, by valgrind's callgrind,
and system calls. What else runs does not change a count as it does a time, so that a busy machine can
compare with numbers that were kept."""

import collections
import contextlib
import json
import os
import pathlib
import platform
import pwd
import re
import shutil
import subprocess
import time

import peers
from guard import MOST
from load import LoadError

KEPT = pathlib.Path(__file__).parents[1] / "instructions.json"

# Handshakes in a burst, one after the other; seconds of messages, and their size.
HANDSHAKES, ECHO_SECONDS, ECHO_BYTES = 50, 0.5, 1024
# Bursts of each kind, of which the least counts: what disturbs one only adds to it.
BURSTS = 3

# The server's threads: one tunnel more shows that they are relayed.
THREADS = 8

# Valgrind has the kernel asked for the time, which otherwise nobody is.
CLOCKS = {"clock_gettime", "gettimeofday", "time", "getcpu"}

# Parts smaller than this share are kept as one.
SMALL = 0.01

# OpenSSL's arithmetic: beside that of a handshake all else would be little.
ARITHMETIC = "libcrypto"

# How long valgrind may take to do as it is told.
PATIENCE = 120


class Counted:
    """What makes a server one process under callgrind."""

    patience = PATIENCE
    mode = ("-X",)
    mpm = f"""StartServers 1
ServerLimit 1
ThreadLimit {THREADS}
ThreadsPerChild {THREADS}
MaxRequestWorkers {THREADS}
MinSpareThreads 1
MaxSpareThreads {THREADS}
"""

    @property
    def as_user(self):
        """What runs a program as the user that httpd's children have. All of it is that from the
        beginning, as valgrind's files are of the user who started it."""
        user = peers.http_user()
        if not user:
            return ()
        entry = pwd.getpwnam(user)
        return ("setpriv", f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups")

    @property
    def log(self):
        """What valgrind says: every system call."""
        return self.directory / "valgrind.log"

    @property
    def runner(self):
        return (*self.as_user, "valgrind", "--tool=callgrind", "--instr-atstart=no", "--fair-sched=try",
                "--trace-syscalls=yes", f"--log-file={self.log}", f"--vgdb-prefix={self.directory}/vgdb",
                # Of a process that this one starts nothing is counted.
                "--child-silent-after-fork=yes", f"--callgrind-out-file={self.directory}/profile.%p")

    def spawn(self):
        user = peers.http_user()
        if user:
            for path in (self.directory, self.bench.key):
                shutil.chown(path, user)
        return super().spawn()

    def tell(self, *words):
        """Has callgrind do something."""
        asked = subprocess.run(
            [*self.as_user, "vgdb", f"--vgdb-prefix={self.directory}/vgdb", f"--pid={self.session.pid}", *words],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE)
        if asked.returncode:
            raise RuntimeError(f"vgdb {' '.join(words)}: {asked.stderr.strip() or asked.returncode}")

    def count(self, burst):
        """What a burst takes for each of what it does: parts by kind. And callgrind's profile."""
        self.tell("zero")
        begin = self.log.stat().st_size
        times = burst()
        end = self.log.stat().st_size
        self.tell("dump")
        # The last; they are numbered.
        profile = max(self.directory.glob(f"profile.{self.session.pid}.*"), key=lambda path: int(path.suffix[1:]))
        text = profile.read_text(errors="replace")
        profile.unlink()
        with self.log.open("rb") as log:
            log.seek(begin)
            said = log.read(end - begin).decode(errors="replace")
        counts = {"instructions": by_object(text), "system calls": system_calls(said)}
        return {kind: {part: number / times for part, number in parts.items()}
                for kind, parts in counts.items()}, text


class Relay(Counted, peers.Relay):
    """The module with its relay."""


class Apache(Counted, peers.Apache):
    """Stock httpd."""

    most = 1


def by_object(profile):
    """The instructions of one of callgrind's profiles, by the program or library that has them."""
    found, names, current, is_call = collections.Counter(), {}, "", False
    for line in profile.splitlines():
        name = re.match(r"(c?)ob=(\(\d+\))(?: (.*))?$", line)
        if name:
            is_callee, number, path = name.groups()
            if path:
                names[number] = re.sub(r"\.so\b.*", "", path.rpartition("/")[2])
            if not is_callee:
                current = names[number]
        elif line.startswith("calls="):
            # The next line is what the callee takes, which has its own lines.
            is_call = True
        elif re.match(r"[\d+*-]", line):
            if not is_call:
                found[current] += sum(map(int, line.split()[1:]))
            is_call = False
    return found


def system_calls(log):
    """Those that valgrind tells of, by name. What it says when one returns has dots for its name."""
    names = re.findall(r"^SYSCALL\[\d+,\d+\]\( *-?\d+\) (?:sys_)?(\w+)", log, re.M)
    return collections.Counter(name for name in names if name not in CLOCKS)


@contextlib.contextmanager
def handshakes(peer, tls):
    """A burst of tunnels that are opened and closed."""
    def burst(count=HANDSHAKES):
        done = peer.bench.wsload.run("handshakes", peer.url(tls), seconds=PATIENCE, clients=1, count=count)
        if done["failed"]:
            raise LoadError(f"{done['failed']} handshakes failed")
        return done["count"]

    yield burst


@contextlib.contextmanager
def echo(peer, tls):
    """A burst of messages there and back on one tunnel."""
    with peer.bench.wsload.tunnels(peer.url(tls)) as tunnels:
        tunnels.grow_all(peer.most or THREADS + 1)
        yield lambda: tunnels.echo(ECHO_BYTES, ECHO_SECONDS, 1)["messages"]


FIGURES = {"handshake ws": (handshakes, False), "echo ws": (echo, False),
           "handshake wss": (handshakes, True), "echo wss": (echo, True)}


def warm_up(burst):
    """Until one succeeds: what is run for the first time under valgrind takes long."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            burst()
            return
        except LoadError:
            if time.monotonic() > deadline:
                raise


def bursts_of(peer, burst):
    """What so many bursts take that came through: on a very busy machine a handshake may take too long."""
    taken, failed = [], 0
    while len(taken) < BURSTS:
        try:
            taken.append(peer.count(burst))
        except LoadError:
            failed += 1
            if failed == BURSTS:
                raise
    return taken


def total(parts):
    """The sum of a figure's parts."""
    return sum(parts.values())


def measure(peer, output):
    """Every figure of one server; the profile of each is left in `output`."""
    found = {}
    peer.start()
    try:
        peer.tell("instrumentation", "on")
        for name, (kind, tls) in FIGURES.items():
            with kind(peer, tls) as burst:
                warm_up(burst)
                bursts = bursts_of(peer, burst)
            found[name], profile = min(bursts, key=lambda counts: total(counts[0]["instructions"]))
            for count in ("instructions", "system calls"):
                found[name][count] = min((counts[count] for counts, _ in bursts), key=total)
            (output / profile_of(peer.name, name)).write_text(profile)
    finally:
        peer.stop()
    return found


def profile_of(peer, figure):
    """The name of the file with a profile."""
    return f"{peer}-{figure.replace(' ', '-')}.callgrind"


def versions(module):
    """Of all that the counts depend on besides the source."""
    def first(pattern, *command):
        said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        return (re.findall(pattern, said) or ["unknown"])[0]

    compiler = re.search(rb"rustc version ([\d.]+)", pathlib.Path(module).read_bytes())
    # By what valgrind has of these, libraries choose their code.
    flags = set(pathlib.Path("/proc/cpuinfo").read_text().split())
    known = sorted(flags & {"avx", "avx2", "rdrand", "sse4_2", "aes", "sha2"})
    return {"rustc": compiler[1].decode() if compiler else "unknown",
            "httpd": first(r"Apache/([\d.]+)", peers.httpd(), "-v"),
            "OpenSSL": first(r"OpenSSL ([\w.]+)", "openssl", "version"),
            "libc": " ".join(platform.libc_ver()),
            "valgrind": first(r"valgrind-([\w.]+)", "valgrind", "--version"),
            "processor": " ".join([platform.machine(), *known])}


def rounded(parts):
    """A figure's parts as they are kept: the large ones, and the sum of the others."""
    whole, kept = total(parts), {}
    digits = None if whole > 1000 else 2
    for part, number in sorted(parts.items(), key=lambda one: -one[1]):
        name = part if number >= SMALL * whole else "others"
        kept[name] = kept.get(name, 0) + number
    return {part: round(number, digits) for part, number in kept.items()}


def growth(was, now):
    """The parts that grew most, in words."""
    grown = {part: now.get(part, 0) - was.get(part, 0) for part in {*was, *now}}
    enough = max(grown.values()) / 10
    most = sorted((part for part in grown if grown[part] > enough), key=lambda part: -grown[part])[:3]
    return ", ".join(f"{part} {number(was.get(part, 0))} -> {number(now.get(part, 0))}" for part in most)


def number(value):
    """A count as it is read."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.2f}"


class Comparison:
    """What was counted, beside what is kept."""

    def __init__(self, kept, found, here, output):
        """`kept` has versions and figures, `found` figures by server, `here` versions."""
        self.kept, self.found, self.output = kept, found, output
        self.others = differing(kept["versions"], here)
        self.compiler = kept["versions"]["rustc"], here["rustc"]
        self.lines, self.failed = [], []

    def run(self):
        """Judges all of it. Whether the module may pass."""
        if self.others:
            self.lines.append(f"Kept are counts with {', '.join(self.others)}. So each is compared as a multiple of "
                              "what httpd without the module takes: what changed there, it has in common with that.")
        better = False
        for name in FIGURES:
            better |= self.judge(name, "instructions") < 1 / MOST
            if ARITHMETIC in self.kept["figures"][name]["relay"]["instructions"]:
                better |= self.judge(name, "instructions", ARITHMETIC) < 1 / MOST
            better |= self.judge(name, "system calls") < 1 / MOST
        if self.failed:
            self.lines.append(self.advice())
        elif better:
            self.lines.append("Some is much less than what is kept: `ci/bench --instructions --record`, or what was "
                              "won can be lost unseen.")
        return not self.failed

    def judge(self, name, kind, without=None):
        """One count, all of it or without a part, as a multiple of the one that is kept."""
        def parts(figures, server):
            return {part: count for part, count in figures[name][server][kind].items() if part != without}

        was, now = parts(self.kept["figures"], "relay"), parts(self.found, "relay")
        before, after, unit = total(was), total(now), ""
        if self.others:
            before /= total(parts(self.kept["figures"], "apache"))
            after /= total(parts(self.found, "apache"))
            unit = " x httpd without the module"
        ratio = after / before
        what = f"{name}, {kind}{f' outside of {without}' if without else ''}"
        text = f"{what}: {number(after)}{unit}, was {number(before)}: {ratio:.3f} x"
        if ratio > MOST:
            self.failed.append(name)
            text += f", FAILS, the most is {MOST} ({growth(was, now)})"
        self.lines.append(text)
        return ratio

    def advice(self):
        """What to do."""
        profile = self.output / profile_of("relay", self.failed[0])
        compiler = ("" if self.compiler[0] == self.compiler[1] else
                    " Kept is what rustc {} made of the source, and this is of rustc {}.".format(*self.compiler))
        return (f"Find out why: `callgrind_annotate {profile}`.{compiler} If it has to be, keep the new counts "
                "in a commit that says why: `ci/bench --instructions --record`.")


def differing(kept, here):
    """What is not as it was for the counts that are kept, in words. Not the compiler: what it makes
    of the source is the module itself."""
    return [f"{name} {kept.get(name)} (here: {version})" for name, version in here.items()
            if name != "rustc" and kept.get(name) != version]


def run(bench, output, is_record):
    """Counts, and compares with what is kept or keeps it. The status to end with."""
    output = output / "instructions"
    output.mkdir(exist_ok=True, parents=True)
    here = versions(bench.module)
    kept = None if is_record else json.loads(KEPT.read_text())
    if kept and not set(FIGURES) <= set(kept["figures"]):
        print(f"{KEPT} has not all of {', '.join(FIGURES)}: `ci/bench --instructions --record` writes it.")
        return 1
    # Where the user can read it whom httpd runs as.
    bench.module = shutil.copy(bench.module, bench.directory / "mod_wsforward.so")
    os.chmod(bench.module, 0o755)
    kinds = [Relay, Apache] if is_record or differing(kept["versions"], here) else [Relay]
    servers = [kind(bench, index) for index, kind in enumerate(kinds, 1)]
    bench.start_backends([server.backend_address for server in servers], 1)
    found = {name: {} for name in FIGURES}
    for server in servers:
        for name, counts in measure(server, output).items():
            found[name][server.name] = {kind: rounded(parts) for kind, parts in counts.items()}
    if is_record:
        KEPT.write_text(json.dumps({"versions": here, "figures": found}, indent=1) + "\n")
        print(f"Kept in {KEPT}")
        return 0
    comparison = Comparison(kept, found, here, output)
    is_right = comparison.run()
    print("\n".join(comparison.lines))
    return 0 if is_right else 1
