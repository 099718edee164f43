"""A server that goes by and by: when tunnels end that have to, and who waits for them."""

import os
import signal
import struct
import threading
import time
from pathlib import Path

import pytest

from harness import herd, http, procfs, steps, strace, wait
from harness.draining import opened, site  # noqa: F401
from harness.herd import Herd

MPMS = ["event", "worker", "prefork"]
#: Tunnels of a test; prefork has a process for each connection being accepted.
COUNT = {"event": 300, "worker": 300, "prefork": 60}
#: Seconds over which they end.
SPREAD = 2
#: More than this many seconds are no moment.
MOMENT = 1.0


@pytest.fixture
def many():
    """A back end of many quiet tunnels, and their clients."""
    one = Herd()
    yield one
    one.close()


def quiet(site, many, mpm, more, count=None):
    """A server with so many tunnels, and what becomes of them."""
    one = site(mpm, f"LogLevel wsforward:info\n{more}", origin=many)
    return one, relayed(one, many, count or COUNT[mpm])


def relayed(one, many, count, before=0):
    """So many tunnels more, all with the relay."""
    # A burst of handshakes may find all workers busy, for a moment.
    one.server.expect_log("AH00484|AH10159|AH00161|AH00287", certain=False)
    closed = many.open(one.plain, count)
    wait.until(lambda: one.count("Tunnels") == before + count, "all are relayed", 30)
    return closed


def drained(one, count):
    """Waits until as many drain processes have all tunnels."""
    wait.until(lambda: len(one.drains()) >= count, lambda: f"{count} drain processes, {one.drains()}")
    wait.until(lambda: "G" not in one.server.status()["Scoreboard"], "no child is ending")


def assert_spread(closed, spread, earliest, latest, code=1001):
    """Each got a Close with the code, within those instants, and they are spread over so many seconds."""
    assert {one.code for one in closed} == {code}
    first, last = min(one.at for one in closed), max(one.at for one in closed)
    counts = herd.by_part(closed, first, last, 4)
    print(f"{len(closed)} Close frames in {last - first:.2f} s of {spread}: {counts}; the first {first - earliest:.2f} s"
          f" after the earliest instant, the last {latest - last:.2f} s before the latest")  # fmt: skip
    assert earliest - 0.2 <= first and last <= latest + wait.scaled(0.4)
    assert 0.8 * spread < last - first < spread + wait.scaled(0.4)
    # A machine that is busy may hold some back.
    assert min(counts) > len(closed) / 4 * 0.6, counts


def lives(one):
    """Whether httpd's parent is there."""
    return one.server._process.poll() is None


def ended(one, closed):
    """The server ends with its last tunnel, every tunnel has its line, and nothing is left."""
    last = max(tunnel.over for tunnel in closed)
    wait.until(lambda: not lives(one), "the parent has ended")
    assert time.monotonic() - last < wait.scaled(MOMENT)
    assert not one.drains()
    assert len(one.server.log.matching("WSF0202")) == len(closed)
    one.server.stop()


@pytest.mark.slow
@pytest.mark.parametrize("mpm", MPMS)
def test_tunnels_end_spread_at_the_drain_timeout(site, many, mpm):
    """Over its last part: none is left when it is over."""
    one, closed = quiet(site, many, mpm, f"WSForwardDrainTimeout 4\nWSForwardCloseSpread {SPREAD}\nWSForwardCloseCode 1012")
    began = time.monotonic()
    one.server.reload()
    drained(one, 1)
    forked = time.monotonic()
    many.ends(closed, 15)
    # The timeout begins with the fork, some time after the signal.
    assert_spread(closed, SPREAD, began + 4 - SPREAD, forked + 4, 1012)
    wait.until(lambda: not one.drains(), "a drain process ends with its last tunnel", MOMENT)
    one.server.log.wait_for("WSF0202.*by the server: drain-timeout", len(closed))


@pytest.mark.slow
@pytest.mark.parametrize("mpm", ["event", "worker"])
def test_tunnels_of_an_evicted_process_end_spread(site, many, mpm):
    """How many processes there are of prefork's is a matter of chance."""
    one, oldest = quiet(site, many, mpm, f"WSForwardMaxDrainProcesses 1\nWSForwardCloseSpread {SPREAD}")
    one.server.reload()
    drained(one, 1)
    [first] = one.drains()
    later = relayed(one, many, 20, len(oldest))
    one.server.log.expect("WSF0301.*tunnels of the 1 oldest")
    began = time.monotonic()
    one.server.reload()
    one.server.log.wait_for("WSF0301")
    evicted = time.monotonic()
    # While it ends, it does not count: nobody is evicted in its place.
    drained(one, 2)
    many.ends(oldest)
    assert_spread(oldest, SPREAD, began, evicted + SPREAD)
    wait.until(lambda: first not in one.drains(), "a drain process ends with its last tunnel", MOMENT)
    assert one.drains() and all(tunnel.at is None for tunnel in later)


def test_processes_that_end_spread_are_bounded(site, many):
    """Beyond the limit and one in four, the oldest ends at once."""
    one, oldest = quiet(site, many, "event", "WSForwardMaxDrainProcesses 1\nWSForwardCloseSpread 60", 20)
    one.server.log.expect("WSF0301")
    for _ in range(3):
        # Of a single one the spread may be over at once.
        relayed(one, many, 3, one.count("Tunnels"))
        one.server.reload()
        drained(one, 1)
    many.ends(oldest)
    assert {tunnel.code for tunnel in oldest} == {1001}
    wait.until(lambda: len(one.drains()) == 2, one.drains)


def slow_relay(drain, milliseconds=5):
    """With this the relay of a process takes four times as long for the end of a tunnel, as if there were very many."""
    slow = ("-o", "/dev/null", "-e", "trace=sendto,close", "-e", f"inject=sendto,close:delay_enter={milliseconds * 1000}")
    return strace.attached(procfs.thread(drain, "relay-0"), *slow)


@pytest.mark.timeout(200)
@pytest.mark.parametrize("why", ["drain-timeout", "stopped"])
def test_a_process_is_there_until_its_last_tunnel_has_ended(site, many, why):
    """However many there are: each gets its Close and has its line, at WSForwardDrainTimeout and where processes are too many."""
    more = {"drain-timeout": "WSForwardDrainTimeout 3", "stopped": "WSForwardMaxDrainProcesses 1"}[why]
    one, closed = quiet(site, many, "event", f"{more}\nWSForwardCloseSpread 0", 200)
    one.server.log.expect("WSF0301", certain=False)
    one.server.reload()
    drained(one, 1)
    [drain] = one.drains()
    # Their peers have longer to answer at the timeout.
    with slow_relay(drain, 15 if why == "drain-timeout" else 5):
        if why == "stopped":
            relayed(one, many, 5, len(closed))
            one.server.reload()
        many.ends(closed, 100)
        wait.until(lambda: drain not in one.drains(), "a process ends with its last tunnel")
    assert {tunnel.code for tunnel in closed} == {1001}
    one.server.log.wait_for(f"WSF0202.*by the server: {why}", len(closed))
    assert not one.server.log.matching("WSF0310")


@pytest.mark.timeout(200)
def test_a_stop_that_ends_before_its_last_tunnel_says_so(site, many):
    """The parent waits for a second, and no longer. Tunnels get their Close from a process that it leaves behind."""
    one, closed = quiet(site, many, "event", "", 200)
    one.server.reload()
    drained(one, 1)
    [drain] = one.drains()
    one.server.log.expect(r"WSF0482: the server no longer waits for 1 processes that end \d+ tunnels")
    with slow_relay(drain):
        one.server.send_signal(signal.SIGTERM)
        wait.until(lambda: not lives(one), "the parent has ended")
        many.ends(closed, 100)
        wait.until(lambda: not one.drains(), "a process ends with its last tunnel")
    assert {tunnel.code for tunnel in closed} == {1001}
    [line] = one.server.log.matching("WSF0482")
    left = int(line.split(b" that end ")[1].split()[0])
    # One may be counted as ended, and have no line yet.
    assert len(one.server.log.matching("WSF0202")) + left >= len(closed) - 1
    one.server.stop()


@pytest.mark.slow
@pytest.mark.parametrize("mpm", MPMS)
def test_graceful_stop_ends_tunnels_of_all_generations_spread(site, many, mpm):
    """Within its timeout; the parent stays for as long as there are tunnels."""
    timeout = 6
    more = f"GracefulShutdownTimeout {timeout}\nWSForwardCloseSpread 3\nWSForwardCloseCode 1012"
    one, closed = quiet(site, many, mpm, more, COUNT[mpm] // 3)
    for generation in (1, 2):
        one.server.reload()
        drained(one, generation)
        closed += relayed(one, many, COUNT[mpm] // 3, len(closed))
    began = time.monotonic()
    one.server.send_signal(signal.SIGWINCH)
    one.server.log.wait_for(r"WSF0480: graceful stop: \d+ processes carry tunnels on, for at most [345] s")
    assert lives(one) and all(tunnel.at is None for tunnel in closed)
    many.ends(closed, 15)
    # A second is left for their peers, and for processes to end.
    assert_spread(closed, 3, began + timeout - 1 - 3, began + timeout - 1, 1012)
    ended(one, closed)
    assert not one.server.log.matching("WSF0481")
    assert len(one.server.log.matching("WSF0202.*by the server: stopped")) == len(closed)


@pytest.mark.parametrize("mpm", MPMS)
def test_graceful_stop_without_a_timeout_waits_for_tunnels(site, client, certificate, mpm):
    """Until they end by themselves; the last one's end is the server's."""
    one = site(mpm, "GracefulShutdownTimeout 0")
    tunnels = opened(client, certificate, one, 4)
    one.server.reload()
    tunnels += [client(one.plain) for _ in range(2)]
    for talk in tunnels[4:]:
        assert talk.ask(http.handshake()).status == 101
        talk.echoes()
    wait.until(lambda: one.count("Tunnels") == 6, "all are relayed")
    one.server.send_signal(signal.SIGWINCH)
    one.server.log.wait_for(r"WSF0480: graceful stop: \d+ processes carry tunnels on, until these end")
    while tunnels:
        for talk in tunnels:
            talk.echoes()
        assert lives(one)
        tunnels.pop().close()
    closed = time.monotonic()
    wait.until(lambda: not lives(one), "the parent has ended")
    assert time.monotonic() - closed < wait.scaled(MOMENT)
    assert not one.drains()
    assert len(one.server.log.matching("WSF0202.*by the client")) == 6
    one.server.stop()


@pytest.mark.parametrize("after", ["at once", "while children end", "while tunnels live"])
@pytest.mark.parametrize("mpm", MPMS)
def test_a_graceful_stop_that_is_not_waited_for(site, many, mpm, after):
    """SIGTERM after SIGWINCH is a stop, as from systemd: no spread, and quick."""
    more = "GracefulShutdownTimeout 0\nWSForwardCloseSpread 60\nWSForwardCloseCode 1012"
    one, closed = quiet(site, many, mpm, more, 20)
    one.server.reload()
    drained(one, 1)
    closed += relayed(one, many, 20, 20)
    # A child that httpd stops twice, and signals while it ends.
    one.server.expect_log("AH0004[56]", certain=False)
    one.server.send_signal(signal.SIGWINCH)
    if after == "while children end":
        one.server.log.wait_for("AH00492|AH00170|AH00290|shutting down gracefully")
    elif after == "while tunnels live":
        one.server.log.wait_for("WSF0480")
    began = time.monotonic()
    one.server.send_signal(signal.SIGTERM)
    many.ends(closed)
    assert max(tunnel.over for tunnel in closed) - began < wait.scaled(3)
    assert {tunnel.code for tunnel in closed} == {1012}
    wait.until(lambda: not lives(one), "the parent has ended")
    assert time.monotonic() - began < wait.scaled(4)
    assert not one.drains()
    assert bool(one.server.log.matching("WSF0481.*asked to stop at once")) == (after == "while tunnels live")
    one.server.stop()


@pytest.mark.parametrize("mpm", MPMS)
def test_graceful_stop_without_a_timeout_ends_with_the_drain_timeout(site, many, mpm):
    one, closed = quiet(site, many, mpm, "GracefulShutdownTimeout 0\nWSForwardDrainTimeout 3", 20)
    one.server.send_signal(signal.SIGWINCH)
    one.server.log.wait_for("WSF0480")
    assert lives(one) and all(tunnel.at is None for tunnel in closed)
    many.ends(closed)
    assert {tunnel.code for tunnel in closed} == {1001}
    ended(one, closed)
    assert len(one.server.log.matching("WSF0202.*by the server: drain-timeout")) == len(closed)


def test_graceful_stop_with_a_process_of_another_build(site, many):
    """It does not know when tunnels end, and is told when the time is over."""
    one, closed = quiet(site, many, "event", "GracefulShutdownTimeout 4\nWSForwardCloseSpread 2", 20)
    one.server.reload()
    drained(one, 1)
    memory = procfs.SharedMemory(one.server.pid, procfs.SharedMemory.REGISTRY)
    [pid] = one.drains()
    assert memory.read(8, 8) == struct.pack("=II", pid, pid)
    memory.write(8 + 4, bytes(4))
    began = time.monotonic()
    one.server.send_signal(signal.SIGWINCH)
    one.server.log.wait_for("WSF0481.*their time is over")
    many.ends(closed)
    assert min(tunnel.at for tunnel in closed) - began > 3.5
    ended(one, closed)


@pytest.mark.parametrize("mpm", ["event", "worker"])
def test_a_graceful_stop_that_httpd_forgets(site, backend, client, mpm):
    """It is asked for while httpd restarts, and waits for a child: httpd serves on, and tunnels live on."""
    release = threading.Event()
    held = backend(name="held")
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n"
    held.script = [head, steps.wait_for(release), steps.close]
    location = f'<Location "/held">\nProxyPass "{held.url("http")}"\n</Location>'
    one = site(mpm, "ServerLimit 8\nStartServers 1\nGracefulShutdownTimeout 2\nWSForwardCloseSpread 0", location)
    # What the end does to the request that is held.
    one.server.expect_log("AH0(004[56]|1102|1110|1113|2611|0898|1097|1084|1086|0574)|proxy|core:error", certain=False)
    talk = client(one.plain)
    talk.send(http.request("/held"))
    talk.read_until(b"data: 1\n\n")
    said = len(one.server.log.matching("resuming normal operations"))
    memory = procfs.SharedMemory(one.server.pid, procfs.SharedMemory.REGISTRY)
    child = one.server.serving(talk)
    threads = procfs.threads(child)
    one.server.send_signal(signal.SIGHUP)
    wait.until(lambda: procfs.threads(child) < threads, "the child ends")
    one.server.send_signal(signal.SIGWINCH)
    wait.until(lambda: memory.read(0, 8) != bytes(8), "the parent has heard it")
    # From when on and until when, in eighths of a second: see shared/registry.rs.
    until = struct.unpack("=II", memory.read(0, 8))[0] / 8
    release.set()
    wait.until(lambda: len(one.server.log.matching("resuming normal operations")) > said, "it has restarted", 20)
    wait.until(one.server.status, "it serves on")
    wait.until(lambda: time.monotonic() > until, "the time of that stop is over")
    tunnel = client(one.plain)
    assert tunnel.ask(http.handshake()).status == 101
    tunnel.echoes()
    wait.until(lambda: one.count("Tunnels") == 1, "it is relayed")
    one.server.reload()
    drained(one, 1)
    [drain] = one.drains()
    # It has looked around, and waits.
    wait.until(lambda: procfs.asleep(drain), "it waits")
    tunnel.echoes()
    # The next one is none that is forgotten.
    one.server.send_signal(signal.SIGWINCH)
    one.server.log.wait_for("WSF0480.*for at most [012] s")
    frame = tunnel.read_frame()
    assert frame.payload[:2] == (1001).to_bytes(2)
    tunnel.close()
    wait.until(lambda: not lives(one), "the parent has ended")
    one.server.stop()


@pytest.mark.slow
@pytest.mark.parametrize("mpm", MPMS)
def test_logs_that_are_piped_to_programs_have_the_lines_of_a_graceful_stop(site, many, mpm):
    """httpd ends those programs by SIGTERM, also with lines unread in their pipes. These take no notice of it, and end with them."""
    def piped(server):
        files = [server.directory / name for name in ("piped-access.log", "piped-error.log")]
        return f"""GracefulShutdownTimeout 3
WSForwardCloseSpread 1
LogLevel wsforward:info
CustomLog "|$exec env --ignore-signal=TERM cat >>{files[0]}" "%s %{{reason}}^WS"
ErrorLog "|$exec env --ignore-signal=TERM tee -a {files[1]}"
"""

    one = site(mpm, piped, origin=many)
    closed = relayed(one, many, 20)
    one.server.send_signal(signal.SIGWINCH)
    many.ends(closed)
    wait.until(lambda: not lives(one), "the parent has ended")
    for name, line in ("piped-access.log", "101 stopped\n"), ("piped-error.log", "by the server: stopped"):
        log = one.server.directory / name
        wait.until(lambda: log.read_text().count(line) == 20, lambda: f"a line of each tunnel: {log.read_text()}")
    one.server.stop()


@pytest.mark.slow
@pytest.mark.parametrize("mpm", ["event", "worker"])
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGWINCH], ids=["stop", "graceful-stop"])
def test_a_log_that_stands_still_holds_up_no_stop(site, many, mpm, how):
    """It is piped to a program that reads no more; the lines do not fit its pipe."""
    more = 'ErrorLog "|$exec cat"\nLogLevel wsforward:info\nGracefulShutdownTimeout 2'
    one = site(mpm, more, origin=many)
    closed = relayed(one, many, 600)
    one.server.reload()
    drained(one, 1)
    commands = {pid: Path(f"/proc/{pid}/comm").read_text() for pid in procfs.children(one.server.pid)}
    programs = [pid for pid, command in commands.items() if command == "cat\n"]
    assert programs
    for pid in programs:
        os.kill(pid, signal.SIGSTOP)
    try:
        one.server.send_signal(how)
        many.ends(closed)
        wait.until(lambda: not lives(one), "the parent has ended")
    finally:
        for pid in programs:
            os.kill(pid, signal.SIGKILL)
    one.server.stop()


@pytest.mark.slow
@pytest.mark.parametrize("mpm", ["event", "worker"])
def test_tunnels_of_a_child_that_has_work_end_with_the_others(site, many, backend, client, mpm):
    """A child waits for its threads, and carries its tunnels meanwhile."""
    release = threading.Event()
    held = backend(name="held")
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n"
    held.script = [head, steps.wait_for(release), steps.close]
    location = f'<Location "/held">\nProxyPass "{held.url("http")}"\n</Location>'
    more = "ServerLimit 8\nStartServers 1\nLogLevel wsforward:info\nGracefulShutdownTimeout 5\nWSForwardCloseSpread 2"
    one = site(mpm, more, location, origin=many)
    closed = relayed(one, many, 60)
    talk = client(one.plain)
    talk.send(http.request("/held"))
    talk.read_until(b"data: 1\n\n")
    began = time.monotonic()
    one.server.send_signal(signal.SIGWINCH)
    many.ends(closed, 15)
    assert_spread(closed, 2, began + 5 - 1 - 2, began + 5 - 1)
    assert one.server.children and lives(one)
    release.set()
    wait.until(lambda: not lives(one), "the parent has ended")
    assert len(one.server.log.matching("WSF0202")) == len(closed)
    one.server.stop()


@pytest.mark.skipif(os.environ.get("WSF_STRESS") != "long", reason="takes a minute: WSF_STRESS=long")
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", ["drain timeout", "graceful stop"])
def test_five_thousand_tunnels_over_half_a_minute(site, many, how):
    """As many in each second, within 20 %."""
    seconds = 30
    more = {"drain timeout": f"WSForwardDrainTimeout {seconds}", "graceful stop": f"GracefulShutdownTimeout {seconds + 2}"}
    one, closed = quiet(site, many, "event", f"{more[how]}\nWSForwardCloseSpread {seconds}", 5000 if how == "drain timeout" else 2500)
    one.server.reload()
    drained(one, 1)
    if how == "graceful stop":
        # Of two generations.
        closed += relayed(one, many, 2500, 2500)
        one.server.send_signal(signal.SIGWINCH)
    many.ends(closed, 60)
    first, last = min(tunnel.at for tunnel in closed), max(tunnel.at for tunnel in closed)
    counts = herd.by_part(closed, first, last, seconds)
    mean = len(closed) / seconds
    print(f"{how}: {len(closed)} tunnels in {last - first:.1f} s, each second {min(counts)} to {max(counts)} of {mean:.0f}: {counts}")
    assert seconds - 2 < last - first < seconds + 1
    assert all(0.8 * mean <= count <= 1.2 * mean for count in counts), counts
    if how == "graceful stop":
        ended(one, closed)
