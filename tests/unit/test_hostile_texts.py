"""Hostile configs, JSON and .npy files: refused in words, at once, with nothing executed."""

from __future__ import annotations

import json
import pickle
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from traps import Trap

from ray_xml.config import load_config
from ray_xml.errors import ConfigError, RayXmlError
from ray_xml.exchange import Exchange
from ray_xml.json_text import count_of, parse_json, shown
from ray_xml.npy_file import map_npy
from ray_xml.run_config import RunConfig
from ray_xml.sparse import Csr
from ray_xml.text import Vectorizer
from ray_xml.token_table import token_table
from ray_xml.yaml_text import MOST_BYTES, parse_yaml

few = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
)


def load(folder: Path, text: str | bytes, *overrides: str) -> RunConfig:
    file = folder / "made.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_config(RunConfig, file, overrides)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LAUGHS, "aliases"),
        ("<<: [&m {a: 1}, *m]", "aliases"),
        ("&a [*a]", "aliases"),
        ("[" * 20_000, "nested too deep"),
        ("encoder: " + "[" * 150 + "]" * 150, "encoder: .*got a list of 1"),
        ("training: {seed: " + "1" * 5000 + "}", "a number of 5,000 characters"),
        ("training: {seed: 1" + ":59" * 1000 + "}", "a number of 3,001 characters"),
        ("training: {rate: 1" + "0" * 400 + ".0}", "a number of 403 characters"),
        ("training: {rate: .inf}", "finite"),
        ("training: {rate: .nan}", "training.rate"),
        ("training: {seed: 0b2}", "training.seed: .*got '0b2'"),
        ("data: 2020-13-45", "not valid YAML"),
        ("data: !!timestamp x", "not valid YAML"),
        ("data: !!float x", "not valid YAML"),
        ("data: !!int ''", "not valid YAML"),
        ("? {a: b}\n: c", "not valid YAML"),
        ("? " + "x" * 50_000 + "\n: 1", "unknown key 'x{100}'"),
        ("".join(f"k{i}: 1\n" for i in range(5000)), "and 4,990 more"),
        ("a" * (MOST_BYTES + 1), "is this a config file"),
        (b"data: \xff\xfe", "cannot be read"),
    ],
    ids=range(20),
)
def test_a_hostile_config_is_refused_at_once(tmp_path: Path, text: str | bytes, said: str) -> None:
    begun = time.monotonic()
    with pytest.raises(ConfigError, match=said) as caught:
        load(tmp_path, text)
    assert time.monotonic() - begun < 20  # seconds; expanding the aliases would take years
    assert len(str(caught.value)) < 5000


@pytest.mark.parametrize(
    "value",
    ["!!float x", "2020-13-45", "!!timestamp x", "!!int ''", "1" * 5000, "[" * 5000, "&a [*a]"],
)
def test_a_hostile_override_is_refused(tmp_path: Path, value: str) -> None:
    with pytest.raises(ConfigError, match=r"override .training\.seed=.*not valid YAML") as caught:
        load(tmp_path, "", f"training.seed={value}")
    assert len(str(caught.value)) < 1000


def test_an_override_cannot_nest_without_end(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="levels deep"):
        load(tmp_path, "", ".".join(["a"] * 10_000) + "=1")


def test_a_path_that_never_ends_is_refused() -> None:
    with pytest.raises(ConfigError, match="is this a config file"):
        load_config(RunConfig, "/dev/zero")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(RunConfig, "a\0b")


@pytest.mark.parametrize(
    "tag", ["object/apply:os.system", "object/new:os.system", "name:os.system", "module:os"]
)
def test_yaml_makes_no_objects(tmp_path: Path, tag: str) -> None:
    mark = tmp_path / "executed"
    with pytest.raises(ConfigError, match="could not determine a constructor"):
        load(tmp_path, f"data: !!python/{tag} ['touch {mark}']")
    assert not mark.exists()


yaml_like = st.text(st.sampled_from(list("ab:{}[]!&*<>|?-,.#'\"%@~ \n0123456789_e+\t\\")))


@given(text=yaml_like | st.text() | st.binary().map(lambda raw: raw.decode("latin-1")))
@few
def test_any_text_as_config(tmp_path: Path, text: str) -> None:
    for attempt in ((text,), ("", text), ("", f"training.seed={text}")):
        try:
            load(tmp_path, *attempt)
        except RayXmlError:
            continue


def test_yaml_reads_what_configs_need() -> None:
    text = "a: {b: [1, 2.5, -3e-4, .5, true, null, x]}\nc: 1_000\n"
    assert parse_yaml(text) == {"a": {"b": [1, 2.5, "-3e-4", 0.5, True, None, "x"]}, "c": 1000}
    assert parse_yaml("") is None


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "1" * 5000, "{", b"\xff", ""])
def test_hostile_json_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        parse_json(text)


@pytest.mark.parametrize("value", [True, 1.0, -1, "1", None, 2**53 + 1, [1], float("nan")])
def test_only_whole_numbers_count(value: Any) -> None:
    with pytest.raises(ValueError, match="whole number"):
        count_of(value)
    assert (count_of(0), count_of(2**53)) == (0, 2**53)


@given(
    value=st.recursive(
        st.none() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
@few
def test_any_value_is_shown_in_few_characters(value: Any) -> None:
    assert len(shown(value)) <= 510
    assert len(shown(10**5000)) < 100


def header(text: str) -> bytes:
    padded = text.encode() + b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded


HEADERS = [
    "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775807, 4), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }",
    "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), ",
    "{'descr': [('a', '<f4', " + "(" * 200 + ")" * 200 + ")], 'fortran_order': 0, 'shape': ()}",
    "__import__('os').abort()",
    "[" * 3000,
]


@pytest.mark.parametrize("text", HEADERS, ids=range(len(HEADERS)))
def test_hostile_npy_headers_are_value_errors(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(header(text) + b"\0" * 8)
    with pytest.raises(ValueError):  # noqa: PT011
        map_npy(path)
    features = Csr.from_lists([[0]], 4, [[1.0]])
    with pytest.raises(ConfigError, match=r"encoder\.tokens"):
        token_table(str(path), features, 2, Exchange(), seed=0)


def test_a_pickle_as_npy_is_not_executed(tmp_path: Path) -> None:
    mark, path = tmp_path / "executed", tmp_path / "a.npy"
    with path.open("wb") as file:
        np.save(file, np.array([Trap(mark)], dtype=object), allow_pickle=True)
    plain = tmp_path / "b.npy"
    plain.write_bytes(pickle.dumps(Trap(mark)))
    for one in (path, plain):
        with pytest.raises(ValueError):  # noqa: PT011
            map_npy(one)
    assert not mark.exists()
    pickle.loads(plain.read_bytes())
    assert mark.exists()  # the trap was set


def test_npy_files_are_read(tmp_path: Path) -> None:
    made = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.save(tmp_path / "a.npy", made)
    assert np.array_equal(map_npy(tmp_path / "a.npy"), made)


@pytest.mark.parametrize(
    "change",
    [
        {"document_counts": [10**400]},
        {"document_counts": [float("inf")]},
        {"document_counts": [[1]]},
        {"document_counts": [1, 1]},
        {"documents": "many"},
        {"settings": {"hash": 2**31 - 1}},
        {"settings": {"min_df": -1}},
        {"format_version": 10**400},
    ],
)
def test_a_hostile_vectoriser_is_told(tmp_path: Path, change: dict[str, Any]) -> None:
    good = {"format_version": 2, "settings": {}, "documents": 3, "document_counts": [2]}
    (tmp_path / "features.txt").write_text("a\n")
    (tmp_path / "vectorizer.json").write_text(json.dumps(good))
    assert Vectorizer.load(tmp_path).num_features == 1
    (tmp_path / "vectorizer.json").write_text(json.dumps(good | change))
    with pytest.raises(RayXmlError, match="vectoriser"):
        Vectorizer.load(tmp_path)
    (tmp_path / "vectorizer.json").write_text("[" * 100_000)
    with pytest.raises(RayXmlError, match="nested too deep"):
        Vectorizer.load(tmp_path)
