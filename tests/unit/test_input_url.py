"""Files at URLs make the same data set as the files, and errors name the URL."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from worded import texts

from ray_xml.cli import main
from ray_xml.storage import Storage
from ray_xml.store import DataSet

pytestmark = pytest.mark.usefixtures("cache")


def lines(seed: int) -> str:
    rows = [json.dumps({"text": text, "tags": labels}) for text, labels in texts(seed, 60)]
    return "".join(row + "\n" for row in rows)


def test_texts_at_urls(url: str, tmp_path: Path, cache: Path) -> None:
    for name, seed in (("train", 0), ("test", 1)):
        (tmp_path / f"{name}.jsonl").write_text(lines(seed), encoding="utf-8")
        Storage(url).upload(tmp_path / f"{name}.jsonl", f"{name}.jsonl")
    checksums = []
    for at, out in ((url, "theirs"), (str(tmp_path), "ours")):
        files = f"{at}/train.jsonl", str(tmp_path / out), "--test", f"{at}/test.jsonl"
        options = "--text", "text", "--labels", "tags", "--name", "one", "--processes", "1"
        assert main(["prepare", "text", *files, *options]) == 0
        checksums.append(DataSet.open(tmp_path / out).meta.checksum)
    assert checksums[0] == checksums[1]
    assert not list(cache.iterdir())


def test_what_is_wrong_names_the_url(
    url: str, tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.txt").write_text("2 3 2\n0 0:1\nx 1:1\n")
    Storage(url).upload(tmp_path / "a.txt", "a.txt")
    out = str(tmp_path / "out")
    assert main(["prepare", "xc", f"{url}/a.txt", str(tmp_path / "a.txt"), out]) == 1
    assert f"error: {url}/a.txt:3:" in capsys.readouterr().err
    assert main(["prepare", "xc", f"{url}/none.txt", str(tmp_path / "a.txt"), out]) == 1
    assert f"{url}/none.txt cannot be read" in capsys.readouterr().err
    assert not list(cache.iterdir())
