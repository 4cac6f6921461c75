"""One function a method: the authors' module and ours with the same weights on the same numbers, and how far apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from authors import attention, largest, linear, load, module, stir
from torch import Tensor, nn

from fusionbench.api import Batch, Projections, Spec, Stream, Streams, Task, sinusoids
from fusionbench.engine.model import criterion
from fusionbench.fusers import (
    attention_pool,
    audio_query,
    bottleneck,
    dynamic_cross,
    energy,
    evidential,
    film,
    jmt,
    joint_attention,
    key_sparse,
    low_rank,
    misa,
    mmin,
    mult,
    recursive_joint,
    self_mm,
    tensor_fusion,
)

#: Libraries that the authors import and that no comparison uses.
IMAGES = ("timm", "torchvision", "torchvision.models", "ipdb", "termcolor", "h5py")
JAX_EXTRAS = ("tensorflow", "tensorflow.io", "tensorflow_datasets", "clu", "optax", "orbax", "orbax.checkpoint", "dmvr")
ENCODERS = ("pytorch_pretrained_bert", "pytorch_pretrained_bert.modeling", "torchvision", "timm")


@dataclass(frozen=True)
class Comparison:
    """What of a fuser is compared with what.

    Attributes:
        code: the authors' repository, owner/name.
        what: what goes in and what comes out, in a few words.
        measure: folder of the checkout -> largest difference.
    """

    fuser: str
    code: str
    what: str
    measure: Callable[[Path], float]


def tokens(lengths: dict[str, int], width: int, size: int = 3) -> Streams:
    """Random streams without a gap."""
    generator = torch.Generator().manual_seed(1)
    return {
        m: Stream(torch.randn(size, steps, width, generator=generator), torch.ones(size, steps, dtype=torch.bool))
        for m, steps in lengths.items()
    }


def single(width: int) -> Stream:
    """Eight random samples of one step."""
    return tokens({"x": 1}, width, 8)["x"]


def unprojected(fuser: nn.Module, spec: Spec) -> nn.Module:
    """The fuser without its projections: the authors' features have the width of the tokens already."""
    fuser.project = Projections(spec, 1, lambda *_: nn.Identity())
    return fuser


# -------------------------------------------------------------------------------------------------------------- tensors


@torch.no_grad()
def compare_tensor_fusion(folder: Path) -> float:
    theirs = module(folder, "model").TFN((4, 4, 4), (4, 4, 4), 4, (0.0, 0.0, 0.0, 0.0), 8)
    stir(theirs)
    theirs.audio_subnet = theirs.video_subnet = theirs.text_subnet = nn.Identity()
    ours = tensor_fusion.TensorFusion(Spec("regress", dict.fromkeys("avt", 4), 1), width=4, hidden=8)
    state, weights = theirs.state_dict(), {}
    for i, place in enumerate((0, 3, 5)):
        weights |= linear(state, f"post_fusion_layer_{i + 1}", f"head.{place}")
    load(ours, weights, spare=("embed.",))
    vectors = [s.x[:, 0] for s in tokens(dict.fromkeys("avt", 1), 4).values()]
    return largest(torch.sigmoid(ours.head(tensor_fusion.products(vectors))) * 6 - 3, theirs(*vectors))


@torch.no_grad()
def compare_low_rank(folder: Path) -> float:
    library = module(folder, "model")
    library.xavier_normal = nn.init.xavier_normal_  # its name in the torch of today
    theirs = stir(library.LMF((4, 4, 4), (4, 4, 4), 4, (0.0, 0.0, 0.0, 0.0), 4, 3))
    theirs.audio_subnet = theirs.video_subnet = theirs.text_subnet = nn.Identity()
    ours = low_rank.LowRank(Spec("regress", dict.fromkeys("avt", 4), 1), width=4, rank=3)
    weights = {f"factors.{n[0]}": getattr(theirs, f"{n}_factor") for n in ("audio", "video", "text")}
    weights |= {"weights": theirs.fusion_weights[0], "bias": theirs.fusion_bias[0]}
    load(ours, weights, spare=("embed.", "head."))
    given = {m: s.x for m, s in tokens(dict.fromkeys("avt", 1), 4).items()}
    return largest(ours.fuse(given)[:, 0], theirs(*(x[:, 0] for x in given.values())))


# ------------------------------------------------------------------------------------------------------------ decisions


@torch.no_grad()
def compare_evidential(folder: Path) -> float:
    library = module(folder / "TMC ICLR", "model")
    theirs = library.TMC(5, 3, [[5]] * 3, 50)
    theirs.infer = lambda evidence: evidence
    generator = torch.Generator().manual_seed(2)
    evidence = torch.rand(8, 3, 5, generator=generator) * 4
    label = torch.randint(5, (8,), generator=generator)
    _, combined, loss = theirs(dict(enumerate(evidence.unbind(1))), label, 20)
    opinions = torch.cat([evidence, evidential.combine(evidence)[:, None]], 1)
    one_hot = nn.functional.one_hot(label, 5)[:, None].float()
    risks = evidential.risk(opinions + 1, one_hot, torch.tensor(20 / 50)).sum(1).mean()
    return max(largest(opinions[:, -1], combined), largest(risks, loss))


@torch.no_grad()
def compare_energy(folder: Path) -> float:
    library = module(folder / "text-image-classification", "src.models.late_fusion", *ENCODERS)
    theirs = library.MultimodalLateFusionClf.__new__(library.MultimodalLateFusionClf)
    nn.Module.__init__(theirs)
    theirs.args = SimpleNamespace(df=True)
    theirs.txtclf, theirs.imgclf = (lambda text, *_: text), nn.Identity()
    logits = 3 * torch.randn(8, 1, 2, 5, generator=torch.Generator().manual_seed(3))
    want = theirs(logits[:, 0, 0], None, None, logits[:, 0, 1])
    fused = energy.fuse(logits, torch.ones(8, 1, 2, dtype=torch.bool))[:, 0]
    confident = energy.confidence(logits)[:, 0]
    return max(largest(fused, want[0]), largest(confident, torch.cat(want[3:], 1)))


def compare_self_mm(folder: Path) -> float:
    helpers = ("tqdm", "utils", "utils.functions", "utils.metricsTop")
    library = module(folder, "trains.multiTask.SELF_MM", *helpers)
    sizes = {f"post_{part}_dim": 6 for part in ("fusion", "text", "audio", "video")}
    settings = {"train_mode": "regression", "datasetName": "", "train_samples": 8, "device": "cpu", "H": 1.0}
    theirs = library.SELF_MM(SimpleNamespace(**settings, **sizes, excludeZero=False))
    features = torch.randn(4, 8, 6, generator=torch.Generator().manual_seed(5))  # fused, text, audio, vision
    label = torch.tensor([-1.0, -0.5, -0.2, -0.1, 0.1, 0.3, 0.4, 1.0])  # mean zero, at most one: no rescaling in ours
    everyone = torch.arange(8)
    theirs.init_labels(everyone, label)
    theirs.update_features(*features, everyone)
    theirs.update_centers()
    theirs.update_labels(*features, 1, everyone, None)  # in the first epoch the new label replaces the old one
    valid, y = torch.ones(8, 1, dtype=torch.bool), label[:, None, None]
    gaps = []
    for name, own in zip(("text", "audio", "vision"), features[1:], strict=True):
        got, _ = self_mm.value_labels(own[:, None], features[0][:, None], y, valid, valid)
        gaps.append(largest(got.flatten(), theirs.label_map[name]))
    return max(gaps)


@torch.no_grad()
def compare_attention_pool(folder: Path) -> float:
    library = module(folder / "MERBench", "toolkit.models.attention")
    settings = {"text_dim": 5, "audio_dim": 6, "video_dim": 7, "output_dim1": 4, "output_dim2": 1, "hidden_dim": 8}
    theirs = stir(library.Attention(SimpleNamespace(**settings, dropout=0.3, grad_clip=1.0, feat_type="utt")))
    dims = {"audio": 6, "text": 5, "video": 7}
    ours = attention_pool.AttentionPool(Spec("classify", dims, 4), width=8)
    state, weights = theirs.state_dict(), linear(theirs.state_dict(), "fc_att", "score.1")
    for name, here in {**{f"{m}_encoder": f"embed.{m}" for m in dims}, "attention_mlp": "score.0"}.items():
        for i in range(3):
            weights |= linear(state, f"{name}.linear_{i + 1}", f"{here}.{2 * i + 1}")
    load(ours, weights | linear(state, "fc_out_1", "answer"))
    streams = {m: single(dim) for m, dim in dims.items()}
    return largest(ours(streams)[:, 0], theirs({f"{m}s": s.x[:, 0] for m, s in streams.items()})[1])


@torch.no_grad()
def compare_film(folder: Path) -> float:
    theirs = module(folder, "vr.models.filmed_net", *IMAGES).FiLM()
    ours = film.FiLM(Spec("classify", {"image": 8, "question": 5}, 4, per_frame=True), width=8)
    stir(ours)
    streams = {"image": single(8), "question": single(5)}
    image, question = (s.x[:, 0] for s in ours.project(streams).values())
    total = torch.zeros(8, 8)
    for layer, x, condition in zip(ours.film, (image, question), (question, image), strict=True):
        gamma, beta = layer(condition).chunk(2, -1)  # their network's default is one plus what its generator says
        total = total + theirs(x[..., None, None], 1 + gamma, beta)[..., 0, 0].relu()
    return largest(ours(streams)[:, 0], ours.head(total))


# ---------------------------------------------------------------------------------------------- subspaces, imagination


def compare_misa(folder: Path) -> float:
    library = module(folder / "src", "models", "gensim", "tqdm")
    solver = module(folder / "src", "solver", "gensim", "tqdm")
    settings = {"num_classes": 4, "hidden_size": 16, "rnncell": "lstm", "use_bert": False, "use_cmd_sim": True}
    settings |= {"embedding_size": 3, "visual_size": 4, "acoustic_size": 5, "dropout": 0.5, "activation": nn.ReLU}
    theirs = stir(library.MISA(SimpleNamespace(**settings, word2id={"": 0})))
    utterances = {m: s.x[:, 0] for m, s in zip("tva", map(single, (12, 16, 20)), strict=True)}
    # What the recurrent layers would give: their two last states, the two directions of each side by side.
    states = iter([x.unflatten(1, (2, -1)).transpose(0, 1).chunk(2, -1) for x in utterances.values()])
    theirs.extract_features = lambda *_: next(states)
    theirs.embed = nn.Identity()
    answers = theirs(torch.zeros(8, 1), None, None, torch.ones(8), None, None, None)

    label = torch.randint(4, (8,), generator=torch.Generator().manual_seed(4))
    part = solver.Solver.__new__(solver.Solver)
    functions = solver.DiffLoss(), solver.CMD(), solver.MSE()
    part.model, part.train_config = theirs, SimpleNamespace(use_cmd_sim=True)
    part.loss_diff, part.loss_cmd, part.loss_recon = functions
    loss = nn.functional.cross_entropy(answers, label) + 0.3 * part.get_diff_loss()
    loss = loss + part.get_cmd_loss() + part.get_recon_loss()

    ours = misa.MISA(Spec("classify", {"t": 12, "v": 16, "a": 20}, 4), width=16)
    state, weights = theirs.state_dict(), {}
    for m in "tva":
        weights |= linear(state, f"project_{m}.project_{m}", f"project.{m}.0")
        weights |= linear(state, f"project_{m}.project_{m}_layer_norm", f"project.{m}.2")
        weights |= linear(state, f"private_{m}.private_{m}_{3 if m == 'a' else 1}", f"private.{m}")
        weights |= linear(state, f"recon_{m}.recon_{m}_1", f"decode.{m}")
    weights |= linear(state, "shared.shared_1", "shared")
    weights |= attention(state, "transformer_encoder.layers.0.self_attn", "attend.attention.0")
    places = {"linear1": "feedforward.0.0", "linear2": "feedforward.0.3", "norm1": "norm1.0", "norm2": "norm2.0"}
    for name, place in places.items():
        weights |= linear(state, f"transformer_encoder.layers.0.{name}", f"attend.{place}")
    weights |= linear(state, "fusion.fusion_layer_1", "answer.0") | linear(state, "fusion.fusion_layer_3", "answer.3")
    load(ours, weights)
    streams = {m: Stream(x[:, None], torch.ones(8, 1, dtype=torch.bool)) for m, x in utterances.items()}
    batch = Batch(streams, label[:, None], torch.ones(8, 1, dtype=torch.bool))
    cross_entropy = criterion(Task("classify", 4, ("accuracy",)))
    got = ours.loss(batch, cross_entropy)
    gradients = [torch.autograd.grad(x, m.weight)[0] for x, m in ((got, ours.shared), (loss, theirs.shared.shared_1))]
    return max(largest(ours(streams)[:, 0], answers), largest(got, loss), largest(*gradients))


@torch.no_grad()
def compare_mmin(folder: Path) -> float:
    ours = mmin.MMIN(Spec("classify", dict.fromkeys("alv", 8), 4), width=8)
    library = module(folder, "models.networks.autoencoder")
    forth, back = (stir(library.ResidualAE([16, 8, 4], 5, 24, dropout=0), seed) for seed in range(2))
    answer = stir(module(folder, "models.networks.classifier").FcClassifier(20, [8, 8], 4, dropout=0.5))
    weights = {}
    for name, theirs in (("forth", forth), ("back", back)):
        state = theirs.state_dict()
        for i in (0, 2, 4):
            for block in range(5):
                for part in ("encode", "decode"):
                    weights |= linear(state, f"{part}r_{block}.{i}", f"{name}.{part}.{block}.{i}")
            weights |= linear(state, f"transition.{i}", f"{name}.transition.{i}")
    state = answer.state_dict()
    weights |= linear(state, "module.0", "answer.0") | linear(state, "module.3", "answer.3")
    load(ours, weights | linear(state, "fc_out", "answer.6"), spare=("embed.",))
    x = single(24).x[:, 0]
    (imagined, code), (want_imagined, want_code) = ours.forth(x), forth(x)
    pairs = [(imagined, want_imagined), (code, want_code), (ours.answer(code), answer(want_code)[0])]
    return max(largest(*pair) for pair in (*pairs, (ours.back(imagined)[0], back(want_imagined)[0])))


# ----------------------------------------------------------------------------------------------------- joint attention


def joint_layer(theirs: nn.Module, ours: str) -> dict[str, Tensor]:
    """Their layer's weights in ours, after their mixing of steps, which ours lacks, has been made to do nothing."""
    dense = theirs.dense_coattn
    for mixing in (dense.key1_linear, dense.key2_linear):
        nn.init.eye_(mixing.weight)
        nn.init.zeros_(mixing.bias)
    state = theirs.state_dict()
    weights = linear(state, "dense_coattn.query_linear", f"{ours}.query")
    for i, m in enumerate("va"):
        weights |= linear(state, f"dense_coattn.value{i + 1}_linear", f"{ours}.value.{m}")
        weights |= linear(state, f"linears.{i}.0", f"{ours}.mix.{m}.0")
    return weights


def recurrent(theirs: list[nn.Module], ours: str) -> dict[str, Tensor]:
    """Their LSTMs' weights in ours, which hold all of a kind together: forward ones, then backward ones."""
    weights = {}
    state = [lstm.state_dict() for lstm in theirs]
    layers, half = theirs[0].num_layers, theirs[0].rnn_dim
    for layer in range(layers):
        ends = [(s, f"l{layer}{end}", 2 * layer + bool(end)) for end in ("", "_reverse") for s in state]
        for part, name in (("weight_ih", "input"), ("weight_hh", "state")):
            weights[f"{ours}.layers.{layer}.{name}"] = torch.stack([s[f"rnn.{part}_{end}"].T for s, end, _ in ends])
        bias = [s[f"rnn.bias_ih_{end}"] + s[f"rnn.bias_hh_{end}"] for s, end, _ in ends]
        weights[f"{ours}.layers.{layer}.bias"] = torch.stack(bias)[:, None]
        start = [[s["init_hidden"][place + cell * 2 * layers] for s, _, place in ends] for cell in (0, 1)]
        weights[f"{ours}.layers.{layer}.start"] = torch.stack([torch.stack(x) for x in start]).reshape(2, -1, 1, half)
    for i, s in enumerate(state):
        weights |= linear(s, "linear", f"{ours}.join.{i}")
    return weights


@torch.no_grad()
def compare_joint_attention(folder: Path) -> float:
    theirs = stir(module(folder, "models.av_crossatten").NormalSubLayer(8, 8, 0.6))
    ours = joint_attention.JointAttention(Spec("regress", {"v": 8, "a": 8}, 2, per_frame=True), width=8)
    load(ours, joint_layer(theirs, "attend"), spare=("project.", "head."))
    streams = tokens({"v": 16, "a": 16}, 8)
    pairs = zip(ours.attend(streams).values(), theirs(*(s.x for s in streams.values())), strict=True)
    return max(largest(got.x, want) for got, want in pairs)


@torch.no_grad()
def compare_recursive_joint(folder: Path) -> float:
    library = module(folder, "models.layer")
    before = [stir(library.LSTM(8, 8, 2, 0.1), seed) for seed in range(2)]
    after = stir(library.LSTM(16, 8, 2, 0.0), 2)
    layer = stir(module(folder, "models.av_crossatten").DCNLayer(8, 8, 1, 0.6))
    spec = Spec("regress", {"v": 8, "a": 8}, 2, per_frame=True)
    ours = recursive_joint.RecursiveJoint(spec, width=8, depth=2, passes=1)
    weights = joint_layer(layer.dcn_layers[0], "attend")
    weights |= recurrent(before, "before") | recurrent([after], "after")
    load(ours, weights, spare=("project.", "head."))
    streams = tokens({"v": 16, "a": 16}, 8)
    states = (lstm(nn.functional.normalize(s.x, dim=-1)) for lstm, s in zip(before, streams.values(), strict=True))
    return largest(ours.fuse(streams)[0], after(torch.cat(layer(*states), -1)))


@torch.no_grad()
def compare_dynamic_cross(folder: Path) -> float:
    library = module(folder, "models.orig_cam")
    with redirect_stdout(StringIO()):  # they say how they initialise
        theirs = stir(library.CAM())
    given, attended = (tokens({"v": 5, "a": 5}, 512, size) for size in (3, 4))
    attended = {m: s[:3] for m, s in attended.items()}
    theirs.coattn.forward = lambda *_: (attended["v"].x, attended["a"].x)
    theirs.video_attn.forward = lambda video, _: video
    for part in ("audio_extract", "video_extract", "Joint", "vregressor", "aregressor"):
        setattr(theirs, part, nn.Identity())
    ours = dynamic_cross.DynamicCross(Spec("regress", {"v": 4, "a": 4}, 2, per_frame=True), width=512)
    state = theirs.state_dict()
    weights = linear(state, "video_gating_fc_layer", "choose.v") | linear(state, "audio_gating_fc_layer", "choose.a")
    load(ours, weights, spare=("project.", "cross.", "head."))
    there = torch.ones(3, dtype=torch.bool)
    own = {m: nn.functional.normalize(s.x, dim=-1) for m, s in given.items()}
    mixed = [ours.mix(m, own[m], attended[m].x, there) for m in "va"]
    return largest(torch.cat(mixed, -1), theirs(given["a"].x, given["v"].x)[0])


# --------------------------------------------------------------------------------------------------------- transformers


@torch.no_grad()
def compare_jmt(folder: Path) -> float:
    library = module(folder, "models.mm_multi_transformers", "torchvision")
    theirs = stir(library.MultimodalTransformer_w_JR(512, 512, 1, 512, 1, "SELF_ATTEN"))
    ours = jmt.JMT.from_released(theirs.state_dict()).eval()
    streams = tokens({"v": 7, "a": 7}, 512)
    given = (nn.functional.normalize(s.x, dim=-1) for s in streams.values())
    return largest(ours.represent(streams), theirs(*given))


@torch.no_grad()
def compare_audio_query(folder: Path) -> float:
    library = module(folder, "models.fusion", *IMAGES, "einops", "einops.layers", "einops.layers.torch")
    theirs = library.VideoAudioFusion.__new__(library.VideoAudioFusion)
    nn.Module.__init__(theirs)  # without its encoders
    theirs.seq_len_audio = theirs.seq_len_video = 5
    theirs.video_backbone, theirs.audio_feat = nn.Flatten(), nn.Identity()
    theirs.cross = nn.MultiheadAttention(8, 2, dropout=0.1, batch_first=True)
    theirs.reduce, theirs.head = (lambda x: x.mean(1)), nn.Linear(24, 3)
    stir(theirs)
    spec = Spec("classify", {"audio": 8, "video": 8}, 3)
    ours = audio_query.AudioQuery(spec, width=8, heads=2)
    state = theirs.state_dict()
    load(unprojected(ours, spec), attention(state, "cross", "cross") | linear(state, "head", "answer"))
    streams = tokens({"audio": 5, "video": 5}, 8)
    return largest(ours(streams)[:, 0], theirs(streams["video"].x[..., None, None], streams["audio"].x))


@torch.no_grad()
def compare_bottleneck(folder: Path) -> float:
    import jax  # the authors' code is for JAX: install jax, flax and ml_collections to repeat this one
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    library = module(folder, "scenic.projects.mbt.model", *JAX_EXTRAS)
    names = {"audio": "spectrogram", "video": "rgb"}
    theirs = library.Encoder(
        mlp_dim=32, num_layers=3, num_heads=2, dropout_rate=0.0, attention_dropout_rate=0.0, dtype=jnp.float64,
        modality_fusion=tuple(names.values()), fusion_layer=1, use_bottleneck=True,
    )  # fmt: skip
    ours = stir(
        bottleneck.Bottleneck(
            Spec("classify", {"audio": 8, "video": 8}, 4), width=8, tokens=3, alone=1, depth=2, heads=2
        )
    )
    streams = {m: tokens({m: steps}, 8)[m] for m, steps in {"audio": 4, "video": 5}.items()}
    shared = jnp.asarray(ours.tokens.expand(3, -1, -1).numpy())

    def given() -> dict[str, object]:  # their encoder writes into it
        return {name: jnp.asarray(streams[m].x.numpy()) for m, name in names.items()}

    state = {name: weight.numpy() for name, weight in ours.state_dict().items()}
    parameters = theirs.init(jax.random.PRNGKey(0), given(), shared, train=False)["params"]
    made = {"encoder_norm": {"scale": state["last.weight"], "bias": state["last.bias"]}}
    for name, value in parameters.items():
        if name.startswith("posembed"):  # theirs are learned, ours fixed: none on both sides
            made[name] = jax.tree.map(jnp.zeros_like, value)
        elif name.startswith("encoderblock"):
            number = int(name.split("_")[1])
            m = "audio" if name.endswith("spectrogram") else "video"
            made[name] = flax_layer(
                state, f"alone.{m}.0" if number == 0 else f"fusion.{number - 1}.layers.{m}", heads=2
            )
    want = torch.tensor(theirs.apply({"params": made}, given(), shared, train=False).tolist())
    return largest(torch.cat([s.x for s in ours.encode(streams).values()], 1), want)


def flax_layer(state: Mapping[str, np.ndarray], ours: str, heads: int) -> dict[str, dict[str, object]]:
    """A layer of ours as they hold it: kernels are transposed, and attention has a dimension of heads."""
    attention = {}
    for part in ("query", "key", "value", "out"):
        kernel, bias = state[f"{ours}.attention.{part}.weight"].T, state[f"{ours}.attention.{part}.bias"]
        width = len(kernel)
        if part == "out":
            attention[part] = {"kernel": kernel.reshape(heads, -1, width), "bias": bias}
        else:
            attention[part] = {"kernel": kernel.reshape(width, heads, -1), "bias": bias.reshape(heads, -1)}
    made: dict[str, dict[str, object]] = {"MultiHeadDotProductAttention_0": attention, "MlpBlock_0": {}}
    for i, place in enumerate((0, 3)):
        kernel, bias = state[f"{ours}.feed.{place}.weight"].T, state[f"{ours}.feed.{place}.bias"]
        made["MlpBlock_0"][f"Dense_{i}"] = {"kernel": kernel, "bias": bias}
        made[f"LayerNorm_{i}"] = {
            "scale": state[f"{ours}.norm{i + 1}.weight"],
            "bias": state[f"{ours}.norm{i + 1}.bias"],
        }
    return made


@torch.no_grad()
def compare_mult(folder: Path) -> float:
    settings = {"vonly": True, "aonly": True, "lonly": True, "num_heads": 5, "layers": 5, "attn_mask": True}
    settings |= dict.fromkeys(("attn_dropout", "attn_dropout_a", "attn_dropout_v", "relu_dropout"), 0.1)
    settings |= dict.fromkeys(("res_dropout", "out_dropout", "embed_dropout"), 0.1)
    dims = {"l": 30, "a": 11, "v": 13}  # language has the tokens' width: it is not projected
    settings |= {f"orig_d_{m}": dim for m, dim in dims.items()} | {"output_dim": 4}
    theirs = stir(module(folder, "src.models").MULTModel(SimpleNamespace(**settings)))
    ours = mult.MulT.from_released(theirs.state_dict()).eval()
    streams = {m: tokens({m: steps}, dims[m])[m] for m, steps in {"l": 5, "a": 9, "v": 7}.items()}
    # Their positions ask for a view that today's torch grants to one sample at a time only.
    answers = [theirs(*(streams[m].x[i : i + 1] for m in "lav"))[0] for i in range(3)]
    return largest(ours(streams)[:, 0], torch.cat(answers))


@torch.no_grad()
def compare_key_sparse(folder: Path) -> float:
    theirs = stir(module(folder, "model.KS_transformer").build_ks_transformer(
        input_dim=[32, 32], ffn_embed_dim=[16, 16], num_layers=[5, 3, 2], num_heads=8, num_classes=4
    ))  # fmt: skip
    for name, parameter in theirs.named_parameters():
        if name.endswith("_position"):  # their initialisation draws these again: put back what they are built as
            parameter.data = sinusoids(*parameter.shape, parameter.device)
    spec = Spec("classify", {"a": 32, "t": 32}, 4)
    ours = key_sparse.KeySparse(spec, width=32, depth=5, blocks=3, last=2)
    state = theirs.state_dict()
    weights: dict[str, Tensor] = {}

    def group(name: str, to: str, depth: int) -> None:
        weights.update(linear(state, f"{name}.query_input_norm", f"{to}.norm"))
        weights.update(linear(state, f"{name}.key_input_norm", f"{to}.norm_memory"))
        for i in range(depth):
            layer, here = f"{name}.layers.{i}", f"{to}.layers.{i}"
            if f"{layer}.attention.project_qkv.weight" in state:
                for part in ("weight", "bias"):
                    chunks = state[f"{layer}.attention.project_qkv.{part}"].chunk(3)
                    names = (f"{here}.{n}.{part}" for n in ("query", "key", "value"))
                    weights.update(zip(names, chunks, strict=True))
            for n, t in {"q": "query", "k": "key", "v": "value", "out": "out"}.items():
                weights.update(linear(state, f"{layer}.attention.project_{n}", f"{here}.{t}"))
            renames = {
                "attention_layer_norm": "norm1",
                "final_layer_norm": "norm2",
                "fc1": "feed_in",
                "fc2": "feed_out",
            }
            for n, t in renames.items():
                weights.update(linear(state, f"{layer}.{n}", f"{here}.{t}"))

    for m, name in {"a": "audio", "t": "text"}.items():
        group(f"{name}_self_Trans", f"own.{m}", 5)
        group(f"last_{name}_self_Trans", f"last.{m}", 2)
    for pair, name in enumerate(("at", "ta")):
        for i in range(3):
            group(f"{name}_cross_Trans.CCABs_model.{i}.ks_trans_1", f"cascades.{pair}.{2 * i}", 1)
            group(f"{name}_cross_Trans.CCABs_model.{i}.ks_trais_2", f"cascades.{pair}.{2 * i + 1}", 1)
    for i in (0, 3, 6):
        weights.update(linear(state, f"classifier.{i}", f"answer.{i}"))
    load(unprojected(ours, spec), weights)
    streams = tokens({"a": 9, "t": 6}, 32)
    return largest(ours(streams)[:, 0], theirs(streams["a"].x, streams["t"].x, None, None))


COMPARISONS = (
    Comparison(
        "audio_query", "augusmaa/Emotiw2023",
        "the answers for audio and video on one clock, from the same tokens", compare_audio_query,
    ),
    Comparison(
        "bottleneck", "google-research/scenic",
        "the encoded tokens of two modalities after one layer alone and two of fusion, without positions",
        compare_bottleneck,
    ),
    Comparison(
        "attention_pool", "zeroQiaoba/MERTools",
        "the answers for three modalities' utterance vectors (MERBench)", compare_attention_pool,
    ),
    Comparison(
        "film", "ethanjperez/film",
        "the modulation of each of two modalities by the other", compare_film,
    ),
    Comparison(
        "self_mm", "thuiar/Self-MM",
        "the labels that are generated from the same features and labels in the first epoch", compare_self_mm,
    ),
    Comparison(
        "evidential", "hanmenghan/TMC",
        "the combined evidence of three modalities and the loss, from the same evidence", compare_evidential,
    ),
    Comparison(
        "dynamic_cross", "praveena2j/Dynamic-CrossAttention",
        "the gate's mix of own and attended features of two modalities", compare_dynamic_cross,
    ),
    Comparison(
        "joint_attention", "praveena2j/Joint-Cross-Attention-for-Audio-Visual-Fusion",
        "the attention of two modalities over sixteen steps, their mixing of steps made the identity",
        compare_joint_attention,
    ),
    Comparison(
        "recursive_joint", "praveena2j/RecurrentJointAttentionwithLSTMs",
        "LSTMs, one pass and the last LSTM, released depths, their mixing of steps made the identity",
        compare_recursive_joint,
    ),
    Comparison(
        "energy", "QingyangZhang/QMF",
        "confidences and fused logits of two modalities, from the same logits", compare_energy,
    ),
    Comparison(
        "misa", "declare-lab/MISA",
        "answers, loss and its gradient for three modalities, from the same utterance vectors", compare_misa,
    ),
    Comparison(
        "mmin", "AIM3-RUC/MMIN",
        "both cascades, released depth, and the classifier, from the same embeddings", compare_mmin,
    ),
    Comparison(
        "jmt", "PoloWlg/Joint-Multimodal-Transformer-6th-ABAW",
        "the fused representation of two modalities, released sizes", compare_jmt,
    ),
    Comparison(
        "key_sparse", "HappyColor/Key-Sparse-Transformer",
        "the answers for two modalities without padding, released depths and heads, positions as built",
        compare_key_sparse,
    ),
    Comparison(
        "low_rank", "Justin1904/Low-rank-Multimodal-Fusion",
        "the fused vector from three embeddings", compare_low_rank,
    ),
    Comparison(
        "mult", "yaohungt/Multimodal-Transformer",
        "the answers for three modalities of different lengths, released settings", compare_mult,
    ),
    Comparison(
        "tensor_fusion", "Justin1904/TensorFusionNetworks",
        "the answer from three embeddings: tensor and classifier", compare_tensor_fusion,
    ),
)  # fmt: skip
