"""A program that uses an embedded server, for tests of what happens when it ends in one way or another.

``python embedded_client.py HOME`` holds the server, prints its URL on one line, and leaves when its standard
input ends.
"""

from __future__ import annotations

import sys
from pathlib import Path

from era_ingest.store.embedded import hold

if __name__ == "__main__":
    with hold(Path(sys.argv[1]), durable=False) as lease:
        sys.stdout.write(lease.url + "\n")
        sys.stdout.flush()
        sys.stdin.read()
