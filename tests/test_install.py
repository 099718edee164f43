"""Installing through apxs, for an httpd that no package is made for, and what the build says where it
cannot be."""

import os
import subprocess
from pathlib import Path

import pytest

from harness import http, paths

#: Wherever it is relative to: make changes the folder.
TARGET = paths.ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "release"
#: The target of Alpine and the like.
MUSL = "x86_64-unknown-linux-musl"
#: What to install, on Debian and on RHEL.
DEVELOPMENT_FILES = ("apache2-dev", "httpd-devel")


def make(*arguments, **environment):
    return subprocess.run(["make", "-C", str(paths.ROOT / "apxs"), *arguments], capture_output=True, text=True,
                          env={**os.environ, "CARGO_TARGET_DIR": str(TARGET.parent), **environment})  # fmt: skip


def script(file, text):
    """An executable shell script."""
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return file


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_make_install(tmp_path, httpd, backend, client):
    """The module lands where apxs puts modules, and httpd loads it from there. The build is the one
    that the tests use."""
    tmp_path.chmod(0o755)
    done = make("install", f"LIBEXECDIR={tmp_path}")
    assert done.returncode == 0, done.stderr
    installed = tmp_path / "mod_wsforward.so"
    assert installed.read_bytes() == (TARGET / "libmod_wsforward.so").read_bytes()
    assert not (paths.ROOT / "apxs" / "mod_wsforward.so").exists()
    server, origin = httpd(module=installed), backend()
    port = server.vhost(f'WSForward On\nProxyPass "/" "{origin.url("http")}"')
    server.start()
    assert client(port).ask(http.handshake()).status == 101


def test_activate_adds_the_loadmodule_line(tmp_path):
    """ACTIVATE=1: apxs writes the line into the configuration, as Debian's or as everybody else's does."""
    for name in ("mods-available", "mods-enabled", "modules"):
        (tmp_path / name).mkdir()
    (tmp_path / f"{paths.apxs('PROGNAME')}.conf").write_text("LoadModule unixd_module modules/mod_unixd.so\n")
    real = subprocess.run(["sh", "-c", "command -v ${APXS:-apxs}"], capture_output=True, text=True).stdout.strip()
    apxs = script(tmp_path / "apxs", f'exec {real} -S SYSCONFDIR={tmp_path} "$@"')
    # Built already: another APXS would only have all of it built again.
    # Debian's apxs runs it; the real one would enable the module on this machine.
    (tmp_path / "bin").mkdir()
    script(tmp_path / "bin" / "a2enmod", f'ln -s "../mods-available/$1.load" "{tmp_path}/mods-enabled/"')
    done = make("install", "ACTIVATE=1", f"APXS={apxs}", f"LIBEXECDIR={tmp_path}/modules", "CARGO=true",
                PATH=f"{tmp_path}/bin:{os.environ['PATH']}")  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    files = [file for file in tmp_path.rglob("*") if file.suffix in (".load", ".conf")]
    found = [line for file in files for line in file.read_text().splitlines() if line.startswith("LoadModule wsforward_module ")]
    assert found and all(line.endswith("/mod_wsforward.so") for line in found)
    if (tmp_path / "mods-available" / "wsforward.load").exists():
        assert (tmp_path / "mods-enabled" / "wsforward.load").exists()


def test_without_activate_no_configuration_is_touched(tmp_path):
    done = make("-n", "install", "CARGO=true", f"LIBEXECDIR={tmp_path}")
    assert done.returncode == 0, done.stderr
    [line] = [line for line in done.stdout.splitlines() if " -n wsforward " in line]
    assert " -i " in line and " -a " not in line


# What is missing, or wrong, in one line: by make, and by build.rs for who builds with cargo.


def build_script(tmp_path, **environment):
    """Runs the compiled build.rs as cargo would."""
    program = max(TARGET.glob("build/mod_wsforward-*/build-script-build"), key=lambda file: file.stat().st_mtime)
    out = tmp_path / "out"
    out.mkdir()
    host = next(line.split()[1] for line in subprocess.run(["rustc", "-vV"], capture_output=True, text=True)
                .stdout.splitlines() if line.startswith("host: "))  # fmt: skip
    settings = {"OUT_DIR": out, "TARGET": host, "HOST": host, "OPT_LEVEL": "0", "DEBUG": "false", "PROFILE": "release"}
    return subprocess.run([program], cwd=paths.ROOT, capture_output=True, text=True,
                          env={**os.environ, **{name: str(value) for name, value in settings.items()}, **environment})


def headers(tmp_path, major, minor):
    """An apxs whose httpd has these magic numbers."""
    (tmp_path / "ap_mmn.h").write_text(f"#define MODULE_MAGIC_NUMBER_MAJOR {major}\n"
                                       f"#define MODULE_MAGIC_NUMBER_MINOR {minor} /* 0...n */\n")  # fmt: skip
    return script(tmp_path / "apxs", f"echo {tmp_path}")


def complaint(done):
    """The one line that the failed command says, but for make's own."""
    assert done.returncode != 0
    [line] = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    return line


@pytest.mark.slow
def test_the_build_script_works_where_all_is_there(tmp_path):
    done = build_script(tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "httpd_api.rs").exists()


VERSIONS = {"2.4.46": (20120211, 93, "older than 2.4.47"), "2.4.47": (20120211, 99, None),
            "2.2": (20051115, 142, "not of version 2.4"), "trunk": (20211221, 142, "not of version 2.4"),
            "garbage": ("x", "y", "not of version 2.4")}  # fmt: skip


@pytest.mark.parametrize("version", VERSIONS)
def test_make_knows_for_which_httpd_it_builds(tmp_path, version):
    major, minor, why = VERSIONS[version]
    done = make("check", f"APXS={headers(tmp_path, major, minor)}")
    if why:
        assert why in complaint(done)
    else:
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("version", [name for name, (*_, why) in VERSIONS.items() if why])
def test_build_rs_knows_for_which_httpd_it_builds(tmp_path, version):
    major, minor, why = VERSIONS[version]
    assert why in complaint(build_script(tmp_path, APXS=str(headers(tmp_path, major, minor))))


def test_build_rs_refuses_32_bit_systems(tmp_path):
    """Counters of 64 bits in shared memory, and OpenSSL 1.1.1's options, are of another size there."""
    assert "64-bit systems only" in complaint(build_script(tmp_path, CARGO_CFG_TARGET_POINTER_WIDTH="32"))


def check(target, *arguments):
    """`cargo check` of the module for another system; nothing is linked or run."""
    sysroot = subprocess.run(["rustc", "--print", "sysroot"], capture_output=True, text=True, check=True).stdout.strip()
    if not (Path(sysroot) / "lib" / "rustlib" / target).exists():
        pytest.skip(f"no Rust for it: rustup target add {target}")
    return subprocess.run(["cargo", "check", "--locked", "--target", target, *arguments], cwd=paths.ROOT, capture_output=True, text=True,
                          env={**os.environ, f"CC_{target.replace('-', '_')}": "cc"})  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_types_are_those_of_musl_too():
    """Where its C library differs from glibc in types and calls."""
    crates = [word for name in ("allocator", "mod_wsforward", "protocol", "relay", "tls") for word in ("-p", name)]
    done = check(MUSL, *crates)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_for_32_bit_systems_there_is_one_error_and_it_says_so():
    """None of a crate's own comes first, or beside it."""
    done = check("i686-unknown-linux-gnu", "--keep-going")
    assert done.returncode != 0
    errors = [line.strip() for line in done.stderr.splitlines() if line.strip().startswith("error")]
    assert [line for line in errors if "custom build command" not in line] == ["error: mod_wsforward is made for 64-bit systems only"]


def test_without_apxs_make_says_what_to_install():
    line = complaint(make("check", "APXS="))
    assert all(name in line for name in DEVELOPMENT_FILES)


def test_wrong_apxs_of_make():
    done = make("check", "APXS=/nonexistent/apxs")
    assert done.returncode != 0
    assert "APXS=/nonexistent/apxs does not say where httpd's headers are" in done.stderr.splitlines()


def test_without_apxs_build_rs_says_what_to_install(tmp_path):
    """No apxs in PATH, nor where distributions keep it."""
    if Path("/usr/sbin/apxs").exists() or Path("/usr/local/apache2/bin/apxs").exists():
        pytest.skip("an apxs is where build.rs looks without PATH")
    line = complaint(build_script(tmp_path, PATH=str(tmp_path)))
    assert all(name in line for name in ("apxs not found", "APXS=", *DEVELOPMENT_FILES))


def test_wrong_apxs_of_build_rs(tmp_path):
    """It is named, and so is what to install."""
    line = complaint(build_script(tmp_path, APXS="/nonexistent/apxs"))
    assert all(name in line for name in ("APXS=/nonexistent/apxs", *DEVELOPMENT_FILES))


def test_apxs_without_headers(tmp_path):
    """apxs is there, the headers are not: half a package."""
    line = complaint(build_script(tmp_path, APXS=str(script(tmp_path / "apxs", f"echo {tmp_path}"))))
    assert all(name in line for name in ("ap_mmn.h", *DEVELOPMENT_FILES))


@pytest.mark.parametrize("header, packages", [("apr.h", ("libapr1-dev", "apr-devel")),
                                              ("apu.h", ("libaprutil1-dev", "apr-util-devel"))])  # fmt: skip
def test_without_the_headers_of_apr(tmp_path, header, packages):
    """They are in packages of their own: not the compiler is to blame."""
    if any(Path(place, header).exists() for place in ("/usr/include", "/usr/local/include")):
        pytest.skip("the compiler finds APR by itself here")
    headers(tmp_path, 20120211, 120)
    for name in {"apr.h", "apu.h"} - {header}:
        (tmp_path / name).touch()
    line = complaint(build_script(tmp_path, APXS=str(apxs_of_includes(tmp_path))))
    assert header in line and all(name in line for name in packages) and "compiler" not in line


def apxs_of_includes(tmp_path):
    """An apxs that names the one directory for every header, and no preprocessor flag."""
    return script(tmp_path / "apxs", f'case "$2" in EXTRA_CPPFLAGS) ;; EXTRA_INCLUDES) echo "-I{tmp_path}" ;; *) echo {tmp_path} ;; esac')


def test_without_libclang(tmp_path):
    (tmp_path / "empty").mkdir()
    line = complaint(build_script(tmp_path, LIBCLANG_PATH=str(tmp_path / "empty")))
    assert "libclang-dev" in line and "clang-devel" in line
