"""A full disk under the chunk files, the minister files and the database.

The disk is a small tmpfs of the test's own. Where mounting is not permitted the tests are skipped and say so.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from era_ingest.store.embedded import hold
from era_ingest_tests.faults.kit import Installation, differences, picture, write_corpus
from era_ingest_tests.faults.run_and_kill import PATIENCE
from era_ingest_tests.faults.scale import cases

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from era_ingest_tests.faults.conftest import Databases, Forge

CORPUS = 14
FILES_BYTES = 4 << 20
DATABASE_BYTES = 256 << 20


@contextmanager
def disk(place: Path, size: int) -> Iterator[Path]:
    """Mount a tmpfs of so many bytes."""
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "tmpfs", str(place)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(place: Path, room: int) -> Path:
    """Take all of a disk but so many bytes; return the file that takes it."""
    filler = place / "filler"
    free = shutil.disk_usage(place).free
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, free - room))
    return filler


async def ingest(forge: Forge, installation: Installation) -> int:
    return await forge.arun(installation, "era", "ingest", "-q", str(installation.landing))


@pytest.fixture(scope="module")
def wanted(
    forge: Forge, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Any]]:
    """What the books come to on a disk with room."""
    url = databases.create("disk_control")
    installation = Installation(tmp_path_factory.mktemp("disk"), url, {"ERA_EMBEDDER": "hashing"})
    write_corpus(installation.landing, CORPUS)
    assert asyncio.run(ingest(forge, installation)) == 0
    yield picture(installation)
    databases.drop("disk_control")


async def fill_and_ingest(
    forge: Forge, installation: Installation, folder: Path, room: int, free_after_s: float | None
) -> int:
    """Load other content of the same books onto a full disk, which may get room again meanwhile."""
    write_corpus(installation.landing, CORPUS)
    filler = fill(folder, room)
    if free_after_s is not None:
        asyncio.get_running_loop().call_later(free_after_s, filler.unlink)
    code = await ingest(forge, installation)
    filler.unlink(missing_ok=True)
    return code


def assert_all_whole(after: dict[str, Any], before: dict[str, Any], new: dict[str, Any]) -> None:
    """Each file is the old one or the new one."""
    assert after.keys() >= before.keys()
    for name, content in after.items():
        assert content in (before.get(name), new.get(name)), name


@pytest.mark.parametrize("seed", cases(1, 10))
async def test_chunk_files_on_a_full_disk(
    forge: Forge, installation: Installation, wanted: dict[str, Any], seed: int
) -> None:
    """The command says that the disk is full and keeps the old files whole; with room it goes on."""
    folder = installation.home / "chunks"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with disk(folder, FILES_BYTES):
        write_corpus(installation.landing, CORPUS + 1)
        assert await ingest(forge, installation) == 0
        before = picture(installation)["chunk files"]
        room = random.Random(seed).choice((0, 4_096))
        assert await fill_and_ingest(forge, installation, folder, room, None) == 1
        assert_says_so(installation)
        assert_all_whole(picture(installation)["chunk files"], before, wanted["chunk files"])
        assert await ingest(forge, installation) == 0, installation.log.read_text()[-3000:]
        assert not differences(picture(installation), wanted, but="vectors")
        assert not list(folder.glob(".era-*"))


def assert_says_so(installation: Installation) -> None:
    """The command told a person what to do, without a traceback."""
    said = installation.log.read_text()
    assert "No space left on device" in said
    assert "Make room" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("seed", cases(2, 10))
async def test_minister_files_on_a_full_disk(
    forge: Forge, installation: Installation, wanted: dict[str, Any], seed: int
) -> None:
    """The command waits for room (here 3 s), then says that the disk is full; the old files stay whole."""
    rng = random.Random(seed)
    waits = seed % 2 == 0  # room comes back, or it does not
    if not waits:
        installation.settings[PATIENCE] = "3"
    with disk(installation.ministers, FILES_BYTES):
        write_corpus(installation.landing, CORPUS + 1)
        assert await ingest(forge, installation) == 0
        before = picture(installation)["minister files"]
        free_after_s = rng.uniform(2.0, 4.0) if waits else None
        room = rng.choice((0, 4_096, 8_192, 12_288))
        code = await fill_and_ingest(forge, installation, installation.ministers, room, free_after_s)
        assert code == (0 if waits else 1), installation.log.read_text()[-3000:]
        if not waits:
            assert_says_so(installation)
            assert_all_whole(picture(installation)["minister files"], before, wanted["minister files"])
            assert await ingest(forge, installation) == 0, installation.log.read_text()[-3000:]
        assert not differences(picture(installation), wanted, but="vectors")
        assert not list(installation.ministers.rglob(".era-*"))


@pytest.mark.parametrize("seed", cases(1, 10))
async def test_a_database_on_a_full_disk(
    forge: Forge, wanted: dict[str, Any], tmp_path: Path, seed: int, note: Callable[[str, float], None]
) -> None:
    """A load that runs into it waits, and goes on by itself as soon as there is room."""
    rng = random.Random(seed)
    with disk(tmp_path / "disk", DATABASE_BYTES) as place, hold(place, durable=False) as lease:
        installation = Installation(tmp_path, lease.url, {"ERA_EMBEDDER": "hashing"})
        write_corpus(installation.landing, CORPUS)
        filler = fill(place, rng.choice((0, 1 << 16, 1 << 19)))
        program = asyncio.create_task(ingest(forge, installation))
        await asyncio.sleep(rng.uniform(2.0, 5.0))
        assert not program.done(), installation.log.read_text()[-3000:]
        filler.unlink()
        began = time.monotonic()
        assert await program == 0, installation.log.read_text()[-3000:]
        note("disk full: seconds from room to the load's end", time.monotonic() - began)
        assert not differences(picture(installation), wanted)
