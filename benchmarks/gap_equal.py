"""Bridges and captioners that learn from the same pairs: 1,000, 6,000 and 48,000.

    python benchmarks/gap_equal.py --data ../shared/data
    python benchmarks/gap_equal.py --data ../shared/data --part recipe --seeds 0

The space is the first of `gap_gain.py`, trained on all pairs. `--part pairs` has projectors in
front of a frozen language model at each number of pairs; `--part recipe` trains the captioners of
pocket-link's recipes (projector and LoRA) on all pairs, behind the bridges of the first part,
from a language model that is trained first if `--runs` has none. Each cell is a file in `--runs`; a
stopped run resumes with the missing cell. The tables are printed and written to docs/link_equal.md.
"""

from functools import cached_property, partial
from pathlib import Path

import torch
from gap_gain import (
    BATCH,
    DRAWS,
    LEVELS,
    TOGETHER,
    Cell,
    Say,
    Study,
    bridged,
    checkpoints,
    closed_form,
    options,
    start_of,
    told_by,
    validation_cosine,
)
from gap_report import BASE, EQUAL_BRIDGES, equal_report, publish, rows_of
from gap_spaces import DIM, HIDDEN, SCENES, SINGLES, TITLES, Space, World

from earwitness.encoders import EmbeddingFrames
from earwitness.encoders.dual import DualEncoder
from earwitness.link import (
    Bridge,
    DiffusionLink,
    DiffusionLinkConfig,
    LinkPrefix,
    NoBridgeConfig,
    load_bridge,
    save_bridge,
)
from earwitness.link.learned_baselines import RegressorConfig
from earwitness.models.weights import write_json
from earwitness.system.captioner import TorchCaptioner
from earwitness.training.link import LinkRecipe, fit_link, link_captioner
from earwitness.training.stages import read_recipe, run_recipe

RECIPES = Path(__file__).resolve().parent.parent / "recipes"
PAIRS = (1000, 6000, 48_000)
CHECKPOINTS = (279, 1000, 5000, 20_000)
"""updates of a bridge"""
LEARNED = 1000
"""updates of a projector"""
NOISE_SEEDS = 5
BRIDGES = {"regressor": RegressorConfig(), "Diffusion-Link": DiffusionLinkConfig(draws=DRAWS)}
PROTOCOLS = ("zero-shot", "supervised")


def main() -> None:
    """Reads the command line, fills the missing cells, prints the tables."""
    parser = options(__doc__, "docs/link_equal.md")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="which ones")
    parser.add_argument("--part", choices=("pairs", "recipe"), default="pairs")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cells = args.runs / "gap_equal"
    if not args.report:
        study = EqualStudy(World(args.data, args.runs, PAIRS[-1] - SCENES - SINGLES), cells)
        write_json(cells / "references.json", study.references())
        for seed in args.seeds:
            study.pairs(seed)
            if args.part == "recipe":
                study.recipe(seed)
    equal, recipe = (
        max(map(len, rows_of(cells, part).values()), default=0) for part in ("equal", "recipe")
    )
    publish(f"{introduction(equal, recipe)}\n{equal_report(cells)}", args.out)


def introduction(equal: int, recipe: int) -> str:
    """What was done, in numbers; these are the seeds of each part."""
    counts = ", ".join(f"{n:,}" for n in PAIRS)
    return f"""# Bridges at equal pairs

Written by `python benchmarks/gap_equal.py`. For what it means see [the results](results.md).

- Sounds and captioned recordings: those of [the gains](link_results.md), and further scenes up to
  {PAIRS[-1]:,} pairs. The space is trained as there, at temperature {LEVELS[0].temperature:g} with
  batches of {LEVELS[0].batch}, on all pairs.
- Numbers of pairs: {counts}. Captioners and bridges learn from the same ones.
  A captioner is a new projector in front of pocket-link's frozen language model, {LEARNED:,}
  updates of {TOGETHER}: zero-shot from the text of the pairs, supervised from their audio behind
  the bridge.
- At the full recipe, with all pairs, projector and LoRA learn from the captions, 1,500 updates of
  64, in front of a language model trained on text alone; captions by beam search.
- Bridges: {", ".join(f"{n:,}" for n in CHECKPOINTS)} updates of {BATCH} pairs, chosen on validation
  pairs; Diffusion-Link averages {DRAWS} draws, its t* is by the one-standard-error rule, and
  its captions are those of {NOISE_SEEDS} noise seeds.
- Seeds: {equal}, at the full recipe {recipe}. Intervals are 95 %, over clips and
  seeds together; p is corrected by Holm within a table.
"""


class EqualStudy(Study):
    """The cells of both parts."""

    def pairs(self, seed: int) -> None:
        """Bridges and projectors at each number of pairs."""
        for count in PAIRS:
            self.cell(f"equal/{count}-{seed}", partial(self._equal, count, seed))

    def recipe(self, seed: int) -> None:
        """The captioners of the full recipe on all pairs, one to a cell."""
        count = PAIRS[-1]
        for kind in EQUAL_BRIDGES:
            for protocol in PROTOCOLS:
                if (protocol, kind) != ("zero-shot", "regressor"):
                    name = f"recipe/{count}-{protocol}-{kind}-{seed}"
                    self.cell(name, partial(self._recipe, kind, protocol, seed))

    def whole(self, seed: int) -> Space:
        """The space with all pairs."""
        return self.space(LEVELS[0], seed)

    def _equal(self, count: int, seed: int) -> Cell:
        """Both protocols without a bridge, behind the regressor and behind Diffusion-Link, each
        with as many updates as validation pairs find best.
        """
        space = self.whole(seed).first(count)
        rows: Cell = {}
        for kind, config in BRIDGES.items():
            trained = dict(checkpoints(config, space, seed, CHECKPOINTS))
            for updates, bridge in trained.items():
                found = {n: space.gap(n, bridged(bridge, space, n)) for n in TITLES}
                rows[f"{kind} {updates}"] = {"gap": found, **start_of(bridge)}
            cosines = {u: validation_cosine(bridge, space) for u, bridge in trained.items()}
            best = trained[max(cosines, key=lambda u: cosines[u])]
            save_bridge(best, self._folder(kind, count, seed))
        plain = self.captioner(space, seed, updates=LEARNED)
        for kind in EQUAL_BRIDGES:
            bridge = self._bridge(kind, count, space, seed)
            told = partial(self.captioner, space, seed, bridge, updates=LEARNED)
            text = told() if isinstance(bridge, DiffusionLink) else plain
            rows[f"zero-shot/{kind}"] = self.row(text, space, bridge, NOISE_SEEDS)
            rows[f"supervised/{kind}"] = self.row(told(side="audio"), space, bridge, NOISE_SEEDS)
        return rows

    def _recipe(self, kind: str, protocol: str, seed: int) -> Cell:
        """What a captioner of the full recipe says, zero-shot also behind the regressor: behind it
        text stays as it is, and so does the captioner.
        """
        space = self.whole(seed)
        shared = ("regressor",) if (protocol, kind) == ("zero-shot", BASE) else ()
        bridges = {k: self._bridge(k, PAIRS[-1], space, seed) for k in (kind, *shared)}
        say = self._learned(space, bridges[kind], protocol, kind, seed)
        return {
            f"{protocol}/{k}": self.row(say, space, bridge, NOISE_SEEDS)
            for k, bridge in bridges.items()
        }

    def _learned(self, space: Space, bridge: Bridge, protocol: str, kind: str, seed: int) -> Say:
        recipe = self._settings(protocol, seed)
        dual = self.world.dual
        config = dual.config.model_copy(update={"dim": DIM, "hidden": HIDDEN})
        encoder = EmbeddingFrames(DualEncoder(dual.frames, dual.tokenizer, config))
        train, chosen_on = space.pairs["train"], space.pairs["validation"]
        torch.manual_seed(seed)
        captioner = link_captioner(recipe, encoder, bridge, train.captions)
        run = self.cells / "captioners" / f"{protocol}-{kind}-{seed}"
        fit_link(recipe, captioner, train, chosen_on, run)
        best = TorchCaptioner.load(run / "best")
        # What it captions is bridged already.
        best.prefix.bridge = closed_form(NoBridgeConfig(), space)
        assert isinstance(best.prefix, LinkPrefix)
        return told_by(best.prefix, best.decoder, recipe.decoding, batch=69)

    def _settings(self, protocol: str, seed: int) -> LinkRecipe:
        """pocket-link's recipe, in front of a language model that learned from text alone."""
        keys = [f"protocol={protocol.replace('-', '_')}", f"fit.seed={seed}", "fit.threads=1"]
        recipe = read_recipe(RECIPES / "pocket_link_zeroshot.toml", keys, self.world.data)
        assert isinstance(recipe, LinkRecipe)
        return recipe.model_copy(update={"decoder": self._language_model})

    @cached_property
    def _language_model(self) -> Path:
        """Trained once, by its own recipe."""
        run = self.world.runs / "pocket_lm"
        run_recipe(RECIPES / "pocket_lm.toml", run, ["fit.threads=1"], self.world.data)
        return run / "best" / "decoder"

    def _folder(self, kind: str, count: int, seed: int) -> Path:
        return self.cells / "bridges" / f"{kind}-{count}-{seed}"

    def _bridge(self, kind: str, count: int, space: Space, seed: int) -> Bridge:
        if kind == BASE:
            return closed_form(NoBridgeConfig(), space)
        return load_bridge(self._folder(kind, count, seed))


if __name__ == "__main__":
    main()
