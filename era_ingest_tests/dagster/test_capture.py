"""What steps print is in its file and on the console, and no process is started for it."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import psutil

from era_ingest.orchestration.capture import captured

if TYPE_CHECKING:
    from pathlib import Path


def test_what_is_printed_is_in_the_file_and_on_the_console(tmp_path: Path) -> None:
    """By this process and by one that it starts; before and after it goes to the console alone."""
    path = tmp_path / "new" / "step.out"
    bystanders = psutil.Process().children()  # of other tests
    with (tmp_path / "console").open("w+") as console:
        print("before", file=console)
        with captured(console, path):
            print("within", file=console, flush=True)
            subprocess.run(["echo", "by a child"], stdout=console, check=True)
            assert psutil.Process().children() == bystanders
        print("after", file=console, flush=True)
        console.seek(0)
        assert console.read() == "before\nwithin\nby a child\nafter\n"
    assert path.read_text() == "within\nby a child\n"


def test_a_console_that_nobody_reads_loses_nothing(tmp_path: Path) -> None:
    """The file has it all where the console is a pipe that was closed."""
    path = tmp_path / "step.out"
    program = (
        "import sys, pathlib; from era_ingest.orchestration.capture import captured\n"
        "with captured(sys.stdout, pathlib.Path(sys.argv[1])): print('x' * 100_000, flush=True)"
    )
    with subprocess.Popen([sys.executable, "-c", program, path], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(60) == 0
    assert path.stat().st_size == 100_001
