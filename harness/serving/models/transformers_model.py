"""Any causal language model of a Hugging Face folder, through torch and transformers (the extra `local`).

Nothing is fetched and no code of the folder is run. This module imports without torch; what needs it is in
`local`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import UsageError

if TYPE_CHECKING:
    from harness.serving.models.local.models import CachedModel, RereadingModel

INSTALL = "pip install 'forced-choice[local]'"


def load_transformers(
    folder: Path, *, device: str = "auto", dtype: str = "auto"
) -> CachedModel | RereadingModel:
    """The model of a Hugging Face folder.

    Args:
        folder: with `config.json` and weights.
        device: as torch names it; `auto` is `cuda` where there is one, else `cpu`.
        dtype: of the weights; `auto` is float32 on a processor, elsewhere the checkpoint's own. Logits are
            float32 always.

    Raises:
        UsageError: torch or transformers are not installed, the device is not there, or the folder holds no
            causal language model that they can load.
    """
    try:
        from harness.serving.models.local import models, network
    except ModuleNotFoundError as error:
        raise UsageError(
            f"--model {folder}: this model needs {error.name}, which is not installed: {INSTALL}"
        ) from error
    return models.served(network.load(folder, device, dtype))
