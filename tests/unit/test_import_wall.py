"""Imports go only downwards, and nothing outside ``ray_xml/cluster`` and ``jobs`` imports ray."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Lowest first. A module imports modules of layers before its own, and none beside it.
LAYERS = [
    ["ray_xml", "ray_xml.errors"],
    [
        "ray_xml.json_text",
        "ray_xml.yaml_text",
        "ray_xml.npy_file",
        "ray_xml.xz_file",
        "ray_xml.arrow_split",
    ],
    [
        "ray_xml.epoch_line",
        "ray_xml.config",
        "ray_xml.partition",
        "ray_xml.sparse",
        "ray_xml.hashing",
        "ray_xml.heap",
        "ray_xml.transfer",
        "ray_xml.storage",
        "ray_xml.disk",
        "ray_xml.in_order",
        "ray_xml.words",
        "ray_xml.finite",
        "ray_xml.run_identity",
        "ray_xml.svg",
        "ray_xml.calibration",
    ],
    [
        "ray_xml.run_records",
        "ray_xml.run_text",
        "ray_xml.manifest",
        "ray_xml.row_adam",
        "ray_xml.lean_adam",
        "ray_xml.matrix_file",
        "ray_xml.propensity",
        "ray_xml.calls",
        "ray_xml.quantise",
        "ray_xml.probability",
        "ray_xml.top_entries",
        "ray_xml.run_sections",
        "ray_xml.tune_config",
        "ray_xml.kept_file",
        "ray_xml.postings",
        "ray_xml.best_k",
        "ray_xml.pair_scores",
        "ray_xml.synth_shapes",
        "ray_xml.synth_labels",
        "ray_xml.label_book",
        "ray_xml.text_split",
        "ray_xml.embedding",
    ],
    [
        "ray_xml.follow",
        "ray_xml.bags",
        "ray_xml.cut_documents",
        "ray_xml.exchange",
        "ray_xml.checkpoint",
        "ray_xml.run_lock",
        "ray_xml.range_state",
        "ray_xml.metrics",
        "ray_xml.autosize",
        "ray_xml.tune_search",
        "ray_xml.exact_search",
        "ray_xml.coarse_search",
        "ray_xml.charts",
    ],
    [
        "ray_xml.checkpoint_check",
        "ray_xml.compact",
        "ray_xml.compact_file",
        "ray_xml.label_index",
        "ray_xml.log_tensorboard",
        "ray_xml.log_mlflow",
        "ray_xml.log_wandb",
        "ray_xml.console",
        "ray_xml.search_log",
        "ray_xml.tune_budget",
        "ray_xml.document_scores",
        "ray_xml.report_html",
        "ray_xml.report_environment",
        "ray_xml.vector_neighbors",
        "ray_xml.votes",
    ],
    [
        "ray_xml.store_meta",
        "ray_xml.store_partial",
        "ray_xml.xc_parse",
        "ray_xml.synth_model",
        "ray_xml.mapped_file",
        "ray_xml.run_status",
        "ray_xml.tune_plot",
        "ray_xml.tune_pbt",
        "ray_xml.report_curves",
    ],
    ["ray_xml.store", "ray_xml.store_write", "ray_xml.xc_faults", "ray_xml.data_summary"],
    ["ray_xml.text"],
    ["ray_xml.text_fit"],
    ["ray_xml.xc_io", "ray_xml.docstrings", "ray_xml.synth", "ray_xml.data_copy"],
    ["ray_xml.data_url", "ray_xml.row_files", "ray_xml.filter_file", "ray_xml.truth"],
    ["ray_xml.input_url"],
    ["ray_xml.row_values"],
    ["ray_xml.label_texts", "ray_xml.label_examples", "ray_xml.text_blocks"],
    ["ray_xml.prepare_text"],
    ["ray_xml.prepare_lf"],
    ["ray_xml.predict_inputs", "ray_xml.predict_parts"],
    ["ray_xml.predict_blocks"],
    # What the method is made of; these do not know each other.
    [
        "ray_xml.encoder",
        "ray_xml.proxies",
        "ray_xml.shortlist",
        "ray_xml.classifier",
        "ray_xml.neighbors",
        "ray_xml.blend",
        "ray_xml.label_maps",
        "ray_xml.known_labels",
    ],
    [
        "ray_xml.token_table",
        "ray_xml.label_search",
        "ray_xml.run_config",
        "ray_xml.batches",
        "ray_xml.label_words",
        "ray_xml.label_pairs",
        "ray_xml.added_labels",
    ],
    ["ray_xml.lexical"],
    [
        "ray_xml.lexical_file",
        "ray_xml.label_range",
        "ray_xml.scoring",
        "ray_xml.run_data",
        "ray_xml.run_cache",
        "ray_xml.run_folder",
        "ray_xml.tune_space",
        "ray_xml.config_docs",
    ],
    [
        "ray_xml.ranges",
        "ray_xml.model",
        "ray_xml.model_share",
        "ray_xml.prepare",
        "ray_xml.run_storage",
        "ray_xml.run_loggers",
        "ray_xml.tune_folder",
        "ray_xml.run_fork",
    ],
    ["ray_xml.tune_report"],
    ["ray_xml.export_manifest"],
    ["ray_xml.export", "ray_xml.run_upload", "ray_xml.predict_shard", "ray_xml.predict_documents"],
    ["ray_xml.model_words", "ray_xml.new_labels"],
    ["ray_xml.explain"],
    ["ray_xml.tagger", "ray_xml.serve_request", "ray_xml.serve_counts"],
    ["ray_xml.predictor", "ray_xml.predict_table", "ray_xml.run_url"],
    [
        "ray_xml.model_place",
        "ray_xml.predict_text",
        "ray_xml.explain_text",
        "ray_xml.serve_batch",
        "ray_xml.serve_openapi",
        "ray_xml.serve_page",
        "ray_xml.serve_socket",
    ],
    [
        "ray_xml.epoch_steps",
        "ray_xml.refresh",
        "ray_xml.shortlists",
        "ray_xml.evaluation",
        "ray_xml.predict_io",
        "ray_xml.serve_app",
        "ray_xml.examples",
    ],
    [
        "ray_xml.run_state",
        "ray_xml.report_tally",
        "ray_xml.calibrate",
        "ray_xml.serve_http",
        "ray_xml.label_trial",
    ],
    ["ray_xml.epoch_report", "ray_xml.report_data", "ray_xml.label_table", "ray_xml.add_labels"],
    ["ray_xml.training", "ray_xml.report_labels", "ray_xml.report_scores", "ray_xml.report_map"],
    ["ray_xml.report_documents", "ray_xml.compare"],
    ["ray_xml.report", "ray_xml.compare_page"],
    ["ray_xml.plan_parts", "ray_xml.plan_counts"],
    ["ray_xml.plan_memory", "ray_xml.plan_traffic"],
    ["ray_xml.plan"],
    ["ray_xml.plan_fit", "ray_xml.plan_probe"],
    ["ray_xml.plan_text"],
    ["ray_xml.text_cli"],
    ["ray_xml.data_cli", "ray_xml.status_cli", "ray_xml.report_cli", "ray_xml.labels_cli"],
    ["ray_xml.plan_cli"],
    ["ray_xml.cluster"],  # and everything in it
    ["ray_xml.use_cli"],
    ["ray_xml.tune_cli", "ray_xml.serve_cli"],
    ["ray_xml.cli"],
    ["jobs"],
]
# Modules for which a package must be installed that is no dependency.
OPTIONAL = {
    "ray_xml.log_mlflow": "mlflow",
    "ray_xml.log_wandb": "wandb",
    "ray_xml.serve_http": "uvicorn",
}
LAYER_OF = {module: depth for depth, layer in enumerate(LAYERS) for module in layer}


def sources() -> dict[str, Path]:
    """Every module of the package and of jobs/, by dotted name."""
    found = {}
    for folder in ("ray_xml", "jobs"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


SOURCES = sources()
PURE = [name for name in SOURCES if not name.startswith(("ray_xml.cluster", "jobs"))]


def imports(module: str) -> Iterator[tuple[str, int]]:
    """(full name, line) of every import, those inside functions and conditions too."""
    for node in ast.walk(ast.parse(SOURCES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno} imports relatively"
            assert node.module is not None
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield (inner if inner in SOURCES else node.module), node.lineno
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("__import__", "importlib.import_module"), (
                f"{module}:{node.lineno} imports by {called}, which this test cannot follow"
            )


def layer_of(module: str) -> int:
    for name in (module, "ray_xml.cluster", "jobs"):
        if name in LAYER_OF and (module == name or module.startswith(f"{name}.")):
            return LAYER_OF[name]
    raise AssertionError(f"{module} is in no layer: add it to LAYERS in {Path(__file__).name}")


@pytest.mark.parametrize("module", PURE)
def test_ray_stays_behind_the_wall(module: str) -> None:
    wrong = [line for name, line in imports(module) if name.split(".")[0] == "ray"]
    assert not wrong, f"{SOURCES[module]} imports ray in lines {wrong}"


@pytest.mark.parametrize("module", SOURCES)
def test_imports_go_only_downwards(module: str) -> None:
    own = layer_of(module)
    for name, line in imports(module):
        if name.split(".")[0] not in ("ray_xml", "jobs"):
            continue
        assert name in SOURCES, f"{module}:{line} imports {name}, which is no module"
        both_cluster = module.startswith("ray_xml.cluster") and name.startswith("ray_xml.cluster")
        assert layer_of(name) < own or both_cluster, (
            f"{SOURCES[module]}:{line} imports {name}, which is not below it"
        )


def test_the_cluster_imports_itself_without_a_cycle() -> None:
    inner = [name for name in SOURCES if name.startswith("ray_xml.cluster.")]
    left = {name: {other for other, _ in imports(name) if other in inner} for name in inner}
    while left:
        free = [name for name, needs in left.items() if not needs & left.keys()]
        assert free, f"these import each other: {sorted(left)}"
        for name in free:
            del left[name]


def test_layers_name_only_what_exists() -> None:
    named = {module for layer in LAYERS for module in layer} - {"jobs"}
    assert named <= SOURCES.keys()


def test_the_pure_core_works_where_ray_cannot_be_imported() -> None:
    left_out = {"ray_xml"} | {name for name, needs in OPTIONAL.items() if not find_spec(needs)}
    modules = ", ".join(name for name in PURE if name not in left_out)
    code = f"import sys; sys.modules['ray'] = None; import {modules}; import ray_xml.training"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
