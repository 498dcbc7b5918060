"""Networks of this package beside the same networks of timm and transformers, all with one set of random weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import timm
import torch
from torch import Tensor, nn
from transformers import Dinov2Config, Dinov2Model, Dinov2WithRegistersConfig, Dinov2WithRegistersModel

from cgeartheye.models.vit import VisionTransformer, VitConfig
from cgeartheye.weights.layouts import huggingface
from cgeartheye.weights.layouts import timm as timm_layout


def randomised(config: VitConfig, *, seed: int = 0) -> VisionTransformer:
    """At the initial LayerScale of 1e-5 a wrong head count changes the output by 1e-8: every weight has to matter."""
    generator = torch.Generator().manual_seed(seed)
    model = VisionTransformer(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".gamma"):
                parameter.uniform_(0.1, 1.0, generator=generator)
            elif "norm" in name and name.endswith("weight"):
                parameter.uniform_(0.5, 1.5, generator=generator)
            elif parameter.ndim == 2 and name.startswith("blocks"):
                parameter.normal_(0.0, parameter.shape[1] ** -0.5, generator=generator)
            else:
                parameter.normal_(0.0, 0.2, generator=generator)
    return model


class Twin(ABC):
    """A peer with our weights: normalised pixels in, class token (B, D) and patch tokens (B, N, D) out."""

    def __init__(self, ours: VisionTransformer, network: nn.Module, state: dict[str, Tensor]) -> None:
        network.to(ours.pos_embed.dtype).load_state_dict(state, strict=True)
        self.network, self.first = network.eval(), 1 + ours.config.registers

    def __call__(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.tokens(pixels)
        return tokens[:, 0], tokens[:, self.first :]

    @abstractmethod
    def tokens(self, pixels: Tensor) -> Tensor:
        """Return the tokens (B, 1 + registers + N, D) after the final norm."""


class TimmTwin(Twin):
    def __init__(self, ours: VisionTransformer) -> None:
        config = ours.config
        name = "giant" if config.ffn == "swiglu" else "small"
        options: dict[str, Any] = {
            "embed_dim": config.width,
            "depth": config.depth,
            "num_heads": config.heads,
            "img_size": config.position_px,
            "patch_size": config.patch_px,
        }
        if config.ffn == "mlp":
            options["mlp_ratio"] = config.hidden / config.width
        kind = "reg4_dinov2" if config.registers else "dinov2"
        network = timm.create_model(f"vit_{name}_patch14_{kind}", num_classes=0, dynamic_img_size=True, **options)
        state = {key: value for key, value in ours.state_dict().items() if key not in timm_layout.NO_PLACE_FOR}
        super().__init__(ours, network, timm_layout.from_own(state))

    def tokens(self, pixels: Tensor) -> Tensor:
        found: Tensor = self.network.forward_features(pixels)  # type: ignore[operator]
        return found


class TransformersTwin(Twin):
    def __init__(self, ours: VisionTransformer) -> None:
        settings = {k: v for k, v in huggingface.configuration(ours.config).items() if k not in {"architectures", "model_type"}}
        network: nn.Module
        if ours.config.registers:
            network = Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**settings))
        else:
            network = Dinov2Model(Dinov2Config(**settings))
        state = newer_names(huggingface.from_own(ours.state_dict()))
        super().__init__(ours, network, state)

    def tokens(self, pixels: Tensor) -> Tensor:
        found: Tensor = self.network(pixels).last_hidden_state
        return found


def newer_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the names that transformers 5 has in memory for those in files."""
    renamed = {}
    for key, value in state.items():
        name = key.replace("attention.output.dense", "attention.o_proj").replace("mlp.weights_out", "mlp.down_proj")
        for part in ("query", "key", "value"):
            name = name.replace(f"attention.attention.{part}", f"attention.{part[0]}_proj")
        if "mlp.weights_in" in name:
            gate, up = value.chunk(2)
            renamed[name.replace("weights_in", "gate_proj")] = gate
            renamed[name.replace("weights_in", "up_proj")] = up
        else:
            renamed[name] = value
    return renamed
