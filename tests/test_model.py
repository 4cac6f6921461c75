"""The model around a fuser, and the task's loss, against plain torch and numpy."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionbench import metrics, registry
from fusionbench.api import Batch, Fuser, Head, Spec, Stream, Streams, Task
from fusionbench.engine.model import Blueprint, Normalise, criterion, statistics
from fusionbench.errors import UsageError
from fusionbench.hparams import read

CLASSIFY = Task("classify", 3, ("accuracy",))
SQUARED = Task("regress", 2, ("mae", "ccc"), per_frame=True)
CONCORDANCE = Task("regress", 2, ("ccc", "mae"), per_frame=True)
TASKS = [CLASSIFY, SQUARED, CONCORDANCE]


def labels(task: Task, share: float = 1.0, size: int = 6, steps: int = 5) -> tuple[Tensor, Batch]:
    """Answers, and a batch of labels of which a share is valid."""
    generator = torch.Generator().manual_seed(1)
    answers = torch.randn(size, steps, task.out, generator=generator)
    noise = torch.randn(size, steps, task.out, generator=generator)
    y = noise.argmax(-1) if task.kind == "classify" else 0.5 * answers + 0.5 * noise + 0.2
    return answers, Batch({}, y, torch.rand(size, steps, generator=generator) < share)


def plain(task: Task, answers: Tensor, y: Tensor, smoothing: float = 0.0) -> Tensor:
    """The loss of (n, out) answers to (n, ...) labels, all of them valid."""
    if task.kind == "classify":
        return F.cross_entropy(answers, y, label_smoothing=smoothing)
    if task.metrics[0] == "ccc":
        return torch.tensor(1 - metrics.get("ccc").of(answers.double().numpy(), y.double().numpy())).float()
    return F.mse_loss(answers, y)


@pytest.mark.parametrize("task", TASKS, ids=["cross-entropy", "squared", "concordance"])
@pytest.mark.parametrize("share", [1.0, 0.5])
def test_the_loss_is_the_plain_one_over_the_valid_answers(task: Task, share: float) -> None:
    answers, batch = labels(task, share)
    assert batch.y_mask.all() or share < 1
    valid = batch.y_mask
    assert criterion(task)(answers, batch).item() == pytest.approx(
        float(plain(task, answers[valid], batch.y[valid])), abs=1e-5
    )


def test_a_metric_declares_its_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    answers, batch = labels(SQUARED, 0.5)
    mae = metrics.METRICS["mae"]
    monkeypatch.setitem(metrics.METRICS, "mae", replace(mae, loss="absolute"))
    plainly = (answers - batch.y)[batch.y_mask].abs().mean()
    assert criterion(SQUARED)(answers, batch).item() == pytest.approx(float(plainly), abs=1e-6)
    monkeypatch.setitem(metrics.METRICS, "mae", replace(mae, loss="absolut"))
    with pytest.raises(UsageError, match=r"no loss \(of the metric mae\) is called 'absolut'; did you mean absolute"):
        criterion(SQUARED)


def test_labels_are_smoothed_as_torch_smooths_them() -> None:
    answers, batch = labels(CLASSIFY, 0.6)
    valid = batch.y_mask
    for smoothing in (0.1, torch.tensor(0.1)):
        got = criterion(CLASSIFY, smoothing)(answers, batch).item()
        assert got == pytest.approx(float(plain(CLASSIFY, answers[valid], batch.y[valid], 0.1)), abs=1e-5)


@pytest.mark.parametrize("task", TASKS, ids=["cross-entropy", "squared", "concordance"])
def test_answers_under_the_mask_have_no_say(task: Task) -> None:
    answers, batch = labels(task, 0.5)
    other = torch.where(batch.y_mask[..., None], answers, 100 * torch.randn_like(answers)).requires_grad_()
    loss = criterion(task)(other, batch)
    assert loss.item() == pytest.approx(criterion(task)(answers, batch).item(), abs=1e-5)
    loss.backward()
    assert other.grad is not None
    assert not other.grad[~batch.y_mask].any()
    assert other.grad[batch.y_mask].any()


@pytest.mark.parametrize("task", TASKS, ids=["cross-entropy", "squared", "concordance"])
def test_a_batch_without_labels_moves_nothing(task: Task) -> None:
    answers, batch = labels(task, 0.0)
    answers.requires_grad_()
    loss = criterion(task)(answers, batch)
    assert loss.item() == 0.0
    loss.backward()
    assert answers.grad is not None
    assert not answers.grad.any()


@pytest.mark.parametrize("value", [0.0, 0.3])
def test_concordance_of_constants_is_finite(value: float) -> None:
    answers = torch.full((4, 3, 2), value, requires_grad=True)
    batch = Batch({}, torch.full((4, 3, 2), value), torch.ones(4, 3, dtype=torch.bool))
    loss = criterion(CONCORDANCE)(answers, batch)
    loss.backward()
    assert torch.isfinite(loss)
    assert answers.grad is not None
    assert torch.isfinite(answers.grad).all()


def test_half_precision_answers_are_judged_in_full() -> None:
    answers, batch = labels(CONCORDANCE)
    loss = criterion(CONCORDANCE)(answers.bfloat16(), batch)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(criterion(CONCORDANCE)(answers, batch).item(), abs=0.02)


@pytest.mark.parametrize("task", TASKS, ids=["cross-entropy", "squared", "concordance"])
def test_autocast_changes_no_loss(task: Task) -> None:
    """Of many members under `vmap` too, where some operations no longer stand on autocast's list of float32."""
    answers, batch = labels(task, 0.5)
    few = torch.stack([answers, 2 * answers]).bfloat16()
    want = torch.stack([criterion(task)(a, batch) for a in few])
    with torch.autocast("cpu", torch.bfloat16):
        got = torch.func.vmap(lambda a: criterion(task)(a, batch))(few)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)


def data() -> Batch:
    generator = torch.Generator().manual_seed(2)
    x = 3 + 2 * torch.randn(10, 6, 4, generator=generator)
    x[..., 3] = 7.0  # a feature that is constant
    streams = {
        "a": Stream(x, torch.rand(10, 6, generator=generator) < 0.6),
        "image": Stream(torch.randn(10, 2, 3, 4, generator=generator), torch.ones(10, 2, dtype=torch.bool)),
        "never": Stream(torch.randn(10, 6, 2, generator=generator), torch.zeros(10, 6, dtype=torch.bool)),
    }
    return Batch(streams, torch.zeros(10, 1, dtype=torch.long), torch.ones(10, 1, dtype=torch.bool))


def test_statistics_are_numpys_over_the_real_steps_of_the_training_split() -> None:
    whole, index = data(), torch.tensor([0, 2, 3, 7])
    found = statistics(whole, index)
    assert set(found) == {"a", "never"}  # an image has none
    stream = whole.streams["a"]
    real = stream.x[index].numpy()[stream.mask[index].numpy()]
    mean, sd = found["a"]
    np.testing.assert_allclose(mean, real.mean(0), rtol=1e-5)
    np.testing.assert_allclose(sd[:3], real.std(0)[:3], rtol=1e-5)
    assert sd[3] == 1.0  # what does not vary is not blown up
    assert [t.tolist() for t in found["never"]] == [[0, 0], [1, 1]]
    changed = Batch({"a": Stream(stream.x + 100 * (torch.arange(10)[:, None, None] == 1), stream.mask)}, whole.y,
                    whole.y_mask)  # fmt: skip
    assert torch.equal(statistics(changed, index)["a"][0], mean)  # sample 1 is not of the training split


class Lazy:
    """A Source over a stream; `digest` names its content, as `statistics` keeps what it found by it."""

    def __init__(self, stream: Stream, digest: str) -> None:
        self.stream, self.digest = stream, digest
        self.shape = stream.shape
        self.rows: list[int] = []

    def __len__(self) -> int:
        return len(self.stream)

    def __getitem__(self, index: Any) -> Stream:
        self.rows += torch.arange(len(self))[index].tolist()
        return self.stream[index]


def test_statistics_of_lazily_read_features_are_those_of_the_same_numbers_in_memory() -> None:
    generator = torch.Generator().manual_seed(3)
    x = 1000 + torch.randn(2500, 2, 3, generator=generator) * torch.tensor([1.0, 5.0, 0.0])
    stream = Stream(x, torch.rand(2500, 2, generator=generator) < 0.7)
    image = Lazy(Stream(torch.zeros(2500, 1, 2, 2), torch.ones(2500, 1, dtype=torch.bool)), "image")
    lazy, index = Lazy(stream, "vectors"), torch.randperm(2500, generator=generator)[:2300]
    y, y_mask = torch.zeros(2500, 1, dtype=torch.long), torch.ones(2500, 1, dtype=torch.bool)
    want = statistics(Batch({"m": stream}, y, y_mask), index)["m"]
    found = statistics(Batch({"m": lazy, "image": image}, y, y_mask), index)
    assert set(found) == {"m"}, "an image has none"
    for got, wanted in zip(found["m"], want, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-6)
    assert sorted(lazy.rows) == sorted(index.tolist()), "each training sample is read once, no other one ever"
    statistics(Batch({"m": lazy}, y, y_mask), index.flip(0))
    assert len(lazy.rows) == len(index), "and not again for the next member of the fold"
    broken = Lazy(Stream(torch.full((2500, 1, 2), torch.nan), torch.ones(2500, 1, dtype=torch.bool)), "broken")
    with pytest.raises(UsageError, match="NaN or infinity in 'm'"):
        statistics(Batch({"m": broken}, y, y_mask), index)


def test_samples_of_a_lazy_source_come_to_the_labels_device() -> None:
    class Reader(Lazy):
        def __getitem__(self, index: Any) -> Stream:
            return self.stream[[0, 1]]  # a meta index has no values; real sources read to the CPU, wherever it is

    whole = Batch(
        {"lazy": Reader(Stream(torch.zeros(4, 1, 2), torch.ones(4, 1, dtype=torch.bool)), "four")},
        torch.zeros(4, 1, dtype=torch.long, device="meta"),
        torch.ones(4, 1, dtype=torch.bool, device="meta"),
    )
    part = whole[[0, 1]]
    assert (part.streams["lazy"].x.device.type, part.streams["lazy"].mask.device.type) == ("meta", "meta")


def test_normalising_keeps_what_is_masked_at_zero() -> None:
    whole = data()
    normalise = Normalise(4)
    mean, sd = statistics(whole, torch.arange(10))["a"]
    normalise.mean.copy_(mean)
    normalise.sd.copy_(sd)
    got, mask = normalise(whole.streams["a"]).x, whole.streams["a"].mask
    assert not got[~mask].any()
    assert torch.allclose(got[mask].mean(0), torch.zeros(4), atol=1e-5)
    assert torch.allclose(got[mask][:, :3].std(0, unbiased=False), torch.ones(3), atol=1e-5)


def blueprint(
    fuser: str | type[Fuser] = "concat",
    backbone: str = "gru",
    per_frame: bool = False,
    widths: tuple[int, int] = (4, 3),
) -> Blueprint:
    shapes = {m: (width,) for m, width in zip("ab", widths, strict=True)}
    method = registry.load("fusers", fuser) if isinstance(fuser, str) else fuser
    encoder = registry.load("backbones", backbone)
    defaults = {kind: {n: h.default for n, h in read(kind).items()} for kind in (method, encoder)}
    task = Task("classify", 3, ("accuracy",), per_frame)
    return Blueprint(task, shapes, method, defaults[method], {m: (encoder, defaults[encoder]) for m in shapes})


def weights(model: nn.Module, part: str) -> dict[str, Tensor]:
    return {n: v for n, v in model.state_dict().items() if n.startswith(part)}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    assert first
    assert first.keys() == second.keys()
    return all(torch.equal(first[n], second[n]) for n in first)


def test_every_fuser_meets_the_same_backbones_at_one_seed() -> None:
    one, other = blueprint("concat").build(3, {}, 10), blueprint("transformer").build(3, {}, 10)
    assert same(weights(one, "backbones."), weights(other, "backbones."))
    assert type(one.fuser) is not type(other.fuser)


def test_a_seed_gives_the_same_weights_again_and_another_seed_others() -> None:
    plan = blueprint()
    first, again, other = plan.build(0, {}, 10), plan.build(0, {}, 10), plan.build(1, {}, 10)
    assert same(first.state_dict(), again.state_dict())
    for part in ("backbones.a.", "backbones.b.", "fuser."):
        assert not same(weights(first, part), weights(other, part))


def test_two_modalities_of_one_shape_start_differently() -> None:
    built = blueprint(widths=(4, 4)).build(0, {}, 10)
    first, second = (dict(built.backbones[m].named_parameters()) for m in "ab")
    assert first.keys() == second.keys()
    assert not any(torch.equal(first[n], second[n]) for n in first if first[n].dim() > 1)


def test_building_leaves_the_global_generators_alone() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # type: ignore[index]
    blueprint().build(0, {}, 10)
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert before[1] == np.random.get_state()[1].tolist()  # type: ignore[index]
    assert before[2] == random.getstate()


def test_building_does_not_depend_on_the_global_generator() -> None:
    torch.manual_seed(1)
    first = blueprint().build(0, {}, 10)
    torch.manual_seed(2)
    assert same(first.state_dict(), blueprint().build(0, {}, 10).state_dict())


def test_building_does_not_reseed_the_accelerators(monkeypatch: pytest.MonkeyPatch) -> None:
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    blueprint().build(0, {}, 10)
    assert seeded == []


class Shapes(Fuser):
    """Answers with a constant, and remembers what it was given."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.head = Head(1, spec.out)

    def forward(self, streams: Streams) -> Tensor:
        self.seen = streams
        steps = max(s.x.shape[1] for s in streams.values()) if self.spec.per_frame else 1
        return self.head(torch.zeros(len(next(iter(streams.values()))), steps, 1))


def streams(a: int, b: int) -> Streams:
    return {
        "a": Stream(torch.randn(5, a, 4), torch.ones(5, a, dtype=torch.bool)),
        "b": Stream(torch.randn(5, b, 3), torch.ones(5, b, dtype=torch.bool)),
    }


def batch_of(given: Streams, steps: int) -> Batch:
    return Batch(given, torch.zeros(5, steps, dtype=torch.long), torch.ones(5, steps, dtype=torch.bool))


def test_a_fuser_meets_the_labels_clock_per_frame_and_the_streams_own_for_a_clip() -> None:
    given = streams(6, 9)
    model = blueprint(Shapes, "identity", per_frame=True).build(0, {}, 77)
    assert model(batch_of(given, 6)).shape == (5, 6, 3)
    assert {m: s.x.shape[1:] for m, s in model.fuser.seen.items()} == {"a": (6, 4), "b": (6, 3)}
    assert model.fuser.spec == Spec("classify", {"a": 4, "b": 3}, 3, True, 77)
    clip = blueprint(Shapes, "identity").build(0, {}, 77)
    assert clip(batch_of(given, 1)).shape == (5, 1, 3)
    assert {m: s.x.shape[1:] for m, s in clip.fuser.seen.items()} == {"a": (6, 4), "b": (9, 3)}


def test_the_model_normalises_before_the_backbone() -> None:
    given = streams(4, 4)
    given["a"] = Stream(given["a"].x * 5 + 3, given["a"].mask)
    whole = batch_of(given, 1)
    model = blueprint(Shapes, "identity").build(0, statistics(whole, torch.arange(5)), 5)
    model(whole)
    seen = model.fuser.seen["a"].x.flatten(0, 1)
    assert torch.allclose(seen.mean(0), torch.zeros(4), atol=1e-5)
    assert torch.allclose(seen.std(0, unbiased=False), torch.ones(4), atol=1e-4)
    assert torch.allclose(whole.streams["a"].x, given["a"].x)  # the batch is not written to


def test_the_loss_of_a_model_is_its_fusers_loss_on_encoded_streams() -> None:
    whole = batch_of(streams(4, 6), 1)
    model = blueprint(backbone="gru").build(0, {}, 5).eval()
    loss = criterion(model.task)
    assert torch.allclose(model(whole, loss), F.cross_entropy(model(whole).flatten(0, 1), whole.y.flatten()), atol=1e-6)
