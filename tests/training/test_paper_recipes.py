"""The recipes of the papers' size: the numbers that the papers state, and ablations that change
little.
"""

import tomllib
from pathlib import Path

import pytest

from earwitness.errors import ConfigError
from earwitness.training.stages import read_recipe

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
ABLATIONS = sorted((RECIPES / "paper_ablations").glob("*.toml"))
MANIFESTS = "data/manifests"
LLAMA = "meta-llama/Llama-2-7b-chat-hf"
CLAP = "laion/clap-htsat-unfused"

# The oracle: what arXiv 2601.04658 and 2510.11330 state, else their predecessors, else our choice.
LAMB = {
    "encoder_tune": "lora",
    "encoder_lora.r": 8,
    "encoder_lora.alpha": 32,
    "encoder_lora.dropout": 0.1,
    "model.prefix.kind": "two_stream",
    "model.prefix.n_semantic": 8,
    "model.prefix.n_temporal": 8,
    "model.prefix.n_global": 32,
    "model.prefix.gru_layers": 2,
    "model.guide.metric": "l2",
    "model.decoder.tune": "lora",
    "model.decoder.lora.r": 8,
    "model.decoder.lora.alpha": 32,
    "model.decoder.lora.dropout": 0.1,
    "model.decoder.lora.targets": ("q_proj", "v_proj"),
    "model.decoding.beam_size": 4,
    "fit.epochs": 30,
    "fit.warmup_epochs": 2.0,
    "fit.weight_decay": 1e-6,
}
FINE_TUNING = LAMB | {
    "fit.learning_rate": 3e-6,
    "fit.batch_size": 8,
    "init": Path("runs/lamb_pretrain/best"),
    "encoder": None,
    "decoder": None,
}
LINK = {
    "encoder": Path(CLAP),
    "decoder": Path(LLAMA),
    "hidden": 2048,
    "language_model.layout": "slam",
    "language_model.instruction": "Describe the audio you hear.",
    "language_model.tune": "lora",
    "language_model.lora.r": 8,
    "language_model.lora.alpha": 32,
    "language_model.lora.targets": ("q_proj", "v_proj"),
    "decoding.beam_size": 4,
    "fit.learning_rate": 1e-5,
    "fit.batch_size": 4,
    "fit.weight_decay": 0.0,
    "bridge": Path("runs/link_bridge/best/bridge"),
}
ORACLE = {
    "lamb_pretrain": LAMB
    | {
        "encoder": Path("mispeech/ced-base"),
        "decoder": Path(LLAMA),
        "init": None,
        "source.train": tuple(
            Path(MANIFESTS, f"{name}.csv")
            for name in ("audiocaps.train", "clotho.train", "wavcaps")
        ),
        "fit.learning_rate": 5e-5,
        "fit.batch_size": 32,
    },
    "lamb_audiocaps": FINE_TUNING | {"source.train": Path(MANIFESTS, "audiocaps.train.csv")},
    "lamb_clotho": FINE_TUNING
    | {"source.train": Path(MANIFESTS, "clotho.train.csv"), "source.seconds": 30.0},
    "link_bridge": {
        "encoder": Path(CLAP),
        "bridge.kind": "diffusion_link",
        "bridge.blocks": 3,
        "bridge.diffusion_steps": 1000,
        "bridge.schedule": "scaled_linear",
        "bridge.loss": "l1",
        "bridge.topology": "gram",
        "bridge.topology_weight": 1.0,
        "fit.learning_rate": 5e-4,
        "fit.weight_decay": 5e-5,
        "fit.batch_size": 512,
    },
    "link_zeroshot": LINK | {"protocol": "zero_shot"},
    "link_supervised": LINK | {"protocol": "supervised"},
    "paper_ablations/link_zeroshot_baseline": LINK | {"protocol": "zero_shot", "bridge": None},
    "paper_ablations/link_supervised_baseline": LINK | {"protocol": "supervised", "bridge": None},
}
PAPER_SIZED = [RECIPES / f"{name}.toml" for name in ORACLE]


def at(recipe, key):
    for part in key.split("."):
        recipe = getattr(recipe, part)
    return recipe


def keys(tables, prefix=""):
    found = []
    for name, value in tables.items():
        inner = keys(value, f"{prefix}{name}.") if isinstance(value, dict) else [prefix + name]
        found += inner
    return found


@pytest.mark.parametrize("name", ORACLE)
def test_recipe_holds_the_papers_numbers(name):
    recipe = read_recipe(RECIPES / f"{name}.toml")
    assert {key: at(recipe, key) for key in ORACLE[name]} == ORACLE[name]


@pytest.mark.parametrize("path", ABLATIONS, ids=lambda path: path.stem)
def test_ablation_is_its_base_and_at_most_three_keys(path):
    tables = tomllib.loads(path.read_text())
    assert (path.parent / tables.pop("base")).is_file()
    assert len(keys(tables)) <= 3
    assert path.read_text().startswith("# ")


def test_every_ablation_differs_from_its_base_and_from_the_others():
    def settings(path):
        return read_recipe(path).model_dump_json(exclude={"name"})

    found = {path.stem: settings(path) for path in ABLATIONS}
    plain = {path.stem: settings(path) for path in PAPER_SIZED if path.parent == RECIPES}
    together = [*found.values(), *plain.values()]
    assert len(set(together)) == len(together)


@pytest.mark.parametrize(
    "row", ["linear", "q_former", "guide_l1", "guide_cosine", "no_tsa", "no_cs", "no_cma"]
)
def test_lamb_ablations_pretrain_what_they_fine_tune(row):
    folder = RECIPES / "paper_ablations"
    first = read_recipe(folder / f"lamb_{row}_pretrain.toml")
    second = read_recipe(folder / f"lamb_{row}_audiocaps.toml")
    assert second.init == Path(f"runs/lamb_{row}_pretrain/best")
    assert second.model == first.model
    assert second.losses == first.losses
    assert second.encoder is None


def test_what_the_ablations_of_lamb_leave_out():
    def model(row):
        return read_recipe(RECIPES / "paper_ablations" / f"lamb_{row}_audiocaps.toml")

    assert model("no_cma").model.aligner is None
    assert model("no_guide").model.guide is None
    assert model("no_tsa").model.prefix.kind == "linear"
    assert model("no_tsa").model.aligner is not None
    assert (model("no_cs").losses["cs_global"], model("no_cs").losses["cs_token"]) == (0, 0)
    assert model("no_cs").losses["infonce"] == 1.0
    assert model("linear").model.prefix.kind == "linear"
    assert model("linear").model.aligner is None
    assert model("q_former").model.prefix.kind == "q_former"
    assert model("guide_l1").model.guide.metric == "l1"
    assert model("guide_cosine").model.guide.metric == "cosine"


def test_an_empty_list_of_manifests_is_refused():
    with pytest.raises(ConfigError, match="at least 1 item"):
        read_recipe(RECIPES / "lamb_pretrain.toml", ["source.train=[]"])
