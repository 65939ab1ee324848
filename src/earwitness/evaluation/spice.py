"""SPICE from its authors' jar and the user's own Stanford CoreNLP 3.6.0 jars, without -cache.

The jar's cache is a native database that newer Java versions reject, so it stays off; every batch
of clips has a time limit, because the parser can hang.
"""

import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from earwitness.evaluation.java import (
    MetricNotRunError,
    find_java,
    package_file,
    required_jar,
    run_java,
)

CORENLP_JARS = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")
CORENLP_VARIABLE = "EARWITNESS_CORENLP"
BATCH = 250


def corenlp_folder(given: Path | None = None) -> Path:
    """The folder with both CoreNLP jars: `given`, $EARWITNESS_CORENLP, or pycocoevalcap's own.

    Raises:
        MetricNotRunError: a jar is missing; the message says which one, where it was expected, and
            where to get it.
    """
    variable = os.environ.get(CORENLP_VARIABLE)
    folder = given or (Path(variable) if variable else package_file("spice", "lib"))
    where = "pycocoevalcap (not installed)" if folder is None else str(folder)
    missing = [jar for jar in CORENLP_JARS if folder is None or not (folder / jar).is_file()]
    if folder is None or missing:
        raise MetricNotRunError(
            f"{' and '.join(missing)} not found in {where}; they are in "
            "stanford-corenlp-full-2015-12-09.zip "
            "(https://nlp.stanford.edu/software/stanford-corenlp-full-2015-12-09.zip): put both "
            "into one folder "
            f"and set it with --corenlp or {CORENLP_VARIABLE}"
        )
    return folder


def spice(
    candidates: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    corenlp: Path | None = None,
    java: Path | str | None = None,
    timeout: float = 600.0,
    progress: Callable[[str], None] | None = None,
) -> Float[np.ndarray, " clips"]:
    """SPICE (F-score over all tuples) of each clip; an empty candidate has no tuple and scores 0.

    Anderson et al. 2016. Clips go to the jar in batches of 250; `timeout` is the limit in seconds
    per batch.

    Raises:
        MetricNotRunError: a jar or Java is missing, or a batch fails or exceeds its limit.
    """
    program, folder = find_java(java), corenlp_folder(corenlp)
    jar = required_jar(None, "spice", "spice-1.0.jar")
    classes = os.pathsep.join([str(jar), str(folder / "*"), str(jar.parent / "lib" / "*")])
    scores = np.zeros(len(candidates))
    worded = [index for index, text in enumerate(candidates) if text.strip()]
    for start in range(0, len(worded), BATCH):
        batch = worded[start : start + BATCH]
        if progress is not None:
            progress(f"spice: clips {start + 1} to {start + len(batch)} of {len(worded)}")
        items = [{"image_id": i, "test": candidates[i], "refs": [*references[i]]} for i in batch]
        try:
            found = _run_batch(program, classes, items, timeout)
        except MetricNotRunError as error:
            raise MetricNotRunError(f"clips {start + 1} to {start + len(batch)}: {error}") from None
        scores[batch] = [found[index] for index in batch]
    return scores


def _run_batch(
    program: Path, classes: str, items: Sequence[Mapping[str, object]], timeout: float
) -> dict[int, float]:
    with tempfile.TemporaryDirectory(prefix="earwitness-spice-") as folder:
        asked, answered = Path(folder, "in.json"), Path(folder, "out.json")
        asked.write_text(json.dumps(items), encoding="utf-8")
        arguments = ["-Xmx8G", "-cp", classes, "edu.anu.spice.SpiceScorer", str(asked)]
        run_java(program, [*arguments, "-out", str(answered), "-silent"], timeout=timeout)
        try:
            rows = json.loads(answered.read_text(encoding="utf-8"))
            scores = {int(r["image_id"]): float(r["scores"]["All"]["f"]) for r in rows}
        except (OSError, ValueError, KeyError, TypeError):
            raise MetricNotRunError("the SPICE jar wrote no scores") from None
    if len(scores) != len(items) or not np.isfinite([*scores.values()]).all():
        raise MetricNotRunError(f"the SPICE jar scored {len(scores)} of {len(items)} clips")
    return scores
