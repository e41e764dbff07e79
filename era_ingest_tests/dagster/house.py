"""One installation whose daemon is the test: sensors tick by tick, runs when they are asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg
import psycopg

from era_ingest.definitions import defs
from era_ingest.orchestration import recording
from era_ingest.orchestration import sensors as sensors_module
from era_ingest.orchestration.resources import EraResource
from era_ingest.orchestration.sensors import landing_sensor

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pytest


@dataclass
class House:
    """One installation, whose daemon is the test.

    Attributes:
        instance: Dagster's.
        landing: The landing folder.
        ministers: The ministers' folder.
        url: The database.
        cursors: What each sensor's last tick left.
    """

    instance: dg.DagsterInstance
    landing: Path
    ministers: Path
    url: str
    cursors: dict[str, str | None]

    def evaluate(self, sensor: dg.SensorDefinition) -> dg.SensorResult | dg.SkipReason:
        """Evaluate a sensor; nothing of what it says is kept, as if the daemon were killed then."""
        with dg.build_sensor_context(
            instance=self.instance,
            cursor=self.cursors.get(sensor.name),
            sensor_name=sensor.name,
            resources={"era": EraResource()},
        ) as context:
            result = sensor(context)
        assert isinstance(result, dg.SensorResult | dg.SkipReason)
        return result

    def tick(self, sensor: dg.SensorDefinition) -> dg.SensorResult | dg.SkipReason:
        """Evaluate a sensor, apply what it says about partitions and its cursor, as the daemon does."""
        result = self.evaluate(sensor)
        if isinstance(result, dg.SensorResult):
            self.cursors[sensor.name] = result.cursor or self.cursors.get(sensor.name)
            for request in result.dynamic_partitions_requests or []:
                if isinstance(request, dg.AddDynamicPartitionsRequest):
                    self.instance.add_dynamic_partitions(request.partitions_def_name, request.partition_keys)
                else:
                    for key in request.partition_keys:
                        self.instance.delete_dynamic_partition(request.partitions_def_name, key)
        return result

    def run(self, job: str, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
        """Execute a requested run."""
        return self.execute(job, request.run_config, request.tags)

    def execute(
        self, job: str, config: Mapping[str, object], tags: Mapping[str, str]
    ) -> dg.ExecuteInProcessResult:
        return defs.resolve_job_def(job).execute_in_process(
            instance=self.instance,
            run_config={**config, "loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            tags=dict(tags),
            raise_on_error=False,
        )

    def load_what_arrived(self) -> dg.ExecuteInProcessResult:
        """Tick the landing sensor and execute the run it asks for."""
        return self.run("ingest", the_request(self.tick(landing_sensor)))

    def count(self, query: str) -> int:
        with psycopg.connect(self.url) as connection:
            row = connection.execute(query).fetchone()
            assert row is not None
            return int(row[0])


def open_house(
    instance: dg.DagsterInstance, url: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> House:
    """Return an installation with an empty landing folder, whose settings stand in the environment."""
    landing, ministers = folder / "landing", folder / "ministers"
    landing.mkdir()
    for name, value in {
        "ERA_EMBEDDER": "hashing",
        "ERA_LANDING_DIR": str(landing),
        "ERA_MINISTERS_DIR": str(ministers),
        "ERA_SETTLE_S": "0",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sensors_module, "QUIET_S", 0.0)
    monkeypatch.setattr(recording, "FIRST_RETRY_S", 0)
    return House(instance, landing, ministers, url, {})


def the_request(result: dg.SensorResult | dg.SkipReason) -> dg.RunRequest:
    assert isinstance(result, dg.SensorResult), result
    assert result.run_requests is not None
    assert len(result.run_requests) == 1
    return result.run_requests[0]


def the_reason(result: dg.SensorResult | dg.SkipReason) -> str:
    assert isinstance(result, dg.SkipReason), result
    assert result.skip_message is not None
    return result.skip_message
