"""The benchmark's driver: calls, environments and rows, without installing a peer."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from small_sets import make
from trained import trained_run

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import environments
import measure
import peers
import systems
from environments import InstallError
from exchange_files import Answers

from ray_xml.run_folder import RunFolder
from ray_xml.store import DataSet

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def cpus(monkeypatch: pytest.MonkeyPatch) -> list[set[int]]:
    """Four CPUs, and where the driver bound itself to."""
    bound: list[set[int]] = []
    monkeypatch.setattr(peers.os, "sched_getaffinity", lambda _: {1, 2, 5, 7})
    monkeypatch.setattr(peers.os, "sched_setaffinity", lambda _, chosen: bound.append(set(chosen)))
    return bound


# ---- calls ----


def test_what_cannot_be_carried_out(
    data: DataSet, tmp_path: Path, cpus: list[set[int]], capsys: Capture
) -> None:
    folder = str(data.path)
    for arguments, said in (
        ([], "ray-xml prepare xc"),
        (["training.epochs=3"], "there is no data set to compare on"),
        ([folder, "--systems", "omikuji,pecs"], "there is no 'pecs', only ray_xml, omikuji"),
        ([folder, "--systems", ","], "names none"),
        ([folder, "--threads", "0"], "--threads must be at least 1"),
        ([folder, "--threads", "9"], "may use 4 CPUs only"),
        ([folder, "--repeats", "0"], "--repeats must be at least 1"),
        ([str(tmp_path / "nowhere")], "there is no data-set folder"),
        ([folder, "training.epoch=3"], "did you mean 'training.epochs'"),
        ([folder, "--config", str(tmp_path / "x.yaml")], "no such config file"),
        ([folder, "dataset.labels=81"], "80 labels"),
    ):
        assert peers.main([*arguments, "--out", str(tmp_path / "out")]) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("error: ")
        assert said in err
    assert not (tmp_path / "out").exists()


def test_one_system_that_fails_leaves_the_others(
    data: DataSet,
    tmp_path: Path,
    cpus: list[set[int]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    make(tmp_path / "small")

    def fail(system: systems.System, *_: object) -> measure.Row:
        if system.name == "pecos":
            raise measure.FailedError("training ended with status 1: out of memory")
        raise InstallError("no wheel")

    monkeypatch.setattr(peers, "measure", fail)
    call = [str(data.path), "--systems", "omikuji,pecos", str(tmp_path / "small"), "--threads=3"]
    assert peers.main([*call, "--out", str(tmp_path / "out"), "training.epochs=2"]) == 1
    out = capsys.readouterr().out
    assert cpus == [{1, 2, 5}]
    assert out.count("| omikuji | not installed: no wheel |") == 4
    assert out.count("| pecos | failed: training ended with status 1: out of memory |") == 4
    assert (tmp_path / "out" / "peers.md").read_text() == out[:-1]
    results = json.loads((tmp_path / "out" / "peers.json").read_text())
    assert [one["name"] for one in results["data_sets"]] == ["made", "small"]
    assert results["threads"] == 3
    assert results["machine"]["cpu"]


def test_ray_xml_trains_with_as_many_threads_as_its_peers() -> None:
    def resources(threads: int, labels: int = 100) -> list[str]:
        config, data, run = Path("c"), Path("d"), Path("r")
        call = systems.training_command(config, ["x=1"], data, run, threads, labels)
        assert call[-1] == "x=1"
        return [one.split("=")[1] for one in call if one.startswith("resources.")]

    assert resources(1) == ["local", "1", "1", "1"]
    assert resources(2) == ["local", "2", "2", "1"]
    assert resources(8) == ["local", "2", "2", "4"]
    assert resources(8, labels=1) == ["local", "1", "1", "8"]


def test_a_data_set_has_its_own_config_or_the_default() -> None:
    assert systems.config_for("EURLex-4.3K").name == "eurlex-4.3k.yaml"
    assert systems.config_for("mine").name == "default.yaml"


def test_every_program_exists() -> None:
    for system in systems.SYSTEMS:
        assert Path(system.command("python")[1]).is_file()
        assert bool(system.environment) == bool(system.requirements)


# ---- rows ----


def test_a_process_gets_its_threads_and_no_foreign_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    env = measure.environment(3)
    assert env["OMP_NUM_THREADS"] == env["RAYON_NUM_THREADS"] == "3"
    assert "PYTHONPATH" not in env
    assert "OMP_NUM_THREADS" not in measure.environment(None)


def test_times() -> None:
    answers = Answers(
        labels=np.zeros((4, 5), np.int32),
        scores=np.zeros((4, 5)),
        batch_seconds=np.array([0.9, 0.2, 0.4]),
        one_seconds=np.arange(101) / 1000,
        load_seconds=1.5,
    )
    row = measure.times(answers)
    assert row["batch_ms_per_document"] == pytest.approx(100)
    assert (row["one_ms_p50"], row["one_ms_p99"]) == pytest.approx((50, 99))
    assert (row["load_seconds"], row["one_documents"]) == (1.5, 101)


def test_a_runs_size_is_that_of_its_weights(
    data: DataSet, tmp_path_factory: pytest.TempPathFactory
) -> None:
    run: RunFolder = trained_run(data, tmp_path_factory.mktemp("run"))
    best = run.model()
    weights = [path for path in best.iterdir() if not path.name.startswith("optimizer")]
    assert len(weights) < len(list(best.iterdir()))
    assert measure.model_bytes(run.path) == sum(path.stat().st_size for path in weights)
    spent = sum(sum(line["seconds"].values()) for line in run.lines())
    assert measure.outside_epochs(run.path, 100.0) == pytest.approx(100.0 - spent)


def test_any_other_models_size_is_that_of_its_files(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "a").write_bytes(b"123")
    (tmp_path / "deep" / "b").write_bytes(b"4567")
    assert measure.model_bytes(tmp_path) == 7


def test_last_words() -> None:
    trace = (
        "Traceback …\n  raise ValueError: x\nray.exceptions.OutOfMemoryError: 2 killed\nSee it\n"
    )
    assert measure.last_words(trace) == "ray.exceptions.OutOfMemoryError: 2 killed"
    assert measure.last_words("step 1\nerror: no such folder\n\n") == "error: no such folder"
    assert measure.last_words("step 1\nstep 2\n") == "step 2"
    assert measure.last_words("ValueError: " + "x" * 999) == "ValueError: " + "x" * 288
    assert measure.last_words("") == "no output"


# ---- environments ----


def test_an_environment_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Sequence[str]] = []

    def call(command: Sequence[str]) -> None:
        calls.append(command)
        (tmp_path / "env").mkdir(exist_ok=True)

    monkeypatch.setattr(environments, "_call", call)
    for _ in range(2):
        python = environments.prepare(tmp_path / "env", ["a==1"], ["b==2"])
    assert python == tmp_path / "env" / "bin" / "python"
    assert [command[-1] for command in calls] == [str(tmp_path / "env"), "a==1", "b==2"]
    assert "--no-deps" in calls[2]
    environments.prepare(tmp_path / "env", ["a==2"], [])
    assert len(calls) == 5


def test_half_an_environment_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def call(command: Sequence[str]) -> None:
        (tmp_path / "env").mkdir(exist_ok=True)
        if "pip" in command:
            raise InstallError("no wheel")

    monkeypatch.setattr(environments, "_call", call)
    with pytest.raises(InstallError, match="no wheel"):
        environments.prepare(tmp_path / "env", ["a==1"], [])
    assert not (tmp_path / "env").exists()


def test_the_reason_of_a_failed_installation() -> None:
    output = (
        "WARNING: something\n"
        "ERROR: Could not find a version that satisfies the requirement a==1\n"
        "ERROR: No matching distribution found for a==1\n"
        "\n[notice] a new release of pip is available\n"
    )
    assert environments.reason(output) == "ERROR: No matching distribution found for a==1"
    assert environments.reason("killed\n") == "killed"
    assert environments.reason("") == "the installer said nothing"
    with pytest.raises(InstallError, match="went wrong"):
        environments._call([sys.executable, "-c", "raise SystemExit('error: it went wrong')"])


def test_versions_of_this_environment() -> None:
    found = environments.versions(sys.executable, ["numpy", "no-such-package"])
    assert found["numpy"] == np.__version__
    assert set(found) == {"python", "numpy"}
