"""A run of Weights & Biases beside ours; its own variables (WANDB_MODE=offline, WANDB_ENTITY …) hold."""

import secrets
from collections.abc import Mapping

import wandb
from PIL.Image import Image

from rhostream.pipeline.jobs import read_run_facts
from rhostream.pipeline.training.run import Run


class WandbLog:
    """Logs scalars and pictures at each evaluation.

    A killed run that goes on is the same run to Weights & Biases: its id is kept in the run's folder.

    Args:
        project: of Weights & Biases.
    """

    def __init__(self, run: Run, project: str) -> None:
        workspace, corpus = run.workspace, f"{run.folder}/wandb.json"
        if not workspace.exists(corpus):
            workspace.write_json(corpus, {"id": secrets.token_hex(4)})
        self._run = wandb.init(
            project=project,
            name=run.name,
            id=workspace.read_json(corpus)["id"],
            resume="allow",
            reinit="create_new",
            dir=workspace.path(run.folder) if workspace.is_local else None,
            config=read_run_facts(workspace, run.name),
            settings=wandb.Settings(console="off"),  # our stdout is for results
        )

    def evaluated(self, step: int, scalars: Mapping[str, float], pictures: Mapping[str, Image]) -> None:
        images = {name: wandb.Image(picture) for name, picture in pictures.items()}
        self._run.log({**scalars, **images}, step=step)

    def close(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))
