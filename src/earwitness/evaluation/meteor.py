"""METEOR 1.5: its authors' jar matches the words; the final formula is here.

The jar aligns each candidate with each reference (exact, stem, synonym, paraphrase) and prints 23
counts for the best alignment. The score is a formula of those counts, per clip and, from their
sums, per corpus (Denkowski and Lavie 2014); in double precision it equals the output of the jar's
own EVAL command.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from earwitness.evaluation.java import MetricNotRunError, find_java, required_jar
from earwitness.evaluation.java_server import ask_java

ALPHA, BETA, GAMMA, DELTA = 0.85, 0.2, 0.6, 0.75
_WEIGHTS = np.array([1.0, 0.6, 0.8, 0.6])
_COUNTS = 23
_CHUNKS = 20


def meteor_counts(
    candidates: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    java: Path | str | None = None,
    jar: Path | None = None,
    timeout: float = 600.0,
) -> Float[np.ndarray, "clips 23"]:
    """The jar's match counts for each clip: English, with -norm, as in the COCO tools.

    If a candidate matches perfectly in one chunk, its chunk count is set to 0, as the jar does
    before it sums.

    Raises:
        MetricNotRunError: Java or the jar is missing, fails, or takes longer than `timeout`
            seconds.
    """
    path = required_jar(jar, "meteor", "meteor-1.5.jar")
    arguments = ["-Duser.country=US", "-Duser.language=en", "-Xmx2G", "-jar", str(path)]
    arguments += ["-", "-", "-stdio", "-l", "en", "-norm"]
    questions = list(map(_score_line, candidates, references))
    lines = ask_java(find_java(java), arguments, questions, timeout=timeout)
    try:
        counts = np.array([[float(x) for x in line.split()] for line in lines], dtype=np.float64)
    except ValueError:
        raise MetricNotRunError(f"{path.name} answered {lines[0][:120]!r}, not counts") from None
    if counts.shape != (len(candidates), _COUNTS):
        raise MetricNotRunError(
            f"{path.name} gave {len(lines)} lines of counts for {len(candidates)} captions"
        )
    length, reference_length = counts[:, 0], counts[:, 1]
    whole = (counts[:, 21] == length) & (counts[:, 22] == reference_length)
    counts[whole & (counts[:, _CHUNKS] == 1), _CHUNKS] = 0.0
    return counts


def meteor(counts: Float[np.ndarray, "rows 23"]) -> Float[np.ndarray, " rows"]:
    """METEOR for rows of counts (see `meteor_counts`), or for their sums."""
    matches = counts[:, 4:20].reshape(-1, 4, 4)
    precision = _ratio(matches[..., 0], matches[..., 2], counts[:, 0], counts[:, 2])
    recall = _ratio(matches[..., 1], matches[..., 3], counts[:, 1], counts[:, 3])
    f_mean = _divide(precision * recall, ALPHA * precision + (1 - ALPHA) * recall)
    fragmentation = _divide(counts[:, _CHUNKS], (counts[:, 21] + counts[:, 22]) / 2)
    return f_mean * (1 - GAMMA * fragmentation**BETA)


def _score_line(candidate: str, references: Sequence[str]) -> str:
    texts = [" ".join(text.replace("|||", " ").split()) for text in [*references, candidate]]
    return "SCORE ||| " + " ||| ".join(texts) + "\n"


def _ratio(
    content: np.ndarray, function: np.ndarray, length: np.ndarray, function_length: np.ndarray
) -> np.ndarray:
    """Weighted matches over weighted length: content words DELTA, function words 1 - DELTA."""
    matched = ((DELTA * content + (1 - DELTA) * function) * _WEIGHTS).sum(axis=-1)
    return _divide(matched, DELTA * (length - function_length) + (1 - DELTA) * function_length)


def _divide(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """`above / below`, and 0 where `below` is 0 (no word, no match)."""
    return np.divide(above, below, out=np.zeros_like(above), where=below != 0)
