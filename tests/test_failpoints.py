"""A fault at every step: what is lost, what is said, and that nothing is left behind.

Behind `ci/failpoints`, which builds the module with its failpoints and has the table in docs/reliability.md written
by the run. What stands here besides is cheap: the table has every step of the source, and what is installed has none.
"""

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import time
import urllib.parse
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness import failtable, http, paths, procfs, statuspage, strace, wait
from harness.draining import site  # noqa: F401
from harness.httpd import Httpd

#: The module with failpoints.
ARMED = os.environ.get("WSF_FAILPOINTS_MODULE")
#: Where the outcomes go, for the table.
OUTCOMES = os.environ.get("WSF_FAILPOINTS_OUTCOMES")
#: Tunnels that there may be, of one client too: as many as there are in a test, and some more.
MOST = 12
#: Seconds within which a tunnel that lives echoes, and one that does not is over.
PATIENCE = 10
#: A child for each connection: one of them leaves the process that collects the tunnels of the others.
PREFORK = "MaxConnectionsPerChild 1"
#: The head of the list of all calls in the page.
CALLS_OF_THE_MODULE = "| Call | What for | Refused with, or why not |"


def test_every_step_is_in_the_table():
    assert failtable.steps()
    assert set(failtable.steps()) == set(STEPS)
    rows = re.findall(r"^\| `([\w.-]+)` \|", failtable.STEPS.text(), re.M)
    assert rows == sorted(STEPS)
    rows = re.findall(r"^\| `([\w.-]+)` \| (\w+) \| (\w+) \|", failtable.ELSEWHERE.text(), re.M)
    assert rows == sorted((name, step.mpm, step.victim) for name, step in ELSEWHERE)


def test_the_list_of_calls_is_whole():
    rows = re.findall(r"^\| (\w+) \| ([\w-]+) \| `(\w+)` \| (\w+) \|", failtable.CALLS.text(), re.M)
    assert sorted(rows) == sorted((one.act, one.where, one.call, one.error) for one in REFUSED)
    # A row for each call, or for several.
    of_module = failtable.PAGE.read_text().split(CALLS_OF_THE_MODULE)[1].split("\n\n")[0]
    listed = dict(re.findall(r"^\| `(\w+)`.*? \| .* \| (.*) \|$", of_module, re.M))
    assert {one.call for one in REFUSED} <= set(listed)
    for call, text in listed.items():
        assert set(re.findall(r"\bE[A-Z]{2,}\b", text)) == {one.error for one in REFUSED if one.call == call}, call


@pytest.mark.slow
def test_what_is_installed_has_no_failpoints():
    module = paths.module_under_test().read_bytes()
    assert b"WSF_FAILPOINTS" not in module
    assert not [step for step in failtable.steps() if step.encode() in module]


@dataclass(frozen=True)
class Step:
    """What leads to a step, and where."""

    #: The name of a function below.
    act: str
    #: What it is about: a tunnel "here" in the child that serves, or "there" in a drain process.
    at: str = "here"
    #: Whose tunnels may be lost besides, if not those. "none" where the tunnel is alone in its process.
    risk: str = ""
    mpm: str = "event"
    #: What the tunnel is that is about to be opened, or to end.
    victim: str = "ws"
    #: "drain" or "child", if the other kind is not meant.
    where: str = ""
    #: Whether it is in httpd's parent.
    parent: bool = False


STEPS = {
    "child.end": Step("reload"),
    "child.prepare": Step("reload"),
    "child.relay": Step("reload"),
    "child.slot": Step("reload"),
    "collector.freeze": Step("open", mpm="prefork"),
    "collector.leave": Step("end_all", mpm="prefork"),
    "collector.receive": Step("open", mpm="prefork"),
    "collector.send": Step("open", mpm="prefork"),
    "collector.sent": Step("open", mpm="prefork"),
    "collector.thaw": Step("open", mpm="prefork"),
    "drain.adopt": Step("reload"),
    "drain.claimed": Step("reload"),
    "drain.closed": Step("reload"),
    "drain.end": Step("end_all", "there"),
    "drain.fork": Step("reload"),
    "drain.forked": Step("reload"),
    "drain.found": Step("reload"),
    "drain.leave": Step("reload"),
    "drain.parent": Step("reload"),
    "drain.place": Step("reload"),
    "drain.relay": Step("reload"),
    "drain.slot": Step("reload"),
    "drain.stop": Step("reload"),
    "drain.watch": Step("end", "there"),
    "handover.adopt": Step("open"),
    "handover.duplicate": Step("open"),
    "handover.place": Step("open"),
    "handover.release": Step("open"),
    "handover.taken": Step("open"),
    "log.access": Step("end"),
    "log.end": Step("end"),
    "log.send": Step("end", "there"),
    "log.send-access": Step("end", "there"),
    "log.take": Step("end", "there", risk="here", where="child"),
    "log.write": Step("end"),
    "register.end": Step("end"),
    "register.order": Step("order"),
    "register.take": Step("open"),
    "relay.carry": Step("open"),
    "relay.end": Step("end"),
    "relay.give": Step("open"),
    "relay.order": Step("order"),
    "relay.register": Step("open"),
    "relay.return": Step("reload"),
    "relay.take": Step("open"),
    "ready.look": Step("look"),
    "ready.note": Step("look"),
    "reload.memory": Step("reload", parent=True),
    "reload.registry": Step("reload", parent=True),
}

#: Steps that are another way with another MPM, or where the tunnel has TLS:
#: - how httpd lets go of a connection, and how its child ends, are the MPM's;
#: - the hand-over takes an SSL out of mod_ssl, the relay reads and writes by it, and its tunnel ends with an alert;
#: - a child of prefork leaves what it has at its end, which comes with each tunnel: one with TLS goes by a fork of its
#:   own, and not by the queue.
#: All else (the register, the logs, the drain process at work, httpd's parent) is the same code, called the same way.
ELSEWHERE = [(name, step) for step, names in {
    Step("open", victim="wss"): "handover.adopt handover.duplicate handover.place handover.release handover.taken "
                                "relay.carry relay.register",
    Step("end", victim="wss"): "log.access log.end relay.end",
    Step("open", mpm="worker"): "handover.adopt handover.release handover.taken",
    Step("open", mpm="worker", victim="wss"): "relay.carry",
    Step("reload", mpm="worker"): "child.end drain.fork drain.forked drain.leave drain.parent drain.stop",
    Step("open", risk="none", mpm="prefork"): "drain.stop handover.adopt handover.release handover.taken relay.return",
    Step("open", risk="none", mpm="prefork", victim="wss"):
        "child.end drain.adopt drain.fork drain.forked drain.leave drain.parent drain.place drain.relay",
    Step("reload", risk="none", mpm="prefork"): "child.prepare child.relay child.slot",
}.items() for name in names.split()]  # fmt: skip


class Lab:
    """A server with tunnels in a drain process ("there") and in a child ("here"), and one step to arm."""

    def __init__(self, site, client, certificate, directory, step):
        self.directory, self.step, self._client = directory, step, client
        self.tls_of_client = certificate.client_context("tls1.3")
        limits = f"WSForwardMaxTunnels {MOST}\nWSForwardMaxTunnelsPerClient {MOST}\nWSForwardMaxTunnelsPerBackend {MOST}"
        limits += f"\n{PREFORK}" if step.mpm == "prefork" else ""
        ready = directory.parent / "ready"
        ready.touch()
        limits += f'\nWSForwardReadyFile "{ready}"'
        # No stop is over before a test is.
        limits += "\nGracefulShutdownTimeout 60"
        ports = []

        def directives(server):
            ports.append(server.vhost(statuspage.SECTION.format(statuspage.ACTIONS)))
            return limits

        self.site = site(step.mpm, directives)
        self.server = self.site.server
        self.page = statuspage.Page(self.server, client, *ports)
        self.groups, self.file = {"there": [], "here": []}, None
        for tls in (False, True):
            self.open("warm", tls).close()
        self.wait_open(0)
        self.descriptors = self.idle_descriptors()
        self.of_parent = len(procfs.descriptors(self.server.pid))
        self.groups["there"] = [self.open("there") for _ in range(2)] + [self.open("tls", tls=True)]
        self.reload()
        wait.until(self.site.drains, "a drain process has them")
        self.groups["here"] = [self.open("here") for _ in range(2)] + [self.open("tls", tls=True)]
        if step.mpm == "prefork":
            # Those leave their children, too: what comes is to be the victim's.
            wait.until(lambda: all(map(self.is_in_drain, self.groups["here"])), "drain processes have them")

    def most_descriptors(self):
        """Of a child, of those that there are now and that live."""
        return max((len(procfs.descriptors(child)) for child in self.server.children), default=0)

    def idle_descriptors(self):
        """The same, of one that waits for something to do: those of prefork end with each connection, and there may be
        none for a second."""
        wait.until(self.most_descriptors, "a child lives")
        return wait.steady(self.most_descriptors, seconds=1.5 if self.step.mpm == "prefork" else 0)

    def connect(self, tls=False):
        """A connection."""
        return self._client(*((self.site.tls, self.tls_of_client) if tls else (self.site.plain,)), timeout=PATIENCE)

    def open(self, name, tls=False):
        """A tunnel that echoes."""
        talk = self.connect(tls)
        assert talk.ask(http.handshake(f"/{name}")).status == 101
        return talk.echoes()

    def reload(self):
        self.server.reload()

    def wait_open(self, count):
        wait.until(lambda: self.site.count("Tunnels") == count, lambda: f"{count} tunnels; {self.server.status()}")

    def arm(self, name, fault):
        self.file = self.directory / f"{name}@1"
        new = self.directory / "new"
        new.write_text(f"{fault} {self.step.where}")
        new.rename(self.file)

    def wait_fired(self):
        """Where a step is armed."""
        if self.file:
            wait.until(lambda: not self.file.exists(), "the step was taken", 5)

    def holders(self, talk):
        """The processes that have a tunnel."""
        *_, inode = procfs.tcp_socket(talk.plain.getpeername()[1], talk.plain.getsockname()[1])
        processes = [*self.server.children, *self.site.drains()]
        return [pid for pid in processes if f"socket:[{inode}]" in procfs.descriptors(pid)]

    def is_in_drain(self, talk):
        """Whether a drain process has it, and is at work: its last thread is there."""
        holders = self.holders(talk)
        return len(holders) == 1 and procfs.thread(holders[0], "wsf-orders") and holders[0] in self.site.drains()

    def collector(self):
        """The drain process that collects: the one that has the first tunnel of its generation."""
        [pid] = self.holders(self.groups["here"][0])
        return pid


# What leads to a step. Each returns whose tunnel it is about: None where it is no tunnel, or all of them.


def open(lab):
    talk = lab.connect(lab.step.victim == "wss")
    talk.send(http.handshake("/victim"))
    lab.wait_fired()
    return talk


def look(lab):
    """The same, when somebody has to look for the ready file again: nobody does for a second after the last look."""
    time.sleep(1)
    return open(lab)


def end(lab):
    """One of a group ends."""
    lab.groups[lab.step.at].pop(-1 if lab.step.victim == "wss" else 0).close()
    lab.wait_fired()


def end_all(lab):
    """All of a group end, and so does their process."""
    while lab.groups[lab.step.at]:
        lab.groups[lab.step.at].pop().close()
    lab.wait_fired()


def reload(lab):
    if lab.step.parent:
        lab.server._write()
        lab.server.send_signal(signal.SIGUSR1)
    else:
        lab.reload()
    lab.wait_fired()


def order(lab):
    """One is closed by an administrator."""
    victim = lab.groups["here"].pop(0)
    port = victim.plain.getsockname()[1]
    [entry] = [one for one in lab.page.tunnels() if one["port"] == port]
    asked = {"action": "close", "nonce": lab.page.json()["nonce"], "id": entry["id"]}
    body = urllib.parse.urlencode(asked).encode()
    fields = [("Content-Type", "application/x-www-form-urlencoded"), ("Content-Length", str(len(body)))]
    talk = lab._client(lab.page.port, timeout=PATIENCE)
    talk.send(http.request("/status", method="POST", body=body, fields=fields))
    lab.wait_fired()
    return victim


def lives(talk):
    """Whether a tunnel echoes. It ends or lives: one that hangs fails the test."""
    try:
        talk.echoes(os.urandom(100))
        return True
    except TimeoutError:
        raise AssertionError("a tunnel hangs") from None
    except (EOFError, OSError, ValueError, AssertionError):
        # A ValueError where its socket is closed, since it ended.
        return False


def outcome_of(talk):
    """Of a tunnel that was being opened."""
    try:
        status = talk.read_response().status
    except (EOFError, OSError):
        return "lost"
    if status != 101:
        return f"a {status}"
    return "goes on" if lives(talk) else "lost"


def settled(count):
    """What `count` returns when it stays the same for a moment."""
    before = count()
    while True:
        time.sleep(0.3)
        now = count()
        if now == before:
            return now
        before = now


def serves(lab):
    """A page and a tunnel, as soon as there is a child again. Whether a reload was needed."""
    def works():
        try:
            with lab._client(lab.site.plain, timeout=PATIENCE) as talk:
                assert talk.ask(http.request("/page")).status == 200
            with lab._client(lab.site.plain, timeout=PATIENCE) as talk:
                status = talk.ask(http.handshake("/after")).status
                if status == 503:
                    # For a moment: of the ready file, or of what is not counted as gone yet.
                    return None
                if status != 101:
                    return "no tunnel"
                return "yes" if lives(talk) else None
        except (EOFError, OSError):
            return None
    found = wait.until(works, "the site answers", 20)
    if found == "yes":
        return False
    lab.reload()
    assert wait.until(works, "the site answers after a reload", 20) == "yes"
    return True


def has_ended(talk):
    """Reads to the end, whatever comes."""
    try:
        return talk.end()
    except TimeoutError:
        raise AssertionError("a tunnel hangs") from None
    except (OSError, ValueError) as error:
        return repr(error)


def said(log):
    """The numbers of what was said at warn or above, and of the lines of a death by a signal."""
    wrong = log.unexpected()
    return sorted({number for line in wrong for number in re.findall(r"WSF\d{4}|AH0005[12]|panicked", line)[:1]})


CASES = [(name, fault, step) for name, step in [*sorted(STEPS.items()), *ELSEWHERE] for fault in failtable.steps()[name]]


def id_of(name, fault, step):
    return f"{name}-{fault}" if (name, step) not in ELSEWHERE else f"{name}-{step.mpm}-{step.victim}-{fault}"


@pytest.mark.slow
@pytest.mark.skipif(not ARMED, reason="ci/failpoints builds the module for it")
@pytest.mark.timeout(240)
@pytest.mark.parametrize("name, fault, step", CASES, ids=[id_of(*case) for case in CASES])
def test_a_fault_at_a_step(site, client, certificate, scratch, monkeypatch, name, fault, step):
    directory = scratch / id_of(name, fault, step)
    directory.mkdir()
    directory.chmod(0o777)
    monkeypatch.setenv("WSF_FAILPOINTS", str(directory))
    armed = scratch / "armed.so"
    if not armed.exists():
        armed.write_bytes(Path(ARMED).read_bytes())
        armed.chmod(0o755)
    lab = Lab(lambda *rest, **more: site(*rest, module=armed, **more), client, certificate, directory, step)
    lab.server.log.open_span()
    lab.arm(name, fault)
    if step.parent and fault != "delay":
        return of_parent(lab, name, fault)
    victim = globals()[step.act](lab)
    risk = step.risk or step.at
    risked = lab.groups.get(risk, [])
    others = [talk for name, group in lab.groups.items() if name != risk for talk in group]
    # Who is gone is found by whoever looks, once the system has buried it; an upgrade request looks, too.
    settled(lambda: lab.site.count("Tunnels"))
    if step.mpm == "prefork" and fault in ("kill", "panic") and name in ("collector.receive", "collector.thaw"):
        # What is on its way to it is taken in then.
        wait.until(lambda: lab.site.count("Tunnels") >= 0 and lab.server.log.matching("WSF0310"), "it is found gone")
    victims = outcome_of(victim) if step.act in ("open", "look") else None
    lost = settled(lambda: sum(not lives(talk) for talk in risked))
    assert all(map(lives, others)), "a tunnel of another process is lost"
    needed = serves(lab)
    assert all(map(lives, others)), "a tunnel of another process is lost"
    assert lost == sum(not lives(talk) for talk in risked)
    if victims == "goes on" and not lives(victim):
        # Its child may have carried it for a moment.
        victims = "lost"
    if step.act == "order":
        assert has_ended(victim)
    if fault == "panic" or name.startswith("child."):
        # A child in which a panic was caught takes no more upgrade requests, as documented.
        lab.reload()
    left_nothing(lab, [*risked, *others, *([victim] if victim else [])])
    if fault == "error" and name.startswith("handover."):
        assert sum('"GET /victim ' in line for line in lab.server.access()) == 1, "its line in the access log"
    numbers = [one for one in said(lab.server.log) if one != "WSF0108"]
    check_log(lab, name, fault)
    what = {"lost": "its tunnel", "goes on": "nothing", None: "nothing"}.get(victims, f"its tunnel ({victims})")
    if lost:
        what = f"tunnels of its process ({lost} of {len(risked)})"
        assert fault == "kill" or step.act == "reload" or name in ("drain.watch", "collector.receive", "collector.thaw"), what
        assert numbers, "nobody says that tunnels are lost"
    elsewhere = f"@{step.mpm}@{step.victim}" if (name, step) in ELSEWHERE else ""
    write(f"{name}{elsewhere}", fault, what, numbers, " after a reload" if needed else "")


def left_nothing(lab, talks):
    """Tunnels end, and nothing is left of them; then there is room for as many as before, and a stop works."""
    for talk in talks:
        talk.close()
    lab.wait_open(0)
    lab.page.wait_tunnels(0)
    wait.until(lambda: not lab.site.drains(), lambda: f"drain processes end: {lab.site.drains()}", 40)
    ended = len(lab.server.log.matching("WSF0202"))
    places = [lab.open("place") for _ in range(MOST)]
    with lab._client(lab.site.plain) as talk:
        assert talk.ask(http.handshake()).status == 503, "more tunnels than there may be"
    for talk in places:
        talk.close()
    lab.wait_open(0)
    # And is told of.
    lab.server.log.wait_for("WSF0202", ended + MOST)
    wait.until(lambda: sum('"GET /place ' in line for line in lab.server.access()) == MOST, "their lines are there")
    wait.until(lambda: 0 < lab.most_descriptors() <= lab.descriptors,
               lambda: f"no more than {lab.descriptors} descriptors: {lab.most_descriptors()}")  # fmt: skip
    assert len(procfs.descriptors(lab.server.pid)) <= lab.of_parent, "the parent has more descriptors"
    lab.server.stop()
    assert lab.server.stopped_in < wait.scaled(5)


def of_parent(lab, name, fault):
    """httpd's parent ends, and nothing of the server is left."""
    reload(lab)
    numbers = server_is_gone(lab, fault == "kill")
    write(name, fault, "the server", numbers, "")


def server_is_gone(lab, is_killed=False):
    """The parent ends, and nothing of the server is left. Returns what was said."""
    process = lab.server._process
    process.wait(wait.scaled(20))
    wait.until(lambda: not lab.site.drains(), "drain processes end with the server", 20)
    if is_killed:
        for child in procfs_orphans(lab):
            os.kill(child, signal.SIGKILL)
    assert all(has_ended(talk) for group in lab.groups.values() for talk in group)
    numbers = said(lab.server.log)
    lab.server.log.open_span()
    lab.server._process = None
    return numbers


def procfs_orphans(lab):
    """What is left of the group of a parent that was killed: its children are httpd's to end."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if lab.site.mark.encode() in (process / "environ").read_bytes() and int(process.name) != os.getpid():
                found.append(int(process.name))
        except OSError:
            continue
    return found


def check_log(lab, name, fault):
    """Nobody crashed but by this fault."""
    for line in lab.server.log.lines():
        if b"exit signal" in line:
            assert fault == "kill" and b"Killed (9)" in line, line
        if b"panicked" in line:
            assert fault == "panic", line
    lab.server.log.open_span()


def write(name, fault, lost, numbers, more):
    outcome = {"step": name, "fault": fault, "lost": lost, "said": numbers, "more": more}
    print(outcome)
    if OUTCOMES:
        Path(OUTCOMES, f"{name}@{fault}.json").write_text(json.dumps(outcome))


@dataclass(frozen=True)
class Refusal:
    """A call that the kernel refuses, each time."""

    #: What happens meanwhile: the name of a function below, or above.
    act: str
    #: Who asks: "child" is the one that serves and what it forks; "children" are all of prefork's; "born" are those that
    #: the parent makes; "collector" and "drain" the first thread of a drain process; else a thread of the child.
    where: str
    call: str
    error: str
    #: Of each process only this one, as strace has it.
    when: str = "1+"
    mpm: str = "event"

    def options(self):
        """Of strace."""
        return ("-e", f"trace={self.call}", "-e", f"inject={self.call}:error={self.error}:when={self.when}")


def refusals(act, where, calls, mpm="event"):
    return [Refusal(act, where, *call.split(":"), mpm=mpm) for call in calls.split()]


REFUSED = [
    # While a tunnel is opened and many bytes go through it. Without fcntl httpd itself cannot serve.
    *refusals("open", "child", "epoll_ctl:ENOMEM pipe2:EMFILE pipe2:ENFILE splice:ENOMEM"),
    *refusals("open", "relay-0", "recvfrom:ENOMEM sendto:ENOBUFS setsockopt:ENOBUFS ioctl:ENOTTY"),
    # While a child ends and leaves its tunnels to a drain process.
    *refusals("reload", "child", "clone:EAGAIN clone3:EAGAIN eventfd2:EMFILE eventfd2:ENFILE pidfd_open:EMFILE "
                                 "pidfd_open:ENFILE epoll_create1:EMFILE epoll_create1:ENFILE epoll_ctl:ENOMEM "
                                 "signalfd4:EMFILE signalfd4:ENFILE fcntl:ENOMEM close_range:EPERM "
                                 "dup2:EMFILE openat:ENFILE setsid:EPERM prctl:EPERM"),
    # While a child begins. Without epoll, or threads, it is no child of httpd's. What it asks first of prlimit64 is
    # what its limit is; then it raises that.
    *refusals("reload", "born", "eventfd2:EMFILE eventfd2:ENFILE pidfd_open:EMFILE pidfd_open:ENFILE "
                                "prlimit64:EPERM:2"),
    # While a child of prefork leaves its tunnel to the process that collects them.
    *refusals("open", "children", "sendmsg:ENOBUFS sendmsg:ETOOMANYREFS pidfd_open:ENFILE kill:EPERM", "prefork"),
    *refusals("open", "collector", "recvmsg:ENOMEM recvmsg:EMFILE ppoll:ENOMEM", "prefork"),
    # While a tunnel ends, whose lines go to the logs.
    *refusals("end", "wsf-log", "ppoll:ENOMEM read:EIO write:ENOSPC"),
    *refusals("end", "wsf-access", "ppoll:ENOMEM read:EIO write:ENOSPC"),
    *refusals("end_there", "wsf-log", "read:EIO"),
    *refusals("end_there", "wsf-access", "recvfrom:ENOMEM"),
    *refusals("end_there", "drain", "ppoll:ENOMEM read:EIO"),
    # While the server stops gracefully, and its parent waits for tunnels.
    *refusals("stop", "parent", "ppoll:ENOMEM splice:ENOSYS recvfrom:ENOMEM pidfd_open:ENFILE pidfd_send_signal:EPERM "
                                "signalfd4:ENFILE pipe2:ENFILE fcntl:ENOMEM"),
    # While it starts.
    *refusals("start", "parent", "socketpair:ENFILE memfd_create:ENFILE"),
]  # fmt: skip
#: Those that are refused in every run of the suite, too: once they ended a tunnel, or kept a process busy.
ALWAYS = [Refusal("open", "child", "splice", "ENOMEM"), Refusal("end", "wsf-log", "read", "EIO")]
#: So many calls a second are refused at most: whoever asks for ever is not to be busy with that.
BUSY = 150


def end_there(lab):
    """One in the drain process ends."""
    lab.groups["there"].pop(0).close()


def stop(lab):
    """The server stops gracefully. When its children are gone a tunnel ends, of which its parent has to tell."""
    lab.server.send_signal(signal.SIGWINCH)
    wait.until(lambda: not lab.server.children, "the children have left their tunnels")
    end_there(lab)


@contextlib.contextmanager
def room_to_raise_limits():
    """What is started meanwhile has a soft limit of descriptors below its hard one."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(before[1] // 2, 2048), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


class Refused:
    """Has every such call refused meanwhile."""

    def __init__(self, lab, refusal, path):
        self.path = path
        children, parent = lab.server.children, lab.server.pid
        match refusal.where:
            case "child":
                tasks, follow = children, ["-f"]
            case "children":
                # And those that come meanwhile.
                tasks, follow = [parent, *children], ["-f"]
            case "born":
                tasks, follow = [parent], ["-f"]
            case "parent":
                tasks, follow = [parent], []
            case "drain":
                tasks, follow = lab.site.drains(), []
            case "collector":
                tasks, follow = [lab.collector()], []
            case thread:
                tasks, follow = [procfs.thread(children[0], thread)], []
        self.tracer = strace.attached(tasks, *follow, "-o", path, *refusal.options())

    def __enter__(self):
        self.tracer.__enter__()
        return self

    def __exit__(self, *error):
        return self.tracer.__exit__(*error)

    def count(self):
        """How many there were."""
        return self.path.read_bytes().count(b"INJECTED")


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("strace"), reason="there is no strace")
@pytest.mark.timeout(240)
@pytest.mark.parametrize("refusal", [one for one in REFUSED if OUTCOMES or one in ALWAYS],
                         ids=lambda one: "-".join((one.act, one.where, one.call, one.error)))  # fmt: skip
def test_a_refused_call(site, client, certificate, scratch, tmp_path, monkeypatch, refusal):
    """The kernel has none of what the module asks for: tunnels of other processes go on, none hangs, nobody is busy with
    it, and later all works."""
    act, call = refusal.act, refusal.call
    path = tmp_path / "calls"
    if act == "start":
        return refused_at_start(site, refusal, path, monkeypatch)
    step = Step(act, at="there" if act == "end_there" else "here", mpm=refusal.mpm)
    with room_to_raise_limits():
        lab = Lab(site, client, certificate, scratch, step)
    lab.server.log.open_span()
    [child, *_] = lab.server.children
    victim, of_victim = None, None
    here, there = lab.groups["here"], lab.groups["there"]
    with Refused(lab, refusal, path) as refused:
        if act == "open":
            victim = lab.connect()
            victim.send(http.handshake("/victim"))
            if refusal.where != "collector":
                of_victim = outcome_of(victim)
            if of_victim == "goes on":
                victim.echoes(os.urandom(1 << 20))
        else:
            globals()[act](lab)
        wait.until(refused.count, "it is refused")
        before = refused.count()
        time.sleep(1)
        calls = refused.count() - before
        if act == "stop":
            # A parent that leaves takes a second for it.
            lost = wait.steady(lambda: sum(not lives(talk) for talk in here + there), seconds=2)
            for talk in here + there:
                talk.close()
            numbers = server_is_gone(lab)
            write_call(refusal, f"{lost} of {len(here + there)}" if lost else "nothing", numbers)
            assert calls < BUSY, "the parent is busy"
            return
        if refusal.where not in ("born", "collector"):
            lost = settled(lambda: sum(not lives(talk) for talk in here))
            if act == "reload":
                # Where some go on in it, it is there for a while.
                wait.until(lambda: not os.path.exists(f"/proc/{child}") or lost < 3, "the child leaves its tunnels", 40)
    assert calls < BUSY, "somebody is busy"
    if refusal.where == "collector":
        of_victim = outcome_of(victim)
    lost = settled(lambda: sum(not lives(talk) for talk in here))
    assert all(map(lives, there)), "a tunnel of another process is lost"
    if refusal.where == "born":
        # A child that has no relay has none for ever.
        lab.reload()
    if serves(lab):
        raise AssertionError("no tunnel is relayed afterwards")
    left_nothing(lab, [*here, *there, *([victim] if victim else [])])
    numbers = [one for one in said(lab.server.log) if one != "WSF0108"]
    check_log(lab, call, refusal.error)
    assert of_victim == "goes on" or act != "open" or call == "epoll_ctl" or refusal.where == "relay-0"
    mine = {None: "", "goes on": "", "lost": "its own tunnel, "}.get(of_victim, f"its own tunnel ({of_victim}), ")
    write_call(refusal, f"{mine}{lost} of its process" if mine or lost else "nothing", numbers)


def refused_at_start(site, refusal, path, monkeypatch):
    """The server says why it does not start, and nothing of it is left."""
    monkeypatch.setattr(Httpd, "default_prefix", ("strace", "-qq", "-f", "-o", str(path), *refusal.options()))
    with pytest.raises(RuntimeError, match="httpd ended"):
        site("event")
    server = Httpd.living[-1]
    numbers = said(server.log)
    server.log.open_span()
    assert "WSF0001" in numbers
    server._process = None
    write_call(refusal, "the server", numbers)


def write_call(refusal, lost, numbers):
    write(f"{refusal.act}@{refusal.where}@{refusal.call}", refusal.error, lost, numbers, "")
