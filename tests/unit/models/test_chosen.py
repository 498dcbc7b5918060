"""The pass that ends in the wanted tokens alone, and LayerScale taken into the weights of the layer before it."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from cgeartheye.models.blocks import LayerScale
from cgeartheye.models.sizes import build
from cgeartheye.models.vit import VisionTransformer, VitConfig

TINY = VitConfig(name="tiny", depth=3, width=24, heads=3, hidden=48, patch_px=4, layer_scale=0.5, position_px=16)
VIEWS = ((4, 16, 16), (6, 8, 8), (3, 12, 8))


def views_and_masks() -> tuple[list[Tensor], list[Tensor | None]]:
    generator = torch.Generator().manual_seed(3)
    views = [torch.rand(b, 3, h, w, generator=generator, dtype=torch.float64) for b, h, w in VIEWS]
    return views, [torch.rand(4, 16, generator=generator) < 0.4, None, None]


def network(*, ffn: Literal["mlp", "swiglu"], registers: int, drop_path: float) -> VisionTransformer:
    model = build(replace(TINY, ffn=ffn, registers=registers, drop_path=drop_path), seed=1).double()
    for number, parameter in enumerate(model.parameters()):
        nn.init.normal_(parameter, std=0.2, generator=torch.Generator().manual_seed(number))
    return model


def gradients(model: VisionTransformer, classes: Tensor, patches: Tensor) -> list[Tensor]:
    loss = (classes * torch.linspace(-1, 1, classes.numel(), dtype=torch.float64).view_as(classes)).sum()
    loss = loss + (patches**2 * torch.linspace(-1, 2, patches.numel(), dtype=torch.float64).view_as(patches)).sum()
    return [
        g if g is not None else torch.zeros(()) for g in torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    ]


@pytest.mark.parametrize(
    ("ffn", "registers", "drop_path"), [("mlp", 0, 0.0), ("swiglu", 4, 0.0), ("mlp", 4, 0.4), ("swiglu", 0, 0.5)]
)
def test_chosen_tokens_are_those_of_the_whole_pass(ffn: Literal["mlp", "swiglu"], registers: int, drop_path: float) -> None:
    model = network(ffn=ffn, registers=registers, drop_path=drop_path).train()
    views, masks = views_and_masks()
    chosen = torch.tensor([0, 15, 16, 63, 40, 15])  # first and last patches of a row of the batch, and one twice
    model.reseed(7)
    whole = model.forward_views(views, masks)
    model.reseed(7)
    classes, patches = model.forward_chosen(views, masks, chosen)
    of_whole = torch.cat([features.class_token for features in whole]), whole[0].patches.flatten(0, 2)[chosen]
    torch.testing.assert_close((classes, patches), of_whole, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(gradients(model, classes, patches), gradients(model, *of_whole), rtol=1e-9, atol=1e-9)
    with torch.no_grad():
        model.reseed(7)
        torch.testing.assert_close(model.forward_chosen(views, masks, chosen), of_whole, rtol=1e-9, atol=1e-9)


def scaled(layer: nn.Module, rows: int) -> tuple[Tensor, list[Tensor], Tensor]:
    """Output, gradients of parameters and input, and what a plain product gives."""
    scale = LayerScale(5).double()
    nn.init.uniform_(scale.gamma, 0.1, 1, generator=torch.Generator().manual_seed(0))
    tokens = torch.rand(rows, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    wanted = [*layer.parameters(), scale.gamma, tokens]
    out, plain = scale.after(layer, rows)(tokens), layer(tokens) * scale.gamma
    weight = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view_as(out)
    found, expected = (list(torch.autograd.grad((value * weight).sum(), wanted)) for value in (out, plain))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    return out, found, plain


@pytest.mark.parametrize("rows", [8, 9, 100])
def test_scaled_weights_give_the_scaled_output_and_its_gradients(rows: int) -> None:
    out, _, plain = scaled(nn.Linear(8, 5).double(), rows)
    torch.testing.assert_close(out, plain, rtol=1e-12, atol=1e-12)


def test_a_layer_that_somebody_wrapped_is_called_as_it_is() -> None:
    class Adapted(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's own name
            return super().forward(input) + 1.0

    out, _, plain = scaled(Adapted(8, 5).double(), 100)
    torch.testing.assert_close(out, plain, rtol=1e-12, atol=1e-12)
