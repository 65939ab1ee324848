"""The model card of a model folder: README.md, made from what the folder and its card say.

Nothing is invented: what was not stated is called unknown. The facts are in `earwitness.json`
under `card`, so a folder can be given its card again at any time.
"""

import json
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from math import prod
from pathlib import Path
from typing import Any

from pydantic import AliasChoices, Field, NonNegativeFloat, NonNegativeInt

from earwitness.config import Strict
from earwitness.errors import CheckpointError
from earwitness.io.atomic import write_text
from earwitness.io.digests import sha256_of
from earwitness.models.hub import HubPart
from earwitness.models.json_files import read_json, read_settings

UNKNOWN = "Unknown: not stated when this model was saved."

_PAPERS = {
    "lamb": ("LAMB", "2601.04658"),
    "diffusion-link": ("Diffusion-Link", "2510.11330"),
}
_PACKAGES = ("earwitness", "torch", "transformers", "peft")
_HUB_LICENSES = (
    *("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "gpl-3.0", "lgpl-3.0", "cc0-1.0"),
    *("cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "openrail"),
    *("llama2", "llama3", "llama3.1", "llama3.2", "other"),
)
"""the hub's own names of the licenses that captioning models have"""


class Interval(Strict):
    """A score and its 95 % interval, where one was computed."""

    value: float
    low: float | None = None
    high: float | None = None


class Evaluation(Strict):
    """What the scores were measured on."""

    dataset: str
    split: str = "unknown"
    clips: NonNegativeInt | None = None
    note: str = ""
    """how the numbers came about, and what they do not show"""


class Stage(Strict):
    """One training run."""

    name: str
    epochs: NonNegativeInt
    updates: NonNegativeInt
    hours: NonNegativeFloat
    sha256: str
    """of the weights it left"""


class CardFacts(Strict):
    """What a card says that the weights do not show. Texts are Markdown."""

    summary: str = ""
    """one line"""
    license: str = Field(default="", validation_alias=AliasChoices("license", "licence"))
    """a license from the hub's list (`apache-2.0`), or a sentence"""
    license_note: str = Field(
        default="", validation_alias=AliasChoices("license_note", "licence_note")
    )
    language: tuple[str, ...] = ("en",)
    description: str = ""
    metrics: dict[str, Interval] = {}
    evaluation: Evaluation | None = None
    command: str = ""
    """what was called to train it"""
    seeds: tuple[int, ...] = ()
    stages: tuple[Stage, ...] = ()
    data: str = ""
    """what it was trained on"""
    datasets: tuple[str, ...] = ()
    """names of datasets on the hub"""
    limits: str = ""
    versions: dict[str, str] = {}
    """of the packages that saved it"""
    made_from: dict[str, HubPart] = {}
    """parts that began as weights from the hub and are copied here"""
    min_score: float | None = None
    """captions with a lower score are withheld"""


def facts_of(card: dict[str, Any], facts: CardFacts | None) -> dict[str, Any]:
    """The card of `earwitness.json`: `facts`, or else `card`, with the versions of this machine.

    Raises:
        CheckpointError: `card` has keys that a card does not have.
    """
    facts = facts or read_settings(CardFacts, card, Path("earwitness.json: card"), builds=False)
    if not facts.versions:
        facts = facts.model_copy(update={"versions": versions()})
    return facts.model_dump(mode="json", exclude_defaults=True)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that make a model, as they are installed here."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def write_card(folder: Path) -> None:
    """Writes the README.md of the model in `folder`. Raises CheckpointError like `model_card`."""
    write_text(folder / "README.md", model_card(folder), CheckpointError)


def model_card(folder: Path) -> str:
    """The card of the model in `folder`: front matter for the hub, then Markdown.

    Raises:
        CheckpointError: no model folder, or its card has keys that a card does not have.
    """
    settings = read_json(folder / "earwitness.json")
    facts = read_settings(
        CardFacts, settings.get("card", {}), folder / "earwitness.json", builds=False
    )
    name = str(settings.get("name", folder.name))
    sections = {
        "": _opening(name, settings, facts),
        "Use": _use(name),
        "Scores": _scores(facts),
        "Parts": _parts(folder, settings, facts),
        "Training": _training(facts),
        "Data": facts.data or UNKNOWN,
        "License": _license(facts),
        "Limits": facts.limits or UNKNOWN,
        "Files": _files(folder),
    }
    body = "\n\n".join(
        f"## {title}\n\n{text}" if title else text for title, text in sections.items()
    )
    return f"---\n{_front_matter(name, settings, facts)}\n---\n\n{body}\n"


def _front_matter(name: str, settings: dict[str, Any], facts: CardFacts) -> str:
    """What the hub reads. It has no audio-captioning task, so a tag names it."""
    from huggingface_hub import ModelCardData

    bases = sorted({part.hub for part in _bases(settings, facts).values()})
    data = ModelCardData(
        model_name=name,
        language=list(facts.language),
        library_name="earwitness",
        tags=["audio-captioning", "audio", str(settings.get("system"))],
        base_model=bases or None,
        datasets=list(facts.datasets) or None,
        eval_results=_results(facts) or None,
        **_hub_license(facts.license),
    )
    return data.to_yaml()  # pyright: ignore[reportUnknownMemberType] - the hub: no types


def _results(facts: CardFacts) -> list[Any]:
    from huggingface_hub import EvalResult

    on = facts.evaluation or Evaluation(dataset="unknown")
    return [
        EvalResult(
            task_type="audio-captioning",
            task_name="Audio captioning",
            dataset_type=_slug(on.dataset),
            dataset_name=on.dataset,
            dataset_split=on.split,
            metric_type=metric,
            metric_name=metric,
            metric_value=round(score.value, 4),
            metric_args=_interval(score),
        )
        for metric, score in facts.metrics.items()
    ]


def _interval(score: Interval) -> dict[str, list[float]] | None:
    if score.low is None or score.high is None:
        return None
    return {"interval_95": [round(score.low, 4), round(score.high, 4)]}


def _hub_license(license: str) -> dict[str, Any]:
    if not license:
        return {"license": "unknown"}
    if license.lower() in _HUB_LICENSES:
        return {"license": license.lower()}
    return {"license": "other", "license_name": _slug(license)[:60].strip("-")}


def _opening(name: str, settings: dict[str, Any], facts: CardFacts) -> str:
    system = str(settings.get("system"))
    paper, number = _PAPERS.get(system, (system, ""))
    arxiv = f" ([arXiv {number}](https://arxiv.org/abs/{number}))" if number else ""
    what = f"Describes a recording in one sentence: a {paper} captioner{arxiv}."
    return "\n\n".join(
        text for text in (f"# {name}", facts.summary, what, facts.description) if text
    )


def _use(name: str) -> str:
    return (
        "```python\nfrom earwitness import Captioner\n\n"
        f'captioner = Captioner.load("{name}")  # this folder, or owner/name on the hub\n'
        'print(captioner.caption("sound.wav").text)\n```'
    )


def _scores(facts: CardFacts) -> str:
    if not facts.metrics:
        return "None are recorded: how well it captions is unknown."
    rows = ["| metric | value | 95 % interval |", "|---|---|---|"]
    for name, score in facts.metrics.items():
        known = score.low is not None and score.high is not None
        interval = f"{score.low:.3f} to {score.high:.3f}" if known else "unknown"
        rows.append(f"| {name} | {score.value:.3f} | {interval} |")
    on = facts.evaluation
    if on is None:
        return "\n".join([*rows, "", "What they were measured on is unknown."])
    clips = f"{on.clips:,} recordings" if on.clips is not None else "unknown number of recordings"
    said = f"Measured on {on.dataset}, split {on.split}, {clips}. {on.note}".strip()
    return "\n".join([said, "", *rows])


def _parts(folder: Path, settings: dict[str, Any], facts: CardFacts) -> str:
    rows = ["| part | where | weights |", "|---|---|---|"]
    bases = _bases(settings, facts)
    for part in ("encoder", "decoder", "lora", "prefix.safetensors"):
        count = _weights(folder / part)
        base = bases.get(part)
        if part in settings.get("parts", {}):
            where, size = f"not in this folder: `{base}`", "those of the repository"
        elif part in settings.get("shared", {}):
            where, size = f"that of `{settings['shared'][part].get('model')}`", "shared"
        elif count is None:
            continue
        else:
            where = f"`{part}`" + (f", made from `{base}`" if base else "")
            size = f"{count:,}"
        rows.append(f"| {part.partition('.')[0]} | {where} | {size} |")
    return "\n".join(rows)


def _bases(settings: dict[str, Any], facts: CardFacts) -> dict[str, HubPart]:
    """Weights from the hub that the model has or started from, by part."""
    named = settings.get("parts", {})
    source = Path("earwitness.json")
    return facts.made_from | {n: read_settings(HubPart, part, source) for n, part in named.items()}


def _weights(place: Path) -> int | None:
    """How many numbers the safetensors below `place` hold, by their headers; None without any."""
    files = [place] if place.is_file() else sorted(place.rglob("*.safetensors"))
    if not files:
        return None
    return sum(_count(path) for path in files)


def _count(path: Path) -> int:
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return sum(prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")


def _training(facts: CardFacts) -> str:
    command = f"```bash\n{facts.command}\n```" if facts.command else f"Command: {_said('')}"
    seeds = ", ".join(map(str, facts.seeds))
    packages = ", ".join(f"{name} {number}" for name, number in facts.versions.items())
    lines = [command, f"Seeds: {_said(seeds)} Saved with: {_said(packages)}"]
    if facts.stages:
        rows = [
            "| stage | epochs | updates | hours | sha256 of the weights |",
            "|---|---|---|---|---|",
        ]
        rows += [
            f"| `{s.name}` | {s.epochs} | {s.updates:,} | {s.hours:.2f} | {s.sha256} |"
            for s in facts.stages
        ]
        lines.append("\n".join(rows))
    return "\n\n".join(lines)


def _said(text: str) -> str:
    return f"{text}." if text else "unknown."


def _license(facts: CardFacts) -> str:
    said = facts.license or "Unknown: without a license, only its makers may use it."
    return "\n\n".join(text for text in (said, facts.license_note) if text)


def _files(folder: Path) -> str:
    rows = ["| file | bytes | sha256 |", "|---|---|---|"]
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or name == "README.md" or name.startswith("."):
            continue
        rows.append(f"| `{name}` | {path.stat().st_size:,} | `{sha256_of(path)}` |")
    return "\n".join(rows)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "unknown"


def min_score(card: dict[str, Any], model: str) -> float:
    """The minimum score in the card of `model`; 0 if it has none.

    Raises:
        CheckpointError: the card's `min_score` is not a number from 0 to 1.
    """
    value = card.get("min_score", 0.0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise CheckpointError(
            f"{model}: min_score {value!r} in its card; expected a number from 0 to 1"
        )
    return float(value)
