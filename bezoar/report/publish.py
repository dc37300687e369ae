"""`python -m bezoar.publish USER/NAME [--push] [--private] [--force]`: sets and checkpoints onto
the Hugging Face Hub.

Each goes into a repository of its own (USER/NAME-lamini, ..., USER/NAME-dpo), with its card as
README.md. Without --push nothing is sent: the plan is printed, with the reasons against it. A set
or a checkpoint is refused if it is simulated in part. It is refused too if its licences forbid to
pass it on, or do not state that it may be. --force sends it all the same, for that is the owner's
decision. A file that holds a key of this run is never sent.
"""

import argparse
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bezoar import params
from bezoar.filtering import cards
from bezoar.params import KEY_FIELD, Params
from bezoar.report import model_card as model
from bezoar.rows.files import BadInput, read_json
from bezoar.training import chain

CARDS = Path("metrics/report/cards")
# The variables that huggingface_hub itself logs in with.
TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
# Characters. Shorter values of a key's variable are placeholders ("none", "EMPTY").
SHORTEST_KEY = 8


@dataclass(frozen=True)
class Upload:
    """One repository of the Hub, with the files that would be sent to it."""

    repository: str
    kind: Literal["dataset", "model"]
    # path in the repository -> path here
    files: dict[str, Path]
    # the licence that its card names
    licence: str
    # the reasons against sending it, each of which refuses it
    against: list[str]
    # facts that a reader should know, and that refuse nothing
    notes: list[str] = field(default_factory=list)

    @property
    def size(self) -> int:
        """The bytes of all its files."""
        return sum(path.stat().st_size for path in self.files.values())


def plan(repository: str, settings: Params) -> list[Upload]:
    """Return what would be sent to `repository`-*. BadInput: `repository` is not USER/NAME, a set
    or a checkpoint is not finished, or a file holds a key of this run."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise BadInput(
            f"{repository}: is no repository of the Hub; name it as USER/NAME, and the sets and "
            "checkpoints become USER/NAME-lamini and so on"
        )
    uploads = [*_sets(repository, settings), *_checkpoints(repository, settings)]
    for upload in uploads:
        for path in upload.files.values():
            if variable := _key_in(path, _keys(settings)):
                raise BadInput(
                    f"{path}: holds the value of ${variable}; nothing was sent. Take it out of "
                    "what the models were asked, and run the stages again"
                )
    return uploads


def _sets(repository: str, settings: Params) -> Iterator[Upload]:
    for scheme in [*settings.schemes.by_name, *settings.own]:
        folder = Path("data/filter", scheme)
        if not (folder / "README.md").exists():
            raise BadInput(f"{folder}/README.md: there is no card; `dvc repro` makes set and card")
        sheet: Any = read_json(folder / "licences.json")
        yield Upload(
            repository=f"{repository}-{scheme}",
            kind="dataset",
            files=_files(folder),
            licence=sheet["text"],
            against=_objections(sheet, [f"filter/{scheme}"]),
            notes=[
                f"rows of {pair} lie side by side; no one work can be made of both"
                for pair in cards.unjoinable([x for x in sheet["unjoinable"] if not x["rows"]])
            ],
        )


def _checkpoints(repository: str, settings: Params) -> Iterator[Upload]:
    for name, weights in model.checkpoint_weights(settings).items():
        card, folder = CARDS / f"{name}.md", Path("models", weights)
        for path in (card, folder):
            if not path.exists():
                raise BadInput(
                    f"{path}: is not there; `dvc repro` makes the checkpoint and its card"
                )
        under = model.standing(settings, weights)
        sets = [data for step in chain.steps(settings, weights) for data in step.data]
        yield Upload(
            repository=f"{repository}-{name}",
            kind="model",
            files={**_files(folder), "README.md": card},
            licence=under["text"],
            against=_objections(under, list(dict.fromkeys(sets))),
        )


def _files(folder: Path) -> dict[str, Path]:
    return {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


def _objections(under: dict[str, Any], sets: list[str]) -> list[str]:
    """Return the reasons against passing on something that was made of `sets` (folders of data/)
    and whose licences joined are `under`."""
    simulated = []
    for data in sets:
        if data.startswith("filter/"):
            funnel: Any = read_json(f"data/{data}/funnel.json")
            simulated += [data] if funnel["simulated_teacher"] or funnel["simulated_judge"] else []
    against = [f"its teacher or judge was simulated: {', '.join(simulated)}"] if simulated else []
    if under["sharing"]["answer"] != "yes":
        may = {"no": "may not be passed on", "unknown": "nothing says that it may be passed on"}
        against.append(f"{may[under['sharing']['answer']]}: {under['sharing']['reason']}")
    # rows under one licence each may lie side by side; a row under both, or weights, may not
    if pairs := [pair for pair in under["unjoinable"] if pair.get("rows", 1)]:
        against.append(f"no licence satisfies {', nor '.join(cards.unjoinable(pairs))}")
    return against


def _keys(settings: Params) -> dict[str, bytes]:
    """Return variable -> value of every key that this run may have used."""
    ends = settings.llm.model_dump()
    variables = {*TOKENS, *_key_variables(ends)}
    values = {name: os.environ.get(name, "").strip() for name in sorted(variables)}
    return {name: value.encode() for name, value in values.items() if len(value) >= SHORTEST_KEY}


def _key_variables(section: Any) -> Iterator[str]:
    """Yield the variables that endpoints below `section` name for their keys."""
    if isinstance(section, dict):
        for key, value in section.items():
            yield from [value] if key == KEY_FIELD and value else _key_variables(value)
    elif isinstance(section, list | tuple):
        for item in section:
            yield from _key_variables(item)


def _key_in(path: Path, keys: dict[str, bytes]) -> str | None:
    """Return the variable whose value stands in the file. None where there is none."""
    # weights hold no text
    if not keys or path.suffix == ".safetensors":
        return None
    content = path.read_bytes()
    return next((name for name, value in keys.items() if value in content), None)


def push(uploads: list[Upload], private: bool) -> list[str]:
    """Send every upload in one commit each, and return the commits' addresses. Repositories that
    are not there are created. BadInput: nobody is logged in, or the Hub refuses."""
    from huggingface_hub import CommitOperationAdd, HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    if not get_token():
        raise BadInput("publish: nobody is logged in; run `hf auth login` or set HF_TOKEN")
    api = HfApi()
    sent: list[str] = []
    for upload in uploads:
        operations = [
            CommitOperationAdd(path_in_repo=name, path_or_fileobj=path)
            for name, path in upload.files.items()
        ]
        try:
            api.create_repo(
                upload.repository, repo_type=upload.kind, private=private, exist_ok=True
            )
            commit = api.create_commit(
                upload.repository,
                operations,
                commit_message="Publish a run of the OpenBezoar recipe",
                repo_type=upload.kind,
            )
        except OfflineModeIsEnabled:
            raise BadInput("publish: HF_HUB_OFFLINE is set; unset it to reach the Hub") from None
        except (HfHubHTTPError, OSError) as error:
            done = f" ({len(sent)} repositories before it are done)" if sent else ""
            why = " ".join(str(error).split())
            raise BadInput(
                f"{upload.repository}: the Hub did not take it{done}: {why}; mend that and run the "
                "same command again: what is there already is not sent twice"
            ) from None
        sent.append(str(commit.commit_url))
    return sent


def format_plan(uploads: list[Upload]) -> str:
    """Return what would be sent, with a paragraph for each repository."""
    parts = []
    for upload in uploads:
        listed = [
            f"  {path.stat().st_size:>13,}  {name}" for name, path in sorted(upload.files.items())
        ]
        against = [f"  REFUSED  {reason}" for reason in upload.against]
        head = f"{upload.kind} {upload.repository}: {upload.size:,} bytes, licence {upload.licence}"
        notes = [f"  NOTE     {note}" for note in upload.notes]
        parts.append("\n".join([head, *listed, *notes, *against]))
    return "\n\n".join(parts)


def main() -> None:
    """Print the plan, and with --push carry it out."""
    # without abbreviations: --pu for --push would send
    parser = argparse.ArgumentParser(prog="python -m bezoar.publish", allow_abbrev=False)
    parser.add_argument("repository", metavar="USER/NAME")
    parser.add_argument("--push", action="store_true", help="send it; otherwise it is only shown")
    parser.add_argument("--private", action="store_true", help="create private repositories")
    parser.add_argument("--force", action="store_true", help="send what is refused, too")
    args = parser.parse_args()
    uploads = plan(args.repository, params.load())
    print(format_plan(uploads))
    refused = [upload.repository for upload in uploads if upload.against]
    if not args.push:
        print("\nNothing was sent: this is what --push would send.")
    elif refused and not args.force:
        raise BadInput(
            f"publish: {', '.join(refused)}: refused, see above; nothing was sent. Mend the "
            "reasons, or take the decision yourself with --force"
        )
    else:
        for address in push(uploads, args.private):
            print(f"sent: {address}")
