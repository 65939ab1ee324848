"""The training loop: exact resume, losses by name, schedule, batches, choice of the best."""

import json
import math
import signal
import subprocess
import sys
from pathlib import Path

import fit_parts
import numpy as np
import pytest
import torch
from fit_parts import Network, Stopped, Sums, collate, train
from torch import nn

from earwitness.errors import ConfigError, TrainingError
from earwitness.training.batches import EpochBatches
from earwitness.training.fit import weighted_sum
from earwitness.training.optimizer import averaged, parameter_groups, warmup_cosine
from earwitness.training.settings import FitConfig, Selection


def rows(run: Path) -> list[dict]:
    lines = (run / "log.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "time"} for line in lines]


def weights(run: Path, which="last") -> dict[str, torch.Tensor]:
    return torch.load(run / which / "weights.pt", weights_only=True)


def assert_same(run: Path, other: Path) -> None:
    assert rows(run) == rows(other)
    for which in ("last", "best"):
        a, b = weights(run, which), weights(other, which)
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    run = tmp_path_factory.mktemp("unbroken")
    scores = train(run)
    return run, scores


# 5 batches of 4 an epoch and a checkpoint every 2 updates; the loader reads one batch ahead.
@pytest.mark.parametrize(
    "stop_at",
    [
        pytest.param(1, id="before the first checkpoint"),
        pytest.param(13, id="right after a checkpoint"),
        pytest.param(17, id="a step after a checkpoint"),
        pytest.param(22, id="at the start of the second epoch"),
        pytest.param(45, id="in the third epoch"),
    ],
)
def test_a_stopped_run_goes_on_as_if_it_had_not_been_stopped(unbroken, tmp_path, stop_at):
    with pytest.raises(Stopped):
        train(tmp_path, Sums(stop_at=stop_at))
    assert train(tmp_path) == unbroken[1]
    assert_same(tmp_path, unbroken[0])


def test_a_run_stopped_again_and_again_arrives_at_the_same_weights(unbroken, tmp_path):
    for _ in range(4):
        with pytest.raises(Stopped):
            train(tmp_path, Sums(stop_at=14))
    train(tmp_path)
    assert_same(tmp_path, unbroken[0])


@pytest.mark.parametrize("at_epoch", [1, 2, 3])
def test_a_run_stopped_while_it_validates_goes_on_between_epochs(unbroken, tmp_path, at_epoch):
    calls = []

    def stopping(model):
        calls.append(1)
        if len(calls) == at_epoch:
            raise Stopped
        return fit_parts.validate(model)

    with pytest.raises(Stopped):
        train(tmp_path, validate=stopping)
    assert train(tmp_path) == unbroken[1]
    assert_same(tmp_path, unbroken[0])


@pytest.mark.parametrize("written", ["checkpoint.old", "checkpoint.new"])
def test_a_run_stopped_while_it_writes_a_checkpoint_goes_on_from_the_one_before(
    unbroken, tmp_path, written
):
    with pytest.raises(Stopped):
        train(tmp_path, Sums(stop_at=17))
    if written == "checkpoint.old":
        (tmp_path / "checkpoint").rename(tmp_path / written)
    else:
        (tmp_path / written).mkdir()
        (tmp_path / written / "model.safetensors").write_bytes(b"half")
    train(tmp_path)
    assert_same(tmp_path, unbroken[0])
    assert {p.name for p in tmp_path.glob("checkpoint*")} == {"checkpoint"}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"ema": 0.8}, id="ema"),
        pytest.param({"accumulate": 2}, id="accumulate"),
        pytest.param({"accumulate": 2, "ema": 0.5, "save_every": 1}, id="accumulate and ema"),
        pytest.param({"save_every": 0}, id="checkpoints between epochs only"),
        pytest.param({"clip_norm": 0.0, "weight_decay": 0.5}, id="decay without clipping"),
    ],
)
def test_resume_is_exact_with_other_settings(tmp_path, changes):
    train(tmp_path / "unbroken", **changes)
    with pytest.raises(Stopped):
        train(tmp_path / "stopped", Sums(stop_at=37), **changes)
    train(tmp_path / "stopped", **changes)
    assert_same(tmp_path / "stopped", tmp_path / "unbroken")


def test_workers_change_no_number_and_resume_is_exact_with_them(tmp_path):
    train(tmp_path / "unbroken", epochs=1)
    with pytest.raises(Stopped):
        train(tmp_path / "stopped", Sums(stop_at=13), epochs=1)
    train(tmp_path / "stopped", epochs=1, workers=1)
    assert_same(tmp_path / "stopped", tmp_path / "unbroken")


def test_a_killed_process_goes_on_as_if_it_had_not_been_killed(unbroken, tmp_path):
    command = [sys.executable, "-W", "error", fit_parts.__file__, str(tmp_path), "37"]
    killed = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(rows(tmp_path)) > 5
    train(tmp_path)
    assert_same(tmp_path, unbroken[0])


def test_the_log_holds_each_step_once_and_each_validation_once(unbroken):
    steps = [row["step"] for row in rows(unbroken[0]) if "total" in row]
    assert steps == list(range(1, 16))
    assert [row["epoch"] for row in rows(unbroken[0]) if "epoch" in row] == [1, 2, 3]


def test_half_a_line_of_a_killed_run_is_dropped(unbroken, tmp_path):
    with pytest.raises(Stopped):
        train(tmp_path, Sums(stop_at=17))
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 3, "ti')
    train(tmp_path)
    assert_same(tmp_path, unbroken[0])


def test_a_finished_run_is_left_as_it_is(unbroken, tmp_path):
    train(tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.glob("*/weights.pt")}
    assert train(tmp_path, Sums(stop_at=0)) == unbroken[1]
    assert {p: p.read_bytes() for p in before} == before
    assert_same(tmp_path, unbroken[0])


def test_other_settings_in_the_same_folder_are_refused_by_name(tmp_path):
    train(tmp_path, epochs=1)
    message = r"other settings \(learning_rate was 0.02, is 0.5\)"
    with pytest.raises(TrainingError, match=message):
        train(tmp_path, epochs=1, learning_rate=0.5)


def test_more_epochs_continue_a_finished_run(tmp_path):
    train(tmp_path, epochs=1)
    train(tmp_path, epochs=2)
    assert [row["step"] for row in rows(tmp_path) if "total" in row] == list(range(1, 11))


def test_the_total_is_the_weighted_sum_and_weight_zero_leaves_a_term_out(unbroken):
    for row in rows(unbroken[0]):
        if "total" in row:
            assert row["total"] == pytest.approx(row["square"] + 0.01 * row["size"], rel=1e-5)
    nan = torch.tensor(float("nan"))
    total = weighted_sum({"a": torch.tensor(3.0), "b": nan}, {"b": 0.0, "a": 2.0})
    assert float(total) == 6.0


def test_weights_of_zero_for_every_loss_are_refused(tmp_path):
    with pytest.raises(TrainingError, match=r"every loss \(square, size\) has weight 0"):
        train(tmp_path, weights={"square": 0.0, "size": 0.0})


@pytest.mark.parametrize(("broken", "name"), [(0.0, "size"), (float("inf"), "square, size")])
def test_a_loss_that_is_no_number_stops_the_run_and_is_named(tmp_path, monkeypatch, broken, name):
    forward = Network.forward
    calls = []

    def breaking(self, batch):
        losses = forward(self, batch)
        calls.append(1)
        if len(calls) == 4:
            losses["size"] = losses["size"] * float("nan")
            losses["square"] = losses["square"] + broken
        return losses

    monkeypatch.setattr(Network, "forward", breaking)
    message = f"^step 4: the loss {name} is not a finite number; [^\n]*$"
    with pytest.raises(TrainingError, match=message):
        train(tmp_path)
    assert [row["step"] for row in rows(tmp_path)] == [1, 2, 3]


def test_fewer_items_than_a_batch_are_refused(tmp_path):
    with pytest.raises(
        TrainingError, match="3 training items .* one batch of 4; set fit.batch_size to 3 or less"
    ):
        train(tmp_path, Sums(size=3))


@pytest.mark.parametrize(
    ("good", "scores", "best"),
    [
        ("lowest", [3.0, 1.0, 2.0], 2),
        ("highest", [1.0, 3.0, 2.0], 2),
        ("highest", [3.0, 1.0, 2.0], 1),
        ("lowest", [2.0, 2.0, 2.0], 1),
        ("highest", [-3.0, -2.0, -1.0], 3),
        ("highest", [float("nan"), 1.0, float("nan")], 2),
    ],
)
def test_the_best_and_the_last_weights_are_those_of_their_epochs(tmp_path, good, scores, best):
    seen = []

    def scored(model):
        seen.append({k: v.clone() for k, v in model.state_dict().items()})
        return {"score": scores[len(seen) - 1]}

    found = train(tmp_path, validate=scored, select=Selection("score", good))
    assert found == {"score": scores[best - 1], "epoch": best}
    for which, epoch in (("best", best), ("last", 3)):
        kept = weights(tmp_path, which)
        assert all(torch.equal(kept[name], seen[epoch - 1][name]) for name in kept)


def test_validation_comes_every_so_many_epochs_and_at_the_end(tmp_path):
    train(tmp_path, validate_every=2)
    assert [row["epoch"] for row in rows(tmp_path) if "epoch" in row] == [2, 3]


def test_training_learns(tmp_path):
    scores = train(tmp_path, epochs=20, save_every=0)
    start = fit_parts.validate(Network().eval())
    assert scores["square"] < 0.3 * start["square"]


def test_the_schedule_is_a_linear_warm_up_and_half_a_cosine():
    factor = warmup_cosine(10.0, 50)
    for step in range(60):
        if step < 10:
            expected = (step + 1) / 10
        else:
            expected = (1 + math.cos(math.pi * min(1.0, (step - 10) / 40))) / 2
        assert factor(step) == pytest.approx(expected)
    assert factor(10) == 1.0
    assert factor(50) == pytest.approx(0.0)
    assert warmup_cosine(0.0, 5)(0) == 1.0


def test_logged_rates_follow_the_schedule(unbroken):
    factor = warmup_cosine(2.5, 15)
    for row in rows(unbroken[0]):
        if "total" in row:
            assert row["learning_rate"] == pytest.approx(0.02 * factor(row["step"]))


@pytest.mark.parametrize(("size", "batch_size"), [(20, 4), (22, 4), (5, 5), (7, 1)])
def test_an_epoch_holds_each_index_at_most_once_in_another_order(size, batch_size):
    batches = EpochBatches(size, batch_size, seed=1)
    orders = []
    for epoch in (0, 1, 0):
        batches.epoch = epoch
        listed = list(batches)
        assert len(listed) == len(batches) == size // batch_size
        assert all(len(batch) == batch_size for batch in listed)
        assert {e for batch in listed for _, e in batch} == {epoch}
        orders.append([i for batch in listed for i, _ in batch])
        assert len(set(orders[-1])) == len(orders[-1]) == size - size % batch_size
    assert orders[0] == orders[2]
    assert orders[0] != orders[1]


def test_what_one_epoch_leaves_over_another_holds():
    batches, seen = EpochBatches(22, 4, seed=1), set()
    for batches.epoch in range(10):
        seen |= {i for batch in batches for i, _ in batch}
    assert seen == set(range(22))


def test_the_order_differs_by_seed():
    assert list(EpochBatches(20, 4, seed=1)) != list(EpochBatches(20, 4, seed=2))


def test_weighted_items_are_drawn_in_proportion():
    weights = np.array([1.0, 3.0, 0.0, 4.0])
    batches, counts = EpochBatches(4, 4, 0, weights), np.zeros(4)
    for batches.epoch in range(1000):
        for batch in batches:
            np.add.at(counts, [i for i, _ in batch], 1)
    np.testing.assert_allclose(counts / counts.sum(), weights / 8, atol=0.03)


def test_only_matrices_decay():
    groups = parameter_groups(Network(), 0.5, 1e-3)
    assert [group["weight_decay"] for group in groups] == [0.5, 0.0]
    assert {p.ndim for p in groups[0]["params"]} == {2}
    assert {p.ndim for p in groups[1]["params"]} == {1}
    frozen = Network().requires_grad_(False)
    assert not any(group["params"] for group in parameter_groups(frozen, 0.5, 1e-3))


def test_parts_of_a_model_have_learning_rates_of_their_own():
    model = Network()
    rates = {"body.4": 0.1, "body": 0.01, "body.0.bias": 0.5}
    groups = parameter_groups(model, 0.5, 1e-3, rates)
    rate_of = {id(p): group["lr"] for group in groups for p in group["params"]}
    found = {name: rate_of[id(p)] for name, p in model.named_parameters()}
    assert found == {
        "body.0.weight": 0.01,
        "body.0.bias": 0.5,
        "body.1.weight": 0.01,
        "body.1.bias": 0.01,
        "body.4.weight": 0.1,
        "body.4.bias": 0.1,
    }
    with pytest.raises(ConfigError, match=r"fit.learning_rates.bodi: .* expected one of body"):
        parameter_groups(model, 0.5, 1e-3, {"bodi": 0.1})


def test_a_part_moves_at_its_own_rate(tmp_path):
    """At a vanishing rate the first layer stays where it was; the others learn as always."""
    start = {k: v.clone() for k, v in Network().state_dict().items()}
    train(tmp_path, learning_rates={"body.0": 1e-12})
    kept = weights(tmp_path)
    torch.testing.assert_close(kept["body.0.weight"], start["body.0.weight"], atol=1e-7, rtol=0)
    assert (kept["body.4.weight"] - start["body.4.weight"]).abs().max() > 1e-3


def test_a_run_without_progress_stops_and_stays_stopped(tmp_path):
    scores = iter([1.0, 3.0, 2.0, 1.0, 9.0, 9.0])
    select = Selection("score")
    settings = {"epochs": 6, "patience": 2, "select": select}
    found = train(tmp_path, validate=lambda model: {"score": next(scores)}, **settings)
    assert found == {"score": 3.0, "epoch": 2}
    assert [row["epoch"] for row in rows(tmp_path) if "epoch" in row] == [1, 2, 3, 4]
    again = train(tmp_path, validate=lambda model: {"score": next(scores)}, **settings)
    assert again == found
    longer = {**settings, "patience": 3}
    train(tmp_path, validate=lambda model: {"score": next(scores)}, **longer)
    assert [row["epoch"] for row in rows(tmp_path) if "epoch" in row] == [1, 2, 3, 4, 5, 6]


def test_a_compiled_model_trains_to_the_same_weights(unbroken, tmp_path, monkeypatch):
    """torch.compile with the backend that only traces: without a C++ compiler, as in most tests."""
    compiled = []

    def eager(self):
        compiled.append(type(self))
        self._compiled_call_impl = torch.compile(self._call_impl, backend="eager")

    monkeypatch.setattr(nn.Module, "compile", eager)
    train(tmp_path, compile=True)
    assert compiled == [Network]
    kept, plain = weights(tmp_path), weights(unbroken[0])
    for name in plain:
        torch.testing.assert_close(kept[name], plain[name], atol=1e-5, rtol=1e-4)


def test_averaged_weights_follow_the_formula():
    model = nn.Linear(1, 1, bias=False)
    ema = averaged(model, 0.9, torch.device("cpu"))
    average = None
    for value in (1.0, 2.0, 5.0):
        model.weight.data.fill_(value)
        ema.update_parameters(model)
        average = value if average is None else 0.9 * average + 0.1 * value
    assert float(ema.module.weight.detach()) == pytest.approx(average)
    assert averaged(model, 0.0, torch.device("cpu")) is None


def test_accumulated_batches_move_the_weights_like_one_large_batch(tmp_path):
    """Without dropout and batch statistics two half batches give the gradient of the whole one."""
    config = FitConfig(accumulate=2)
    model = nn.Linear(4, 1)
    data = [Sums()[(i, 0)] for i in range(8)]

    def loss(part):
        batch = collate(part)
        return (model(batch["x"])[:, 0] - batch["y"]).square().mean()

    whole = torch.autograd.grad(loss(data), model.weight)[0]
    halves = [torch.autograd.grad(loss(part), model.weight)[0] for part in (data[:4], data[4:])]
    torch.testing.assert_close(sum(halves) / config.accumulate, whole)
    train(tmp_path, accumulate=2)
    assert [row["step"] for row in rows(tmp_path) if "total" in row] == list(range(1, 10))
