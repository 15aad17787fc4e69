"""Reading configs: precedence, what is refused and in which words, the round trip."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field

from ray_xml.config import Section, build_config, dump_config, load_config, parse_yaml
from ray_xml.errors import ConfigError
from ray_xml.run_config import RunConfig


class Inner(Section):
    rate: float = Field(0.1, gt=0)
    passes: int = 3
    kind: Literal["a", "b"] = "a"
    cpus: float | None = None


class Outer(Section):
    name: str = ""
    inner: Inner = Inner()


def write(path: Path, text: str) -> Path:
    file = path / "made.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def load(path: Path, text: str, *overrides: str) -> Outer:
    return load_config(Outer, write(path, text), overrides)


def test_overrides_beat_the_file_which_beats_the_defaults(tmp_path: Path) -> None:
    made = load(
        tmp_path, "inner:\n  rate: 0.2\n  passes: 5\n", "inner.passes=7", "name=x", "name=y"
    )
    assert made == Outer(name="y", inner=Inner(rate=0.2, passes=7))


def test_overrides_reach_sections_that_the_file_leaves_out(tmp_path: Path) -> None:
    assert load(tmp_path, "", "inner.kind=b").inner.kind == "b"
    assert load(tmp_path, "inner:\n", "inner.kind=b").inner.kind == "b"
    assert load(tmp_path, "inner: {cpus: 2}", "inner.cpus=null").inner.cpus is None
    assert load(tmp_path, "", "inner={passes: 9}").inner.passes == 9
    assert load(tmp_path, "", "name=a=b").name == "a=b"


@pytest.mark.parametrize("text", ["2e-6", "2.0e-6", "0.000002", "2E-6"])
def test_exponents_are_numbers(tmp_path: Path, text: str) -> None:
    assert load(tmp_path, f"inner: {{rate: {text}}}").inner.rate == 2e-6
    assert load(tmp_path, "", f"inner.rate={text}").inner.rate == 2e-6


@pytest.mark.parametrize(
    ("text", "wrong", "right"),
    [
        ("inner: {rat: 1}", "inner.rat", "inner.rate"),
        ("iner: {rate: 1}", "iner", "inner"),
        ("nam: x", "nam", "name"),
        ("passes: 4", "passes", "inner.passes"),
    ],
)
def test_an_unknown_key_names_the_nearest(
    tmp_path: Path, text: str, wrong: str, right: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert f"unknown key '{wrong}'; did you mean '{right}'?" in str(caught.value)
    assert "made.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("training.epoch", "training.epochs"),
        ("training.batchsize", "training.batch_size"),
        ("encoder.dimension", "encoder.dim"),
        ("encoder.drop_out", "encoder.dropout"),
        ("shortlist.k", "shortlist"),
        ("resource.workers", "resources"),
        ("proxy.solvers", "proxy.solver"),
        ("classifier.negative", "classifier.negatives"),
        ("cycle_epochs", "training.cycle_epochs"),
    ],
)
def test_typing_errors_in_a_run_config(tmp_path: Path, wrong: str, right: str) -> None:
    with pytest.raises(ConfigError, match=f"did you mean '{right}"):
        load_config(RunConfig, write(tmp_path, ""), [f"{wrong}=1"])


def test_every_error_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, "inner: {rate: -1, passes: many, kind: c}\nnames: 3")
    message = str(caught.value)
    for part in (
        "inner.rate: Input should be greater than 0 (got -1)",
        "inner.passes: Input should be a valid integer",
        "(got 'many')",
        "inner.kind: Input should be 'a' or 'b' (got 'c')",
        "unknown key 'names'",
    ):
        assert part in message


@pytest.mark.parametrize(
    "text",
    ["name: [1, 2]", "name: {a: 1}", "inner: 3", "inner: [rate]", "inner: {passes: 1.5}", "1: 2"],
)
def test_wrong_types_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"made\.yaml: "):
        load(tmp_path, text)


@pytest.mark.parametrize(("text", "kind"), [("- a\n- b\n", "list"), ("hello", "str"), ("3", "int")])
def test_a_file_must_be_a_mapping(tmp_path: Path, text: str, kind: str) -> None:
    with pytest.raises(ConfigError, match=f"expected a mapping of keys, found {kind}"):
        load(tmp_path, text)


@pytest.mark.parametrize(
    "text",
    ["a: [1", "a: b: c", "\tname: x", "name: !!python/object/apply:os.getcwd []", "[" * 2000],
)
def test_bad_yaml_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="not valid YAML"):
        load(tmp_path, text)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such config file"):
        load_config(Outer, tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(Outer, tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"name: \xe9\xff\n")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(Outer, tmp_path / "latin.yaml")


@pytest.mark.parametrize(
    ("text", "key", "lines"),
    [
        ("name: a\nname: b\n", "name", "1 and 2"),
        ("# a comment\ninner:\n  rate: 1\n  passes: 2\n\n  rate: 1\n", "rate", "3 and 6"),
        ("inner: {rate: 1}\nname: x\ninner: {passes: 2}\n", "inner", "1 and 3"),
        ("inner: {rate: 1, rate: 2}", "rate", "1 and 1"),
        ("name: a\n'name': b", "name", "1 and 2"),
        ("name: a\n? name\n: b", "name", "1 and 2"),
    ],
)
def test_a_key_given_twice_is_refused(tmp_path: Path, text: str, key: str, lines: str) -> None:
    said = (
        rf"made\.yaml: not valid YAML: the key '{key}' is given twice, in lines {lines}; keep one"
    )
    with pytest.raises(ConfigError, match=said):
        load(tmp_path, text)


def test_the_same_key_in_two_sections_is_no_key_twice(tmp_path: Path) -> None:
    values = parse_yaml("a: {x: 1}\nb: {x: 2}\n1: c\n'1': d")
    assert values == {"a": {"x": 1}, "b": {"x": 2}, 1: "c", "1": "d"}
    # What a section merges in it may set anew.
    assert parse_yaml("b: {<<: {x: 1, y: 2}, x: 3}") == {"b": {"x": 3, "y": 2}}
    with pytest.raises(ConfigError, match=r"override 'inner=.*'rate' is given twice"):
        load(tmp_path, "", "inner={rate: 1, rate: 2}")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("name", "expected key=value"),
        ("=x", "expected key=value"),
        ("name.first=x", "name is a value, not a section"),
        ("inner.rate=[1", "not valid YAML"),
        ("inner.rat=1", "did you mean 'inner.rate'"),
    ],
)
def test_bad_overrides_are_refused(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, "name: x", override)


def test_configs_cannot_be_changed() -> None:
    made = Outer()
    with pytest.raises(ValueError, match="frozen"):
        made.name = "x"


@pytest.mark.parametrize(
    "made",
    [
        RunConfig(),
        build_config(
            RunConfig,
            {
                "data": "a folder: with, marks",
                "training": {"rate": 2e-6, "metric": "PSP@5"},
                "neighbors": {"size": 0, "idf": "on"},
                "resources": {"cpus_per_worker": None, "address": "ray://x:1", "device": "cuda"},
                "dataset": {"name": "ü", "propensity_a": 0.5, "propensity_b": 0.4},
            },
            origin="test",
        ),
    ],
)
def test_a_dump_is_read_back_as_it_was(tmp_path: Path, made: RunConfig) -> None:
    assert load_config(RunConfig, write(tmp_path, dump_config(made))) == made
