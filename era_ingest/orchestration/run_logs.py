"""What Dagster says of a run, as the same lines as all others: with run, job and step, as JSON or for the console."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import dagster as dg
from dagster._core.execution import context_creation_job, host_mode
from dagster._core.utils import coerce_valid_log_level

from era_ingest.core.redaction import Redactor
from era_ingest.logs import StandardErrorHandler, build_formatter
from era_ingest.orchestration.jobs import JOB_TAG
from era_ingest.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dg.logger(
    {
        "log_level": dg.Field(str, is_required=False, default_value="INFO", description="The least level."),
        "name": dg.Field(str, is_required=False, default_value="dagster", description="The logger's name."),
    },
    description="Lines as ERA_LOG_FORMAT says, on standard error.",
)
def run_logger(init_context: dg.InitLoggerContext) -> logging.Logger:
    """Return the logger of one run."""
    settings = load_settings()
    config = init_context.logger_config
    logger = logging.Logger(config["name"], coerce_valid_log_level(config["log_level"]))  # noqa: LOG001 - Dagster's way
    handler = StandardErrorHandler()
    handler.setFormatter(build_formatter(settings.log_format, Redactor(settings.secrets)))
    handler.addFilter(_tell_apart)
    logger.addHandler(handler)
    return logger


def use_for_runs() -> None:
    """Make it the logger of runs whose config names none, which are nearly all.

    Dagster has no setting for that: it takes its own there, whatever ``Definitions(loggers=...)`` says.
    """
    for module in (context_creation_job, host_mode):
        assert "default_system_loggers" in vars(module)
        vars(module).update(default_system_loggers=_instead)


def _instead(
    instance: dg.DagsterInstance | None,
) -> Sequence[tuple[dg.LoggerDefinition, Mapping[str, object]]]:
    del instance
    level = load_settings().log_level or "info"
    return [(run_logger, {"name": "dagster", "log_level": level.upper()})]


def _tell_apart(record: logging.LogRecord) -> bool:
    """Put what Dagster folds into one text back into fields."""
    meta = getattr(record, "dagster_meta", None)
    if meta is None:
        return True
    event = meta["dagster_event"]
    error = getattr(event.event_specific_data, "error", None) if event is not None else None
    facts = {
        "run": meta["run_id"],
        "job": meta["job_tags"].get(JOB_TAG),
        "graph": meta["job_name"],
        "step": meta["step_key"],
        "event": event.event_type_value.lower().replace("pipeline_", "run_") if event is not None else None,
        "error": error.to_string() if error is not None else None,
    }
    vars(record).update({name: value for name, value in facts.items() if value})
    record.msg, record.args = meta["orig_message"], ()
    return True
