"""The ledger: what was paid for is found again, whatever happened to the disk in between."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from bezoar.llm import ledger as module
from bezoar.llm.ledger import Bill, Ledger
from bezoar.rows.files import BadInput, write_jsonl
from bezoar.rows.records import Exchange, Message, Reply
from tests.builders import ROOT

BILL = Bill("run", "generate", "lamini", "org/model")


def key(n: int) -> str:
    return f"{n:064x}"


def value(text: str) -> dict[str, object]:
    return {"reply": {"text": text}, "at": 2_000_000_000}


def filled(folder: Path, count: int) -> Path:
    book = Ledger(folder)
    for n in range(count):
        book.put(key(n), value(f"answer {n} é\u2028"), BILL, 0.25)
    book.close()
    (segment,) = folder.glob("*.jsonl")
    return segment


def test_another_process_finds_what_was_bought(tmp_path: Path) -> None:
    filled(tmp_path, 3)
    book = Ledger(tmp_path)
    assert [book.get(key(n)) for n in range(3)] == [value(f"answer {n} é\u2028") for n in range(3)]
    assert book.get(key(9)) is None
    assert book.spent == {Bill("run", "generate", "lamini", "org_model"): 0.75}


def test_a_lone_surrogate_comes_back(tmp_path: Path) -> None:
    book = Ledger(tmp_path)
    book.put(key(1), value("\ud800 and \0"), BILL, 0.0)
    assert Ledger(tmp_path).get(key(1)) == value("\ud800 and \0")


def test_a_torn_tail_costs_one_answer_and_is_said(tmp_path: Path) -> None:
    segment = filled(tmp_path, 3)
    segment.write_bytes(segment.read_bytes()[:-7])
    with pytest.warns(UserWarning, match="torn line"):
        book = Ledger(tmp_path)
    assert book.get(key(1)) == value("answer 1 é\u2028") and book.get(key(2)) is None
    book.put(key(2), value("again"), BILL, 0.1)
    book.put(key(3), value("more"), BILL, 0.1)
    book.close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        after = Ledger(tmp_path)
    assert after.get(key(2)) == value("again") and len(after) == 4 and after.damaged == 0


def test_a_flipped_bit_anywhere_costs_one_answer_at_most(tmp_path: Path) -> None:
    segment = filled(tmp_path, 3)
    whole = segment.read_bytes()
    second = whole.index(b"\n") + 1
    third = whole.index(b"\n", second) + 1
    for at in range(second, third):
        segment.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        with pytest.warns(UserWarning, match="damaged|torn"):
            book = Ledger(tmp_path)
        assert book.get(key(1)) is None, at
        assert book.get(key(0)) and (book.get(key(2)) or at == third - 1), at
        book.close()


def test_damage_after_the_index_was_built_is_noticed(tmp_path: Path) -> None:
    segment = filled(tmp_path, 2)
    book = Ledger(tmp_path)
    segment.write_bytes(segment.read_bytes().replace(b"answer 1", b"answer 7"))
    assert book.get(key(1)) is None and book.get(key(0)) is not None


def test_empty_and_foreign_files_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"")
    (tmp_path / "b.jsonl").write_bytes(b"\xff\xfe not json\n{}\n")
    with pytest.warns(UserWarning, match="damaged"):
        book = Ledger(tmp_path)
    book.put(key(1), value("x"), BILL, 0.0)
    assert book.get(key(1)) == value("x")


@pytest.mark.slow
def test_processes_side_by_side_share_one_folder(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from bezoar.llm.ledger import *\n"
        "book, start = Ledger(Path(sys.argv[1])), int(sys.argv[2])\n"
        "for n in range(start, start + 200):\n"
        "    book.put(f'{n:064x}', {'n': n, 'pad': 'x' * 500}, Bill('r', 's', 'l', 'm'), 0.001)"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code, tmp_path, str(200 * n)], cwd=ROOT)
        for n in range(3)
    ]
    assert [process.wait(60) for process in started] == [0, 0, 0]
    book = Ledger(tmp_path)
    assert [book.get(key(n)) is not None for n in range(600)] == [True] * 600
    assert sum(book.spent.values()) == pytest.approx(0.6)


def test_an_answer_bought_meanwhile_by_another_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = Ledger(tmp_path), Ledger(tmp_path)
    one.put(key(1), value("x"), BILL, 0.0)
    monkeypatch.setattr(module, "LOOK_AGAIN", 0.0)
    assert other.get(key(1)) == value("x")
    other.put(key(2), value("y"), BILL, 0.0)
    assert one.get(key(2)) == value("y")
    assert len(list(tmp_path.glob("*.jsonl"))) == 2, "each appends to a segment of its own"


def test_a_segment_that_nobody_holds_is_taken_over(tmp_path: Path) -> None:
    filled(tmp_path, 2)
    book = Ledger(tmp_path)
    book.put(key(7), value("x"), BILL, 0.0)
    assert len(list(tmp_path.glob("*.jsonl"))) == 1


def test_a_full_disk_says_so_and_leaves_whole_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = Ledger(tmp_path)
    book.put(key(1), value("x"), BILL, 0.0)
    real = os.write

    def full(descriptor: int, data: bytes) -> int:
        if len(data) > 100:
            return real(descriptor, data[:50])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "write", full)
    with pytest.raises(BadInput, match=r"cannot be kept \(No space left on device\); free some"):
        book.put(key(2), value("y" * 100), BILL, 0.0)
    monkeypatch.undo()
    book.put(key(3), value("z"), BILL, 0.0)
    after = Ledger(tmp_path)
    assert after.get(key(1)) and after.get(key(2)) is None and after.get(key(3))


def exchange(n: int, bought: str) -> Exchange:
    reply = Reply(
        text=f"answer {n}",
        finish_reason="stop",
        tokens_in=1,
        tokens_out=2,
        model="m",
        simulated=False,
        usd=0.5,
        key=bought,
    )
    return Exchange(job="j", step=0, messages=[Message(role="user", content="q")], reply=reply)


def test_pulled_replies_warm_a_new_machine(tmp_path: Path) -> None:
    out = tmp_path / "data" / "generate" / "lamini"
    write_jsonl(out / "replies.jsonl", [exchange(1, key(1)), exchange(2, ""), exchange(1, key(1))])
    book = Ledger(tmp_path / "ledger")
    assert module.import_answers(book, [tmp_path / "data"]) == 1, "simulated replies have no key"
    found = book.get(key(1))
    assert found and Reply(**found["reply"], key=key(1)) == exchange(1, key(1)).reply
    assert module.import_answers(book, [out / "replies.jsonl"]) == 0
    assert sum(book.spent.values()) == 0, "nobody pays for an import"


@pytest.mark.parametrize("line", ["{}", "[]", '{"crc":"0"}', "nonsense"])
def test_import_refuses_what_it_cannot_read(tmp_path: Path, line: str) -> None:
    (tmp_path / "replies.jsonl").write_text(line + "\n")
    with pytest.raises(BadInput, match=r"replies\.jsonl:1: neither"):
        module.import_answers(Ledger(tmp_path / "ledger"), [tmp_path])


def test_import_refuses_a_key_that_is_none(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "replies.jsonl", [exchange(1, "../../x")])
    with pytest.raises(BadInput, match="no request key"):
        module.import_answers(Ledger(tmp_path / "ledger"), [tmp_path])


def test_export_and_import_carry_everything(tmp_path: Path) -> None:
    filled(tmp_path / "one", 5)
    assert module.export(Ledger(tmp_path / "one"), tmp_path / "all") == 5
    other = Ledger(tmp_path / "two")
    assert module.import_answers(other, [tmp_path / "all"]) == 5
    assert [row[3] for row in other.lines()] == [row[3] for row in Ledger(tmp_path / "one").lines()]


def test_prune_forgets_the_old_and_clears_damage(tmp_path: Path) -> None:
    segment = filled(tmp_path, 2)
    book = Ledger(tmp_path)
    book.put(key(5), {**value("old"), "at": 1}, BILL, 0.0)
    book.close()
    with segment.open("ab") as out:
        out.write(b"spoilt\n")
    with pytest.warns(UserWarning, match="damaged"):
        reader = Ledger(tmp_path)
    assert module.prune(tmp_path, 1) == (2, 2)
    assert reader.get(key(1)) == value("answer 1 é\u2028"), "a reader is not disturbed"
    after = Ledger(tmp_path)
    assert len(after) == 2 and after.damaged == 0 and after.get(key(5)) is None


def test_prune_leaves_a_segment_in_use_alone(tmp_path: Path) -> None:
    book = Ledger(tmp_path)
    book.put(key(1), {**value("x"), "at": 1}, BILL, 0.0)
    assert module.prune(tmp_path, 1) == (0, 0)
    assert Ledger(tmp_path).get(key(1))


def test_what_was_lost_is_charged_and_answers_nothing(tmp_path: Path) -> None:
    book = Ledger(tmp_path)
    book.put(key(1), value("x"), BILL, 0.25)
    book.charge(BILL, 0.5, "lost", "cut short")
    book.charge(BILL, 1.0, "lost", "its process ended", key=key(7))
    book.charge(BILL, 1.0, "lost", "its process ended", key=key(7))
    for found in (book, Ledger(tmp_path)):
        assert found.spent == {BILL.plain(): 1.75} and found.lost == {BILL.plain(): 1.5}
        assert len(found) == 1 and found.get(key(7)) is None and key(7) not in found
        assert [row[0] for row in found.lines()] == [key(1)]
    shown = module.stats(Ledger(tmp_path))
    assert (shown["answers"], shown["usd"], shown["usd_lost"]) == (1, 1.75, 1.5)
    assert shown["usd_lost_by_stage"] == {"generate": 1.5} and shown["usd_by_run"] == {"run": 1.75}


def test_losses_are_neither_exported_nor_imported(tmp_path: Path) -> None:
    segment = filled(tmp_path / "one", 2)
    book = Ledger(tmp_path / "one")
    book.charge(BILL, 0.5, "lost", "cut short")
    book.close()
    assert module.export(Ledger(tmp_path / "one"), tmp_path / "all") == 2
    for source in (tmp_path / "all", segment):
        other = Ledger(tmp_path / f"from {source.name}")
        assert module.import_answers(other, [source]) == 2 and sum(other.spent.values()) == 0


def test_prune_forgets_answers_and_not_what_they_cost(tmp_path: Path) -> None:
    filled(tmp_path, 2)
    other = Bill("run", "judge", "lamini", "m")
    book = Ledger(tmp_path)
    for n, payer in ((5, BILL), (6, BILL), (7, other)):
        book.put(key(n), {**value("old"), "at": 1}, payer, 0.5)
    book.charge(BILL, 0.125, "lost", "cut short")
    charged = dict(book.spent)
    book.close()
    reader = Ledger(tmp_path)
    for _again in range(2):
        module.prune(tmp_path, 1)
        after = Ledger(tmp_path)
        assert after.spent == charged and sum(after.lost.values()) == 0.125 and len(after) == 2
    reader.look()
    assert reader.spent == charged, "nothing twice where a stage runs meanwhile"
    assert reader.get(key(5)) is None and reader.get(key(1))


@pytest.mark.parametrize("name", ["a/b", 'a"b', "a\\b", "two words", "é", "", "a\nb"])
def test_any_name_may_be_charged(tmp_path: Path, name: str) -> None:
    book = Ledger(tmp_path)
    book.put(key(1), value("x"), Bill(name, name, name, name), 0.5)
    book.charge(Bill(name, name, name, name), 0.5, "lost", "cut")
    assert sum(Ledger(tmp_path).spent.values()) == 1.0
    assert Bill(name, name, name, name).plain() in Ledger(tmp_path).spent


def command(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bezoar.ledger", *arguments],
        cwd=ROOT,
        env={**os.environ, "BEZOAR_WORK": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_the_command_line(tmp_path: Path) -> None:
    segment = filled(tmp_path / "ledger", 2)
    assert '"answers": 2' in (done := command(tmp_path, "stats")).stdout and not done.returncode
    assert '"generate": 0.5' in done.stdout
    assert command(tmp_path, "verify").stdout == "2 answers whole, 0 lines damaged\n"
    segment.write_bytes(segment.read_bytes().replace(b"answer 1", b"answer 8"))
    done = command(tmp_path, "verify")
    assert done.returncode == 1 and "1 answers whole, 1 lines damaged" in done.stdout
    assert "Traceback" not in done.stderr
    assert command(tmp_path, "prune", "36500").stdout == "1 answers kept, 1 lines dropped\n"
    done = command(tmp_path, "import", "nowhere")
    assert done.returncode == 1 and "nowhere: there is no such file" in done.stderr
    assert command(tmp_path, "forget").returncode == 1
