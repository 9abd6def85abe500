"""A ``Server`` behind HTTP: requests that come close together, whatever their tasks, are one batch of the model.

    python docs/examples/http_server.py --base FOLDER --deltas FOLDER [--port 8786] [--memory 1e9]

``POST /run`` takes ``{"task": NAME, "inputs": {NAME: one sample, as nested lists}}`` and gives ``{"outputs": [...]}``;
``GET /tasks`` gives the tasks. It needs Tornado (which Jupyter brings along) and, for ``--base``, transformers. It has
no limits on who may ask or how often: put it behind something that has.
"""

import argparse
import asyncio
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor
from tornado.httpserver import HTTPServer
from tornado.web import Application, HTTPError, RequestHandler

from dts_mini.core.errors import DTSError
from dts_mini.serving import Server

Inputs = Mapping[str, Tensor]


class Batcher:
    """Gathers samples of one shape for ``wait`` seconds, or until they are ``most``, and runs them as one batch."""

    def __init__(self, server: Server, *, most: int = 32, wait: float = 0.005) -> None:
        self.server, self.most, self.wait, self.batches = server, most, wait, 0
        self._waiting: dict[tuple, list[tuple[str, Inputs, asyncio.Future]]] = {}
        self._pool = ThreadPoolExecutor(1)  # the model runs in a thread of its own, so that requests still come in

    async def __call__(self, task: str, inputs: Inputs) -> Tensor:
        """The first output of the model for one sample of one task."""
        loop = asyncio.get_running_loop()
        shape = tuple(sorted((name, x.shape, str(x.dtype)) for name, x in inputs.items()))
        waiting = self._waiting.setdefault(shape, [])
        waiting.append((task, inputs, answer := loop.create_future()))
        if len(waiting) == 1:
            loop.call_later(self.wait, self._start, shape, waiting)
        elif len(waiting) == self.most:
            self._start(shape, waiting)
        return await answer

    def _start(self, shape: tuple, waiting: list) -> None:
        if self._waiting.get(shape) is waiting:  # not started before, being full
            del self._waiting[shape]
            asyncio.get_running_loop().run_in_executor(self._pool, self._run, waiting, asyncio.get_running_loop())

    def _run(self, waiting: list, loop: asyncio.AbstractEventLoop) -> None:
        tasks = [task for task, _, _ in waiting]
        try:
            output = self.server(
                tasks, **{name: torch.stack([x[name] for _, x, _ in waiting]) for name in waiting[0][1]}
            )
            found = list(output if isinstance(output, Tensor) else output[0])
        except Exception as error:
            if len(waiting) > 1:  # one sample's fault is not another's
                for one in waiting:
                    self._run([one], loop)
                return
            found = [error]
        self.batches += 1
        for (_, _, answer), result in zip(waiting, found, strict=True):
            loop.call_soon_threadsafe(_answer, answer, result)


def _answer(answer: asyncio.Future, result: Tensor | Exception) -> None:
    if not answer.done():  # whoever asked may have gone
        answer.set_exception(result) if isinstance(result, Exception) else answer.set_result(result)


class Run(RequestHandler):
    def initialize(self, batcher: Batcher) -> None:
        self.batcher = batcher

    async def post(self) -> None:
        try:
            asked = json.loads(self.request.body)
            task, inputs = asked["task"], {name: torch.tensor(value) for name, value in asked["inputs"].items()}
        except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise HTTPError(400, reason='send {"task": NAME, "inputs": {NAME: numbers}}') from error
        if task not in self.batcher.server.tasks:
            raise HTTPError(404, reason="no such task; GET /tasks names them")
        try:
            self.write({"outputs": (await self.batcher(task, inputs)).tolist()})
        except DTSError as error:
            raise HTTPError(409, reason="the task's file cannot be served", log_message=str(error)) from error
        except (TypeError, ValueError, IndexError, RuntimeError) as error:
            raise HTTPError(400, reason="the model does not take these inputs") from error


class Tasks(RequestHandler):
    def initialize(self, batcher: Batcher) -> None:
        self.batcher = batcher

    def get(self) -> None:
        self.write({"tasks": self.batcher.server.tasks})


def application(server: Server, **settings) -> Application:
    """The two addresses; ``settings`` are ``Batcher``'s."""
    own = {"batcher": Batcher(server, **settings)}
    return Application([("/run", Run, own), ("/tasks", Tasks, own)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", required=True, help="a folder of a transformers sequence classifier")
    parser.add_argument("--deltas", required=True, help="a folder of TASK.dts.safetensors")
    parser.add_argument("--port", type=int, default=8786)
    parser.add_argument("--memory", type=float, default=1e9, help="bytes beside the model")
    options = parser.parse_args()
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(options.base, local_files_only=True).eval()
    server = Server(model, options.deltas, memory=options.memory)

    async def serve() -> None:
        HTTPServer(application(server), max_buffer_size=2**20).listen(options.port, "127.0.0.1")
        await asyncio.Event().wait()

    asyncio.run(serve())


if __name__ == "__main__":
    main()
