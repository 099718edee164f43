"""The recipe of the RPM: what rpm itself reads of it. `ci/package --rpm` builds and installs it."""

import re
import shutil
import subprocess
import tomllib

import pytest

from harness import paths

SPEC = paths.ROOT / "contrib" / "rpm" / "mod_wsforward.spec"
CARGO = tomllib.loads((paths.ROOT / "Cargo.toml").read_text())


def rpmspec(*arguments):
    if not shutil.which("rpmspec"):
        pytest.skip("no rpmspec (Debian: rpm)")
    return subprocess.run(["rpmspec", *arguments, SPEC], capture_output=True, text=True, check=True).stdout


def test_the_rpm_is_of_this_version_and_rust():
    asked = rpmspec("-q", "--target", "x86_64", "--queryformat", "%{NAME} %{VERSION} %{ARCH} %{LICENSE}\n")
    assert asked.startswith(f"mod_wsforward {CARGO['workspace']['package']['version']} x86_64 {CARGO['workspace']['package']['license']} AND ")
    rust = CARGO["workspace"]["package"]["rust-version"]
    assert re.findall(r"^BuildRequires: +(?:cargo|rust) >= (.*)$", rpmspec("-P"), re.M) == [rust, rust]
    assert "cargo" not in rpmspec("-P", "--with", "rustup").partition("%description")[0]


def test_the_rpm_has_what_httpd_of_fedora_looks_for_and_runs_nothing():
    text = rpmspec("-P", "--define", "_libdir /usr/lib64")
    files = text.partition("\n%files\n")[2].splitlines()
    assert "/usr/lib64/httpd/modules/mod_wsforward.so" in files
    assert "%config(noreplace) /etc/httpd/conf.modules.d/10-wsforward.conf" in files
    assert not re.search(r"^%(pre|post|preun|postun|trigger)\b", text, re.M)
    for name in [*re.findall(r"^%(?:license|doc) (.*)$", "\n".join(files), re.M), "contrib/rpm/10-wsforward.conf"]:
        assert all((paths.ROOT / one).exists() for one in name.split()), name


def test_the_rpm_is_for_the_systems_that_debians_package_is_for():
    control = (paths.ROOT / "debian" / "control").read_text()
    debian = set(re.findall(r"^Architecture: (.*)$", control, re.M)[0].split())
    names = {"x86_64": "amd64", "aarch64": "arm64", "ppc64le": "ppc64el", "loongarch64": "loong64"}
    [rpm] = re.findall(r"^ExclusiveArch: +(.*)$", rpmspec("-P"), re.M)
    assert {names.get(name, name) for name in rpm.split()} == debian
