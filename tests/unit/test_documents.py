"""What the pages say is so: links lead somewhere, commands and keys are taken, code imports."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from fnmatch import fnmatch
from pathlib import Path
from types import ModuleType

import documents
import pytest
import worded
from documents import CLUSTER_FILES, PAGES, ROOT, Page

from ray_xml import config_docs
from ray_xml.config import build_config
from ray_xml.errors import ConfigError
from ray_xml.predictor import Predictor
from ray_xml.run_config import RunConfig
from ray_xml.yaml_text import parse_yaml

# Packages that a page may use and that need not be installed here.
NO_DEPENDENCIES = ("sentence_transformers",)


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_to_files_and_headings_that_there_are(name: str) -> None:
    check_links(Page.read(name))


def check_links(page: Page) -> None:
    for link in page.links():
        target, _, anchor = link.partition("#")
        path = (ROOT / page.name).parent / target if target else ROOT / page.name
        assert path.exists(), f"{page.name}: {link}"
        if anchor:
            other = Page.read(str(path.resolve().relative_to(ROOT.resolve())))
            assert anchor in other.anchors(), f"{page.name}: {link}"


@pytest.mark.parametrize("name", PAGES)
def test_files_that_are_named_exist(name: str) -> None:
    missing = [one for one in Page.read(name).files() if not any(ROOT.glob(one.rstrip(".")))]
    assert not missing, f"{name} names {missing}"


@pytest.mark.parametrize("name", PAGES + CLUSTER_FILES)
def test_every_command_is_one_that_we_take(name: str) -> None:
    for words in documents.shown(name):
        check_command(words)


def check_command(words: list[str]) -> None:
    arguments = documents.ours(words)
    if arguments is not None:
        assert callable(documents.parsed(arguments).command)
    elif words[0] == "make":
        rules = (ROOT / "Makefile").read_text(encoding="utf-8")
        for target in (one for one in words[1:] if "=" not in one and one != "…"):
            rule = re.escape(target.replace(".venv", "$(VENV)"))
            assert re.search(rf"^{rule}:", rules, re.MULTILINE), f"no rule for make {target}"
    elif words[:2] == ["python", "-m"]:
        assert words[2] in ("pytest", "ray_xml.config_docs"), words
        assert all((ROOT / one).exists() for one in words[3:] if "/" in one), words
    elif words[0] == "python" and words[1].endswith(".py"):
        documents.check_script(words[1], words[2:])


@pytest.mark.parametrize("name", PAGES)
def test_commands_and_keys_in_the_prose_exist(name: str) -> None:
    for code in Page.read(name).code():
        if code.startswith("ray-xml "):
            documents.mentioned(code)
        elif re.match(r"(python|make|ray job submit) ", code):
            for words in documents.commands(code):
                check_command(words)
        for word in code.split():
            if match := documents.KEY.fullmatch(word.rstrip(",:")):
                documents.check_keys([f"{match[1]}={match[2] or '…'}"])


@pytest.mark.parametrize("name", PAGES)
def test_names_of_ours_exist(name: str) -> None:
    page = Page.read(name)
    directives = [one.text for one in page.blocks if one.language == "{eval-rst}"]
    for dotted in re.findall(r"\bray_xml(?:\.\w+)+", "\n".join([*page.code(), *directives])):
        pkgutil.resolve_name(dotted)


@pytest.mark.parametrize("name", PAGES)
def test_python_compiles_and_imports_what_there_is(name: str) -> None:
    for block in Page.read(name).blocks:
        if block.language == "python":
            check_imports(block.text)


def check_imports(source: str) -> None:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                imported(alias.name)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None
            module = imported(node.module)
            for alias in node.names:
                there = module is None or hasattr(module, alias.name)
                assert there, f"{node.module} has no {alias.name}"


def imported(name: str) -> ModuleType | None:
    """The module; None of a package that need not be installed."""
    return None if name.split(".")[0] in NO_DEPENDENCIES else importlib.import_module(name)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the models and data sets that pages name."""
    folder = tmp_path_factory.mktemp("reader")
    kinds = {"sorting": "sort a list", "graphs": "find the shortest path between nodes"}
    rows = [
        (f"How do I {what} word{number} word{number % 7}?", [label])
        for number in range(60)
        for label, what in kinds.items()
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worded, "texts", lambda seed, count: rows)
        run = worded.worded_run(folder)
    (folder / "models").mkdir()
    for name in ("mine", "posts", "functions"):
        (folder / "models" / name).symlink_to(run.path)
    (folder / "data" / "mine").symlink_to(folder / "data")
    return folder


@pytest.mark.parametrize("name", PAGES)
def test_python_that_predicts_runs(
    name: str, reader: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(reader)
    for block in Page.read(name).blocks:
        if block.language == "python" and "Predictor.load" in block.text:
            seen: dict[str, object] = {}
            exec(compile(block.text, f"{name}:{block.line}", "exec"), seen)
            assert isinstance(seen["predictor"], Predictor)


@pytest.mark.parametrize("name", PAGES)
def test_yaml_is_a_config(name: str) -> None:
    for block in Page.read(name).blocks:
        if block.language == "yaml":
            build_config(RunConfig, parse_yaml(block.text), origin=f"{name}:{block.line}")


def test_every_module_is_in_the_list_of_where_code_goes() -> None:
    (listing,) = (
        one.text for one in Page.read("docs/architecture.md").blocks if "cluster/ " in one.text
    )
    # Names stand in the first column, and an explanation behind two spaces at least.
    named = [word for line in listing.splitlines() for word in line.split("  ")[0].split()]
    modules = {path.stem for path in (ROOT / "ray_xml").glob("*.py")} - {"__init__"}
    missing = [one for one in modules if not any(fnmatch(one, name) for name in named)]
    assert not missing, f"docs/architecture.md does not list {sorted(missing)}"


def test_every_page_is_on_the_index() -> None:
    listed = {link.partition("#")[0] for link in Page.read("docs/index.md").links()}
    blocks = (one for one in Page.read("docs/index.md").blocks if one.language == "{toctree}")
    trees = [line for one in blocks for line in one.text.splitlines() if line.endswith(".md")]
    there = {path.name for path in ROOT.glob("docs/*.md")} - {"index.md"}
    assert there <= listed
    assert sorted(there) == sorted(trees)


def test_the_config_reference_is_fresh() -> None:
    made = config_docs.page()
    assert (ROOT / "docs/config.md").read_text(encoding="utf-8") == made, (
        "run: python -m ray_xml.config_docs > docs/config.md"
    )
    for key in documents.KEYS - {name for name, _ in config_docs._sections(RunConfig)}:
        assert made.count(f"| `{key}` |") == 1


def test_a_key_without_a_meaning_is_an_error() -> None:
    class Nameless(documents.RunConfig):
        """A config.

        Attributes:
            other: is none of its keys.
        """

        own: int = 1

    with pytest.raises(ValueError, match="differ in other, own"):
        config_docs.meanings(Nameless)


def test_the_checks_find_mistakes() -> None:
    page = Page.of(
        "docs/wrong.md",
        "# A `title`\n\nSee [a](b.md), [c](data.md#columns), [d](data.md#rows).\n\n"
        "    ray-xml train configs/default.yaml data=a \\\n        resources.worker=3\n"
        "    # said\n\n* a list\n\n      ray-xml is no command here\n\n"
        "```python\nfrom ray_xml.store import DataSets\n```\n",
    )
    assert page.links() == ["b.md", "data.md#columns", "data.md#rows"]
    assert page.anchors() == {"a-title"}
    for wrong in ("b.md", "data.md#rows"):
        with pytest.raises(AssertionError, match=re.escape(wrong)):
            check_links(Page.of("docs/wrong.md", f"[x]({wrong})"))
    ((*words,),) = page.commands()
    with pytest.raises(AssertionError, match=r"resources\.workers"):
        check_command(words)
    with pytest.raises(AssertionError, match="DataSets"):
        check_imports(page.blocks[1].text)
    for wrong in ("ray_xml.stores", "ray_xml.store.DataSet.opened"):
        with pytest.raises((ImportError, AttributeError)):
            pkgutil.resolve_name(wrong)


@pytest.mark.parametrize(
    "line",
    [
        "ray-xml evaluate runs/mine --jsn",
        "ray-xml evalute runs/mine",
        "python jobs/evaluate.py runs/mine --jsn",
        "python benchmarks/scaling.py --labels 10 --sizes 20",
        "ray job submit --working-dir . -- python jobs/predict.py runs/mine --out x",
    ],
)
def test_a_command_that_is_not_taken(line: str) -> None:
    ((*words,),) = documents.commands(line)
    with pytest.raises(SystemExit):
        check_command(words)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("ray-xml train configs/a.yaml training.epochs=none", ConfigError),
        ("ray-xml train configs/a.yaml training.epoch=3", AssertionError),
        ("make tests", AssertionError),
        ("python jobs/evaluat.py runs/mine", AssertionError),
        ("python benchmarks/scaling_paper.py --json x", AssertionError),
    ],
)
def test_a_key_or_a_name_that_does_not_exist(line: str, error: type[Exception]) -> None:
    ((*words,),) = documents.commands(line)
    with pytest.raises(error):
        check_command(words)


@pytest.mark.parametrize(
    "code",
    ["ray-xml predict --explai", "ray-xml plans", "ray-xml prepare xml A", "ray-xml tune --x"],
)
def test_a_mention_of_what_does_not_exist(code: str) -> None:
    with pytest.raises(AssertionError):
        documents.mentioned(code)
