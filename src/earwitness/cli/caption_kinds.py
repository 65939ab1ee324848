"""Enumerated choices of the command line."""

from enum import StrEnum


class OutputFormat(StrEnum):
    """What is written."""

    text = "text"
    jsonl = "jsonl"
    json = "json"
    csv = "csv"
    parquet = "parquet"
    srt = "srt"
    vtt = "vtt"
    parts = "parts"


class Sidecar(StrEnum):
    """What is written next to each sound."""

    txt = "txt"
    json = "json"
    srt = "srt"
    vtt = "vtt"


PRECISION_HELP = (
    "Number format of the model's arithmetic. int8 is the fastest; between captions that are about "
    "equally likely, it may choose another one."
)


class Precision(StrEnum):
    """Number format of the model's arithmetic."""

    fp32 = "fp32"
    int8 = "int8"
    bf16 = "bf16"
    fp16 = "fp16"
