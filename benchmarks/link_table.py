"""Reruns the whole comparison of Diffusion-Link and its rivals on the pocket models.

    python benchmarks/link_table.py --data ../shared/data

For every bridge and seed: the bridge's training, the modality gap on held-out scenes and on the
development recordings, the captioner of both protocols, its captions. Each cell is one JSON file in
`--runs`; a stopped table goes on with the cell that is missing. At the end docs/link_results.md and
docs/link_sweep.svg are written (see link_report.py).
"""

import argparse
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from link_report import write_report

from earwitness.encoders import load_embedding_encoder, one_frame
from earwitness.gap import measure
from earwitness.link import Bridge, DiffusionLink, load_bridge, start_time_sweep
from earwitness.models.weights import write_json
from earwitness.system.captioner import TorchCaptioner
from earwitness.training.embeddings import Pairs, embed_clips, open_embeddings
from earwitness.training.stages import read_recipe, run_recipe
from earwitness_lab.pocket.development import read_recordings

LINK = "diffusion_link"
BRIDGES: dict[str, list[str]] = {
    "none": [],
    "mean_shift": [],
    "noise_injection": [],
    "text_memory": [],
    "regressor": [],
    "diffusion_bridge": [],
    "conditional_prior": [],
    "conditional_prior_x0": [
        'bridge.kind="conditional_prior"',
        'bridge.predicts="x_0"',
    ],
    LINK: [],
    "lambda_0": ["bridge.topology_weight=0.0"],
    "lambda_0.1": ["bridge.topology_weight=0.1"],
    "lambda_10": ["bridge.topology_weight=10.0"],
    "lambda_1_by_time": ['bridge.topology_time_weight="alpha_bar"'],
}
"""row of the table -> changes to recipes/pocket_bridge.toml; the lambda rows are gap only"""

CAPTIONED = {
    "zero_shot": [name for name in BRIDGES if not name.startswith("lambda")],
    "supervised": ["none", "mean_shift", "text_memory", "regressor", "diffusion_bridge"]
    + ["conditional_prior", "conditional_prior_x0", LINK],
}
"""noise injection leaves audio as it is: supervised it would be the row "none" """

SWEEP_STEPS = (1, 5, 50)

SHORT = ["pairs=6400", "fit.epochs=1"]
"""the table's captioners learn for 100 updates, so that all cells take about an hour on one core"""


def main() -> None:
    """Reads the command line, fills the missing cells, writes the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--encoder", type=Path, default=Path("runs/pocket_clap/best/encoder"))
    parser.add_argument("--runs", type=Path, default=Path("runs/link_table"))
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=BRIDGES, help="these rows alone")
    parser.add_argument("--protocols", nargs="*", choices=CAPTIONED, default=list(CAPTIONED))
    parser.add_argument("--set", action="append", default=[], help="change to every recipe")
    parser.add_argument("--set-link", action="append", default=[], help="to the captioners only")
    parser.add_argument("--report", action="store_true", help="write the report of what is there")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if not args.report:
        table = Table(args)
        for seed in range(args.seeds):
            for name in args.only or BRIDGES:
                table.row(name, seed)
    write_report(args.runs, args.docs)


class Table:
    """The data that all cells share, and the cells."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.runs = args, args.runs
        self.common = [f"data={args.data}", f"encoder={args.encoder}", *args.set]
        recipe = read_recipe(Path("recipes/pocket_bridge.toml"), self.common)
        splits = open_embeddings(recipe.source, args.encoder, self.runs.parent)
        self.validation = splits.validation
        files, references = read_recordings(args.data / "dev")
        dev = embed_clips(load_embedding_encoder(args.encoder), files, references)
        self.sets: dict[str, Pairs] = {"dev": dev, "heldout": splits.test}
        for name, pairs in self.sets.items():
            references = [[] for _ in pairs.audio]
            for clip, text in zip(pairs.owner, pairs.captions, strict=True):
                references[clip].append(text)
            write_json(self.runs / f"references-{name}.json", {"references": references})

    def row(self, name: str, seed: int) -> None:
        """All cells of a bridge with one seed."""
        self._cell(f"gap/{name}-{seed}", lambda: self._gap(self._bridge(name, seed)))
        if name == LINK:
            self._cell(f"sweep/{seed}", lambda: self._sweep(self._bridge(name, seed)))
        for protocol, names in CAPTIONED.items():
            if name in names and protocol in self.args.protocols:
                self._cell(
                    f"{protocol}/{name}-{seed}",
                    lambda protocol=protocol: self._captions(protocol, name, seed),
                )

    def _cell(self, name: str, make: Callable[[], dict[str, Any]]) -> None:
        path = self.runs / f"{name}.json"
        if path.exists():
            return
        start = time.process_time()
        found = make()
        write_json(path, {**found, "cpu_seconds": round(time.process_time() - start, 1)})
        print(f"{name}: {time.process_time() - start:.0f} s", flush=True)

    def _bridge_folder(self, name: str, seed: int) -> Path:
        """The trained bridge; trained if it is not there."""
        run = self.runs / "bridges" / f"{name}-{seed}"
        if not (run / "done.json").exists():
            kind = LINK if name.startswith("lambda") else name
            changes = [f'bridge.kind="{kind}"', f"fit.seed={seed}", *BRIDGES[name]]
            recipe = Path("recipes/pocket_bridge.toml")
            # Caches lie beside the run: this keeps them where the recipes have theirs.
            scores = run_recipe(recipe, self._beside(run), [*self.common, *changes])
            shutil.rmtree(run, ignore_errors=True)
            shutil.copytree(self._beside(run) / "best", run / "best")
            write_json(run / "done.json", dict(scores))
            shutil.rmtree(self._beside(run))
        return run / "best" / "bridge"

    def _bridge(self, name: str, seed: int) -> Bridge:
        return load_bridge(self._bridge_folder(name, seed))

    def _beside(self, run: Path) -> Path:
        return self.runs.parent / f"link_table-{run.parent.name}-{run.name}"

    def _gap(self, bridge: Bridge) -> dict[str, Any]:
        found: dict[str, Any] = {"start_time": getattr(bridge.config, "start_time", None)}
        for name, pairs in self.sets.items():
            with torch.no_grad():
                bridged = bridge(torch.from_numpy(pairs.audio)).numpy()
            report = measure(
                pairs.audio, pairs.text, owner=pairs.owner, bridged=bridged, bootstrap=200
            )
            found[name] = {
                cloud: {r.name: [r.value, r.low, r.high] for r in report.rows if r.cloud == cloud}
                for cloud in report.clouds()
            }
            found[name]["warnings"] = list(report.warnings)
        return found

    def _sweep(self, bridge: Bridge) -> dict[str, Any]:
        assert isinstance(bridge, DiffusionLink)
        points = start_time_sweep(bridge, *self.validation.tensors(), steps=SWEEP_STEPS)
        return {"points": [point._asdict() for point in points]}

    def _captions(self, protocol: str, name: str, seed: int) -> dict[str, Any]:
        run = self._beside(Path(protocol) / f"{name}-{seed}")
        changes = [f"bridge={self._bridge_folder(name, seed)}", f"fit.seed={seed}"]
        recipe = Path(f"recipes/pocket_link_{protocol.replace('_', '')}.toml")
        scores = run_recipe(recipe, run, [*self.common, *changes, *SHORT, *self.args.set_link])
        captioner = TorchCaptioner.load(run / "best")
        found = {name: say(captioner, pairs) for name, pairs in self.sets.items()}
        shutil.rmtree(run)
        return {**found, "scores": dict(scores)}


@torch.inference_mode()
def say(captioner: TorchCaptioner, pairs: Pairs, batch_size: int = 64) -> list[str]:
    """The captions of clips whose embeddings are there already: hops 3 to 5 of a captioner."""
    captions: list[str] = []
    for start in range(0, len(pairs.audio), batch_size):
        e = torch.from_numpy(pairs.audio[start : start + batch_size])
        z = captioner.audio_tokens(one_frame(e))
        rows = captioner.decoder.generate(*z, captioner.config.decoding)
        captions += [row[0].text for row in rows]
    return captions


if __name__ == "__main__":
    main()
