"""The program that runs the tutorial: it skips nothing, and a step that fails is told."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import tutorial
from documents import Page

Capture = pytest.CaptureFixture[str]


def page(*blocks: str) -> Page:
    text = "\n\n".join(f"```{one}\n```" for one in blocks)
    return Page.of("docs/page.md", text)


def test_every_block_of_the_page_runs() -> None:
    shown = Page.read(tutorial.PAGE)
    script = tutorial.script(shown)
    assert {block.language for block in shown.blocks} == {"sh", "python", "text"}
    for block in shown.blocks:
        assert (block.text in script) == (block.language != "text")
    for step in ("prepare", "train", "evaluate", "report", "export", "predict", "serve"):
        assert f"\nray-xml {step} " in script


def test_one_shell_runs_all(tmp_path: Path, capsys: Capture) -> None:
    shown = page(
        "sh\nname=world\nls", "text\nfalse", 'python\nprint("from python")', "sh\necho $name"
    )
    assert tutorial.run(shown, tmp_path, 60) == 0
    told = [line for line in capsys.readouterr().out.splitlines() if line]
    assert [line for line in told if not line.startswith("== ")] == [
        "configs",
        "examples",
        "from python",
        "world",
    ]
    assert told[0].endswith("docs/page.md:2")


def test_a_step_that_fails_ends_it_and_what_runs_beside(tmp_path: Path, capsys: Capture) -> None:
    began = time.monotonic()
    assert tutorial.run(page("sh\nsleep 50 &", "sh\nfalse\necho not here"), tmp_path, 30) == 1
    assert time.monotonic() - began < 20
    assert "not here" not in capsys.readouterr().out


def test_it_takes_too_long(tmp_path: Path, capsys: Capture) -> None:
    assert tutorial.run(page("sh\nsleep 50"), tmp_path, 0.5) == 124
    assert "not done after" in capsys.readouterr().err
