"""The ``era`` command: a thin skin over the pipelines; one module a group of commands.

Dagster is not imported here: what needs it (``era ingest``, ``era dev``) comes in as a function from
``era_ingest.__main__``, so that ``era search`` starts in a fraction of the time.
"""

from era_ingest.cli.app import Runners, cli

__all__ = ["Runners", "cli"]
