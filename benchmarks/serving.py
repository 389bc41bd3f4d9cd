"""Latency and throughput of the service, beside a plain FastAPI application with the same network,
asked by 1 to 64 clients at once.

python -m holdfast.benchmarks.serving [case=compact] [clients=[1,8,64]] [seconds=8]
"""

import asyncio
import io
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from PIL import Image

from holdfast.benchmarks import pages
from holdfast.benchmarks.script import script
from holdfast.benchmarks.sources import train_model, training_words
from holdfast.datamodules import load_images
from holdfast.datamodules.phantom import PhantomConfig
from holdfast.datamodules.reading import fitted
from holdfast.tta.errors import InputError
from holdfast.tta.options import option

#: Network, side of its images, epochs of its training and images to train on; enough for classes
#: to be told apart, or nothing would be learned from them.
CASES = {"compact": ("compact", 28, 4, 600), "resnet50": ("resnet50", 224, 1, 64)}
#: How the service is started; the first answers as the plain application does.
SERVICES = {
    "frozen": ["serve.adapt=false"],
    "adapting": ["method=tent", "guard=off"],
    "guarded": ["method=tent", "guard.order=mixed"],
}
PLAIN = "plain"
#: The frozen one as a graph, where what writes and runs graphs is installed.
GRAPH = "frozen, ONNX"
_FOR_GRAPHS = ("onnx", "onnxscript", "onnxruntime")
#: Images that clients send in turn, and those each sends before the clock starts.
_IMAGES, _WARM = 64, 2


@dataclass
class ServingConfig:
    """Options of the load test."""

    case: str = option("compact", "network and images: compact at 28², or resnet50 at 224²")
    clients: list[int] = option(
        [1, 8, 64], "clients that ask at once, each for one image after another"
    )
    seconds: float = option(8.0, "that each is measured for, in each of two rounds")

    def __post_init__(self) -> None:
        if self.case not in CASES:
            raise InputError(f"case={self.case} is none of {', '.join(CASES)}")
        if not self.clients or min(self.clients) < 1 or self.seconds <= 0:
            raise InputError("clients must be 1 or more, and seconds above 0")


Measured = dict[tuple[str, int], tuple[list[float], float]]


def measured(config: ServingConfig, folder: Path) -> Measured:
    """Seconds of each request, and images a second, by service and number of clients.

    All services run; one after the other is asked, in two rounds, so that what else the machine
    does meets all alike.
    """
    source, pictures = prepared(config.case, folder)
    found: Measured = {}
    with ExitStack() as stack:
        ports = {PLAIN: stack.enter_context(started([*_PLAIN, str(source), "0"]))}
        for name, words in {**SERVICES, **_graph(source)}.items():
            given = [f"source={source}", f"output={folder / name}", "device=cpu", *words]
            command = ["-m", "holdfast", "serve", "serve.port=0", "serve.timeout=600", *given]
            ports[name] = stack.enter_context(started(command))
        for clients in config.clients:
            for _ in range(2):
                for name, port in ports.items():
                    times, rate = asyncio.run(load(port, pictures, clients, config.seconds))
                    before, rates = found.get((name, clients), ([], 0.0))
                    found[name, clients] = (before + times, rates + rate / 2)
    return found


def _graph(source: Path) -> dict[str, list[str]]:
    """How the service of a graph is started, where there can be one."""
    if not all(find_spec(name) for name in _FOR_GRAPHS):
        return {}
    file = source / "exported.onnx"
    _ran(["export", str(source), "format=onnx", f"output={file}"])
    return {GRAPH: ["serve.adapt=false", f"start={file}"]}


def table(found: Measured) -> str:
    """The figures as a table of a page."""
    head = ("clients", "service", "p50 ms", "p95 ms", "p99 ms", "images/s", "of plain")
    lines = []
    for (name, clients), (times, rate) in sorted(found.items(), key=lambda row: row[0][1]):
        quantiles = [f"{1e3 * value:.1f}" for value in np.quantile(times, [0.5, 0.95, 0.99])]
        ratio = rate / found[PLAIN, clients][1]
        lines.append([f"{clients}", name, *quantiles, f"{rate:.1f}", f"{ratio:.2f}"])
    return pages.table(head, lines, texts=2)


def serving(config: ServingConfig) -> str:
    """Measure all services, in a folder that goes with them; returns the table."""
    with tempfile.TemporaryDirectory() as name:
        return table(measured(config, Path(name)))


def prepared(case: str, folder: Path) -> tuple[Path, list[bytes]]:
    """A source that was trained for a moment, and files of another domain's images."""
    model, side, epochs, count = CASES[case]
    options = PhantomConfig(
        train_images=count, val_images=64, test_images=64, target_images=_IMAGES
    )
    parts: dict[str, list[Any]] = {name: [] for name in ("images", "labels", "split", "domain")}
    for split in ("train", "val", "target"):
        images = load_images("phantom", options, split)
        pixels = np.asarray(images.images)
        parts["images"].append(np.stack([fitted(one, (side, side), "stretch") for one in pixels]))
        parts["labels"].append(images.labels)
        parts["split"].append([{"target": "test"}.get(split, split)] * len(images))
        parts["domain"].append(["there" if split == "target" else "here"] * len(images))
    whole = {name: np.concatenate(values) for name, values in parts.items()}
    np.savez(folder / "images.npz", **whole)  # type: ignore[arg-type]
    words = ["data=npz", f"data.path={folder / 'images.npz'}", "data.source=here", f"model={model}"]
    words += [f"epochs={epochs}", "calibrate=off", "batch_size=32"]
    train_model([*words, *training_words(0, folder / "source")])
    return folder / "source", [_png(one) for one in parts["images"][-1]]


def _ran(words: Sequence[str]) -> None:
    """Run a command to its end."""
    done = subprocess.run(
        [sys.executable, "-m", "holdfast", *words], capture_output=True, text=True
    )
    if done.returncode:
        raise InputError(f"holdfast {words[0]} failed: {done.stderr.strip()}")


def _png(pixels: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="png")
    return buffer.getvalue()


@contextmanager
def started(words: Sequence[str]) -> Iterator[int]:
    """A process that says at which port it serves, until the block ends."""
    command = [sys.executable, *words]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if line.startswith("serving at "):
                yield int(line.rsplit(":", 1)[1])
                return
        raise InputError(f"{' '.join(words)} did not start: {said.strip()}")
    finally:
        process.kill()
        process.wait()


async def load(
    port: int, pictures: Sequence[bytes], clients: int, seconds: float
) -> tuple[list[float], float]:
    """Seconds of each request that clients make, one after another, and images a second."""
    times: list[float] = []
    began = [0.0]
    gate = asyncio.Barrier(clients)

    async def client(number: int) -> None:
        async with _connected(port) as ask:
            for turn in range(_WARM):
                await ask(pictures[(number + turn) % len(pictures)])
        await gate.wait()  # without a connection: servers close those that idle
        began[0] = began[0] or perf_counter()
        turn = number
        async with _connected(port) as ask:
            while perf_counter() < began[0] + seconds:
                asked = perf_counter()
                await ask(pictures[turn % len(pictures)])
                times.append(perf_counter() - asked)
                turn += clients

    await asyncio.gather(*map(client, range(clients)))
    return times, len(times) / (perf_counter() - began[0])


@asynccontextmanager
async def _connected(port: int) -> AsyncIterator[Callable[[bytes], Awaitable[None]]]:
    """What sends a picture and takes the answer, over one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield partial(_ask, reader, writer)
    finally:
        writer.close()


_MARK = b"x-holdfast-load"
_HEAD = (
    b"--" + _MARK + b'\r\nContent-Disposition: form-data; name="images"; filename="image.png"'
    b"\r\nContent-Type: image/png\r\n\r\n"
)


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, picture: bytes) -> None:
    body = _HEAD + picture + b"\r\n--" + _MARK + b"--\r\n"
    writer.write(
        b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary="
        + _MARK
        + b"\r\nContent-Length: %d\r\n\r\n" % len(body)
        + body
    )
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    answer = await reader.readexactly(length)
    if not head.startswith(b"HTTP/1.1 200"):
        raise InputError(f"the service refused an image: {answer.decode()[:200]}")


#: The plain application, as one would write it down.
_PLAIN = (
    "-c",
    """
import io, socket, sys
import numpy as np, torch, uvicorn
from fastapi import FastAPI, UploadFile
from PIL import Image
from holdfast.tta.checkpoint import SourceCheckpoint
source = SourceCheckpoint.load(sys.argv[1])
network, app = source.build(), FastAPI()
@app.post("/predict")
def predict(images: UploadFile):
    pixels = np.asarray(Image.open(images.file).convert("RGB"), np.float32) / 255
    with torch.inference_mode():
        logits = network(torch.from_numpy(pixels).permute(2, 0, 1)[None])
    chances = logits.softmax(1)[0].tolist()
    best = max(range(len(chances)), key=chances.__getitem__)
    return {"prediction": source.class_names[best], "probabilities": chances}
door = socket.create_server(("127.0.0.1", int(sys.argv[2])))
door.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as where uvicorn opens it itself
print(f"serving at http://127.0.0.1:{door.getsockname()[1]}", flush=True)
uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).run([door])
""",
)

main = script(ServingConfig, serving)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
