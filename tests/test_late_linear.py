"""A late average of linear models against scikit-learn by hand, and what it does where a modality says nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fusionbench import registry
from fusionbench.api import Batch, Spec, Stream

LateLinear = registry.load("fusers", "late_linear")
SPEC = Spec("classify", {"a": 3, "b": 2}, 3)


def batch(number: int, seed: int, absent: float = 0.0) -> Batch:
    """Vectors of two modalities, labels of three classes that both speak of; some modalities are absent."""
    draw = np.random.default_rng(seed)
    y = draw.integers(0, 3, number)
    streams = {}
    for m, dim in SPEC.dims.items():
        x = draw.normal(size=(number, 1, dim)) + y[:, None, None] * np.arange(dim)
        has = draw.random((number, 1)) >= absent
        streams[m] = Stream(torch.tensor(x * has[..., None]).float(), torch.tensor(has))
    names = [f"s{i}" for i in range(number)]
    return Batch(streams, torch.tensor(y)[:, None], torch.ones(number, 1, dtype=torch.bool), names, names)


@pytest.mark.parametrize("kind", ["classify", "regress"])
def test_it_is_the_mean_over_the_present_modalities_own_models(kind: str) -> None:
    train, test = batch(120, 1, 0.2), batch(40, 2, 0.3)
    spec = replace(SPEC, kind=kind, out=3 if kind == "classify" else 1)
    if kind == "regress":
        train = replace(train, y=train.y[..., None].float())
    method = LateLinear(spec, penalty=4.0)
    method.fit(train, train, seed=0)
    found = method.predict(dict(test.streams))[:, 0]
    single: dict[str, np.ndarray] = {}
    for m, stream in train.streams.items():
        has, asked = stream.present.numpy(), test.streams[m].x[:, 0].double().numpy()
        x, y = stream.x[has, 0].double().numpy(), train.y.numpy().reshape(len(train))[has]
        if kind == "classify":
            model = make_pipeline(StandardScaler(), LogisticRegression(C=0.25, max_iter=2000, tol=1e-3)).fit(x, y)
            single[m] = model.predict_proba(asked)
        else:
            single[m] = make_pipeline(StandardScaler(), Ridge(alpha=4.0)).fit(x, y).predict(asked)[:, None]
    shares = np.bincount(train.y.numpy().ravel().astype(int)) / len(train)
    for i in range(len(test)):
        there = [single[m][i] for m, stream in test.streams.items() if stream.present[i]]
        if kind == "classify":
            expected = np.log(np.mean(there, 0) if there else shares[:3])
        else:
            expected = np.mean(there, 0) if there else train.y.numpy().mean((0, 1))
        assert found[i] == pytest.approx(expected, abs=1e-4)


def test_a_modality_seen_with_one_class_alone_is_left_out() -> None:
    train = batch(60, 3)
    only = (train.y[:, :1] == 1) & train.streams["b"].mask
    b = Stream(train.streams["b"].x * only[..., None], only)
    method, alone = LateLinear(SPEC), LateLinear(SPEC)
    method.fit(replace(train, streams={**train.streams, "b": b}), train, seed=0)
    nothing = Stream(torch.zeros_like(b.x), torch.zeros_like(b.mask))
    alone.fit(replace(train, streams={**train.streams, "b": nothing}), train, seed=0)
    test = dict(batch(20, 4).streams)
    assert np.array_equal(method.predict(test), alone.predict(test))
    assert method.learned() == 3 * 4  # three classes, three values and a constant
