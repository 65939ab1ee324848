"""Speed of captioning without torch, beside torch and captioners of other shapes, in one run.

    python benchmarks/runtime_speed.py [--clips 64] [--minutes 60] [--threads 2] [--install]
    python benchmarks/runtime_speed.py --cpu --threads 1      on a machine that is busy
    python benchmarks/runtime_speed.py --alone                the runtime's column only

Prints a table in Markdown. Times of one row are taken in turn, so that a busy machine slows all of
them; ratios are what to compare. `--cpu` counts CPU seconds of the process instead of the clock's:
those of one thread come close to the time that it would take alone. Torch captions a tenth of the
long sound, and its time is scaled up. The others have random weights and caption one batch: a
Whisper-tiny (greedy, 20 tokens, 30 s windows) and a captioner with the sizes of CoNeTTE
(ConvNeXt-tiny, six decoder layers of width 256, three beams of 20 tokens). `--install` sets up a
fresh clone first, with pip and, where it is installed, with uv.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from earwitness.caption import Precision

RATE = 16_000
BATCH = 8
TOKENS = 20
ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples" / "storm.flac"
CLOCK, ROUNDS = time.perf_counter, 3
COLUMNS = ("runtime", "int8", "torch")
TORCH_SHARE = 0.1
"""of the long sound, which torch captions; its time is scaled up"""


def precision_of(column: str) -> Precision:
    """The number format that a column of the table computes in."""
    return "int8" if column == "int8" else "fp32"


def main() -> None:
    """Reads the command line, measures, and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", default="pocket-lamb")
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--minutes", type=float, default=60.0, help="of the one long sound")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3, help="of which the best counts")
    parser.add_argument("--cpu", action="store_true", help="CPU seconds, not the clock's")
    parser.add_argument("--alone", action="store_true", help="without torch and the others")
    parser.add_argument("--install", action="store_true")
    options = parser.parse_args()
    global CLOCK, ROUNDS
    CLOCK, ROUNDS = time.process_time if options.cpu else time.perf_counter, options.rounds
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    print("| what | runtime | runtime, int8 | torch | runtime to torch |")
    print("|---|---|---|---|---|", flush=True)
    if options.install:
        install()
    cold(options.model, options.alone)
    with tempfile.TemporaryDirectory() as folder:
        sizes = (options.clips, options.minutes, options.threads)
        warm(options.model, Path(folder), *sizes, alone=options.alone)


def row(what: str, seconds: dict[str, float], unit: str = "s", per: float = 0.0) -> None:
    """Prints one row; with `per`, as so many per second. The last column says how many times better
    the runtime is.
    """
    shown = {name: per / value if per else value for name, value in seconds.items()}
    cells = [f"{shown[name]:.3g} {unit}" if name in shown else "" for name in COLUMNS]
    ratio = f"{seconds['torch'] / seconds['runtime']:.2f}" if "torch" in seconds else ""
    print(f"| {what} | {' | '.join(cells)} | {ratio} |", flush=True)


def install() -> None:
    """A fresh clone to its first caption, by `make caption`: with pip, and with uv where it is."""
    tools = {"pip": ["UV=false"]} | ({"uv": []} if shutil.which("uv") else {})
    for tool, choice in tools.items():
        with tempfile.TemporaryDirectory() as place:
            subprocess.run(["git", "clone", "-q", str(ROOT), f"{place}/clone"], check=True)
            command = ["make", "-C", f"{place}/clone", "caption", f"PYTHON={sys.executable}"]
            started = time.perf_counter()
            subprocess.run([*command, *choice], check=True, capture_output=True)
            seconds = time.perf_counter() - started
            files = [path for path in Path(place, "clone/.venv").rglob("*") if path.is_file()]
            size = sum(path.lstat().st_size for path in files if not path.is_symlink())
        print(f"| fresh clone to the first caption, {tool} | {seconds:.0f} s | | | |")
        print(f"| environment on disk, {tool} | {size / 1e6:.0f} MB | | | |", flush=True)


def cold(model: str, alone: bool) -> None:
    """CPU seconds and peak memory of one caption in a fresh process; the best of all rounds."""
    arguments = ["caption", str(EXAMPLE), "--model", model, "-q"]
    codes = {
        name: f"from earwitness.cli import app; app({[*arguments, '--precision', kind]!r})"
        for name, kind in (("runtime", "fp32"), ("int8", "int8"))
    }
    if not alone:
        codes["torch"] = (
            "from earwitness.system.captioner import TorchCaptioner; "
            f"print(TorchCaptioner.load({model!r}).caption({str(EXAMPLE)!r}).text)"
        )
    found = {name: [measured_process(code) for _ in range(ROUNDS)] for name, code in codes.items()}
    for number, (what, unit) in enumerate((("CPU time", "s"), ("peak memory", "MB"))):
        best = {name: min(run[number] for run in runs) for name, runs in found.items()}
        row(f"cold caption: {what}", best, unit)


def measured_process(code: str) -> tuple[float, float]:
    """CPU seconds and peak megabytes of a Python process that runs `code`."""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"a cold caption failed with {process.returncode}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def warm(
    model: str, folder: Path, count: int, minutes: float, threads: int, *, alone: bool
) -> None:
    """Batches in memory, a folder of Opus files, a long sound, and the other captioners."""
    from earwitness.captioning.local import caption_files
    from earwitness.captioning.pipeline import CaptionSettings
    from earwitness.captioning.sources import find
    from earwitness.runtime import RuntimeCaptioner

    captioners: dict[str, Any] = {
        name: RuntimeCaptioner.load(model, threads=threads) for name in ("runtime", "int8")
    }
    if not alone:
        import torch

        from earwitness.system.captioner import TorchCaptioner

        torch.set_num_threads(threads)
        captioners["torch"] = TorchCaptioner.load(model)
    clips = sounds(count)
    batches = [clips[i : i + BATCH] for i in range(0, count, BATCH)]

    def each(work: Callable[[Any, str], object]) -> dict[str, Callable[[], float]]:
        return {name: partial(measured, work, one, name) for name, one in captioners.items()}

    def measured(work: Callable[[Any, str], object], one: Any, name: str) -> float:
        with one.precision(precision_of(name)):
            return timed(lambda: work(one, name))

    def files(one: Any, name: str, path: Path) -> None:
        settings = CaptionSettings(precision=precision_of(name))
        list(caption_files(one, find([str(path)]), settings))

    whole = in_turn(each(lambda one, _: [one.caption_waveforms(batch) for batch in batches]))
    row("10 s clips per second, batch", whole, "", per=count)
    single = in_turn(each(lambda one, _: one.caption(clip_of(clips[0]))))
    row("one 10 s clip, loaded", {name: 1e3 * value for name, value in single.items()}, "ms")
    write_opus(folder / "clips", clips)
    found = in_turn(each(lambda one, name: files(one, name, folder / "clips")))
    row("folder of Opus files, clips per second", found, "", per=count)
    for name, share in (("long", 1.0), ("torch", TORCH_SHARE)):
        samples = np.resize(np.concatenate(clips), round(minutes * 60 * RATE * share))
        soundfile.write(folder / f"{name}.flac", samples, RATE)
    found = {
        name: measured(lambda one, name: files(one, name, folder / "long.flac"), one, name)
        for name, one in captioners.items()
        if name != "torch"
    }
    if not alone:
        took = measured(
            lambda one, name: files(one, name, folder / "torch.flac"), captioners["torch"], "torch"
        )
        found["torch"] = took / TORCH_SHARE
    row(f"{minutes:g} minutes of sound", found)
    if alone:
        return
    others: dict[str, Callable[[list[np.ndarray]], object]] = {}
    others |= {"Whisper-tiny": whisper_tiny(), "CoNeTTE": conette_like()}
    took = in_turn(
        {
            shape: lambda caption=caption: timed(lambda: caption(batches[0]))
            for shape, caption in others.items()
        },
        times=1,
    )
    for shape, seconds in took.items():
        each_clip = seconds / len(batches[0])
        cells = [f"{each_clip * count / whole[name]:.1f}" for name in COLUMNS]
        print(f"| times as fast as a {shape}-shaped captioner | {' | '.join(cells)} | |")
    limit(captioners["runtime"], captioners["torch"], clips[:BATCH], whole["runtime"] / count)


def sounds(count: int) -> list[np.ndarray]:
    """Clips of 10 s: the examples at other speeds and levels, in noise."""
    from earwitness import audio

    rng = np.random.default_rng(0)
    bases = [audio.load(path, RATE) for path in sorted(EXAMPLE.parent.glob("*.flac"))]
    clips = []
    for number in range(count):
        base = np.resize(
            np.roll(bases[number % len(bases)], int(rng.integers(RATE * 5))), RATE * 10
        )
        clips.append(
            (base * rng.uniform(0.2, 1) + 0.01 * rng.standard_normal(len(base))).astype(np.float32)
        )
    return clips


def clip_of(samples: np.ndarray) -> tuple[np.ndarray, int]:
    """A source that needs no file."""
    return samples, RATE


def write_opus(folder: Path, clips: list[np.ndarray]) -> None:
    folder.mkdir()
    for number, clip in enumerate(clips):
        soundfile.write(
            folder / f"{number:04}.opus", np.clip(clip, -1, 1), RATE, format="OGG", subtype="OPUS"
        )


def timed(work: Callable[[], object]) -> float:
    """Seconds of the chosen clock."""
    started = CLOCK()
    work()
    return CLOCK() - started


def in_turn(measures: dict[str, Callable[[], float]], times: int | None = None) -> dict[str, float]:
    """The best of each measure, taken in turn after one round to warm up."""
    found = {name: [measure()] for name, measure in measures.items()}
    for _ in range(times or ROUNDS):
        for name, measure in measures.items():
            found[name].append(measure())
    return {name: min(values) for name, values in found.items()}


def whisper_tiny() -> Callable[[list[np.ndarray]], object]:
    """A Whisper-tiny with random weights; log-mel of 30 s included."""
    import torch
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

    torch.manual_seed(0)
    config = WhisperConfig(
        d_model=384,
        encoder_layers=4,
        decoder_layers=4,
        encoder_attention_heads=6,
        decoder_attention_heads=6,
        encoder_ffn_dim=1536,
        decoder_ffn_dim=1536,
    )
    model, features = WhisperForConditionalGeneration(config).eval(), WhisperFeatureExtractor()

    def caption(batch: list[np.ndarray]) -> object:
        with torch.inference_mode():
            x = features(batch, sampling_rate=RATE, return_tensors="pt").input_features
            h = model.model.encoder(x).last_hidden_state
            ids, past = torch.full((len(batch), 1), 50258), None
            for _ in range(TOKENS):
                out = model.model.decoder(
                    input_ids=ids, encoder_hidden_states=h, past_key_values=past, use_cache=True
                )
                past = out.past_key_values
                ids = model.proj_out(out.last_hidden_state[:, -1:]).argmax(-1)
        return ids

    return caption


def conette_like() -> Callable[[list[np.ndarray]], object]:
    """A ConvNeXt-tiny over 224 log-mel bands at 32 kHz, and six decoder layers with three beams."""
    import torch
    from torch import nn
    from transformers import ConvNextConfig, ConvNextModel

    from earwitness import audio
    from earwitness.encoders.log_mel import LogMel, LogMelConfig

    torch.manual_seed(0)
    front = LogMel(
        LogMelConfig(sample_rate=32000, n_fft=1024, hop_samples=320, n_mels=224, f_max=14000.0)
    )
    encoder = ConvNextModel(ConvNextConfig(num_channels=1)).eval()
    project, words = nn.Linear(768, 256), nn.Embedding(5000, 256)
    layer = nn.TransformerDecoderLayer(256, 8, 2048, batch_first=True)
    decoder, head = nn.TransformerDecoder(layer, 6).eval(), nn.Linear(256, 5000)

    def caption(batch: list[np.ndarray]) -> object:
        with torch.inference_mode():
            clips = [torch.from_numpy(audio.load((clip, RATE), 32000)) for clip in batch]
            x = torch.stack([front(clip).T for clip in clips])[:, None]
            h = encoder(x).last_hidden_state.mean(3).transpose(1, 2)
            h = project(h).repeat_interleave(3, dim=0)
            ids = torch.zeros(len(h), 1, dtype=torch.long)
            for _ in range(TOKENS):
                found = head(decoder(words(ids), h)[:, -1])
                ids = torch.cat([ids, found.argmax(-1, keepdim=True)], dim=1)
        return ids

    return caption


def limit(ours: object, theirs: object, batch: list[np.ndarray], per_clip: float) -> None:
    """Multiply-adds of the model over the machine's matrix rate, as a share of the time taken."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from earwitness.runtime.decoder import LanguageModel

    with FlopCounterMode(display=False) as counter:
        theirs.audio_tokens(theirs.encode(batch))  # type: ignore[attr-defined]
    products = counter.get_total_flops() / 2
    tokens = 0
    start, step = LanguageModel.start, LanguageModel.step

    def counted_start(self: LanguageModel, z: list[np.ndarray]) -> object:
        nonlocal tokens
        settings = self._settings
        tokens += sum(len(one) + len(settings.before) + len(settings.after) for one in z)
        return start(self, z)

    def counted_step(self: LanguageModel, cache: object, ids: np.ndarray, parents: np.ndarray):
        nonlocal tokens
        tokens += len(ids)
        return step(self, cache, ids, parents)  # type: ignore[arg-type]

    LanguageModel.start, LanguageModel.step = counted_start, counted_step  # type: ignore[method-assign]
    try:
        ours.caption_waveforms(batch)  # type: ignore[attr-defined]
    finally:
        LanguageModel.start, LanguageModel.step = start, step  # type: ignore[method-assign]
    weights = sum(p.numel() for p in theirs.decoder.model.parameters())  # type: ignore[attr-defined]
    products += tokens * weights
    x = torch.rand(1536, 1536)
    rate = 1536**3 / min(timed(lambda: x @ x) for _ in range(20))
    share = products / len(batch) / rate / per_clip
    print(
        f"| share of the machine's matrix rate ({rate / 1e9:.0f} GMAC/s, "
        f"{products / len(batch) / 1e9:.2f} G per clip) | {100 * share:.0f} % | | | |"
    )


if __name__ == "__main__":
    main()
