"""The command line within this process: every command but ``train``, which needs Ray."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
from trained import trained_run
from xc_files import write

from ray_xml import __version__, use_cli
from ray_xml.cli import main
from ray_xml.errors import RayXmlError
from ray_xml.evaluation import METRICS, evaluate
from ray_xml.predictor import Predictor
from ray_xml.run_config import RunConfig
from ray_xml.run_folder import RunFolder
from ray_xml.store import DataSet

XC = "4 5 3\n1 0:1 2:2\n0\n0,1 1:3\n0,2 3:4\n"
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def run(data: DataSet, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return trained_run(data, tmp_path_factory.mktemp("runs"))


@pytest.fixture
def xc(tmp_path: Path) -> tuple[str, str, str]:
    """Train and test files and a folder that is not there yet."""
    write(tmp_path / "train.txt.gz", XC)
    write(tmp_path / "test.txt", XC)
    return str(tmp_path / "train.txt.gz"), str(tmp_path / "test.txt"), str(tmp_path / "set")


# ---- calls and exit statuses ----


@pytest.mark.parametrize(
    "arguments",
    [
        [], ["trian"], ["train"], ["evaluate"], ["predict", "run"], ["prepare"],
        ["prepare", "xc", "a"], ["predict", "run", "data", "--top-k", "0"],
        ["predict", "run", "data", "--top-k", "many"], ["serve"],
        ["serve", "run", "--port", "65536"],
        ["serve", "run", "--replicas", "0"], ["examples", "run", "--count", "-1"],
        ["evaluate", "run", "--splitt", "test"], ["evaluate", "run", "--json", "split=test"],
        ["train", "c", "--keep", "0"], ["train", "c", "--keep", "2", "x"],
        ["train", "c", "--keep", "2", "--run=R"],
    ],
)  # fmt: skip
def test_a_wrong_call_shows_the_usage(arguments: list[str], capsys: Capture) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    out, err = capsys.readouterr()
    assert (left.value.code, out) == (2, "")
    assert err.startswith("usage: ray-xml")


@pytest.mark.parametrize(
    "command", [[], ["prepare"], ["prepare", "xc"], ["prepare", "docstrings"], ["synth"],
                ["train"], ["evaluate"], ["predict"], ["examples"], ["serve"]],
)  # fmt: skip
def test_every_command_has_help(command: list[str], capsys: Capture) -> None:
    with pytest.raises(SystemExit) as left:
        main([*command, "--help"])
    assert left.value.code == 0
    assert capsys.readouterr().out.startswith(" ".join(["usage: ray-xml", *command]))


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        (["run=R"], None),
        (["run=R", "--keep", "3"], 3),
        (["--keep", "3", "run=R"], 3),
        (["data=D", "--keep", "3", "run=R", "training.keep_checkpoints=5"], 3),
        (["run=R", "training.keep_checkpoints=5"], 5),
    ],
)
def test_keep_is_a_short_word_for_a_key(
    arguments: list[str], kept: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[RunConfig] = []
    fake = ModuleType("ray_xml.cluster.trainer")
    outcome = SimpleNamespace(trained=1, lines=[])
    fake.train = lambda config: given.append(config) or outcome  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ray_xml.cluster.trainer", fake)
    (tmp_path / "config.yaml").write_text("training: {epochs: 4}\n")
    assert main(["train", str(tmp_path / "config.yaml"), *arguments]) == 0
    assert (given[0].run, given[0].training.epochs) == ("R", 4)
    assert given[0].training.keep_checkpoints == (kept or 1)


def test_version(capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"ray-xml {__version__}\n"


def test_a_wrong_call_imports_nothing_heavy(monkeypatch: pytest.MonkeyPatch) -> None:
    """``--help`` answers at once."""
    for name in list(sys.modules):
        if name.startswith("ray_xml.") and name not in ("ray_xml.cli", "ray_xml.errors"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(SystemExit):
        main(["train", "--help"])


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (RayXmlError("what to do"), 1, "error: what to do\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_exit_statuses(
    error: BaseException,
    status: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    def fail(_: object) -> int:
        raise error

    monkeypatch.setattr(use_cli, "_evaluate", fail)
    assert main(["evaluate", "run"]) == status
    assert capsys.readouterr() == ("", said)


def test_our_own_faults_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> int:
        raise AssertionError

    monkeypatch.setattr(use_cli, "_evaluate", fail)
    with pytest.raises(AssertionError):
        main(["evaluate", "run"])


# ---- prepare ----


def test_prepare_xc(xc: tuple[str, str, str], capsys: Capture) -> None:
    assert main(["prepare", "xc", *xc]) == 0
    assert capsys.readouterr() == (
        f"{xc[2]}: 5 features, 3 labels\n"
        "  train: 3 documents, 5 label pairs; 1 without features or labels left out\n"
        "  test: 4 documents, 6 label pairs\n",
        "",
    )
    assert main(["prepare", "xc", *xc]) == 1
    assert "(--overwrite) to replace it" in capsys.readouterr().err
    assert main(["prepare", "xc", *xc, "--overwrite", "--name", "mine"]) == 0
    assert DataSet.open(xc[2]).meta.name == "mine"


def test_prepare_tells_file_line_and_column(xc: tuple[str, str, str], capsys: Capture) -> None:
    write(Path(xc[1]), XC.replace("2:2", "7:2"))
    assert main(["prepare", "xc", *xc]) == 1
    assert capsys.readouterr().err.startswith(f"error: {xc[1]}:2:7: ")
    assert not Path(xc[2]).exists()


# ---- evaluate ----


def test_evaluate_json(run: RunFolder, data: DataSet, capsys: Capture) -> None:
    assert main(["evaluate", str(run.path), "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    results = evaluate(Predictor.load(run.path), data, "test")
    assert json.loads(out) == {key: round(value, 4) for key, value in results.items()}
    assert set(METRICS) <= set(json.loads(out))


def test_evaluate_tables(run: RunFolder, data: DataSet, capsys: Capture) -> None:
    assert main(["evaluate", str(run.path), "--split", "train"]) == 0
    out = capsys.readouterr().out
    results = evaluate(Predictor.load(run.path), data, "train")
    assert out.startswith("train split of made: 600 documents, model of epoch ")
    for key in ("P@1", "PSnDCG@5", "R@3"):
        assert re.search(rf"\b{key}\b", out)
        assert f"{results[key]:.2f}" in out
    assert out.count("most frequent labels") == out.count("ray_xml") == 4


def test_evaluate_tells_what_is_wrong(run: RunFolder, tmp_path: Path, capsys: Capture) -> None:
    for arguments, said in (
        ([str(tmp_path / "nowhere")], "no run here"),
        ([str(run.path), "--split", "dev"], "has no split 'dev'"),
        ([str(run.path), "--data", str(tmp_path / "nowhere")], "there is no data-set folder"),
    ):
        assert main(["evaluate", *arguments]) == 1
        assert re.match(f"error: .*{said}", capsys.readouterr().err)


# ---- predict ----


def test_every_format_holds_what_the_predictor_gives(
    run: RunFolder, data: DataSet, tmp_path: Path, capsys: Capture
) -> None:
    expected = Predictor.load(run.path).predict(data.split("test").features, 7)
    for ending in ("jsonl", "npz", "parquet"):
        out = str(tmp_path / f"p.{ending}")
        command = ["predict", str(run.path), str(data.path), "--top-k", "7", "--out", out]
        assert main(command) == 0
        assert capsys.readouterr() == (f"{out}: 150 documents\n", "")
    with np.load(tmp_path / "p.npz") as arrays:
        assert np.array_equal(arrays["labels"], expected.labels)
        assert np.array_equal(arrays["scores"], expected.scores)
    lines = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    table = pq.read_table(tmp_path / "p.parquet").to_pydict()
    assert [line["labels"] for line in lines] == table["labels"] == expected.labels.tolist()
    assert table["scores"] == expected.scores.tolist()
    np.testing.assert_allclose([line["scores"] for line in lines], expected.scores, atol=6e-7)


def test_predict_to_standard_output(run: RunFolder, data: DataSet, capsys: Capture) -> None:
    assert main(["predict", str(run.path), str(data.path), "--split", "train"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["document"] for line in lines] == list(range(600))
    assert {len(line["labels"]) for line in lines} == {5}


def test_predict_for_an_xc_file_without_labels(
    run: RunFolder, data: DataSet, tmp_path: Path, capsys: Capture
) -> None:
    features = data.split("test").features.slice(0, 2).packed()
    assert features.values is not None
    rows = []
    for row in range(2):
        part = slice(features.offsets[row], features.offsets[row + 1])
        pairs = zip(features.ids[part], features.values[part], strict=True)
        rows.append(" ".join(f"{token}:{float(value)!r}" for token, value in pairs))
    write(tmp_path / "x.txt", "\n".join(["2 300", *rows]) + "\n")
    assert main(["predict", str(run.path), str(tmp_path / "x.txt")]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    expected = Predictor.load(run.path).predict(features)
    assert [line["labels"] for line in lines] == expected.labels.tolist()


def test_predict_tells_what_is_wrong(
    run: RunFolder, data: DataSet, tmp_path: Path, capsys: Capture
) -> None:
    write(tmp_path / "narrow.txt", "1 7\n0:1\n")
    for arguments, said in (
        ([str(data.path), "--out", "p.csv"], r"the ending must be one of"),
        ([str(data.path), "--out", f"{tmp_path}/no/p.npz"], "there is no folder"),
        ([str(tmp_path / "narrow.txt")], "the documents have 7 features"),
        ([str(tmp_path / "nowhere.txt")], "nowhere.txt"),
    ):
        assert main(["predict", str(run.path), *arguments]) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert re.match(f"error: .*{said}", err)


# ---- examples ----


def test_examples(run: RunFolder, data: DataSet, capsys: Capture) -> None:
    assert main(["examples", str(run.path), "--count", "40", "--seed", "3"]) == 0
    out = capsys.readouterr().out
    texts = out.rstrip("\n").split("\n\n")
    assert len(texts) == 40
    predictor, test = Predictor.load(run.path), data.split("test")
    for text in texts:
        head, *lines = text.splitlines()
        row = int(head.removeprefix("document "))
        true = set(test.labels.slice(row, row + 1).packed().ids.tolist())
        (best,) = predictor.predict(test.features.slice(row, row + 1)).labels
        shown = [line for line in lines if "missed" not in line]
        assert [int(line.split()[-1]) for line in shown] == best.tolist()
        assert [("✓" in line) for line in shown] == [label in true for label in best.tolist()]
        missed = [line for line in lines if "missed" in line]
        assert {int(n) for line in missed for n in re.findall(r"\d+", line)} == true - set(
            best.tolist()
        )
    assert main(["examples", str(run.path), "--count", "40", "--seed", "3"]) == 0
    assert capsys.readouterr().out == out


def test_examples_of_a_short_split(run: RunFolder, capsys: Capture) -> None:
    assert main(["examples", str(run.path), "--count", "1000"]) == 0
    assert capsys.readouterr().out.count("document ") == 150
