"""TensorBoard's event files of a run, in `runs/<name>/tensorboard/`."""

from collections.abc import Mapping

import numpy as np
from PIL.Image import Image
from torch.utils.tensorboard import SummaryWriter

from rhostream.pipeline.jobs import TemporaryFolder
from rhostream.pipeline.training.run import Run


class TensorBoardLog:
    """Writes scalars and pictures, and flushes them, at each evaluation.

    TensorBoard appends to a file, which a store of objects does not offer: for a remote workspace the file is written
    here and put there, whole, at each evaluation.

    Args:
        first_step: what an earlier, killed process logged of this step and later ones is void.
    """

    def __init__(self, run: Run, first_step: int) -> None:
        self._workspace, self._folder = run.workspace, f"{run.folder}/tensorboard"
        self._scratch = None if self._workspace.is_local else TemporaryFolder("rho-tensorboard-")
        place = str(self._scratch.path) if self._scratch is not None else self._workspace.path(self._folder)
        self._writer = SummaryWriter(place, purge_step=first_step)

    def evaluated(self, step: int, scalars: Mapping[str, float], pictures: Mapping[str, Image]) -> None:
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)
        for name, picture in pictures.items():
            self._writer.add_image(name, np.asarray(picture), step, dataformats="HWC")
        self._writer.flush()
        if self._scratch is not None:
            for file in self._scratch.path.iterdir():
                self._workspace.write_bytes(f"{self._folder}/{file.name}", file.read_bytes())

    def close(self, failed: bool) -> None:
        self._writer.close()
        if self._scratch is not None:
            self._scratch.remove()
