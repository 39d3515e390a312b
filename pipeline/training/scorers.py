"""The processes of a job that only score, and what the learners ask them by."""

from rhostream.loaders.stream import Exchange, Ranks
from rhostream.pipeline.models import Costs, build_model, place, repeatable_convolutions
from rhostream.pipeline.training.candidates import train_stream
from rhostream.pipeline.training.learner import Learner
from rhostream.pipeline.training.plan import TrainPlan
from rhostream.pipeline.training.selection_setup import scoring_options
from rhostream.schema import COST_UNITS
from rhostream.selection.scoring import CandidateScores, RemoteScorers, Scorer, selection_function, serve_scores

Spent = tuple[float, float, float]


def remote_scorers(plan: TrainPlan, learner: Learner, learners: Exchange, job: Exchange, costs: Costs) -> RemoteScorers:
    """The scorers, for a learner; what they spend is charged to `score`."""

    def charge(spent: Spent) -> None:
        seconds, cpu_seconds, flops = spent
        costs.add("score", seconds=seconds, cpu_seconds=cpu_seconds, flops=flops)

    ranks = range(job.size - plan.config.scorers, job.size)
    return RemoteScorers(learner.weights, ranks, learners, job.group, charge)


def serve(plan: TrainPlan, job: Exchange, costs: Costs) -> None:
    """What a scorer does, until the learners have no more to be scored."""
    config, corpus = plan.config, plan.corpus
    built = build_model(config.model, len(corpus.classes), plan.spec, seed=config.seed, weights=config.weights or None)
    model = place(built, plan.device)
    scorer = Scorer(model, scoring_options(plan), task=plan.task, seed=config.seed)
    last = [0.0] * len(COST_UNITS)

    def spent() -> Spent:
        now = [sum(costs.spent(name)[unit] for name in ("load", "score")) for unit in COST_UNITS]
        seconds, cpu_seconds, flops = (value - before for value, before in zip(now, last, strict=True))
        last[:] = now
        return seconds, cpu_seconds, flops

    model.train()
    with repeatable_convolutions(), costs.charge("score"):
        serve_scores(
            model,
            train_stream(plan, Ranks()),
            CandidateScores(scorer, None, costs, Exchange(alone=True)),
            selection_function(config.select),
            scorers=config.scorers,
            group=job.group,
            spent=spent,
        )
