"""Prometheus itself asks the status page."""

import re

import pytest

from harness import paths, relayed, statuspage
from harness.prometheus import Prometheus, promtool

EXPECTED = (paths.ROOT / "src" / "report" / "tests" / "metrics.txt").read_text()
OPEN_METRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"


@pytest.fixture
def page(httpd, backend, client):
    """The status page of a server with two tunnels; one is closed again."""
    origin = backend()
    server = httpd()
    page = statuspage.start(server, client, origin)
    relayed.opened(server, client(server.port)).echoes(b"hello")
    talk = relayed.opened(server, client(server.port))
    page.wait_tunnels(2)
    talk.close()
    page.wait_tunnels(1)
    return page


@pytest.fixture
def prometheus(page, tmp_path):
    made = Prometheus(tmp_path, page.port, "/status", {"metrics": [""]}, [paths.ROOT / "contrib/prometheus/alerts.yml"])
    yield made
    made.close()


def families(text):
    return dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.M))


def test_prometheus_takes_all_of_it(page, prometheus):
    prometheus.wait('up{job="wsforward"}', 1)
    prometheus.wait("sum(wsforward_tunnels)", 1)
    prometheus.wait("sum(wsforward_tunnels_opened_total)", 2)
    prometheus.wait("sum(wsforward_tunnels_closed_total)", 1)
    prometheus.wait("wsforward_ready", 1)
    prometheus.wait('wsforward_tunnel_duration_seconds_bucket{le="+Inf"}', 1)
    # It asked for OpenMetrics, and that is what it was given.
    types = prometheus.types()
    assert (types["wsforward_build"], types["wsforward_handshakes"]) == ("info", "counter")
    # What is documented, and no more.
    found = {labels["__name__"] for labels, _ in prometheus.query('{__name__=~"wsforward_.+"}')}
    assert found <= set(re.findall(r"^(\w+)[ {]", EXPECTED, re.M))
    assert not [target["lastError"] for target in prometheus.targets() if target["lastError"]]
    assert prometheus.query('ALERTS{alertstate="firing"}') == []


def test_answers_are_what_was_asked_for(page):
    text = page.get("metrics")
    assert text.get("Content-Type") == "text/plain; version=0.0.4; charset=utf-8"
    assert promtool("check", "metrics", input=text.body.decode()) == ""
    assert families(text.body.decode()) == families(EXPECTED)
    open_metrics = page.get("metrics", fields=[("Accept", OPEN_METRICS)])
    assert open_metrics.get("Content-Type") == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert open_metrics.body.endswith(b"\n# EOF\n")


def test_labels_are_those_that_are_documented(page):
    expected = labels(EXPECTED)
    found = labels(page.get("metrics").body.decode())
    assert {"wsforward_tunnels", "wsforward_tunnels_closed_total", "wsforward_relay_thread_cpu_seconds_total"} <= set(found)
    for name, names in found.items():
        assert names == expected[name], name


def labels(text):
    """The names of the labels of each metric."""
    found = {}
    for line in text.split("\n"):
        if sample := statuspage.SAMPLE.match(line):
            found[sample[1]] = re.findall(r'(\w+)="(?:\\.|[^"\\])*"', sample[2] or "")
    return found
