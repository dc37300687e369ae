"""The page: its sections in their order. bezoar/report/sections works out the numbers of each, and
page.html lays them out."""

from bezoar.report import paper, trust, words
from bezoar.report.run import Run
from bezoar.report.sections import (
    contents,
    costs,
    funnels,
    losses,
    opening,
    origins,
    scores,
    talks,
    votes,
)
from bezoar.report.summary import simulated


def page(run: Run, examples: int) -> str:
    """Return the whole report as one HTML document. At its end stand `examples` questions with
    every checkpoint's answer."""
    return words.render(
        "page.html",
        style=words.STYLE,
        paper=paper,
        profile=run.profile,
        base=origins.base(run),
        same_base=any(part.repository == paper.REPOSITORY for part in run.sources["base"].parts),
        sources=origins.sources(run),
        licences=run.licences,
        stand_ins=run.stand_ins,
        simulated=[
            words.SPEAKERS[speaker]
            for speaker, is_simulated in simulated(run).items()
            if is_simulated
        ],
        glance=opening.glance(run),
        points=opening.points(run),
        skills=opening.skills(run),
        funnels=funnels.funnels(run),
        own=funnels.own_sets(run),
        meanings=funnels.meanings(run),
        distributions=contents.distributions(run),
        judges=trust.judges(run),
        graders=trust.graders(run),
        least_auc=run.least_auc,
        panels={scheme: judging for scheme, judging in run.judging.items() if judging.judges > 1},
        tasks=contents.tasks(run),
        lengths=contents.lengths(run),
        training=losses.training(run),
        dpo=losses.preferences(run.dpo, run.preference) if run.dpo else None,
        harness=scores.of_harness(run),
        mt_bench=scores.of_mt_bench(run),
        agreement=votes.agreement(run),
        spending=costs.spending(run),
        examples=talks.examples(run, examples),
        checkpoints=run.checkpoints,
        further=list(run.further),
        speakers=opening.speakers(run),
        voters_simulated=run.voters_simulated,
    )
