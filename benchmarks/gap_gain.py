"""Does closing the modality gap help, and when? Relative gains in CIDEr-D against the gap.

    python benchmarks/gap_gain.py --data ../shared/data

Small CLAPs are trained at temperatures and batch sizes that leave centroid distances of about 0.3,
0.5 and 0.8; as a control an offset along the gap is added to the audio of the first. In each
space bridges and captioners are trained anew, with three seeds. Each cell is a file in `--runs`; a
stopped run resumes with the missing cell. The table is printed and written to docs/link_results.md,
the figure to docs/images.

Reduced to what one slow core can do, and equally for all rows: the budgets below, a frozen language
model (pocket-link's) behind a new projector that learns its tokens, greedy captions.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from gap_report import publish, report, rows_of
from gap_spaces import (
    DIM,
    RECORDINGS,
    SCENES,
    SINGLES,
    TITLES,
    Level,
    Space,
    World,
    offset_to,
    train_space,
)
from torch.nn.functional import mse_loss, normalize

from earwitness.decoding import Decoding
from earwitness.encoders import one_frame
from earwitness.lamb.two_stream import match_token_norm
from earwitness.link import (
    Bridge,
    DiffusionLink,
    DiffusionLinkConfig,
    LinkPrefix,
    LinkPrefixConfig,
    NoBridgeConfig,
    simplest_start,
    start_time_sweep,
)
from earwitness.link.base import BridgeConfig, Side
from earwitness.link.baselines import MeanShiftConfig, NoiseInjectionConfig, TextMemoryConfig
from earwitness.link.learned_baselines import RegressorConfig
from earwitness.models.weights import write_json
from earwitness.system.decoder import Decoder
from earwitness.training.embeddings import Pairs

LEVELS = (
    Level("0.3", 0.12, 128, 100),
    Level("0.5", 0.06, 64, 100),
    Level("0.8", 0.03, 32, 100),
)
OFFSETS = (0.8,)
UPDATES, BATCH = 300, 128
"""of a bridge"""
LEARNED, TOGETHER = 200, 128
"""updates of a projector, and its batch"""
DRAWS = 8
NOISE_POWER = 0.5
"""of noise injection over all numbers: WSAC's variance of 0.001 at its 512 numbers"""
GREEDY = Decoding(beam_size=1, max_new_tokens=20, repeat_content_words=False)
Cell = dict[str, dict]
Say = Callable[[np.ndarray], list[str]]
"""from bridged embeddings to captions"""


def main() -> None:
    """Reads the command line, fills the missing cells, prints the tables."""
    parser = options(__doc__, "docs/link_results.md")
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0 on")
    parser.add_argument("--images", type=Path, default=Path("docs/images"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    cells = args.runs / "gap_gain"
    if not args.report:
        study = Study(World(args.data, args.runs), cells)
        write_json(cells / "references.json", study.references())
        for seed in range(args.seeds):
            study.levels(seed)
    seeds = max(map(len, rows_of(cells, "gain").values()))
    publish(f"{introduction(seeds)}\n{report(cells, args.images)}", args.out)


def options(about: str | None, out: str) -> argparse.ArgumentParser:
    """The options that both studies have; `out` is where the page is written."""
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--out", type=Path, default=Path(out))
    parser.add_argument("--report", action="store_true", help="print what is there")
    return parser


def introduction(seeds: int) -> str:
    """What was done, in numbers."""
    levels = ", ".join(f"{one.temperature:g} with batches of {one.batch}" for one in LEVELS)
    return f"""# Bridges compared

Written by `python benchmarks/gap_gain.py`. For what it means see [the results](results.md).

- Sounds: {SCENES:,} scenes mixed to match human captions and {SINGLES:,} recordings of one sound
  with a sentence for its class, as frames of the pocket encoder. Captioned: the 138 development
  recordings, most with five human captions.
- Spaces: heads of {DIM} numbers over frozen frames and a frozen text tower, {LEVELS[0].updates}
  updates at a fixed temperature: {levels}.
  `offset`: a vector along the gap added to the audio of the first space.
- Bridges: {UPDATES} updates of {BATCH} pairs; Diffusion-Link averages {DRAWS} draws, its t* is by
  the one-standard-error rule.
- Captioners: pocket-link's language model, frozen, behind a new projector that learns ({LEARNED}
  updates of {TOGETHER}) the tokens of pocket-link's own; greedy captions. No language model is
  trained, as in the full recipe (1,500 updates of 64, LoRA): compare rows, not absolute scores.
- `none`, mean shift, text memory and regressor leave text as it is, so these share a
  captioner. Five captions: the regressor's target is the mean embedding of up to five captions
  that describe the same sounds.
- Seeds: {seeds}, each with its own space, bridges and captioners. Intervals are 95 %, over clips
  and seeds together; p is corrected by Holm within a table. A gain is relative to no bridge in the
  same space.
"""


class Study:
    """The cells, and what they share."""

    def __init__(self, world: World, cells: Path) -> None:
        self.world, self.cells = world, cells

    def references(self) -> dict[str, list[list[str]]]:
        """Human captions of the sounds that are reported on."""
        return {RECORDINGS: self.world.sets[RECORDINGS].references}

    def levels(self, seed: int) -> None:
        """All cells of all spaces with one seed."""
        for level in LEVELS:
            self.level(level, seed)

    def level(self, level: Level, seed: int) -> None:
        """All cells of a space with one seed: a captioner each, with the bridges that it serves."""
        variants = self.variants(level, seed)
        self.cell(f"gain/{level.name}-text-{seed}", lambda: self._text(variants, seed))
        self.cell(f"gain/{level.name}-noise-{seed}", lambda: self._noise(variants, seed))
        for name, space in variants.items():
            self.cell(f"gain/{name}-link-{seed}", lambda n=name, s=space: self._link(n, s, seed))

    def variants(self, level: Level, seed: int) -> dict[str, Space]:
        """The space of a level by its name; for the first, those with offsets too."""
        space = self.space(level, seed)
        spaces = {level.name: space}
        if level is LEVELS[0]:
            for gap in OFFSETS:
                spaces[f"{level.name}+{gap}"] = space.moved(offset_to(space, gap))
        return spaces

    def space(self, level: Level, seed: int) -> Space:
        """A space, trained unless it is there."""
        path = self.cells / "spaces" / f"{level.name}-{seed}.npz"
        if not path.exists():
            start = time.process_time()
            path.parent.mkdir(parents=True, exist_ok=True)
            made = train_space(self.world, level, seed).pairs
            sides = {"audio": 0, "text": 1}
            np.savez(path, **{f"{s} {n}": p[i] for n, p in made.items() for s, i in sides.items()})
            print(f"{path.stem}: {time.process_time() - start:.0f} s", flush=True)
        arrays, pairs = np.load(path), {}
        for name, sounds in self.world.sets.items():
            audio, text = arrays[f"audio {name}"], arrays[f"text {name}"]
            pairs[name] = Pairs(audio, text, sounds.owner, sounds.captions)
        return Space(pairs)

    def cell(self, name: str, make: Callable[[], Cell]) -> None:
        """Makes a cell and keeps it as a file, unless it is there."""
        path = self.cells / f"{name}.json"
        if path.exists():
            return
        start = time.process_time()
        write_json(path, make())
        print(f"{name}: {time.process_time() - start:.0f} s", flush=True)

    def _text(self, variants: dict[str, Space], seed: int) -> Cell:
        """Bridges behind which text stays as it is share one captioner."""
        told = self.captioner(next(iter(variants.values())), seed)
        rows: Cell = {}
        for name, space in variants.items():
            bridges: dict[str, Bridge] = {
                kind: closed_form(config, space)
                for kind, config in (
                    ("none", NoBridgeConfig()),
                    ("mean shift", MeanShiftConfig()),
                    ("text memory", TextMemoryConfig(memory_size=6000)),
                )
            }
            bridges["regressor"] = last(RegressorConfig(), space, seed)
            if "+" not in name:
                several = mean_of_five(space, self.world.alike)
                bridges["regressor, five captions"] = last(RegressorConfig(), several, seed)
            for kind, bridge in bridges.items():
                rows[f"{name}/{kind}"] = self.row(told, space, bridge)
        return rows

    def _noise(self, variants: dict[str, Space], seed: int) -> Cell:
        [first, *_] = variants.values()
        config = NoiseInjectionConfig(variance=NOISE_POWER / dim(first))
        told = self.captioner(first, seed, closed_form(config, first))
        nothing = closed_form(NoBridgeConfig(), first)
        return {
            f"{name}/noise injection": self.row(told, space, nothing)
            for name, space in variants.items()
        }

    def _link(self, name: str, space: Space, seed: int) -> Cell:
        link = last(DiffusionLinkConfig(draws=DRAWS), space, seed)
        told = self.captioner(space, seed, link)
        return {f"{name}/Diffusion-Link": self.row(told, space, link)}

    def row(self, say: Say, space: Space, bridge: Bridge, noise: int = 1) -> dict:
        """Captions of the recordings, for Diffusion-Link with `noise` seeds of its noise, and the
        gap behind the bridge.
        """
        seeds = range(noise if isinstance(bridge, DiffusionLink) else 1)
        parts = [bridged(bridge, space, RECORDINGS, seed) for seed in seeds]
        said = say(np.concatenate(parts))
        size = len(parts[0])
        return {
            RECORDINGS: [said[size * n : size * (n + 1)] for n in seeds],
            "gap": {name: space.gap(name) for name in TITLES},
            "after": {name: space.gap(name, bridged(bridge, space, name)) for name in TITLES},
            **start_of(bridge),
        }

    def captioner(
        self,
        space: Space,
        seed: int,
        bridge: Bridge | None = None,
        side: Side = "text",
        updates: int = LEARNED,
    ) -> Say:
        """A projector in front of the frozen language model that learned, from the bridged
        embeddings of one side, the tokens from which that model writes the captions: those of
        pocket-link's own projector (squared error).
        """
        train, model = space.pairs["train"], self.world.captioner
        torch.manual_seed(seed)
        prefix = LinkPrefixConfig(hidden=512).build(dim(space), model.decoder.dim)
        match_token_norm(prefix.project, float(model.decoder.table.norm(dim=1).mean()))
        targets = torch.stack([self.world.tokens[text] for text in train.captions])
        generator, rng = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
        optimizer = torch.optim.AdamW(prefix.projector.parameters(), lr=2e-3, weight_decay=1e-4)
        inputs = torch.from_numpy(train.text if side == "text" else train.audio)
        for update in range(updates):
            rows = rng.choice(len(inputs), TOGETHER, replace=False)
            e = inputs[rows]
            if bridge is not None:
                with torch.no_grad():
                    e = bridge(e, side=side, generator=generator)
            loss = mse_loss(prefix(*one_frame(e))[0][:, 0], targets[rows])
            for group in optimizer.param_groups:
                group["lr"] = 2e-3 * (1 - update / updates)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return told_by(prefix.eval(), model.decoder, GREEDY)


def told_by(prefix: LinkPrefix, decoder: Decoder, settings: Decoding, batch: int = 480) -> Say:
    """What `decoder` says to the tokens that `prefix` makes of embeddings."""

    @torch.inference_mode()
    def say(e: np.ndarray) -> list[str]:
        said: list[str] = []
        for rows in torch.from_numpy(e).split(batch):
            found = decoder.generate(*prefix(*one_frame(rows)), settings)
            said += [row[0].text for row in found]
        return said

    return say


def dim(space: Space) -> int:
    """C."""
    return space.pairs["train"].audio.shape[1]


def bridged(bridge: Bridge, space: Space, name: str, seed: int = 0) -> np.ndarray:
    """The audio of a set behind a bridge."""
    with torch.inference_mode():
        return bridge(torch.from_numpy(space.pairs[name].audio), seed=seed).numpy()


def validation_cosine(bridge: Bridge, space: Space) -> float:
    """The mean cosine of the validation pairs behind a bridge."""
    return space.gap("validation", bridged(bridge, space, "validation"))["paired_cosine"]


def start_of(bridge: Bridge) -> dict[str, int]:
    """t* of a Diffusion-Link."""
    return {"start": bridge.config.start_time} if isinstance(bridge, DiffusionLink) else {}


def closed_form(config: BridgeConfig, space: Space) -> Bridge:
    """A bridge with nothing to train, with its statistics."""
    bridge = config.model_copy(update={"dim": dim(space)}).build().eval()
    train = space.pairs["train"]
    bridge.fit_statistics(torch.from_numpy(train.audio), torch.from_numpy(train.text))
    return bridge


def checkpoints(
    config: BridgeConfig, space: Space, seed: int, updates: Sequence[int]
) -> Iterator[tuple[int, Bridge]]:
    """A bridge after each number of updates, as copies; rate and decay are SEED's, constant.
    Diffusion-Link starts where validation pairs say, by the one-standard-error rule.
    """
    torch.manual_seed(seed)
    bridge = config.model_copy(update={"dim": dim(space)}).build()
    audio, text = space.pairs["train"].tensors()
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(bridge.parameters(), lr=5e-4, weight_decay=5e-5)
    validation = space.pairs["validation"].tensors()
    for update in range(1, max(updates) + 1):
        rows = rng.choice(len(audio), BATCH, replace=False)
        terms = bridge.training_loss(audio[rows], text[rows], generator)
        optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()
        if update in updates:
            copied = bridge.config.build().eval()
            copied.load_state_dict(bridge.state_dict())
            if isinstance(copied, DiffusionLink):
                start = simplest_start(start_time_sweep(copied, *validation, steps=(1,))).start_time
                copied.config = copied.config.model_copy(update={"start_time": start})
            yield update, copied


def last(config: BridgeConfig, space: Space, seed: int) -> Bridge:
    """A bridge after `UPDATES` updates."""
    [(_, bridge)] = checkpoints(config, space, seed, (UPDATES,))
    return bridge


def mean_of_five(space: Space, alike: Sequence[Sequence[int]]) -> Space:
    """The same with the mean embedding of up to five captions per training sound as its text."""
    train = space.pairs["train"]
    means = np.stack([train.text[list(rows)].mean(0) for rows in alike])
    text = normalize(torch.from_numpy(means), dim=1).numpy()
    return Space(space.pairs | {"train": train._replace(text=text)})


if __name__ == "__main__":
    main()
