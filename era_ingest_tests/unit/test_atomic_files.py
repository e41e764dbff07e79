"""Temporary files belong to whoever holds their lock; those of the dead are swept."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from era_ingest.store import atomic
from era_ingest.store.atomic import GrowingFile, prepare_bytes, sweep_temporaries

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

WRITER = """
import sys, time
from pathlib import Path
from era_ingest.store.atomic import prepare_bytes

pending = prepare_bytes(Path(sys.argv[1]), b"whole")
print(pending.temporary, flush=True)
time.sleep(600)
"""


def test_a_killed_writers_file_goes_at_once_a_living_ones_stays(tmp_path: Path) -> None:
    """Across processes, without regard to age: the kernel lets the lock go with the writer."""
    command = [sys.executable, "-c", WRITER, str(tmp_path / "file")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        temporary = writer.stdout.readline().strip()
        os.utime(temporary, (0, 0))
        assert sweep_temporaries(tmp_path, 1e12) == 0
        assert os.listdir(tmp_path) == [os.path.basename(temporary)]  # noqa: PTH119, PTH208
        writer.kill()
    assert sweep_temporaries(tmp_path, 0.0) == 1
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_still_growing_is_its_writers(tmp_path: Path) -> None:
    """From its first moment to its rename."""
    growing = GrowingFile(tmp_path / "file")
    assert sweep_temporaries(tmp_path, 1e12) == 0
    growing.append(b"whole")
    pending = growing.finish()
    assert sweep_temporaries(tmp_path, 1e12) == 0
    pending.publish()
    assert (tmp_path / "file").read_bytes() == b"whole"
    assert sweep_temporaries(tmp_path, 1e12) == 0


def test_a_sweeper_that_is_quicker_than_the_lock_costs_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer whose new file is swept before it is locked makes another."""
    flock = fcntl.flock
    swept = []

    def come_between(handle: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        swept.append(sweep_temporaries(tmp_path, 0.0))
        flock(handle, operation)

    monkeypatch.setattr(fcntl, "flock", come_between)
    prepare_bytes(tmp_path / "file", b"whole").publish()
    assert swept == [1]
    assert (tmp_path / "file").read_bytes() == b"whole"


def test_without_locks_age_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the file system refuses locks, what is over an hour older than a new file is nobody's."""

    def refuse(_handle: int, _operation: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    old, young = (prepare_bytes(tmp_path / name, b"whole") for name in ("old", "young"))
    now = os.stat(young.temporary).st_mtime  # noqa: PTH116 - a str, as the product has it
    os.utime(old.temporary, (now - 7200, now - 7200))
    assert sweep_temporaries(tmp_path, now) == 1
    old.discard()
    young.publish()
    assert (tmp_path / "young").read_bytes() == b"whole"


def test_what_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    """Other names, and links, which are not followed."""
    (tmp_path / "file.tmp").write_text("")
    (tmp_path / f"{atomic.TEMPORARY_PREFIX}link{atomic.TEMPORARY_SUFFIX}").symlink_to(tmp_path / "file.tmp")
    assert sweep_temporaries(tmp_path, 1e12) == 0
    assert (tmp_path / "file.tmp").exists()
