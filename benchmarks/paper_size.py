"""Step time, captioning speed and memory of LAMB at the paper's size, with random weights.

    python benchmarks/paper_size.py --out paper_size                   # a CUDA card, 24 GB or more
    python benchmarks/paper_size.py --size tiny --out paper_size_tiny  # the same script on a CPU

LLaMA-2-7B from its shapes, CED-Base, the Two-Stream Adapter, Token Guide and aligner, LoRA on the
language model; clips of 10 s of noise. A random language model rarely ends a caption, so every
caption has `--tokens` tokens: an upper bound. Writes OUT.json and OUT.md; what does not fit on the
card says so.
"""

import argparse
import gc
import json
import platform
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from earwitness.caption import Decoding
from earwitness.encoders.ced import CED, CEDConfig
from earwitness.lamb.two_stream import TwoStreamConfig
from earwitness.system.captioner import CaptionerConfig, TorchCaptioner
from earwitness.system.decoder import Decoder, DecoderConfig
from earwitness.training.lamb import LambTraining
from earwitness.training.language_model import train_tokenizer
from earwitness.training.sources import collate
from earwitness_lab.reproduce.memory import LANGUAGE_MODELS, language_model

TINY: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 1000,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
}
SIZES = {
    "paper": (LANGUAGE_MODELS["llama-2-7b"], CEDConfig(outputdim=0), 10.0),
    "tiny": (TINY, CEDConfig(embed_dim=48, depth=2, num_heads=4, outputdim=0), 1.0),
}
WORDS = ["a", "dog", "barks", "while", "rain", "falls", "and", "people", "speak", "nearby"]


def main() -> None:
    """Measures all, prints the table, writes both files."""
    args = _arguments()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    found: dict[str, Any] = {"device": _device(device), "size": args.size, "tokens": args.tokens}
    found["training"] = [
        _training(args, device, batch, checkpointing)
        for checkpointing in (False, True)
        for batch in args.train
    ]
    found["captioning"] = _captioning(args, device)
    found["profile"] = _profiles(args, device)
    text = _markdown(found)
    args.out.with_suffix(".json").write_text(json.dumps(found, indent=2) + "\n")
    args.out.with_suffix(".md").write_text(text + "\n")
    print(text)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=sorted(SIZES), default="paper")
    parser.add_argument("--out", type=Path, default=Path("paper_size"))
    parser.add_argument("--train", type=int, nargs="+", metavar="BATCH")
    parser.add_argument("--caption", type=int, nargs="+", metavar="BATCH")
    parser.add_argument("--tokens", type=int, metavar="N", help="new tokens per caption")
    parser.add_argument("--steps", type=int, default=5, help="timed runs of each kind")
    args = parser.parse_args()
    tiny = args.size == "tiny"
    args.train = args.train or ([2, 4] if tiny else [8, 32])
    args.caption = args.caption or ([1, 4] if tiny else [1, 8, 32, 128, 200])
    args.tokens = args.tokens or (6 if tiny else 20)
    return args


def _build(args: argparse.Namespace, device: str, checkpointing: bool) -> LambTraining:
    settings, audio, _ = SIZES[args.size]
    torch.manual_seed(0)
    tokenizer = train_tokenizer([" ".join(WORDS)] * 20, 300)
    torch.set_default_dtype(torch.bfloat16)
    try:
        model = language_model(settings, device)
    finally:
        torch.set_default_dtype(torch.float32)
    decoder = DecoderConfig(dtype="bfloat16", gradient_checkpointing=checkpointing)
    streams = TwoStreamConfig(heads=4) if args.size == "tiny" else TwoStreamConfig()
    config = CaptionerConfig(prefix=streams, decoder=decoder)
    captioner = TorchCaptioner(CED(audio).eval(), Decoder(model, tokenizer, decoder), config)
    return LambTraining(captioner.to(device), 0.0, blind=False)


def _batch(args: argparse.Namespace, size: int, device: str) -> dict[str, Any]:
    from accelerate.utils import send_to_device

    rng = np.random.default_rng(size)
    seconds = SIZES[args.size][2]
    items = [
        {
            "waveform": (0.1 * rng.standard_normal(round(16000 * seconds))).astype(np.float32),
            "text": " ".join(rng.choice(WORDS, size=12)),
            "clip": index,
        }
        for index in range(size)
    ]
    return send_to_device(collate(items), torch.device(device))


def _training(
    args: argparse.Namespace, device: str, size: int, checkpointing: bool
) -> dict[str, Any]:
    _free()
    row: dict[str, Any] = {"batch": size, "checkpointing": checkpointing}
    try:
        step = _step(_build(args, device, checkpointing).train(), _batch(args, size, device))
        row |= _timed(step, args.steps, size)
    except torch.OutOfMemoryError:
        row["fits"] = False
    return row


def _step(model: LambTraining, batch: dict[str, Any]) -> Callable[[], None]:
    """One step as the training loop does it, in bf16."""
    device = model.captioner.device.type
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5)

    def step() -> None:
        with torch.autocast(device, dtype=torch.bfloat16):
            losses = model(batch)
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _captioning(args: argparse.Namespace, device: str) -> list[dict[str, Any]]:
    model = _build(args, device, checkpointing=False).eval()
    rows = []
    for beams in (4, 1):
        for size in args.caption:
            _free()
            row: dict[str, Any] = {"batch": size, "beam": beams}
            try:
                row |= _timed(_caption(model, args, size, beams, device), args.steps, size)
            except torch.OutOfMemoryError:
                row["fits"] = False
            rows.append(row)
    return rows


def _caption(
    model: LambTraining, args: argparse.Namespace, size: int, beams: int, device: str
) -> Callable[[], None]:
    """Waveforms to sentences: encoder, adapter, search with the guide."""
    batch = _batch(args, size, device)
    settings = Decoding(beam_size=beams, max_new_tokens=args.tokens)

    def caption() -> None:
        with torch.inference_mode(), torch.autocast(device, dtype=torch.bfloat16):
            captioner = model.captioner
            captioner.generate(captioner.audio_tokens(model.frames(batch)), settings)

    return caption


def _timed(call: Callable[[], None], times: int, clips: int) -> dict[str, Any]:
    """Median seconds after two warm-up calls, clips per second, peak GiB."""
    for _ in range(2):
        call()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(times):
        _wait()
        start = time.perf_counter()
        call()
        _wait()
        seconds.append(time.perf_counter() - start)
    median = statistics.median(seconds)
    return {"fits": True, "seconds": median, "clips_a_second": clips / median, "peak_gib": _peak()}


def _profiles(args: argparse.Namespace, device: str) -> dict[str, list[dict[str, Any]]]:
    """Where the time of a training step and of beam search goes: the ten costliest operations."""
    _free()
    size = args.train[0]
    model = _build(args, device, checkpointing=False)
    try:
        found = {"training": _profile(_step(model.train(), _batch(args, size, device)), device)}
        caption = _caption(model.eval(), args, size, 4, device)
        return found | {"captioning": _profile(caption, device)}
    except torch.OutOfMemoryError:
        return {}


def _profile(call: Callable[[], None], device: str) -> list[dict[str, Any]]:
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU]
    if device == "cuda":
        activities.append(ProfilerActivity.CUDA)
    call()
    with profile(activities=activities) as seen:
        call()
        _wait()
    key = "self_device_time_total" if device == "cuda" else "self_cpu_time_total"
    rows = sorted(seen.key_averages(), key=lambda row: -getattr(row, key))
    total = sum(getattr(row, key) for row in rows) or 1
    return [
        {"operation": row.key, "calls": row.count, "share": getattr(row, key) / total}
        for row in rows[:10]
    ]


def _markdown(found: dict[str, Any]) -> str:
    lines = [f"{found['device']}, size {found['size']}, {found['tokens']} tokens per caption", ""]
    for kind, name in (("training", "checkpointing"), ("captioning", "beam")):
        lines += [
            f"| {kind}: batch | {name} | seconds | clips/s | peak GiB |",
            "|---|---|---|---|---|",
        ]
        for row in found[kind]:
            lines.append(f"| {row['batch']} | {row[name]} | {_numbers(row)} |")
        lines.append("")
    for kind, rows in found["profile"].items():
        lines += [f"| {kind}: operation | calls | share |", "|---|---|---|"]
        lines += [f"| {r['operation'][:60]} | {r['calls']} | {r['share']:.1%} |" for r in rows]
        lines.append("")
    return "\n".join(lines).rstrip()


def _numbers(row: dict[str, Any]) -> str:
    if not row["fits"]:
        return "does not fit | - | -"
    return f"{row['seconds']:.3f} | {row['clips_a_second']:.1f} | {row['peak_gib']:.2f}"


def _peak() -> float:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _device(device: str) -> str:
    name = torch.cuda.get_device_name() if device == "cuda" else platform.machine()
    return f"{name}, torch {torch.__version__}"


if __name__ == "__main__":
    main()
