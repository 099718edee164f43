"""The benchmark's report: what it makes of figures, and of those it could not get."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness import paths

sys.path.append(str(Path(__file__).parents[1] / "bench" / "compare"))

import bench
import load
import peers
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

    def __init__(self, errors, is_once=False):
        self.errors, self.is_once, self.turns = errors, is_once, []

    def __call__(self, peer, figures):
        self.turns.append(peer.name)
        figures[f"{self.name}: p50 us"] = 5.0
        if peer.name in self.errors:
            raise self.errors[peer.name]
        figures[f"{self.name}: p99 us"] = 7.0


def run_of(measurement, rounds=2):
    """A run over three peers that only stand there."""
    kept = []
    chosen = [SimpleNamespace(name=name, is_up=lambda: True, stop=lambda: None)
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
    assert "rules" not in [peer.name for peer in bench.choose(every, None, is_smoke=False)]
    assert [peer.name for peer in bench.choose(every, "relay,rules", is_smoke=False)] == ["relay", "rules"]
    monkeypatch.undo()
    # Every rule of the reference that has a value there, and httpd takes them.
    server = httpd()
    server.vhost(f"WSForward On\nWSForwardRelay On\n{peers.Rules.rules}")
    server.start()


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
