"""The benchmark's report: what it makes of figures, and of those it could not get."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.append(str(Path(__file__).parents[1] / "bench" / "compare"))

import bench  # noqa: E402
import load  # noqa: E402
import table  # noqa: E402
import targets  # noqa: E402

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
