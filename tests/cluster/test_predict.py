"""Prediction and evaluation on Ray: those of one process bit for bit, whoever is killed."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from processes import Command, ray_xml, wait_for
from trained import trained_run
from worded import texts, worded_run

from ray_xml import evaluation
from ray_xml.calibrate import calibrate
from ray_xml.cluster.predict import Crews, evaluate, predict
from ray_xml.cluster.session import NAMESPACE
from ray_xml.errors import CheckpointError, ConfigError, DataSetError, ResourceError
from ray_xml.predict_documents import BLOCK
from ray_xml.predict_parts import PartsFolder, part_name
from ray_xml.predictor import Predictions, Predictor
from ray_xml.run_folder import RunFolder
from ray_xml.sparse import Csr
from ray_xml.store import DataSet
from ray_xml.store_write import DataSetWriter

DOCUMENTS = 20 * BLOCK + 300


@pytest.fixture(scope="module")
def run(data: DataSet, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return trained_run(data, tmp_path_factory.mktemp("runs"), "both")


@pytest.fixture(scope="module")
def features(data: DataSet) -> Csr:
    chosen = np.random.default_rng(0).integers(0, 600, DOCUMENTS)
    return data.split("train").features.take(chosen)


@pytest.fixture(scope="module")
def source(features: Csr, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documents in two files."""
    folder = tmp_path_factory.mktemp("documents")
    for number, (low, high) in enumerate(((0, 7 * BLOCK + 5), (7 * BLOCK + 5, DOCUMENTS))):
        rows = features.slice(low, high).packed()
        columns = {
            "id": pa.array([f"doc-{row}" for row in range(low, high)]),
            "features": pa.LargeListArray.from_arrays(rows.offsets, rows.ids),
            "values": pa.LargeListArray.from_arrays(rows.offsets, rows.values),
        }
        pq.write_table(pa.table(columns), folder / f"{number}.parquet", row_group_size=3000)
    return folder


@pytest.fixture(scope="module")
def alone(run: RunFolder, features: Csr) -> Predictions:
    """What one process says, file by file as they are read."""
    predictor = Predictor.load(run.path)
    cuts = (features.slice(0, 7 * BLOCK + 5), features.slice(7 * BLOCK + 5, DOCUMENTS))
    parts = [predictor.predict(one, 5) for one in cuts]
    return Predictions(*(np.concatenate(one) for one in zip(*parts, strict=True)))


def assert_equal(out: Path, alone: Predictions) -> None:
    """Every document once, in order, with the labels and scores of one process."""
    files = sorted(out.glob("part-*.parquet"))
    assert {one.name for one in out.iterdir()} == {"manifest.json", *(f.name for f in files)}
    table = pa.concat_tables([pq.read_table(file) for file in files])
    assert table["document"].to_pylist() == list(range(DOCUMENTS))
    assert table["id"].to_pylist() == [f"doc-{row}" for row in range(DOCUMENTS)]
    kept = alone.labels >= 0
    counts = np.diff(table["labels"].combine_chunks().offsets.to_numpy())
    assert np.array_equal(counts, kept.sum(1))
    assert table["labels"].combine_chunks().flatten().to_numpy().tobytes() == (
        alone.labels[kept].tobytes()
    )
    assert table["scores"].combine_chunks().flatten().to_numpy().tobytes() == (
        alone.scores[kept].tobytes()
    )


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(("workers", "shards"), [(1, 1), (2, 1), (1, 3), (2, 3)])
def test_as_one_process(
    run: RunFolder, source: Path, alone: Predictions, tmp_path: Path, workers: int, shards: int
) -> None:
    out = tmp_path / "out"
    written = predict(
        str(run.path), str(source), str(out), part_size=2 * BLOCK, crews=Crews(workers, shards)
    )
    assert (written.documents, written.made, written.parts) == (DOCUMENTS, DOCUMENTS, 11)
    assert written.rate > 0
    assert_equal(out, alone)
    done = PartsFolder(str(out)).manifest()["done"]
    assert done["documents"] == done["last_call"]["documents"] == DOCUMENTS
    # There is nothing left to do, so nothing is started.
    again = predict(str(run.path), str(source), str(out), part_size=2 * BLOCK)
    assert (again.documents, again.made) == (DOCUMENTS, 0)
    with pytest.raises(ConfigError, match=r"asked\.top_k: 5 → 7"):
        predict(str(run.path), str(source), str(out), part_size=2 * BLOCK, top=7)


def pids(kind: str) -> dict[str, int]:
    """Processes of the prediction's actors by name."""
    named = ray.util.list_named_actors(all_namespaces=True)
    names = [one["name"] for one in named if one["name"].startswith(kind)]
    actors = [ray.get_actor(name, namespace=NAMESPACE) for name in names]
    return dict(zip(names, ray.get([actor.pid.remote() for actor in actors]), strict=True))


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("kind", ["predict-shard", "predict-worker"])
def test_a_killed_process_leaves_no_trace(
    run: RunFolder, source: Path, alone: Predictions, tmp_path: Path, kind: str
) -> None:
    out, killed = tmp_path / "out", []

    def kill() -> None:
        if wait_for(lambda: list(out.glob("part-*.parquet"))):
            pid = sorted(pids(kind).items())[0][1]
            os.kill(pid, signal.SIGKILL)
            killed.append((pid, len(list(out.glob("part-*.parquet")))))

    thread = threading.Thread(target=kill)
    thread.start()
    written = predict(str(run.path), str(source), str(out), part_size=BLOCK, crews=Crews(2, 2))
    thread.join()
    assert killed, "no process was killed"
    assert killed[0][1] < written.parts, "all was done before"
    assert written.made == DOCUMENTS
    assert_equal(out, alone)


@pytest.mark.minutes
def test_a_killed_driver_is_gone_on_with(
    run: RunFolder, source: Path, alone: Predictions, tmp_path: Path
) -> None:
    arguments = (
        "predict", run.path, source, "--out", "out", "--workers", 2, "--label-shards", 2,
        "--part-size", BLOCK,
    )  # fmt: skip
    out = tmp_path / "out"
    command = Command(*arguments, folder=tmp_path)
    try:
        assert wait_for(lambda: len(list(out.glob("part-*.parquet"))) >= 3, 200)
        command.kill()
        assert command.end()[0] == -9
        assert wait_for(lambda: not command.offspring(), 90)
    finally:
        command.clean_up()
    first = {one.name: one.stat().st_mtime_ns for one in out.glob("part-*.parquet")}
    parts = 22
    assert 3 <= len(first) < parts
    status, told, err = ray_xml(*arguments, folder=tmp_path)
    assert status == 0, err
    assert f"{len(first)} of {parts} parts are done already" in err
    left = DOCUMENTS - sum(pq.read_metadata(out / name).num_rows for name in first)
    assert f"{DOCUMENTS:,} documents in {parts} parts; {left:,} by this command" in told
    assert "names" not in pq.read_schema(out / part_name(0)).names  # the made labels have none
    assert_equal(out, alone)
    for name, when in first.items():
        assert (out / name).stat().st_mtime_ns == when
    status, _, err = ray_xml(*arguments, "--top-k", 6, folder=tmp_path)
    assert status == 1
    assert "holds predictions of something else (asked.top_k: 5 → 6)" in err


@pytest.mark.usefixtures("cluster")
def test_metrics_are_those_of_one_process(run: RunFolder, data: DataSet, tmp_path: Path) -> None:
    """To the last bit, on more documents than a block has."""
    chosen = np.random.default_rng(1).integers(0, 600, 3 * BLOCK + 77)
    train = data.split("train")
    with DataSetWriter(tmp_path / "large", name="made", num_features=300, num_labels=80) as writer:
        for name, rows in (("train", np.arange(600)), ("test", chosen)):
            with writer.split(name, leave_out_empty=False) as split:
                split.append(train.features.take(rows), train.labels.take(rows))
        # The third document of every ten has no label that counts.
        listed = np.where(np.arange(len(chosen)) % 10 == 3, train.labels.counts[chosen], 0)
        labels = train.labels.take(chosen)
        kept = np.repeat(listed > 0, labels.counts)
        offsets = np.concatenate([[0], np.cumsum(listed)])
        writer.write_filter("test", Csr(offsets, labels.ids[kept], None, 80))
    large = DataSet.open(tmp_path / "large")
    expected = evaluation.evaluate(Predictor.load(run.path), large, "test")
    plain = evaluation.evaluate(Predictor.load(run.path), large, "test", filtered=False)
    assert expected["P@1"] < plain["P@1"] - 5
    seen: list[tuple[int, int]] = []
    found = evaluate(
        str(run.path), str(large.path), "test", crews=Crews(2, 3),
        progress=lambda *at: seen.append(at),
    )  # fmt: skip
    assert found == expected
    again = evaluate(str(run.path), str(large.path), "test", filtered=False, crews=Crews(2, 3))
    assert again == plain
    assert len(seen) > 1
    assert seen[-1] == (len(chosen), len(chosen))


@pytest.mark.usefixtures("cluster")
def test_faults_are_told_in_our_words(
    run: RunFolder, data: DataSet, source: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.parquet"
    pq.write_table(pa.table({"features": [[1], [300]], "values": [[1.0], [1.0]]}), bad)
    out = str(tmp_path / "out")
    with pytest.raises(DataSetError, match=r"bad\.parquet: document 1: feature 300 is not in 0"):
        predict(str(run.path), str(bad), out, crews=Crews(1, 1))
    with pytest.raises(ConfigError, match=r"--part-size 1000: it must be a multiple of 1,024"):
        predict(str(run.path), str(source), out, part_size=1000)
    with pytest.raises(CheckpointError, match="no run here"):
        predict(str(tmp_path / "nothing"), str(source), out)
    with pytest.raises(ResourceError, match="lower"):
        predict(str(run.path), str(source), str(tmp_path / "much"), crews=Crews(500, 1))


@pytest.mark.usefixtures("cluster")
def test_memory_does_not_grow_with_the_input(run: RunFolder, source: Path, tmp_path: Path) -> None:
    """Twenty parts of a thousand documents take no more than the first few."""
    out = str(tmp_path / "out")
    written = predict(str(run.path), str(source), out, part_size=BLOCK, crews=Crews(1, 1))
    assert len(written.memory) == written.parts == 22
    assert written.memory[-1] < written.memory[4] + 30 * 2**20


@pytest.mark.usefixtures("cluster")
def test_texts_with_a_wanted_precision(tmp_path: Path) -> None:
    """As in one process, for a run that was calibrated."""
    worded = worded_run(tmp_path)
    calibrate(worded, DataSet.open(tmp_path / "data"))
    rows = [json.dumps({"text": text}) for text, _ in texts(3, 2 * BLOCK + 50)]
    (tmp_path / "new.jsonl").write_text("\n\n".join(rows) + "\n")
    common = ["predict", str(worded.path), str(tmp_path / "new.jsonl"), "--text", "text"]
    common += ["--precision", "0.8", "--top-k", "3"]
    assert ray_xml(*common, "--out", "alone.parquet", folder=tmp_path)[0] == 0
    folder = ["--out", "parts", "--workers", "2", "--part-size", str(BLOCK)]
    status, out, err = ray_xml(*common, *folder, folder=tmp_path)
    assert status == 0, err
    assert f"{len(rows):,} documents in 3 parts" in out
    alone = pq.read_table(tmp_path / "alone.parquet")
    found = pa.concat_tables(pq.read_table(p) for p in sorted((tmp_path / "parts").glob("*.par*")))
    assert found["document"].to_pylist() == list(range(len(rows)))
    for name in ("labels", "names"):
        assert found[name].to_pylist() == alone[name].to_pylist()
    for mine, theirs in zip(found["scores"].to_pylist(), alone["scores"].to_pylist(), strict=True):
        assert mine == pytest.approx(theirs, abs=1e-5)
    kept = [len(row) for row in found["labels"].to_pylist()]
    assert 0 < np.mean(kept) < 2.5
    status, _, err = ray_xml(*common[:-3], "0.7", "--top-k", "3", *folder, folder=tmp_path)
    assert status == 1
    assert "asked.threshold" in err
    # As many as that will not be right; and a run that was not calibrated says so.
    worded.probability_file.unlink()
    status, _, err = ray_xml(*common, "--out", "other", "--workers", "1", folder=tmp_path)
    assert status == 1
    assert "ray-xml calibrate RUN" in err
