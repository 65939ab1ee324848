"""The text side: any causal language model of transformers, its prompt, its loss and its search.

`[before] z_a [after] caption </s>`: audio tokens take the place of embeddings between two pieces of
prompt.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from earwitness.caption import Decoding
from earwitness.config import Strict
from earwitness.errors import CheckpointError
from earwitness.models.hub import WeightsOrigin
from earwitness.text import REPEATABLE_WORDS

LAYOUTS: dict[str, tuple[str, str]] = {
    "plain": ("", "{instruction}"),
    "llama2-chat": ("[INST] ", " {instruction} [/INST]"),
    "vicuna": ("USER: <Speech>", "</Speech> {instruction}\nASSISTANT:"),
    "slam": ("", "USER: {instruction} \n ASSISTANT:"),
}
"""Text before and after the audio tokens. `vicuna` is LAVCap's, `slam` SLAM-AAC's and DRCap's.

The space before the caption belongs to its first word, as in the texts that language models learned
from: at the end of the prompt it would be a token of its own."""

_SPACES = ("\u0120", "\u2581")
"""how tokenizers write the space before a word: byte-level BPE, SentencePiece"""


class LoraSize(Strict):
    """Sizes of low-rank adapters; the predecessors' values (LAVCap, LOAE)."""

    r: PositiveInt = 8
    alpha: PositiveInt = 32
    dropout: float = Field(default=0.1, ge=0.0, lt=1.0)


class LoraConfig(LoraSize):
    """Low-rank adapters on the LLM."""

    targets: tuple[str, ...] = ("q_proj", "v_proj")


class DecoderConfig(Strict):
    """Prompt layout, instruction, and which weights of the language model are trained."""

    layout: Literal["plain", "llama2-chat", "vicuna", "slam"] = "plain"
    instruction: str = "Please describe the audio."
    tune: Literal["lora", "full", "frozen"] = "lora"
    word_dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """chance that a caption's input token is zeroed in training, so that the audio matters"""
    hidden_dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """in training, after attention and feed-forward of each layer; without it a language model
    small enough to be tuned whole memorizes its captions"""
    lora: LoraConfig = LoraConfig()
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "float32"
    """number format of the language model's weights; "auto" is that of its folder"""
    quantize: Literal["none", "nf4"] = "none"
    """nf4: QLoRA's 4 bits per weight (bitsandbytes); LoRA weights keep their format"""
    attention: Literal["auto", "sdpa", "flash_attention_2", "eager"] = "auto"
    """the attention implementation of transformers; "auto" is its default"""
    gradient_checkpointing: bool = False
    """in training, compute each layer twice and keep only its input: less memory, more time"""


class Texts(NamedTuple):
    """Caption tokens, each row ended by the end token; `mask` is False at padding."""

    ids: Int[Tensor, "B L"]
    mask: Bool[Tensor, "B L"]


class Generated(NamedTuple):
    """One generated caption: its text and the mean log-probability of its tokens."""

    text: str
    log_probability: float


class Decoder(nn.Module):
    """A causal language model behind audio tokens."""

    origin: WeightsOrigin | None = None
    """where the language model was loaded from; None if it is new"""
    model: Any
    """a `PreTrainedModel`, or peft's wrapper around one"""
    special: Bool[Tensor, " V"]
    """True at rows of the table that are not ordinary tokens"""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, config: DecoderConfig
    ) -> None:
        """Raises CheckpointError if the tokenizer has no end-of-sentence token."""
        super().__init__()
        if tokenizer.eos_token_id is None:
            raise CheckpointError("the decoder's tokenizer has no end-of-sentence token")
        self.config, self.tokenizer, self.model = config, tokenizer, model
        self.model.requires_grad_(config.tune == "full")
        if config.hidden_dropout:
            _drop_hidden(model, config.hidden_dropout)
        if config.tune == "lora":
            self.model = with_lora(model, config.lora)
        if config.gradient_checkpointing:
            # The audio tokens carry gradients into the first layer, so that embeddings need none.
            enable_checkpointing(self.model)
        self.dim: int = self.model.get_input_embeddings().weight.shape[1]
        special = torch.zeros(self.table.shape[0], dtype=torch.bool)
        special[[i for i in tokenizer.all_special_ids if i < len(special)]] = True
        special[len(tokenizer) :] = True
        self.register_buffer("special", special, persistent=False)
        self._prompt: dict[str, tuple[list[int], list[int]]] = {}
        self._space = "" if _adds_space(tokenizer) else " "

    @property
    def table(self) -> Float[Tensor, "V E"]:
        """The input-embedding table: the LLM's text-embedding space, detached: losses treat it as a
        fixed target.
        """
        return self.model.get_input_embeddings().weight.detach()

    def tokenize(self, captions: list[str]) -> Texts:
        """Caption tokens with the end token, padded on the right."""
        end: Any = self.tokenizer.eos_token_id
        rows = [[*self._ids(self._space + text if text else ""), end] for text in captions]
        lengths = torch.tensor([len(row) for row in rows])
        padded = nn.utils.rnn.pad_sequence(
            [torch.tensor(row) for row in rows], batch_first=True, padding_value=rows[0][-1]
        )
        mask = torch.arange(padded.shape[1])[None, :] < lengths[:, None]
        device = self.special.device
        return Texts(padded.to(device), mask.to(device))

    def forward(
        self, z: Float[Tensor, "B G E"], mask: Bool[Tensor, "B G"], texts: Texts
    ) -> Float[Tensor, "B L V"]:
        """Logits that predict each token of `texts`, end token included."""
        before, keep_before = self._inputs(z, mask)
        token_embeddings = self.model.get_input_embeddings()(texts.ids)
        if self.training and self.config.word_dropout:
            draws = torch.rand(texts.ids.shape, device=token_embeddings.device)
            kept = draws >= self.config.word_dropout
            token_embeddings = token_embeddings * kept[..., None]
        inputs = torch.cat([before, token_embeddings.to(before.dtype)], dim=1)
        keep = torch.cat([keep_before, texts.mask], dim=1)
        length = texts.ids.shape[1]
        out = self.model(
            inputs_embeds=self._as_weights(inputs),
            attention_mask=keep.long(),
            position_ids=(keep.long().cumsum(1) - 1).clamp(min=0),
            logits_to_keep=length + 1,
            use_cache=False,
        )
        return out.logits[:, -length - 1 : -1]

    @torch.inference_mode()
    def generate(
        self,
        z: Float[Tensor, "B G E"],
        mask: Bool[Tensor, "B G"],
        settings: Decoding,
        processors: Sequence[LogitsProcessor] = (),
    ) -> list[list[Generated]]:
        """The `n_best` captions of each row of `z`, best first; sampling leaves torch's own random
        state alone.
        """
        inputs, keep = self._inputs(z, mask)
        listed = list(processors)
        if not settings.repeat_content_words:
            listed.append(_NoRepeatedWord(self.content_ids()))
        devices = [z.device] if z.device.type == "cuda" else []
        with torch.random.fork_rng(devices, enabled=settings.sample):
            if settings.sample:
                torch.manual_seed(settings.seed)
            out = self.model.generate(
                inputs_embeds=self._as_weights(inputs),
                attention_mask=keep.long(),
                logits_processor=LogitsProcessorList(listed),
                eos_token_id=self.tokenizer.eos_token_id,
                pad_token_id=self.tokenizer.eos_token_id,
                output_scores=True,
                return_dict_in_generate=True,
                **search_arguments(settings),
            )
        end: Any = self.tokenizer.eos_token_id
        log_probabilities = mean_log_probability(self.model, out, out.sequences, [end])
        texts = self.tokenizer.batch_decode(out.sequences, skip_special_tokens=True)
        found = [
            Generated(" ".join(text.split()), score)
            for text, score in zip(texts, log_probabilities, strict=True)
        ]
        n = settings.n_best
        rows = [found[i : i + n] for i in range(0, len(found), n)]
        return [
            sorted(row, key=lambda g: -g.log_probability) if settings.sample else row
            for row in rows
        ]

    def content_ids(self) -> Bool[Tensor, " V"]:
        """True at tokens that are whole content words, which a caption should not say twice."""
        pieces = self.tokenizer.convert_ids_to_tokens(list(range(len(self.tokenizer))))
        words = [p[1:] if p[:1] in _SPACES else "" for p in pieces]
        flags = torch.zeros_like(self.special)
        for i, word in enumerate(words):
            flags[i] = len(word) > 2 and word.isalpha() and word.lower() not in REPEATABLE_WORDS
        return flags & ~self.special

    def _inputs(
        self, z: Float[Tensor, "B G E"], mask: Bool[Tensor, "B G"]
    ) -> tuple[Float[Tensor, "B N E"], Bool[Tensor, "B N"]]:
        """Prompt and audio embeddings, padding moved to the left, where generation expects it."""
        embed = self.model.get_input_embeddings()
        before, after = self.prompt_ids()
        size = len(z)
        parts, keep = [], []
        for ids in (before, after):
            tokens = torch.tensor(ids, dtype=torch.long, device=z.device)
            parts.append(embed(tokens).expand(size, -1, -1).to(z.dtype))
            keep.append(torch.ones(size, len(ids), dtype=torch.bool, device=z.device))
        inputs = torch.cat([parts[0], z, parts[1]], dim=1)
        real = torch.cat([keep[0], mask, keep[1]], dim=1)
        order = real.long().argsort(dim=1, stable=True)
        inputs = inputs.gather(1, order[..., None].expand_as(inputs))
        return inputs, real.gather(1, order)

    def _as_weights(self, inputs: Float[Tensor, "B N E"]) -> Float[Tensor, "B N E"]:
        """`inputs` in the number format of a language model that is not float32."""
        dtype = self.table.dtype
        return inputs if dtype == torch.float32 else inputs.to(dtype)

    def prompt_ids(self) -> tuple[list[int], list[int]]:
        layout, instruction = self.config.layout, self.config.instruction
        if layout not in self._prompt:
            before, after = (part.format(instruction=instruction) for part in LAYOUTS[layout])
            start: Any = self.tokenizer.bos_token_id
            first = [] if start is None else [start]
            self._prompt[layout] = ([*first, *self._ids(before)], self._ids(after))
        return self._prompt[layout]

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False).input_ids) if text else []


def mean_log_probability(
    model: Any, out: Any, new: Int[Tensor, "rows L"], ends: Sequence[int]
) -> list[float]:
    """Mean log-probability of the generated tokens `new`, the first of `ends` included, under the
    search's own distribution. `out` is what transformers' `generate` gave.
    """
    beams = getattr(out, "beam_indices", None)
    steps = model.compute_transition_scores(
        out.sequences, out.scores, beams, normalize_logits=beams is None
    )
    is_end = torch.isin(new, torch.tensor(ends, device=new.device)).long()
    real = is_end.cumsum(1) - is_end == 0
    steps = steps.masked_fill(~real[:, : steps.shape[1]], 0.0)
    return (steps.sum(1) / real.sum(1)).tolist()


def search_arguments(settings: Decoding) -> dict[str, Any]:
    """The keyword arguments of transformers' `generate` for `settings`."""
    beams = 1 if settings.sample else max(settings.beam_size, settings.n_best)
    return {
        "num_beams": beams,
        "num_return_sequences": settings.n_best,
        "max_new_tokens": settings.max_new_tokens,
        "do_sample": settings.sample,
        "temperature": settings.temperature if settings.sample else None,
        "top_p": settings.top_p if settings.sample else None,
        "top_k": 0 if settings.sample else None,
        "length_penalty": settings.length_penalty if beams > 1 else None,
        "repetition_penalty": settings.repetition_penalty,
        "no_repeat_ngram_size": settings.no_repeat_ngram,
    }


class _NoRepeatedWord(LogitsProcessor):
    """Forbids content words that the caption already holds."""

    def __init__(self, content: Bool[Tensor, " V"]) -> None:
        self.content = content

    def __call__(
        self, input_ids: Int[Tensor, "rows length"], scores: Float[Tensor, "rows V"]
    ) -> Float[Tensor, "rows V"]:
        used = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, input_ids, True)
        return scores.masked_fill(used & self.content[None, : scores.shape[1]], -torch.inf)


def _drop_hidden(model: PreTrainedModel, chance: float) -> None:
    """Dropout on what each layer's attention and feed-forward part add, while training."""

    def drop(part: nn.Module, _: Any, out: Any) -> Any:
        if not part.training:
            return out
        if isinstance(out, tuple):
            return (nn.functional.dropout(out[0], chance), *out[1:])
        return nn.functional.dropout(out, chance)

    layers: Any = model.base_model.layers
    for layer in layers:
        for part in (layer.self_attn, layer.mlp):
            part.register_forward_hook(drop)


def _adds_space(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a text's first word gets the space before it automatically, as in Llama 2."""
    pieces = tokenizer.convert_ids_to_tokens(tokenizer("a", add_special_tokens=False).input_ids)
    return pieces[0][:1] in _SPACES


def enable_checkpointing(model: Any) -> None:
    """Gradient checkpointing in a language model of transformers, or in peft's wrapper of one."""
    # transformers 5 renamed it; the older name warns.
    old = model.gradient_checkpointing_enable
    getattr(model, "activation_checkpointing_enable", old)({"use_reentrant": False})


def with_lora(model: PreTrainedModel, config: LoraConfig) -> Any:
    """peft's wrapper of `model`, whose layers then hold LoRA weights that change nothing yet."""
    from peft import LoraConfig as PeftLora
    from peft import get_peft_model

    settings = PeftLora(
        r=config.r,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=list(config.targets),
        bias="none",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, settings)
