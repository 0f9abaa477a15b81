#!/bin/sh
# Checks what lies here as far as this machine can: the alert rules and their tests with promtool, every expression of
# the dashboard as a rule with promtool, the dashboard as JSON with unique panels. Says what it skipped.
set -eu
cd "$(dirname "$0")"

if command -v python3 >/dev/null; then
    python3 - <<'PY'
import json
board = json.load(open("isoloss.json"))
ids = [panel["id"] for panel in board["panels"]]
assert len(ids) == len(set(ids)), "panel ids repeat"
assert board["uid"] == "isoloss-lab", "links to the dashboard use its uid"
for panel in board["panels"]:
    for target in panel.get("targets", []):
        assert target["datasource"]["uid"] == "${datasource}", panel["title"]
print("dashboard: JSON, panel ids and data sources ok")
PY
else
    echo "SKIPPED: no python3, the dashboard's JSON is not checked" >&2
fi

if ! command -v promtool >/dev/null; then
    echo "SKIPPED: no promtool (package prometheus), alert rules and expressions are not checked" >&2
    exit 0
fi
promtool check rules alerts.yml
promtool test rules alerts.test.yml
if command -v python3 >/dev/null; then
    rules=$(mktemp)
    trap 'rm -f "$rules"' EXIT
    # promtool type-checks rules, not dashboards: each expression becomes a rule, its variables filled in.
    python3 - >"$rules" <<'PY'
import json, re
fill = {"$__rate_interval": "5m", "$job": ".*", "$sweep": ".*"}
print("groups:\n- name: dashboard\n  rules:")
for panel in json.load(open("isoloss.json"))["panels"]:
    for target in panel.get("targets", []):
        text = target["expr"]
        for name, value in fill.items():
            text = text.replace(name, value)
        assert not re.search(r"\$\w", text), text
        print(f"  - record: isoloss:panel_{panel['id']}_{target['refId']}\n    expr: {json.dumps(text)}")
PY
    promtool check rules "$rules" >/dev/null
    echo "dashboard: every expression is PromQL"
fi
