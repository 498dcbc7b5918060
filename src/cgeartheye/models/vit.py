"""The plain vision transformer of the DINOv2 lineage.

B batch, V views, N patches, T packed tokens, D width, H W pixels, h w patches (h = ceil(H / patch)).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cgeartheye.errors import ShapeError
from cgeartheye.models.attention import Group
from cgeartheye.models.blocks import NORM_EPS, Block, Kept, draw_kept
from cgeartheye.models.positions import Interpolation, resize_positions
from cgeartheye.seeding import derive

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
RGB = ("red", "green", "blue")

Norm = Literal["last", "all", "none"]
"""Which levels get the final norm: the last block's only, every one, or none."""


@dataclass(frozen=True, kw_only=True)
class VitConfig:
    """Everything that decides the shape, the start and the input scaling of a network."""

    name: str
    """Name of the size."""
    depth: int
    """Number of blocks."""
    width: int
    """Width D of a token."""
    heads: int
    """Attention heads; divides the width."""
    hidden: int
    """Nominal hidden width of the MLP."""
    ffn: Literal["mlp", "swiglu"] = "mlp"
    """Kind of the MLP."""
    patch_px: int = 14
    """Side of a patch in pixels [paper]."""
    registers: int = 0
    """Register tokens [paper: none]."""
    layer_scale: float = 1e-5
    """Start of every LayerScale factor [paper]."""
    position_px: int = 518
    """Side in pixels of the square that the learned positions were made for [paper]."""
    drop_path: float = 0.0
    """Share of rows that each residual branch drops in training, the same in every block [dinov2]."""
    bands: tuple[str, ...] = RGB
    """What the input channels are, in their order [paper]."""
    mean: tuple[float, ...] = IMAGENET_MEAN
    """Mean of each channel, for inputs in [0, 1] [dinov2]."""
    std: tuple[float, ...] = IMAGENET_STD
    """Standard deviation of each channel, for inputs in [0, 1] [dinov2]."""
    position_interpolation: Interpolation = "plain"
    """How the learned positions are brought to other sizes; a property of the weights, set by who imports them [mmpretrain]."""

    def __post_init__(self) -> None:
        if not len(self.bands) == len(self.mean) == len(self.std) == len(set(self.bands)) > 0:
            raise ShapeError(f"{self.name}: bands {self.bands} need one name, one mean and one deviation each")
        if self.position_interpolation not in get_args(Interpolation):
            raise ShapeError(f"{self.name}: position_interpolation is one of {get_args(Interpolation)}")
        if self.width % self.heads or self.position_px % self.patch_px:
            raise ShapeError(f"{self.name}: heads must divide the width, and the patch the side of the positions")
        if not (0 <= self.drop_path < 1 and self.layer_scale > 0 and min(self.std) > 0):
            raise ShapeError(f"{self.name}: drop_path is in [0, 1), layer_scale and std are above 0")

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> VitConfig:
        """Build from what :meth:`to_json` returned; unknown or missing keys raise TypeError."""
        fields: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in value.items()}
        return cls(**fields)


class Features(NamedTuple):
    """The tokens of a batch, after the final norm unless something else is asked for."""

    class_token: Tensor
    """(B, D) float."""
    patches: Tensor
    """(B, h, w, D) float."""


def block_numbers(layers: Sequence[int], depth: int) -> list[int]:
    """Return block numbers counted from 0, negative ones from the end.

    Raises:
        ShapeError: if one does not exist.
    """
    if not all(-depth <= layer < depth for layer in layers):
        raise ShapeError(f"layers {list(layers)} are not all among the {depth} blocks")
    return [layer % depth for layer in layers]


def patch_grid(height: int, width: int, patch_px: int) -> tuple[int, int]:
    """Return the patches h and w of a picture of ``height`` x ``width`` pixels, padded to the patch; sizes may be symbolic."""
    return (height + patch_px - 1) // patch_px, (width + patch_px - 1) // patch_px


def pad_to_patch(pixels: Tensor, patch_px: int) -> Tensor:
    """Pad (B, C, H, W) at the right and bottom to multiples of the patch, by repeating the edge.

    Raises:
        ShapeError: if there is no pixel.
    """
    H, W = pixels.shape[2:]
    h, w = patch_grid(H, W, patch_px)
    if torch.compiler.is_exporting():  # symbolic sizes: an index for every row and column instead of a branch
        rows = torch.arange(h * patch_px, device=pixels.device).clamp(max=H - 1)
        columns = torch.arange(w * patch_px, device=pixels.device).clamp(max=W - 1)
        return pixels.index_select(2, rows).index_select(3, columns)
    if 0 in pixels.shape:
        raise ShapeError(f"images are not empty, got {tuple(pixels.shape)}")
    bottom, right = h * patch_px - H, w * patch_px - W
    return F.pad(pixels, (0, right, 0, bottom), mode="replicate") if bottom or right else pixels


class PatchEmbedding(nn.Module):
    """Cuts normalised images into patches and embeds each linearly."""

    def __init__(self, patch_px: int, bands: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(bands, width, kernel_size=patch_px, stride=patch_px)

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 3, H, W) float to (B, h, w, D); H and W are multiples of the patch."""
        patches: Tensor = self.proj(images)  # (B, D, h, w)
        return patches.permute(0, 2, 3, 1)


class VisionTransformer(nn.Module):
    """Plain pre-norm ViT with class token, learned positions and LayerScale; parameter names as in DINOv2.

    It is built without values: :func:`cgeartheye.models.sizes.build` or a state dict gives them.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.config = config
        side = config.position_px // config.patch_px
        self.cls_token = nn.Parameter(torch.empty(1, 1, config.width))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + side * side, config.width))
        self.mask_token = nn.Parameter(torch.empty(1, config.width))
        if config.registers:
            self.register_tokens = nn.Parameter(torch.empty(1, config.registers, config.width))
        self.patch_embed = PatchEmbedding(config.patch_px, len(config.bands), config.width)
        self.blocks = nn.ModuleList(Block(config.width, config.heads, config.hidden, ffn=config.ffn) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, eps=NORM_EPS)
        self.register_buffer("mean", torch.tensor(config.mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config.std).view(-1, 1, 1), persistent=False)
        self.reseed(0)

    @property
    def width(self) -> int:
        """Width D of a token."""
        return self.config.width

    @property
    def patch_px(self) -> int:
        """Side of a patch in pixels."""
        return self.config.patch_px

    def reseed(self, seed: int) -> None:
        """Start the stream of dropped rows anew; training calls it each step, so that a resumed run drops the same rows."""
        self._drop_seed, self._drop_calls = seed, 0

    def forward(self, images: Tensor, masks: Tensor | None = None) -> Features:
        """Return the tokens of a batch after the final norm.

        Args:
            images: (B, C, H, W), uint8 or float in [0, 1], the C bands of the config (RGB unless the weights say more); H and W
                are padded at the right and bottom to the patch by repeating the edge, so h = ceil(H / patch).
            masks: (B, N) bool, True where a patch is replaced by the mask token; N = h * w, row-major.

        Raises:
            ShapeError: if a shape does not fit.
        """
        return self.forward_views([images], [masks])[0]

    def forward_views(self, views: Sequence[Tensor], masks: Sequence[Tensor | None]) -> list[Features]:
        """Return the tokens of several views of different sizes, computed in one packed pass.

        Linear layers and norms see all tokens at once, attention each view's rows apart; the result is that of separate calls.

        Args:
            views: V images, each (B_v, 3, H_v, W_v) as in :meth:`forward`.
            masks: for each view (B_v, N_v) bool or None.

        Raises:
            ShapeError: if a shape does not fit.
        """
        tokens, groups, grids = self._pack(views, masks)
        for block, kept in zip(self.blocks, self._kept(groups, tokens.device), strict=True):
            tokens = block(tokens, groups, kept)
        return self._unpack(self.norm(tokens), groups, grids)

    def forward_chosen(self, views: Sequence[Tensor], masks: Sequence[Tensor | None], chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Return the class tokens of all views and some patches of the first one, equal to those of :meth:`forward_views`.

        In the last block all tokens attend, but the projection, the MLP and the final norm see the wanted ones alone: of a
        step of self-distillation a tenth, which saves two thirds of a block.

        Args:
            views: as in :meth:`forward_views`.
            masks: likewise.
            chosen: (R,) int64 patches of the first view, counted through its (B, N).

        Returns:
            (sum of B_v, D) class tokens after the final norm, view after view, and (R, D) patches.

        Raises:
            ShapeError: if a shape does not fit.
        """
        tokens, groups, grids = self._pack(views, masks)
        patches = grids[0][0] * grids[0][1]
        rows, start = [], 0
        for group in groups:
            rows.append(torch.arange(start, start + group.tokens, group.length, device=tokens.device))
            start += group.tokens
        extra = groups[0].length - patches  # class token and registers
        rows.append(chosen + (chosen // patches + 1) * extra)
        wanted = torch.cat(rows)
        kept = self._kept(groups, tokens.device)
        for number, block in enumerate(self.blocks):
            tokens = block(tokens, groups, kept[number], wanted if number == self.config.depth - 1 else None)
        split = len(wanted) - len(chosen)
        tokens = self.norm(tokens)
        return tokens[:split], tokens[split:]

    def levels(self, images: Tensor, layers: Sequence[int], norm: Norm = "last") -> list[Features]:
        """Return the tokens after chosen blocks.

        Args:
            images: (B, C, H, W) as in :meth:`forward`.
            layers: block numbers from 0; negative ones count from the end.
            norm: which levels the final norm is applied to.

        Returns:
            The tokens after each of ``layers``, in the order asked for.

        Raises:
            ShapeError: if a layer does not exist or a shape does not fit.
        """
        wanted = block_numbers(layers, self.config.depth)
        tokens, groups, grids = self._pack([images], [None])
        found: dict[int, Features] = {}
        for number, (block, kept) in enumerate(zip(self.blocks, self._kept(groups, tokens.device), strict=True)):
            tokens = block(tokens, groups, kept)
            if number in wanted:
                normed = norm == "all" or (norm == "last" and number == self.config.depth - 1)
                found[number] = self._unpack(self.norm(tokens) if normed else tokens, groups, grids)[0]
        return [found[layer] for layer in wanted]

    def normalise(self, images: Tensor) -> Tensor:
        """Return (B, C, H, W) images, uint8 or float in [0, 1], as float with the config's mean and deviation taken out."""
        working = torch.promote_types(self.pos_embed.dtype, torch.float32)
        scaled = images.to(working) if images.is_floating_point() else images.to(working) / 255
        return (scaled - self.mean.to(working)) / self.std.to(working)

    def _embed(self, images: Tensor, mask: Tensor | None) -> tuple[Tensor, tuple[int, int]]:
        bands = self.config.bands
        if images.ndim != 4 or images.shape[1] != len(bands):
            raise ShapeError(f"images are (B, {len(bands)}, H, W): {', '.join(bands)}; got {tuple(images.shape)}")
        pixels = pad_to_patch(self.normalise(images), self.patch_px)
        patches = self.patch_embed(pixels.to(self.pos_embed.dtype))  # (B, h, w, D)
        B, h, w, D = patches.shape
        if mask is not None:
            if mask.shape != (B, h * w):
                raise ShapeError(f"a mask of this view is {(B, h * w)}, got {tuple(mask.shape)}")
            patches = torch.where(mask.view(B, h, w, 1), self.mask_token.to(patches.dtype), patches)
        side = self.config.position_px // self.patch_px
        table = self.pos_embed[0, 1:].view(side, side, D)
        patches = patches + resize_positions(table, h, w, self.config.position_interpolation)
        first = (self.cls_token + self.pos_embed[:, :1]).expand(B, -1, -1)
        extra = [self.register_tokens.expand(B, -1, -1)] if self.config.registers else []
        return torch.cat([first, *extra, patches.flatten(1, 2)], dim=1), (h, w)  # (B, 1 + registers + N, D)

    def _pack(
        self, views: Sequence[Tensor], masks: Sequence[Tensor | None]
    ) -> tuple[Tensor, tuple[Group, ...], list[tuple[int, int]]]:
        if len(views) != len(masks) or not views:
            raise ShapeError(f"{len(views)} views and {len(masks)} masks; there is one mask (or None) a view, and at least one")
        embedded = [self._embed(view, mask) for view, mask in zip(views, masks, strict=True)]
        groups = tuple(Group(tokens.shape[0], tokens.shape[1]) for tokens, _ in embedded)
        packed = torch.cat([tokens.flatten(0, 1) for tokens, _ in embedded])  # (T, D)
        return packed, groups, [grid for _, grid in embedded]

    def _unpack(self, tokens: Tensor, groups: Sequence[Group], grids: Sequence[tuple[int, int]]) -> list[Features]:
        parts = torch.split(tokens, [group.tokens for group in groups])
        features = []
        for part, group, (h, w) in zip(parts, groups, grids, strict=True):
            rows = part.view(group.rows, group.length, -1)
            features.append(Features(rows[:, 0], rows[:, 1 + self.config.registers :].reshape(group.rows, h, w, -1)))
        return features

    def _kept(self, groups: Sequence[Group], device: torch.device) -> list[tuple[Kept | None, Kept | None]]:
        if not (self.training and self.config.drop_path):
            return [(None, None)] * self.config.depth
        generator = torch.Generator().manual_seed(derive(self._drop_seed, "drop path", self._drop_calls))
        self._drop_calls += 1
        drawn = draw_kept(groups, self.config.drop_path, 2 * self.config.depth, generator=generator)
        moved = [Kept(k.tokens.to(device), k.groups, k.scale.to(device)) for k in drawn]
        return [(moved[i], moved[i + 1]) for i in range(0, len(moved), 2)]
