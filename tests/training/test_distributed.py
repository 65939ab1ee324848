"""Several processes train as one does: losses, weights, checkpoints; replicated or sharded."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import distributed_parts
import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from builders import tiny_captioner
from safetensors.torch import load_file

from earwitness.errors import ConfigError, TrainingError
from earwitness.lamb.aligner import CrossModalAligner, gather_rows
from earwitness.system.captioner import TorchCaptioner
from earwitness.training import distributed
from earwitness.training.batches import EpochBatches

HERE = Path(__file__).resolve().parents[1] / "helpers"


def launch(*launches: dict) -> list[list[int]]:
    """The exit codes of two processes per launch, which is run folder -> settings."""
    command = [sys.executable, str(HERE / "distributed_parts.py"), json.dumps(launches)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    environment["PYTHONPATH"] = f"{HERE}{os.pathsep}{environment.get('PYTHONPATH', '')}"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # A group of its own: none is left behind that waits for the others.
    with subprocess.Popen(command, env=environment, start_new_session=True, **pipes) as started:
        try:
            out, errors = started.communicate(timeout=280)
        except BaseException:
            os.killpg(started.pid, signal.SIGKILL)
            raise
    assert started.returncode == 0, errors[-3000:]
    codes = json.loads(out.splitlines()[-1])
    print(errors[-3000:])
    return codes


def rows(run: Path) -> list[dict]:
    lines = (run / "log.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "time"} for line in lines]


def assert_close(run: Path, other: Path, tolerance: float) -> None:
    """The same losses at each step and scores at each epoch."""
    a, b = rows(run), rows(other)
    assert [row.keys() for row in a] == [row.keys() for row in b]
    for row, twin in zip(a, b, strict=True):
        assert row == pytest.approx(twin, rel=tolerance, abs=tolerance)


def weights(run: Path) -> dict[str, torch.Tensor]:
    names = ("prefix.safetensors", "decoder/model.safetensors")
    return {f"{n}:{k}": v for n in names for k, v in load_file(run / "last" / n).items()}


def assert_same_weights(run: Path, other: Path) -> None:
    a, b = weights(run), weights(other)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """One process with the batch of two."""
    run = tmp_path_factory.mktemp("alone")
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    distributed_parts.train(run, distributed_parts.Clips(), distributed_parts.build(), batch_size=8)
    return run


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Runs on two processes: `copies` of the model or `shares` of it, without dropout; with it,
    unbroken, and killed between two checkpoints and taken up again.
    """
    folder = tmp_path_factory.mktemp("both")
    noisy, shard = {"dropout": 0.3}, {"shard": True}
    kinds = {"copies": noisy, "shares": noisy | shard}
    killed = launch(
        *({str(folder / f"{k}_killed"): told | {"kill_at": 14}} for k, told in kinds.items())
    )
    assert [codes[1] for codes in killed] == [-signal.SIGKILL.value] * 2
    for name in kinds:
        assert 1 <= len(rows(folder / f"{name}_killed")) < 6
    runs = {"copies": {}, "shares": shard, "dual": {"dual": True}}
    runs |= {f"copies_{end}": noisy for end in ("unbroken", "killed")}
    runs |= {f"shares_{end}": noisy | shard for end in ("unbroken", "killed")}
    assert launch({str(folder / name): told for name, told in runs.items()}) == [[0, 0]]
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["copies", "shares"])
def test_two_processes_train_as_one_with_their_batches_together(alone, both, kind):
    """All five losses: contrastive ones see the clips of both, means count all tokens once."""
    assert len(rows(alone)) == 6
    assert_close(both / kind, alone, 2e-4)


@pytest.mark.slow
def test_a_dual_encoder_sees_the_pairs_of_both_processes(both, tmp_path):
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    dual = distributed_parts.build_dual()
    distributed_parts.train(tmp_path, distributed_parts.Clips(), dual, {}, batch_size=8)
    assert len(rows(tmp_path)) == 6
    assert_close(both / "dual", tmp_path, 2e-4)


@pytest.mark.slow
def test_shares_and_copies_are_the_same_training(both):
    assert_close(both / "shares_unbroken", both / "copies_unbroken", 2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["copies", "shares"])
def test_a_process_killed_in_a_step_loses_nothing(both, kind):
    """SIGKILL to the second process between checkpoints; the same command goes on bit for bit."""
    assert rows(both / f"{kind}_killed") == rows(both / f"{kind}_unbroken")
    assert_same_weights(both / f"{kind}_killed", both / f"{kind}_unbroken")


@pytest.mark.slow
def test_shares_are_saved_as_a_whole_captioner(both):
    spread = both / "shares_unbroken"
    captioner = TorchCaptioner.load(spread / "last")
    scores = distributed_parts.validate(
        distributed_parts.LambTraining(captioner, 0.0, False).eval()
    )
    logged = [row for row in rows(spread) if "epoch" in row][-1]
    assert scores["decode"] == pytest.approx(logged["validation/decode"], rel=1e-4)
    assert scores["decode"] < next(row["decode"] for row in rows(spread))


@pytest.mark.slow
def test_a_checkpoint_holds_no_frozen_weight(both):
    state = torch.load(both / "copies" / "checkpoint" / "pytorch_model.bin", weights_only=True)
    model = tiny_captioner()
    frozen = {f"captioner.encoder.{name}" for name, _ in model.encoder.named_parameters()}
    assert not frozen & state.keys()
    assert not [name for name in state if "embed_tokens" in name or "base_layer" in name]
    share = load_file(both / "shares" / "checkpoint" / "share-0-of-2.safetensors")
    assert {n.removeprefix("weight.") for n in share if n.startswith("weight.")} <= state.keys()


@pytest.mark.slow
def test_another_number_of_processes_is_refused_by_name(both):
    AcceleratorState._reset_state(reset_partial_state=True)
    with pytest.raises(TrainingError, match=r"other settings \(processes was 2, is 1\)"):
        distributed_parts.train(
            both / "copies", distributed_parts.Clips(), distributed_parts.build()
        )


@pytest.mark.parametrize("bucket", [0, 2])
def test_two_processes_get_the_batches_of_one_cut_in_two(bucket):
    """As accelerate deals batches out: the first to the first process, the second to the second."""
    from accelerate.data_loader import BatchSamplerShard

    lengths = torch.randn(70, generator=torch.Generator().manual_seed(1)).numpy()
    given = lengths if bucket else None
    whole = list(EpochBatches(70, 8, 3, None, given, bucket))
    halves = EpochBatches(70, 4, 3, None, given, bucket, processes=2)
    parts = [list(BatchSamplerShard(halves, 2, rank)) for rank in (0, 1)]  # type: ignore[arg-type]
    assert whole == [a + b for a, b in zip(*parts, strict=True)]
    listed = [item for batch in whole for item in batch]
    assert len(set(listed)) == len(listed) == 64


def test_bucketed_batches_hold_clips_of_like_length_in_another_order_each_epoch():
    lengths = torch.rand(120, generator=torch.Generator().manual_seed(0)).numpy()
    batches = EpochBatches(120, 4, 0, None, lengths, 10)
    orders = []
    for batches.epoch in (0, 1, 0):
        listed = [[index for index, _ in batch] for batch in batches]
        orders.append(listed)
        assert sorted(i for batch in listed for i in batch) == list(range(120))
        spans = [lengths[batch].max() - lengths[batch].min() for batch in listed]
        assert sum(spans) / len(spans) < 0.12
        shortest = [lengths[batch].mean() for batch in listed[:10]]
        assert shortest != sorted(shortest)
    assert orders[0] == orders[2]
    assert orders[0] != orders[1]


def test_gathered_rows_carry_the_exact_gradient(monkeypatch):
    """Two stand-in ranks, one after the other: the mean of their gradients is that of one batch."""
    torch.manual_seed(0)
    parts = [torch.randn(3, 5) for _ in range(2)]
    whole = torch.cat(parts).requires_grad_()
    whole.square().sum(1).softmax(0).log().mul(torch.arange(6.0)).sum().backward()
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    monkeypatch.setattr("torch.distributed.all_gather", lambda out, _: list(map(copy_, out, parts)))
    found = []
    for rank in (0, 1):
        monkeypatch.setattr("torch.distributed.get_rank", lambda rank=rank: rank)
        own = parts[rank].clone().requires_grad_()
        gathered = gather_rows(own)
        assert torch.equal(gathered, torch.cat(parts))
        gathered.square().sum(1).softmax(0).log().mul(torch.arange(6.0)).sum().backward()
        found.append(own.grad / 2)
    torch.testing.assert_close(torch.cat(found), whole.grad)


def copy_(target, source):
    return target.copy_(source)


def test_the_aligner_gathers_in_training_only(monkeypatch):
    """Validation runs on the main process alone: a collective there would wait for ever."""
    monkeypatch.setattr("earwitness.lamb.aligner.several_processes", lambda: True)
    monkeypatch.setattr("earwitness.lamb.aligner.gather_rows", lambda x: 1 / 0)
    aligner = CrossModalAligner(distributed_parts.AlignerConfig())
    mask = torch.ones(2, 3, dtype=torch.bool)
    given = torch.randn(2, 3, 4), mask, torch.randn(2, 3, 4), mask, torch.tensor([0, 1])
    aligner.eval()(*given)
    with pytest.raises(ZeroDivisionError):
        aligner.train()(*given)


def test_gradient_checkpointing_changes_no_gradient():
    """Also under LoRA, where the embeddings that enter the first layer carry none of their own."""
    found = []
    for checkpointing in (False, True):
        model = distributed_parts.build(checkpointing=checkpointing).train()
        clips = distributed_parts.Clips()
        losses = model(distributed_parts.collate([clips[(i, 0)] for i in range(4)]))
        torch.stack(list(losses.values())).sum().backward()
        found.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient)


def test_fsdp_of_accelerate_is_refused_in_one_sentence(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ConfigError, match=r"fit\.shard = true in the recipe"):
        distributed.check_launch()


def test_quantized_weights_are_not_sharded():
    model = torch.nn.Module()
    packed = torch.zeros(4, dtype=torch.uint8)
    model.weight = torch.nn.Parameter(packed, requires_grad=False)
    with pytest.raises(ConfigError, match="the quantized weight weight cannot be sharded"):
        distributed.shard(model, torch.device("cpu"), [])
