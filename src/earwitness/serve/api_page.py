"""The endpoints as HTML, from the application's own OpenAPI schema: at /docs, and in the docs."""

import json
from collections.abc import Iterator
from html import escape
from typing import Any

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color-scheme: light dark; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1rem; }
td, th { border-bottom: 1px solid #8884; padding: .25rem .5rem; text-align: left;
  vertical-align: top; }
code { font: .9em ui-monospace, monospace; } h2 { margin-top: 2.5rem; }
"""


def page(schema: dict[str, Any]) -> str:
    """The page at /docs; it needs no script and nothing from elsewhere."""
    title = f"{schema['info']['title']} {schema['info']['version']}"
    style = "".join(line.strip() for line in _STYLE.splitlines())
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}: HTTP</title><style>{style}</style></head>"
        f"<body><h1>{escape(title)}</h1><p>The schema: <a href='openapi.json'>openapi.json</a></p>"
        f"{''.join(operations(schema))}</body></html>"
    )


def operations(schema: dict[str, Any]) -> Iterator[str]:
    """Each endpoint: what it does, its fields, its statuses."""
    for path, methods in schema["paths"].items():
        for method, found in methods.items():
            name = f"{method.upper()} {path}"
            anchor = "-".join(part for part in name.lower().replace("/", " ").split())
            yield f'<h2 id="{escape(anchor)}">{escape(name)}</h2>\n'
            for paragraph in found.get("description", "").split("\n\n"):
                yield f"<p>{_coded(paragraph)}</p>\n"
            yield _table(("field", "meaning", "default"), _fields(found, schema))
            answers = found.get("responses", {}).items()
            rows = ((f"<code>{code}</code>", _coded(one["description"])) for code, one in answers)
            yield _table(("status", "meaning"), rows)


def _fields(operation: dict[str, Any], schema: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for field in operation.get("parameters", ()):
        yield _row(field["name"], {**field["schema"], **field}, field["schema"].get("default"))
    for body in operation.get("requestBody", {}).get("content", {}).values():
        form = body["schema"]
        if "$ref" in form:
            form = schema["components"]["schemas"][form["$ref"].rpartition("/")[2]]
        for name, field in form.get("properties", {}).items():
            yield _row(name, field, field.get("default"))


def _row(name: str, field: dict[str, Any], default: object) -> tuple[str, ...]:
    shown = "" if default in (None, False, "") else f"<code>{escape(json.dumps(default))}</code>"
    return f"<code>{escape(name)}</code>", _coded(str(field.get("description", ""))), shown


def _table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    names = "".join(f"<th>{name}</th>" for name in head)
    return f"<table><thead><tr>{names}</tr></thead><tbody>{body}</tbody></table>\n" if body else ""


def _coded(text: str) -> str:
    """Escaped, with text between backticks as code."""
    parts = escape(" ".join(text.split())).split("`")
    return "".join(f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(parts))
