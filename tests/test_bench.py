"""The benchmark's report: what it makes of figures, and of those it could not get."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness import paths

sys.path.append(str(Path(__file__).parents[1] / "bench" / "compare"))

import bench
import guard
import instructions
import load
import peers
import quiet
import rows
import table
import targets

SIZES = (32, 1024, 16384)


def echo_rows(**cpu_by_peer):
    """Echo on 64 tunnels: three rounds of CPU by peer, the same for all sizes."""
    return {f"echo ws 64 x {size} B: CPU s per million": dict(cpu_by_peer) for size in SIZES}


def target(results, row):
    """One row of the targets."""
    all_of_them = targets.targets(table.derived(results), 26000)
    return next(one for one in all_of_them if one["row"] == row)


def test_a_ratio_is_the_median_of_those_within_the_rounds():
    # Everything is slower in the second round.
    assert table.ratio([1, 10, 2], [2, 20, 4]) == 0.5
    assert table.ratio([1, None, 2], [2, 1, 0]) == 0.5
    assert table.ratio([None], [1]) is None


def test_growth_is_of_each_peer_round_by_round():
    results = {"held ws 0: GET p50 us": {"relay": [100, 200, None], "nginx": [100, 100, 100]},
               "held ws 9000: GET p50 us": {"relay": [110, 200, 300]}}
    found = table.growth(results)
    assert found == {"growth of plain GET p50: 9,000 held / none": {"relay": [1.1, 1.0, None]}}


def test_what_a_page_needs_for_a_tunnel_is_compared_where_it_can_be_seen():
    results = {f"held ws {level}, ?json: CPU us a tunnel": {"rules": [cpu]}
               for level, cpu in ((100, 9.0), (1000, 2.0), (20000, 2.1))}
    assert table.growth(results) == {"growth of CPU per tunnel in ?json: 20,000 held / 1,000": {"rules": [1.05]}}


def test_must_and_aim_are_judged_by_the_run():
    row = "echo CPU, ws, 64 tunnels, mean of sizes"
    results = echo_rows(relay=[30, 31, 30], apache=[100, 100, 100], nginx=[31, 32, 31],
                        haproxy=[40, 40, 40])
    judged = target(results, row)
    assert (judged["reached"], judged["aim reached"]) == (True, True)
    # Slower than nginx at one size alone.
    results["echo ws 64 x 1024 B: CPU s per million"]["nginx"] = [20, 20, 20]
    judged = target(results, row)
    assert (judged["reached"], judged["aim reached"]) == (True, False)
    assert judged["aim measured"] == "1.5 x nginx in echo ws 64 x 1024 B"
    results.update(echo_rows(relay=[50, 50, 50], apache=[100, 100, 100]))
    judged = target(results, row)
    assert (judged["reached"], judged["aim measured"]) == (False, "not measured")


@pytest.mark.parametrize("held, reached", [(19999, False), (20000, True)])
def test_the_number_of_tunnels_is_judged(held, reached):
    judged = target({"held ws: tunnels": {"relay": [held]}}, "tunnels held with 25/150 threads")
    assert (judged["reached"], judged["aim reached"]) == (reached, False)


def test_what_was_not_measured_is_not_judged():
    judged = target({}, "CPU per message, 20,000 held / 100")
    assert (judged["measured"], judged["reached"]) == ("not measured", None)


class Measurement:
    """Fails with an error on some peers."""

    name = "echo ws 1"

    def __init__(self, errors, is_once=False, tls=False):
        self.errors, self.is_once, self.tls, self.turns = errors, is_once, tls, []

    def __call__(self, peer, figures):
        self.turns.append(peer.name)
        figures[f"{self.name}: p50 us"] = 5.0
        if peer.name in self.errors:
            raise self.errors[peer.name]
        figures[f"{self.name}: p99 us"] = 7.0


def run_of(measurement, rounds=2, only_tls=()):
    """A run over three peers that only stand there."""
    kept = []
    chosen = [SimpleNamespace(name=name, is_only_tls=name in only_tls, is_up=lambda: True, stop=lambda: None)
              for name in ("apache", "relay", "nginx")]
    run = bench.Run(chosen, rounds, lambda run: kept.append(len(run.results)))
    return run, kept, lambda: run.all([measurement], [])


@pytest.mark.parametrize("error", [
    load.LoadError("a byte differs"), OSError("no | descriptors"), ValueError("not JSON"),
    RuntimeError("no answer"), subprocess.TimeoutExpired("wsload", 180)])
def test_a_failure_is_a_note_and_not_the_end(error):
    measurement = Measurement({"relay": error})
    run, kept, all_of_it = run_of(measurement)
    all_of_it()
    assert measurement.turns == ["apache", "relay", "nginx", "relay", "nginx", "apache"]
    assert kept == [2]
    assert run.failed == 2
    # What it had before it failed stays.
    assert run.results["echo ws 1: p50 us"]["relay"] == [5.0, 5.0]
    assert "relay" not in run.results["echo ws 1: p99 us"]
    text = table.document(run.results, ["apache", "relay", "nginx"], {}, run.notes, run.once, [])
    note = f"- relay, echo ws 1: failed (rounds 1, 2): {type(error).__name__}"
    assert note in text
    assert text.index("### Echo") < text.index(note)


def test_a_stop_keeps_what_there_is():
    run, _, all_of_it = run_of(Measurement({"relay": KeyboardInterrupt(15)}))
    with pytest.raises(KeyboardInterrupt):
        all_of_it()
    assert run.results["echo ws 1: p99 us"] == {"apache": [7.0, None]}


def test_rows_of_one_round_among_several_say_so():
    run, _, all_of_it = run_of(Measurement({}, is_once=True))
    all_of_it()
    text = table.document(run.results, ["apache", "relay", "nginx"], {}, [], run.once, [])
    assert "| echo ws 1: p99 us (measured once) | 7 (1.00) | 7 | 7 (1.00) |" in text


def test_a_cell_has_median_spread_and_ratio():
    assert table.cell([10, 30, 20], [5, 15, 10]) == "20 [10–30] (0.50)"
    assert table.cell([20, 20, None]) == "20"
    assert table.cell([None, None]) == "–"


def peers_with(monkeypatch, tmp_path, **before):
    monkeypatch.setattr(peers.subprocess, "run", lambda *_, **__: None)
    for name in ("certificate.pem", "key.pem"):
        (tmp_path / name).write_text("")
    return peers.all_of(peers.Bench(tmp_path, "/now.so", None, 20000, **before))


def test_another_revision_is_one_more_peer(monkeypatch, tmp_path):
    """Like relay in everything but the module; it is there whichever others are asked for."""
    every = peers_with(monkeypatch, tmp_path, before="/before.so", before_version="v1-3-gabc")
    chosen = bench.choose(every, "relay", is_smoke=False)
    assert [peer.name for peer in chosen] == ["relay", "before"]
    relay, before = chosen
    assert "/now.so" in relay.directives
    assert before.directives == relay.directives.replace("/now.so", "/before.so")
    assert before.note.endswith("v1-3-gabc")
    assert len({peer.address for peer in every}) == len(every)
    run = {"echo ws 1: CPU s per million": {"relay": [9, 9], "before": [10, 10]}}
    text = table.document(run, ["relay", "before"], {}, [], set(), [])
    assert "| echo ws 1: CPU s per million | 9 | 10 (0.90) |" in text


def test_without_another_revision_there_is_no_such_peer(monkeypatch, tmp_path):
    every = peers_with(monkeypatch, tmp_path)
    assert "before" not in [peer.name for peer in every]
    with pytest.raises(SystemExit, match="known are "):
        bench.choose(every, "relay,before", is_smoke=False)


def test_the_peer_with_all_rules_is_one_for_who_asks(monkeypatch, tmp_path, httpd):
    every = peers_with(monkeypatch, tmp_path)
    # Whichever servers this machine has.
    monkeypatch.setattr(peers.Peer, "is_here", lambda self: True)
    assert "rules" not in [peer.name for peer in bench.choose(every, None, is_smoke=False)]
    assert [peer.name for peer in bench.choose(every, "relay,rules", is_smoke=False)] == ["relay", "rules"]
    monkeypatch.undo()
    # Every rule of the reference that has a value there, and httpd takes them.
    server = httpd()
    server.directives(peers.Rules.limits)
    server.vhost(f"WSForward On\nWSForwardRelay On\n{peers.Rules.rules}{peers.Rules.page}")
    server.start()


def test_the_native_peer_is_relay_but_for_its_sessions(monkeypatch, tmp_path, httpd):
    every = peers_with(monkeypatch, tmp_path)
    chosen = bench.choose(every, "relay,native", is_smoke=False)
    monkeypatch.setattr(peers.Peer, "is_here", lambda self: True)
    assert "native" in [peer.name for peer in bench.choose(every, None, is_smoke=False)]
    relay, native = chosen
    assert native.directives == f"{relay.directives}WSForwardTLS native\n"
    assert native.modules == relay.modules
    monkeypatch.undo()
    server = httpd()
    server.directives(native.setting)
    server.vhost("WSForward On\nWSForwardRelay On")
    server.start()


@pytest.mark.parametrize("tls, turns", [
    (False, ["apache", "nginx", "nginx", "apache"]),
    (True, ["apache", "relay", "nginx", "relay", "nginx", "apache"])])
def test_a_peer_that_differs_with_tls_alone_is_measured_with_tls(tls, turns):
    measurement = Measurement({}, tls=tls)
    run, _, all_of_it = run_of(measurement, only_tls=("relay",))
    all_of_it()
    assert measurement.turns == turns
    assert ("relay" in run.results["echo ws 1: p50 us"]) == tls


def test_what_is_with_tls_is_known_of_every_measurement():
    """Of each whose name has wss."""
    for mode in ("smoke", "quick", "full"):
        for measurement in sum(bench.plan(mode, None), []):
            assert getattr(measurement, "tls", False) == ("wss" in measurement.name), measurement.name


@pytest.mark.parametrize("figure, reached", [(4.0, True), (4.24, False)])
def test_native_sessions_are_judged_by_their_own_figures(figure, reached):
    row = "native: idle memory a tunnel, wss client (1,000)"
    judged = target({"held wss 1000: KiB each": {"native": [figure], "relay": [15.4]}}, row)
    assert (judged["measured"], judged["reached"], judged["aim reached"]) == (f"{figure:.3g} KiB", reached, False)


def test_native_echo_is_judged_against_the_best_at_each_size():
    row = "native: echo CPU, wss, 64 tunnels"
    results = {f"echo wss 64 x {size} B: CPU s per million":
               {"native": [10], "relay": [15], "apache": [40], "nginx": [20], "haproxy": [10], "caddy": [50]}
               for size in SIZES}
    judged = target(results, row)
    assert (judged["reached"], judged["aim reached"]) == (True, False)
    results["echo wss 64 x 32 B: CPU s per million"]["nginx"] = [8]
    judged = target(results, row)
    assert (judged["measured"], judged["reached"]) == ("1.25 x nginx in echo wss 64 x 32 B", False)


def test_as_many_are_opened_at_a_time_before_the_first_reading_as_later():
    [opening] = re.findall(r"OPENING: usize = (\d+);", (paths.ROOT / "bench" / "tunnels.rs").read_text())
    assert rows.AT_A_TIME == int(opening)


def test_another_revision_is_built_as_it_was(tmp_path):
    """Not what the checkout has now; and the checkout stays as it is."""
    checkout, tools = tmp_path / "check out", tmp_path / "bin"
    (checkout / "ci").mkdir(parents=True)
    (checkout / "ci" / "lib.sh").write_text((paths.ROOT / "ci" / "lib.sh").read_text())
    (checkout / ".gitignore").write_text("/target/\n")
    tools.mkdir()
    cargo = tools / "cargo"
    cargo.write_text('#!/bin/sh\nmkdir -p "$CARGO_TARGET_DIR/release"\n'
                     'cp source "$CARGO_TARGET_DIR/release/libmod_wsforward.so"\n')
    cargo.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}
    environment.pop("CARGO_TARGET_DIR", None)

    def run(*command):
        return subprocess.run(command, cwd=checkout, env=environment, check=True, text=True, capture_output=True).stdout

    def git(*arguments):
        return run("git", "-c", "user.name=test", "-c", "user.email=test@site.test", *arguments)

    git("init", "-q")
    for text in ("one", "two"):
        (checkout / "source").write_text(text)
        git("add", ".")
        git("commit", "-q", "-m", text)
    (checkout / "source").write_text("three")
    before = git("status", "--porcelain"), git("worktree", "list")
    for revision, text in (("HEAD^", "one"), ("HEAD", "two"), ("HEAD^", "one")):
        said = run("bash", "-c", f'. ci/lib.sh; build_revision {revision}; printf "%s\n" "$BEFORE" "$BEFORE_VERSION"')
        built, version = said.splitlines()[-2:]
        assert Path(built).read_text() == text
        assert version == git("describe", "--always", revision).strip()
    assert (git("status", "--porcelain"), git("worktree", "list")) == before
    with pytest.raises(subprocess.CalledProcessError) as error:
        run("bash", "-c", ". ci/lib.sh; build_revision nothing")
    assert "git knows no revision nothing" in error.value.stderr


class Clock:
    """CPU times that go on by the same each look, of 100 ticks."""

    def __init__(self, busy=0, stolen=0):
        self.now, self.step = (0, 0, 0), (100, 100 - busy - stolen, stolen)

    def __call__(self):
        now = self.now
        self.now = tuple(then + step for then, step in zip(now, self.step))
        return now


def quiet_of(**others):
    looked = quiet.Quiet(times=Clock(**others), sleep=lambda _: None)
    looked.look(3)
    return looked


@pytest.mark.parametrize("others, why", [
    ({}, ""),
    ({"busy": 9, "stolen": 1}, ""),
    ({"busy": 30}, "other processes had 30% of the CPUs"),
    ({"stolen": 5}, "5% of the CPUs were stolen"),
    ({"busy": 30, "stolen": 5}, "of the CPUs between measurements")])
def test_a_machine_is_quiet_or_not(others, why):
    found = quiet_of(**others).why_not()
    assert why in found if why else found == ""


def test_one_busy_moment_is_not_the_whole_run():
    looked = quiet_of()
    looked.looks += [0.9]
    assert looked.why_not() == ""


def test_the_times_of_this_machine_can_be_read():
    looked = quiet.Quiet(sleep=lambda _: None)
    looked.look()
    assert all(0 <= share <= 1 for share in (looked.busy, looked.stolen))


@pytest.mark.parametrize("busy, force, is_written", [(0, False, True), (50, False, False), (50, True, True)])
def test_a_run_beside_others_leaves_the_document_alone(tmp_path, capsys, busy, force, is_written):
    """And says so in its first line."""
    page = tmp_path / "page.md"
    page.write_text(f"a\n{table.BEGIN}\nold\n{table.END}\nb\n")
    why_not = quiet_of(busy=busy).why_not()
    status = bench.put_into_document(SimpleNamespace(document=page, force=force), "new", why_not)
    assert ("new" in page.read_text(), "old" in page.read_text()) == (is_written, not is_written)
    assert status == (0 if is_written else 1)
    assert ("stays as it is, since other processes had 50%" in capsys.readouterr().out) != is_written


@pytest.mark.parametrize("busy", [0, 50])
def test_a_run_beside_others_says_so_first(tmp_path, busy):
    arguments = SimpleNamespace(output=tmp_path, mode="quick", version="v1")
    report = bench.Report(arguments, [], 20000, False, 0)
    run = bench.Run([], 1, lambda _: None, quiet_of(busy=busy))
    run.per_process = 15000
    first = report.write(run).splitlines()[0]
    assert first.startswith("- **Not to be trusted**: other processes had 50%" if busy else "- Run: ")


class Turns:
    """A measurement of which ours needs this many times the CPU, with what is on top of a turn."""

    name = "echo ws 64"

    def __init__(self, ratio, disturbed=lambda turn: 0.0):
        self.ratio, self.disturbed, self.turns = ratio, disturbed, 0

    def __call__(self, peer, figures):
        self.turns += 1
        cpu = 10 * (self.ratio if peer == "relay" else 1) + self.disturbed(self.turns)
        figures.update({"echo ws 64: messages/s": 1.0, "echo ws 64: CPU s per million": cpu})


@pytest.mark.parametrize("ratio, is_right, rounds", [
    (1.0, True, guard.FIRST), (1.3, False, guard.FIRST), (1.12, True, guard.LAST), (1.2, False, guard.LAST)])
def test_a_change_may_not_need_much_more(ratio, is_right, rounds):
    """Near the bound more rounds decide."""
    judged = guard.Guard(Turns(ratio), "relay", "before")
    assert judged.run() == is_right
    assert len(judged.ratios) == rounds
    assert ("FAILS" in judged.said) != is_right
    assert f"{ratio:.3f} x" in judged.said


def test_what_else_runs_does_not_decide():
    """Every third turn is disturbed."""
    for first in range(3):
        measurement = Turns(1.0, lambda turn, first=first: 8.0 if turn % 3 == first else 0.0)
        assert guard.Guard(measurement, "relay", "before").run()


PROFILE = """version: 1
positions: line
events: Ir
summary: 999

ob=(1) /usr/lib/libc.so.6
fl=(1) ???
fn=(1) malloc
16 100
+3 20

ob=(2) /tmp/somewhere/mod_wsforward.so
fn=(2) handshake
0 7
cob=(1)
cfn=(1)
calls=3 0
0 120
* 1
cob=(3) /usr/sbin/apache2
cfn=(3) ap_log
calls=1 0
0 5
-1 2
ob=(3)
fn=(3)
0 5
"""


def test_instructions_are_counted_where_they_are():
    """Not once more where they are called."""
    assert instructions.by_object(PROFILE) == {"libc": 120, "mod_wsforward": 10, "apache2": 5}


def test_a_system_call_that_waits_is_one():
    log = ("SYSCALL[32212,1](  0) sys_read ( 3, 0x4a8b000, 131072 ) --> [async] ... \n"
           "SYSCALL[32212,2](9) sys_mmap ( 0x0, 139264, 3, 34, 4294967295, 0 ) --> [pre-success] Success(0x4a8a000) \n"
           "SYSCALL[32212,1](0) ... [async] --> Success(0x3) \n"
           "SYSCALL[32212,1](0) sys_read ( 3, 0x4a8b000, 131072 )[sync] --> Failure(0xb) \n"
           "--32212-- something else\n")
    assert instructions.system_calls(log) == {"read": 2, "mmap": 1}


VERSIONS = {"rustc": "1.0.0", "httpd": "2.4.0"}


def counts(instructions_of=1.0, calls=6, stock=1.0):
    """Every figure of both servers, and the module's with so much more."""
    def cost(factor, calls):
        return {"instructions": {"mod_wsforward": 60000, "libc": 100000 * factor - 60000},
                "system calls": {"epoll_wait": 2, "read": calls - 2}}

    return {name: {"relay": cost(instructions_of, calls), "apache": cost(stock, 12 * stock)}
            for name in instructions.FIGURES}


def compared(found, **versions):
    comparison = instructions.Comparison({"versions": VERSIONS, "figures": counts()}, found,
                                         {**VERSIONS, **versions}, Path("out"))
    return comparison.run(), "\n".join(comparison.lines)


@pytest.mark.parametrize("found, is_right, says", [
    (counts(), True, "echo wss, instructions: 100,000, was 100,000: 1.000 x"),
    (counts(1.14), True, "1.140 x"),
    (counts(1.16), False, "instructions: 116,000, was 100,000: 1.160 x, FAILS, the most is 1.15 (libc 40,000 -> 56,000)"),
    # One more for a message.
    (counts(calls=7), False, "system calls: 7.00, was 6.00: 1.167 x, FAILS, the most is 1.15 (read 4.00 -> 5.00)"),
    (counts(0.8), True, "Some is much less than what is kept")])
def test_a_change_may_not_take_much_more_than_what_is_kept(found, is_right, says):
    judged, said = compared(found)
    assert judged == is_right and says in said
    # And what is to be done.
    assert ("Find out why: `callgrind_annotate out/relay-handshake-ws.callgrind`" in said) != is_right
    assert ("in a commit that says why: `ci/bench --instructions --record`" in said) != is_right


def test_what_a_handshake_takes_beside_arithmetic_is_judged_too():
    kept, found = counts(), counts()
    for figures, more in ((kept, 0), (found, 20000)):
        figures["handshake wss"]["relay"]["instructions"].update(libcrypto=2e6, libc=40000 + more)
    comparison = instructions.Comparison({"versions": VERSIONS, "figures": kept}, found, VERSIONS, Path("out"))
    assert not comparison.run()
    assert "handshake wss, instructions: 2,120,000, was 2,100,000: 1.010 x" in comparison.lines
    [said] = [line for line in comparison.lines if "FAILS" in line]
    assert said.startswith("handshake wss, instructions outside of libcrypto: 120,000, was 100,000: 1.200 x, FAILS")


@pytest.mark.parametrize("found, is_right, says", [
    (counts(1.4, calls=8, stock=1.4), True, "instructions: 1.00 x httpd without the module, was 1.00: 1.000 x"),
    (counts(1.4), False, "instructions: 1.40 x httpd without the module, was 1.00: 1.400 x, FAILS"),
    # It is no better by what httpd itself needs no more.
    (counts(1.0, stock=0.8), False, "1.250 x, FAILS")])
def test_with_another_httpd_it_is_compared_with_stock(found, is_right, says):
    judged, said = compared(found, httpd="2.4.1")
    assert judged == is_right and says in said
    assert said.startswith("Kept are counts with httpd 2.4.0 (here: 2.4.1).")


def test_another_compiler_is_no_excuse():
    judged, said = compared(counts(1.2), rustc="2.0.0")
    assert not judged and "1.200 x, FAILS" in said
    assert "Kept is what rustc 1.0.0 made of the source, and this is of rustc 2.0.0." in said


def test_what_is_kept_is_whole():
    kept = json.loads(instructions.KEPT.read_text())
    assert set(kept["versions"]) == {"rustc", "httpd", "OpenSSL", "libc", "valgrind", "processor"}
    assert "unknown" not in kept["versions"].values()
    assert list(kept["figures"]) == list(instructions.FIGURES)
    for name, servers in kept["figures"].items():
        for server in ("relay", "apache"):
            for kind in ("instructions", "system calls"):
                assert instructions.total(servers[server][kind]) > 1, (name, server, kind)
        assert "mod_wsforward" in servers["relay"]["instructions"]
    assert "\nstep ci/bench --instructions\n" in (paths.ROOT / ".ci" / "run").read_text()


def test_small_parts_are_kept_as_one():
    kept = instructions.rounded({"a": 5000.4, "b": 30.3, "c": 20.2, "d": 2000})
    assert kept == {"a": 5000, "d": 2000, "others": 50}
    assert list(instructions.rounded({"write": 2, "read": 4.004})) == ["read", "write"]


class Herd:
    """Tunnels of which some come back."""

    def __init__(self, back, open_before=500):
        self.back, self.open, self.error = back, 0, "refused"
        self.open_before, self.closed = open_before, []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def grow(self, count):
        self.open = min(count, self.open_before)
        return self.open == count

    def storm(self, seconds, begin):
        begin()
        return self.back, 3, 1.5


def storm_of(herd, **peer):
    """The figures of one peer."""
    closed = []
    visits = SimpleNamespace(result=lambda: {"count": 7, "failed": 1, "p99_us": 900.0}, end=lambda: None)
    tool = SimpleNamespace(tunnels=lambda url: herd, start=lambda *_, **__: visits)
    bench_of_it = peers.Bench.__new__(peers.Bench)
    bench_of_it.descriptors = 20000
    bench_of_it.close_tunnels = lambda: closed.append(True)
    defaults = {"most": None, "has_proxy": True, "bench": bench_of_it, "url": lambda tls=False: "ws://x",
                "start": lambda: None, "stop": lambda: None}
    figures = rows.Figures()
    rows.Storm(tool, False, 500, 20)(SimpleNamespace(**{**defaults, **peer}), figures)
    return figures, closed


def test_a_storm_is_over_when_all_are_back():
    figures, closed = storm_of(Herd(500))
    assert closed == [True]
    assert figures == {"storm ws 500: s until all are open": 1.5, "storm ws 500: attempts failed": 3,
                       "storm ws 500: GET p99 us": 900.0, "storm ws 500: GETs failed": 1}
    assert figures.remarks == []


def test_a_storm_fits_the_descriptors_of_one_process(monkeypatch):
    monkeypatch.setattr(rows, "most_descriptors", lambda wanted: min(wanted, 20000))
    assert rows.Storm.most(20000) == 9000
    assert rows.Storm.most(500) == 500
    monkeypatch.setattr(rows, "most_descriptors", lambda wanted: wanted)
    assert rows.Storm.most(20000) == 20000


@pytest.mark.parametrize("size, row", [
    (20000, "storm, ws, 20,000 tunnels, until all are open"),
    (9000, "storm, ws, 9,000 tunnels, until all are open (the descriptors do not allow 20,000)")])
def test_a_smaller_storm_is_judged_and_says_so(size, row):
    results = {f"storm ws {size}: s until all are open": {"relay": [1.1], "nginx": [1.0]},
               f"storm ws {size}: GET p99 us": {"relay": [2e6]}}
    judged = target(results, row)
    assert (judged["reached"], judged["aim reached"]) == (True, False)


def test_growth_is_judged_by_what_could_be_held():
    row = "CPU per message, 10,000 held / 100 (the descriptors do not allow 20,000)"
    assert target({"growth of CPU per message: 10,000 held / 100": {"relay": [1.3]}}, row)["reached"] is False
    both = {f"growth of CPU per message: {held} held / 100": {"relay": [1.1]} for held in ("10,000", "20,000")}
    assert target(both, "CPU per message, 20,000 held / 100")["reached"] is True


def test_a_storm_that_some_do_not_survive_has_no_time():
    figures, _ = storm_of(Herd(499))
    assert "storm ws 500: s until all are open" not in figures
    assert figures.remarks == ["499 came back within 20 s"]


@pytest.mark.parametrize("herd, peer, remark", [
    (Herd(500), {"most": 150}, "its settings allow 150 tunnels"),
    (Herd(500, open_before=400), {}, "full at 400: refused")])
def test_a_storm_needs_its_tunnels(herd, peer, remark):
    figures, closed = storm_of(herd, **peer)
    assert (figures, figures.remarks, closed) == ({}, [remark], [])


def test_a_storm_is_judged_against_nginx():
    row = "storm, ws, 20,000 tunnels, until all are open"
    results = {"storm ws 20000: s until all are open": {"relay": [3, 3], "nginx": [2, 3]},
               "storm ws 20000: GET p99 us": {"relay": [0.9e6, 0.9e6]}}
    judged = target(results, row)
    assert (judged["measured"], judged["reached"], judged["aim reached"]) == ("1.25 x nginx", False, True)
    assert target({}, row)["reached"] is None
