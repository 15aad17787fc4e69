"""``ray-xml report``: sound, self-contained pages of runs in any state, and their numbers."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from made import make_config, train
from tiny import make_artefacts
from trained import trained_run

from ray_xml.cli import main
from ray_xml.evaluation import baseline, evaluate
from ray_xml.export import export
from ray_xml.model import model_of_run
from ray_xml.predictor import Predictor
from ray_xml.report_curves import loss_curve, phase_seconds, refreshes
from ray_xml.report_map import plane
from ray_xml.run_folder import RunFolder
from ray_xml.run_lock import driver_lock
from ray_xml.store import DataSet
from ray_xml.store_write import DataSetWriter

VOID = {"meta", "br", "hr", "img", "link", "input"}
HOSTILE = [
    "<script>alert(1)</script>",
    "</title></svg><img src=x onerror=alert(1)>",
    "\" onmouseover='alert(1)",
    "a & b &lt; c &#x3c;script&#x3e;",
    "עברית \u202etxt.exe",
    "日本語のとても長い名前" * 30,
    "]]> --> <!-- {{7*7}} https://evil.example/x.js",
    "👩‍🔬 \x07bell",
]


class Page(HTMLParser):
    """Checks that tags are balanced; keeps tags with attributes, and texts by their element."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", data.strip()))

    def of(self, element: str) -> list[str]:
        return [text for where, text in self.texts if where == element]


def checked(text: str) -> Page:
    """The page, which loads nothing, runs nothing and is one sound document."""
    page = Page(text)
    names = {tag for tag, _ in page.tags}
    assert not names & {
        "script",
        "img",
        "iframe",
        "object",
        "embed",
        "link",
        "use",
        "image",
        "base",
    }
    for tag, attributes in page.tags:
        for key, value in attributes.items():
            assert not key.startswith("on"), (tag, key)
            assert key not in ("href", "src", "xlink:href", "srcset", "action", "style"), (tag, key)
            assert "http" not in (value or ""), (tag, key, value)
    (style,) = page.of("style")
    assert "url(" not in style
    assert "@import" not in style
    assert "prefers-color-scheme:dark" in style
    assert "@media print" in style
    return page


def report(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[Page, str]:
    """(page, what was said on stderr)."""
    out = Path(str(arguments[arguments.index("--out") + 1]))
    assert main(["report", *map(str, arguments)]) == 0
    said = capsys.readouterr()
    assert str(out) in said.out
    return checked(out.read_text(encoding="utf-8")), said.err


@pytest.fixture(scope="module")
def run(data: DataSet, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    made = trained_run(data, tmp_path_factory.mktemp("runs"))
    for epoch in range(1, 5):
        made.save_losses(epoch, np.linspace(5 / epoch, 4 / epoch, 17, dtype=np.float32))
    return made


SECTIONS = [
    "Accuracy on test", "Training", "Time and memory", "Labels by frequency",
    "What a score is worth", "Labels one by one", "Documents", "Map of the labels",
    "Config and environment",
]  # fmt: skip


def test_a_whole_run(
    run: RunFolder, data: DataSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "r.html"
    page, said = report(capsys, run.path, "--out", out)
    assert page.of("h2") == SECTIONS
    assert "labels have no names" in said
    figures = page.of("b")
    for one in ("Loss", "Validation", "Recall of candidates", "Speed", "Time by phase"):
        assert one in figures
    facts = page.of("dd")
    assert "80 labels, 300 features" in facts
    assert "600 train, 150 test" in facts
    assert f"ray-xml report {run.path} --out {out}" in facts
    assert run.config().identity() in facts
    # The table has evaluate's numbers and the baseline's.
    predictor = Predictor.load(run.path)
    ours = evaluate(predictor, data, "test")
    plain = baseline(data, "test", predictor.config.dataset)
    cells = page.of("td")
    for key in ("P@1", "nDCG@3", "PSP@5", "PSnDCG@5", "R@3"):
        assert f"{ours[key]:.2f}" in cells, key
        assert f"{plain[key]:.2f}" in cells, key
    marks = [text for text in page.of("title") if text.startswith("refresh after")]
    assert set(marks) == {"refresh after epoch 2", "refresh after epoch 4"}
    (config, environment) = page.of("pre")
    assert "cycle_epochs: 2" in config
    assert "torch: " in environment


def test_names_of_any_kind_are_text(
    run: RunFolder, data: DataSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"{HOSTILE[n % len(HOSTILE)]} {n}" for n in range(80)]
    with DataSetWriter(
        tmp_path / "data", name=HOSTILE[0], num_features=300, num_labels=80
    ) as writer:
        for split in ("train", "test"):
            with writer.split(split, leave_out_empty=False) as part:
                part.append(data.split(split).features, data.split(split).labels)
        writer.write_label_names(names)
        titles = [{"name": HOSTILE[n % 8], "summary": HOSTILE[(n + 1) % 8]} for n in range(150)]
        writer.write_text_file(
            "test_documents.jsonl", "".join(json.dumps(one) + "\n" for one in titles)
        )
    page, said = report(capsys, run.path, "--data", tmp_path / "data", "--out", tmp_path / "r.html")
    assert said == ""
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "\u202e" not in text
    assert "\x07" not in text
    named = [one for one in page.of("bdi") if one.startswith("<script>alert(1)</script>")]
    assert len(named) > 3
    assert any(one.startswith("日本語") and one.endswith("…") for one in page.of("bdi"))
    assert any(HOSTILE[2] in one for one in page.of("title"))


def test_documents_without_titles_show_their_features(
    tmp_path: Path, run: RunFolder, data: DataSet, capsys: pytest.CaptureFixture[str]
) -> None:
    with DataSetWriter(tmp_path / "data", name="made", num_features=300, num_labels=80) as writer:
        for split in ("train", "test"):
            with writer.split(split, leave_out_empty=False) as part:
                part.append(data.split(split).features, data.split(split).labels)
        writer.write_feature_names([f"token<{n}>" for n in range(300)])
    out = tmp_path / "r.html"
    page, _ = report(capsys, run.path, "--data", tmp_path / "data", "--out", out)
    shown = [one for one in page.of("bdi") if " · " in one]
    assert shown
    assert re.fullmatch(r"token<\d+>( · token<\d+>)+", shown[0])
    assert any(re.fullmatch(r"document \d+", one) for one in page.of("bdi"))


def test_an_exported_model(
    run: RunFolder, data: DataSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export(model_of_run(run.path), data.path, tmp_path / "model", "int8")
    out = tmp_path / "r.html"
    page, _ = report(capsys, tmp_path / "model", "--data", data.path, "--out", out)
    assert page.of("h2") == [one for one in SECTIONS if one not in ("Training", "Time and memory")]
    assert any(one.startswith("an exported model") for one in page.of("li"))


def test_a_run_without_a_model_yet(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fresh = tmp_path / "run"
    shutil.copytree(run.path, fresh)
    shutil.rmtree(fresh / "checkpoints")
    page, said = report(capsys, fresh, "--out", tmp_path / "r.html")
    assert page.of("h2") == ["Training", "Time and memory", "Config and environment"]
    assert "no checkpoint that can predict yet" in said
    assert any("was stopped: 0 of 4" in one for one in page.of("li"))
    (fresh / "metrics.jsonl").unlink()
    shutil.rmtree(fresh / "losses")
    page, _ = report(capsys, fresh, "--out", tmp_path / "r.html")
    assert page.of("h2") == ["Config and environment"]


def test_a_run_that_goes_on(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    busy = tmp_path / "run"
    shutil.copytree(run.path, busy)
    text = (busy / "config.yaml").read_text()
    (busy / "config.yaml").write_text(text.replace("  epochs: 4\n", "  epochs: 9\n"))
    with open(busy / "metrics.jsonl", "a") as file:
        file.write('{"epoch": 5, "loss": 0.')  # is being written
    with driver_lock(busy):
        page, _ = report(capsys, busy, "--out", tmp_path / "r.html")
    assert page.of("h2") == SECTIONS
    assert any("is going on: 4 of 9" in one for one in page.of("li"))


def test_a_run_whose_data_set_is_gone(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = tmp_path / "run"
    shutil.copytree(run.path, moved)
    text = (moved / "config.yaml").read_text()
    config = re.sub(r"(?m)^data: .*$", "data: /nowhere/<b>", text)
    (moved / "config.yaml").write_text(config)
    page, said = report(capsys, moved, "--out", tmp_path / "r.html")
    assert "the run's data set is not to be had" in said
    assert "Training" in page.of("h2")
    assert "Accuracy on test" not in page.of("h2")


def test_one_epoch_without_validation(
    data: DataSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make_config(training={"epochs": 1, "validation": 0.0})
    config = config.model_copy(update={"data": str(data.path), "run": str(tmp_path / "run")})
    train(data, config, tmp_path / "run")
    page, _ = report(capsys, tmp_path / "run", "--out", tmp_path / "r.html")
    assert page.of("h2") == SECTIONS
    assert "Validation" not in page.of("b")
    assert any("no validation was made" in one for one in page.of("p"))


def test_a_tiny_data_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = make_artefacts(tmp_path / "tiny")
    page, said = report(capsys, made.run, "--out", tmp_path / "r.html")
    assert said == ""
    assert any(re.fullmatch(r"d\d", one) for one in page.of("bdi"))
    assert any(re.fullmatch(r"label \d ü", one) for one in page.of("bdi"))


def test_a_report_lies_in_its_run_s_folder(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["report", str(run.path)]) == 0
    (run.path / "report.html").unlink()
    assert main(["export", str(run.path), "model"]) == 0
    before = sorted(file.name for file in Path("model").iterdir())
    assert main(["report", "model"]) == 0
    assert sorted(file.name for file in Path("model").iterdir()) == before
    assert Path("report.html").is_file()


def test_what_is_wrong_is_told(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, said in (
        ([tmp_path / "none"], "no run here"),
        ([run.path, "--split", "dev"], "has no split 'dev'"),
        ([run.path, "--data", tmp_path / "none"], "there is no data-set folder"),
        ([run.path, "--out", tmp_path], "is a folder"),
    ):
        assert main(["report", *map(str, arguments)]) == 1
        assert said in capsys.readouterr().err


def test_a_loss_curve_is_made_of_means() -> None:
    losses = np.random.default_rng(0).random(1234).astype(np.float32)
    raw, smooth = loss_curve(losses)
    assert len(raw) == len(smooth) == 300
    first = len(np.array_split(losses, 300)[0])
    assert raw[0] == pytest.approx(((first + 1) / 2, losses[:first].mean()))
    assert sum(value for _, value in raw) / 300 == pytest.approx(losses.mean(), rel=0.01)
    values = [value for _, value in raw]
    assert smooth[150][1] == pytest.approx(np.mean(values[143:158]))
    assert smooth[0] == raw[0]
    level = loss_curve(np.full(50, 2.5, np.float32))[1]
    assert [value for _, value in level] == [2.5] * 50
    spoilt = np.array([1, np.nan, 3, np.inf], np.float32)
    assert loss_curve(spoilt)[0] == [(1.0, 1.0), (3.0, 3.0)]
    assert loss_curve(np.zeros(0, np.float32)) == ([], [])


def test_seconds_by_phase() -> None:
    lines = [
        {"epoch": 1, "seconds": {f"p{n}": float(n) for n in range(12)}},
        {"epoch": 2, "seconds": {"p11": 1.0, "proxies": 0.5}, "proxy_loss": 4.0},
        {"epoch": 3},
    ]
    phases = dict(phase_seconds(lines))
    assert list(phases)[:2] == ["p11", "p10"]
    assert len(phases) == 8
    assert phases["p11"] == [11.0, 1.0, 0.0]
    assert phases["other"] == [0 + 1 + 2 + 3 + 4, 0.5, 0.0]
    assert refreshes(lines) == [(2.0, "refresh after epoch 2")]


def test_the_plane_of_a_map_is_that_of_the_covariance() -> None:
    vectors = np.random.default_rng(0).standard_normal((50, 6)) @ np.diag([9, 5, 2, 1, 1, 1])
    places, shares = plane(vectors)
    values, axes = np.linalg.eigh(np.cov(vectors.T))
    for n in range(2):
        expected = (vectors - vectors.mean(0)) @ axes[:, -1 - n]
        assert np.abs(places[:, n]) == pytest.approx(np.abs(expected))
        assert shares[n] == pytest.approx(values[-1 - n] / values.sum())
    flat, none = plane(np.ones((3, 4)))
    assert not flat.any()
    assert not none.any()
    assert plane(np.arange(3.0)[:, None])[0].shape == (3, 2)
