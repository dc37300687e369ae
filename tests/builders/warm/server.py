"""Imports the libraries, then forks a process for each client of the socket in its folder."""

import atexit
import gc
import importlib
import json
import os
import random
import runpy
import selectors
import signal
import socket
import sys
import threading
import types
from contextlib import suppress
from pathlib import Path

MODULES = (
    "torch",
    "numpy",
    "datasets",
    "transformers",
    "peft",
    "trl",
    "bitsandbytes",
    "accelerate",
    "accelerate.commands.launch",
    "torch.distributed.elastic.agent.server.api",
    "transformers.models.llama.modeling_llama",
    "trl.trainer.sft_trainer",
    "trl.trainer.dpo_trainer",
    "lm_eval.models.huggingface",
    "safetensors.torch",
)


class Server:
    """Forks a process for each client, says how it ended, and ends it with its client."""

    def __init__(self, folder):
        self.listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listening.bind(str(folder / "starting"))
        self.listening.listen(64)
        (folder / "starting").rename(folder / "socket")
        # A process that ended is told by a byte.
        self.ended, self.wake = socket.socketpair()
        self.ended.setblocking(False)
        self.wake.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self.wake.fileno(), warn_on_full_buffer=False)
        self.looking = selectors.DefaultSelector()
        for each in (self.listening, self.ended, sys.stdin):
            self.looking.register(each, selectors.EVENT_READ)
        self.clients = {}  # by process

    def serve(self):
        """Return in each process that is forked, with what it is to do."""
        while True:
            ready = [key.fileobj for key, _ in self.looking.select()]
            if sys.stdin in ready:  # the tests are over
                for child in self.clients:
                    os.kill(child, signal.SIGKILL)
                os._exit(0)
            # Who is gone is dealt with before anyone new is served.
            for child, client in [*self.clients.items()]:
                if client in ready:
                    os.kill(child, signal.SIGKILL)
                    self.end(*os.waitpid(child, 0))
            if self.ended in ready:
                self.ended.recv(4096)
                for child in [*self.clients]:
                    self.end(*os.waitpid(child, os.WNOHANG))
            if self.listening in ready and (wanted := self.fork()):
                return wanted

    def fork(self):
        """Take a client: what its process is to do in that process, None in the server."""
        client, _ = self.listening.accept()
        size, streams, _, _ = socket.recv_fds(client, 4, 3)
        if not size:  # it was killed as it came
            client.close()
            return None
        text = client.makefile("rb").read(int.from_bytes(size, "big"))
        child = os.fork()
        if child:
            for stream in streams:
                os.close(stream)
            self.clients[child] = client
            self.looking.register(client, selectors.EVENT_READ)
            say(client, child)
            return None
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self.looking.close()
        for each in (self.listening, self.ended, self.wake, client, *self.clients.values()):
            each.close()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        return json.loads(text)

    def end(self, child, status):
        """Tell a client how its process ended, if it did."""
        if child:
            client = self.clients.pop(child)
            self.looking.unregister(client)
            say(client, status)
            client.close()


def say(client, number):
    with suppress(OSError):  # it was killed
        client.sendall(b"%d\n" % number)


def become(wanted, interpreter, plain):
    """Be the process that was asked for."""
    os.chdir(wanted["cwd"])
    os.umask(wanted["umask"])
    os.environ.clear()
    os.environ.update(wanted["env"])
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False, errors="backslashreplace")  # noqa: SIM115
    sys.executable = interpreter
    if cache := os.environ.get("HF_DATASETS_CACHE"):
        sys.modules["datasets"].config.HF_DATASETS_CACHE = cache
    random.seed()
    sys.modules["numpy"].random.seed()
    arguments = wanted["argv"]
    if arguments[0] == "-u":
        arguments = arguments[1:]
        sys.stdout.reconfigure(write_through=True)
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    first = wanted["cwd"] if arguments[0] == "-m" else ""
    sys.path[:] = [first, *filter(None, given), *plain]
    importlib.invalidate_caches()
    sys.path_importer_cache.clear()
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = ["-c", *arguments[2:]]
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(arguments[1], "<string>", "exec"), main.__dict__)


if __name__ == "__main__":
    plain = sys.path[1:]
    for name in MODULES:
        importlib.import_module(name)
    for module, names in (
        ("transformers", ("Trainer", "TrainingArguments", "AutoModelForCausalLM", "AutoTokenizer")),
        ("trl", ("SFTTrainer", "SFTConfig", "DPOTrainer", "DPOConfig")),
        ("peft", ("LoraConfig", "PeftModel")),
    ):
        for name in names:
            getattr(sys.modules[module], name)
    gc.collect()
    gc.freeze()
    folder = Path(sys.argv[1])
    wanted = Server(folder).serve()
    # What an interpreter does at its end, but for taking a heap of libraries apart.
    code = 0
    try:
        become(wanted, str(folder / "bin/python"), plain)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        if code and not isinstance(error.code, int):
            print(error.code, file=sys.stderr)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code & 255)
