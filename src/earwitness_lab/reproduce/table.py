"""The end of a reproduction: captions of test clips, their scores, and a table with the rows of the
paper beside ours.
"""

from collections.abc import Sequence
from pathlib import Path

from earwitness.data.manifest import Clip
from earwitness.errors import DataError
from earwitness.evaluation import Evaluation, MetricNotRunError, evaluate
from earwitness.evaluation.java import java_runtime
from earwitness.io.atomic import write_text
from earwitness.models.weights import write_json
from earwitness_lab.reproduce.decode import clips_to_caption, decode
from earwitness_lab.reproduce.plan import Plan, Row, Say, launch

METRICS = ("meteor", "cider_d", "spice", "spider", "spider_fl", "fense")
"""those of LAMB's Table 1, in its order"""

Numbers = tuple[float | None, ...]

LAMB_TABLE_1: dict[tuple[str, str], Numbers] = {
    ("SLAM-AAC (paper)", "AudioCaps"): (26.8, 84.1, 19.4, 51.8, 51.5, 66.8),
    ("LAMB (paper)", "AudioCaps"): (27.1, 91.1, 19.7, 55.4, 55.3, 67.7),
    ("SLAM-AAC (paper)", "Clotho"): (19.7, 51.5, 14.8, 33.2, 33.0, 54.0),
    ("LAMB (paper)", "Clotho"): (19.8, 52.3, 14.7, 33.4, 33.1, 53.4),
}
"""the rows of arXiv 2601.04658, Table 1, that are known; times 100"""

LINK_GAINS = {"zero-shot": 52.5, "supervised": 7.5}
"""arXiv 2510.11330, abstract: at most, in percent, in CIDEr over its baseline; no absolute value is
known
"""


def score_rows(
    plan: Plan, say: Say, *, sbert: str | None = None, fluency: str | None = None
) -> dict[str, Evaluation]:
    """The evaluation of each row of `plan` whose model is there, by its label."""
    found = {}
    by_name = {stage.name: stage for stage in plan.stages}
    for row in plan.rows:
        stage = by_name[row.stage]
        if not stage.finished:
            say(f"left out {row.label}: stage '{row.stage}' is not finished")
            continue
        clips = clips_to_caption(row.test)
        say(f"caption  {row.label}: {len(clips)} clips of {row.test}")
        captions = _captions(plan, stage.run, row, clips)
        found[row.label] = evaluate(
            captions,
            [list(clip.captions) for clip in clips],
            metrics=METRICS,
            ids=[clip.id for clip in clips],
            tokenizer=_tokenizer(),
            sbert=sbert,
            fluency=fluency,
        )
    return found


def tables(plan: Plan, scores: dict[str, Evaluation]) -> str:
    """Markdown: the paper's rows and ours, and below why a number is missing."""
    lines = _lamb_lines(plan, scores) if plan.system == "lamb" else _link_lines(plan, scores)
    not_run = {k: v for score in scores.values() for k, v in score.not_run.items()}
    notes = [f"- {name}: not computed: {reason}" for name, reason in not_run.items()]
    tokenizers = {str(score.fingerprint["text"]) for score in scores.values()}
    notes += [f"- text normalization: {text}" for text in sorted(tokenizers)]
    if plan.size != "paper":
        notes.append(
            f"- size '{plan.size}': other data and models than the paper's; its rows are given "
            "for orientation only"
        )
    return "\n".join([*lines, "", *notes])


def write_tables(plan: Plan, scores: dict[str, Evaluation]) -> Path:
    """Writes `reproduce_SYSTEM.md` and `.json` (with intervals) into the folder of runs."""
    path = plan.runs / f"reproduce_{plan.system}_{plan.size}.md"
    write_text(path, tables(plan, scores) + "\n", DataError)
    numbers = {
        label: {
            "scores": {k: {"value": v.value, "low": v.low, "high": v.high} for k, v in s.items()},
            "fingerprint": scores[label].fingerprint,
        }
        for label, s in ((label, score.corpus) for label, score in scores.items())
    }
    write_json(path.with_suffix(".json"), numbers)
    return path


def _captions(plan: Plan, run: Path, row: Row, clips: Sequence[Clip]) -> list[str]:
    """The captions of all clips; those that a stopped call made with the same weights are kept."""
    path = run / f"captions-{row.test.parent.name}-{row.test.stem}.jsonl"
    if plan.processes > 1:
        words = [
            "earwitness_lab.reproduce.decode",
            str(run / "best"),
            str(row.test),
            "-o",
            str(path),
        ]
        launch(plan.processes, words, f"captioning {row.label}")
    found = decode(run / "best", clips, path)
    return [found[clip.id] for clip in clips]


def _tokenizer() -> str:
    """The papers' own, which needs Java; else the one of earwitness."""
    try:
        java_runtime()
    except MetricNotRunError:
        return "simple"
    return "ptb"


def _here(plan: Plan) -> str:
    return "here" if plan.size == "paper" else f"here, {plan.size}"


def _ours(score: Evaluation | None) -> Numbers:
    if score is None:
        return (None,) * len(METRICS)
    return tuple(
        100 * score.corpus[name].value if name in score.corpus else None for name in METRICS
    )


def _line(*cells: str, numbers: Numbers) -> str:
    shown = ("-" if number is None else f"{number:.1f}" for number in numbers)
    return f"| {' | '.join([*cells, *shown])} |"


_HEADS = "METEOR | CIDEr | SPICE | SPIDEr | SPIDEr-FL | FENSE"


def _lamb_lines(plan: Plan, scores: dict[str, Evaluation]) -> list[str]:
    lines = [f"| system | test set | {_HEADS} |", "|---" * 8 + "|"]
    sets = {row.label for row in plan.rows} | {"AudioCaps", "Clotho"}
    for name in sorted(sets):
        lines += [
            _line(system, test, numbers=numbers)
            for (system, test), numbers in LAMB_TABLE_1.items()
            if test == name
        ]
        if any(row.label == name for row in plan.rows):
            lines.append(_line(f"LAMB ({_here(plan)})", name, numbers=_ours(scores.get(name))))
    return lines


def _link_lines(plan: Plan, scores: dict[str, Evaluation]) -> list[str]:
    lines = [f"| system | setting | {_HEADS} | CIDEr over baseline |", "|---" * 9 + "|"]
    for setting, published in LINK_GAINS.items():
        nothing = _ours(None)
        lines.append(_line("baseline (paper)", setting, numbers=nothing) + " |")
        paper = _line("Diffusion-Link (paper)", setting, numbers=nothing)
        lines.append(f"{paper} up to +{published} % |")
        base, link = scores.get(f"{setting} baseline"), scores.get(setting)
        lines.append(_line(f"baseline ({_here(plan)})", setting, numbers=_ours(base)) + " |")
        ours = _line(f"Diffusion-Link ({_here(plan)})", setting, numbers=_ours(link))
        lines.append(f"{ours} {_gain(base, link)} |")
    return lines


def _gain(base: Evaluation | None, link: Evaluation | None) -> str:
    if base is None or link is None:
        return "-"
    before, after = (score.corpus["cider_d"].value for score in (base, link))
    return f"{100 * (after / before - 1):+.1f} %" if before > 0 else "-"
