"""PostgreSQL with pgvector below ERA_HOME, with nothing installed but Python: the default database.

``hold(home)`` starts it where it does not run and returns a lease with its URL; when the last lease of any
process is given up, or its process dies, the server stops.
"""

from __future__ import annotations

from era_ingest.store.embedded.server import Lease, ServerStatus, hold, status, stop

__all__ = ["Lease", "ServerStatus", "hold", "status", "stop"]
