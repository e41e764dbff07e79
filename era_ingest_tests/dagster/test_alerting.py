"""The alert sensor tick by tick: on real runs, Dagster's real record of them, and a real HTTP server."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest
from dagster._core.definitions.freshness import FreshnessState, FreshnessStateChange

from era_ingest.orchestration import alerting
from era_ingest.orchestration.alerting import WATCHED, alert_sensor, with_freshness
from era_ingest.orchestration.assets.ingest import load_books
from era_ingest.orchestration.resources import EraResource
from era_ingest_tests.webhook_server import SECRET, Webhook, running_webhook

if TYPE_CHECKING:
    from collections.abc import Iterator


class Desk:
    """Who is on call, and the daemon that ticks."""

    def __init__(self, instance: dg.DagsterInstance, hook: Webhook) -> None:
        self.instance = instance
        self.hook = hook
        self.cursor: str | None = None

    def tick(self) -> str:
        """Evaluate the sensor; return what it says."""
        with dg.build_sensor_context(
            instance=self.instance,
            cursor=self.cursor,
            sensor_name=alert_sensor.name,
            resources={"era": EraResource()},
        ) as context:
            result = alert_sensor(context)
            self.cursor = context.cursor
        assert isinstance(result, dg.SkipReason)
        return str(result.skip_message)

    def fail(self, message: str = "the well is dry", **tags: str) -> str:
        """Let a run fail; return its id."""

        @dg.op
        def draw() -> None:
            raise dg.Failure(message, allow_retries=False)

        @dg.job(config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}})
        def water() -> None:
            draw()

        return water.execute_in_process(instance=self.instance, raise_on_error=False, tags=tags).run_id

    def told(self) -> list[dict[str, Any]]:
        """Return what was told since the last time."""
        bodies, self.hook.bodies = self.hook.bodies, []
        return bodies


@pytest.fixture
def desk(dagster_instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """With a webhook for plain JSON, and a first tick behind it."""
    with running_webhook() as hook:
        monkeypatch.setenv("ERA_ALERT_WEBHOOK", hook.url)
        monkeypatch.setenv("ERA_ALERT_FORMAT", "json")
        monkeypatch.setenv("ERA_EMBED_API_KEY", "sk-topsecret")
        opened = Desk(dagster_instance, hook)
        opened.fail("long ago")
        opened.tick()
        assert opened.told() == []
        yield opened


def test_a_failed_run_is_told_once_with_its_error_and_no_secret(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What failed before is not told; one that is tried again neither; a link stands there if there is a UI."""
    monkeypatch.setenv("ERA_DAGSTER_URL", "http://ui")
    desk.instance.add_run_tags(desk.fail("retried"), {"dagster/will_retry": "true"})
    run_id = desk.fail(
        f"sk-topsecret was refused by {desk.hook.url}", **{"era/job": "j1", "dagster/partition": "b"}
    )
    assert desk.tick() == "1 alerts were sent"
    (alert,) = desk.told()
    assert (alert["kind"], alert["run_id"], alert["job_id"]) == ("run_failed", run_id, "j1")
    assert alert["link"] == f"http://ui/runs/{run_id}"
    assert re.fullmatch(r"The run \w{8} of water \(b\) failed", alert["title"])
    assert alert["detail"] == "*** was refused by ***"
    assert desk.tick() == "0 alerts were sent"
    assert desk.told() == []


def test_an_alert_that_cannot_be_delivered_waits_and_then_arrives_once(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tick ends in time and in order; ticks until the pause is over send nothing."""
    monkeypatch.setattr("era_ingest.clients.webhook.BUDGET_S", 0.1)
    now = [1_000_000_000.0]
    desk.hook.behaviour = 500
    first = desk.fail()
    monkeypatch.setattr(alerting, "FIRST_PAUSE_S", 3600.0)
    said = desk.tick()
    assert "500" in said
    assert SECRET not in said
    attempts = desk.hook.attempts
    second = desk.fail()
    desk.hook.behaviour = 200
    assert "tried again in" in desk.tick()
    assert desk.hook.attempts == attempts
    assert desk.cursor is not None
    desk.cursor = re.sub(r'"not_before": [\d.]+', f'"not_before": {now[0]}', desk.cursor)
    desk.tick()
    assert [alert["run_id"] for alert in desk.told()] == [first, second]
    assert '"failures": 0' in desk.cursor


def test_one_refused_alert_does_not_hold_up_the_others(desk: Desk) -> None:
    """Nor is it sent for ever."""
    desk.fail("refused")
    second = desk.fail()
    desk.hook.behaviour, desk.hook.then = 400, 200
    assert "refused an alert with 400" in desk.tick()
    assert [alert["run_id"] for alert in desk.told()] == [second]
    desk.tick()
    assert desk.told() == []


def test_many_failures_at_once_are_one_alert(desk: Desk) -> None:
    """It names the first ones and says how many there are."""
    for number in range(8):
        desk.fail(f"failure {number}")
    desk.tick()
    (alert,) = desk.told()
    assert (alert["kind"], alert["title"]) == ("runs_failed", "8 runs failed")
    assert "failure 4" in alert["detail"]
    assert "and 3 more" in alert["detail"]
    desk.tick()
    assert desk.told() == []


def test_without_a_webhook_nothing_is_kept_for_later(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set again, it is told what fails from then on."""
    monkeypatch.delenv("ERA_ALERT_WEBHOOK")
    desk.fail()
    assert "not set" in desk.tick()
    monkeypatch.setenv("ERA_ALERT_WEBHOOK", desk.hook.url)
    later = desk.fail()
    desk.tick()
    assert [alert["run_id"] for alert in desk.told()] == [later]


def test_an_asset_that_is_late_is_told_once_and_once_when_it_is_fresh_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the states that Dagster's freshness daemon records."""
    monkeypatch.setenv("ERA_ALERT_LATE_H", "24")
    kinds = []
    for state in (FreshnessState.PASS, FreshnessState.FAIL, FreshnessState.FAIL, FreshnessState.PASS):
        change = FreshnessStateChange(
            key=WATCHED, new_state=state, previous_state=FreshnessState.UNKNOWN, state_change_timestamp=1e9
        )
        desk.instance._report_runless_asset_event(asset_event=change)
        desk.tick()
        kinds.append([alert["kind"] for alert in desk.told()])
    assert kinds == [[], ["asset_late"], [], ["asset_fresh"]]


def test_the_policy_stands_at_the_vector_tables_where_it_is_asked_for() -> None:
    """And nowhere where it is not."""
    assert with_freshness(load_books, None) is load_books
    policies = {spec.key: spec.freshness_policy for spec in with_freshness(load_books, 2.0).specs}
    assert [key for key, policy in policies.items() if policy is not None] == [WATCHED]
