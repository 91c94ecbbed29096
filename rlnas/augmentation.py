"""Augmentation: each training image is moved a little, anew in every epoch, so that few examples look like many."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import v2


class RandomPlacement(v2.Transform):  # type: ignore[misc]
    """Turns, scales, shifts and mirrors every image of a batch by itself.

    Torchvision's own random transforms draw once for a whole batch. What comes in at the borders is the nearest pixel
    of the image (bilinear, without antialiasing).

    Args:
        degrees: largest angle, to either side.
        shift: largest shift, as a fraction of the side.
        zoom: largest relative change of size.
        mirror: whether every other image is mirrored left to right.
    """

    def __init__(self, degrees: float, shift: float, zoom: float, mirror: bool) -> None:
        super().__init__()
        self.degrees, self.shift, self.zoom, self.mirror = degrees, shift, zoom, mirror

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draws from torch's global generator, as torchvision's transforms do."""
        count, height, width = (flat_inputs[0].shape[i] for i in (0, -2, -1))
        angle, scale, right, down = torch.rand(4, count) * 2 - 1
        angle, scale = torch.deg2rad(angle * self.degrees), 1 / (1 + scale * self.zoom)
        cos, sin = scale * angle.cos(), scale * angle.sin()
        signs = 1 - 2.0 * (torch.rand(count) < 0.5) if self.mirror else torch.ones(count)
        # Of each image's affine map from where a pixel goes to where it comes from; sides count as 2, hence the ratios.
        rows = (
            torch.stack([cos * signs, -sin * (height / width), 2 * self.shift * right], 1),
            torch.stack([sin * signs * (width / height), cos, 2 * self.shift * down], 1),
        )
        return {"maps": torch.stack(rows, 1)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Tensor:
        """Images of shape (N, C, H, W)."""
        grid = F.affine_grid(params["maps"].to(inpt.device), list(inpt.shape), align_corners=False)
        return F.grid_sample(inpt, grid, padding_mode="border", align_corners=False)


AUGMENTATIONS: dict[str, v2.Transform] = {
    "none": v2.Identity(),
    "shift": RandomPlacement(degrees=10, shift=0.08, zoom=0.1, mirror=False),
    "natural": RandomPlacement(degrees=5, shift=0.12, zoom=0.1, mirror=True),
}
"""By name: ``none``; ``shift`` for pictures whose left and right differ, such as digits, signs and spectrograms;
``natural`` for photographs, which may be mirrored. Add your own transform of batches here."""


def augment(images: Tensor, name: str, seed: int) -> Tensor:
    """Images of shape (N, C, H, W) as ``seed`` places them; the global generators stay as they are."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return AUGMENTATIONS[name](images)  # type: ignore[no-any-return]
