"""Model folders tampered with: one change each, drawn by a random generator."""

import json
import pickle
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

Tamper = Callable[[Path, random.Random], str]
"""changes a folder, and says what it did"""

HOSTILE: tuple[str, ...] = (
    *("NaN", "Infinity", "-Infinity", "1e999", "-1", "0", "1", "0.5", "1000000", "1000000000"),
    *("9" * 30, "9" * 5000, "-1e30", "1e-30", "null", "true", "false", '""', '"x"', '"1"'),
    *("[]", "{}", '"../../x.dat"', '"\\ud800"', "[[[]]]", "[1e6]", '{"kind": "x"}', '"a/b"'),
)
"""JSON values that replace a good one; text, as some are not JSON"""

_MARK = "\u2603here"
_DTYPES = {
    **{"F32": 4, "F16": 2, "BF16": 2, "F64": 8, "I64": 8, "I32": 4, "I8": 1, "U8": 1, "BOOL": 1},
    **{"F8_E4M3": 1, "F4": 1, "X9": 4},
}


PICKLE_RAN = Path("pickle-was-run")


class Bomb:
    """A pickle that leaves the file `PICKLE_RAN` where it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (PICKLE_RAN,))


def tamper(folder: Path, rng: random.Random) -> str:
    """One change to `folder`, and what it was."""
    kind = rng.choice(list(KINDS))
    return f"{kind}: {KINDS[kind](folder, rng)}"


def json_value(folder: Path, rng: random.Random) -> str:
    """A value of a JSON file becomes a hostile one."""
    path, value = _some_json(folder, rng)
    holder, key = rng.choice(_places(value))
    hostile = rng.choice(HOSTILE)
    name = str(key)
    holder[key] = _MARK
    text = json.dumps(value, ensure_ascii=False).replace(f'"{_MARK}"', hostile)
    path.write_text(text, encoding="utf-8")
    return f"{path.relative_to(folder)} {name} = {hostile[:40]}"


def json_key(folder: Path, rng: random.Random) -> str:
    """A key of a JSON file is removed, or written wrong."""
    path, value = _some_json(folder, rng)
    holder, key = rng.choice(_places(value))
    old = holder[key]
    del holder[key]
    renamed = isinstance(holder, dict) and rng.random() < 0.5
    if renamed:
        holder[f"{key}_"] = old
    path.write_text(json.dumps(value), encoding="utf-8")
    return f"{path.relative_to(folder)} {key} {'renamed' if renamed else 'removed'}"


def json_nested(folder: Path, rng: random.Random) -> str:
    """A JSON file is 100,000 nested lists, or a list of small numbers."""
    path, _ = _some_json(folder, rng)
    path.write_text("[" * 100_000 if rng.random() < 0.5 else "[1]")
    return str(path.relative_to(folder))


def cut(folder: Path, rng: random.Random) -> str:
    """A file ends too early."""
    path = _some_file(folder, rng)
    data = path.read_bytes()
    size = rng.randrange(len(data)) if data else 0
    path.write_bytes(data[:size])
    return f"{path.relative_to(folder)} after {size} of {len(data)} bytes"


def flip(folder: Path, rng: random.Random) -> str:
    """One bit of a file is turned over, half the time among its first 2,000 bytes."""
    path = _some_file(folder, rng)
    data = bytearray(path.read_bytes())
    end = min(len(data), 2000) if rng.random() < 0.5 else len(data)
    place = rng.randrange(max(end, 1))
    if data:
        data[place] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    return f"{path.relative_to(folder)} at {place}"


def header(folder: Path, rng: random.Random) -> str:
    """A tensor's entry in a safetensors header gets another dtype, shape or place."""
    path = rng.choice(_weights(folder))
    entries, body = read_parts(path)
    name = rng.choice([name for name in entries if name != "__metadata__"])
    entry = entries[name]
    key = rng.choice(["dtype", "shape", "data_offsets"])
    values: dict[str, list[Any]] = {
        "dtype": list(_DTYPES),
        "shape": [[], [2**40], [-1], [2**63, 2], "x", entry["shape"][::-1], [0]],
        "data_offsets": [[0, 0], [0, 2**60], [5, 2], [-4, 0], None, [0, len(body)]],
    }
    entry[key] = rng.choice(values[key])
    write_parts(path, entries, body)
    return f"{path.relative_to(folder)} {name} {key} = {entry[key]}"


def retyped(folder: Path, rng: random.Random) -> str:
    """A tensor is stored whole in another dtype, its file in order."""
    path = rng.choice(_weights(folder))
    dtype = rng.choice(list(_DTYPES))
    name = retype(path, dtype, rng)
    return f"{path.relative_to(folder)} {name} as {dtype}"


def poisoned(folder: Path, rng: random.Random) -> str:
    """All numbers of a tensor have the bits of NaN or infinity, or are huge."""
    path = rng.choice(_weights(folder))
    entries, body = read_parts(path)
    name = rng.choice([name for name in entries if name != "__metadata__"])
    start, end = entries[name]["data_offsets"]
    pattern = rng.choice([b"\xff\xff\xff\xff", b"\x00\x00\x80\x7f", b"\xff\xff\x7f\x7f"])
    body[start:end] = (pattern * ((end - start) // 4 + 1))[: end - start]
    write_parts(path, entries, body)
    return f"{path.relative_to(folder)} {name} = {pattern.hex()}"


def renamed(folder: Path, rng: random.Random) -> str:
    """A tensor has another name."""
    path = rng.choice(_weights(folder))
    entries, body = read_parts(path)
    name = rng.choice([name for name in entries if name != "__metadata__"])
    entries[name + "x"] = entries.pop(name)
    write_parts(path, entries, body)
    return f"{path.relative_to(folder)} {name}"


def index(folder: Path, rng: random.Random) -> str:
    """An index of shards names a pickle, a file outside, or not a name."""
    path = rng.choice(_weights(folder))
    names = [name for name in read_parts(path)[0] if name != "__metadata__"]
    target: Any = rng.choice(
        [
            "notes.txt",
            "../../x.dat",
            "/etc/hostname",
            "../x.safetensors",
            "a/b.safetensors",
            3,
            None,
        ]
        + ["missing.safetensors", ".safetensors", "..", "", ["a"], "model.safetensors/"]
    )
    (path.parent / "notes.txt").write_bytes(pickle.dumps(Bomb()))
    weight_map: Any = rng.choice([dict.fromkeys(names, target), [target], target, {}])
    where = path.with_name("model.safetensors.index.json")
    where.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    path.unlink()
    return f"{where.relative_to(folder)} names {target!r}"


def pickled(folder: Path, rng: random.Random) -> str:
    """A pickle replaces the weights, or beside a config.json that names it."""
    path = rng.choice(_weights(folder))
    config = path.with_name("config.json")
    bomb = pickle.dumps(Bomb())
    if config.is_file() and rng.random() < 0.5:
        name = rng.choice(["adapter_model.bin", "notes.txt", "../x.bin"])
        config.write_text(
            json.dumps({**json.loads(config.read_text()), "transformers_weights": name})
        )
        (path.parent / Path(name).name).write_bytes(bomb)
        return f"{config.relative_to(folder)} transformers_weights {name}"
    path.write_bytes(bomb)
    return str(path.relative_to(folder))


def linked(folder: Path, rng: random.Random) -> str:
    """A file is a link out of its folder."""
    path = _some_file(folder, rng)
    outside = folder.parent / f"outside-{rng.randrange(10**9)}{path.suffix}"
    shutil.move(path, outside)
    path.symlink_to(outside)
    return str(path.relative_to(folder))


def misplaced(folder: Path, rng: random.Random) -> str:
    """A file is missing, empty, or a folder."""
    path = _some_file(folder, rng)
    path.unlink()
    how = rng.choice(["missing", "empty", "a folder"])
    if how == "empty":
        path.touch()
    elif how == "a folder":
        path.mkdir()
    return f"{path.relative_to(folder)} {how}"


def huge(folder: Path, rng: random.Random) -> str:
    """A size in a JSON file is beyond all reason."""
    path, value = _some_json(folder, rng)
    places = [(h, k) for h, k in _places(value) if type(h[k]) is int]
    if not places:
        return misplaced(folder, rng)
    holder, key = rng.choice(places)
    holder[key] = rng.choice([10**5, 10**6, 10**7, 2**31, 10**12])
    path.write_text(json.dumps(value))
    return f"{path.relative_to(folder)} {key} = {holder[key]}"


KINDS: dict[str, Tamper] = {
    "json value": json_value,
    "json key": json_key,
    "json nested": json_nested,
    "cut": cut,
    "bit flipped": flip,
    "header": header,
    "dtype": retyped,
    "numbers": poisoned,
    "tensor renamed": renamed,
    "index": index,
    "pickle": pickled,
    "link": linked,
    "misplaced": misplaced,
    "huge": huge,
}


def read_parts(path: Path) -> tuple[dict[str, Any], bytearray]:
    """Header and data of a safetensors file."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:start]), bytearray(data[start:])


def write_parts(path: Path, entries: dict[str, Any], body: bytes | bytearray) -> None:
    """A safetensors file of `entries`, true or not, and data."""
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(body))


def retype(path: Path, dtype: str, rng: random.Random, name: str | None = None) -> str:
    """Stores a tensor of `path` as `dtype`, in the same shape; its name."""
    entries, body = read_parts(path)
    name = name or rng.choice([key for key in entries if key != "__metadata__"])
    place, parts = 0, []
    for key, entry in sorted(entries.items()):
        if key == "__metadata__":
            continue
        start, end = entry["data_offsets"]
        data = bytes(body[start:end])
        if key == name:
            count = 1
            for side in entry["shape"]:
                count *= side
            entry["dtype"] = dtype
            data = bytes([1]) * (count * _DTYPES[dtype])
        entry["data_offsets"] = [place, place + len(data)]
        parts.append(data)
        place += len(data)
    write_parts(path, entries, b"".join(parts))
    return name


def _weights(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


def _some_file(folder: Path, rng: random.Random) -> Path:
    return rng.choice(sorted(path for path in folder.rglob("*") if path.is_file()))


def _some_json(folder: Path, rng: random.Random) -> tuple[Path, Any]:
    path = rng.choice(sorted(folder.rglob("*.json")))
    return path, json.loads(path.read_text(encoding="utf-8"))


def _places(value: Any) -> list[tuple[Any, Any]]:
    """(holder, key) of each value in `value`; of long lists, the first ones."""
    keys = list(value)[:50] if isinstance(value, dict) else range(min(len(value), 3))
    found: list[tuple[Any, Any]] = []
    for key in keys:
        found.append((value, key))
        if isinstance(value[key], dict | list):
            found += _places(value[key])
    return found
