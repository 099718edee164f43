"""What contrib/ has for systemd, containers and load balancers: it is what those take, it names what exists,
and whoever stops a node waits for longer than the node takes. HAProxy's file is run by test_fleet.py."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness import paths
from harness.dockerfile import instructions
from harness.network import NAMESPACES, need_namespaces

CONTRIB = paths.ROOT / "contrib"
DOCKERFILE = CONTRIB / "docker" / "Dockerfile"
SETTINGS = (CONTRIB / "fleet" / "wsforward.conf").read_text()
MANIFESTS = CONTRIB / "kubernetes" / "wsforward.yaml"
#: The oldest and the newest Kubernetes for which the manifests are checked.
KUBERNETES = ["1.25", "1.34"]


def seconds(directive):
    """What the settings of a node say."""
    [value] = re.findall(rf"^{directive} (\d+)s?$", SETTINGS, re.M)
    return int(value)


def test_a_node_has_time_to_end_its_tunnels():
    """The last second of the timeout is for the answers to the last Close frames."""
    assert seconds("WSForwardCloseSpread") < seconds("GracefulShutdownTimeout") - 1


# systemd.


def drop_in(file):
    """The settings of a drop-in, each with all its values."""
    found = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", (CONTRIB / "systemd" / file).read_text(), re.M):
        found.setdefault(name, []).append(value)
    return found


def test_systemd_waits_for_a_graceful_stop():
    stop = drop_in("graceful-stop.conf")
    assert stop["ExecStop"] == [""] and stop["KillSignal"] == ["SIGWINCH"] and stop["KillMode"] == ["mixed"]
    assert int(stop["TimeoutStopSec"][0]) > seconds("GracefulShutdownTimeout")
    # That file is read first: it empties what this one adds to.
    assert "graceful-stop.conf" < "ready-file.conf"
    [file] = re.findall("^WSForwardReadyFile (.*)$", SETTINGS, re.M)
    ready = drop_in("ready-file.conf")
    assert ready["ExecStartPost"] == [f"/bin/touch {file}"] and ready["ExecStop"][0] == f"/bin/rm -f {file}"
    assert file == f"/run/{ready['RuntimeDirectory'][0]}/ready"


@pytest.mark.parametrize("wrong", ["", "KillSignals=SIGWINCH\n"], ids=["as it is", "misspelt"])
def test_systemd_takes_the_drop_ins(tmp_path, wrong):
    """Beside a unit like Debian's."""
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd-analyze")
    unit = tmp_path / "apache2.service"
    unit.write_text("[Unit]\nDescription=httpd\n[Service]\nType=forking\nExecStart=/bin/true start\n"
                    "ExecStop=/bin/true graceful-stop\nExecReload=/bin/true graceful\nKillMode=mixed\n")  # fmt: skip
    folder = tmp_path / "apache2.service.d"
    folder.mkdir()
    for file in (CONTRIB / "systemd").iterdir():
        (folder / file.name).write_text(file.read_text() + wrong)
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit.name], capture_output=True, text=True,
                          env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"})  # fmt: skip
    said = "".join(line for line in done.stderr.splitlines() if str(tmp_path) in line)
    assert bool(said) == bool(wrong), done.stderr


# Containers.


def test_dockerfile_is_sound():
    """Its words, the shell of its steps, and the files that it copies."""
    words = [word for word, _ in instructions(DOCKERFILE)]
    assert set(words) <= {"FROM", "RUN", "COPY", "ENV", "EXPOSE", "CMD"}
    assert [rest.split()[0] for word, rest in instructions(DOCKERFILE) if word == "FROM"] == ["httpd:2.4", "httpd:2.4"]
    for word, rest in instructions(DOCKERFILE):
        if word == "RUN":
            subprocess.run(["sh", "-n", "-c", rest], check=True)
        elif word == "COPY" and not rest.startswith("--from"):
            *sources, _ = shlex.split(rest)
            assert all((paths.ROOT / source).exists() for source in sources), rest
    ignored = (DOCKERFILE.with_name("Dockerfile.dockerignore")).read_text().split()
    copied = [source for word, rest in instructions(DOCKERFILE) if word == "COPY" for source in rest.split()[:-1]]
    assert not [source for source in copied for path in ignored if source.startswith(path)]
    for name in ("start", "is-ready"):
        file = DOCKERFILE.with_name(name)
        assert os.access(file, os.X_OK)
        subprocess.run(["bash", "-n", file], check=True)


#: What the image's own httpd.conf loads of what is needed here, and says before.
IMAGE = """ServerRoot "{root}"
{modules}
ErrorLog "{root}/error.log"
PidFile "{root}/httpd.pid"
ServerName localhost
User www-data
Group www-data
Listen 80
Include conf/extra/site.conf
Include conf/extra/wsforward.conf
"""


def image(root, module, site):
    """The folder of the image's httpd, with this site."""
    (root / "conf" / "extra").mkdir(parents=True)
    root.chmod(0o755)
    (root / "modules").symlink_to(paths.apxs("LIBEXECDIR"))
    # Debian's folder has no such file: a link of its own would not do.
    site = site.replace("modules/mod_wsforward.so", str(module))
    (root / "conf" / "extra" / "site.conf").write_text(site)
    (root / "conf" / "extra" / "wsforward.conf").write_text(SETTINGS)
    needed = ["mpm_event", "authz_core", "authz_host", "unixd"]
    lines = [f"LoadModule {name}_module modules/mod_{name}.so" for name in needed
             if name.removeprefix("mpm_") not in paths.static_modules()]
    (root / "conf" / "httpd.conf").write_text(IMAGE.format(root=root, modules="\n".join(lines)))
    return root / "conf" / "httpd.conf"


#: The container, in a network and a file system of its own: from its start to its graceful stop.
CONTAINER = """
ip link set lo up && mount -t tmpfs none /run && mkdir /run/wsforward && chmod 755 /run
{docker}/start &
until_() { for try in $(seq 300); do if "$@"; then return; fi; sleep 0.1; done; echo "never: $*"; exit 1; }
not() { ! "$@"; }
until_ {docker}/is-ready
rm /run/wsforward/ready
until_ not {docker}/is-ready
kill -WINCH $!
wait $!
echo "ended with $?"
"""


def test_image_is_in_service_until_its_ready_file_is_gone(module, scratch):
    need_namespaces()
    root = scratch / "image"
    configuration = image(root, module, (CONTRIB / "docker" / "site.conf").read_text())
    programs = root / "bin"
    programs.mkdir()
    # As the image's: httpd in the foreground.
    (programs / "httpd-foreground").write_text(f'#!/bin/sh\nexec {paths.httpd()} -f "{configuration}" -DFOREGROUND\n')
    (programs / "httpd-foreground").chmod(0o755)
    script = CONTAINER.replace("{docker}", str(CONTRIB / "docker"))
    done = subprocess.run([*NAMESPACES, "bash", "-c", script],
                          capture_output=True, text=True, timeout=60,
                          env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "BACKEND": "http://127.0.0.1:8080"})  # fmt: skip
    assert done.stdout == "ended with 0\n", done.stdout + done.stderr + (root / "error.log").read_text()


@pytest.mark.skipif(os.environ.get("WSF_STRESS") != "long", reason="takes a quarter of an hour: WSF_STRESS=long")
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_steps_of_the_dockerfile_in_clean_roots():
    """Where no engine is; what it makes is started, has tunnels, and stops gracefully."""
    folder = paths.ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "image"
    script = paths.ROOT / "tests" / "package" / "image_root.py"
    done = subprocess.run(["unshare", "--mount", sys.executable, script, folder], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "ok", done.stdout[-5000:] + done.stderr[-5000:]


def test_compose_file_waits_for_a_graceful_stop():
    yaml = pytest.importorskip("yaml")
    www = yaml.safe_load((CONTRIB / "docker" / "compose.yaml").read_text())["services"]["www"]
    context = (CONTRIB / "docker" / www["build"]["context"]).resolve()
    assert context == paths.ROOT and context / www["build"]["dockerfile"] == DOCKERFILE
    assert int(www["stop_grace_period"].removesuffix("s")) > seconds("GracefulShutdownTimeout")
    [said] = re.findall(r"--stop-timeout (\d+)", DOCKERFILE.read_text())
    assert int(said) > seconds("GracefulShutdownTimeout")


# Kubernetes.


def manifests():
    """By their kind."""
    yaml = pytest.importorskip("yaml")
    return {one["kind"]: one for one in yaml.safe_load_all(MANIFESTS.read_text())}


@pytest.mark.slow
@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_takes_the_manifests(version):
    """By its own schemas; nothing that they do not know is there."""
    validator = pytest.importorskip("kubernetes_validate")
    found = manifests()
    assert {*found} == {"ConfigMap", "Deployment", "PodDisruptionBudget", "Service"}
    for manifest in found.values():
        validator.validate(manifest, version, strict=True)
    container = found["Deployment"]["spec"]["template"]["spec"]["containers"][0]
    container["readinesProbe"] = container.pop("readinessProbe")
    with pytest.raises(validator.ValidationError):
        validator.validate(found["Deployment"], version, strict=True)


def test_kubernetes_waits_for_a_graceful_stop():
    found = manifests()
    pod = found["Deployment"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    [file] = re.findall("^WSForwardReadyFile (.*)$", SETTINGS, re.M)
    before = container["lifecycle"]["preStop"]["exec"]["command"][-1]
    assert f"rm -f {file}" in before
    waits = sum(map(int, re.findall(r"sleep (\d+)", before)))
    assert pod["terminationGracePeriodSeconds"] > waits + seconds("GracefulShutdownTimeout")
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    probe = container["readinessProbe"]["httpGet"]
    assert probe["path"] == "/wsforward-status?ready" and f"Listen {ports[probe['port']]}\n" in SETTINGS
    # A node that is taken out must not be killed for it.
    assert "httpGet" not in container["livenessProbe"]
    labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
    for kind, selector in (("Deployment", "matchLabels"), ("PodDisruptionBudget", "matchLabels"), ("Service", None)):
        chosen = found[kind]["spec"]["selector"]
        assert (chosen[selector] if selector else chosen) == labels


def test_site_of_the_pods_is_that_of_the_image():
    site = manifests()["ConfigMap"]["data"]["site.conf"]
    own = re.sub("^#.*\n", "", (CONTRIB / "docker" / "site.conf").read_text(), flags=re.M)
    assert site.replace("http://app:8080", "${BACKEND}").split() == own.split()


# IPVS.


@pytest.mark.parametrize("wrong", [False, True], ids=["as it is", "misspelt"])
def test_keepalived_takes_the_example(tmp_path, wrong):
    unpacked = Path(os.environ.get("WSF_UNPACKED", "/nonexistent"))
    program = shutil.which("keepalived", path=f"/usr/sbin:{unpacked / 'usr/sbin'}")
    if not program:
        pytest.skip("no keepalived (Debian: keepalived, installed or unpacked below WSF_UNPACKED)")
    text = (CONTRIB / "ipvs" / "keepalived.conf").read_text()
    assert text.count("real_server ") == text.count("inhibit_on_failure") == text.count("path /wsforward-status?ready")
    file = tmp_path / "keepalived.conf"
    file.write_text(text.replace("inhibit_on", "inhibited_on") if wrong else text)
    libraries = ":".join(str(folder) for folder in unpacked.glob("**/lib/*-linux-gnu"))
    done = subprocess.run([program, "-t", "-n", "-l", "-f", file], capture_output=True, text=True, timeout=60,
                          env={**os.environ, "LD_LIBRARY_PATH": libraries})  # fmt: skip
    assert bool(done.returncode) == wrong, done.stdout + done.stderr
