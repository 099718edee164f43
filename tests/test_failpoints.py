"""A fault at every step: what is lost, what is said, and that nothing is left behind.

Behind `ci/failpoints`, which builds the module with its failpoints and has the table in docs/reliability.md written
by the run. What stands here besides is cheap: the table has every step of the source, and what is installed has none.
"""

import json
import os
import re
import shutil
import signal
import time
import urllib.parse
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness import failtable, http, paths, procfs, statuspage, strace, wait
from harness.draining import site  # noqa: F401

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


def test_every_step_is_in_the_table():
    assert failtable.steps()
    assert set(failtable.steps()) == set(STEPS)
    rows = re.findall(r"^\| `([\w.-]+)` \|", failtable.table(), re.M)
    assert rows == sorted(STEPS)


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
    #: Whose tunnels may be lost, if not those.
    risk: str = ""
    mpm: str = "event"
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
    "reload.memory": Step("reload", parent=True),
    "reload.registry": Step("reload", parent=True),
}


class Lab:
    """A server with tunnels in a drain process ("there") and in a child ("here"), and one step to arm."""

    def __init__(self, site, client, certificate, directory, step):
        self.directory, self.step, self._client = directory, step, client
        self.tls_of_client = certificate.client_context("tls1.3")
        limits = f"WSForwardMaxTunnels {MOST}\nWSForwardMaxTunnelsPerClient {MOST}\nWSForwardMaxTunnelsPerBackend {MOST}"
        limits += f"\n{PREFORK}" if step.mpm == "prefork" else ""
        ports = []

        def directives(server):
            ports.append(server.vhost(statuspage.SECTION.format(statuspage.ACTIONS)))
            return limits

        self.site = site(step.mpm, directives)
        self.server = self.site.server
        self.page = statuspage.Page(self.server, client, *ports)
        self.groups = {"there": [], "here": []}
        self.open("warm").close()
        self.wait_open(0)
        if step.mpm == "event":
            [child] = self.server.children
            self.descriptors = len(procfs.descriptors(child))
        self.groups["there"] = [self.open("there") for _ in range(2)] + [self.open("tls", tls=True)]
        self.reload()
        wait.until(self.site.drains, "a drain process has them")
        self.groups["here"] = [self.open("here") for _ in range(2)] + [self.open("tls", tls=True)]

    def open(self, name, tls=False):
        """A tunnel that echoes."""
        talk = self._client(*((self.site.tls, self.tls_of_client) if tls else (self.site.plain,)), timeout=PATIENCE)
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
        wait.until(lambda: not self.file.exists(), "the step was taken", 5)


# What leads to a step. Each returns whose tunnel it is about: None where it is no tunnel, or all of them.


def open(lab):
    talk = lab._client(lab.site.plain, timeout=PATIENCE)
    talk.send(http.handshake("/victim"))
    lab.wait_fired()
    return talk


def end(lab):
    """One of a group ends."""
    lab.groups[lab.step.at].pop(0).close()
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
    except (EOFError, OSError, AssertionError):
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
                if talk.ask(http.handshake("/after")).status != 101:
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
    except OSError as error:
        return repr(error)


def said(log):
    """The numbers of what was said at warn or above, and of the lines of a death by a signal."""
    wrong = log.unexpected()
    return sorted({number for line in wrong for number in re.findall(r"WSF\d{4}|AH0005[12]|panicked", line)[:1]})


CASES = [(name, fault) for name, faults in sorted(failtable.steps().items()) for fault in faults]


@pytest.mark.slow
@pytest.mark.skipif(not ARMED, reason="ci/failpoints builds the module for it")
@pytest.mark.timeout(240)
@pytest.mark.parametrize("name, fault", CASES, ids=[f"{name}-{fault}" for name, fault in CASES])
def test_a_fault_at_a_step(site, client, certificate, scratch, monkeypatch, request, name, fault):
    step = STEPS[name]
    directory = scratch / f"{name}-{fault}"
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
    risked, others = lab.groups[risk], lab.groups["there" if risk == "here" else "here"]
    # Who is gone is found by whoever looks, once the system has buried it; an upgrade request looks, too.
    settled(lambda: lab.site.count("Tunnels"))
    if step.mpm == "prefork" and fault in ("kill", "panic") and name in ("collector.receive", "collector.thaw"):
        # What is on its way to it is taken in then.
        wait.until(lambda: lab.site.count("Tunnels") >= 0 and lab.server.log.matching("WSF0310"), "it is found gone")
    victims = outcome_of(victim) if step.act == "open" else None
    lost = settled(lambda: sum(not lives(talk) for talk in risked))
    assert all(map(lives, others)), "a tunnel of another process is lost"
    needed = serves(lab)
    assert all(map(lives, others)), "a tunnel of another process is lost"
    assert lost == sum(not lives(talk) for talk in risked)
    if step.act == "order":
        assert has_ended(victim)
    if fault == "panic" or name.startswith("child."):
        # A child in which a panic was caught takes no more upgrade requests, as documented.
        lab.reload()
    left_nothing(lab, [*risked, *others, *([victim] if victim else [])])
    numbers = [one for one in said(lab.server.log) if one != "WSF0108"]
    check_log(lab, name, fault)
    what = {"lost": "its tunnel", "goes on": "nothing", None: "nothing"}.get(victims, f"its tunnel ({victims})")
    if lost:
        what = f"tunnels of its process ({lost} of {len(risked)})"
        assert fault == "kill" or step.act == "reload" or name in ("drain.watch", "collector.receive", "collector.thaw"), what
        assert numbers, "nobody says that tunnels are lost"
    write(name, fault, what, numbers, " after a reload" if needed else "")


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
    if lab.step.mpm == "event":
        wait.until(lambda: max(len(procfs.descriptors(child)) for child in lab.server.children) <= lab.descriptors,
                   lambda: f"no more than {lab.descriptors} descriptors: {lab.server.children}")  # fmt: skip
    lab.server.stop()
    assert lab.server.stopped_in < wait.scaled(5)


def of_parent(lab, name, fault):
    """httpd's parent ends, and nothing of the server is left."""
    reload(lab)
    process = lab.server._process
    process.wait(wait.scaled(20))
    wait.until(lambda: not lab.site.drains(), "drain processes end with the server", 20)
    if fault == "kill":
        for child in procfs_orphans(lab):
            os.kill(child, signal.SIGKILL)
    assert all(has_ended(talk) for group in lab.groups.values() for talk in group)
    numbers = said(lab.server.log)
    lab.server.log.open_span()
    lab.server._process = None
    write(name, fault, "the server", numbers, "")


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


#: Calls that are refused, each time in a process of httpd's, while a tunnel is opened or many bytes go through it; and
#: while a child ends and leaves its tunnels to a drain process.
REFUSED = {
    # Without fcntl httpd itself cannot serve.
    "open": ["epoll_ctl:ENOMEM", "mmap:ENOMEM", "eventfd2:EMFILE", "pipe2:EMFILE", "splice:ENOMEM"],
    "reload": ["clone:EAGAIN", "clone3:EAGAIN", "eventfd2:EMFILE", "pidfd_open:EMFILE", "epoll_create1:EMFILE",
               "epoll_ctl:ENOMEM", "mmap:ENOMEM", "signalfd4:EMFILE", "fcntl:ENOMEM", "close_range:EPERM"],
}  # fmt: skip


#: Those that are refused in every run of the suite, too: once they ended a tunnel.
ALWAYS = ["splice:ENOMEM"]


def refused(pid, call, error):
    """Has every such call refused in a process, in all its threads and in what it forks."""
    return strace.attached(pid, "-f", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:error={error}")


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("strace"), reason="there is no strace")
@pytest.mark.timeout(240)
@pytest.mark.parametrize("act, refusal", [(act, one) for act, calls in REFUSED.items() for one in calls
                                          if OUTCOMES or one in ALWAYS])  # fmt: skip
def test_a_refused_call(site, client, certificate, scratch, act, refusal):
    """The kernel has none of what the module asks for: tunnels of other processes go on, none hangs, and later all works."""
    call, error = refusal.split(":")
    step = Step(act)
    lab = Lab(site, client, certificate, scratch, step)
    lab.server.log.open_span()
    [child] = lab.server.children
    victim, said_of_victim = None, None
    with refused(child, call, error):
        if act == "open":
            victim = lab._client(lab.site.plain, timeout=PATIENCE)
            victim.send(http.handshake("/victim"))
            said_of_victim = outcome_of(victim)
            if said_of_victim == "goes on":
                victim.echoes(os.urandom(1 << 20))
        else:
            lab.reload()
        lost = settled(lambda: sum(not lives(talk) for talk in lab.groups["here"]))
        if act == "reload":
            wait.until(lambda: not os.path.exists(f"/proc/{child}") or lost < 3, "the child leaves its tunnels", 40)
    lost = settled(lambda: sum(not lives(talk) for talk in lab.groups["here"]))
    assert all(map(lives, lab.groups["there"])), "a tunnel of another process is lost"
    if serves(lab):
        raise AssertionError("no tunnel is relayed afterwards")
    left_nothing(lab, [*lab.groups["here"], *lab.groups["there"], *([victim] if victim else [])])
    numbers = [one for one in said(lab.server.log) if one != "WSF0108"]
    check_log(lab, call, error)
    assert said_of_victim == "goes on" or call == "epoll_ctl" or act == "reload"
    mine = {None: "", "goes on": "", "lost": "its own tunnel, "}[said_of_victim]
    write(f"{act}: {call}", error, f"{mine}{lost} of its process" if mine or lost else "nothing", numbers, "")
