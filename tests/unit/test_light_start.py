"""An exported model answers where only what ``docs/scores.md`` names is installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from worded import texts, worded_run

from ray_xml.export import export
from ray_xml.model import model_of_run

# As the docs say it: pydantic and PyYAML read the config, pyarrow comes with the data set's reader.
NEEDED = ("numpy", "scipy", "torch", "faiss", "pyarrow", "safetensors", "pydantic", "yaml")
_PROGRAM = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name in sys.argv[3].split(","):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
from ray_xml.predictor import Predictor

predictor = Predictor.load(sys.argv[1])
best = predictor.predict([sys.argv[2]], top_k=3)[0]
assert best and best[0].name, best
assert predictor.explain(sys.argv[2], best[0].label).terms
"""


def test_an_export_needs_neither_ray_nor_the_training_s_packages(tmp_path: Path) -> None:
    run = worded_run(tmp_path)
    config = run.config()
    export(model_of_run(run.path), Path(config.data), tmp_path / "model", "int8")
    text, _ = texts(1, 1)[0]
    without = ("ray", "sklearn", "rich", "psutil", "tensorboardX", "fsspec", "optuna", "mlflow")
    assert not set(without) & set(NEEDED)
    subprocess.run(
        [sys.executable, "-c", _PROGRAM, tmp_path / "model", text, ",".join(without)],
        check=True,
        timeout=120,
    )
