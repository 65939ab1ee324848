"""Captions as words: normalization, function words, and which captions say the same."""

import re
import unicodedata
from functools import lru_cache

_PUNCTUATION = re.compile(r"[^\w\s]|_")
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")

FUNCTION_WORDS = frozenset(
    """
    a an the and or of to in on at by with as some is are was were be being been it its
    from for has have his her their they that this there which who
    """.split()  # noqa: SIM905
)
"""Words that do not change which sound a caption describes."""

REPEATABLE_WORDS = FUNCTION_WORDS | frozenset(
    """
    then while into onto over under before after followed between during along near nearby another
    other several various two three four out off through against around background distance very
    more once again each one what
    """.split()  # noqa: SIM905
)
"""Words that a caption may repeat: function words and words of place, order and number."""


def normalize(caption: str) -> str:
    """`caption` in lower case, without punctuation or accents, single spaces between words.

    Apostrophes are dropped ("man's" becomes "mans"); any other punctuation becomes a space.
    """
    plain = unicodedata.normalize("NFKD", caption.lower()).encode("ascii", "ignore").decode()
    return " ".join(_PUNCTUATION.sub(" ", plain.replace("'", "")).split())


def content_words(caption: str) -> list[str]:
    """The words of `caption` in lower case and in order, without `FUNCTION_WORDS`."""
    return [word for word in _WORD.findall(caption.lower()) if word not in FUNCTION_WORDS]


def gist(caption: str) -> tuple[str, ...]:
    """The stems of a caption's content words, in order; equal for captions that say the same.

    The stemmer is Snowball's English stemmer (Porter2).
    """
    return tuple(_stem(word) for word in content_words(caption))


@lru_cache(maxsize=4096)
def _stem(word: str) -> str:
    import snowballstemmer

    return snowballstemmer.stemmer("english").stemWord(word)
