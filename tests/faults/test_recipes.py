"""Recipes whose parts or values have another form: one sentence each, and nothing falls back to a default silently."""

from dataclasses import is_dataclass
from functools import reduce
from pathlib import Path
from typing import get_args, get_type_hints

import endings
import pytest
import yaml
from randfeat.configs import __path__ as configs
from randfeat.pretrain import PretrainConfig, read_recipe
from randfeat.pretrain.config import _fields_of
from randfeat.pretrain.vq.config import TokenizerConfig, read_tokenizer_recipe

KINDS = {"arpg_s": (PretrainConfig, read_recipe), "tokenizer_tiny": (TokenizerConfig, read_tokenizer_recipe)}
PARTS = [
    (name, part)
    for name, (kind, _) in KINDS.items()
    for part, hint in get_type_hints(kind).items()
    if is_dataclass(hint)
]
FIELDS = [(name, field) for name, (kind, _) in KINDS.items() for field in _fields_of(kind)]


def read_with(tmp_path, name, path, value):
    """Return the recipe with a value in place of a field or of a part."""
    fields = yaml.safe_load(Path(configs[0], f"{name}.yaml").read_text("utf-8"))
    *parts, last = path.split(".")
    within = fields
    for part in parts:
        within = within.setdefault(part, {})
    within[last] = value
    changed = tmp_path / "changed.yaml"
    changed.write_text(yaml.safe_dump(fields))
    return KINDS[name][1](changed)


@pytest.mark.parametrize(("name", "part"), PARTS)
@pytest.mark.parametrize("value", [None, [], [1, {}], 3, True, "words"], ids=repr)
def test_a_part_has_fields(tmp_path, name, part, value):
    with pytest.raises(ValueError, match=rf"changed.yaml: .*{part}") as told:
        read_with(tmp_path, name, part, value)
    assert not endings.RAW.search(str(told.value))


@pytest.mark.parametrize(("name", "field"), FIELDS)
def test_a_field_without_a_value_is_refused_or_may_be_none(tmp_path, name, field):
    kind = KINDS[name][0]
    *parts, last = field.split(".")
    for part in parts:
        kind = get_type_hints(kind)[part]
    if type(None) in get_args(get_type_hints(kind)[last]):
        recipe = read_with(tmp_path, name, field, None)
        assert reduce(getattr, field.split("."), recipe) is None
        return
    with pytest.raises(ValueError, match=rf"changed.yaml: .*{last}") as told:
        read_with(tmp_path, name, field, None)
    assert not endings.RAW.search(str(told.value))
