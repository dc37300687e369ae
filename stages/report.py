"""Show the run: one static page with every table and figure, ours beside the paper's.

reads   source.json of every fetch, data/fetch/mt_bench/: questions.jsonl and votes.json,
        data/filter/*/: funnel.json, distributions.json, licences.json and contamination.jsonl,
        data/lm_eval/*/: results.json and items.jsonl,
        data/mt_answer, data/mt_grade, data/agreement/: table.json, biases.json,
        metrics/: generate, judge, mix, sft, dpo, mt_grade, agreement
writes  metrics/report/report.html; metrics/report/answers/: index.html, all questions with their
        grades, and CHECKPOINT.html, all it answered and the others beside it;
        metrics/report/cards/CHECKPOINT.md: a card each
metrics metrics/report/summary.json: all numbers; headline.json and checkpoints.csv: the few that
        `dvc metrics diff` and `dvc plots diff` show
"""

from bezoar import params, report, work
from bezoar.params import arguments
from bezoar.report import model_card as model
from bezoar.rows import files


def main() -> None:
    work.begin()
    settings = params.load()
    run = report.read(settings)
    files.write_json("metrics/report/summary.json", report.summary(run))
    files.write_json("metrics/report/headline.json", report.headline(run))
    files.write("metrics/report/checkpoints.csv", report.checkpoints(run))
    files.write("metrics/report/report.html", [report.page(run, settings.report.examples)])
    for name in run.checkpoints:
        files.write(f"metrics/report/answers/{name}.html", [report.answers(run, name)])
    files.write("metrics/report/answers/index.html", [report.index(run)])
    for name in model.checkpoint_weights(settings):
        files.write(f"metrics/report/cards/{name}.md", [model.card(name, run, settings)])


if __name__ == "__main__":
    arguments.none("stages.report", __doc__)
    main()
