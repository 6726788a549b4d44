"""Every combination of the values of a sweep: Hydra's own sweeper, but for what cannot be composed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hydra.core.plugins import Plugins

from fakegan.errors import UsageError
from fakegan.sweep.launcher import ProcessLauncher
from fakegan.sweep.plugins import make_known

Plugins.instance()  # on its first look for plugins Hydra defines its sweeper anew

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper  # noqa: E402


def register() -> None:
    """Make the sweeper known to Hydra, which conf/hydra/sweeper/grid.yaml chooses."""
    make_known(Grid)


class Grid(BasicSweeper):
    """A job that cannot be composed is that job's failure, with this project's launchers; others refuse them all.

    Raises:
        UsageError: `params` is no table of keys and what they sweep over.
    """

    def __init__(
        self,
        params: Mapping[str, str] | None,  # what is swept, beside the words of the command
    ) -> None:
        if params is not None and not isinstance(params, Mapping):
            raise UsageError(f"hydra.sweeper.params={params} must be keys and values: leave it out, or params.KEY=1,2")
        # All jobs at once: in batches, one that fails would keep Hydra's sweeper from the batches behind it.
        super().__init__(max_batch_size=None, params=dict(params or {}))

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Raises a HydraException for a job that cannot be composed, where the launcher would not tell."""
        if not isinstance(self.launcher, ProcessLauncher):
            super().validate_batch_is_legal(batch)
