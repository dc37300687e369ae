"""The report: its numbers come from the run's files, and nothing a model said can break it."""

import hashlib
import inspect
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from markupsafe import escape

from bezoar import params, report
from bezoar.filtering import curation, distributions, gates
from bezoar.judging import differences
from bezoar.report import figures, harness, paper
from bezoar.report.sections import funnels, opening
from bezoar.report.words import clean, excerpt
from bezoar.rows import files
from bezoar.rows.files import BadInput
from bezoar.rows.records import Grade
from tests.builders import ROOT, parameters
from tests.builders.runs import (
    CHECKPOINTS,
    POINTS,
    SETTINGS,
    SKILLS,
    Outline,
    answered,
    contest,
    copied,
    edit,
    grow,
    judged,
    put,
    table,
)

# --- a run that never happened -------------------------------------------------------------------


def settings(local: bool = False) -> params.Params:
    return SETTINGS.model_copy(update={"profile": "local"}) if local else SETTINGS


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The made-up run, and the test inside its folder."""
    monkeypatch.chdir(grow(tmp_path))
    return tmp_path


@pytest.fixture
def local_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(grow(tmp_path, local=True))
    return tmp_path


def render(local: bool = False, examples: int = 4) -> tuple[dict[str, Any], str]:
    run = report.read(settings(local))
    return report.summary(run), report.page(run, examples)


# --- numbers -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_summary_has_the_promised_shape(tree: Path) -> None:
    found, _ = render()
    assert list(found["skills"]) == ["base", "lamini", "orca", "sft", "hh_rlhf", "dpo"]
    assert set(found["skills"]["orca"]) == set(SKILLS)
    assert found["dpo"]["accuracy"] == 0.9123  # 4 digits of 0.91234567
    assert {"accuracy", "margin", "accuracy_before"} <= set(found["dpo"])
    assert list(found["lm_eval"]) == CHECKPOINTS
    assert set(found["lm_eval"]["sft"]["sums"]) == {"acc", "acc_norm"}
    assert {"turn_1", "turn_2", "average", "average_low", "coverage"} <= set(
        found["mt_bench"]["dpo"]
    )
    assert list(found["mt_bench_differences"]["dpo"]) == ["hh_rlhf"]
    assert found["mt_compare"]["sft"]["win_rate"] == 0.7
    assert found["funnel"]["evol_instruct"]["equal"] == 17
    assert {"asked", "accepted", "rejected", "undecided"} <= set(found["funnel"]["orca"])
    assert found["profile"] == "embedded"
    assert found["simulated"] == dict.fromkeys(("teacher", "judge", "grader", "voters"), True)
    files.write_json("metrics/report/summary.json", found)  # plain JSON, no NaN


CHANGES: list[tuple[str, Any, Any, str]] = [
    (
        "data/lm_eval/orca/results.json",
        lambda v: v["skills"]["explained"].update(share=0.37),
        lambda s: s["skills"]["orca"]["explained"] == 0.37,
        ">37</td>",
    ),
    (
        "data/lm_eval/sft/results.json",
        lambda v: v["tasks"]["sums"].update(acc=0.98765),
        lambda s: s["lm_eval"]["sft"]["sums"]["acc"] == 0.9877,
        "0.988",
    ),
    (
        "data/filter/lamini/funnel.json",
        lambda v: v.update(copies=4711),
        lambda s: s["funnel"]["lamini"]["copies"] == 4711,
        "4,711",
    ),
    (
        "data/filter/orca/distributions.json",
        lambda v: v["sets"]["after"].update(distance=0.12345),
        lambda s: s["target_distance"]["orca"]["after"] == 0.1235,
        "<strong>0.12</strong> after",
    ),
    (
        "metrics/dpo/dpo.json",
        lambda v: v.update(margin=-1.2345),
        lambda s: s["dpo"]["margin"] == -1.2345,
        "−1.23",
    ),
    (
        "metrics/mt_grade/hh_rlhf.json",
        lambda v: v.update(turn_2=9.87654),
        lambda s: s["mt_bench"]["hh_rlhf"]["turn_2"] == 9.8765,
        "9.88",
    ),
    (
        "data/fetch/mt_bench/votes.json",
        lambda v: v.update(simulated=False),
        lambda s: s["simulated"]["voters"] is False,
        "the teacher, the judge and the MT-Bench grader",
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("path", "change", "told", "shown"), CHANGES, ids=[c[0] for c in CHANGES])
def test_a_number_changed_in_a_file_changes_in_both_outputs(
    tree: Path, path: str, change: Any, told: Any, shown: str
) -> None:
    found, page = render()
    assert not told(found) and shown not in page
    edit(path, change)
    found, page = render()
    assert told(found) and shown in page


@pytest.mark.slow
def test_tasks_and_lengths_are_told_before_and_after(tree: Path) -> None:
    path = "data/filter/evol_instruct/distributions.json"

    def change(told: Any) -> None:
        for row in told["lengths"]:
            if (row["field"], row["unit"], row["category"]) == ("response", "tokens", ""):
                row["max"] = {"before": 87654, "after": 76543}[row["set"]]
        told["sets"]["before"]["tasks"]["chat"] += 900
        for which, n in (("before", 3), ("after", 200)):
            told["sets"][which]["tasks"]["a kind <of> its own"] = n

    assert "76,543" not in render()[1]
    edit(path, change)
    page = render()[1]
    assert "<td>76,543<small>87,654</small></td>" in page
    assert "30,000" in page, "the axis reaches the longest"
    drawn = re.search(r"Kinds of task: Evol-Instruct</title><desc[^>]*>(.*?)</desc>", page)
    assert drawn and "chat 300 % before, 0 % after, 8 % in the target" in drawn[1]
    assert "a kind &lt;of&gt; its own 1 % before, 100 % after, 0 % in the target" in drawn[1]
    whole = re.search(r"Kinds of task: All schemes together</title><desc[^>]*>(.*?)</desc>", page)
    assert whole and "chat 50 % before" in whole[1]  # 900 of 3 x 300 and 900


def test_rows_generated_stand_beside_rows_kept(tree: Path) -> None:
    def change(funnel: Any) -> None:
        funnel["distributions"]["generated"]["category"] = {"open_qa": 900, "gone": 300}
        funnel["distributions"]["kept"]["category"] = {"open_qa": 450}

    edit("data/filter/lamini/funnel.json", change)
    page = render()[1]
    section = page.split('<section id="distributions">')[1].split("</section>")[0]
    lines = [line.split("</tr>")[0] for line in section.split("<tr>")]
    rows = [" ".join(re.sub("<[^>]*>", " ", line).split()) for line in lines]
    assert rows[2:4] == ["open qa 450 900", "gone 0 300"]
    assert 'style="width:50.0%"></i><i class="before" style="width:100.0%">' in lines[2]
    # figure 8, drawn and in numbers
    assert "open qa in depth 31 of 40, in breadth 9 of 23" in section
    assert rows[-2:] == ["open qa 31 of 40 9 of 23", "classification – –"]
    drawn = re.findall(r'class="part kept [a-z0-9]+" d="M\S+ \d+h([\d.]+)v', section)
    assert float(drawn[0]) / float(drawn[1]) == pytest.approx(31 / 9, rel=0.02)


def test_the_share_of_replies_read_stands_beside_what_was_parsed(tree: Path) -> None:
    _, page = render()
    assert page.count('<th scope="row">replies read</th><td>96.4 %</td>') == 3
    assert "change undecided" in page
    for scheme in ("lamini", "evol_instruct", "orca"):
        edit(f"data/filter/{scheme}/funnel.json", lambda funnel: funnel.pop("replies_read"))
    assert "replies read" not in render()[1]


@pytest.mark.slow
def test_an_empty_set_has_no_distance_and_no_lengths(local_tree: Path) -> None:
    found, page = render(local=True)
    assert found["target_distance"]["evol_instruct"] == {"before": None, "after": None}
    assert "Distance to the target: – before, <strong>–</strong> after" in page
    assert '<desc id="tokens-evol_instruct-d">No rows.</desc>' in page
    assert not Outline(page).open


def test_the_curves_are_drawn_from_the_csv(tree: Path) -> None:
    before = render()[1]
    path = Path("metrics/sft/orca_eval.csv")
    path.write_text("epoch,loss\n0,40\n1,nan\n2,20\n3,\n")
    after = render()[1]
    assert before != after
    assert "loss over epoch" in after and "held out from 40 to 20" in after


def asking(runs: int, link: str = "lamini", **how: Any) -> params.Params:
    """Settings by which a link has so many runs of ten epochs at most; `how` of sft beside it."""
    amount = SETTINGS.sft.links[link].model_copy(update={"runs": runs, "epochs": 10})
    links = {**SETTINGS.sft.links, link: amount}
    return SETTINGS.model_copy(
        update={"sft": SETTINGS.sft.model_copy(update=how | {"links": links})}
    )


def shown(changed: params.Params) -> str:
    return report.page(report.read(changed), 1)


def row(page: str, head: str) -> str:
    """The words of the row of the training's tables that begins with `head`."""
    page = page[page.index('<section id="training">') :]
    found = re.search(rf'<tr><th scope="row"[^>]*>{head}(.*?)</tr>', page, re.DOTALL)
    assert found, head
    return " ".join(re.sub("<[^>]*>", " ", found[1]).replace("paper ", "/ ").split())


def test_each_run_of_a_link_stands_beside_the_papers(tree: Path) -> None:
    runs = {
        "1": {"epochs": 2, "eval_loss_start": 3.5, "eval_loss_end": 1.25},
        "2": {"epochs": 10, "eval_loss_start": 1.5, "eval_loss_end": 0.875},
    }
    edit("metrics/sft/lamini.json", lambda v: v.update(runs=runs, epochs=12, kept_epoch=9))
    table(
        Path("metrics/sft/lamini_eval.csv"),
        ["run", "epoch", "loss"],
        [[1, 0, 3.5], [1, 1, 2], [1, 2, 1.25], [2, 2, 1.5], [2, 12, 0.875]],
    )
    page = shown(asking(2))
    assert row(page, "LaMini, run 1") == "2 of 10 / 10 16 / 64 3.5000 / 1.661 1.2500 / 0.8023"
    assert row(page, "LaMini, run 2") == "10 / 10 16 / 64 1.5000 / 0.8063 0.8750 / 0.843"
    assert row(page, "HH-SFT, run 1").count("/") == 0, "the paper prints none"
    assert "12 epochs in 2 runs. The next link goes on from epoch 9." in page
    # a line each: the second starts where its own evaluation puts it, not where the first ended
    chart = page[page.index('aria-labelledby="loss-lamini-t') :]
    chart = chart[: chart.index("</svg>")]
    assert "held out, run 1 from 3.5 to 1.25; held out, run 2 from 1.5 to 0.875" in chart
    first, second = re.findall(r'class="line accent" d="M([^"]*)"', chart)
    assert first.count("L") == 2 and second.count("L") == 1
    (ended, low), (began, high) = (
        map(float, end.split()) for end in (first.split("L")[-1], second.split("L")[0])
    )
    assert ended == began and high < low, "at one epoch, the loss of the start above"
    assert f'class="mark" d="M{began} ' in chart and ">run 2</text>" in chart
    assert page.count('class="mark"') == 1, "links of one run have none"


def test_the_losses_say_over_whose_tokens_they_are_taken(tree: Path) -> None:
    words = Outline(render()[1]).words()
    assert "the mean over the tokens of the answers" in words
    assert "counts the tokens of the prompts too. So compare how the losses fall" in words


@pytest.mark.slow
def test_why_a_further_run_was_not_made_is_told(tree: Path) -> None:
    page = shown(asking(1))
    told = "not asked for – / 10 – / 64 – / 0.8063 – / 0.843"
    assert row(page, "LaMini, run 2") == told
    assert page.count("not asked for") == 2 and "had diverged" not in page
    page = shown(asking(3, divergence=0.025))
    assert row(page, "LaMini, run 2").startswith("the losses of run 1 had diverged – / 10")
    assert "LaMini, run 3" not in page and "at most 2.5 % above" in page
    page = shown(asking(2, "hh_rlhf"))
    assert row(page, "HH-SFT, run 2") == "the losses of run 1 had diverged – – – –"


def test_rows_of_a_link_are_told_by_set_and_what_was_cut_of_them(tree: Path) -> None:
    assert row(render()[1], "LaMini</th>") == "400 44 0 0"
    sets = {"filter/orca": 310, "filter/lamini": 31, "fetch/hh_rlhf": 59}
    edit("metrics/mix/orca.json", lambda v: v.update(sets=sets))
    edit("metrics/sft/orca.json", lambda v: v.update(dropped_rows=56, truncated_share=0.25))
    page = render()[1]
    by_set = "400 Orca 310 LaMini again 31 HH-RLHF again 59"
    assert row(page, "Orca</th>") == f"{by_set} 44 111 25.0 % 56 11.2 %"
    assert "“Again” are rows" in page


@pytest.mark.slow
def test_what_is_not_the_papers_way_of_training_is_told(tree: Path) -> None:
    assert "Unlike in the paper" not in render()[1]
    assert "NEFTune, alpha 5)" in shown(asking(1, neftune_alpha=5.0))
    for changed, told in (
        ({"loss": "ipo"}, "Unlike in the paper, the loss is ipo (there sigmoid)."),
        ({"loss": "robust", "label_smoothing": 0.1}, "robust, label smoothing 0.1 (there sigmoid)"),
        ({"weights": "adapter", "lora_r": 4}, "a LoRA adapter of rank 4 was trained and merged"),
        ({"epochs": 3, "loss": "ipo"}, "(there sigmoid) and there were 3 epochs (there 1)."),
    ):
        dpo = SETTINGS.dpo.model_copy(update=changed)
        assert told in Outline(shown(SETTINGS.model_copy(update={"dpo": dpo}))).words()
    edit("metrics/dpo/dpo.json", lambda v: v.update(truncated_share=0.031))
    assert "3.1 % of the pairs were longer than the limits" in render()[1]


def test_agreement_shows_every_pair_and_the_papers_beside_our_graders(tree: Path) -> None:
    found, page = render()
    assert found["agreement"] == {"grader_human_s1_turn_1": 0.6123}
    row = page[page.index("<bdi>grader</bdi> and <bdi>human majority</bdi>") :]
    row = row[: row.index("</tr>")]
    assert "61 %" in row and "55–68 %" in row and "756 of 1,240" in row and "0.31" in row
    # the paper's turn 1: 61 % and 88 %, 334 and 308 votes
    assert row.count('class="paper"') == 2 and "61 %, 334" in row and "88 %, 308" in row
    humans = page[page.index("<bdi>human</bdi> and <bdi>human</bdi>") :]
    assert 'class="paper"' not in humans[: humans.index("</tr>")]
    words = Outline(page).words()
    assert "The votes of this run are simulated" in words and "on 640 pairs" in words
    assert "616 of turn 1 and 613 of turn 2, of 2 models (alpaca, gpt-4)" in words
    assert "The grader has a verdict on 600 and 613" in words
    assert "this run has no votes of gpt4 single" in words
    for by in ("category", "models"):
        part = page.split(f'aria-label="Agreement by {by}"')[1].split("</table>")[0]
        assert "25 %<small>5 of 20</small></td>" in part
    sways = page[page.index('aria-label="What sways the judges"') :]
    own, order = sways[: sways.index("</tbody>")].split("</tr>")[1:3]
    assert "for its own model" in own and "93 %" in own and "91–95 %" in own and "82 %" in own
    assert "shown in the other order" in order and "16 %" in order and "<td>–</td>" in order


def test_single_grades_stand_without_the_papers_pairwise_shares(tree: Path) -> None:
    edit("data/agreement/study.json", lambda s: s.update(verdicts="single", which="all"))
    page = render()[1]
    table = page.split('aria-label="Agreement of judges"')[1].split("</table>")[0]
    assert "<bdi>grader</bdi>" in table and 'class="paper"' not in table
    words = Outline(page).words()
    assert "do not stand beside single grades" in words
    assert "The study takes every pair of answers on which any kind of judge has a verdict" in words


def test_a_question_graded_without_its_reference_is_counted_and_named(tree: Path) -> None:
    path = Path(f"data/mt_grade/{CHECKPOINTS[0]}/grades.jsonl")
    first, *others = files.read_jsonl(path, Grade)
    files.write_jsonl(path, [first.model_copy(update={"reference": "missing"}), *others])
    words = Outline(render()[1]).words()
    assert "1 without a reference" in words
    assert f"a turn of question {first.question_id} was graded without a reference" in words


def test_a_grade_stands_with_its_interval_and_the_difference_to_the_one_before(tree: Path) -> None:
    for at, checkpoint in enumerate(CHECKPOINTS):
        path = Path(f"data/mt_grade/{checkpoint}/grades.jsonl")
        grades = list(files.read_jsonl(path, Grade))
        # dpo: what hh_rlhf has, one more on the first turns
        scores = {"score": 4.0, "status": "ok"}
        files.write_jsonl(
            path,
            [
                g.model_copy(update={**scores, "score": 4.0 + (at == 3) * (g.turn == 1)})
                for g in grades
            ],
        )
    edit(
        "metrics/mt_grade/dpo.json",
        lambda m: m.update(average=4.5, average_low=4.0, average_high=5),
    )
    found, page = render()
    assert found["mt_bench_differences"]["dpo"]["hh_rlhf"]["mean"] == 0.5
    table = page.split('aria-label="MT-Bench by turn"')[1].split("</table>")[0]
    base, _, hh_rlhf, dpo = (row.split("</tr>")[0] for row in table.split("<tr>")[2:6])
    assert "4.50<small>4.00–5</small>" in dpo and "+0.5</span> <span>[0.5, 0.5]" in dpo
    assert "unchanged" in hh_rlhf and "unchanged" not in base and "moved" not in base


def test_tables_7_and_8_have_the_turns_that_the_paper_prints(tree: Path) -> None:
    def grades(table: str) -> dict[str, list[str]]:
        found = {}
        for row in table.split("<tr>")[2:]:
            head = re.sub("<[^>]*>", "", row.split("</th>")[0])
            found[head] = re.findall(r"paper </span>([\d.]+)", row)
        return found

    page = render()[1]
    table = page.split('aria-label="MT-Bench by turn"')[1].split("</table>")[0]
    assert grades(table) == {
        "Base": [],
        "SFT": ["1.82", "1.57", "1.68"],
        "HH-SFT": ["4.11", "2.47", "3.23"],
        "DPO": ["4.79", "3.44", "4.12"],
        "RedPajama-INCITE-Chat-3B-v1not in this run": ["1.57", "1.33", "1.45"],
        "MiniChat-2-3Bnot in this run": ["6.87", "6.00", "6.43"],
        "Phi-2not in this run": ["4.43", "2.99", "3.72"],
    }
    assert "name them in <code>others</code>" in page


def test_a_mean_by_category_stands_with_its_interval(tree: Path) -> None:
    run = report.read(SETTINGS)
    writing = {q.question_id for q in run.questions if q.category == "writing"}
    told = [(g.question_id, g.score) for g in run.grades["dpo"] if g.question_id in writing]
    scores = [(question, score) for question, score in told if score is not None]
    low, high = differences.bootstrap(scores, run.seed) or (0.0, 0.0)
    assert low < high
    _, page = render()
    assert f" {low:.1f}–{high:.1f}" in row(page, "<bdi>writing</bdi>")


def test_an_agreement_on_one_question_stands_without_an_interval(tree: Path) -> None:
    nothing = dict.fromkeys(("s1_low", "s1_high", "s2_low", "s2_high"))
    edit("data/agreement/table.json", lambda rows: rows[0].update(nothing))
    edit("data/agreement/biases.json", lambda rows: rows[0].update(low=None, high=None))
    page = render()[1]
    for title in ("Agreement of judges", "What sways the judges"):
        first, second = page.split(f'aria-label="{title}"')[1].split("<tr>")[2:4]
        interval = r"[0-9]+–[0-9.]+ %"
        assert not re.search(interval, first) and re.search(interval, second)


def test_win_rates_stand_with_their_interval_where_something_was_compared(tree: Path) -> None:
    edit(
        "metrics/mt_compare/sft.json",
        lambda m: m.update(win_rate_low=0.55, win_rate_high=0.825, coverage=0.975),
    )
    put(tree / "metrics/mt_compare/dpo.json", contest(None))
    table = render()[1].split('aria-label="MT-Bench against a baseline"')[1].split("</table>")[0]
    rows = [" ".join(re.sub("<[^>]+>", " ", row).split()) for row in table.split("<tr>")[2:]]
    assert rows == [
        "SFT against Base, 97.5 % of the turns 28 4 2 6 70 % 55–82 % 70 % 70–70 % "
        "70 % 70–70 % 81 64"
    ]


def test_how_answers_ended_is_shown_for_each_checkpoint(tree: Path) -> None:
    edit("metrics/mt_answer/sft.json", lambda counts: counts.update(no_room=7654))
    table = render()[1].split("How the answers ended</h3>")[1].split("</table>")[0]
    rows = [" ".join(re.sub("<[^>]+>", " ", row).split()) for row in table.split("<tr>")[2:]]
    assert len(rows) == len(CHECKPOINTS)
    assert rows[1].endswith(" 64 48 75.0 % 11 7,654 6 1 12.3"), rows[1]


@pytest.mark.slow
def test_spending_is_shown_by_stage_scheme_and_model(tree: Path) -> None:
    found, page = render()
    assert found["spending"]["judge"]["orca"]["calls"] == 0
    assert list(found["spending"]["agreement"]) == ["agreement"]
    assert "Nothing was bought" in page
    bought = {"calls": 1200, "tokens_in": 345_678, "tokens_out": 90_000}
    for name, model, usd in (
        ("generate/lamini_spending", "teacher <1>", 1.5),
        ("judge/orca_spending", "judge", 0.00004),
        ("agreement/spending", "judge", 2.25),
    ):
        edit(f"metrics/{name}.json", lambda v, m=model, u=usd: v.update(bought, model=m, usd=u))
    found, page = render()
    assert found["spending"]["judge"]["orca"] == {**bought, "model": "judge", "usd": 0.00004}
    words = Outline(page).words().replace(" ", "")
    assert "Nothingwasbought" not in words and "$3.75inall" in words
    assert "generateLaMiniteacher<1>1,200345,67890,000$1.50" in words
    assert "judgeOrcajudge1,200345,67890,000<$0.01" in words
    assert "Alljudge2,400691,356180,000$2.25" in words
    files.write_json("metrics/report/summary.json", found)
    assert "Bought: 3,600 answers for $3.75" in printed(tree)


@pytest.mark.slow
def test_a_panel_is_shown_by_member_and_by_pair(tree: Path) -> None:
    found, page = render()
    assert "judges of the panel" not in page and found["panels"] == {}
    members = ("open <1>", "b", "c")
    for scheme in ("lamini", "orca"):
        files.write_json(f"metrics/judge/{scheme}.json", judged(*members))
    path, usd = "metrics/judge/orca.json", (1.5, 0.25, 0.0)
    for member, price in zip(members, usd, strict=True):
        paid = {"calls": 500, "tokens_in": 1000, "tokens_out": 2000, "usd": price}
        edit(path, lambda v, m=member, p=paid: v["members"][m].update(p))
    total = {"calls": 1500, "tokens_in": 3000, "tokens_out": 6000, "usd": 1.75}
    edit("metrics/judge/orca_spending.json", lambda v: v.update(total, model=", ".join(members)))
    found, page = render()
    words = Outline(page).words().replace(" ", "")
    assert "<1>" not in page
    for shown in (
        "LaMiniopen<1>40090100",
        "LaMiniopen<1>,b81%n480–",
        "Orcaallofthem75%",
        "judgeOrcaopen<1>5001,0002,000$1.50",
        "judgeOrcab5001,0002,000$0.25",
        "Allc5001,0002,000$0.00",
        "$1.75inall",
    ):
        assert shown in words, shown
    assert page.count("<h3>How far the judges of the panel agree</h3>") == 1
    assert set(found["panels"]) == {"lamini", "orca"} and len(found["panels"]["orca"]["pairs"]) == 3
    assert found["spending"]["judge"]["orca"]["usd"] == 1.75


@pytest.mark.slow
def test_what_a_judges_word_is_worth_stands_beside_its_verdicts(tree: Path) -> None:
    found, page = render()
    words = Outline(page).words().replace(" ", "")
    assert "LaMiniworld-judge(simulated)0.930.85–0.99,n2090%5%95%" in words
    assert "Singlegradesworld-judge(simulated)0.930.85–0.99,n20–95%" in words
    assert "Pairsworld-judge(simulated)0.930.85–0.99,n2035%95%" in words
    assert "belowtheline" not in words and "nobetterthanacoin" not in words
    assert found["known"]["orca"]["world-judge"]["known_auc"] == 0.9345
    files.write_json("metrics/report/summary.json", found)
    shown = "Right from wrong (AUC, a coin 0.50): judge 0.93, grader 0.93"
    assert shown in printed(tree)
    assert found["mt_bench"]["base"]["known_auc"] == 0.9345


def test_a_judge_below_the_line_is_marked(tree: Path) -> None:
    members = ("open <1>", "b")
    files.write_json("metrics/judge/lamini.json", judged(*members))
    weak = {"known_auc": 0.6, "known_auc_low": 0.55, "known_auc_high": 0.66}
    coin = {"known_auc": 0.52, "known_auc_low": 0.4, "known_auc_high": 0.63}
    for who, values in zip(members, (weak, coin), strict=True):
        edit("metrics/judge/lamini.json", lambda v, w=who, x=values: v["members"][w].update(x))
    edit(f"metrics/mt_grade/{CHECKPOINTS[1]}.json", lambda v: v.update(coin))
    words = Outline(render()[1]).words().replace(" ", "")
    assert "LaMiniopen<1>(simulated)0.600.55–0.66,n20belowtheline" in words
    assert "LaMinib(simulated)0.520.40–0.63,n20nobetterthanacoin" in words
    assert f"Singlegrades,{CHECKPOINTS[1]}world-judge(simulated)0.520.40–0.63,n20nobetter" in words


@pytest.mark.parametrize(
    ("trust", "shown"),
    [
        ({"known_rows": 3}, "not checked: 3 seeds have an answer that can be checked, too few"),
        ({"known_rows": None}, "nothing says whether the judge is better than a coin"),
    ],
)
def test_a_judge_that_was_not_checked_is_told(
    tree: Path, trust: dict[str, Any], shown: str
) -> None:
    unasked = dict.fromkeys(("known_auc", "known_auc_low", "known_auc_high", "known_read"))
    for scheme in paper.SAMPLING:
        edit(
            f"metrics/judge/{scheme}.json",
            lambda v: v["members"]["world-judge"].update(unasked | trust),
        )
    assert shown in Outline(render()[1]).words()


def test_a_run_from_before_the_check_is_shown(tree: Path) -> None:
    paths = [*Path("metrics/judge").glob("*.json"), *Path("metrics/mt_grade").glob("*.json")]
    for path in [*paths, *Path("metrics/mt_compare").glob("*.json")]:
        text = re.sub(r'"known_\w+": [\d.]+,? ?', "", path.read_text(encoding="utf-8"))
        path.write_text(text.replace(", }", "}"), encoding="utf-8")
    words = Outline(render()[1]).words()
    assert words.count("So nothing says whether the judge is better") == 1
    assert words.count("So nothing says whether the grader is better") == 1


def test_who_is_real_is_not_called_simulated(tree: Path) -> None:
    for scheme in paper.SAMPLING:
        edit(
            f"data/filter/{scheme}/funnel.json",
            lambda v: v.update(simulated_teacher=False, simulated_judge=False),
        )
    edit("data/fetch/mt_bench/votes.json", lambda v: v.update(simulated=False))
    for checkpoint in CHECKPOINTS:
        path = Path(f"data/mt_grade/{checkpoint}/grades.jsonl")
        path.write_text(path.read_text().replace('"simulated": true', '"simulated": false'))
    found, page = render()
    assert not any(found["simulated"].values()) and "Simulated in this run" not in page


def test_a_run_from_the_hub_names_repository_commit_and_licence(tree: Path) -> None:
    part = {
        "repository": "someone/rows",
        "revision": "0123456789abcdef" * 2,
        "licence": "CC-BY-4.0",
    }
    put(tree / "data/fetch/dolly/source.json", {"source": "hub", "parts": [part], "rows": {"a": 3}})
    dump = {"source": "wikipedia", "url": "https://example.org/dump", "licence": "CC-BY-SA-4.0"}
    put(tree / "data/fetch/topics/source.json", dump)
    put(tree / "data/fetch/benchmarks/source.json", {"source": "harness"})
    text = render()[1]
    assert "someone/rows<small>0123456789ab · CC-BY-4.0</small>" in text
    assert "https://example.org/dump<small>CC-BY-SA-4.0</small>" in text
    assert "another base" in text
    base = {"source": "hub", "parts": [{**part, "repository": paper.REPOSITORY}]}
    put(tree / "models/fetch/base/source.json", base)
    assert f"recipe (arXiv 2404.12195) on {paper.REPOSITORY}" in render()[1]
    assert "another base" not in render()[1]


def test_what_was_found_and_left_in_is_told(tree: Path) -> None:
    assert "<h4>Found and left in" not in render()[1]
    edit("data/filter/orca/funnel.json", lambda v: v.update(reported={"contaminated": 4_321}))
    page = render()[1]
    assert page.count("<h4>Found and left in") == 1 and "4,321" in page


# --- what is missing -----------------------------------------------------------------------------


def test_a_run_on_own_files_says_what_it_has_not(local_tree: Path) -> None:
    found, page = render(local=True)
    words = Outline(page).words()
    assert set(found["skills"]) == set(POINTS) and not any(found["skills"].values())
    assert "no skills were probed" in words and "The grader has no row here" in words
    assert "No row was generated" in words and "None was dropped" in words
    # the same task names as the paper's: its values stand beside ours
    assert "0.6991" in words and "0.7927" in words and "Compare how scores change" in words
    assert "local/base" in words and "profile local" in words
    assert "local/topics is empty" in words and "rows.jsonl: no answer: 17" in words


def test_other_tasks_are_called_not_comparable(tree: Path) -> None:
    words = Outline(render()[1]).words()
    assert "0.6991" not in words
    assert "not comparable with the paper’s Table 6: the base is another" in words


# --- harness -------------------------------------------------------------------------------------


def harness_row(page: str, task: str) -> str:
    """The first line of `task` in the harness table."""
    return next(line for line in page.split("<tr>") if f"<bdi>{task}</bdi>" in line)


def test_a_real_difference_is_marked_and_told_with_its_interval(tree: Path) -> None:
    answered(tree, "base", {"animals": [0.0] * 100 + [1.0] * 100, "sums": [0.0, 1.0] * 20})
    answered(tree, "sft", {"animals": [0.0] * 60 + [1.0] * 140, "sums": [0.0, 1.0] * 20})
    answered(tree, "hh_rlhf", {"animals": [0.0] * 61 + [1.0] * 139, "sums": [1.0] * 40})
    answered(tree, "dpo", {"animals": [0.0] * 160 + [1.0] * 40})
    found, page = render()
    animals, sums = harness_row(page, "animals"), harness_row(page, "sums")
    # 40 of 200 items got better: 0.2 ± 1.96 * sqrt(0.16 * 200 / 199 / 200)
    assert "▲ +20.0</span> <span>[14, 26]</span>" in animals
    assert ">−0.5</span> <span>[−1.5, 0.5]</span>" in animals, "plain: the interval holds zero"
    assert "▼ −49.5</span> <span>[−56, −43]</span>" in animals
    assert "unchanged" in sums and "▲ +50.0" in sums and sums.count("moved") == 2
    told = found["lm_eval_differences"]
    assert told["sft"]["base"]["animals"]["acc"] == {
        "mean": 0.2,
        "low": 0.1444,
        "high": 0.2556,
        "real": True,
    }
    assert set(told["dpo"]) == {"hh_rlhf", "base"} and "base" not in told
    assert told["hh_rlhf"]["base"]["animals"]["acc_norm"]["mean"] == 0.195
    assert not told["hh_rlhf"]["sft"]["animals"]["acc"]["real"]
    assert "sums" not in told["dpo"]["base"], "no items of it"


def test_few_items_prove_nothing(tree: Path) -> None:
    for point, score in zip(CHECKPOINTS, (0.0, 1.0, 0.0, 1.0), strict=True):
        answered(tree, point, {"animals": [score] * 5})
    found, page = render()
    assert "+100.0</span>" in page and "▲ +100.0" not in page
    assert not found["lm_eval_differences"]["sft"]["base"]["animals"]["acc"]["real"]


def as_the_paper(leave_out: Sequence[str] = ()) -> None:
    """Give the run's checkpoints the paper's scores, truthfulqa by its two parts."""
    for at, point in enumerate(paper.CHECKPOINTS):
        tasks: dict[str, Any] = {
            task: {"n": 500} | {metric: values[at] for metric, values in by_metric.items()}
            for task, by_metric in paper.HARNESS.items()
            if task not in (*leave_out, "truthfulqa")
        }
        pooled = paper.HARNESS["truthfulqa"]["acc"][at]
        parts = {"truthfulqa_mc1": pooled - 0.1, "truthfulqa_mc2": pooled + 0.1}
        tasks |= {part: {"acc": acc, "n": 100} for part, acc in parts.items()}
        edit(f"data/lm_eval/{point}/results.json", lambda v, t=tasks: v.update(tasks=t))
        spread = [(-1) ** n * 0.05 for n in range(100)]
        scores = {part: [acc + by for by in spread] for part, acc in parts.items()}
        answered(Path(), point, scores)


def test_truthfulqa_is_told_by_its_parts_and_as_the_paper_pools_it(tree: Path) -> None:
    as_the_paper()
    run = report.read(SETTINGS)
    rows = {(row.task, row.metric): row for row in harness.rows(run)}
    pooled = rows["truthfulqa", "acc"].cells
    assert [cell.value for cell in pooled] == pytest.approx(paper.HARNESS["truthfulqa"]["acc"])
    assert [cell.paper for cell in pooled] == list(paper.HARNESS["truthfulqa"]["acc"])
    assert pooled[0].error == pytest.approx(0.05 / math.sqrt(99))
    assert pooled[1].before and pooled[1].before.mean == pytest.approx(0.2947 - 0.2581)
    assert [cell.paper for cell in rows["truthfulqa_mc1", "acc"].cells] == [None] * 4
    found, page = render()
    assert found["lm_eval"]["dpo"]["truthfulqa"] == {"acc": 0.2866}
    assert "truthfulqa is the mean of mc1 and mc2" in page


@pytest.mark.slow
def test_the_average_is_over_the_papers_values(tree: Path) -> None:
    as_the_paper()
    whole = harness.average(harness.rows(report.read(SETTINGS)))
    assert whole.n == 16
    assert [round(value or 0, 4) for value in whole.ours] == list(paper.HARNESS_AVERAGE)
    assert [round(value or 0, 4) for value in whole.paper] == list(paper.HARNESS_AVERAGE)
    assert "16 of the paper’s 16 values" in render()[1]
    as_the_paper(leave_out=list(paper.HARNESS)[1:])  # arc_challenge and truthfulqa stay
    part = harness.average(harness.rows(report.read(SETTINGS)))
    assert part.n == 3 and part.ours == pytest.approx(part.paper)
    assert part.ours[0] == pytest.approx((0.3567 + 0.4036 + 0.2581) / 3)
    assert "3 of the paper’s 16 values" in render()[1]


def test_without_the_papers_tasks_the_average_is_over_all(tree: Path) -> None:
    rows = harness.rows(report.read(SETTINGS))
    found = harness.average(rows)
    values = [row.cells[1].value for row in rows]
    assert found.n == 4 and not found.paper
    assert found.ours[1] == pytest.approx(sum(v or 0 for v in values) / 4)


@pytest.mark.slow
def test_the_mean_harness_accuracy_is_one_number_in_every_place(tree: Path) -> None:
    edit("data/lm_eval/dpo/results.json", halved)
    run = report.read(SETTINGS)
    found, page = render()
    means = harness.means(run)
    assert len(set(means.values())) > 1, "the checkpoints differ"
    foot = re.findall(r"<td>(0\.\d{3})", page.partition("<tfoot>")[2].partition("</tfoot>")[0])
    assert foot == [f"{mean:.3f}" for mean in means.values() if mean is not None]
    rounded = {point: round(mean, 4) for point, mean in means.items() if mean is not None}
    assert report.headline(run)["harness"] == rounded == found["harness"]
    lines = [line.split(",") for line in report.checkpoints(run)[1:]]
    assert {point: float(mean) for point, mean, _ in lines} == rounded
    tile = re.search(r"<dt>mean harness accuracy</dt><dd class=\"value\">(.*?) → (.*?)</dd>", page)
    assert tile
    shares = [share.replace("\xa0", " ") for share in tile.groups()]
    assert shares == [f"{100 * rounded[point]:.0f} %" for point in ("base", "dpo")]
    files.write_json("metrics/report/summary.json", found)
    for point, mean in rounded.items():
        assert re.search(rf"^ {point} +\| +{100 * mean:.0f} % \|", printed(tree), re.MULTILINE)


def halved(results: dict[str, Any]) -> None:
    """Halve every acc of a results.json, and no acc_norm."""
    for scores in results["tasks"].values():
        scores["acc"] /= 2


@pytest.mark.slow
def test_no_tasks_no_curves_no_questions_no_grades(tree: Path) -> None:
    for point in POINTS:
        edit(f"data/lm_eval/{point}/results.json", lambda v: v.update(tasks={}, skills={}))
        answered(tree, point, {})
    for checkpoint in CHECKPOINTS:
        Path(f"data/mt_answer/{checkpoint}/answers.jsonl").write_text("")
        Path(f"data/mt_grade/{checkpoint}/grades.jsonl").write_text("")
        edit(
            f"metrics/mt_grade/{checkpoint}.json",
            lambda v: v.update(dict.fromkeys(v, None), coverage=0.0),
        )
    for name in SETTINGS.compared:
        put(tree / f"metrics/mt_compare/{name}.json", contest(None))
    Path("data/fetch/mt_bench/questions.jsonl").write_text("")
    Path("data/agreement/table.json").write_text("[]")
    for name in ("biases", "breakdown"):
        Path(f"data/agreement/{name}.json").write_text("[]")
    Path("metrics/dpo/train.csv").write_text("step,loss,margin,accuracy,chosen,rejected\n")
    Path("metrics/dpo/eval.csv").write_text("step,loss,margin,accuracy,chosen,rejected\n")
    found, page = render()
    words = Outline(page).words()
    assert "no harness tasks" in words and "no points were logged" in words
    assert "agreement with people was not measured" in words
    assert "Against a baseline" not in words and found["mt_bench_differences"] == {}
    assert "No turn was graded" in words and "No question was answered" in words
    assert found["lm_eval"] == {c: {} for c in CHECKPOINTS}
    files.write_json("metrics/report/summary.json", found)
    assert "harness" in printed(tree)


def test_a_missing_or_broken_file_is_named(tree: Path) -> None:
    edit("data/filter/orca/funnel.json", lambda v: v.update(kept="many"))
    with pytest.raises(BadInput, match=r"data/filter/orca/funnel\.json: kept: .*integer"):
        report.read(SETTINGS)
    edit("data/filter/orca/funnel.json", lambda v: v.update(kept=1))
    edit("metrics/sft/orca.json", lambda v: v["runs"]["1"].pop("epochs"))
    with pytest.raises(BadInput, match=r"metrics/sft/orca\.json: runs\.1\.epochs: field required"):
        report.read(SETTINGS)
    edit("metrics/sft/orca.json", lambda v: v["runs"]["1"].update(epochs=4))
    Path("metrics/dpo/eval.csv").unlink()
    with pytest.raises(BadInput, match=r"metrics/dpo/eval\.csv: there is no such file"):
        report.read(SETTINGS)


# --- what a model said ---------------------------------------------------------------------------

HOSTILE = {
    "a script": "<script>alert(1)</script>",
    "markup that closes ours": "</td></tr></table></div></section></body></html><h1>mine</h1>",
    "an attribute": '" onload="alert(1)" style="position:fixed',
    "template code": "{{ 7 * 7 }}{% raw %}",
    "an address": "<img src=http://example.invalid/x.png>",
    "100 kB without a blank": "a" * 100_000,
    "100 kB of lines": "line\n" * 20_000,
    "right to left": "\u202eevil\u202c \u05e9\u05dc\u05d5\u05dd \u2066x",
    "control characters": "a\x00b\x1b[31mc\x07d\x0ce",
    "nothing": "",
    "blanks": "  \n\n ",
}


@pytest.mark.slow
@pytest.mark.parametrize("said", HOSTILE.values(), ids=HOSTILE)
def test_nothing_a_model_said_breaks_the_page(tree: Path, said: str) -> None:
    plain = Outline(render(examples=32)[1])
    path = Path("data/mt_answer/sft/answers.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row["turns"] = [said, said]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = render(examples=32)[1]
    outline = Outline(page)
    assert not outline.open and len(page) < 300_000
    inert = ("footer", "span")  # the line that tells a cut, the word that tells an empty answer
    assert [t for t, _ in outline.tags if t not in inert] == [
        t for t, _ in plain.tags if t not in inert
    ]
    assert not any(name.startswith("on") for _, attrs in outline.tags for name in attrs)
    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069]", page)
    page.encode("utf-8")
    if said == HOSTILE["a script"]:
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    if said == HOSTILE["100 kB without a blank"]:
        assert "99,400 more characters" in page


@pytest.mark.slow
@pytest.mark.parametrize("said", HOSTILE.values(), ids=HOSTILE)
def test_nor_the_page_that_has_it_whole(tree: Path, said: str) -> None:
    plain = Outline(report.answers(report.read(SETTINGS), "sft"))
    path = Path("data/mt_answer/sft/answers.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row["turns"] = [said, said]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = report.answers(report.read(SETTINGS), "sft")
    outline = Outline(page)
    assert not outline.open and {tag for tag, _ in outline.tags} == {tag for tag, _ in plain.tags}
    assert not any(name.startswith("on") for _, attrs in outline.tags for name in attrs)
    assert page.count(str(escape(clean(said).strip()))) >= 2 * len(rows)
    assert ("said nothing" in page) == (not said.strip())


def test_a_page_has_all_that_a_checkpoint_answered(tree: Path) -> None:
    run = report.read(SETTINGS)
    page = report.answers(run, "dpo")
    outline = Outline(page)
    ids = [attrs["id"] for _, attrs in outline.tags if "id" in attrs]
    assert ids == [f"q{number}" for number in run.answers["dpo"]]
    links = {attrs["href"] for tag, attrs in outline.tags if tag == "a"}
    assert links == {
        "../report.html",
        "index.html",
        *(f"{name}.html" for name in run.checkpoints[:-1]),
    }
    # both turns of each question, of the four checkpoints; its own with the grader's words
    boxes = [
        attrs["class"] or "" for tag, attrs in outline.tags if tag == "div" and "class" in attrs
    ]
    assert sum(box.startswith("answer ") for box in boxes) == len(ids) * 2 * 4
    spoken = [grade for grade in run.grades["dpo"] if grade.reply.strip()]
    assert sum(tag == "details" for tag, _ in outline.tags) == len(spoken) > 0
    assert "http://" not in page and "https://" not in page and str(tree) not in page


def test_a_copy_stands_beside_the_seed_that_it_copies(tree: Path) -> None:
    page = render()[1]
    assert page.count("What colour has the fox now?") == 3
    assert page.count(">What colour has the fox?<") == 3 and page.count("seed-7") == 3
    row = copied("orca")
    many = [{**row, "id": f"orca-{n}", "details": {"seed": "old"}} for n in range(8)]
    lines = "".join(json.dumps(each) + "\n" for each in many)
    Path("data/filter/orca/rejected.jsonl").write_text(lines)
    page = render()[1]
    assert "orca-4" in page and "orca-5" not in page
    assert "3 more stand in <code>data/filter/orca/rejected.jsonl</code>" in page


def test_rows_to_learn_from_and_rows_held_out_are_counted_apart(tree: Path) -> None:
    page = render()[1]
    counted = [json.loads(path.read_text()) for path in Path("data/filter").glob("*/funnel.json")]
    train, held_out = (sum(each[key] for each in counted) for key in ("train", "eval"))
    assert f"{train:,} to learn from, {held_out:,} held out" in page
    for each in counted:
        assert f"to learn from</th><td>{each['train']:,}</td>" in page
    rows = {"train.jsonl": 556, "test.jsonl": 444}
    edit("data/fetch/hh_rlhf/source.json", lambda v: v.update(rows=rows))
    page = render()[1]
    assert "<bdi>to learn from 556</bdi>" in page and "<bdi>held out 444</bdi>" in page


def test_every_name_of_the_run_is_explained_before_it_is_used(tree: Path) -> None:
    page = render()[1]
    begin, end = page.index('id="names"'), page.index('id="skills"')
    for key in dict.fromkeys([*SETTINGS.chain, *SETTINGS.checkpoints]):
        assert begin < page.index(f"<code>{key}</code>") < end
        about = opening.ABOUT[key]
        assert begin < page.index(str(escape(about))) < end


def test_every_reason_of_the_filter_has_its_meaning() -> None:
    listed = set(re.findall(r"^([a-z_]+)  +\S", gates.__doc__ or "", flags=re.MULTILINE))
    assert {"refusal", "truncated", "wrong_language", "overlong"} <= listed
    code = inspect.getsource(curation) + inspect.getsource(distributions)
    faults = set(re.findall(r'Fault\(\s*"(\w+)"', code)) | set(re.findall(r'reason="(\w+)"', code))
    assert {"copy", "contaminated", "shared_seed", "balance"} < faults
    assert listed | faults | {"undecided", "rejected"} <= set(funnels.REASONS)


def test_the_index_leads_to_every_answer(tree: Path) -> None:
    run = report.read(SETTINGS)
    page = report.index(run)
    outline = Outline(page)
    assert not outline.open and "http:" not in page and "https:" not in page
    links = {attrs["href"] for tag, attrs in outline.tags if tag == "a"}
    for checkpoint in run.checkpoints:
        assert f"{checkpoint}.html" in links
        assert {f"{checkpoint}.html#q{n}" for n in run.answers[checkpoint]} <= links
    for category in {question.category for question in run.questions}:
        assert f"<h2><bdi>{category}</bdi></h2>" in page
    first = run.questions[0]
    grades = {g.turn: g.score for g in run.grades["dpo"] if g.question_id == first.question_id}
    cell = page.split(f'href="dpo.html#q{first.question_id}"')[2].partition("</a>")[0]
    shown = ["–" if grades.get(turn) is None else f"{grades[turn]:.0f}" for turn in (1, 2)]
    assert " · ".join(shown) in cell


@pytest.mark.slow
@pytest.mark.parametrize("said", HOSTILE.values(), ids=HOSTILE)
def test_a_question_from_a_file_breaks_no_index(tree: Path, said: str) -> None:
    plain = Outline(report.index(report.read(SETTINGS)))
    path = Path("data/fetch/mt_bench/questions.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({**row, "turns": [said, said]}) + "\n" for row in rows))
    page = report.index(report.read(SETTINGS))
    outline = Outline(page)
    assert not outline.open and [t for t, _ in outline.tags] == [t for t, _ in plain.tags]
    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069]", page)
    assert len(page) < 100_000


def test_names_from_files_are_escaped_too(tree: Path) -> None:
    bad = "<b>x</b>\u202e"
    edit("data/filter/orca/funnel.json", lambda v: v.update(reasons={bad: 3}, teacher=bad))
    edit("data/filter/lamini/funnel.json", lambda v: v.update(reported={bad: 3}))
    sets = ("generated", "kept")
    counted = {which: {"category": {bad: 9}} for which in sets}
    edit("data/filter/lamini/funnel.json", lambda v: v.update(distributions=counted))
    crossed = {which: {bad: {"in_depth": 9, bad: 3}} for which in sets}
    edit("data/filter/evol_instruct/funnel.json", lambda v: v.update(by_category=crossed))
    edit("data/lm_eval/base/results.json", lambda v: v["tasks"].update({bad: {"acc": 1, "n": 1}}))
    edit(
        "data/lm_eval/base/results.json", lambda v: v["skills"].update({bad: {"share": 1, "n": 1}})
    )
    questions = Path("data/fetch/mt_bench/questions.jsonl")
    questions.write_text(questions.read_text().replace('"stem"', '"<b>x</b>"'))
    page = render()[1]
    assert not Outline(page).open
    assert "<b>" not in page and "\u202e" not in page and page.count("&lt;b&gt;") >= 7


def test_an_excerpt_ends_at_a_word_and_counts_what_it_cut() -> None:
    assert excerpt("short ") == ("short", 0)
    shown, cut = excerpt("word " * 1000)
    assert shown.endswith("word") and len(shown) + cut == len(("word " * 1000).strip())
    assert len(excerpt("x\n" * 500)[0].split("\n")) <= 12
    assert clean("a\r\nb\rc\ud800") == "a\nb\ufffdc\ufffd"


# --- the page itself -----------------------------------------------------------------------------


def test_the_page_loads_nothing_and_has_no_place_or_time(tree: Path) -> None:
    page = render()[1]
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
        "object-src 'self' file:; frame-src 'self' file:"
    )
    assert f'<meta http-equiv="Content-Security-Policy" content="{policy}">' in page
    outline = Outline(page)
    assert not outline.open
    tags = {tag for tag, _ in outline.tags}
    assert not tags & {"script", "link", "img", "iframe", "embed", "base", "form", "image", "use"}
    # what differs between machines stands beside it
    assert [a["data"] for tag, a in outline.tags if tag == "object"] == ["times.html"]
    assert "http://" not in page and "https://" not in page and "url(" not in page
    assert "@import" not in page and str(tree) not in page
    assert not re.search(r"\b20\d\d-\d\d-\d\d\b", page)


def test_every_link_has_its_place_and_every_chart_its_words(tree: Path) -> None:
    outline = Outline(render()[1])
    ids = [attrs["id"] for _, attrs in outline.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    for tag, attrs in outline.tags:
        if tag == "a":
            href = attrs["href"] or ""
            whole = [f"answers/{name}.html" for name in ("index", *SETTINGS.checkpoints)]
            whole += [f"cards/{name}.md" for name in list(SETTINGS.checkpoints)[1:]]
            assert href.removeprefix("#") in ids or href in whole
        if tag == "svg":
            assert attrs["role"] == "img"
            assert set((attrs["aria-labelledby"] or "").split()) <= set(ids)
    assert sum(tag == "svg" for tag, _ in outline.tags) == len(SETTINGS.chain) + 4 + 1 + 4 + 3 + 1


@pytest.mark.slow
def test_equal_files_give_equal_bytes_in_any_folder_and_process(tree: Path, tmp_path: Path) -> None:
    other = grow(tmp_path / "another place")
    code = (
        "import hashlib, json; from tests.report.test_report import render\n"
        "found, page = render()\n"
        "print(hashlib.sha256((json.dumps(found) + page).encode()).hexdigest())"
    )
    digests = set()
    for folder, seed in ((tree, "1"), (other, "2")):
        env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=folder,
            env=env,
            capture_output=True,
            text=True,
            check=True,
        )
        digests.add(done.stdout.strip())
    found, page = render()
    digests.add(hashlib.sha256((json.dumps(found) + page).encode()).hexdigest())
    assert len(digests) == 1


def test_the_question_of_each_example_comes_from_a_category_of_its_own(tree: Path) -> None:
    page = render(examples=4)[1]
    assert page.count('class="talk"') == 4
    for category in ("writing", "reasoning", "coding", "stem"):
        assert f"<h3><bdi>{category}</bdi></h3>" in page
    assert render(examples=1000)[1].count('class="talk"') == 32


@pytest.mark.slow
def test_the_page_is_written_by_the_stage(tree: Path) -> None:
    parameters.copy(tree)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-m", "stages.report"], cwd=tree, env=env, check=True)
    assert (tree / "metrics/report/report.html").read_text().startswith("<!doctype html>")
    told = printed(tree)
    assert "metrics/report/report.html" in told and "politeness" in told


def printed(folder: Path) -> str:
    """What the demo prints at its end, where the output is no terminal and knows only ASCII."""
    parameters.copy(folder)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii", "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-m", "bezoar.report"],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert max(map(len, done.stdout.splitlines())) <= 80 and "\x1b" not in done.stdout
    return done.stdout


@pytest.mark.slow
def test_the_demo_table_shows_the_summary_in_the_order_of_the_recipe(tree: Path) -> None:
    found, _ = render()
    found["skills"]["orca"]["explained"] = 0.4321
    files.write_json("metrics/report/summary.json", found)
    told = printed(tree)
    assert re.search("skill .*base .*lamini .*orca .*sft .*hh_rlhf .*dpo", told)
    assert re.search(r"explained .*43 %", told)
    assert re.search(r"evol_instruct +\| +608 ", told)
    assert "60 % -> 91 %" in told and "grader, judge, teacher, voters" in told
    Path("metrics/report/summary.json").unlink()
    done = subprocess.run(
        [sys.executable, "-m", "bezoar.report"],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0 and "summary.json" in done.stderr and "Traceback" not in done.stderr


# --- figures and the paper -----------------------------------------------------------------------


def test_a_chart_keeps_its_points_inside_and_its_words_escaped() -> None:
    points = [(float(i), math.sin(i)) for i in range(1000)]
    chart = figures.lines("x", "<t>", "a & b", "y", [figures.Line("<l>", "c0", points, dots=True)])
    assert "<t>" not in chart and "<l>" not in chart and "a &amp; b" in chart
    places = re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', chart)
    assert len(places) == figures.MOST_POINTS
    for x, y in places:
        assert 0 <= float(x) <= figures.WIDTH and 0 <= float(y) <= figures.HEIGHT


@pytest.mark.parametrize("at", [0.0, 5.0, 10.0])
def test_the_words_of_a_mark_stay_inside_and_are_escaped(at: float) -> None:
    curve = figures.Line("l", "c0", [(0.0, 1.0), (10.0, 2.0)])
    chart = figures.lines("x", "t", "x", "y", [curve], marks=[(at, "<b>")])
    found = re.search(r'<text class="(start|end)" x="([\d.]+)" y="24">&lt;b&gt;</text>', chart)
    assert found and "<b>" not in chart
    right = float(found[2]) + (75 if found[1] == "start" else 0)
    assert float(found[2]) > figures.LEFT and right <= figures.WIDTH


@pytest.mark.parametrize(
    "points",
    [[], [(0.0, 0.0)], [(1.0, 5.0), (2.0, 5.0)], [(3.0, -1e-9), (3.0, 1e12)]],
    ids=["none", "one", "flat", "upright and huge"],
)
def test_a_chart_of_odd_points_is_still_a_chart(points: list[tuple[float, float]]) -> None:
    chart = figures.lines("x", "t", "x", "y", [figures.Line("l", "c0", points)])
    assert chart.startswith("<svg") and "nan" not in chart and "inf" not in chart


def test_bars_and_boxes_stay_inside_and_their_words_are_escaped() -> None:
    bars = [figures.Bar("<b>", 1.0, 0.0, 0.2), figures.Bar("c", 0.0, 0.0, 0.0)]
    chart = figures.shares("s", "<t>", bars)
    assert "<b>" not in chart and "<t>" not in chart
    assert "100 % before, 0 % after, 20 % in the target" in chart
    reach = [float(left) + float(wide) for left, wide in re.findall(r"M(\d+) \d+h([\d.]+)", chart)]
    assert max(reach) <= figures.WIDTH - 52 - 30, "clear of the numbers"
    rows = [
        figures.Box("<i>", "accent", (0, 1, 2.5, 70, 90_000)),
        figures.Box("<i>", "quiet", (0, 0, 0, 0, 0)),
        figures.Box("j", "accent", (3, 3, 3, 3, 3)),
    ]
    chart = figures.boxes("b", "t", "tokens", rows)
    assert "<i>" not in chart and chart.count(">&lt;i&gt;</text>") == 1
    places = [float(x) for x in re.findall(r"[MH]([\d.]+)", chart)]
    assert min(places) >= 0 and max(places) <= figures.WIDTH
    assert figures.boxes("b", "t", "tokens", rows[2:]).count('class="box') == 1
    assert "no rows" in figures.boxes("b", "t", "tokens", [])


def test_a_radars_corners_lie_where_their_values_say() -> None:
    shape = figures.Shape("s", "c1", [10, 5, None, 0])
    chart = figures.radar("r", "t", ["n", "e", "s", "w"], 10, [shape])
    found = re.search(r'class="area c1" d="M([^"]+)Z"', chart)
    assert found
    corners = [tuple(map(float, p.split())) for p in found[1].split("L")]
    centre = (200.0, 155.0)
    assert corners == [(200.0, 43.0), (256.0, 155.0), centre, centre]
    assert "s none" in chart


def test_the_papers_numbers_are_the_papers() -> None:
    values = [m[i] for task in paper.HARNESS.values() for m in task.values() for i in range(4)]
    averages = [sum(values[i::4]) / len(values[i::4]) for i in range(4)]
    assert [round(a, 4) for a in averages] == pytest.approx(paper.HARNESS_AVERAGE, abs=1e-9)
    assert paper.HARNESS["arc_challenge"]["acc_norm"] == (0.4036, 0.4121, 0.4044, 0.4309)
    assert paper.HARNESS["winogrande"]["acc"][3] == 0.6496
    for scheme in ("lamini", "orca"):
        row = paper.SAMPLING[scheme]
        assert row.asked and row.accepted / row.asked == pytest.approx(row.accepted_share, abs=6e-4)
    assert paper.SAMPLING["evol_instruct"].accepted == 1567
    assert paper.SAMPLING["orca"].undecided_share == 0.475
    assert sum(paper.MIXTURES.values()) == 5508  # the paper prints 5,507
    assert [(r.start, r.end) for r in paper.TRAINING["orca"]] == [(2.315, 1.539), (1.553, 1.533)]
    assert [(r.start, r.end) for r in paper.TRAINING["lamini"]] == [
        (1.661, 0.8023),
        (0.8063, 0.843),
    ]
    assert (paper.MT_BENCH["dpo"].turn_1, paper.MT_BENCH["dpo"].turn_2) == (4.79, 3.44)
    assert [paper.MT_BENCH[c].average for c in ("sft", "hh_rlhf", "dpo")] == [1.68, 3.23, 4.12]
    assert paper.MT_BENCH_OTHERS["Phi-2"].average == 3.72
    assert paper.AGREEMENT[1]["gpt4_pair"] == (0.70, 0.98)
    assert paper.AGREEMENT[2]["human_majority"] == (0.55, 0.85)
