"""Installing through apxs, for an httpd that no package is made for."""

import os
import subprocess

import pytest

from harness import paths


#: Wherever it is relative to: make changes the folder.
TARGET = paths.ROOT / os.environ.get("CARGO_TARGET_DIR", "target")


def make(*arguments):
    return subprocess.run(["make", "-C", str(paths.ROOT / "apxs"), *arguments], capture_output=True, text=True,
                          env=os.environ | {"CARGO_TARGET_DIR": str(TARGET)})  # fmt: skip


@pytest.mark.timeout(600)
def test_make_install(tmp_path):
    """The module lands where apxs puts modules. The build is the one that the tests use."""
    module = TARGET / "release" / "libmod_wsforward.so"
    done = make("install", f"LIBEXECDIR={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "mod_wsforward.so").read_bytes() == module.read_bytes()
    assert not (paths.ROOT / "apxs" / "mod_wsforward.so").exists()


def test_without_apxs_it_says_what_to_install():
    done = make("check", "APXS=")
    assert done.returncode != 0
    assert "apache2-dev" in done.stderr and "httpd-devel" in done.stderr


def test_an_old_httpd_is_refused(tmp_path):
    (tmp_path / "ap_mmn.h").write_text("#define MODULE_MAGIC_NUMBER_MINOR 93 /* 2.4.46 */\n")
    apxs = tmp_path / "apxs"
    apxs.write_text(f"#!/bin/sh\necho {tmp_path}\n")
    apxs.chmod(0o755)
    done = make("check", f"APXS={apxs}")
    assert done.returncode != 0
    assert "older than 2.4.47" in done.stderr
