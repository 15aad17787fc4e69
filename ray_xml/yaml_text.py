"""YAML as config files may use it: plain values, lists and mappings, of bounded size.

``yaml.SafeLoader`` makes no objects, but two of its features turn a few bytes into any amount of
work: aliases, which may be repeated inside of each other ("billion laughs"), and numbers of any
length. Neither has a place in a config, so both are refused; and so is a key that is given twice,
of which it would silently take the last.
"""

from __future__ import annotations

from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

MOST_BYTES = 1 << 17  # of a config file; PyYAML takes about two seconds for so many
_MOST_DIGITS = 40  # of a number


class _Loader(yaml.SafeLoader):
    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise ComposerError(None, None, "aliases (*name) are not taken: repeat the value", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode):
                line, first = key.start_mark.line + 1, lines.get((key.tag, key.value))
                if first is not None:
                    what = f"the key {key.value[:80]!r} is given twice, in lines {first} and {line}"
                    raise ConstructorError(None, None, f"{what}; keep one of them")
                lines[key.tag, key.value] = line
        return super().construct_mapping(node, deep)


def _number(loader: _Loader, node: Any) -> Any:
    if len(node.value) > _MOST_DIGITS:
        what = f"a number of {len(node.value):,} characters, more than {_MOST_DIGITS}"
        raise ConstructorError(None, None, what, node.start_mark)
    if node.tag.endswith(":int"):
        return loader.construct_yaml_int(node)
    return loader.construct_yaml_float(node)


for _tag in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _number)


def parse_yaml(text: str | bytes) -> Any:
    """The tree of a YAML text; None of an empty one.

    Raises:
        ValueError: it is no such YAML, or longer than ``MOST_BYTES``.
    """
    if len(text) > MOST_BYTES:
        raise ValueError(f"more than {MOST_BYTES:,} bytes")
    try:
        return yaml.load(text, Loader=_Loader)  # a SafeLoader: it makes plain values only
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    except (yaml.YAMLError, ArithmeticError, AttributeError, LookupError, TypeError) as error:
        # PyYAML's own constructors fail with whatever Python says to a bad date or number.
        raise ValueError(str(error)) from error
