"""Hostile run folders and storages: names that lead elsewhere, values of any type, pickles."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tiny import Artefacts, make_artefacts, put_right, small_config, training
from traps import Trap

from ray_xml import checkpoint
from ray_xml.errors import CheckpointError, ConfigError, RayXmlError
from ray_xml.model import model_of_run
from ray_xml.predictor import Predictor
from ray_xml.run_folder import RunFolder
from ray_xml.run_records import read_event
from ray_xml.run_state import load_state
from ray_xml.run_storage import RunStorage
from ray_xml.run_text import describe_epoch, describe_event
from ray_xml.store import DataSet

MANIFEST = "checkpoints/epoch-0002/manifest.json"
few = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Artefacts:
    return make_artefacts(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def run(made: Artefacts, tmp_path: Path) -> RunFolder:
    """A run to spoil."""
    return RunFolder(shutil.copytree(made.run, tmp_path / "run"))


def manifest_of(run: RunFolder) -> Any:
    return json.loads((run.path / MANIFEST).read_text())


def put(run: RunFolder, tree: Any) -> None:
    """A text as it is; a tree with the seal that anybody could make."""
    text = tree if isinstance(tree, str) else json.dumps(checkpoint.sealed(tree))
    (run.path / MANIFEST).write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    "name", ["../../x", "/etc/hostname", "..", "a/b.safetensors", ".a.safetensors", "x\0", "é", "x"]
)
def test_a_part_cannot_be_named_out_of_the_folder(run: RunFolder, name: str) -> None:
    (run.path / "x").write_bytes(b"x")
    tree = manifest_of(run)
    tree["parts"][name] = {"bytes": 1, "sha256": hashlib.sha256(b"x").hexdigest()}
    put(run, tree)
    with pytest.raises(CheckpointError, match=r"manifest\.json: damaged .*is no part's name"):
        run.model()


HOSTILE: list[Any] = [None, True, -1, "..", [1], {"a": [2]}, 10**400, float("inf")]


def test_any_manifest_is_used_or_refused(run: RunFolder, made: Artefacts) -> None:
    good, data = manifest_of(run), DataSet.open(made.data)
    begun = training(small_config(made.data, run.path), data, run.path)

    def use() -> None:
        for read in (
            lambda: Predictor.load(run.path),
            lambda: load_state(run.checkpoints, begun.encoder, begun.classifier, data),
        ):
            try:
                read()
            except RayXmlError as error:
                if len(str(error)) > 1500:
                    raise AssertionError("a message without end") from error

    use()
    for key in good:
        put(run, {name: value for name, value in good.items() if name != key})
        use()
        for value in HOSTILE:
            put(run, good | {key: value})
            use()
    for value in HOSTILE:
        put(run, json.dumps(good | {"seal": value}))
        use()
    part = next(iter(good["parts"]))
    for key in ("bytes", "sha256"):
        for value in HOSTILE:
            put(run, good | {"parts": {**good["parts"], part: {**good["parts"][part], key: value}}})
            with pytest.raises(CheckpointError, match=r"damaged .*is no (whole number|SHA-256)"):
                run.model()
    for key in ("data_set", "adam_steps", "blend", "parts", "line"):
        for inner in good[key]:
            for value in HOSTILE[-3:]:
                put(run, good | {key: good[key] | {inner: value}})
                use()
    put(run, {key: value for key, value in good.items() if key != "with_proxies"})
    with pytest.raises(CheckpointError, match=r"manifest\.json: damaged \(no 'with_proxies'\)"):
        run.model()
    for text in ("[" * 100_000, "", "\ufeff{}", "[]", "1", "null"):
        put(run, text)
        with pytest.raises(CheckpointError, match="damaged"):
            run.model()


@pytest.mark.parametrize(
    "name",
    ["epoch-²", "epoch-x", "epoch-", "epoch--1", "epoch-" + "9" * 200,
     "epoch-2", "epoch-00002", "epoch-7"],
)  # fmt: skip
def test_strange_checkpoint_names_are_passed_over(run: RunFolder, name: str) -> None:
    (run.checkpoints / name).mkdir()
    (run.checkpoints / "epoch-0009").write_bytes(b"")
    assert checkpoint.epochs_in(run.checkpoints) == [2]
    assert run.begin(run.config()) == 2


def spoil_part(run: RunFolder, kind: str, content: bytes) -> None:
    (part,) = run.checkpoints.glob(f"epoch-0002/{kind}-00000.safetensors")
    part.write_bytes(content)
    put_right(part)


def test_a_pickle_as_a_part_is_not_executed(run: RunFolder, tmp_path: Path) -> None:
    mark, zipped = tmp_path / "executed", io.BytesIO()
    torch.save({"table": Trap(mark)}, zipped)
    for content in (pickle.dumps(Trap(mark)), zipped.getvalue()):
        spoil_part(run, "tokens", content)
        with pytest.raises(CheckpointError, match="damaged"):
            model_of_run(run.path)
    assert not mark.exists()


Change = Callable[[torch.Tensor], torch.Tensor]
CHANGES: list[tuple[str, str, Change]] = [
    ("tokens", "table", lambda t: t[:, 0].contiguous()),
    ("tokens", "table", lambda t: t[:-1]),
    ("tokens", "table", lambda t: t.int()),
    ("tokens", "table", lambda t: t * float("nan")),
    ("tokens", "table", lambda t: t[None]),
    ("encoder", "normalised_weight", lambda t: t[:, :-1].contiguous()),
    ("encoder", "bias", lambda t: t[None]),
    ("encoder", "bias", lambda t: t * float("inf")),
    ("proxies", "proxies", lambda t: t[:, :-1].contiguous()),
    ("proxies", "proxies", lambda t: t[:, 0].contiguous()),
    ("proxies", "proxies", lambda t: t * float("nan")),
    ("classifier", "weight", lambda t: t[:0]),
    ("classifier", "bias", lambda t: t[:, None]),
]


@pytest.mark.parametrize(("kind", "name", "change"), CHANGES, ids=range(len(CHANGES)))
def test_parts_that_do_not_fit_are_told(
    run: RunFolder, kind: str, name: str, change: Change
) -> None:
    part = run.checkpoints / f"epoch-0002/{kind}-00000.safetensors"
    held = load_file(part)
    held[name] = change(held[name])
    high = "14" if kind == "tokens" else "6"
    meta = {"low": "0", "high": "4" if kind in ("tokens", "encoder") else high}
    save_file(held, part, metadata=meta)
    spoil_part(run, kind, part.read_bytes())
    with pytest.raises(CheckpointError):
        model_of_run(run.path)


@pytest.mark.parametrize("held", [("-1", "3"), ("0", str(10**18)), ("x", "1"), ("4", "0")])
def test_ranges_that_lie_are_told(run: RunFolder, held: tuple[str, str]) -> None:
    part = run.checkpoints / "epoch-0002/tokens-00000.safetensors"
    save_file(load_file(part), part, metadata={"low": held[0], "high": held[1]})
    spoil_part(run, "tokens", part.read_bytes())
    with pytest.raises(CheckpointError):
        model_of_run(run.path)


def test_a_model_of_another_size_is_told(run: RunFolder) -> None:
    put(run, manifest_of(run) | {"dim": 2**31 - 1})
    with pytest.raises(CheckpointError, match=r"encoder\.dim=2147483647"):
        model_of_run(run.path)


@pytest.mark.parametrize(
    "line",
    [b"{}", b"{]}", b'{"epoch": "1"}', b'{"epoch": true}', b'{"epoch": 1, "loss": "x"}',
     b'{"epoch": 1, "seconds": 3}', b'{"epoch": 1, "seconds": {"a": null}}', b"[1, {}",
     b'{"epoch": 1, "validation": {"P@1": []}}', b'{"epoch": 1, "best": 1}', b"\xff}",
     b'{"a":' * 100_000 + b"1" + b"}" * 100_000, b'{"epoch": ' + b"1" * 5000 + b"}"],
    ids=range(13),
)  # fmt: skip
def test_a_line_that_is_none_is_passed_over(run: RunFolder, line: bytes) -> None:
    good = run.metrics_file.read_bytes()
    run.metrics_file.write_bytes(line + b"\n" + good + line)
    assert [found["epoch"] for found in run.lines()] == [1, 2]
    assert run.begin(run.config()) == 2
    assert run.metrics_file.read_bytes() == good


@pytest.mark.parametrize(
    "line",
    [{}, [], "x", {"epoch": "2"}, {"epoch": 1}, {"epoch": 2, "loss": "x"}, {"epoch": 2, "best": 1}],
    ids=range(7),
)
def test_a_line_in_a_manifest_is_checked(
    run: RunFolder, line: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run.metrics_file.unlink()
    assert run.begin(run.config()) == 2
    assert run.lines() == [manifest_of(run)["line"]]
    run.metrics_file.unlink()
    put(run, manifest_of(run) | {"line": line})
    assert run.begin(run.config()) == 0
    assert "manifest.json: damaged (line is wrong: " in capsys.readouterr().err
    assert run.lines() == []


def test_half_a_line_is_no_line_yet(run: RunFolder) -> None:
    good = run.metrics_file.read_bytes()
    run.metrics_file.write_bytes(good + b'{"epoch": 3, "lo')
    assert [line["epoch"] for line in run.lines()] == [1, 2]


@given(line=anything, event=anything)
@few
def test_any_line_and_event_is_described_or_refused(tmp_path: Path, line: Any, event: Any) -> None:
    run = RunFolder(tmp_path)
    keys = ("seconds", "loss", "docs_per_second", "validation", "candidate_recall", "best")
    for tree in (line, {"epoch": 1, **dict.fromkeys(keys, line)}, {"epoch": line}):
        run.metrics_file.write_text(json.dumps(tree) + "\n")
        for found in run.lines():
            assert describe_epoch(found)
    run.metrics_file.unlink()
    good = {"epoch": 1, "epochs": 2, "phase": "x", "done": 1, "total": 2, "docs_per_second": 1.0}
    for tree in (event, *({**good, key: event} for key in good)):
        run.progress_file.write_text(json.dumps(tree))
        read = read_event(run.path)
        assert read is None or describe_event(read, [])


def test_damaged_losses_are_told(run: RunFolder, tmp_path: Path) -> None:
    mark, path = tmp_path / "executed", run.path / "losses" / "epoch-0002.npy"
    packed = io.BytesIO()
    np.savez(packed, a=np.ones(3))
    trap = io.BytesIO()
    np.save(trap, np.array([Trap(mark)], dtype=object), allow_pickle=True)
    for content in (pickle.dumps(Trap(mark)), trap.getvalue(), packed.getvalue(), b"", b"x" * 99):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"epoch-0002\.npy: damaged"):
            run.step_losses()
    for wrong in (np.ones((2, 2), np.float32), np.ones(2)):
        np.save(path, wrong)
        with pytest.raises(CheckpointError, match=r"epoch-0002\.npy: damaged, float"):
            run.step_losses()
    assert not mark.exists()


class Held:
    """A storage that holds files of any names, as object stores do."""

    uri = "memory://held"

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files

    def sizes(self) -> dict[str, int]:
        return {name: len(content) for name, content in self.files.items()}

    def read(self, name: str) -> bytes:
        return self.files[name]

    def download(self, name: str, target: Path) -> None:
        target.write_bytes(self.files[name])


def stored(run: RunFolder, extra: dict[str, bytes]) -> RunStorage:
    paths = [path for path in run.path.rglob("*") if path.is_file()]
    files = {path.relative_to(run.path).as_posix(): path.read_bytes() for path in paths}
    found = RunStorage("memory://held")
    found.storage = Held(files | extra)  # type: ignore[assignment]
    return found


STRANGE = [
    "losses/../../x.npy", "losses/x", "losses//x", "shortlists/../../x.i32", "shortlists/../x",
    "losses/epoch-0001.npy/../../../x", "checkpoints/epoch-0002/../../../x.safetensors",
    "checkpoints/epoch-0002/..", "checkpoints/epoch-0002/x/y.safetensors", "checkpoints/epoch-²/x",
    "checkpoints/epoch-0002/.x.safetensors", "/x", "../x", "x", "losses/epoch-0001.npy\n",
]  # fmt: skip


def test_a_storage_cannot_write_outside_of_the_run(run: RunFolder, tmp_path: Path) -> None:
    inner = tmp_path / "outer" / "inner"
    fetched = RunFolder(inner / "run")
    assert stored(run, dict.fromkeys(STRANGE, b"x")).fetch(fetched) == 2
    assert [path.name for path in (tmp_path / "outer").iterdir()] == ["inner"]
    assert [path.name for path in inner.iterdir()] == ["run"]
    own = {path.relative_to(run.path) for path in run.path.rglob("*") if path.is_file()}
    got = {path.relative_to(fetched.path) for path in fetched.path.rglob("*") if path.is_file()}
    assert got <= own
    assert Path(MANIFEST) in got


@pytest.mark.parametrize(
    "content",
    [b"[" * 100_000, b'{"parts": {"../x": {"bytes": 1}}}', b'{"parts": 1}', b"\xff",
     b'{"parts": [[1, 2]]}', b'{"parts": {"a.safetensors": 1}}', b"null",
     b'{"parts": {"a.safetensors": {"bytes": true}}}', b'{"parts": {"a.safetensors": ["bytes"]}}'],
    ids=range(9),
)  # fmt: skip
def test_a_strange_manifest_on_a_storage_is_no_checkpoint(run: RunFolder, content: bytes) -> None:
    folder = MANIFEST.removesuffix("manifest.json")
    beside = {f"{folder}../x": b"x", f"{folder}a.safetensors": b"x"}
    assert stored(run, {MANIFEST: content, **beside}).epochs() == []


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"[" * 2000, "nested"), (b"&a [*a]", "aliases"), (b"x" * (1 << 18), "is this a config"),
     (b"!!python/object/apply:os.abort []", "constructor"), (b"\xff\xfe\xff", "not valid")],
    ids=range(5),
)  # fmt: skip
def test_a_hostile_config_on_a_storage_is_told(run: RunFolder, content: bytes, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        stored(run, {"config.yaml": content}).config()
