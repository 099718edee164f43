"""Children that end one by one: how many processes their tunnels need, and what a fork meets."""

import itertools
import os
import pwd
import resource
import signal
import struct
import subprocess
import threading
import time
from pathlib import Path

import h2.exceptions
import pytest

from harness import config, http, procfs, steps, wait, websocket
from harness.draining import BY_FORK, opened, site  # noqa: F401
from harness.h2client import Http2Client
from harness.held import Held

#: A child for each connection.
ONE_EACH = "MaxConnectionsPerChild 1"


def relayed(client, one, tls=None):
    """A tunnel, plain or TLS, that echoes."""
    return becomes_tunnel(client(one.tls if tls else one.plain, tls))


def becomes_tunnel(talk):
    """This connection is a tunnel, and echoes."""
    assert talk.ask(http.handshake()).status == 101
    return talk.echoes()


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_children_of_prefork_share_a_process(site, client):
    """200 children, each with a tunnel of its own, leave one process, or two that raced at the start."""
    one = site("prefork", ONE_EACH)
    tunnels = []
    for _ in range(200):
        tunnels.append(relayed(client, one))
        assert len(one.drains()) <= 2
    wait.until(lambda: one.count("Tunnels") == 200, "every tunnel is counted")
    for talk in tunnels:
        talk.echoes(os.urandom(1000))
        talk.close()
    wait.until(lambda: not one.drains(), "drain processes end with their tunnels")
    wait.until(lambda: one.count("Tunnels") == 0, "no tunnel is counted")
    # 5 bytes and 1000 with their heads and masking keys (RFC 6455 5.2), and nothing twice.
    one.server.log.wait_for("WSF0202.*by the client: closed, 1019 bytes up, 1011 bytes down", 200)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_collecting_process_comes_and_goes(site, client):
    """No tunnel is lost when the process that collects ends just then."""
    one = site("prefork", ONE_EACH)
    errors = []

    def live():
        try:
            for _ in range(60):
                relayed(client, one).echoes().close()
        except Exception as error:  # whatever it is, the test shows it
            errors.append(error)

    threads = [threading.Thread(target=live) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    one.server.log.wait_for("WSF0202.*: closed", 240)
    assert len(one.server.log.matching("WSF0202")) == 240
    wait.until(lambda: not one.drains(), "drain processes end with their tunnels")


def test_generations_are_not_mixed(site, client):
    """Tunnels of a later configuration get a process of their own, with that one's code and settings."""
    one = site("prefork")
    older = [relayed(client, one) for _ in range(8)]
    one.server.reload()
    wait.until(lambda: len(one.drains()) == 1, one.drains)
    later = [relayed(client, one) for _ in range(8)]
    one.server.reload()
    wait.until(lambda: len(one.drains()) == 2, one.drains)
    for talk in older + later:
        talk.echoes()


def test_a_collected_tunnel_of_another_protocol_is_no_websocket(site, client):
    """Rules about frames are not for it, in whatever process it is carried."""
    rules = "WSForwardProtocols websocket my/1\nWSForwardStrict On\nWSForwardMaxMessage 10 10"
    one = site("prefork", ONE_EACH, rules, parameters="upgrade=ANY")
    relayed(client, one)
    [collector] = wait.until(one.drains, "a process collects")
    one.origin.answers(steps.switch(upgrade="my/1", without=["Sec-WebSocket-Accept"]), steps.echo, steps.close)
    talk = client(one.plain)
    assert talk.ask(http.handshake(upgrade="my/1", without=["Sec-WebSocket-Key"])).status == 101
    wait.until(lambda: len(procfs.connections(collector)) == 2 * 2, "it has both tunnels")
    # As a frame this would be nonsense.
    talk.send(b"\xff" * 100)
    assert talk.read_exactly(100) == b"\xff" * 100
    talk.half_close()
    assert talk.end() == "eof"


@pytest.mark.slow
def test_limit_by_client_counts_collected_tunnels(site, client):
    one = site("prefork", f"{ONE_EACH}\nWSForwardMaxTunnelsPerClient 5")
    tunnels = [relayed(client, one) for _ in range(5)]
    one.server.log.expect("WSF0108")
    with client(one.plain) as talk:
        assert talk.ask(http.handshake()).status == 503
    tunnels.pop().close()
    one.server.log.wait_for("WSF0202")
    tunnels.append(relayed(client, one))
    # The process that collects is killed: with it go its tunnels, and their count. One that was
    # still on its way would live on.
    [pid] = one.drains()
    wait.until(lambda: len(procfs.connections(pid)) == 2 * 5, "it has all tunnels")
    one.server.expect_log(f"WSF0310: process {pid} is gone, and with it 5 relayed tunnels that it did not end")
    os.kill(pid, signal.SIGKILL)
    wait.until(lambda: one.count("Tunnels") == 0, "nothing is counted")
    for _ in range(5):
        tunnels.append(relayed(client, one))


def on_its_way(client, one):
    """A process that collects and stands still, and a tunnel whose child has sent it there and is gone."""
    relayed(client, one)
    [collector] = wait.until(one.drains, "a process collects")
    os.kill(collector, signal.SIGSTOP)
    handed = len(one.server.log.matching("WSF0200"))
    waiting = client(one.plain)
    assert waiting.ask(http.handshake()).status == 101
    line = one.server.log.wait_for("WSF0200", handed + 1)[-1]
    child = int(line.split(b"[pid ")[1].split(b":")[0].split(b"]")[0])
    wait.until(lambda: child not in one.server.children, "its child has ended")
    return collector, waiting


def test_limit_by_client_counts_a_tunnel_whose_collector_was_killed(site, client):
    """It waited in the queue, counted for the process that was to take it; who finds that gone takes it in,
    and counts it anew."""
    one = site("prefork", f"{ONE_EACH}\nWSForwardMaxTunnelsPerClient 2")
    collector, waiting = on_its_way(client, one)
    assert one.drains() == [collector]
    one.server.expect_log(f"WSF0310: process {collector} is gone")
    os.kill(collector, signal.SIGKILL)
    # Whoever looks takes back what was counted for it. No other child ends meanwhile that could collect.
    wait.until(lambda: one.count("Tunnels") == 1 and one.server.log.matching("WSF0310"), "it is found gone")
    waiting.echoes()
    relayed(client, one)
    wait.until(lambda: one.count("Tunnels") == 2, "both are counted")
    one.server.log.expect("WSF0108.*WSForwardMaxTunnelsPerClient 2 is reached")
    with client(one.plain) as talk:
        assert talk.ask(http.handshake()).status == 503
    # And its place is free when it ends.
    waiting.close()
    wait.until(lambda: one.count("Tunnels") == 1, "it has ended")
    relayed(client, one)


def test_a_tunnel_on_its_way_while_another_build_takes_the_role_over(site, client):
    """What that one takes in may come through another queue: nobody but the old process looks into this one."""
    one = site("prefork", ONE_EACH)
    collector, waiting = on_its_way(client, one)
    # Who collects: see shared/slots.rs and shared/collector.rs. httpd's parent lives, and does not.
    memory = procfs.SharedMemory(one.server.pid)
    generation, pid = struct.unpack("=II", memory.read(8, 8))
    assert pid == collector
    memory.write(8, struct.pack("=II", generation + 1, one.server.pid))
    os.kill(collector, signal.SIGCONT)
    waiting.echoes()


def test_a_tunnel_that_a_queue_lost_is_counted_no_more(site, client):
    """The process that is to take it has no descriptor left for it, and goes on."""
    one = site("prefork", f"{ONE_EACH}\nWSForwardMaxTunnelsPerClient 2")
    relayed(client, one)
    [collector] = wait.until(one.drains, "a process collects")
    status = dict(line.split(":\t") for line in Path(f"/proc/{collector}/status").read_text().splitlines() if ":\t" in line)
    user, group = (int(status[kind].split()[0]) for kind in ("Uid", "Gid"))

    def allow(descriptors):
        # As its own user: root need not be allowed to.
        subprocess.run(["prlimit", f"--pid={collector}", f"--nofile={descriptors}:"], user=user, group=group, check=True)

    taken = {int(name) for name in os.listdir(f"/proc/{collector}/fd")}
    free = next(number for number in itertools.count() if number not in taken)
    allow(free)
    one.server.expect_log(r"WSF0203: tunnel \[.*\] 127.0.0.1:\d+ -> .* lost: no room for its descriptors")
    with client(one.plain) as lost:
        assert lost.ask(http.handshake()).status == 101
        one.server.log.wait_for("WSF0203")
        assert lost.read_to_end() == b""
    allow(1024)
    assert one.drains() == [collector]
    wait.until(lambda: one.count("Tunnels") == 1, "it is no tunnel any more")
    # Its place is another's.
    relayed(client, one)
    wait.until(lambda: one.count("Tunnels") == 2, "both are counted")


SHRINK = {
    "event": "StartServers 5\nThreadsPerChild 8\nMinSpareThreads 1\nMaxSpareThreads 9",
    "worker": "StartServers 5\nThreadsPerChild 8\nMinSpareThreads 1\nMaxSpareThreads 9",
    "prefork": "StartServers 8\nMinSpareServers 1\nMaxSpareServers 2",
}


@pytest.mark.slow
@pytest.mark.parametrize("mpm", SHRINK)
def test_idle_children_go_and_their_tunnels_stay(site, client, certificate, mpm):
    """MaxSpareThreads, MaxSpareServers."""
    # They go from the first second on. On a machine that takes longer to open tunnels some may be gone
    # before any came to them: another try.
    def begun():
        one = site(mpm, SHRINK[mpm])
        before = set(one.server.children)
        tunnels = opened(client, certificate, one, 40)
        return before <= set(one.server.children) and (one, before, tunnels)
    one, before, tunnels = wait.until(begun, "tunnels are open before a child goes", 60)
    most = 2 if mpm != "prefork" else 4
    wait.until(lambda: len(one.server.children) <= most, lambda: one.server.children, 40)
    wait.until(lambda: one.drains(), "tunnels of an idle child go on")
    assert set(one.drains()).isdisjoint(before)
    for talk in tunnels:
        talk.echoes(os.urandom(3000))
    assert one.count("Tunnels") == 40


#: Children that serve few connections.
FORKS = {
    # An HTTP/2 connection keeps its child, and its slot, after that has served its two.
    "event": "ServerLimit 64\nThreadsPerChild 4\nMinSpareThreads 40\nMaxSpareThreads 64\nMaxConnectionsPerChild 2",
    "prefork": ONE_EACH,
}


@pytest.mark.slow
@pytest.mark.timeout(420)
@pytest.mark.parametrize("mpm", FORKS)
def test_many_forks_beside_busy_modules(site, client, certificate, mpm):
    """mod_proxy_hcheck and mod_watchdog check a member, mod_http2 serves streams, and children fork."""
    if mpm == "event" and "WSF_REPORTS" in os.environ:
        pytest.skip("httpd gives up HTTP/2 connections when such a child ends: each would be reported as leaks")
    limits = FORKS[mpm]
    # mod_proxy_hcheck is to be loaded after mod_proxy.
    load = "\n".join(config.load(name) for name in ("watchdog", "proxy_hcheck"))
    members = "\n".join(f"BalancerMember http://localhost:1/{number} hcmethod=TCP hcinterval=100ms" for number in range(4))
    more = f"{load}\n{limits}\n{BY_FORK}\nWSForwardMaxDrainProcesses 1024\nProxyHCTPsize 8\nLogLevel watchdog:debug"
    protocols = "Protocols h2 http/1.1\n" if mpm == "event" else ""

    def checked(server):
        # Nothing listens there: the checks say so, maybe before httpd answers. On prefork all checks may end
        # with the first child, as that takes the lock along; each child has the thread for it all the same.
        server.log.expect("proxy_hcheck|AH0095[79]|AH0111[24]|AH0116[78]", certain=mpm == "event")
        return more

    one = site(mpm, checked, f"{protocols}<Proxy balancer://checked>\n{members}\n</Proxy>", extra=["http2"] if mpm == "event" else [])
    # One that has served what it may before its main thread waits misses its own signal, and takes the
    # word of another from the pipe at httpd's end (event.c, child_main): with or without the module.
    one.server.log.expect("AH0004[56]", certain=False)
    tls = certificate.client_context("tls1.2")
    done = threading.Event()
    pages, errors = [], []

    def few_pages():
        return mpm == "event" and len(pages) <= 20

    def ask():
        context = certificate.client_context("tls1.3")
        context.set_alpn_protocols(["h2"])
        while not done.is_set():
            try:
                with Http2Client(one.tls, context) as streams:
                    # A child that missed its signal has no threads left, and its connections stand still.
                    streams.sock.settimeout(5)
                    for _ in range(10):
                        pages.append(streams.request("/page").status)
            except (OSError, EOFError, h2.exceptions.ProtocolError):
                # Its child has served what it may.
                continue
            except Exception as error:
                errors.append(error)
                return

    busy = threading.Thread(target=ask)
    if mpm == "event":
        busy.start()
    living, drains, count, unlucky = [], set(), 0, 0
    try:
        # TLS tunnels cannot be collected: each child that has one forks for it.
        while (len(drains) < 200 or few_pages()) and count < 1000:
            try:
                talk = client(one.tls, tls)
            except ConnectionResetError:
                # As above: within its handshake with TLS.
                unlucky += 1
                assert unlucky < 10
                continue
            living.append(becomes_tunnel(talk))
            count += 1
            drains |= set(one.drains())
            if len(living) > 24:
                living.pop(0).echoes(os.urandom(2000)).close()
    finally:
        done.set()
        if mpm == "event":
            busy.join()
    for talk in living:
        talk.echoes().close()
    assert not errors, errors
    assert len(drains) >= 200, f"{len(drains)} forks for {count} tunnels"
    assert not few_pages(), f"{len(pages)} pages"
    assert len(one.server.log.matching("AH02981")) >= 50
    one.server.log.wait_for("WSF0202.*: (closed|truncated)", count)
    wait.until(lambda: not one.drains(), "no process hangs")


@pytest.fixture
def crowded():
    """A user whose processes are ours alone, and a function that gives it 80 processes."""
    if os.geteuid() != 0:
        pytest.skip("needs to be root")
    busy = {owner(process) for process in Path("/proc").glob("[0-9]*")}
    user = next((user for user in pwd.getpwall() if 0 < user.pw_uid < 1000 and user.pw_uid not in busy), None)
    if not user:
        pytest.skip("needs a user without processes")
    made = []

    def fill():
        command = "for each in $(seq 80); do sleep 60 & done; echo; wait"
        made.append(subprocess.Popen(["/bin/sh", "-c", command], stdout=subprocess.PIPE, user=user.pw_uid,
                                     start_new_session=True))  # fmt: skip
        made[-1].stdout.readline()

    yield user.pw_name, fill
    for process in made:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def owner(process):
    try:
        return process.stat().st_uid
    except OSError:
        return 0


@pytest.mark.slow
def test_no_process_can_be_forked(site, client, certificate, crowded):
    """Tunnels go on in their child for the bounded time, end in an orderly way, and the log says why."""
    user, fill = crowded
    before = resource.getrlimit(resource.RLIMIT_NPROC)
    # Does not count for root, which the parent is, but for its children.
    resource.setrlimit(resource.RLIMIT_NPROC, (60, before[1]))
    try:
        one = site("prefork", f"User {user}\nStartServers 2\nMaxSpareServers 2\nWSForwardDrainTimeout 3s")
    finally:
        resource.setrlimit(resource.RLIMIT_NPROC, before)
    tunnels = opened(client, certificate, one, 6)
    fill()
    for message in ("WSF0300: no drain process for [1-6] tunnels, they end here after 3s", "WSF0204"):
        one.server.log.expect(message)
    one.server.reload()
    one.server.log.wait_for("WSF0300")
    for talk in tunnels:
        talk.echoes(os.urandom(2000))
    for talk in tunnels:
        frame = talk.read_frame()
        assert (frame.opcode, frame.payload[:2]) == (websocket.CLOSE, (1001).to_bytes(2))
        assert talk.read_to_end() == b""
        talk.close()
    one.server.log.wait_for("WSF0202.*drain-timeout", 6)
    wait.until(lambda: "G" not in one.server.status()["Scoreboard"], "the children have ended")
    assert not one.drains()


#: What it may take until a drain process whose relay hangs has ended, in seconds.
HANG = 30


def relay_thread(pid):
    """The thread of a process that relays."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        if (task / "comm").read_text() == "relay-0\n":
            return int(task.name)
    raise AssertionError("no relay thread")


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_relay_that_hangs_ends_with_its_process(site, client):
    """The thread that relays is held where it is; the one that watches runs on."""
    one = site("event")
    relayed(client, one)
    one.server.reload()
    [pid] = wait.until(one.drains, "there is a drain process")
    one.server.expect_log(f"WSF0310: process {pid} is gone, and with it 1 relayed tunnels")
    with Held(relay_thread(pid)):
        wait.until(lambda: not one.drains(), "it has ended", 2 * HANG + 30, 1)
    wait.until(lambda: one.count("Tunnels") == 0, "its tunnel is not counted")


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_frozen_process_goes_on(site, client):
    """A container may be paused for longer than a hang may last."""
    one = site("event")
    talk = relayed(client, one)
    one.server.reload()
    [pid] = wait.until(one.drains, "there is a drain process")
    os.kill(pid, signal.SIGSTOP)
    time.sleep(HANG + 5)
    os.kill(pid, signal.SIGCONT)
    # Its alarm was due: it comes when the process runs again, not a moment later.
    for _ in range(20):
        talk.echoes(os.urandom(1000))
    assert one.drains() == [pid]
