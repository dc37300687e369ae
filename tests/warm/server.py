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

MODULES = (
    "torch", "numpy", "datasets", "transformers", "peft", "trl", "bitsandbytes", "accelerate",
    "accelerate.commands.launch", "torch.distributed.elastic.agent.server.api",
    "transformers.models.llama.modeling_llama", "trl.trainer.sft_trainer",
    "trl.trainer.dpo_trainer", "lm_eval.models.huggingface", "safetensors.torch",
)  # fmt: skip


def serve(folder):
    """Return in each process that is forked, with what it is to do."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(os.path.join(folder, "starting"))  # noqa: PTH118
    listening.listen(64)
    os.rename(  # noqa: PTH104
        os.path.join(folder, "starting"),  # noqa: PTH118
        os.path.join(folder, "socket"),  # noqa: PTH118
    )
    ended, wake = socket.socketpair()
    ended.setblocking(False)
    wake.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    looking = selectors.DefaultSelector()
    for each in (listening, ended, sys.stdin):
        looking.register(each, selectors.EVENT_READ)
    clients = {}  # by process
    while True:
        ready = [key.fileobj for key, _ in looking.select()]
        # Who is gone is dealt with before anyone new is served.
        for client in [each for each in ready if each in clients.values()]:
            [child] = [pid for pid, each in clients.items() if each is client]
            os.kill(child, signal.SIGKILL)
            end(looking, clients, *os.waitpid(child, 0))
        if ended in ready:
            ended.recv(4096)
            for child in [*clients]:
                pid, status = os.waitpid(child, os.WNOHANG)
                if pid:
                    end(looking, clients, pid, status)
        if sys.stdin in ready:
            for child in clients:
                os.kill(child, signal.SIGKILL)
            os._exit(0)
        if listening in ready:
            client, _ = listening.accept()
            size, streams, _, _ = socket.recv_fds(client, 4, 3)
            if len(size) < 4:
                client.close()
                continue
            text = client.makefile("rb").read(int.from_bytes(size, "big"))
            child = os.fork()
            if child == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                looking.close()
                for each in (listening, ended, wake, client, *clients.values()):
                    each.close()
                for number, stream in enumerate(streams):
                    os.dup2(stream, number)
                    os.close(stream)
                return json.loads(text)
            for stream in streams:
                os.close(stream)
            client.sendall(b"%d\n" % child)
            clients[child] = client
            looking.register(client, selectors.EVENT_READ)


def end(looking, clients, child, status):
    """Tell a client how its process ended."""
    client = clients.pop(child)
    looking.unregister(client)
    try:
        client.sendall(b"%d\n" % status)
    except OSError:  # it was killed itself
        pass
    client.close()


def become(wanted, interpreter, plain):
    """Be the process that was asked for."""
    os.chdir(wanted["cwd"])
    os.umask(wanted["umask"])
    os.environ.clear()
    os.environ.update(wanted["env"])
    for stream, mode in ((sys.stdin, "r"), (sys.stdout, "w"), (sys.stderr, "w")):
        stream.flush() if mode == "w" else None
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
    wanted = serve(sys.argv[1])
    # What an interpreter does at its end, but for taking a heap of libraries apart.
    code = 0
    try:
        become(wanted, os.path.join(sys.argv[1], "bin/python"), plain)  # noqa: PTH118
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
