"""What contrib/ has: it uses metrics that exist, and Prometheus's own tools take it."""

import json
import re

import pytest

from harness import paths
from harness.prometheus import promtool

CONTRIB = paths.ROOT / "contrib"
ALERTS, ALERTS_TEST = CONTRIB / "prometheus" / "alerts.yml", CONTRIB / "prometheus" / "alerts_test.yml"
DASHBOARD = json.loads((CONTRIB / "grafana" / "wsforward.json").read_text())
#: What the module answers, to which the crate's own tests hold it.
METRICS = paths.ROOT / "src" / "report" / "tests" / "metrics.txt"
OPERATIONS = (paths.ROOT / "docs" / "operations.md").read_text()
#: What Prometheus puts on each sample.
TARGET_LABELS = {"instance", "job"}


def exported():
    """The labels of each metric, by its name as in a query."""
    found = {}
    for line in METRICS.read_text().split("\n"):
        if line and not line.startswith("#"):
            name, labels = re.fullmatch(r'(\w+)(?:\{((?:[^"}]|"(?:\\.|[^"\\])*")*)\})? [\d.]+', line).groups()
            found.setdefault(name, set()).update(re.findall(r'(\w+)="(?:\\.|[^"\\])*"', labels or ""))
    return found


EXPORTED = exported()
FAMILIES = set(re.findall(r"^# TYPE (\w+) ", METRICS.read_text(), re.M))


def queries():
    """(where it stands, query) of each alert and each panel."""
    text = re.sub(r"^ *#.*\n", "", ALERTS.read_text(), flags=re.M)
    for name, query in re.findall(r"alert: (\w+)\n +expr: (?:>\n)?(.*?)\n +(?:for|labels): ", text, re.S):
        yield name, " ".join(query.split())
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]


QUERIES = [*queries()]
ALERT_NAMES = re.findall(r"alert: (\w+)", ALERTS.read_text())


def test_queries_are_found():
    assert len(EXPORTED) >= 18 and len(ALERT_NAMES) >= 10
    assert {name for name, _ in QUERIES} >= set(ALERT_NAMES)
    assert len(QUERIES) >= len(ALERT_NAMES) + 20


@pytest.mark.parametrize("name, query", QUERIES)
def test_query_uses_what_exists(name, query):
    """Metrics, and of each of them labels that it has."""
    used = re.findall(r"\bwsforward_\w+", query)
    assert used and set(used) <= set(EXPORTED), name
    for metric, labels in re.findall(r"\b(wsforward_\w+)\{([^}]*)\}", query):
        chosen = set(re.findall(r"(\w+)(?:=~|!~|!=|=)", labels))
        assert chosen <= EXPORTED[metric] | TARGET_LABELS, (name, metric)
    any_of_them = set().union(*(EXPORTED[metric] for metric in used))
    for labels in re.findall(r"\b(?:by|without|on|ignoring) *\(([\w, ]*)\)", query):
        assert set(re.findall(r"\w+", labels)) <= any_of_them | TARGET_LABELS, name


def test_reasons_are_those_of_the_code():
    """A pattern of others finds nothing, for ever."""
    reasons = (paths.ROOT / "src" / "shared" / "reasons.rs").read_text()
    for _, query in QUERIES:
        for pattern in re.findall(r'reason=~"([^"]*)"', query):
            for reason in pattern.split("|"):
                assert f'= "{reason}", "' in reasons, reason


def test_dashboard_can_be_imported():
    assert DASHBOARD["title"] and DASHBOARD["uid"] and "id" not in DASHBOARD
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        position = panel["gridPos"]
        assert position["x"] + position["w"] <= 24
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "${datasource}"
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            [(metric, label)] = re.findall(r"label_values\((wsforward_\w+)(?:\{.*\})?, (\w+)\)", variable["query"]["query"])
            assert label in EXPORTED[metric] | TARGET_LABELS


def test_promtool_has_nothing_to_say_of_the_metrics():
    assert promtool("check", "metrics", input=METRICS.read_text()) == ""


@pytest.mark.slow
def test_promtool_takes_the_alerts():
    assert f"{len(ALERT_NAMES)} rules found" in promtool("check", "rules", ALERTS)
    assert "SUCCESS" in promtool("test", "rules", ALERTS_TEST)


def test_promtool_takes_the_queries_of_the_dashboard(tmp_path):
    rules = [
        {"record": f"panel:{number}", "expr": query.replace("$__rate_interval", "5m")}
        for number, (_, query) in enumerate(QUERIES)
    ]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", file)


@pytest.mark.parametrize("alert", ALERT_NAMES)
def test_alert_has_cases_and_is_documented(alert):
    """One in which it fires, and one in which it does not."""
    cases = ALERTS_TEST.read_text()
    assert re.search(rf"alertname: {alert}\n +exp_alerts:\n", cases)
    assert re.search(rf"\{{eval_time: \w+, alertname: {alert}\}}", cases)
    assert re.search(rf"\b{alert}\b", OPERATIONS)


def test_every_metric_is_documented_and_no_other():
    rows = re.findall(r"^\| `(wsforward_\w+)` \|", OPERATIONS, re.M)
    assert len(rows) == len(set(rows))
    assert set(rows) == FAMILIES
    for name in re.findall(r"\bwsforward_\w+", OPERATIONS):
        assert name in EXPORTED or name in FAMILIES, name
