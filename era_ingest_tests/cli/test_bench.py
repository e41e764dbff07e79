"""`era bench` as a user types it, in its short forms: one JSON object of the documented shape."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from era_ingest.cli import cli

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import CliRunner


def test_load_prints_ratios(runner: CliRunner, tmp_path: Path) -> None:
    """As JSON, and as a picture."""
    picture = tmp_path / "load.png"
    done = runner.invoke(cli, ["bench", "load", "-n", "1", "--rows", "20", "--json", "--plot", str(picture)])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["workload"]["rows"] == 20
    assert found["ratios"]["raw_copy_over_store_vectors"] > 0
    assert picture.stat().st_size > 1000
    table = runner.invoke(cli, ["bench", "load", "-n", "1", "--rows", "20"])
    assert "store_vectors_s" in table.stdout


@pytest.mark.slow
def test_ingest_prints_ratios(runner: CliRunner) -> None:
    """Of the whole process over the bound; and it checked that the right work was done."""
    arguments = ["-n", "1", "--texts", "200", "--latency-ms", "1", "--dimensions", "32", "--json"]
    done = runner.invoke(cli, ["bench", "ingest", *arguments])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["bench"] == "ingest"
    assert found["ratios"]["era_wall_over_bound"] > 0
    assert found["ratios"]["era_inner_over_bound"] > 0
    assert found["figures"]["era_unchanged_requests"]["median"] == 0
    assert found["figures"]["era_changed_texts"]["median"] == 2
    assert found["figures"]["era_peak_mb"]["median"] > 50


@pytest.mark.slow
@pytest.mark.slow
def test_growth_tells_rows_and_memory(runner: CliRunner) -> None:
    """As JSON; the program did what it says, and its memory was looked at."""
    done = runner.invoke(cli, ["bench", "growth", "--texts", "6000", "--json"])
    assert done.exit_code == 0, done.output
    figures = json.loads(done.stdout)["figures"]
    assert figures["rows_per_s"]["median"] > 0
    assert figures["peak_mb"]["median"] > figures["idle_mb"]["median"] > 0
    assert figures["stage_load_s"]["median"] > 0


def test_ingest_of_passages_stands_beside_peers(runner: CliRunner, tmp_path: Path) -> None:
    """In the table and the picture; here the peer is the bound again."""
    picture = tmp_path / "ingest.png"
    peer = f"twin={sys.executable} -m era_ingest.bench.bound"
    arguments = ["-n", "1", "--workload", "passages", "--texts", "100", "--latency-ms", "1"]
    arguments += ["--dimensions", "32", "--peer", peer, "--plot", str(picture)]
    done = runner.invoke(cli, ["bench", "ingest", *arguments])
    assert done.exit_code == 0, done.output
    assert "era_wall_over_fastest_peer" in done.stdout
    assert "twin" in done.stdout
    assert picture.stat().st_size > 1000


def test_a_peer_without_a_command_is_said(runner: CliRunner) -> None:
    """Before anything runs."""
    done = runner.invoke(cli, ["bench", "ingest", "--peer", "pgai"])
    assert done.exit_code == 2
    assert "NAME=COMMAND" in done.output


def test_controller_prints_a_row_a_family_and_controller(runner: CliRunner, tmp_path: Path) -> None:
    """With the medians of the table, and a picture."""
    picture = tmp_path / "controller.png"
    arguments = ["-n", "1", "--family", "one worker", "--json", "--plot", str(picture)]
    done = runner.invoke(cli, ["bench", "controller", *arguments])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert {row["controller"] for row in found["rows"]} >= {"adaptive", "AIMD", "latency rule"}
    assert {"family", "goodput", "refused", "p95", "passed", "runs"} <= found["rows"][0].keys()
    for row in found["rows"]:
        assert row["bar"] == {"goodput": 0.98, "refused": 0.0, "p95": 3.0}
        assert row["oracle_runs"] == row["runs"] - row["passed"] == len(row["oracle"])
        assert row["oracle_passed"] == row["oracle_runs"]
    fixed = next(row for row in found["rows"] if row["controller"] == "fixed 20")
    assert fixed["missed"] == {"p95": 1}
    assert picture.stat().st_size > 1000


def test_controller_draws_other_servers_from_other_seeds(runner: CliRunner) -> None:
    """Only the controller that was asked for; random servers as a row of their own; medians and worst of all."""
    arguments = [
        "-n",
        "1",
        "--first-seed",
        "7",
        "--only",
        "fixed 20",
        "--random",
        "1",
        "--family",
        "one worker",
    ]
    done = runner.invoke(cli, ["bench", "controller", *arguments, "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["seeds"] == [7]
    assert [(row["family"], row["controller"]) for row in found["rows"]] == [
        ("one worker", "fixed 20"),
        ("random servers", "fixed 20"),
    ]
    assert found["rows"][0]["worst_goodput"] == found["rows"][0]["goodput"]
    assert runner.invoke(cli, ["bench", "controller", "--only", "nonsense"]).exit_code == 2


def test_live_sets_the_real_driver_beside_the_simulation(runner: CliRunner) -> None:
    """A rate without headers, and two clients that share one through PostgreSQL; some seconds of each."""
    servers = ["--server", "600 RPM, bare", "--server", "2 clients sharing"]
    done = runner.invoke(cli, ["bench", "live", "--seconds", "8", *servers, "--json"])
    assert done.exit_code == 0, done.output
    alone, sharing = json.loads(done.stdout)["rows"]
    assert abs(alone["goodput_points"]) < 10
    assert alone["goodput_real"] > 0.8
    assert sharing["goodput_real"] > 0.6
    assert sharing["refused_real"] < 0.2
    assert sharing["fairness_real"] > 0.9


@pytest.mark.slow
def test_eight_clients_that_share_hold_the_bar_in_real_time(runner: CliRunner) -> None:
    """Within three points of the simulation; the refusals of the start weigh more in a minute than in five."""
    done = runner.invoke(cli, ["bench", "live", "--seconds", "60", "--server", "8 clients sharing", "--json"])
    (row,) = json.loads(done.stdout)["rows"]
    assert row["goodput_real"] > 0.94
    assert abs(row["goodput_points"]) < 3
    assert row["refused_real"] < 0.05
    assert row["fairness_real"] > 0.95


def test_servers_and_controllers_that_are_none_are_said(runner: CliRunner) -> None:
    """Before anything runs."""
    assert runner.invoke(cli, ["bench", "live", "--server", "nonsense"]).exit_code == 2
    assert runner.invoke(cli, ["bench", "live", "--controller", "nonsense"]).exit_code == 2


def test_a_family_that_is_none_is_said(runner: CliRunner) -> None:
    """Before anything runs."""
    done = runner.invoke(cli, ["bench", "controller", "--family", "nonsense"])
    assert done.exit_code == 2
    assert "No family" in done.output


@pytest.mark.parametrize("command", ["controller", "load", "ingest"])
def test_help_names_runs_plot_and_json(runner: CliRunner, command: str) -> None:
    """Without touching anything."""
    shown = runner.invoke(cli, ["bench", command, "--help"]).stdout
    for option in ("--runs", "-n", "--plot", "--json"):
        assert option in shown
