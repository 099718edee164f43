"""What finds out which changes of a crate no test notices (ci/mutants)."""

import importlib.util
import sys
import textwrap

import pytest

from harness import paths

_spec = importlib.util.spec_from_file_location("mutants_run", paths.ROOT / "mutants" / "run.py")
run = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = run
_spec.loader.exec_module(run)


def span(start, end, is_primary=True, file="src/crate/a.rs"):
    return {"file_name": file, "byte_start": start, "byte_end": end, "is_primary": is_primary, "expansion": None}


def complaint(*spans, code="E0308"):
    return {"spans": list(spans), "code": {"code": code}}


RANGES = [
    {"file": "src/crate/a.rs", "change": 1, "start": 10, "end": 20, "is_arm": False},
    {"file": "src/crate/a.rs", "change": 2, "start": 30, "end": 40, "is_arm": False},
    {"file": "src/crate/a.rs", "change": 3, "start": 50, "end": 50, "is_arm": True},
]


@pytest.mark.parametrize("complaints, refused", [
    ([complaint(span(12, 18))], {1}),
    # What else the compiler points at is no fault of its own.
    ([complaint(span(30, 40, is_primary=False), span(12, 18))], {1}),
    ([complaint(span(70, 80), span(30, 40, is_primary=False))], {2}),
    ([complaint(span(12, 18)), complaint(span(31, 32))], {1, 2}),
    # A match that lacks an arm.
    ([complaint(span(50, 55), code="E0004")], {3}),
    ([complaint(span(50, 55))], set()),
    ([complaint(span(12, 18, file="src/crate/b.rs"))], set()),
    ([complaint(span(5, 45))], set()),
])
def test_whom_the_compiler_means(complaints, refused):
    assert run.refused_changes(RANGES, complaints) == refused


def test_what_is_within_what_the_compiler_means():
    assert run.refused_changes(RANGES, [complaint(span(5, 45))], is_around=True) == {1, 2}


def test_places_are_counted_in_characters():
    text = "one\n\u00e9two\n"
    assert text[run.offset(text, {"line": 2, "column": 2}):] == "two\n"


@pytest.fixture
def tests(tmp_path):
    """Two tests of a program: one notices change 0, both come by changes 0 and 1; by change 3 it hangs."""
    program = tmp_path / "program-0123"
    program.write_text(textwrap.dedent(f"""\
        #!{sys.executable}
        import os, sys, time
        if "--list" in sys.argv:
            print("quick: test\\nother: test\\nbroken: test\\n\\n3 tests")
            sys.exit()
        if "MUTANTS_ASKED" in os.environ:
            with open(os.environ["MUTANTS_ASKED"], "r+b") as file:
                file.write(bytes([1, 1, 0, 1]))
        if os.environ.get("MUTANT") == "3":
            time.sleep(600)
        sys.exit("broken" in sys.argv or ("quick" in sys.argv and os.environ.get("MUTANT") == "0"))
        """))
    program.chmod(0o755)
    return run.Tests([str(program)], tmp_path, 4, 2, 60)


def test_changes_are_noticed_or_not(tests, monkeypatch):
    monkeypatch.setattr(run, "SECONDS", 1)
    assert sorted(name for _, name in tests.seconds) == ["other", "quick"]
    assert [name for _, name in tests.unusable] == ["broken"]
    assert tests.ask(0)[0] == run.NOTICED
    assert tests.ask(1) == (run.MISSED, None)
    assert tests.ask(2) == (run.UNREACHED, None)
    assert tests.ask(3)[0] == run.HUNG


def test_a_change_without_a_switch_stands_in_the_source(tmp_path):
    crate = run.Crate.__new__(run.Crate)
    place = {"start": {"line": 1, "column": 17}, "end": {"line": 1, "column": 18}}
    crate.changes = [{"file": "a.rs", "span": place, "replacement": "-"}]
    crate.pristine, crate.tree = {"a.rs": "const A: u8 = 2 + 1;\n", "b.rs": "b"}, tmp_path
    crate.compile = lambda: ((tmp_path / "a.rs").read_text(), [])
    assert crate.build_with(0) == "const A: u8 = 2 - 1;\n"
    assert (tmp_path / "b.rs").read_text() == "b"
