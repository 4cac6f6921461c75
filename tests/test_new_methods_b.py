"""The formulas of EMT-DLFR, ALMT, DLF, MMIM and MoMKE against slow, obvious loops."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from fusionbench.api import Batch, Criterion, Fuser, Spec, Stream, Streams, Task, UsageError, keyed, sinusoids
from fusionbench.engine.model import criterion
from fusionbench.fusers import almt, dlf, emt_dlfr, mmim, momke

DIMS = {"video": 5, "audio": 3, "text": 4}


def spec(count: int = 3, kind: str = "classify", *, per_frame: bool = False) -> Spec:
    return Spec("classify" if kind == "classify" else "regress", dict(list(DIMS.items())[:count]), 3, per_frame, 16)


def ragged(problem: Spec, size: int = 4, steps: int = 5) -> Streams:
    """Sample i has i masked steps at its end, and sample 1 lacks the first modality."""
    mask = torch.arange(steps) < steps - torch.arange(size)[:, None]
    gone = (torch.arange(size) == 1)[:, None]
    return {
        m: Stream(torch.randn(size, steps, dim), mask & ~gone if place == 0 else mask)
        for place, (m, dim) in enumerate(problem.dims.items())
    }


def labelled(problem: Spec, streams: Streams, progress: float = 0.5) -> Batch:
    first = next(iter(streams.values()))
    y_mask = first.mask if problem.per_frame else torch.ones(len(first), 1, dtype=torch.bool)
    if problem.kind == "classify":
        return Batch(
            streams, torch.arange(y_mask.numel()).reshape(y_mask.shape) % problem.out, y_mask, progress=progress
        )
    return Batch(streams, torch.randn(*y_mask.shape, problem.out), y_mask, progress=progress)


def task_loss(problem: Spec) -> Criterion:
    metric = "accuracy" if problem.kind == "classify" else "mse"
    return criterion(Task(problem.kind, problem.out, (metric,), problem.per_frame))


def gradients(fuser: Fuser, batch: Batch) -> dict[str, float]:
    """The largest gradient of each of the fuser's own modules."""
    fuser.zero_grad()
    with keyed.scope(torch.tensor(3, dtype=torch.int32)):
        fuser.loss(batch, task_loss(fuser.spec)).backward()  # type: ignore[no-untyped-call]
    largest: dict[str, float] = {}
    for name, parameter in fuser.named_parameters():
        reached = 0.0 if parameter.grad is None else float(parameter.grad.abs().max())
        largest[name.split(".")[0]] = max(largest.get(name.split(".")[0], 0.0), reached)
    return largest


def attend(layers: Mapping[str, nn.Module], x: Tensor, memory: Tensor, real: Tensor, heads: int) -> Tensor:
    """Multi-head attention without an output projection, query by query: x (Q, d), memory (K, d), real (K,)."""
    q, k, v = layers["query"](x), layers["key"](memory), layers["value"](memory)
    size = q.shape[1] // heads
    rows = []
    for i in range(len(x)):
        parts = []
        for h in range(heads):
            cut = slice(h * size, (h + 1) * size)
            scores = [math.exp(float(q[i, cut] @ k[j, cut]) / size**0.5) if real[j] else 0.0 for j in range(len(k))]
            total = sum(scores)
            parts.append(sum((s / total * v[j, cut] for j, s in enumerate(scores) if s), torch.zeros(size)))
        rows.append(torch.cat(parts))
    return torch.stack(rows)


def parts_of(module: nn.Module, names: str = "query key value") -> dict[str, nn.Module]:
    return {name: module.get_submodule(name) for name in names.split()}


# --------------------------------------------------------------------------------------------------------------- MoMKE


@torch.no_grad()
@pytest.mark.parametrize("per_frame", [False, True])
def test_momke_mixes_every_expert_on_every_modality(per_frame: bool) -> None:
    fuser = momke.MoMKE(spec(per_frame=per_frame), width=8, depth=2, heads=2).eval()
    streams = ragged(fuser.spec)
    got = fuser(streams)
    for b in range(4):
        mixed = []
        for m, stream in streams.items():
            x, real = fuser.project[m](stream.x[b]) * stream.mask[b, :, None], stream.mask[b]
            said = []
            for expert in fuser.experts.values():
                y = x
                for layer in expert:
                    attended = attend(parts_of(layer), y, y, real, 2)
                    y = y + attended + layer.mlp(attended)
                said.append(y)
            weights = fuser.routers[m](x).softmax(-1)
            mixture = sum(weights[:, e, None] * said[e] for e in range(3)) * real[:, None]
            mixed.append(mixture if per_frame else mixture.sum(0, keepdim=True) / max(1, int(real.sum())))
        joint = torch.cat(mixed, -1)
        torch.testing.assert_close(got[b], fuser.answer(joint + torch.relu(fuser.joint(joint))), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("per_frame", [False, True])
def test_momke_trains_experts_alone_first_and_the_mixture_afterwards(per_frame: bool) -> None:
    problem = spec(per_frame=per_frame)
    fuser = momke.MoMKE(problem, width=8, alone=0.4)
    streams = ragged(problem)
    early, late = (gradients(fuser, labelled(problem, streams, progress)) for progress in (0.39, 0.4))
    for trained, idle, found in (
        ("own_answer", "joint routers answer", early),
        ("joint routers answer", "own_answer", late),
    ):
        assert all(found[name] > 0 for name in trained.split())
        assert all(found[name] == 0 for name in idle.split())
        assert found["project"] > 0
        assert found["experts"] > 0


def test_momke_never_drops_the_last_modality_and_each_pattern_occurs() -> None:
    tokens = {m: Stream(torch.ones(200, 2, 1), torch.ones(200, 2, dtype=torch.bool)) for m in "abc"}
    tokens["c"] = Stream(tokens["c"].x, torch.arange(200)[:, None].expand(-1, 2) >= 100)
    with keyed.scope(torch.tensor(1, dtype=torch.int32)):
        kept = momke._keep_some(tokens)
    patterns = torch.stack([s.present for s in kept.values()], 1)
    assert patterns.any(1).all()
    assert not patterns[:100, 2].any()
    assert {tuple(p) for p in patterns[100:].tolist()} == set(itertools.product([True, False], repeat=3)) - {
        (False,) * 3
    }


# ------------------------------------------------------------------------------------------------------------ EMT-DLFR


def promote_slowly(part: nn.Module, x: Tensor, real: Tensor, memory: Tensor, memory_real: Tensor) -> Tensor:
    names = parts_of(part, "cross own norm_cross norm_memory norm_own norm_feed widen narrow")
    cross, own = (parts_of(names[name], "query key value out") for name in ("cross", "own"))
    x = x + cross["out"](attend(cross, names["norm_cross"](x), names["norm_memory"](memory), memory_real, 2))
    normal = names["norm_own"](x)
    x = x + own["out"](attend(own, normal, normal, real, 2))
    wide = names["widen"](names["norm_feed"](x))
    half = wide.shape[1] // 2
    return x + names["narrow"](wide[:, :half] * nn.functional.gelu(wide[:, half:]))


@torch.no_grad()
def test_emt_dlfr_exchanges_through_global_tokens() -> None:
    fuser = emt_dlfr.EMTDLFR(spec(), width=8, depth=2, heads=2).eval()
    streams = ragged(fuser.spec)
    got = fuser.view(streams)
    always = torch.ones(3, dtype=torch.bool)
    for b in range(4):
        local, vectors = {}, []
        for m, stream in streams.items():
            x = fuser.project[m](stream.x[b]) * stream.mask[b, :, None]
            vectors.append(x.sum(0) / max(1, int(stream.mask[b].sum())))
            local[m] = x + sinusoids(5, 8, x.device)
        context = torch.stack(vectors)
        for _ in range(2):
            versions = []
            for m, stream in streams.items():
                real = stream.mask[b]
                versions.append(promote_slowly(fuser.promote, context, always, local[m], real).flatten())
                local[m] = promote_slowly(fuser.promote, local[m], real, context, always)
            scores = [math.exp(float(fuser.versions(v))) for v in versions]
            pooled = sum(s / sum(scores) * v for s, v in zip(scores, versions, strict=True))
            context = pooled.reshape(3, 8)
        torch.testing.assert_close(got.context[b], context.flatten(), atol=1e-5, rtol=1e-4)
        for m, x in local.items():
            torch.testing.assert_close(got.local[m][b], x, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(
            got.answers[b, 0], fuser.head(torch.cat([*vectors, context.flatten()])), atol=1e-5, rtol=1e-4
        )


def test_emt_dlfr_batch_statistics_are_those_of_present_samples() -> None:
    x, mask = torch.randn(6, 4), torch.tensor([True, False, True, True, False, True])
    norm = nn.BatchNorm1d(4, affine=False)
    torch.testing.assert_close(emt_dlfr.standardise(x, mask)[mask], norm(x[mask]))


def test_emt_dlfr_attraction_is_the_symmetric_cosine_and_stops_at_targets() -> None:
    siamese = emt_dlfr._Siamese(4, 3)
    views = (torch.randn(6, 4, requires_grad=True), torch.randn(6, 4, requires_grad=True))
    everyone = torch.ones(6, dtype=torch.bool)
    z = [nn.functional.batch_norm(siamese.project(v), None, None, training=True) for v in views]
    p = [
        siamese.second(
            torch.relu(nn.functional.batch_norm(siamese.first(x), None, None, siamese.scale, siamese.shift, True))
        )
        for x in z
    ]
    cosines = [nn.functional.cosine_similarity(p[i][b], z[1 - i][b].detach(), 0) for i in range(2) for b in range(6)]
    want = -sum(cosines, torch.zeros(())) / 12
    got = siamese(views, everyone)
    torch.testing.assert_close(got, want)
    for mine, theirs in zip(torch.autograd.grad(got, views), torch.autograd.grad(want, views), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-4)


def test_emt_dlfr_rebuilds_what_was_erased_and_nothing_else() -> None:
    problem = spec()
    fuser = emt_dlfr.EMTDLFR(problem, width=8, dropout=0.0, feed_dropout=0.0)
    streams = ragged(problem)
    batch = labelled(problem, streams)
    with keyed.scope(torch.tensor(5, dtype=torch.int32)):
        partial = fuser._erase(streams)
    with keyed.scope(torch.tensor(5, dtype=torch.int32)):
        total = fuser.loss(batch, task_loss(problem))
    whole, part = fuser.view(streams), fuser.view(partial)
    want = task_loss(problem)(part.answers, batch) + task_loss(problem)(whole.answers, batch)
    want = want + fuser.attract_context((whole.context, part.context), torch.ones(4, dtype=torch.bool))
    for m, stream in streams.items():
        want = want + fuser.attract_utterance[m]((whole.utterances[m], part.utterances[m]), stream.present)
        guess, errors = fuser.reconstruct[m](part.local[m]), []
        for b, t in itertools.product(range(4), range(5)):
            assert not partial[m].mask[b, t] or stream.mask[b, t]
            if stream.mask[b, t] and not partial[m].mask[b, t]:
                for difference in (guess[b, t] - stream.x[b, t]).abs():
                    errors.append(0.5 * difference**2 if difference < 1 else difference - 0.5)
        assert errors, "this key erases nothing of a modality"
        want = want + sum(errors) / len(errors)
    torch.testing.assert_close(total, want)


# ---------------------------------------------------------------------------------------------------------------- ALMT


@pytest.mark.parametrize("plugin", [almt.ALMT, dlf.DLF, mmim.MMIM])
def test_the_dominant_modality_is_language_else_the_first_and_must_exist(plugin: type[Fuser]) -> None:
    def leads(*modalities: str, **given: str) -> object:
        return plugin(Spec("classify", dict.fromkeys(modalities, 3), 2), width=16, **given).dominant  # type: ignore[call-arg]

    assert leads("video", "text", "audio") == "text"
    assert leads("video", "language") == "language"
    assert leads("video", "audio") == "video"
    assert leads("video", "text", dominant="video") == "video"
    with pytest.raises(UsageError, match=r"^\w+: there is no modality 'speech' to be dominant, only video, audio$"):
        leads("video", "audio", dominant="speech")


@torch.no_grad()
def test_almt_adds_what_the_dominant_tokens_find_in_the_others() -> None:
    scale = almt._Scale(["audio", "video"], 8, 2)
    asking, hyper = torch.randn(3, 4, 8), torch.randn(3, 4, 8)
    others = {
        "audio": Stream(torch.randn(3, 5, 8), torch.arange(5) < torch.tensor([[5], [2], [0]])),
        "video": Stream(torch.randn(3, 2, 8), torch.ones(3, 2, dtype=torch.bool)),
    }
    got = scale(asking, others, hyper)
    for b in range(3):
        found = torch.zeros(4, 8)
        for m, stream in others.items():
            layers = {"query": scale.query, "key": scale.keys[m], "value": scale.values[m]}
            if stream.mask[b].any():
                found = found + attend(
                    layers, scale.norm_query(asking[b]), scale.norms[m](stream.x[b]), stream.mask[b], 2
                )
        torch.testing.assert_close(got[b], scale.norm_hyper(hyper[b]) + scale.out(found), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_almt_asks_at_every_scale_and_reads_the_answer_token() -> None:
    problem = spec()
    fuser = almt.ALMT(problem, width=16, tokens=2, scales=3, depth=2, heads=2, head_width=8).eval()
    streams = ragged(problem, 1)
    always = torch.ones(1, 9, dtype=torch.bool)

    def placed(x: Tensor) -> Tensor:
        return x + sinusoids(x.shape[1], 16, x.device)

    short = {}
    for m, stream in streams.items():
        x = placed(torch.cat([fuser.tokens[m][None], fuser.project[m](stream.x)], 1))
        short[m] = fuser.compress[m][0](x, x, always[:, : x.shape[1]])[:, :2]
    scales = [placed(short["text"])]
    for layer in fuser.refine:
        scales.append(layer(scales[-1], scales[-1], always[:, :2]))
    hyper = fuser.hyper[None]
    for asking, ask in zip(scales, fuser.ask, strict=True):
        hyper = ask(asking, {m: Stream(short[m], always[:, :2]) for m in ("video", "audio")}, hyper)
    target, source = (placed(torch.cat([fuser.answer_token[None], x], 1)) for x in (scales[-1], hyper))
    for layer in fuser.fuse:
        target = layer(target, source, always[:, :3])
    torch.testing.assert_close(fuser(streams), fuser.answer(target[:, :1]))


@torch.no_grad()
def test_almt_gets_nothing_from_an_absent_modality() -> None:
    problem = spec()
    fuser = almt.ALMT(problem, width=16).eval()
    streams = ragged(problem)
    alone = {m: s if m == "text" else s.absent() for m, s in streams.items()}
    before = fuser(alone)
    for m in ("video", "audio"):
        fuser.tokens[m].add_(1.0)
    torch.testing.assert_close(fuser(alone), before)
    assert not torch.allclose(fuser(streams), before)


# ----------------------------------------------------------------------------------------------------------------- DLF


def test_dlf_margins_are_triplets_of_cosines() -> None:
    vectors, labels = torch.randn(8, 4), [0.0, 1.0, 1.0, 2.0, 0.0, 0.0, 3.0, 1.0]
    valid = [True, True, True, True, False, True, True, True]
    margins = torch.tensor([[0.3 * abs(a - b) for b in labels] for a in labels])
    anchors = []
    for i in range(8):
        terms = []
        for p, n in itertools.product(range(8), range(8)):
            if valid[i] and valid[p] and valid[n] and p != i and labels[p] == labels[i] != labels[n]:
                near, far = (float(nn.functional.cosine_similarity(vectors[i], vectors[j], 0)) for j in (p, n))
                terms.append(max(0.0, float(margins[i, n]) - near + far))
        if terms:
            anchors.append(sum(terms) / len(terms))
    assert len(anchors) == 5  # two labels stand alone, one vector is not valid
    got = dlf.margin_loss(vectors, margins, torch.tensor(valid))
    torch.testing.assert_close(got, torch.tensor(sum(anchors) / 5))


def test_dlf_labels_are_as_far_apart_as_their_differences() -> None:
    known = torch.tensor([[True], [True], [False], [True]])
    classes = Batch({}, torch.tensor([[0], [2], [1], [2]]), known)
    apart = dlf.label_distances(classes, spec())
    assert apart[0].tolist()[:2] == [0, 1]
    assert apart[1, 3] == 0
    values = Batch({}, torch.tensor([[[1.0]], [[3.0]], [[50.0]], [[8.0]]]), known)
    got = dlf.label_distances(values, Spec("regress", DIMS, 1))
    torch.testing.assert_close(got[0, [0, 1, 3]], torch.tensor([0.0, 2.0, 7.0]) / 4)  # mean 4, largest deviation 4


@torch.no_grad()
def test_dlf_transformer_is_causal_over_real_steps() -> None:
    encode = dlf._Transformer(8, 1, 2, 0.0, 0.0).eval()
    mask = torch.tensor([[True, False, True, True]])
    stream, memory = (Stream(torch.randn(1, 4, 8), mask) for _ in range(2))
    rates = [10000.0 ** (-i / 3) for i in range(4)]
    places = torch.tensor([[f((t + 1) * r) for f in (math.sin, math.cos) for r in rates] for t in range(4)])
    for other in (None, memory):
        got = encode(stream, other)
        x, y = (s.x[0] * 8**0.5 + places for s in (stream, other or stream))
        layer = encode.layers[0]
        rows = []
        for t in range(4):
            real = mask[0] & (torch.arange(4) <= t)
            rows.append(attend(parts_of(layer.attend), layer.norm(x[t : t + 1]), layer.norm(y), real, 2)[0])
        attended = x + layer.attend.out(torch.stack(rows))
        want = encode.last(attended + layer.feed(layer.norm_feed(attended)))
        torch.testing.assert_close(got[0], want, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_dlf_answers_without_the_dominant_modality_from_the_others_specific_features() -> None:
    problem = spec()
    fuser = dlf.DLF(problem, width=16).eval()
    streams = {m: Stream(torch.randn(2, 5, dim), torch.ones(2, 5, dtype=torch.bool)) for m, dim in DIMS.items()}
    silent = {**streams, "text": streams["text"].absent()}
    said = fuser.answers(fuser.parts(silent))
    assert {m: there.all().item() for m, there in said.there.items()} == {"video": True, "audio": True, "text": False}
    louder = {**silent, "audio": Stream(streams["audio"].x + 1, streams["audio"].mask)}
    changed = fuser.answers(fuser.parts(louder))
    torch.testing.assert_close(changed.specific["video"], said.specific["video"])
    assert not torch.allclose(changed.specific["audio"], said.specific["audio"])


@torch.no_grad()
def test_dlf_rebuilds_tokens_and_extracts_specific_features_again() -> None:
    fuser = dlf.DLF(spec(2), width=16).eval()
    parts = fuser.parts(ragged(fuser.spec))
    want = torch.zeros(())
    for m, tokens in parts.tokens.items():
        rebuilt = fuser.decode[m](torch.cat([parts.specific[m].x, parts.shared[m].x], -1))
        again = fuser.specific[m](Stream(rebuilt, tokens.mask))
        real = tokens.mask.nonzero().tolist()
        for b, t in real:
            errors = (rebuilt[b, t] - tokens.x[b, t]).square() + (again[b, t] - parts.specific[m].x[b, t]).square()
            want = want + errors.sum() / 16 / len(real)
    torch.testing.assert_close(fuser.restoration(parts), want)


def test_dlf_adds_its_losses_with_their_weights() -> None:
    problem = spec(kind="regress")
    fuser = dlf.DLF(problem, width=16, rebuild=0.5, separate=0.05).eval()
    batch = labelled(problem, ragged(problem))
    measure, parts = task_loss(problem), fuser.parts(batch.streams)
    said = fuser.answers(parts)
    want = measure(said.joint, batch) + measure(said.shared, batch)
    for m, answers in said.specific.items():
        # Sample 1 has no video; but text, which asks for it, is there.
        want = want + (3 if m == "text" else 1) * measure(answers, batch)
    pairs = [
        (s.x[b, t], parts.shared[m].x[b, t]) for m, s in parts.specific.items() for b, t in s.mask.nonzero().tolist()
    ]
    cosines = [float(nn.functional.cosine_similarity(*pair, 0).detach().clamp(min=0)) for pair in pairs]
    counts = [int(s.mask.sum()) for s in parts.specific.values()]
    overlap = sum(sum(part.tolist()) / len(part) for part in torch.tensor(cosines).split(counts))
    torch.testing.assert_close(fuser.overlap(parts), torch.tensor(overlap))
    want = want + 0.5 * fuser.restoration(parts) + 0.05 * (overlap + fuser.margins(parts, batch))
    torch.testing.assert_close(fuser.loss(batch, measure), want)


# ---------------------------------------------------------------------------------------------------------------- MMIM


@torch.no_grad()
def test_mmim_contrast_is_the_share_of_the_right_sample() -> None:
    mask = torch.tensor([[True, True], [True, False], [False, True], [True, True]])
    truth, guess = Stream(torch.randn(4, 2, 3), mask), torch.randn(4, 2, 3)
    terms = []
    for b, t in mask.nonzero().tolist():
        alike = {
            c: math.exp(float(nn.functional.cosine_similarity(truth.x[b, t], guess[c, t], 0)))
            for c in range(4)
            if mask[c, t]
        }
        terms.append(-math.log(alike[b] / sum(alike.values())))
    torch.testing.assert_close(mmim.contrast(truth, guess), torch.tensor(sum(terms) / len(terms)))


def test_mmim_log_determinant_is_the_librarys() -> None:
    root = torch.randn(5, 4, 4, dtype=torch.float64, requires_grad=True)
    matrix = root @ root.mT + 0.1 * torch.eye(4)
    got, want = mmim.log_determinant(matrix), torch.logdet(matrix)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(*(torch.autograd.grad(value.sum(), root, retain_graph=True)[0] for value in (got, want)))


def test_mmim_entropy_is_that_of_a_gaussian_a_group() -> None:
    x = torch.randn(20, 4)
    groups = torch.stack([torch.arange(20) < 9, torch.arange(20) >= 12, torch.arange(20) == 10], 1)
    halves = []
    for members in (groups[:, 0], groups[:, 1]):  # the third group has one member only
        covariance = torch.cov(x[members].T, correction=0) + 1e-4 * torch.eye(4)
        halves.append(torch.logdet(covariance) / 2)
    torch.testing.assert_close(mmim.entropy(x, groups), sum(halves) / 2)
    assert mmim.entropy(x, torch.zeros(20, 3, dtype=torch.bool)) == 0


def test_mmim_groups_are_classes_or_sides_of_the_mean() -> None:
    known = torch.tensor([[True], [True], [False], [True]])
    values = Batch({}, torch.tensor([[[1.0, 4.0]], [[2.0, 0.0]], [[9.0, 9.0]], [[6.0, 2.0]]]), known)  # means 3 and 2
    got = mmim.label_groups(values, Spec("regress", DIMS, 2))
    assert got.int().tolist() == [[0, 1, 1, 0], [0, 0, 1, 1], [0, 0, 0, 0], [1, 0, 0, 0]]
    classes = Batch({}, torch.tensor([[0], [2], [1], [2]]), known)
    assert mmim.label_groups(classes, spec()).int().tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 0], [0, 0, 1]]


def test_mmim_likelihood_is_a_gaussians_and_may_be_fixed() -> None:
    gaussian = mmim._Gaussian(4)
    x, y = torch.randn(3, 4, requires_grad=True), torch.randn(3, 4, requires_grad=True)
    mean, deviation = gaussian.mean(x), (torch.tanh(gaussian.spread(x)) / 2).exp()
    want = torch.distributions.Normal(mean, deviation).log_prob(y).sum(-1) + 2 * math.log(2 * math.pi)
    torch.testing.assert_close(gaussian(x, y), want)
    gaussian(x, y, fixed=True).sum().backward()
    assert x.grad is not None
    assert y.grad is not None
    assert all(parameter.grad is None for parameter in gaussian.parameters())


@pytest.mark.parametrize("kind", ["classify", "regress"])
def test_mmim_vectors_do_not_learn_from_the_networks_own_likelihood(kind: str) -> None:
    problem = spec(kind=kind)
    fuser = mmim.MMIM(problem, width=16, dropout=0.0, bound=0.05, contrast=0.2)
    batch = labelled(problem, ragged(problem, 8))
    vectors, measure = fuser.vectors(batch.streams), task_loss(problem)
    fusion = fuser.fuse(vectors)
    main, own = measure(fuser.answer(fusion), batch), torch.zeros(())
    for m, vector in vectors.items():
        main = main + 0.2 * mmim.contrast(vector, fuser.back[m](fusion))
    for m in ("video", "audio"):  # text predicts; sample 1 has no video
        there = [b for b in range(8) if vectors[m].mask[b, 0] and vectors["text"].mask[b, 0]]
        likely = sum(fuser.likelihood[m](vectors["text"].x[b, 0], vectors[m].x[b, 0]) for b in there) / len(there)
        small = torch.tanh(vectors[m].x[:, 0] @ fuser.get_buffer(f"entropy_{m}").T)
        groups = mmim.label_groups(batch, problem) & vectors[m].mask
        main = main - 0.05 * (likely + mmim.entropy(small, groups))
        own = own - likely
    total = fuser.loss(batch, measure)
    torch.testing.assert_close(total, main + own)
    vectors_learn = list(fuser.project.parameters())
    networks_learn = list(fuser.likelihood.parameters())
    for parts, source in ((vectors_learn, main), (networks_learn, own)):
        got = torch.autograd.grad(total, parts, retain_graph=True)
        want = torch.autograd.grad(source, parts, retain_graph=True)
        for mine, theirs in zip(got, want, strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-3)
