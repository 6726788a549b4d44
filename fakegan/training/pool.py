"""The pool of past reconstructions that keeps the discriminator from chasing only the newest ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fakegan.checks import SIZES
from fakegan.errors import UsageError
from fakegan.nets.cpu import take_channels_last
from fakegan.system import ranks


class ReconstructionPool(nn.Module):
    """Up to `size` past reconstructions (Shrivastava et al. 2017, arXiv:1612.07828, section 2.3).

    It fills first. Then each new reconstruction is, with probability 1/2, exchanged for a past one: the past one is
    shown, the new one takes its slot. In a batch of B faces, place p has the slots p, p + B, p + 2B, ..., and a face is
    exchanged within the slots of its place. So the exchange is one gather and one scatter on the device, of the same
    shapes in every step. As places are dealt to processes, each process keeps a pool, and together they show what one
    process would. Draws come from torch's CPU generator. Pictures and counts go into the checkpoint.
    """

    def __init__(
        self,
        size: int = 50,
        pixels: int = SIZES[0],  # a side of each
    ) -> None:
        super().__init__()
        self.size = size
        self.steps = 0  # batches taken in
        self.batch = 0  # faces of each, over all processes
        self.register_buffer("images", torch.zeros(size, 3, pixels, pixels))
        self.images: Tensor
        take_channels_last(self)  # as the networks before and behind it

    def forward(self, recon: Tensor) -> Tensor:  # (B, 3, pixels, pixels) detached -> the same shape, some of them older
        """Exchange some of `recon` for past reconstructions; a UsageError for those of another size."""
        if recon.shape[1:] != self.images.shape[1:]:
            own, side = self.images.shape[-1], recon.shape[-1]
            raise UsageError(
                f"the pool keeps reconstructions of {own}x{own} pixels, but the faces have {side}x{side}: give the "
                "class of model._target_ an option `size`, which a run fills in, and pass it to AdversarialAutoencoder"
            )
        self.batch = batch = len(recon) * ranks.count()
        place = ranks.dealt(torch.arange(min(batch, self.size)))  # (P,), the places with slots: a batch may be larger
        slots = (self.size - place + batch - 1) // batch  # of each place
        chance, choice = ranks.draw(lambda faces: torch.rand(faces, 2), len(recon))[: len(place)].unbind(dim=1)
        filling = slots > self.steps
        exchanging = ~filling & (chance < 0.5)
        slot = place + batch * torch.where(filling, self.steps, (choice * slots).long())
        plan = torch.stack([slot, exchanging, filling | exchanging])
        plan = plan.pin_memory() if recon.is_cuda else plan  # a copy does not wait for what the device still computes
        plan = plan.to(recon.device, non_blocking=True)
        slot, (taken, kept) = plan[0], plan[1:].bool()[..., None, None, None]

        new, past = recon[: len(place)], self.images[slot]  # (P, 3, pixels, pixels)
        self.images[slot] = torch.where(kept, new.to(past.dtype), past)
        self.steps += 1
        shown = torch.where(taken, past.to(new.dtype), new)
        return shown if len(place) == len(recon) else torch.cat([shown, recon[len(place) :]])

    def own_images(self) -> Tensor:  # (size, 3, pixels, pixels)
        """This process's slots, zeros in the others': their sum over the processes is the whole pool."""
        own = torch.arange(self.size) % max(self.batch, 1) % ranks.count() == ranks.rank()
        return self.images * own.view(-1, 1, 1, 1).to(self.images)

    def get_extra_state(self) -> dict[str, Any]:
        """How many batches it has taken in, and of which size: part of the state dict."""
        return {"steps": self.steps, "batch": self.batch}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore the values of `get_extra_state`."""
        self.steps, self.batch = int(state["steps"]), int(state["batch"])
