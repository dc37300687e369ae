"""How fast the client is, and what it loses: `python -m benchmarks.client [--peers]`.

A model server on loopback answers after 50 ms, in a process of its own. In one run: the floor (bare
aiohttp), this client with its ledger on, the openai package on both its transports, and with
--peers bespokelabs-curator and datatrove where they are installed, each in a fresh process. Then
what faults cost: a kill -9 midway, two processes that want the same, one cap over the two, a token
bucket, 10 % errors, four prompts that are always refused. CPU is user + system of the client's
process over the measured part. The last line is one JSON object.
"""

import argparse
import asyncio
import importlib.util
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
LATENCY = 0.05
PROMPTS = 2500
WARM = 100
CONCURRENCY = (100, 400)
PEERS = ("curator", "datatrove")
SDKS = ("openai_aiohttp", "openai_httpx")


def prompts(start: int, count: int) -> list[str]:
    """Distinct prompts of about 1,400 characters."""
    return [
        f"prompt {i}: " + "what is the meaning of this sentence? " * 36
        for i in range(start, start + count)
    ]


def endpoint(url: str, concurrency: int, **changed: Any) -> Any:
    """An endpoint over the loopback server."""
    from bezoar.params import OpenAI

    settings = {
        "provider": "openai",
        "style": "chat",
        "model": "m",
        "base_url": f"{url}/v1",
        "structured": False,
        "terms": "MIT",
        "api_key_env": None,
        "params": {"max_tokens": 64, "temperature": 0},
        "mode": "live",
        "concurrency": concurrency,
        "requests_per_minute": None,
        "tokens_per_minute": None,
        "timeout": 60,
        "patience": 60,
        "max_failed": 0.05,
        "reply_tokens": 64,
        "price": {"input": 1, "cached": 0.1, "output": 2, "batch": 0.5},
    }
    return OpenAI.model_validate({**settings, **changed})


# --- the clients, each in a process of its own ----------------------------------------------------


def ask_one(prompt: str, ask: Any) -> str:
    """A job of one request."""
    from bezoar.rows.records import Message

    reply = ask([Message(role="user", content=prompt)])
    return str(reply.text)


def bezoar(url: str, concurrency: int) -> Callable[[list[str]], object]:
    """This client."""
    from bezoar import llm

    where = endpoint(url, concurrency)
    ask = llm.connect(where)
    return lambda texts: llm.run_jobs(ask_one, texts, ask, where, prefix="benchmark", name=str)


def floor(url: str, concurrency: int) -> Callable[[list[str]], object]:
    """Bare aiohttp: post, read, decode, nothing else."""
    import aiohttp

    loop = asyncio.new_event_loop()

    async def connect() -> aiohttp.ClientSession:
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=concurrency))

    session = loop.run_until_complete(connect())

    async def one(queue: Iterator[str]) -> None:
        for text in queue:
            body = {"model": "m", "messages": [{"role": "user", "content": text}]}
            async with session.post(f"{url}/v1/chat/completions", json=body) as response:
                (await response.json())["choices"][0]["message"]["content"]

    async def every(texts: list[str]) -> None:
        queue = iter(texts)
        await asyncio.gather(*(one(queue) for _ in range(concurrency)))

    return lambda texts: loop.run_until_complete(every(texts))


def openai_package(url: str, concurrency: int, transport: str) -> Callable[[list[str]], object]:
    """The openai package, asynchronous, on its default transport or on aiohttp."""
    import openai

    loop = asyncio.new_event_loop()

    async def connect() -> Any:
        settings: dict[str, Any] = {"base_url": f"{url}/v1", "api_key": "none"}
        if transport == "aiohttp":
            settings["http_client"] = openai.DefaultAioHttpClient()
        return openai.AsyncOpenAI(**settings)

    client = loop.run_until_complete(connect())

    async def one(queue: Iterator[str]) -> None:
        for text in queue:
            await client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": text}]
            )

    async def every(texts: list[str]) -> None:
        queue = iter(texts)
        await asyncio.gather(*(one(queue) for _ in range(concurrency)))

    return lambda texts: loop.run_until_complete(every(texts))


def curator(url: str, concurrency: int) -> Callable[[list[str]], object]:
    """bespokelabs-curator with its limits raised out of the way, its telemetry off, and a token
    counter that needs no file from the web."""
    os.environ["CURATOR_DISABLE_RICH_DISPLAY"] = "1"
    os.environ["TELEMETRY_ENABLED"] = "0"
    import tiktoken

    tiktoken.get_encoding = lambda name: type(
        "Words", (), {"encode": lambda _, text: text.split()}
    )()
    tiktoken.encoding_for_model = tiktoken.get_encoding
    from bespokelabs import curator as package

    return package.LLM(  # type: ignore[no-any-return]
        model_name="openai/m",
        backend="openai",
        backend_params={
            "base_url": f"{url}/v1",
            "api_key": "none",
            "max_concurrent_requests": concurrency,
            "max_requests_per_minute": 10_000_000,
            "max_tokens_per_minute": 10_000_000_000,
        },
    )


def datatrove(url: str, concurrency: int) -> Callable[[list[str]], object]:
    """datatrove's inference runner against a server that is there already, with the store that
    lets it resume, as the ledger lets this client."""
    from datatrove.data import Document
    from datatrove.pipeline.inference.run_inference import InferenceConfig, InferenceRunner
    from datatrove.pipeline.writers import JsonlWriter

    folder = tempfile.mkdtemp(dir=os.environ["BEZOAR_WORK"])

    async def rollout(document: Any, generate: Any) -> Any:
        return await generate({"messages": [{"role": "user", "content": document.text}]})

    def run(texts: list[str]) -> None:
        config = InferenceConfig(
            server_type="endpoint",
            endpoint_url=url,
            model_name_or_path="m",
            max_concurrent_generations=concurrency,
            rollouts_per_document=1,
        )
        out = tempfile.mkdtemp(dir=folder)
        runner = InferenceRunner(
            rollout_fn=rollout,
            config=config,
            output_writer=JsonlWriter(f"{out}/out", output_filename="${rank}_${chunk_index}.jsonl"),
            checkpoints_local_dir=f"{out}/checkpoints",
        )
        runner.run((Document(text=text, id=text[:16]) for text in texts), rank=0, world_size=1)

    return run


CLIENTS: dict[str, Callable[[str, int], Callable[[list[str]], object]]] = {
    "floor": floor,
    "bezoar": bezoar,
    "openai_aiohttp": lambda url, c: openai_package(url, c, "aiohttp"),
    "openai_httpx": lambda url, c: openai_package(url, c, "httpx"),
    "curator": curator,
    "datatrove": datatrove,
}


def measure(name: str, url: str, concurrency: int, count: int) -> None:
    """In a process of its own: warm up, run, print {"req_s", "cpu_ms"}."""
    run = CLIENTS[name](url, concurrency)
    run(prompts(0, WARM))
    texts = prompts(WARM, count)
    used, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    run(texts)
    seconds, now = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    cpu = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    print(json.dumps({"req_s": round(count / seconds), "cpu_ms": round(1000 * cpu / count, 3)}))


# --- the run -------------------------------------------------------------------------------------


@contextmanager
def server() -> Iterator[str]:
    """The 50 ms server, ended with the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.builders.servers", str(LATENCY)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


def fresh(name: str, concurrency: int, count: int) -> dict[str, float] | None:
    """Measure one client in a new process with a new server; None when it failed."""
    with tempfile.TemporaryDirectory() as work, server() as url:
        env = {**os.environ, "BEZOAR_WORK": work, "CURATOR_CACHE_DIR": work, "HF_HOME": work}
        command = [sys.executable, "-m", "benchmarks.client", "--one", name, url]
        command += [str(concurrency), str(count)]
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300, check=True
            )
            row: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
        except (subprocess.SubprocessError, ValueError, IndexError) as error:
            print(f"{name} c={concurrency}: failed: {str(error)[:200]}", flush=True)
            return None
    print(
        f"{name:15} c={concurrency:3}  {row['req_s']:6} req/s  {row['cpu_ms']:6} ms CPU", flush=True
    )
    return row


def killed() -> int:
    """Kill -9 a run of 500 midway, run it again: replies paid twice beyond those in flight."""
    from tests.builders.servers import Faults, serving

    code = (
        "import sys; from benchmarks import client; from bezoar import llm\n"
        "where = client.endpoint(sys.argv[1], 20)\n"
        "ask, texts = llm.connect(where), client.prompts(0, 500)\n"
        "llm.run_jobs(client.ask_one, texts, ask, where, prefix='benchmark', name=str)"
    )
    with tempfile.TemporaryDirectory() as work, serving(Faults(latency=0.02)) as (model, url):
        command = [sys.executable, "-c", code, url]
        env = {**os.environ, "BEZOAR_WORK": work}
        first = subprocess.Popen(command, cwd=ROOT, env=env)
        while first.poll() is None and sum(model.paid.values()) < 250:
            time.sleep(0.002)
        first.send_signal(signal.SIGKILL)
        first.wait()
        subprocess.run(command, cwd=ROOT, env=env, check=True, timeout=120)
        return max(0, sum(model.paid.values()) - 500 - 20)


PAIR = 720  # requests that both processes of a pair want


def pair(cap: float | None, **faults: Any) -> tuple[int, float, float]:
    """Two processes that want the same requests of one run, side by side: (replies paid twice,
    dollars by the server's books, seconds)."""
    from tests.builders.servers import Faults, serving

    code = (
        "import sys; from benchmarks import client; from bezoar import llm, params\n"
        "where, p = client.endpoint(sys.argv[1], 20), params.load()\n"
        "budget = params.Budget(name='pair', stage=None, run=float(sys.argv[2] or 'inf'))\n"
        "p = p.model_copy(update={'budget_usd': budget})\n"
        "ask, texts = llm.connect(where, p, 'generate', 'pair'), client.prompts(0, client.PAIR)\n"
        "llm.run_jobs(client.ask_one, texts, ask, where, prefix='benchmark', name=str)"
    )
    with tempfile.TemporaryDirectory() as work, serving(Faults(latency=0.02, **faults)) as (m, url):
        command = [sys.executable, "-c", code, url, "" if cap is None else str(cap)]
        env = {**os.environ, "BEZOAR_WORK": work}
        began = time.perf_counter()
        both = [
            subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.DEVNULL)
            for _ in range(2)
        ]
        for process in both:
            process.wait(timeout=120)
        seconds = time.perf_counter() - began
        return sum(m.paid.values()) - len(m.paid), billed(m), seconds


def billed(model: Any) -> float:
    """Dollars for all that a server has written, at `endpoint`'s price."""
    from bezoar.llm import budget
    from tests.builders.servers import document

    price, usd = endpoint("http://127.0.0.1", 1).price, 0.0
    for prompt, times in model.paid.items():
        request = {"model": "m", "messages": [{"role": "user", "content": prompt}]}
        usage = document("/v1/chat/completions", request, model.speak(prompt))["usage"]
        read, written = usage["prompt_tokens"], usage["completion_tokens"]
        usd += times * budget.cost(price, read, 0, written, batch=False)
    return usd


def faulty(concurrency: int, texts: list[str], **faults: Any) -> tuple[Any, Any, float]:
    """(Run, the server's books, seconds) of `texts` against a server with `faults`."""
    from bezoar import llm
    from tests.builders.servers import Faults, serving

    with tempfile.TemporaryDirectory() as work, serving(Faults(latency=0.02, **faults)) as (m, url):
        os.environ["BEZOAR_WORK"] = work
        where = endpoint(url, concurrency)
        began = time.perf_counter()
        run = llm.run_jobs(ask_one, texts, llm.connect(where), where, prefix="benchmark", name=str)
        return run, m, time.perf_counter() - began


def main() -> None:
    """Measure, print a table, print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        name, url, concurrency, count = arguments.one
        measure(name, url, int(concurrency), int(count))
        return
    rows = {(name, c): fresh(name, c, PROMPTS) for c in CONCURRENCY for name in ("floor", "bezoar")}
    peers = {name: fresh(name, CONCURRENCY[-1], PROMPTS) for name in SDKS}
    if arguments.peers:
        for name, module in zip(PEERS, ("bespokelabs", "datatrove"), strict=True):
            if importlib.util.find_spec(module):
                peers[name] = fresh(name, CONCURRENCY[-1], PROMPTS)
            else:
                print(f"{name}: not installed", flush=True)
    repaid = killed()
    paid_twice, usd, pair_s = pair(None, error=0.05)
    cap = usd / 2
    _, capped_usd, _ = pair(cap)
    _, bucket, bucket_s = faulty(50, prompts(0, 500), bucket=(50, 50))
    errors, _, _ = faulty(50, prompts(0, 500), error=0.1)
    refused = [
        f"ALWAYS-400 {text}" if i % 125 == 0 else text for i, text in enumerate(prompts(0, 500))
    ]
    bad, _, _ = faulty(50, refused)
    ours, bare = rows["bezoar", 400] or {}, rows["floor", 400] or {}
    print(
        json.dumps(
            {
                "req_s": ours.get("req_s"),
                "cpu_ms": ours.get("cpu_ms"),
                "floor_req_s": bare.get("req_s"),
                "floor_cpu_ms": bare.get("cpu_ms"),
                "req_s_100": (rows["bezoar", 100] or {}).get("req_s"),
                "floor_req_s_100": (rows["floor", 100] or {}).get("req_s"),
                "repaid": repaid,
                "paid_twice": paid_twice,
                "pair_s": round(pair_s, 2),
                "cap_overshoot": round(max(0.0, capped_usd - cap), 6),
                "cap_used": round(capped_usd / cap, 3),
                "bucket_s": round(bucket_s, 2),
                "bucket_429": bucket.statuses["429"],
                "faults_ok": len(errors.done) == 500 and not errors.failures,
                "rows_of_500": sum(bool(text) for _, text in bad.done),
                "failure_rows": len(bad.failures),
                "peers": {name: row["req_s"] for name, row in peers.items() if row},
            }
        )
    )


if __name__ == "__main__":
    main()
