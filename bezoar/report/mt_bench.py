"""MT-Bench grades by checkpoint: the differences from one to the next, and the contests."""

from bezoar.judging.differences import Difference, bootstrap_change
from bezoar.report.run import Contest, Run


def differences(run: Run) -> dict[str, dict[str, Difference]]:
    """Return checkpoint -> the one before it (Run.compared_with) -> the amount by which its grades
    are higher, turn by turn. Two checkpoints are left out unless they share graded turns of at
    least two questions."""
    by_checkpoint = {}
    scores = {
        checkpoint: {
            (grade.question_id, int(grade.turn)): grade.score
            for grade in run.grades[checkpoint]
            if grade.score is not None
        }
        for checkpoint in run.checkpoints
    }
    for after, before in run.compared_with(run.checkpoints).items():
        if (difference := bootstrap_change(scores[before], scores[after], run.seed)) is not None:
            by_checkpoint[after] = {before: difference}
    return by_checkpoint


def contests(run: Run) -> list[Contest]:
    """Return the contests in which something was compared."""
    return [contest for contest in run.contests.values() if contest.metrics["win_rate"] is not None]
