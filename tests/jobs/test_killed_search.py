"""A search whose driver is killed leaves nothing running, and goes on where it was."""

from __future__ import annotations

from pathlib import Path

from made import make_config
from processes import Command, wait_for

from ray_xml.config import dump_config, load_config
from ray_xml.run_config import RunConfig
from ray_xml.search_log import DONE, STOPPED, SearchLog
from ray_xml.store import DataSet
from ray_xml.tune_folder import TuneFolder

EPOCHS = 6
SECONDS = 600.0


def test_a_killed_search_goes_on(data: DataSet, tmp_path: Path) -> None:
    config = make_config(
        training={"epochs": EPOCHS},
        resources={"workers": 1, "label_shards": 1},
        tune={
            "space": {"training.rate": {"log_uniform": [0.001, 0.02]}},
            "trials": 3, "concurrent": 1, "scheduler": "none",
        },
    )  # fmt: skip
    config = config.model_copy(update={"data": str(data.path), "run": "search"})
    (tmp_path / "config.yaml").write_text(dump_config(config))
    folder = TuneFolder(tmp_path / "search")

    killed = Command("tune", "config.yaml", folder=tmp_path)
    try:
        seen = wait_for(lambda: len(folder.trial(1).lines()) >= 2 or not killed.running(), SECONDS)
        assert seen, "no epoch in time"
        assert killed.running(), killed.end()
        killed.kill()
        killed.end()
        assert wait_for(lambda: not killed.offspring(), 120), killed.offspring()
    finally:
        killed.clean_up()
    before = SearchLog(folder.path)
    assert before.trial(0).status == DONE
    first = folder.trial(0).metrics_file.read_bytes()
    done = folder.trial(1).epochs_done()
    assert 2 <= done < EPOCHS

    command = Command("tune", "config.yaml", "--resume", folder=tmp_path)
    try:
        status, out, err = command.end(SECONDS)
    finally:
        command.clean_up()
    assert status == 0, err
    assert "Traceback" not in err
    after = SearchLog(folder.path)
    assert {one.status for one in after.trials()} <= {DONE, STOPPED}
    # The trial that was over was not run again, the one that was going on went on.
    assert folder.trial(0).metrics_file.read_bytes() == first
    assert after.trial(1).parameters == before.trial(1).parameters
    for one in after.trials():
        assert [point.epoch for point in one.points] == list(range(1, EPOCHS + 1))
    assert "(the config as it stands)" in out
    assert load_config(RunConfig, folder.path / "best.yaml").data == str(data.path)
