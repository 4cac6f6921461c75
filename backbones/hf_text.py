"""A text encoder of the transformers library by name (BERT, RoBERTa, DistilBERT, ...), frozen.

Input: the UTF-8 bytes (L,) of a step's text (an utterance, a word), padded with zeros: `HfText.pack` makes them. The
model's own tokeniser cuts them; a step's output is the mean of the last hidden states over its tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from torch import Tensor

from fusionbench.api import Stream, UsageError

from ._frozen import Frozen, expect, extra, pretrained_state, within
from ._hub import pretrained, random

#: family -> sizes of its randomly initialised model, which reads bytes: 256 of them, begin and padding
FAMILIES: dict[str, dict[str, Any]] = {
    family: {"vocab_size": 258, "max_position_embeddings": 514, "pad_token_id": 257} for family in ("bert", "roberta")
}


class HfText(Frozen):
    example = (3, 16)
    example_settings = {"weights": "random", "model": "bert"}  # noqa: RUF012
    expects = "UTF-8 bytes (L,) padded with zeros, values 0 to 255"

    def __init__(
        self,
        shape: Sequence[int],
        *,
        model: Annotated[
            str, "a name on the hub, or, for random weights, bert or roberta"
        ] = "google-bert/bert-base-uncased",
        weights: Annotated[str, "'' = the hub's, random, a folder, or a file (.safetensors, .pth)"] = "",
    ) -> None:
        super().__init__(shape)
        expect("hf_text", shape, len(shape) == 1 and shape[0] > 3, self.expects)
        self.tokeniser = None
        if weights == "random":
            self.network = random("text", model, FAMILIES)
        else:
            self.network, place = pretrained("hf_text", "text", model, weights)
            fetch = extra("transformers", "text").AutoTokenizer.from_pretrained
            self.tokeniser = pretrained_state(f"hf_text ({place})", lambda: fetch(place))
        self.dim = int(self.network.config.hidden_size)
        self.freeze()

    def admit(self, stream: Stream, rate: float | None) -> None:
        within("hf_text", stream, 0.0, 255.0, "bytes of text")

    @staticmethod
    def pack(texts: Sequence[str], length: int) -> Tensor:
        """(len(texts), length) bytes of the texts as float32, padded with zeros.

        Raises:
            UsageError: a text is longer.
        """
        rows = [text.encode() for text in texts]
        for row in rows:
            if len(row) > length:
                raise UsageError(f"a text has {len(row)} bytes, more than {length}: {row.decode()[:40]!r}")
        return torch.tensor([list(row.ljust(length, b"\0")) for row in rows], dtype=torch.float32)

    def encode(self, steps: Tensor) -> Tensor:
        raw = steps.round().clamp(0, 255).to(torch.uint8).cpu().numpy()
        texts = [bytes(row).rstrip(b"\0") for row in raw]
        if self.tokeniser is None:
            longest = max(len(text) for text in texts)
            rows = [[256, *text] + [257] * (longest - len(text)) for text in texts]
            ids = torch.tensor(rows)
            real = ids != 257
        else:
            words = [text.decode(errors="replace") for text in texts]
            limit = min(int(self.tokeniser.model_max_length), int(self.network.config.max_position_embeddings))
            cut = self.tokeniser(words, padding=True, truncation=True, max_length=limit, return_tensors="pt")
            ids, real = cut["input_ids"], cut["attention_mask"].bool()
        ids, real = ids.to(steps.device), real.to(steps.device)
        hidden: Tensor = self.network(ids, attention_mask=real.long()).last_hidden_state  # (n, L, dim)
        return (hidden * real[..., None]).sum(1) / real.sum(1, keepdim=True).clamp(min=1)
