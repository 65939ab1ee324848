"""Training on several processes, as tests start it: a tiny captioner without dropout, real losses.

`distributed_parts.py JSON`, where JSON lists launches of two processes: run folders, and for each
the settings of the loop and `kill_at`: the item at which the second process kills itself (0: none).
Prints the two exit codes of each launch.
"""

import json
import os
import signal
import socket
import sys
import traceback
from pathlib import Path

import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from builders import SENTENCES, noise, tiny_captioner
from link_parts import tiny_dual
from torch import nn

from earwitness.lamb.aligner import AlignerConfig
from earwitness.system.decoder import DecoderConfig, LoraConfig
from earwitness.training.contrastive import DualTraining
from earwitness.training.fit import fit
from earwitness.training.lamb import LAMB_LOSSES, LambTraining
from earwitness.training.settings import FitConfig, Selection
from earwitness.training.sources import collate


class Clips(torch.utils.data.Dataset):
    """Noise with captions of different lengths; two clips of three share their recording."""

    def __init__(self, size=16, kill_at=0):
        self.size, self.kill_at, self.asked = size, kill_at, 0

    def __len__(self):
        return self.size

    def __getitem__(self, key):
        self.asked += 1
        if self.asked == self.kill_at and int(os.environ.get("RANK", "0")) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        index, epoch = key
        waveform = noise(0.4, 100 * epoch + index)
        text = SENTENCES[index % len(SENTENCES)]
        return {"waveform": waveform, "text": text, "clip": index // 2}


def build(tune="lora", dropout=0.0, checkpointing=False):
    """A captioner whose losses depend on nothing but its weights and batch, unless `dropout`."""
    lora = LoraConfig(dropout=dropout)
    decoder = DecoderConfig(tune=tune, lora=lora, gradient_checkpointing=checkpointing)
    captioner = tiny_captioner(decoder=decoder, aligner=AlignerConfig())
    return LambTraining(captioner, 0.0, blind=False)


def build_dual():
    """A dual encoder without dropout, trained as CLAP is."""
    return DualTraining(tiny_dual(dropout=0.0), 0.0)


def validate(model):
    with torch.no_grad():
        losses = model(collate([Clips()[(i, 99)] for i in range(6)]))
    return {name: float(loss) for name, loss in losses.items()}


def save(model, folder):
    if isinstance(model, LambTraining):
        model.captioner.save(folder)


def train(run, data, model: nn.Module, weights=LAMB_LOSSES, **changes):
    """`fit` on this problem."""
    settings = {"epochs": 2, "batch_size": 4, "learning_rate": 5e-3, "warmup_epochs": 0.5}
    config = FitConfig(**{**settings, "save_every": 1, "trackers": (), **changes})
    name = "decode" if isinstance(model, LambTraining) else "contrastive"
    return fit(
        model, data, collate, weights, config, Path(run), validate=validate, save=save,
        select=Selection(name, "lowest"),
    )  # fmt: skip


def carry_out(runs):
    """The runs of one process, one after the other."""
    for folder, told in runs.items():
        AcceleratorState._reset_state()
        GradientState._reset_state()
        clips = Clips(kill_at=told.pop("kill_at", 0))
        if told.pop("dual", False):
            train(folder, clips, build_dual(), {})
            continue
        parts = {k: told.pop(k) for k in ("tune", "dropout", "checkpointing") if k in told}
        train(folder, clips, build(**parts), **told)


def on_two_processes(runs):
    """The exit codes of two processes that carry out `runs`; the other one ends with the first
    that fails.

    They are forks of this one, which has imported everything, with the environment that torchrun
    gives to its processes.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    left = {}
    for rank in (0, 1):
        pid = os.fork()
        if pid == 0:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2"}
            try:
                carry_out(runs)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        left[pid] = rank
    codes = [0, 0]
    while left:
        pid, status = os.wait()
        codes[left.pop(pid)] = os.waitstatus_to_exitcode(status)
        if status:
            for other in left:
                os.kill(other, signal.SIGKILL)
    return codes


if __name__ == "__main__":
    # Gloo does not reliably start twice in one process: all runs share one group.
    PartialState.destroy_process_group = lambda self, group=None: None
    # What is imported late is imported once, before the forks.
    build(), build_dual()
    print(json.dumps([on_two_processes(runs) for runs in json.loads(sys.argv[1])]))
