"""Writes the reference pages while the docs are built: commands, HTTP, recipe keys, Python."""

import json
from collections.abc import Iterator
from typing import Any

import mkdocs_gen_files
import typer
from typer.core import TyperGroup

from earwitness.cli import app


def cli() -> Iterator[str]:
    """Every command, with its help and options."""
    yield "# Command line\n"
    root = typer.main.get_command(app)
    assert isinstance(root, TyperGroup)
    for name, command in root.commands.items():
        yield from _command(f"earwitness {name}", command)


def _command(name: str, command: Any) -> Iterator[str]:
    yield f"\n## {name}\n"
    yield _paragraphs(command.help or "")
    if hasattr(command, "commands"):
        for sub, inner in command.commands.items():
            yield from _command(f"{name} {sub}", inner)
        return
    rows = [row for parameter in command.params if (row := _option(parameter))]
    if rows:
        yield "\n| option | meaning | default |\n|---|---|---|\n" + "\n".join(rows) + "\n"


def _option(parameter: Any) -> str | None:
    if getattr(parameter, "hidden", False):
        return None
    kind = parameter.param_type_name
    if kind == "argument":
        names = f"`{parameter.metavar or parameter.name.upper()}`"
    else:
        names = ", ".join(f"`{o}`" for o in (*parameter.opts, *parameter.secondary_opts))
    default = parameter.default
    empty = default in (None, False, (), []) or callable(default)
    shown = "" if empty else f"`{getattr(default, 'value', default)}`"
    meaning = " ".join((getattr(parameter, "help", None) or "").split()).replace("|", "\\|")
    return f"| {names} | {meaning} | {shown} |"


def _paragraphs(help_text: str) -> str:
    """Help as Markdown: lines of examples, which are indented, become code."""
    blocks = []
    for block in help_text.strip().split("\n\n"):
        lines = [line.strip() for line in block.replace("\b", "").strip("\n").split("\n")]
        if all(line.startswith(("earwitness", "python", "curl")) for line in lines):
            blocks.append("```\n" + "\n".join(lines) + "\n```")
        else:
            blocks.append("\n".join(lines))
    return "\n\n".join(blocks).replace("```\n\n```\n", "") + "\n"


def http() -> Iterator[str]:
    """The service's endpoints, from its OpenAPI schema."""
    from earwitness.captioning.captioner import Captioner
    from earwitness.serve.api_page import operations
    from earwitness.serve.app import create_app

    yield "# HTTP\n\nA running service shows the same at `/docs`; the schema: `/openapi.json`.\n\n"
    yield from operations(create_app(Captioner.load("pocket-lamb")).openapi())


def recipes() -> Iterator[str]:
    """The keys of each stage's recipe, from its model."""
    from earwitness.plugins import plugins
    from earwitness.training.stages import STAGES, recipe_class

    yield "# Recipes\n\nThe keys of a recipe (TOML), stage by stage.\n"
    for stage in (*STAGES, *plugins("stages")):
        model = recipe_class(stage, "the reference")
        yield f"\n## {stage}\n\n{' '.join((model.__doc__ or '').split())}\n"
        schema = model.model_json_schema()
        yield from _keys(schema, schema.get("$defs", {}), "", set())


def _keys(
    schema: dict[str, Any], definitions: dict[str, Any], prefix: str, seen: set[str]
) -> Iterator[str]:
    if not prefix:
        yield "\n| key | default | meaning |\n|---|---|---|\n"
    for key, field in schema.get("properties", {}).items():
        name = f"{prefix}{key}"
        references = [
            reference.rpartition("/")[2]
            for option in (field, *field.get("anyOf", ()), *field.get("oneOf", ()))
            if (reference := option.get("$ref"))
        ]
        meaning = " ".join(str(field.get("description", "")).split()).replace("|", "\\|")
        if not references:
            yield f"| `{name}` | {_written(field.get('default'))} | {meaning} |\n"
        for reference in references:
            if reference not in seen:
                yield from _keys(
                    definitions[reference], definitions, f"{name}.", {*seen, reference}
                )


def _written(value: Any) -> str:
    if value in (None, False, "") or isinstance(value, dict):
        return ""
    return f"`{json.dumps(value, ensure_ascii=False)}`".replace("|", "\\|")


PYTHON = """# Python

```python
from earwitness import Captioner

captioner = Captioner.load("pocket-lamb")
print(captioner.caption("examples/siren.flac").text)
for caption in captioner.caption_batch(["examples/clock.flac", "examples/storm.flac"]):
    print(caption.text, caption.score)
```

::: earwitness.captioning.captioner.Captioner

::: earwitness.caption.Caption

::: earwitness.caption.Decoding

::: earwitness.evaluation.evaluate

::: earwitness.gap.measure

::: earwitness.audio
    options:
      members: [load, stream, duration]

::: earwitness.errors
"""


def main() -> None:
    pages = {"cli": cli, "http": http, "recipes": recipes, "python": lambda: iter([PYTHON])}
    for name, make in pages.items():
        with mkdocs_gen_files.open(f"reference/{name}.md", "w") as file:
            file.write("".join(make()))


main()
