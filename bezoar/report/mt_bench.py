"""MT-Bench grades by checkpoint: what moved from one to the next, and who beats whom."""

from bezoar.judging.differences import Difference, bootstrap_change
from bezoar.report.run import Contest, Run


def differences(run: Run) -> dict[str, dict[str, Difference]]:
    """Checkpoint -> the one before it (Run.beside) -> how much higher its grades are, turn by turn;
    where the two share graded turns of at least two questions."""
    found = {}
    scores = {
        checkpoint: {
            (grade.question_id, int(grade.turn)): grade.score
            for grade in run.grades[checkpoint]
            if grade.score is not None
        }
        for checkpoint in run.checkpoints
    }
    for after, before in run.beside(run.checkpoints).items():
        if (moved := bootstrap_change(scores[before], scores[after], run.seed)) is not None:
            found[after] = {before: moved}
    return found


def contests(run: Run) -> list[Contest]:
    """Those in which something was compared."""
    return [contest for contest in run.contests.values() if contest.metrics["win_rate"] is not None]
