"""The exceptions that a user can cause. Each message is one sentence: the value, and what was
expected.
"""


class EarwitnessError(Exception):
    """Base class of every error that earwitness raises on purpose."""


class AudioError(EarwitnessError):
    """A sound that cannot be read, or lies outside the limits."""


class AudioTooLargeError(AudioError):
    """A sound longer or larger than the limit."""


class ConfigError(EarwitnessError):
    """A recipe or a setting that does not hold together."""


class CheckpointError(EarwitnessError):
    """A model folder that is missing, damaged, or of another format."""


class DataError(EarwitnessError):
    """A manifest, caption file or embedding file that cannot be used."""


class MissingDependencyError(EarwitnessError):
    """An optional package or program that the request needs and that is not installed."""


class TrainingError(EarwitnessError):
    """A training run that cannot continue."""


def one_line(error: object) -> str:
    """The message of `error` with every run of white space, newlines included, as one space."""
    return " ".join(str(error).split())


def unexpected(name: str, error: Exception) -> EarwitnessError:
    """The error of the one file in which `error`, a fault of the program, came up; it is the cause.

    A job of many files goes on past it, as it does past a file that cannot be read.
    """
    said = f" ({one_line(error)})" if str(error).strip() else ""
    found = EarwitnessError(f"{name}: unexpected {type(error).__name__}{said}")
    found.__cause__ = error
    return found
