"""Recipes: a TOML file becomes a frozen, strict model; an unknown key names the nearest known one.

A recipe may start from another one (`base = "lamb_audiocaps.toml"`, relative to its own folder)
and override single keys; `--set section.key=value` overrides keys from the command line.
"""

import difflib
import json
import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from earwitness.errors import ConfigError
from earwitness.io.kinds import is_list, is_object
from earwitness.io.shipped import shipped

Model = TypeVar("Model", bound=BaseModel)


class Strict(BaseModel):
    """Base of every configuration section: immutable, no unknown keys; `validate` never converts
    a value silently.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


def recipe_names() -> list[str]:
    """The names of the recipes that ship with earwitness, such as tiny and paper/link_bridge."""
    folder = shipped("recipes")
    found = sorted(folder.rglob("*.toml")) if folder else []
    return [path.relative_to(folder).with_suffix("").as_posix() for path in found if folder]


def recipe_file(recipe: Path | str) -> Path:
    """The file of a recipe: a path, or the name of a shipped one. Raises ConfigError."""
    path, folder = Path(recipe), shipped("recipes")
    if path.is_file():
        return path
    name = path.as_posix().removesuffix(".toml").removeprefix("recipes/")
    names = recipe_names()
    if folder is not None and name in names:
        return folder / f"{name}.toml"
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    hint = f"; did you mean '{near[0]}'?" if near else f", such as {', '.join(names[:3])}"
    raise ConfigError(
        f"{recipe}: no such recipe; expected a .toml file or the name of a shipped recipe{hint}"
    )


def read_toml(path: Path, *, _seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The tables of the recipe at `path`, merged over the recipe that its `base` key names.

    Raises:
        ConfigError: the file is missing, is not TOML, or its `base` recipes form a cycle.
    """
    path = path.resolve()
    if path in _seen:
        raise ConfigError(f"{path}: its 'base' recipes form a cycle")
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such recipe; expected a .toml file") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: not a readable TOML recipe ({error})") from None
    base = tables.pop("base", None)
    if base is None:
        return tables
    return _merged(read_toml(path.parent / str(base), _seen=(*_seen, path)), tables)


def apply_overrides(tables: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """`tables` with every `section.key=value` of `overrides` applied; values are parsed as TOML,
    or else kept as text.

    Raises:
        ConfigError: an override has no `=`, or uses a key that holds a plain value as a section.
    """
    for override in overrides:
        name, equals, text = override.partition("=")
        *sections, key = (part.strip() for part in name.split("."))
        if not equals or not all((*sections, key)):
            raise ConfigError(f"--set {override!r}: expected section.key=value")
        _check_path(tables, sections, override)
        change: dict[str, Any] = {key: _value(text.strip())}
        for section in reversed(sections):
            change = {section: change}
        tables = _merged(tables, change)
    return tables


def validate(model: type[Model], tables: dict[str, Any], source: str) -> Model:
    """`tables` as a `model`; neither "3" nor 3.0 is accepted for the integer 3.

    Raises:
        ConfigError: one sentence on the first key that is unknown, missing or of the wrong kind.
    """
    try:
        # pydantic's strict mode accepts lists for tuples and text for paths only when reading JSON
        return model.model_validate_json(json.dumps(tables, default=str), strict=True)
    except ValidationError as error:
        raise ConfigError(f"{source}: {_first_problem(error, model, tables)}") from None


def load_recipe(model: type[Model], path: Path, overrides: list[str] | None = None) -> Model:
    """The recipe at `path`, with `overrides`, as a `model`. Raises ConfigError."""
    return validate(model, apply_overrides(read_toml(path), overrides or []), str(path))


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """`above` over `below`; a section that changes its `kind` starts from scratch, since the
    settings of another kind do not apply to it.
    """
    if "kind" in below and above.get("kind", below["kind"]) != below["kind"]:
        return dict(above)
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merged(old, value) if is_object(old) and is_object(value) else value
    return merged


def _check_path(tables: Any, sections: list[str], override: str) -> None:
    for depth, section in enumerate(sections, start=1):
        if section not in tables:
            return
        tables = tables[section]
        if not is_object(tables):
            raise ConfigError(
                f"--set {override!r}: '{'.'.join(sections[:depth])}' is a plain value, not a "
                "section"
            )


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _first_problem(error: ValidationError, model: type[BaseModel], tables: dict[str, Any]) -> str:
    problems = [(_key(problem["loc"], tables), problem) for problem in error.errors()]
    where, problem = problems[0]
    if problem["type"] == "extra_forbidden":
        known = sorted(_key_names(model))
        near = difflib.get_close_matches(
            where, known, n=1, cutoff=0.5
        ) or difflib.get_close_matches(where.rpartition(".")[2], known, n=1, cutoff=0.4)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        return f"unknown key '{where}'{hint}"
    if problem["type"] == "missing":
        return f"missing key '{where}'"
    if problem["type"] == "union_tag_not_found":
        return f"missing key '{where}.kind'"
    if problem["type"] == "union_tag_invalid":
        tag, known = (problem.get("ctx", {}).get(key) for key in ("tag", "expected_tags"))
        return f"key '{where}.kind': expected one of {known}, got {tag!r}"
    wanted = " or ".join(p["msg"].lower() for key, p in problems if key == where)
    return f"key '{where}': {wanted}, got {problem['input']!r}"


def _key(place: tuple[int | str, ...], tables: Any) -> str:
    """The dotted key at `place`, without the names of the kinds that pydantic tried."""
    parts: list[str] = []
    for part in place:
        if is_object(tables):
            if part not in tables and part == tables.get("kind"):
                continue
            tables = tables.get(str(part))
        elif is_list(tables) and isinstance(part, int):
            tables = tables[part] if part < len(tables) else None
        else:
            break
        parts.append(str(part))
    return ".".join(parts)


def _key_names(model: type[BaseModel], prefix: str = "") -> set[str]:
    names: set[str] = set()
    for name, field in model.model_fields.items():
        names.add(prefix + name)
        for inner in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                names |= _key_names(inner, f"{prefix}{name}.")
    return names
