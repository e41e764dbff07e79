"""Write deploy/monitoring/grafana-dashboard.json: ``python tools/write_dashboard.py``.

Replicas of the service show the same figures of the database: ``M`` takes one of them. The test of the dashboard asks
a real Prometheus every query in it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent.parent / "deploy" / "monitoring" / "grafana-dashboard.json"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH = 24

Panel = tuple[str, str, str, list[tuple[str, str]]]
"""Title, kind, unit, and queries with their legends."""


def one(metric: str) -> str:
    """Return the query of a gauge."""
    return f"max without (instance) ({metric})"


def rate(metric: str, by: str = "") -> str:
    """Return the query of a counter of the database, a second."""
    inner = f"max without (instance) (rate({metric}[$__rate_interval]))"
    return f"sum by ({by}) ({inner})" if by else f"sum({inner})"


def quantile(share: float, metric: str, by: str = "") -> str:
    """Return the query of a quantile of a histogram, over the last rate interval."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({labels}) (rate({metric}_bucket[$__rate_interval])))"


REQUESTS = "era_embedding_requests_total"
HELD = "era_embedding_held_seconds_total"
LATENCY = "era_embedding_request_duration_seconds"
HTTP = "era_http_request_duration_seconds"
ROWS: list[tuple[str, int, int, list[Panel]]] = [
    (
        "Now",
        8,
        4,
        [
            ("Parts that answer", "stat", "none", [("sum(min without (instance) (era_up))", "of 3")]),
            ("Runs at work", "stat", "none", [(one("era_runs_at_work"), "")]),
            ("Runs waiting", "stat", "none", [(one("era_queue_depth"), "")]),
            ("Texts left", "stat", "none", [(one("era_texts_left"), "")]),
            ("Books", "stat", "none", [(one("era_books"), "")]),
            ("Rows", "stat", "none", [(f"sum({one('era_rows')})", "")]),
            ("In quarantine", "stat", "none", [(f"sum({one('era_quarantine_rows')}) or vector(0)", "")]),
            (
                "Cost, 24 h",
                "stat",
                "none",
                [("sum(max without (instance) (increase(era_embedding_cost_total[24h])))", "")],
            ),
        ],
    ),
    (
        "Throughput",
        3,
        8,
        [
            (
                "Texts a second",
                "timeseries",
                "cps",
                [
                    (rate("era_texts_embedded_total"), "embedded"),
                    (rate("era_texts_reused_total"), "reused"),
                    (rate("era_texts_refused_total") + " or vector(0)", "refused"),
                ],
            ),
            (
                "Chunks and rows a second",
                "timeseries",
                "cps",
                [
                    (rate("era_chunks_total", "kind"), "{{kind}}"),
                    (rate("era_rows_written_total"), "rows written"),
                    (rate("era_rows_deleted_total") + " or vector(0)", "rows deleted"),
                ],
            ),
            (
                "Busy stages (1: all the time)",
                "timeseries",
                "none",
                [(rate("era_stage_busy_seconds_total", "stage"), "{{stage}}")],
            ),
        ],
    ),
    (
        "Embedder",
        3,
        8,
        [
            (
                "Requests a second, by outcome",
                "timeseries",
                "reqps",
                [(rate(REQUESTS, "outcome"), "{{outcome}}")],
            ),
            (
                "Latency of good requests",
                "timeseries",
                "s",
                [(quantile(share, LATENCY), f"p{share * 100:.0f}") for share in (0.5, 0.95, 0.99)],
            ),
            (
                "In flight and allowed",
                "timeseries",
                "none",
                [(one("era_embedding_in_flight"), "in flight"), (one("era_embedding_limit"), "allowed")],
            ),
            (
                "What holds requests back (share of time)",
                "timeseries",
                "percentunit",
                [
                    (
                        f"{rate(HELD, 'by')} / on () group_left () {rate(HELD)}",
                        "{{by}}",
                    )
                ],
            ),
            (
                "Rate limits and breaker",
                "timeseries",
                "none",
                [
                    (rate(REQUESTS + '{outcome="rate_limited"}'), "told to slow down, a second"),
                    (one("era_embedding_breaker_open"), "breakers open"),
                    (rate("era_embedding_retries_total") + " or vector(0)", "retries a second"),
                ],
            ),
            (
                "Tokens a second, and cost an hour",
                "timeseries",
                "none",
                [
                    (rate("era_embedding_tokens_total", "model"), "{{model}}"),
                    (f"3600 * {rate('era_embedding_cost_total')}", "cost an hour"),
                ],
            ),
        ],
    ),
    (
        "Runs",
        3,
        8,
        [
            (
                "Runs by status",
                "timeseries",
                "none",
                [(one('era_runs{status!~"success|managed|suspended"}'), "{{status}}")],
            ),
            (
                "Queue",
                "timeseries",
                "none",
                [(one("era_queue_depth"), "waiting"), (one("era_queue_capacity"), "refused from here on")],
            ),
            (
                "Since the last success",
                "bargauge",
                "s",
                [
                    (f"time() - {one('era_run_last_success_timestamp_seconds')}", "run of {{job}}"),
                    (f"time() - {one('era_asset_last_success_timestamp_seconds')}", "{{asset}}"),
                ],
            ),
            (
                "Books that runs dealt with, an hour",
                "timeseries",
                "none",
                [(f"3600 * {rate('era_books_processed_total', 'status')}", "{{status}}")],
            ),
            (
                "Books waiting, domains behind",
                "timeseries",
                "none",
                [
                    (one("era_landing_waiting_books"), "books in the landing folder"),
                    (one("era_stale_domains"), "domains behind"),
                ],
            ),
            ("Quarantine by reason", "timeseries", "none", [(one("era_quarantine_rows"), "{{reason}}")]),
        ],
    ),
    (
        "Service",
        3,
        8,
        [
            (
                "Requests a second",
                "timeseries",
                "reqps",
                [
                    (
                        "sum by (route, status) (rate(era_http_requests_total[$__rate_interval]))",
                        "{{route}} {{status}}",
                    )
                ],
            ),
            (
                "Time until the answer begins, p95",
                "timeseries",
                "s",
                [(quantile(0.95, HTTP, "route"), "{{route}}")],
            ),
            (
                "Process",
                "timeseries",
                "none",
                [
                    ('rate(process_cpu_seconds_total{job="era"}[$__rate_interval])', "cores {{instance}}"),
                    ("era_http_requests_in_progress", "requests in progress {{instance}}"),
                ],
            ),
        ],
    ),
]


def build_dashboard() -> dict[str, Any]:
    """Return the dashboard as Grafana (10 or newer) imports it."""
    panels: list[dict[str, Any]] = []
    y = 0
    for title, columns, height, row in ROWS:
        panels.append(
            {
                "id": len(panels) + 1,
                "type": "row",
                "title": title,
                "collapsed": False,
                "panels": [],
                "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1},
            }
        )
        y += 1
        width = WIDTH // columns
        for number, panel in enumerate(row):
            place = {"x": number % columns * width, "y": y + number // columns * height}
            panels.append(_panel(len(panels) + 1, panel, {**place, "w": width, "h": height}))
        y += -(-len(row) // columns) * height
    return {
        "title": "era_ingest",
        "uid": "era-ingest",
        "description": "Ingestion, embedder, queue, corpus and service of era_ingest.",
        "tags": ["era_ingest"],
        "editable": True,
        "refresh": "30s",
        "schemaVersion": 38,
        "time": {"from": "now-6h", "to": "now"},
        "templating": {
            "list": [
                {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
            ]
        },
        "panels": panels,
    }


def _panel(number: int, panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    title, kind, unit, queries = panel
    return {
        "id": number,
        "type": kind,
        "title": title,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": SOURCE,
                "expr": query,
                "legendFormat": legend,
                "instant": kind != "timeseries",
                "range": kind == "timeseries",
            }
            for index, (query, legend) in enumerate(queries)
        ],
    }


def main() -> None:
    """Write the file."""
    FILE.write_text(json.dumps(build_dashboard(), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
