"""Stage `language_model`: a small causal language model that learns to write captions from captions
alone.
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from earwitness.data.captions import development_ids, read_audiocaps, read_clotho, without
from earwitness.models.llama import LlamaSize, llama_config
from earwitness.text import normalize
from earwitness.training.batches import validation_batches
from earwitness.training.fit import fit
from earwitness.training.recipe import Job, StageRecipe
from earwitness.training.settings import Selection

_SPECIAL = ("bos", "eos", "pad")


class LanguageModelRecipe(StageRecipe):
    """Settings of the stage."""

    stage: Literal["language_model"]
    data: Path
    size: LlamaSize = LlamaSize()
    dropout: float = 0.1
    """chance that an input token embedding is zeroed in training"""

    def prepare(self, folder: Path) -> Job:
        """Reads the captions; the run leaves a Hugging Face folder in `folder`/best/decoder."""
        return _prepare(self, folder)


class CaptionModel(nn.Module):
    """The language model and its loss per token."""

    def __init__(self, model: Any, tokenizer: Any, dropout: float) -> None:
        super().__init__()
        self.model, self.tokenizer = model, tokenizer
        self.dropout = nn.Dropout1d(dropout)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Cross-entropy of the next token, over real tokens."""
        embedded = self.dropout(self.model.get_input_embeddings()(batch["ids"]))
        out = self.model(
            inputs_embeds=embedded, attention_mask=batch["mask"].long(), labels=batch["labels"]
        )
        return {"next_token": out.loss}


def training_captions(data: Path) -> list[str]:
    """Human captions of the training splits, normalized; captions of benchmark recordings are left
    out.
    """
    folder = data / "captions"
    rows = read_audiocaps(folder / "audiocaps_train.csv") + read_clotho(folder / "clotho_train.csv")
    dev = development_ids(data)
    return [normalize(row.caption) for row in without(rows, dev)]


def validation_captions(data: Path) -> list[str]:
    """Human captions of the validation splits, without those of the benchmark recordings."""
    folder = data / "captions"
    rows = read_audiocaps(folder / "audiocaps_val.csv") + read_clotho(folder / "clotho_val.csv")
    dev = development_ids(data)
    return [normalize(row.caption) for row in without(rows, dev)]


def train_tokenizer(captions: list[str], vocabulary: int) -> Any:
    """A byte-level BPE tokenizer: frequent words become single tokens, nothing is unknown.

    Every caption starts with a space, so that a word is the same token wherever it occurs.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        captions,
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=["<s>", "</s>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )


def build(size: LlamaSize, tokenizer: Any) -> Any:
    """An untrained Llama of this size behind `tokenizer`; the embedding table is tied."""
    from transformers import LlamaForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in _SPECIAL}
    size = size.model_copy(update={"vocabulary": len(tokenizer)})
    return LlamaForCausalLM(llama_config(size, tie_word_embeddings=True, **special))


def _prepare(recipe: LanguageModelRecipe, run_folder: Path) -> Job:
    captions = training_captions(recipe.data)
    tokenizer = train_tokenizer(captions, recipe.size.vocabulary)
    torch.manual_seed(recipe.fit.seed)
    model = CaptionModel(build(recipe.size, tokenizer), tokenizer, recipe.dropout)
    heldout = _Sentences(validation_captions(recipe.data), tokenizer)
    return lambda: fit(
        model,
        _Sentences(captions, tokenizer),
        collate,
        {},
        recipe.fit,
        run_folder,
        validate=lambda trained: {"perplexity": perplexity(trained, heldout)},
        save=save,
        select=Selection("perplexity", "lowest"),
    )


def perplexity(model: nn.Module, sentences: "_Sentences", batch_size: int = 128) -> float:
    """exp of the mean cross-entropy per token (end token included)."""
    total, count = 0.0, 0
    device = next(model.parameters()).device
    for batch, _ in validation_batches(sentences, collate, device, batch_size):
        real = int((batch["labels"][:, 1:] >= 0).sum())
        total += float(model(batch)["next_token"]) * real
        count += real
    return float(np.exp(total / count))


def save(model: nn.Module, folder: Path) -> None:
    """Model (half precision) and tokenizer as transformers writes them."""
    import copy

    assert isinstance(model, CaptionModel)
    copy.deepcopy(model.model).half().save_pretrained(folder / "decoder")
    model.tokenizer.save_pretrained(folder / "decoder")


class _Sentences(torch.utils.data.Dataset[list[int]]):
    def __init__(self, captions: list[str], tokenizer: Any) -> None:
        start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
        ids = tokenizer(captions, add_special_tokens=False).input_ids
        self.rows = [[start, *row[:60], end] for row in ids]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: tuple[int, int]) -> list[int]:
        return self.rows[key[0]]


def collate(rows: list[list[int]]) -> dict[str, Tensor]:
    """Rows of token ids as one padded batch; padding has the label -100."""
    ids = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
    lengths = torch.tensor([len(row) for row in rows])
    mask = torch.arange(ids.shape[1])[None, :] < lengths[:, None]
    return {"ids": ids, "mask": mask, "labels": ids.masked_fill(~mask, -100)}
