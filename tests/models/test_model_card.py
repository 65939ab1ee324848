"""The card of a model folder: what the hub reads, and that nothing is said that nobody knows."""

import hashlib
import json
from pathlib import Path

import pytest
import yaml
from builders import tiny_captioner
from hub_parts import copying_api
from huggingface_hub import ModelCard
from typer.testing import CliRunner

from earwitness import __version__
from earwitness.cli.models import app
from earwitness.config import validate
from earwitness.errors import CheckpointError
from earwitness.link.bridge import DiffusionLinkConfig
from earwitness.models.card import CardFacts, Evaluation, Interval, Stage, model_card
from earwitness.models.hub import resolve
from earwitness.models.names import model_folder
from earwitness.system.captioner import TorchCaptioner

FACTS = CardFacts(
    summary="A tiny one.",
    license="apache-2.0",
    description="Made for tests.",
    metrics={"cider_d": Interval(value=0.76, low=0.46, high=1.13), "meteor": Interval(value=0.2)},
    evaluation=Evaluation(dataset="AudioCaps", split="validation", clips=43, note="One seed."),
    command="earwitness train recipes/tiny.toml",
    seeds=(0, 1),
    stages=(Stage(name="tiny", epochs=2, updates=1617, hours=0.41, sha256="d869cb446fc0c22f"),),
    data="Scenes of 41 sources.",
    limits="English only.",
)
PART = {"hub": "ada/llama", "revision": "0" * 40}


def front_matter(card: str) -> dict:
    return yaml.safe_load(card.split("---\n")[1])


def section(card: str, title: str) -> str:
    return card.partition(f"## {title}\n\n")[2].partition("\n\n## ")[0]


@pytest.fixture
def folder(tmp_path):
    tiny_captioner().save_pretrained(tmp_path / "model", card=FACTS)
    return tmp_path / "model"


def test_the_hubs_own_reader_finds_scores_license_and_tags(folder):
    data = ModelCard.load(folder / "README.md").data
    assert (data.license, data.library_name) == ("apache-2.0", "earwitness")
    assert data.pipeline_tag is None
    assert {"audio-captioning", "lamb"} <= set(data.tags)
    cider = next(result for result in data.eval_results if result.metric_type == "cider_d")
    assert (cider.metric_value, cider.dataset_name, cider.dataset_split) == (
        0.76,
        "AudioCaps",
        "validation",
    )
    assert cider.metric_args == {"interval_95": [0.46, 1.13]}


def test_the_card_says_what_is_known(folder):
    card = (folder / "README.md").read_text()
    assert "| cider_d | 0.760 | 0.460 to 1.130 |" in section(card, "Scores")
    assert "| meteor | 0.200 | unknown |" in section(card, "Scores")
    assert "AudioCaps, split validation, 43 recordings. One seed." in section(card, "Scores")
    training = section(card, "Training")
    for word in ("earwitness train recipes/tiny.toml", "0, 1", f"earwitness {__version__}"):
        assert word in training
    assert "| `tiny` | 2 | 1,617 | 0.41 | d869cb446fc0c22f |" in training
    assert section(card, "Data") == "Scenes of 41 sources."


def test_the_card_says_of_the_rest_that_it_is_unknown(tmp_path):
    tiny_captioner().save(tmp_path / "model")
    card = model_card(tmp_path / "model")
    assert front_matter(card)["license"] == "unknown"
    assert "model-index" not in front_matter(card)
    assert section(card, "Scores") == "None are recorded: how well it captions is unknown."
    for title in ("Data", "Limits", "License"):
        assert section(card, title).startswith("Unknown:")
    assert "Command: unknown." in section(card, "Training")
    assert "Seeds: unknown. Saved with: unknown." in section(card, "Training")


def test_every_file_is_listed_with_its_hash(folder):
    listed = section(model_card(folder), "Files")
    for path in folder.rglob("*"):
        if path.is_file() and path.name != "README.md":
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            name = path.relative_to(folder).as_posix()
            assert f"| `{name}` | {path.stat().st_size:,} | `{digest}` |" in listed
    assert "README.md" not in listed


def test_weights_are_counted(folder):
    captioner = tiny_captioner()
    parts = section(model_card(folder), "Parts")
    weights = sum(value.numel() for value in captioner.encoder.state_dict().values())
    assert f"| encoder | `encoder` | {weights:,} |" in parts


def test_named_and_copied_parts_of_the_hub_are_base_models(folder):
    path = folder / "earwitness.json"
    settings = json.loads(path.read_text())
    settings["parts"] = {"encoder": {**PART, "hub": "mispeech/ced-base"}}
    settings["card"]["made_from"] = {"decoder": PART}
    path.write_text(json.dumps(settings))
    card = model_card(folder)
    assert front_matter(card)["base_model"] == ["ada/llama", "mispeech/ced-base"]
    assert f"| encoder | not in this folder: `mispeech/ced-base@{'0' * 40}`" in card
    assert f"| decoder | `decoder`, made from `ada/llama@{'0' * 40}`" in card


def test_a_license_of_ones_own_words_is_other_for_the_hub(tmp_path):
    facts = CardFacts(license="Research and non-commercial use: see below.")
    tiny_captioner().save_pretrained(tmp_path / "model", card=facts)
    card = model_card(tmp_path / "model")
    assert front_matter(card)["license"] == "other"
    assert front_matter(card)["license_name"] == "research-and-non-commercial-use-see-below"
    assert section(card, "License") == "Research and non-commercial use: see below."


def test_facts_travel_with_the_model(folder, tmp_path):
    loaded = TorchCaptioner.load(folder)
    loaded.save_pretrained(tmp_path / "again")
    again, card = ((f / "README.md").read_text() for f in (tmp_path / "again", folder))
    assert again.partition("## Files")[0] == card.partition("## Files")[0]


@pytest.mark.parametrize("card", [{"licens": "mit"}, {"metrics": {"meteor": 0.2}}, []])
def test_a_card_that_does_not_hold_together_is_refused(folder, card):
    path = folder / "earwitness.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "card": card}))
    with pytest.raises(CheckpointError, match=r"earwitness\.json"):
        model_card(folder)


def test_the_model_of_the_package_can_be_given_a_card():
    card = model_card(model_folder("pocket-lamb"))
    assert front_matter(card)["license"] == "other"
    assert front_matter(card)["model-index"][0]["results"][0]["metrics"]


def test_the_example_of_the_docs_runs(folder, tmp_path, monkeypatch):
    copying_api(tmp_path / "cache", monkeypatch)
    page = (Path(__file__).resolve().parents[2] / "docs/weights.md").read_text()
    code = page.partition("```python\n")[2].partition("```")[0]
    said = {}
    exec(compile(code.replace("runs/lamb/best", str(folder)), "weights.md", "exec"), said)
    assert said["again"].card["license"] == "cc-by-nc-4.0"


def test_the_command_line_lists_fetches_prints_and_uploads(folder, tmp_path, monkeypatch):
    run = CliRunner()
    assert "pocket-lamb" in run.invoke(app, []).stdout
    assert run.invoke(app, ["card", str(folder)]).stdout == (folder / "README.md").read_text()
    (folder / "README.md").unlink()
    calls = copying_api(tmp_path / "cache", monkeypatch)
    pushed = run.invoke(app, ["push", str(folder), "ada/tiny", "--private"])
    name = pushed.stdout.strip()
    assert calls[0][1] == {"repo_id": "ada/tiny", "private": True, "exist_ok": True}
    assert (folder / "README.md").is_file()
    assert run.invoke(app, ["fetch", "ada/tiny"]).stdout == f"{name}\t{resolve(name)}\n"
    refused = run.invoke(app, ["fetch", "ada/none"])
    assert isinstance(refused.exception, CheckpointError)


@pytest.mark.parametrize(
    ("model", "old", "new"),
    [
        (CardFacts, {"licence": "mit", "licence_note": "of all"}, {"license": "mit"}),
        (DiffusionLinkConfig, {"topology_neighbours": 3}, {"topology_neighbors": 3}),
    ],
)
def test_old_spellings_in_files_are_read_and_not_written(model, old, new):
    read = validate(model, old, "x").model_dump()
    assert new.items() <= read.items()
    assert not old.keys() & read.keys()
