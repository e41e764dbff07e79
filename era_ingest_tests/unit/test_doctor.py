"""The doctor's checks of folders and disks."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from era_ingest.pipelines.doctor import Health, check_disk, check_folder, check_landing

if TYPE_CHECKING:
    from pathlib import Path


def test_a_folder_that_can_be_made_is_well(tmp_path: Path) -> None:
    """A folder need not exist yet."""
    assert check_folder("state", tmp_path / "a" / "b").health is Health.OK


def test_a_file_in_the_place_of_a_folder_is_found(tmp_path: Path) -> None:
    """The detail names the path, the remedy says what to do."""
    (tmp_path / "file").write_text("")
    found = check_folder("state", tmp_path / "file")
    assert found.health is Health.FAILED
    assert str(tmp_path / "file") in found.detail
    assert found.remedy


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_folder_is_found(tmp_path: Path) -> None:
    """A folder without the right to write is a failure with a remedy."""
    tmp_path.chmod(0o500)
    try:
        found = check_folder("state", tmp_path)
    finally:
        tmp_path.chmod(0o700)
    assert found.health is Health.FAILED
    assert found.remedy


@pytest.mark.parametrize(
    ("free", "health"), [(1 << 20, Health.FAILED), (512 << 20, Health.WARNING), (10 << 30, Health.OK)]
)
def test_a_full_disk_is_found(tmp_path: Path, free: int, health: Health) -> None:
    """Below 64 MiB it is a failure, below 1 GiB a warning."""
    assert check_disk(tmp_path, free_bytes=free).health is health


def test_a_missing_landing_folder_is_a_warning(tmp_path: Path) -> None:
    """`era ingest PATH` needs none."""
    found = check_landing(tmp_path / "nowhere")
    assert found.health is Health.WARNING
    assert "mkdir" in found.remedy
