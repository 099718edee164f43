"""Has the tests of a crate notice changes: builds it once with all of them in it, each behind a switch."""

import argparse
import collections
import concurrent.futures
import contextlib
import itertools
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent

# A test hangs that takes so many times what it takes without a change, and these seconds.
TIMES, SECONDS = 5, 15
# Of what one process of tests may have. A change can make it take all that there is.
MOST_BYTES = 8 << 30
# Tests that are asked about a change at a time: the quickest first, since most changes are noticed by many.
FIRST_TESTS = 12

NOTICED, HUNG, MISSED, UNREACHED, NO_RUST, NO_PLACE = (
    "noticed", "hung", "missed", "reached by no test", "no Rust", "without a place for a switch")


def call(command, **settings):
    return subprocess.run(command, check=True, text=True, **settings)


class Crate:
    """A copy of the sources that has all changes of one crate in it."""

    def __init__(self, name, folder, weaver, lists):
        self.name, self.folder, self.weaver = name, folder, weaver
        self.tree = folder / "tree"
        self.library = f"src/{name}/lib.rs"
        folder.mkdir(parents=True, exist_ok=True)
        found = call(["cargo", "mutants", "--list", "--json", "--package", name, *lists], cwd=ROOT, stdout=subprocess.PIPE)
        self.changes = json.loads(found.stdout)
        self.outcome = {}

    def tell(self, number):
        outcome, _ = self.outcome[number]
        if outcome in (MISSED, UNREACHED):
            print(f"   {outcome}: {self.changes[number]['name']}", flush=True)

    def copy(self):
        files = call(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, stdout=subprocess.PIPE).stdout.split("\0")
        shutil.rmtree(self.tree, ignore_errors=True)
        for file in filter(None, files):
            if (ROOT / file).is_file():
                (self.tree / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / file, self.tree / file)

    def build(self, flags=""):
        """The programs of its tests. A change that the compiler does not take is left out, until it takes all.
        `flags` are rustc's."""
        # The other value would have to be of the same type.
        left_out = {number for number, change in enumerate(self.changes) if change["genre"] == "FnValue"
                    and "impl " in change["function"]["return_type"]}
        for number in left_out:
            self.outcome.setdefault(number, (NO_PLACE, None))
        path = {name: self.folder / f"{name}.json" for name in ("list", "left_out", "map")}
        path["list"].write_text(json.dumps(self.changes))
        self.pristine = {file: (ROOT / file).read_text() for file in {change["file"] for change in self.changes} | {self.library}}
        while True:
            for file, text in self.pristine.items():
                (self.tree / file).write_text(text)
            path["left_out"].write_text(json.dumps(sorted(left_out)))
            call([self.weaver, path["list"], self.tree, self.library, path["left_out"], path["map"]])
            woven = json.loads(path["map"].read_text())
            for number in woven["without_place"]:
                self.outcome.setdefault(number, (NO_PLACE, None))
            programs, complaints = self.compile(flags)
            if programs is not None:
                return programs
            refused = refused_changes(woven["ranges"], complaints)
            # What surrounds them does not take their switches, such as a reference to a constant.
            around = set() if refused else refused_changes(woven["ranges"], complaints, is_around=True)
            if not refused and not around:
                sys.exit("the compiler's complaints are about no change:\n" + "\n".join(c["rendered"] for c in complaints[:5]))
            # What another build found is not forgotten.
            for number in refused | around:
                self.outcome.setdefault(number, (NO_RUST if number in refused else NO_PLACE, None))
            left_out |= refused | around
            print(f"   {len(left_out)} changes are no Rust, or have no place for a switch", flush=True)

    def build_with(self, number):
        """The programs of the tests with one change alone, as it would stand in the source; none if it is no Rust."""
        change = self.changes[number]
        for file, text in self.pristine.items():
            if file == change["file"]:
                start, end = (offset(text, change["span"][side]) for side in ("start", "end"))
                text = text[:start] + change["replacement"] + text[end:]
            (self.tree / file).write_text(text)
        return self.compile()[0]

    def compile(self, flags=""):
        environment = os.environ | {
            # The switch needs what only this says that it may have.
            "RUSTC_BOOTSTRAP": self.name,
            "RUSTFLAGS": f"--cap-lints=allow {flags}",
            "CARGO_TARGET_DIR": str(self.folder / ("target" + flags.replace(" ", "-"))),
            "CARGO_PROFILE_DEV_DEBUG": "none", "CARGO_PROFILE_TEST_DEBUG": "none",
        }
        if flags:
            # loom tries very many orders.
            environment["CARGO_PROFILE_DEV_OPT_LEVEL"] = "2"
        built = subprocess.run(
            # What a second build is for is within the crate.
            ["cargo", "test", "--package", self.name, "--lib", *([] if flags else ["--tests"]), "--locked", "--no-run", "--message-format=json"],
            cwd=self.tree, env=environment, capture_output=True, text=True)
        messages = [json.loads(line) for line in built.stdout.splitlines() if line.startswith("{")]
        if built.returncode == 0:
            return [message["executable"] for message in messages if message.get("executable")], []
        complaints = [message["message"] for message in messages if message["reason"] == "compiler-message"]
        complaints = [complaint for complaint in complaints if complaint["level"] == "error" and complaint["spans"]]
        if not complaints:
            sys.exit(built.stderr)
        return None, complaints


def offset(text, place):
    """Of a line and a column, both counted from 1, in characters."""
    lines = text.splitlines(keepends=True)
    return sum(map(len, lines[:place["line"] - 1])) + place["column"] - 1


def refused_changes(ranges, complaints, is_around=False):
    """The changes that the compiler complains about, or those within what it complains about."""
    refused, by_file = set(), collections.defaultdict(list)
    for place in ranges:
        by_file[place["file"]].append(place)
    for complaint in complaints:
        refused_here = set()
        for span in sorted(complaint["spans"], key=lambda span: not span["is_primary"]):
            if refused_here and not span["is_primary"]:
                break
            while span["expansion"] and span["file_name"] not in by_file:
                span = span["expansion"]["span"]
            # It may be written relative to the folder of the crate.
            for file, places in by_file.items():
                if not file.endswith(span["file_name"]):
                    continue
                for place in places:
                    if place["is_arm"]:
                        # A match that does not know what to do without an arm.
                        if place["start"] == span["byte_start"] and (complaint["code"] or {}).get("code") == "E0004":
                            refused_here.add(place["change"])
                    elif is_around and span["byte_start"] <= place["start"] and place["end"] <= span["byte_end"]:
                        refused_here.add(place["change"])
                    elif place["start"] <= span["byte_start"] and span["byte_end"] <= place["end"]:
                        refused_here.add(place["change"])
        refused |= refused_here
    return refused


def program_name(program):
    """As the file of its tests is called."""
    return pathlib.Path(program).name.rsplit("-", 1)[0]


class Tests:
    """All tests of the programs: how long each takes, and which changes it comes by."""

    def __init__(self, programs, folder, size, lanes, budget):
        """`budget`: no more seconds of tests are asked about a change, as they take without it."""
        self.folder, self.size, self.budget = folder, size, budget
        self.seconds, self.reached, self.unusable = {}, collections.defaultdict(list), []
        with concurrent.futures.ThreadPoolExecutor(lanes) as pool:
            for program in programs:
                listed = call([program, "--list", "--format", "terse"], stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, cwd=folder)
                names = [line.removesuffix(": test") for line in listed.stdout.splitlines() if line.endswith(": test")]
                list(pool.map(self.look, [program] * len(names), names))

    def look(self, program, name):
        with tempfile.NamedTemporaryFile() as asked:
            asked.truncate(self.size)
            outcome, seconds = self.run(program, [name], 300, MUTANTS_ASKED=asked.name)
            if outcome != "passed":
                self.unusable.append((program, name))
                return
            self.seconds[program, name] = seconds
            for number, byte in enumerate(pathlib.Path(asked.name).read_bytes()):
                if byte:
                    self.reached[number].append((program, name))

    def run(self, program, names, seconds, **environment):
        """How tests ended, and how long that took: passed, failed, or hung."""
        begun = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            # Whatever a change leaves behind goes with the folder, and with the group of processes.
            process = subprocess.Popen(
                ["prlimit", f"--as={MOST_BYTES}", program, "--exact", "--quiet", *names], cwd=self.folder,
                env=os.environ | {"TMPDIR": folder} | environment, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                outcome = "failed" if process.wait(seconds) else "passed"
            except subprocess.TimeoutExpired:
                outcome = "hung"
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        return outcome, time.monotonic() - begun

    def ask(self, number):
        """Whether a change is noticed that has a switch, and by which tests."""
        if not self.reached[number]:
            return UNREACHED, None
        return self.ask_these(self.reached[number], number)

    def ask_all(self, programs):
        """Whether a change is noticed that is in these programs."""
        # They have other names after another build.
        by_name = {program_name(program): program for program in programs}
        self.seconds |= {(by_name[program_name(program)], name): seconds
                         for (program, name), seconds in list(self.seconds.items())}
        return self.ask_these([test for test in self.seconds if test[0] in programs], None)

    def ask_these(self, tests, number):
        tests = sorted(tests, key=self.seconds.get)
        chosen = {} if number is None else {"MUTANT": str(number)}
        sums = itertools.accumulate(self.seconds[test] for test in tests)
        asked = max(1, sum(1 for seconds in sums if seconds <= self.budget))
        left_out, tests = tests[asked:], tests[:asked]
        while tests:
            now, tests = tests[:FIRST_TESTS], tests[FIRST_TESTS:]
            programs = collections.defaultdict(list)
            for program, name in now:
                programs[program].append(name)
            for program, names in programs.items():
                usual = sum(self.seconds[program, name] for name in names)
                outcome, _ = self.run(program, names, SECONDS + TIMES * usual, **chosen)
                if outcome != "passed":
                    return (HUNG if outcome == "hung" else NOTICED), f"{program_name(program)}: {', '.join(names)}"
        return MISSED, f"{len(left_out)} long tests were not asked" if left_out else None


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("crate")
    parser.add_argument("--weaver", required=True, help="the built program of this folder")
    parser.add_argument("--output", required=True, type=pathlib.Path)
    parser.add_argument("--lanes", type=int, default=os.cpu_count())
    parser.add_argument("--budget", type=float, default=60, help="seconds of tests that are asked about a change")
    parser.add_argument("--flags", default="", help="for rustc, for a second build whose tests are asked about what is left")
    parser.add_argument("--only", default="", help="only changes whose names this regular expression matches")
    options, lists = parser.parse_known_args()

    crate = Crate(options.crate, options.output.resolve(), options.weaver, lists)
    print(f"{crate.name}: {len(crate.changes)} changes", flush=True)
    crate.copy()
    programs = crate.build()
    tests = Tests(programs, crate.tree / "src" / crate.name, len(crate.changes), options.lanes, options.budget)
    for program, name in tests.unusable:
        print(f"   not asked, since it fails with switches in the code: {pathlib.Path(program).name}: {name}", flush=True)
    print(f"   {len(tests.seconds)} tests, {sum(tests.seconds.values()):.0f} s", flush=True)

    left = [number for number, change in enumerate(crate.changes)
            if number not in crate.outcome and re.search(options.only, change["name"])]
    with concurrent.futures.ThreadPoolExecutor(options.lanes) as pool:
        asked = {pool.submit(tests.ask, number): number for number in left}
        for done, future in enumerate(concurrent.futures.as_completed(asked), 1):
            number = asked[future]
            crate.outcome[number] = future.result()
            if crate.outcome[number][0] == MISSED:
                crate.tell(number)
            if done % 50 == 0:
                print(f"   {done} of {len(left)}", flush=True)

    if options.flags:
        again = [number for number, (outcome, _) in crate.outcome.items() if outcome in (MISSED, UNREACHED)]
        print(f"   {len(again)} are asked about again, with {options.flags}", flush=True)
        programs = crate.build(options.flags)
        others = Tests(programs, crate.tree / "src" / crate.name, len(crate.changes), options.lanes, options.budget)
        with concurrent.futures.ThreadPoolExecutor(options.lanes) as pool:
            for number, outcome in zip(again, pool.map(others.ask, again)):
                if outcome[0] not in (MISSED, UNREACHED):
                    crate.outcome[number] = outcome
    for number, (outcome, _) in list(crate.outcome.items()):
        # One that no test reaches may be asked about by the compiler alone, as in the value of a constant.
        if outcome in (NO_PLACE, UNREACHED) and re.search(options.only, crate.changes[number]["name"]):
            programs = crate.build_with(number)
            crate.outcome[number] = tests.ask_all(programs) if programs else (NO_RUST, None)
            crate.tell(number)

    lines = collections.defaultdict(list)
    for number, (outcome, by) in sorted(crate.outcome.items()):
        lines[outcome].append(crate.changes[number]["name"] + (f" [{by}]" if by else ""))
    for outcome in (NOTICED, HUNG, MISSED, UNREACHED, NO_RUST, NO_PLACE):
        (crate.folder / f"{outcome.replace(' ', '-')}.txt").write_text("".join(line + "\n" for line in lines[outcome]))
    print(f"{crate.name}: " + ", ".join(f"{len(lines[outcome])} {outcome}" for outcome in (NOTICED, HUNG, MISSED, UNREACHED, NO_RUST, NO_PLACE)))
    return 1 if lines[MISSED] or lines[UNREACHED] else 0


if __name__ == "__main__":
    sys.exit(main())
