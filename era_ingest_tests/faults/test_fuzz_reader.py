"""The readers under coverage-guided fuzzing; see ``fuzz_reader``."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from era_ingest_tests.faults.mutators import read_samples
from era_ingest_tests.faults.scale import seeded, short_and_long

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this Python or machine"
)
@pytest.mark.parametrize("count", short_and_long(20_000, 1_000_000))
def test_no_bytes_break_a_reader(count: int, tmp_path: Path) -> None:
    """Inputs that reach new code are kept and changed further; none ends in anything but a book or a refusal."""
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    for number, case in enumerate(read_samples()[:8]):
        (inputs / str(number)).write_bytes(bytes([number]) + case.data[:3_000])
    (inputs / "small").write_bytes(
        b'\0[{"chapter_index": 1, "domains": ["a"], "rules": ["b", {"text": "c"}]}]'
    )
    (inputs / "two").write_bytes(b'\x81[{"chapter_index": 1}]' + b'[{"chapter_index": 2, "raw_text": "b"}]')
    (inputs / "headings").write_bytes(b"\2# One\ntext\n\nTwo\n---\n```\n# no\n```\n")
    with seeded() as rng:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "era_ingest_tests.faults.fuzz_reader"),
                *(f"-runs={count}", f"-seed={rng.randrange(1, 2**31)}", "-max_len=4096", "-timeout=20"),
                *(f"-artifact_prefix={tmp_path}/", str(inputs)),
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        found = [path.read_bytes() for path in tmp_path.glob("*-*") if path.is_file()]
        assert done.returncode == 0, (found, done.stdout[-3_000:], done.stderr[-3_000:])
        assert f"Done {count}" in done.stderr
