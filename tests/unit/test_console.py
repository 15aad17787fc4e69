"""What the console says of a run: lines without a terminal, a bar with one."""

from __future__ import annotations

import io
import json
import os
import re
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from ray_xml import follow
from ray_xml.checkpoint import write_json
from ray_xml.console import Counter, Watcher
from ray_xml.follow import Follower
from ray_xml.run_folder import RunFolder
from ray_xml.run_text import describe_epoch

CHECKED = {
    "validation": {"P@1": 61.25, "P@5": 30.5, "PSP@5": 44.0},
    "shortlist_recall": 88.04,
    "candidate_recall": 92.06,
}
EVENT = {
    "phase": "classifier", "epoch": 1, "epochs": 4, "done": 1500, "total": 3000,
    "docs_per_second": 812.4,
}  # fmt: skip


class Terminal(io.StringIO):
    """Takes text as a terminal would."""

    def isatty(self) -> bool:
        return True


def line(epoch: int, seconds: float = 10.0, **more: Any) -> dict[str, Any]:
    return {
        "epoch": epoch, "loss": 3.25, "rate": 0.005, "docs_per_second": 12345.6,
        "seconds": {"setup": 100.0, "classifier": seconds - 2.0, "proxies": 2.0}, **more,
    }  # fmt: skip


def add(folder: RunFolder, *lines: dict[str, Any]) -> None:
    with open(folder.metrics_file, "a") as file:
        file.writelines(json.dumps(one) + "\n" for one in lines)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    monkeypatch.setattr(follow, "_POLL_SECONDS", 0.01)
    return RunFolder(tmp_path)


def watching(folder: RunFolder, out: io.StringIO) -> Follower:
    return Follower(folder.path, [Watcher(out)])


def wait_for(text: str, out: io.StringIO) -> None:
    end = time.monotonic() + 10
    while text not in out.getvalue():
        assert time.monotonic() < end, out.getvalue()
        time.sleep(0.01)


def test_an_epoch_in_a_line() -> None:
    plain = describe_epoch({**line(3), "seconds": {"classifier": 62.4}})
    assert plain == "epoch   3  loss 3.2500  62 s  12,346 docs/s"
    assert describe_epoch({**line(3), "seconds": {"classifier": 62.4}, **CHECKED}) == (
        plain + "  validation P@1 61.25 P@5 30.50 PSP@5 44.00  candidate recall 92.1"
    )


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (89, "89 s"), (150, "2 min"), (9000, "2.5 h")]
)
def test_times_are_told_in_fitting_units(seconds: float, text: str) -> None:
    assert f"  {text}  " in describe_epoch({**line(1), "seconds": {"classifier": seconds}})


def test_without_a_terminal_epochs_are_lines(folder: RunFolder) -> None:
    out = io.StringIO()
    add(folder, line(1))
    with watching(folder, out):
        add(folder, line(2), line(3, **CHECKED))
        wait_for("epoch   3", out)
    # What was there before this call is not told again.
    assert out.getvalue().splitlines() == [
        describe_epoch(line(2)), describe_epoch(line(3, **CHECKED)),
    ]  # fmt: skip


def test_the_last_epoch_is_told_however_soon_the_run_ends(folder: RunFolder) -> None:
    out = io.StringIO()
    with watching(folder, out):
        add(folder, line(1))
    assert out.getvalue() == describe_epoch(line(1)) + "\n"


def test_half_a_line_is_told_when_it_is_whole(folder: RunFolder) -> None:
    out = io.StringIO()
    text = json.dumps(line(1)) + "\n"
    with watching(folder, out):
        with open(folder.metrics_file, "a") as file:
            file.write(text[:40])
            file.flush()
            time.sleep(0.05)
            file.write(text[40:])
        wait_for("epoch   1", out)
    assert out.getvalue().count("epoch") == 1


def test_progress_says_where_the_run_is_and_how_long_it_takes(folder: RunFolder) -> None:
    out = io.StringIO()
    add(folder, line(1))
    with watching(folder, out):
        write_json(folder.progress_file, EVENT)
        wait_for("left", out)
    # 10 s an epoch without set-up, and 2.5 epochs to go.
    assert out.getvalue() == "epoch 2/4  classifier  1,500/3,000  812 docs/s  about 25 s left\n"
    assert not folder.progress_file.exists()


def test_before_the_first_epoch_no_time_is_promised(folder: RunFolder) -> None:
    out = io.StringIO()
    with watching(folder, out):
        event = {**EVENT, "phase": "token table", "epoch": 0, "done": 0, "total": 1}
        write_json(folder.progress_file, {**event, "docs_per_second": 0.0})
        wait_for("token table", out)
    assert out.getvalue() == "epoch 1/4  token table\n"


def test_plain_progress_is_told_now_and_then(folder: RunFolder) -> None:
    out = io.StringIO()
    with watching(folder, out):
        for done in range(5):
            write_json(folder.progress_file, {**EVENT, "done": done})
            wait_for("classifier", out)
            time.sleep(0.02)
    assert out.getvalue().count("classifier") == 1


def test_a_stale_progress_file_is_not_believed(folder: RunFolder) -> None:
    out = io.StringIO()
    write_json(folder.progress_file, EVENT)
    with watching(folder, out):
        time.sleep(0.05)
    assert out.getvalue() == ""


def test_damaged_progress_is_passed_over(folder: RunFolder) -> None:
    out = io.StringIO()
    with watching(folder, out):
        folder.progress_file.write_text("{")
        time.sleep(0.05)
        write_json(folder.progress_file, EVENT)
        wait_for("classifier", out)


def test_a_terminal_shows_a_bar_and_keeps_the_epochs(folder: RunFolder) -> None:
    out = Terminal()
    with watching(folder, out):
        write_json(folder.progress_file, EVENT)
        wait_for("812 docs/s", out)
        add(folder, line(2))
        wait_for("loss", out)
    assert "━" in out.getvalue()
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())  # without colours and moves
    assert describe_epoch(line(2)) + "\n" in shown
    assert "\x1b[?25h" in out.getvalue()  # the cursor is back


def test_the_watcher_ends_with_an_error_in_the_run(folder: RunFolder) -> None:
    before = threading.active_count()
    with pytest.raises(KeyError), watching(folder, io.StringIO()):
        raise KeyError
    assert threading.active_count() == before


def test_a_counter_is_silent_without_a_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    with Counter() as counter:
        counter.show("train", 5, 10)
    assert capfd.readouterr() == ("", "")


def test_a_counter_shows_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    out = Terminal()
    monkeypatch.setattr("sys.stderr", out)
    monkeypatch.setenv("COLUMNS", "100")
    with Counter() as counter:
        counter.show("train", 0, 10)
        counter.show("train", 10, 10)
        counter.show("test", 1, 4)
    assert "train" in out.getvalue()
    assert "test" in out.getvalue()
    assert os.environ["COLUMNS"] == "100"
