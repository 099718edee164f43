"""What the scripts in ci/ rest on."""

import os
import shutil
import subprocess

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
