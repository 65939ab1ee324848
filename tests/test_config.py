"""Recipes: bases, changes from the command line, and what a wrong key is told."""

from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field, PositiveFloat, PositiveInt

from earwitness.config import Strict, apply_overrides, load_recipe, read_toml, validate
from earwitness.errors import ConfigError


class Inner(Strict):
    heads: PositiveInt = 4
    kernels: tuple[PositiveInt, ...] = (3, 5)
    sigma: PositiveFloat | Literal["median"] = "median"


class Recipe(Strict):
    stage: Literal["one", "two"]
    data: Path = Path("data")
    rate: float = Field(default=0.1, ge=0.0, lt=1.0)
    blind: bool = False
    losses: dict[str, float] = {}
    adapter: Inner = Inner()
    guide: Inner | None = Inner()


def write(folder: Path, name: str, text: str) -> Path:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_a_recipe_becomes_a_model(tmp_path):
    path = write(
        tmp_path,
        "r.toml",
        'stage = "two"\ndata = "/x/y"\nrate = 0\n[adapter]\nheads = 8\nkernels = [7]\nsigma = 2\n',
    )
    recipe = load_recipe(Recipe, path)
    assert recipe == Recipe(
        stage="two",
        data=Path("/x/y"),
        rate=0.0,
        adapter=Inner(heads=8, kernels=(7,), sigma=2.0),
    )
    assert isinstance(recipe.rate, float)


def test_a_recipe_is_merged_over_its_chain_of_bases(tmp_path):
    write(
        tmp_path, "base/root.toml", 'stage = "one"\nrate = 0.5\n[adapter]\nheads = 2\nsigma = 3.0'
    )
    write(tmp_path, "base/middle.toml", 'base = "root.toml"\nrate = 0.25\n[adapter]\nheads = 6')
    path = write(tmp_path, "top.toml", 'base = "base/middle.toml"\n[adapter]\nkernels = [1]')
    recipe = load_recipe(Recipe, path)
    assert recipe == Recipe(stage="one", rate=0.25, adapter=Inner(heads=6, sigma=3.0, kernels=(1,)))


def test_bases_in_a_circle_are_refused(tmp_path):
    path = write(tmp_path, "a.toml", 'base = "b.toml"')
    write(tmp_path, "b.toml", 'base = "a.toml"')
    with pytest.raises(ConfigError, match=r"a\.toml: its 'base' recipes form a cycle"):
        read_toml(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [('base = "none.toml"', "none.toml: no such recipe"), ("a = = 1", "not a readable TOML")],
)
def test_a_missing_base_and_broken_toml_are_named(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        read_toml(write(tmp_path, "r.toml", text))


def test_a_folder_or_binary_file_is_no_recipe(tmp_path):
    (tmp_path / "b.toml").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path, tmp_path / "b.toml"):
        with pytest.raises(ConfigError, match="not a readable TOML recipe"):
            read_toml(path)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("2.5", 2.5),
        ("1e-4", 1e-4),
        ("true", True),
        ("[1, 2]", [1, 2]),
        ('"3"', "3"),
        ("words as they are", "words as they are"),
        ("/a/path.toml", "/a/path.toml"),
        ("a=b", "a=b"),
        ("", ""),
    ],
)
def test_set_reads_values_as_toml_else_as_text(text, value):
    found = apply_overrides({}, [f"section.key={text}"])["section"]["key"]
    assert found == value
    assert type(found) is type(value)


def test_set_changes_one_key_and_keeps_its_neighbors():
    tables = {"adapter": {"heads": 2, "sigma": 3.0}, "rate": 0.5}
    changed = apply_overrides(tables, ["adapter.heads=7", " rate = 0.1 ", "losses.decode=0"])
    assert changed == {
        "adapter": {"heads": 7, "sigma": 3.0},
        "rate": 0.1,
        "losses": {"decode": 0},
    }
    assert tables == {"adapter": {"heads": 2, "sigma": 3.0}, "rate": 0.5}


def test_the_last_set_wins():
    assert apply_overrides({}, ["a.b=1", "a.b=2"]) == {"a": {"b": 2}}


@pytest.mark.parametrize("override", ["rate", "=3", " =3", ".rate=3", "adapter..heads=3", "a.=1"])
def test_a_set_without_a_whole_name_is_refused(override):
    with pytest.raises(ConfigError, match="expected section.key=value"):
        apply_overrides({}, [override])


def test_a_set_through_a_plain_value_is_refused():
    with pytest.raises(ConfigError, match="'adapter.heads' is a plain value"):
        apply_overrides({"adapter": {"heads": 3}}, ["adapter.heads.more=1"])


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"stage": "one", "rat": 0.1}, "here: unknown key 'rat'; did you mean 'rate'?"),
        (
            {"stage": "one", "adapter": {"head": 3}},
            "here: unknown key 'adapter.head'; did you mean 'adapter.heads'?",
        ),
        (
            {"stage": "one", "guide": {"kernel": [3]}},
            "here: unknown key 'guide.kernel'; did you mean 'guide.kernels'?",
        ),
        ({"stage": "one", "qqqqqq": 1}, "here: unknown key 'qqqqqq'"),
        ({}, "here: missing key 'stage'"),
    ],
)
def test_an_unknown_or_missing_key_is_named_with_its_nearest(tables, message):
    with pytest.raises(ConfigError) as caught:
        validate(Recipe, tables, "here")
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("change", "key", "value"),
    [
        ({"stage": "three"}, "stage", "'three'"),
        ({"rate": "0.5"}, "rate", "'0.5'"),
        ({"rate": 1.0}, "rate", "1.0"),
        ({"blind": 1}, "blind", "1"),
        ({"blind": "yes"}, "blind", "'yes'"),
        ({"data": 3}, "data", "3"),
        ({"losses": {"decode": "much"}}, "losses.decode", "'much'"),
        ({"adapter": 3}, "adapter", "3"),
        ({"adapter": {"heads": "4"}}, "adapter.heads", "'4'"),
        ({"adapter": {"heads": 4.0}}, "adapter.heads", "4.0"),
        ({"adapter": {"heads": True}}, "adapter.heads", "True"),
        ({"adapter": {"heads": 0}}, "adapter.heads", "0"),
        ({"adapter": {"kernels": 3}}, "adapter.kernels", "3"),
        ({"adapter": {"kernels": [3, "5"]}}, "adapter.kernels.1", "'5'"),
    ],
)
def test_a_value_of_the_wrong_kind_is_named_with_its_key(change, key, value):
    with pytest.raises(ConfigError) as caught:
        validate(Recipe, {"stage": "one", **change}, "here")
    message = str(caught.value)
    assert message.startswith(f"here: key '{key}': ")
    assert message.endswith(f"got {value}")
    assert "\n" not in message


def test_a_known_key_in_the_wrong_section_is_told_its_own():
    with pytest.raises(ConfigError, match=r"'heads'; did you mean '(adapter|guide)\.heads'\?"):
        validate(Recipe, {"stage": "one", "heads": 3}, "here")


@pytest.mark.parametrize("sigma", [-1.0, "mean"])
def test_a_choice_of_kinds_names_its_key_once_and_every_kind(sigma):
    with pytest.raises(ConfigError, match="key 'adapter.sigma': .* or .*'median', got") as caught:
        validate(Recipe, {"stage": "one", "adapter": {"sigma": sigma}}, "here")
    assert str(caught.value).endswith(repr(sigma))


def test_a_section_may_be_left_out_with_none():
    assert validate(Recipe, {"stage": "one", "guide": None}, "here").guide is None


def test_models_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        Inner().heads = 3


class Square(Strict):
    kind: Literal["square"]
    side: PositiveInt = 1


class Circle(Strict):
    kind: Literal["circle"]
    radius: PositiveFloat = 1.0


class Drawing(Strict):
    shape: Square | Circle = Field(default=Square(kind="square"), discriminator="kind")


def test_a_section_that_changes_its_kind_starts_anew(tmp_path):
    write(tmp_path, "base.toml", '[shape]\nkind = "square"\nside = 3')
    path = write(tmp_path, "top.toml", 'base = "base.toml"\nshape.kind = "circle"')
    assert load_recipe(Drawing, path).shape == Circle(kind="circle")
    assert load_recipe(Drawing, path, ['shape.kind="square"']).shape == Square(kind="square")
    assert load_recipe(Drawing, tmp_path / "base.toml", ["shape.side=4"]).shape.side == 4


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"kind": "circle", "side": 1}, r"unknown key 'shape\.side'"),
        ({"kind": "circle", "radius": -1}, r"key 'shape\.radius'"),
        ({"kind": "star"}, r"key 'shape\.kind': expected one of 'square', 'circle', got 'star'"),
        ({"side": 1}, r"missing key 'shape\.kind'"),
    ],
)
def test_a_wrong_key_of_a_section_with_a_kind_is_named(shape, message):
    with pytest.raises(ConfigError, match=message):
        validate(Drawing, {"shape": shape}, "here")
