"""The project's definitions with sensors that tick every two seconds, where a test would mostly wait for ticks."""

from __future__ import annotations

from era_ingest.definitions import defs
from era_ingest.orchestration import sensors

__all__ = ["defs"]

TICK_S = 2
sensors.QUIET_S = float(TICK_S)
for sensor in (sensors.landing_sensor, sensors.ministers_sensor):
    sensor._min_interval = TICK_S
