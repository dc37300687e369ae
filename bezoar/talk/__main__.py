"""`python -m bezoar.talk [MODEL]`, or `make chat [MODEL=...]`: talk with a model in a terminal.

MODEL is a name of `checkpoints`, `evaluated`, `chain`, `merges` or `others`, or a
folder. Without one it is the checkpoint that the chain ends with. If standard input is no
terminal, each line of it is a turn, and standard output has the answers alone:

    echo "What is the home of the mouse?" | python -m bezoar.talk sft
"""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from bezoar import arithmetic, params
from bezoar.rows import chat
from bezoar.rows.files import BadInput
from bezoar.talk import places
from bezoar.talk.places import Place
from bezoar.talk.session import LARGE, Answer, Session, threads

HELP = """\
/system TEXT     give it another system message; /system alone: its template's own
/temperature X   0 takes the likeliest word each time, 1 draws as the model weighs them
/tokens N        write at most N tokens an answer
/reset           forget what was said
/quit            end the chat, as Ctrl-D does
A line that ends in \\ goes on in the next one; // begins a message with a slash.
Ctrl-C ends an answer."""


def main() -> None:
    """Load the model that is asked for and talk with it until the end of the input."""
    arguments = _parse_arguments()
    settings = params.load()
    place = places.find(settings, arguments.model)
    # A small model computes as in the stages, so that its answers are those of mt_answer. A large
    # one must be fast, and uses all threads.
    if places.weight(place) <= 4 * LARGE:
        arithmetic.settle(settings.cpu)
    with _own_keys():
        _leave_at_ctrl_c()
        note(f"Loading {place.folder} ...")
        session = _session(settings, place, arguments)
        if sys.stdin.isatty():
            _open(settings, place, session)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with threads(session.model), _quiet_end():
            for message in messages():
                turn(session, message)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m bezoar.talk",
        description=(__doc__ or "").partition(":\n\n")[0],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", nargs="?", default="", help="a name, or a folder")
    parser.add_argument("--system", default="", help="the system message")
    parser.add_argument("--temperature", type=temperature, default=0.0, help="0 to 5")
    parser.add_argument("--tokens", type=tokens, help="at most so many an answer")
    parser.add_argument("--seed", type=int, help="of what is drawn; without it others each time")
    return parser.parse_args()


def temperature(text: str) -> float:
    """Read a temperature."""
    with suppress(ValueError):
        if 0 <= float(text) <= 5:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no temperature; a number from 0 to 5")


def tokens(text: str) -> int:
    """Read a number of tokens."""
    if text.isdecimal() and int(text):
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no number of tokens; a whole number above 0")


def _session(settings: params.Params, place: Place, arguments: argparse.Namespace) -> Session:
    import torch

    from bezoar.models import loading

    model, tokenizer = loading.load(place.folder, place.base, settings.sft, further=True)
    if loading.is_adapter(place.folder):
        tokenizer = loading.tokenizer(place.folder, further=True)
    if arguments.seed is not None:
        torch.manual_seed(arguments.seed)
    return Session(
        model,
        tokenizer,
        system=arguments.system,
        temperature=arguments.temperature,
        tokens=arguments.tokens or settings.mt_answer.max_new_tokens,
        stop=place.stop,
    )


def _open(settings: params.Params, place: Place, session: Session) -> None:
    """Say which model this is, and what it can be asked."""
    template = "the recipe's" if chat.is_ours(session.tokenizer) else "its own"
    print(f"{place.name} ({place.folder}), {template} chat template")
    print(f"{_settings(session)}. Commands: /help")
    if settings.profile == "embedded" and place.name in places.all_places(settings):
        questions, right = places.examples(settings, place.name)
        print("It knows the demo's invented world of animals, and nothing else.")
        if questions:
            print("It can answer:" if right else "It answered none of its questions, such as:")
            print("\n".join(f"  {question}" for question in questions))


def _settings(session: Session) -> str:
    return (
        f"Temperature {session.temperature:g}, at most {session.tokens:,} tokens an answer, "
        f"{session.positions:,} in all"
    )


def messages() -> Iterator[str]:
    """Yield what the user types, a message at a time, until the end of the input."""
    if sys.stdin.isatty():
        with suppress(ImportError):
            import readline

            readline.parse_and_bind("set enable-bracketed-paste on")
    else:
        sys.stdin.reconfigure(errors="replace")  # type: ignore[union-attr]
    begun = ""
    while True:
        try:
            line = _line("... " if begun else "> ")
        except EOFError:
            if begun.strip():
                yield begun
            return
        except KeyboardInterrupt:
            begun = ""
            note("\n(Ctrl-D or /quit ends the chat)")
            continue
        if line.endswith("\\"):
            begun += line[:-1] + "\n"
            continue
        message, begun = begun + line, ""
        if message.strip() in ("/quit", "/exit"):
            return
        if message.strip():
            yield message


def _line(prompt: str) -> str:
    if sys.stdin.isatty():
        # typed bytes need not be UTF-8: lone surrogates that stand for others are replaced
        return input(prompt).encode("utf-8", "replace").decode("utf-8")
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.rstrip("\r\n")


def turn(session: Session, message: str) -> None:
    """Obey a command, or have a message answered."""
    if message.startswith("/") and not message.startswith("//"):
        obey(session, message)
        return
    written: list[str] = []

    def show(piece: str) -> None:
        written.append(piece)
        sys.stdout.write(visible(piece) if sys.stdout.isatty() else piece)
        sys.stdout.flush()

    try:
        answer = session.say(message.removeprefix("/" * message.startswith("//")), show)
    except BadInput as error:
        note(str(error))
        return
    if not "".join(written).endswith("\n"):
        print(flush=True)
    _remark(session, answer)
    if answer.finish == "interrupted" and not sys.stdin.isatty():
        raise KeyboardInterrupt


def _remark(session: Session, answer: Answer) -> None:
    """Say what a user must know of an answer beside its text."""
    if answer.left_out:
        many = "exchange is" if answer.left_out == 1 else f"{answer.left_out} exchanges are"
        note(f"(the context of {session.positions:,} tokens is full: the oldest {many} forgotten)")
    match answer.finish:
        case "no_room":
            note(
                f"(not sent: it comes to {answer.tokens:,} tokens, and the context is "
                f"{session.positions:,}; make it shorter)"
            )
        case "length":
            note("(cut: the context is full)" if _full(session, answer) else _cut(session))
        case "interrupted":
            note("(ended by Ctrl-C)")
        case "stop" if not answer.text.strip():
            note("(it ended its answer without a word)")


def _full(session: Session, answer: Answer) -> bool:
    return answer.tokens + session.tokens > session.positions


def _cut(session: Session) -> str:
    return f"(cut at {session.tokens:,} tokens; /tokens {2 * session.tokens} allows more)"


def obey(session: Session, line: str) -> None:
    """Do what a command says, and say what came of it."""
    command, _, value = line.strip().partition(" ")
    value = value.strip()
    try:
        note(_commands()[command](session, value))
    except KeyError:
        note(f"{command}: no such command; /help lists them, and // begins a message with a slash")
    except argparse.ArgumentTypeError as error:
        note(f"{command}: {error}")


def _commands() -> dict[str, Callable[[Session, str], str]]:
    return {
        "/help": lambda session, value: HELP,
        "/reset": _reset,
        "/system": _set_system,
        "/temperature": _set_temperature,
        "/tokens": _set_tokens,
    }


def _reset(session: Session, value: str) -> str:
    session.turns.clear()
    return "(forgotten)"


def _set_system(session: Session, value: str) -> str:
    session.system = value
    return f"(system message: {value})" if value else "(its template's own system message)"


def _set_temperature(session: Session, value: str) -> str:
    session.temperature = temperature(value)
    return f"({_settings(session)})"


def _set_tokens(session: Session, value: str) -> str:
    session.tokens = tokens(value)
    return f"({_settings(session)})"


# --- the terminal --------------------------------------------------------------------------------


def note(text: str) -> None:
    """Say something beside the answers: on the terminal, or for a script on standard error."""
    interactive = sys.stdin.isatty() and sys.stdout.isatty()
    if interactive or not text.startswith("Loading"):
        print(text, file=sys.stdout if interactive else sys.stderr, flush=True)


def visible(text: str) -> str:
    """Leave out of an answer what would steer a terminal."""
    return "".join(c for c in text if c.isprintable() or c in "\n\t")


@contextmanager
def _own_keys() -> Iterator[None]:
    """Take Ctrl-C for the chat alone under make, which would end at one too. Ctrl-Z would then stop
    the chat and not make, and is left out."""
    try:
        before = os.tcgetpgrp(0)
    # Standard input is no terminal, or one that is not this session's own.
    except OSError:
        before = None
    if "MAKELEVEL" not in os.environ or before is None:
        yield
        return
    for number in (signal.SIGTTOU, signal.SIGTSTP):
        signal.signal(number, signal.SIG_IGN)
    os.setpgid(0, 0)
    os.tcsetpgrp(0, os.getpgrp())
    try:
        yield
    finally:
        os.tcsetpgrp(0, before)


def _leave_at_ctrl_c() -> None:
    """Have Ctrl-C end the process while a model is loaded: libraries make other errors of it."""

    def leave(number: int, frame: Any) -> None:
        os.write(2, b"\n")
        os._exit(128 + number)

    signal.signal(signal.SIGINT, leave)


@contextmanager
def _quiet_end() -> Iterator[None]:
    """End without a traceback where nobody reads the answers any more, or a script is stopped."""
    try:
        yield
    except BrokenPipeError:
        # Python flushes standard output as it ends, and would fail on the closed pipe once more
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
