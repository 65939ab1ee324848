"""Captions as words: one normal form, one list of function words, one idea of the same content."""

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
"""Words of grammar: a caption is about the same sound without them."""

REPEATABLE_WORDS = FUNCTION_WORDS | frozenset(
    """
    then while into onto over under before after followed between during along near nearby another
    other several various two three four out off through against around background distance very
    more once again each one what
    """.split()  # noqa: SIM905
)
"""Words that a caption may hold twice: words of grammar, place, order and number."""


def normalize(caption: str) -> str:
    """`caption` in lower case, without punctuation or accents, single spaces between words.

    Apostrophes vanish ("man's" becomes "mans"); every other sign becomes a space.
    """
    plain = unicodedata.normalize("NFKD", caption.lower()).encode("ascii", "ignore").decode()
    return " ".join(_PUNCTUATION.sub(" ", plain.replace("'", "")).split())


def content_words(caption: str) -> list[str]:
    """The words of `caption` in lower case and in order, without those of `FUNCTION_WORDS`."""
    return [word for word in _WORD.findall(caption.lower()) if word not in FUNCTION_WORDS]


def gist(caption: str) -> tuple[str, ...]:
    """What two captions of the same content share: the stems of their content words, in order.

    Stems are those of Snowball's English stemmer (Porter2).
    """
    return tuple(_stem(word) for word in content_words(caption))


@lru_cache(maxsize=4096)
def _stem(word: str) -> str:
    import snowballstemmer

    return snowballstemmer.stemmer("english").stemWord(word)
