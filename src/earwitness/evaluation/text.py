"""Text normalization before scoring: an explicit, named choice, stated in every report."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from earwitness.errors import DataError
from earwitness.evaluation.java import MetricNotRunError, find_java, required_jar, run_java

TOKENIZERS = {
    "simple": "simple-1: lower-case; apostrophes removed; every other character "
    "that is neither a letter, a digit nor white space becomes a space",
    "ptb": "ptb: Stanford PTBTokenizer 3.4.1 -lowerCase, punctuation tokens dropped",
}
_APOSTROPHES = re.compile("['`\u2018\u2019\u02bc]")
_NO_WORD = re.compile(r"[^\w\s]|_")
_PTB_DROPPED = frozenset(
    [
        "''",
        "'",
        "``",
        "`",
        "-LRB-",
        "-RRB-",
        "-LCB-",
        "-RCB-",
        ".",
        "?",
        "!",
        ",",
        ":",
        "-",
        "--",
        "...",
        ";",
    ]
)


@dataclass(frozen=True)
class NormalizedCaptions:
    """Normalized captions: words joined by single spaces."""

    candidates: list[str]
    references: list[list[str]]


def normalize_captions(
    candidates: Sequence[str],
    references: Sequence[Sequence[str]],
    tokenizer: str = "simple",
    *,
    java: Path | str | None = None,
    timeout: float = 300.0,
) -> NormalizedCaptions:
    """The captions as every metric sees them, under the named `tokenizer` ("simple" or "ptb").

    Raises:
        DataError: the tokenizer is unknown.
        MetricNotRunError: "ptb" without Java or without its jar.
    """
    if tokenizer not in TOKENIZERS:
        raise DataError(f"tokenizer {tokenizer!r}: expected one of {', '.join(TOKENIZERS)}")
    flat = [*candidates, *(text for group in references for text in group)]
    words = _ptb(flat, java, timeout) if tokenizer == "ptb" else [simple(text) for text in flat]
    ends = len(candidates)
    grouped: list[list[str]] = []
    for group in references:
        grouped.append(words[ends : ends + len(group)])
        ends += len(group)
    return NormalizedCaptions(words[: len(candidates)], grouped)


def simple(text: str) -> str:
    """`text` in lower case without punctuation, with single spaces between words."""
    return " ".join(_NO_WORD.sub(" ", _APOSTROPHES.sub("", text.lower())).split())


def _ptb(texts: list[str], java: Path | str | None, timeout: float) -> list[str]:
    """Each text's PTB tokens without punctuation; one Java run for all of them."""
    jar = required_jar(None, "tokenizer", "stanford-corenlp-3.4.1.jar")
    lines = [" ".join(text.split()) for text in texts]
    output = run_java(
        find_java(java),
        ["-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
        + ["-encoding", "utf-8"],
        text="".join(f"{line}\n" for line in lines),
        timeout=timeout,
    ).stdout.split("\n")[: len(lines)]
    if len(output) != len(lines):
        raise MetricNotRunError(
            f"the PTB tokenizer gave {len(output)} lines back for {len(lines)} captions"
        )
    return [" ".join(w for w in line.split() if w not in _PTB_DROPPED) for line in output]
