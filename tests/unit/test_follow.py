"""Following a run: what listeners are told, and that none of them can hold up the rest."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ray_xml import follow
from ray_xml.disk import replace_text
from ray_xml.follow import Follower, Listener
from ray_xml.run_records import METRICS, PROGRESS, read_event, read_lines, scalars


def happening(phase: str) -> dict[str, Any]:
    counts = {"epoch": 1, "epochs": 2, "done": 1, "total": 4}
    return {"phase": phase, "docs_per_second": 1.0, **counts}


class Notes(Listener):
    """Writes down what it is told; fails or waits where it is told to."""

    name = "notes"

    def __init__(self, fails: Callable[[str], bool] = lambda what: False) -> None:
        self.told: list[str] = []
        self.threads: set[str] = set()
        self.fails = fails

    def _note(self, what: str) -> None:
        self.threads.add(threading.current_thread().name)
        if self.fails(what):
            raise ConnectionError(f"no network for {what}")
        self.told.append(what)

    def begin(self, lines: Sequence[dict[str, Any]]) -> None:
        self._note(f"begin {[line['epoch'] for line in lines]}")

    def epoch(self, line: dict[str, Any]) -> None:
        self._note(f"epoch {line['epoch']} {line['loss']}")

    def event(self, event: dict[str, Any]) -> None:
        self._note(f"event {event['phase']}")

    def said(self, text: str) -> None:
        self._note(f"said {text}")

    def end(self, status: str) -> None:
        self._note(f"end {status}")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(follow, "_POLL_SECONDS", 0.01)
    return tmp_path


def write(run: Path, *losses: float) -> None:
    text = "".join(json.dumps({"epoch": n + 1, "loss": x}) + "\n" for n, x in enumerate(losses))
    replace_text(run / METRICS, text)


def wait_for(what: str, notes: Notes) -> None:
    end = time.monotonic() + 20
    while what not in notes.told:
        assert time.monotonic() < end, notes.told
        time.sleep(0.01)


def test_a_listener_is_told_in_order_by_one_thread(run: Path) -> None:
    notes = Notes()
    write(run, 0.9)
    with Follower(run, [notes]) as follower:
        write(run, 0.9, 0.8)
        wait_for("epoch 2 0.8", notes)
        follower.say("hello")
        wait_for("said hello", notes)
        write(run, 0.9, 0.8, 0.7)
    assert notes.told == ["begin [1]", "epoch 2 0.8", "said hello", "epoch 3 0.7", "end finished"]
    assert notes.threads == {"to notes"}


def test_epochs_that_were_taken_back_are_told_again(run: Path) -> None:
    notes = Notes()
    write(run, 0.9)
    with Follower(run, [notes]):
        write(run, 0.9, 0.8, 0.7)
        wait_for("epoch 3 0.7", notes)
        write(run, 0.9)  # the checkpoints of epochs 2 and 3 were damaged
        time.sleep(0.1)
        write(run, 0.9, 0.85)
        wait_for("epoch 2 0.85", notes)
        write(run, 0.9, 0.85, 0.7)
        time.sleep(0.1)
        write(run, 0.9, 0.85, 0.7)  # written anew, and the same
        time.sleep(0.1)
    assert notes.told == [
        "begin [1]", "epoch 2 0.8", "epoch 3 0.7", "epoch 2 0.85", "epoch 3 0.7", "end finished",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError, "failed"), (KeyboardInterrupt, "stopped")]
)
def test_how_it_ended(run: Path, error: type[BaseException], status: str) -> None:
    notes = Notes()
    with pytest.raises(error), Follower(run, [notes]):
        raise error
    assert notes.told == ["begin []", f"end {status}"]


def test_what_failed_is_told_once_and_tried_again(run: Path) -> None:
    out, down = io.StringIO(), True
    notes, other = Notes(lambda what: down), Notes()
    with Follower(run, [notes, other], out=out):
        write(run, 0.9)
        wait_for("epoch 1 0.9", other)
        write(run, 0.9, 0.8)
        wait_for("epoch 2 0.8", other)
        assert notes.told == []
        down = False
        write(run, 0.9, 0.8, 0.7)
        wait_for("epoch 3 0.7", notes)
    told = ["begin []", "epoch 1 0.9", "epoch 2 0.8", "epoch 3 0.7", "end finished"]
    assert notes.told == told
    assert other.told == told
    assert out.getvalue() == (
        "warning: notes failed (ConnectionError: no network for begin []). Training goes on; it is "
        "tried again after each epoch\n"
    )


def test_one_epoch_that_is_not_taken_does_not_take_the_end_along(run: Path) -> None:
    out = io.StringIO()
    notes = Notes(lambda what: what.startswith("epoch 2"))
    with Follower(run, [notes], out=out):
        write(run, 0.9, 0.8, 0.7)
    assert notes.told == ["begin []", "epoch 1 0.9", "epoch 3 0.7", "end finished"]
    assert "notes was not told everything; the run folder has it all" in out.getvalue()


def test_a_listener_that_waits_holds_nobody_up(run: Path) -> None:
    out, gate = io.StringIO(), threading.Event()
    slow, quick = Notes(lambda what: gate.wait(20) and False), Notes()
    slow.patience = 0.1
    with Follower(run, [slow, quick], out=out):
        write(run, 0.9)
        wait_for("epoch 1 0.9", quick)
        began = time.monotonic()
    assert time.monotonic() - began < 10
    assert quick.told[-1] == "end finished"
    assert out.getvalue() == (
        "warning: notes has not taken everything in 0 s; not waiting any longer\n"
    )
    gate.set()
    wait_for("end finished", slow)


def test_events_are_told_but_not_saved_up(run: Path) -> None:
    gate = threading.Event()
    slow, quick = Notes(lambda what: gate.wait(20) and False), Notes()
    with Follower(run, [slow, quick]):
        for phase in range(20):
            replace_text(run / PROGRESS, json.dumps(happening(str(phase))))
            wait_for(f"event {phase}", quick)
        gate.set()
    assert len([what for what in slow.told if what.startswith("event")]) <= 2


def test_only_the_run_itself_clears_its_progress_away(run: Path) -> None:
    replace_text(run / PROGRESS, json.dumps(happening("proxies")))
    notes = Notes()
    with Follower(run, [notes], own=False):
        wait_for("event proxies", notes)
    assert read_event(run) == happening("proxies")
    with Follower(run, []):
        assert read_event(run) is None


def test_numbers_of_a_line() -> None:
    line = {
        "epoch": 3, "loss": 0.5, "recall": float("nan"), "seconds": {"setup": 1, "proxies": 2.5},
        "indexes": {"proxy": {"kinds": ["flat"], "recall": 100.0}}, "validation": {"P@1": 61.0},
        "best": {"epoch": 2, "metric": "P@1"},
    }  # fmt: skip
    assert scalars(line) == {
        "loss": 0.5, "seconds/setup": 1.0, "seconds/proxies": 2.5, "indexes/proxy/recall": 100.0,
        "validation/P@1": 61.0,
    }  # fmt: skip


def test_a_line_that_is_none_is_left_out(run: Path) -> None:
    assert read_lines(run) == []
    (run / METRICS).write_text('{"epoch": 1}\n[]\n{"epoch": "x"}\nnull\n{"epoch": 2}\n{"epoch": 3')
    assert read_lines(run) == [{"epoch": 1}, {"epoch": 2}]
