"""A world small enough to run the papers' recipes in a minute on a CPU: synthetic sounds in the
manifests that they name, and small weights of the same kinds as those that they name - random ones,
and a language model that knows the sentences.
"""

import json
from pathlib import Path
from typing import Any

_FIT = ['fit.precision="fp32"', "fit.workers=0", "fit.save_every=0", "fit.trackers=[]"]
TINY_LAMB = [
    "source.seconds=1.0",
    'model.decoder.dtype="float32"',
    "model.decoding.beam_size=2",
    "model.decoding.max_new_tokens=12",
    *("fit.epochs=2", "fit.warmup_epochs=0.5", "fit.learning_rate=5e-3", *_FIT),
    *("fit.batch_size=8", "fit.validate_every=2"),
]
TINY_LINK = {
    "bridge": ["fit.epochs=20", "fit.batch_size=20", "fit.validate_every=20", *_FIT],
    "link": [
        'language_model.dtype="float32"',
        "decoding.beam_size=2",
        "decoding.max_new_tokens=12",
        "fit.learning_rate=5e-3",
        "fit.validate_every=3",
        *_FIT,
    ],
}
"""stage -> overrides of its recipe"""

_SETS = (
    ("wavcaps", "wavcaps", 8, 1),
    ("audiocaps.train", "audiocaps", 24, 1),
    ("audiocaps.validation", "audiocaps", 5, 5),
    ("audiocaps.test", "audiocaps", 10, 5),
    ("clotho.validation", "clotho", 5, 5),
    ("clotho.test", "clotho", 10, 5),
    ("clotho.train", "clotho", 16, 5),
)
"""manifest, source, clips, captions per clip"""


def tiny_lamb(tables: dict[str, Any]) -> list[str]:
    """Overrides of a recipe of stage `lamb`; a linear prefix has no heads."""
    kind = tables.get("model", {}).get("prefix", {}).get("kind")
    return TINY_LAMB + ([] if kind == "linear" else ["model.prefix.heads=4"])


def tiny_weights(tables: dict[str, Any], data: Path) -> list[str]:
    """Overrides that name random weights where the recipe names some on the hub."""
    kinds = {"encoder": "ced" if tables["stage"] == "lamb" else "clap", "decoder": "llama"}
    return [
        f"{key}={json.dumps(str(data / 'weights' / kind), ensure_ascii=False)}"
        for key, kind in kinds.items()
        if key in tables
    ]


def write_tiny_world(data: Path) -> None:
    """Writes manifests with their sounds, and random weights, into `data`; what is there stays."""
    makers = {"ced": _ced, "llama": _llama, "clap": _clap}
    for kind, make in makers.items():
        folder = data / "weights" / kind
        if not (folder / "model.safetensors").is_file():
            make(folder)
    first = 0
    for name, source, clips, captions in _SETS:
        if not (data / "manifests" / f"{name}.csv").is_file():
            _manifest(data / "manifests", name, source, range(first, first + clips), captions)
        first += clips


def _manifest(folder: Path, name: str, source: str, numbers: range, captions: int) -> None:
    import soundfile

    from earwitness.data.prepare.output import write_rows
    from earwitness.data.synthetic import RATE, synthetic_clip

    (folder / "audio").mkdir(parents=True, exist_ok=True)
    rows = []
    for number in numbers:
        clip = synthetic_clip(number, seconds=1.0)
        sound = f"audio/{name}-{number}.wav"
        soundfile.write(folder / sound, clip.waveform, RATE)
        texts = [clip.caption, *(f"{clip.caption} {end}" for end in _ENDS)][:captions]
        split = name.partition(".")[2] or "train"
        rows.append(
            {
                "id": f"{name}-{number}",
                "audio": sound,
                "split": split,
                "source": source,
                "recording": f"{source}:{number}",
                "seconds": 1.0,
                "captions": texts,
            }
        )
    write_rows(folder / f"{name}.csv", rows)


_ENDS = ("nearby", "in the distance", "for a while", "in a quiet room")


def _sentences() -> list[str]:
    from earwitness.data.synthetic import SENTENCES

    texts = [f"{text} {end}".strip() for text in SENTENCES.values() for end in ("", *_ENDS)]
    return [f"{prompt} {text}".strip() for text in texts for prompt in _PROMPTS]


_PROMPTS = ("", "Please describe the audio.", "USER: Describe the audio you hear. \n ASSISTANT:")


def _ced(folder: Path) -> None:
    import torch

    from earwitness.encoders import save_frame_encoder
    from earwitness.encoders.ced import CED, CEDConfig

    torch.manual_seed(0)
    size = CEDConfig(embed_dim=48, depth=2, num_heads=4, target_length=112, outputdim=0)
    save_frame_encoder(CED(size).eval(), folder)


def _llama(folder: Path) -> None:
    import torch

    from earwitness.models.llama import LlamaSize
    from earwitness.training.language_model import build, train_tokenizer

    torch.manual_seed(0)
    tokenizer = train_tokenizer(_sentences() * 20, 400)
    size = LlamaSize(hidden=48, layers=2, heads=2, feed_forward=96)
    model = build(size, tokenizer)
    _read(model, tokenizer)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _read(model: Any, tokenizer: Any, steps: int = 120) -> None:
    """Teaches `model` the sentences, as one from the hub knows English; LoRA alone cannot."""
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    sentences = _sentences()
    for step in range(steps):
        chosen = [f"{text}</s>" for text in sentences[step % 5 :: 5]]
        batch = tokenizer(chosen, padding=True, return_tensors="pt")
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        loss = model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels
        ).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def _clap(folder: Path) -> None:
    from transformers import ClapFeatureExtractor

    clap_model(16).save_pretrained(folder)
    ClapFeatureExtractor(truncation="rand_trunc", frequency_min=50).save_pretrained(folder)
    clap_tokenizer(_sentences() * 20).save_pretrained(folder)


def clap_model(projection_dim: int, **audio: Any) -> Any:
    """A `ClapModel` in the hub's layout, tiny and random; `audio` changes its audio side."""
    import torch
    from transformers import ClapConfig, ClapModel

    sizes: dict[str, Any] = {
        "patch_embeds_hidden_size": 8,
        "hidden_size": 64,
        "depths": [1, 1, 1, 1],
        "num_attention_heads": [1, 2, 2, 2],
    }
    text = {
        "vocab_size": 300,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 40,
    }
    torch.manual_seed(0)
    config = ClapConfig(text_config=text, audio_config=sizes | audio, projection_dim=projection_dim)
    model = ClapModel(config)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def clap_tokenizer(sentences: list[str]) -> Any:
    """A tokenizer of CLAP's kind, trained on `sentences`."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import RobertaTokenizer

    bpe = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    bpe.train_from_iterator(sentences, vocab_size=290, special_tokens=special, show_progress=False)
    parts = json.loads(bpe.to_str())["model"]
    merges: Any = [tuple(merge) for merge in parts["merges"]]
    return RobertaTokenizer(vocab=parts["vocab"], merges=merges, model_max_length=512)
