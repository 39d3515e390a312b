"""How a run chooses: the policy and the scorer that its settings ask for, and what they learn from each step."""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from rhostream.errors import ConfigError
from rhostream.loaders.decode import ImageSpec
from rhostream.loaders.stream import Exchange
from rhostream.pipeline.il import ILMetadata
from rhostream.pipeline.models import Costs, model_of_samples, resolve_precision
from rhostream.pipeline.training.plan import TrainPlan
from rhostream.pipeline.training.validation_samples import validation_samples
from rhostream.selection.companions import LiveIL, ProxyScorer
from rhostream.selection.dealing import require_shares
from rhostream.selection.policies import Auto, Fixed, GatedImportance, Handover, Policy, Validation, usual_arms
from rhostream.selection.scoring import ScoredCandidates, Scorer, ScoringOptions, grad_norm, without_ddp
from rhostream.selection.selected_batch import SelectedBatch


def scoring_options(plan: TrainPlan) -> ScoringOptions:
    """How the scoring pass of the model in training runs."""
    config = plan.config
    precision = resolve_precision(plan.device, config.precision)
    return ScoringOptions(
        batchnorm=config.batchnorm,
        precision=precision if config.score_precision == "auto" else config.score_precision,
        compile=config.score_compile,
        size=config.score_size or None,
    )


class SelectionSetup:
    """What a run hands to its selector, and tells of each gradient step.

    Args:
        model, optimizer: of the learner, on its device.

    Raises:
        ConfigError: the settings ask for what the IL table or the corpus does not give.
    """

    def __init__(
        self,
        plan: TrainPlan,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        costs: Costs,
        exchange: Exchange,
    ) -> None:
        self._plan, self._config, self._device = plan, plan.config, plan.device
        self._model, self._costs, self._exchange = model, costs, exchange
        self.scorer = self._scorer()
        self.live_il = self._live_il(optimizer) if self._config.live_il else None
        self.policy = self._policy()

    def learned(self, batch: SelectedBatch, logits: Tensor) -> None:
        """Take in a gradient step of the learner.

        Args:
            logits: (n_b, classes) of the training pass.
        """
        if isinstance(self.policy, GatedImportance):
            own = grad_norm(ScoredCandidates(labels=batch.labels, logits=logits.float())).cpu()
            self.policy.learned(torch.cat(self._exchange.objects(own)))
        for name, other in (("proxy's step", self.scorer), ("live IL's step", self.live_il)):
            if isinstance(other, (ProxyScorer, LiveIL)):
                self._costs.flops(
                    "score", (name, *next(iter(batch.scored_fields.values())).shape), partial(other.update, batch)
                )

    def _policy(self) -> Policy:
        config, selection = self._config, self._plan.selection.config
        if selection is None:
            return self._auto()
        if config.hands_over:
            quality = self._plan.quality
            filters = bool(config.prefilter) or (quality is not None and quality.filters)
            return Handover(selection, guess=self._guess, prefilter=filters)
        if config.select == "grad_norm_is" and config.rule == "default":
            return GatedImportance(selection, config.super_batch_size)
        return Fixed(selection)

    def _auto(self) -> Auto:
        plan, config, costs = self._plan, self._config, self._costs
        assert plan.il is not None, "`plan_selection` sees to it"
        with costs.charge("auto"):
            quality = plan.quality
            if quality is None:
                raise ConfigError(
                    f"select 'auto' with IL table {plan.il!r}, which does not tell what its model predicts: name a "
                    "selection function"
                )
            kept = validation_samples(
                plan.workspace,
                plan.corpus,
                plan.il,
                quality,
                plan.spec,
                threads=config.threads,
                exchange=self._exchange,
            )
        # Of a table that does not tell how certain its model is, half is believed.
        wrong = quality.ruled_out / 2 if quality.wrong is None else quality.wrong

        def validate() -> Validation:
            precision = resolve_precision(self._device, config.precision)
            found = kept.calibrated(without_ddp(self._model), self._device, precision, costs=costs, cost="auto")
            # Half a sample more, of which nothing is known: else the loss of what is always right is as good as 0, and
            # falls without end in proportion.
            loss = (found.samples * found.loss + self._guess / 2) / (found.samples + 0.5)
            return Validation(loss=loss, error=1 - found.accuracy)

        # On a CPU the decoders share the cores with the model, and others may, too: CPU-seconds are what is paid.
        unit = "seconds" if self._device.type == "cuda" else "cpu_seconds"
        most = plan.most_candidates(quality, kept=len(kept))
        arms = usual_arms(config.batch_size, most, quality.ruled_out, wrong, filters=quality.filters)
        for arm in arms.values():
            require_shares(arm.selection.batch_size, self._exchange.size)
        return Auto(
            arms,
            super_batch_size=config.super_batch_size,
            validate=validate,
            clock=lambda: self._exchange.sums([costs.total(unit, ("load", "score", "auto", "train"))])[0],
        )

    @property
    def _guess(self) -> float:
        return self._plan.task.guess(len(self._plan.corpus.classes))

    def _scorer(self) -> Scorer:
        config = self._config
        options = scoring_options(self._plan)
        if not config.proxy:
            return Scorer(self._model, options, task=self._plan.task, seed=config.seed)
        il_metadata = self._il_metadata("proxy")
        spec = il_metadata.spec
        texts = il_metadata.text_spec or spec
        if not isinstance(texts, ImageSpec) and texts != (self._plan.text_spec or self._plan.spec):
            raise ConfigError(
                f"proxy with IL model {il_metadata.name!r}, which has another tokenizer or length than "
                "the run: train both with the same --tokenizer and --text-length"
            )
        proxy = model_of_samples(
            il_metadata.architecture,
            len(self._plan.corpus.classes),
            spec,
            il_metadata.text_spec,
            loss=config.contrastive_loss,
            seed=config.seed,
        )
        size = spec.size if isinstance(spec, ImageSpec) else None
        options = ScoringOptions(batchnorm=config.batchnorm, precision=options.precision, size=size)
        return ProxyScorer(
            self._trained_together(proxy.to(self._device)),
            self._plan.workspace,
            il=il_metadata.name,
            options=options,
            task=self._plan.task,
            seed=config.seed,
        )

    def _live_il(self, optimizer: torch.optim.Optimizer) -> LiveIL:
        il_metadata = self._il_metadata("live_il")
        if len(il_metadata.models) > 1:
            raise ConfigError(
                f"live_il with IL model {il_metadata.name!r} of {len(il_metadata.models)} folds: which would go "
                "on learning? Use one that was trained on a holdout"
            )
        model = il_metadata.load(self._plan.workspace, il_metadata.models[0]).to(self._device)
        model = self._trained_together(model)
        return LiveIL(model, optimizer, task=self._plan.task, seed=self._config.seed)

    def _trained_together(self, companion: nn.Module) -> nn.Module:
        """A companion is trained on the batch of all processes, too."""
        if self._exchange.size == 1:
            return companion
        devices = [self._device] if self._device.type == "cuda" else None
        return DistributedDataParallel(companion, device_ids=devices)

    def _il_metadata(self, setting: str) -> ILMetadata:
        il = self._plan.il
        if il is None or il.endswith(".parquet") or "/" in il:
            raise ConfigError(f"{setting} needs an IL model of the workspace, not {il!r}: name one with --il")
        return ILMetadata.read(self._plan.workspace, il)
