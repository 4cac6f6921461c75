"""A speech or sound encoder of the transformers library by name (WavLM, wav2vec 2.0, HuBERT, AST), frozen.

Input: a mono waveform (n,) a step, values -1 to 1, at the sampling rate of the model's own feature extractor, which
also normalises. A step's output is the mean of the model's last hidden states over the step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from torch import Tensor

from fusionbench.api import Stream

from ._frozen import Frozen, expect, extra, pretrained_state, same_rate, within
from ._hub import pretrained, random

_CONVOLUTIONS = {"conv_dim": (16,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
#: family -> sizes of its randomly initialised model
FAMILIES: dict[str, dict[str, Any]] = {
    **{family: dict(_CONVOLUTIONS) for family in ("wav2vec2", "wavlm", "hubert")},
    "audio-spectrogram-transformer": {"max_length": 128},
}


class HfAudio(Frozen):
    example = (3, 800)
    example_settings = {"weights": "random", "model": "wavlm"}  # noqa: RUF012
    expects = "a mono waveform (n,), values -1 to 1, n at least 400"

    def __init__(
        self,
        shape: Sequence[int],
        *,
        model: Annotated[str, "a name on the hub, or, for random weights, a family such as wavlm"] = (
            "microsoft/wavlm-base-plus"
        ),
        weights: Annotated[str, "'' = the hub's, random, a folder, or a file (.safetensors, .pth)"] = "",
    ) -> None:
        super().__init__(shape)
        expect("hf_audio", shape, len(shape) == 1 and shape[0] >= 400, self.expects)
        transformers = extra("transformers", "audio")
        if weights == "random":
            self.network = random("audio", model, FAMILIES)
            self.extractor = (
                transformers.ASTFeatureExtractor(max_length=128)
                if model == "audio-spectrogram-transformer"
                else transformers.Wav2Vec2FeatureExtractor(return_attention_mask=False)
            )
        else:
            self.network, place = pretrained("hf_audio", "audio", model, weights)
            fetch = transformers.AutoFeatureExtractor.from_pretrained
            self.extractor = pretrained_state(f"hf_audio ({place})", lambda: fetch(place))
        self.dim = int(self.network.config.hidden_size)
        self.freeze()

    def admit(self, stream: Stream, rate: float | None) -> None:
        within("hf_audio", stream, -1.0, 1.0, "sound")
        same_rate("hf_audio", stream, rate, int(self.extractor.sampling_rate))

    def encode(self, steps: Tensor) -> Tensor:
        waves = list(steps.float().cpu().numpy())
        inputs = self.extractor(waves, sampling_rate=self.extractor.sampling_rate, return_tensors="pt")
        name = self.extractor.model_input_names[0]
        hidden: Tensor = self.network(inputs[name].to(steps.device, torch.float32)).last_hidden_state
        return hidden.mean(1)
