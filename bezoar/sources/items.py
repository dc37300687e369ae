"""Reads multiple-choice items out of files. Each benchmark is a task, of the split that is
evaluated."""

from collections import Counter
from collections.abc import Hashable, Iterator, Sequence

from bezoar.rows.records import Item
from bezoar.sources import choices, names, shapes
from bezoar.sources.accounts import DUPLICATE, Account, File, Taking, text_key
from bezoar.sources.choices import Benchmark, RawItem
from bezoar.sources.dialogues import Skipped
from bezoar.sources.reader import Reader
from bezoar.sources.rows import Row
from bezoar.sources.shapes import Recognised
from bezoar.sources.tables import Tables

CONTRADICTED = "another file gives this item another answer"
# (file, split, rows) of one task. A file whose rows name their splits is there once for each.
Group = Sequence[tuple[File, str, Recognised]]


def tables(reader: Reader, files: Sequence[File], limit: int | None) -> Tables:
    """Read the tables of a fetch out of its files. BadInput: as readers.read."""
    task_names = names.distinct([file.title for file in files])
    groups: dict[tuple[str, str], list[tuple[File, str, Recognised]]] = {}
    for file in files:
        recognised, name = reader.recognise(file), task_names[file.title]
        reader.account.open(file)
        group = groups.setdefault((name.task, recognised.shape.name), [])
        group += [(file, split, part) for split, part in shapes.split_parts(recognised, name.split)]
    shapes_by_task = Counter(task for task, _ in groups)
    items_by_file: dict[str, list[Item]] = {}
    tasks = _Tasks(reader, limit)
    for (task, shape), group in sorted(groups.items(), key=_depth):
        # Two shapes under one name are two tasks, and the name of the shape tells them apart.
        title = f"{task}_{'_'.join(shape.lower().split())}" if shapes_by_task[task] > 1 else task
        if items := tasks.items(title, group, choices.BENCHMARKS[shape]):
            items_by_file[f"tasks/{title}.jsonl"] = items
    # The world's probes ask what a user's own seeds do not teach, so the list of probes is empty.
    return {**items_by_file, "probes.jsonl": []}


def _depth(task: tuple[tuple[str, str], Group]) -> tuple[int, str, str]:
    # The first of two copies is kept. The one that lies less deep has the better name.
    (name, shape), group = task
    return min(file.title.count("/") for file, _, _ in group), name, shape


class _Tasks:
    """The tasks of all benchmarks, one after another. A copy of an earlier task is left out."""

    def __init__(self, reader: Reader, limit: int | None) -> None:
        self.reader, self.limit = reader, limit
        self.earlier: list[set[Hashable]] = []  # the keys of each task's items

    def items(self, task: str, group: Group, form: Benchmark) -> list[Item]:
        """Return the items of the first split that publishes its answers. Tried are test, then
        validation, then files that name no split. A training split is no task."""
        used, chosen = "", list[tuple[File, list[RawItem]]]()
        for split in names.EVALUATED:
            shards = [
                (file, recognised) for file, part_split, recognised in group if part_split == split
            ]
            if used:
                self._leave_out(shards, f"another split of {task} is used ({used})")
                continue
            chosen = [
                (file, list(self._raw_items(file, recognised, form))) for file, recognised in shards
            ]
            if any(items for _, items in chosen):
                used, taken = split or "no split named", chosen
        self._leave_out(
            [(f, recognised) for f, part_split, recognised in group if part_split == "train"],
            names.TRAINING,
        )
        return self._label(task, taken, form) if used else []

    def _leave_out(self, shards: Sequence[tuple[File, Recognised]], reason: str) -> None:
        for file, recognised in shards:
            count = sum(1 for _ in recognised.rows())
            self.reader.account.read[file.title] += count
            self.reader.account.leave_out(file, reason, count)

    def _raw_items(self, file: File, recognised: Recognised, form: Benchmark) -> Iterator[RawItem]:
        def make(row: Row) -> RawItem:
            item = form.read(row)
            if len(item.choices) < 2:
                raise Skipped("fewer than two choices")
            if choices.is_hidden(item):
                raise Skipped("a row without its answer, as a hidden test set has")
            return item

        return self.reader.records(file, recognised, make)

    def _label(
        self, task: str, taken: Sequence[tuple[File, list[RawItem]]], form: Benchmark
    ) -> list[Item]:
        """Return items with the index of the right choice. All rows of the task together decide how
        answers are read. The list is empty if an earlier task has all the items: this task is then
        a copy of it."""

        def key(item: RawItem) -> Hashable:
            return text_key(item.question, *item.choices)

        account = self.reader.account
        all_items = [item for _, items in taken for item in items]
        keys = set(map(key, all_items))
        if any(keys <= others for others in self.earlier):
            for file, items in taken:
                account.leave_out(file, DUPLICATE, len(items))
            return []
        self.earlier.append(keys)
        labels = iter(choices.right_choices(all_items, form, self.reader.settings.answer_is))
        first_answers: dict[Hashable, tuple[File, int]] = {}

        def checked(file: File, item: RawItem) -> tuple[RawItem, int] | Skipped:
            label = next(labels)
            first_file, first_label = first_answers.setdefault(key(item), (file, label))
            return (
                (item, label)
                if first_file == file or first_label == label
                else Skipped(CONTRADICTED)
            )

        taking: Taking[tuple[RawItem, int]] = Taking(
            Account(), self.limit, self.reader.settings.take, lambda pair: key(pair[0])
        )
        for file, items in taken:
            taking.add(file, ([checked(file, item)] for item in items))
        labelled = [
            Item(id=f"{task}-{n:05d}", question=item.question, choices=item.choices, label=label)
            for n, (_, (item, label)) in enumerate(taking.within_limit(), 1)
        ]
        # `reader.records` has counted these rows already, as it read them.
        taking.account.read.clear()
        account.add(taking.account)
        return labelled
