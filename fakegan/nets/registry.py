"""The classifiers' nets by name."""

from __future__ import annotations

from typing import Any

from torch import nn

from fakegan.errors import UsageError
from fakegan.nets.alexnet import AlexNet
from fakegan.nets.dcgan import DCGANDiscriminator
from fakegan.nets.recon_error import ReconError
from fakegan.nets.simple_cnn import SimpleCNN

NETS: dict[str, type[nn.Module]] = {
    "simple_cnn": SimpleCNN,
    "alexnet": AlexNet,
    "dcgan": DCGANDiscriminator,
    "recon_error": ReconError,  # learns nothing here: pipeline=recon_error fills it
}


def build_net(net: str, in_channels: int, options: dict[str, Any]) -> nn.Module:
    """The net of that name.

    Raises:
        UsageError: no such net, or an option it does not have.
    """
    if net not in NETS:
        raise UsageError(f"classifier.net={net!r} does not exist: choose {', '.join(NETS)}")
    try:
        return NETS[net](in_channels=in_channels, **options)
    except (TypeError, ValueError) as error:
        raise UsageError(f"classifier.net_options of {net}: {error}") from error
