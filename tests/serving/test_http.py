"""The example of a server behind HTTP: answers are the experts', requests of several tasks are one batch."""

import asyncio
import json
import runpy
from pathlib import Path

import pytest
import torch
from served import experts_of, make, materialised, samples

from dts_mini.serving import Server

pytest.importorskip("tornado", reason="the example of a server behind HTTP needs Tornado: pip install tornado")
from tornado.httpclient import AsyncHTTPClient
from tornado.testing import bind_unused_port

EXAMPLE = runpy.run_path(str(Path(__file__).parents[2] / "docs/examples/http_server.py"))


@pytest.fixture
def shop(tmp_path):
    """A module of one input ``x``, four tasks in a folder, and what each task's own weights make of eight samples."""
    module = make("linear")
    (x,) = samples("linear", 8)
    wanted = {}
    for i, delta in enumerate(experts_of(module, 4)):
        delta.save(tmp_path / f"task {i}.dts.safetensors")
        wanted[f"task {i}"] = materialised(module, delta)(x)
    return Server(module, tmp_path, memory=2**30), x, wanted


def ask(server: Server, *requests: tuple, **settings) -> tuple[list[tuple[int, dict]], int]:
    """The answers to requests, (address, body or None) each, that are all made at once; and how many batches ran."""

    async def talk() -> tuple:
        application = EXAMPLE["application"](server, **settings)
        socket, port = bind_unused_port()
        http = EXAMPLE["HTTPServer"](application)
        http.add_sockets([socket])
        client = AsyncHTTPClient(force_instance=True, max_clients=64)

        async def one(address: str, body) -> tuple[int, dict]:
            body = body if body is None or isinstance(body, str) else json.dumps(body)
            url, how = f"http://127.0.0.1:{port}{address}", "GET" if body is None else "POST"
            found = await client.fetch(url, method=how, body=body, raise_error=False)
            return found.code, json.loads(found.body) if found.code == 200 else found.reason

        answers = await asyncio.gather(*(one(*request) for request in requests))
        (batcher,) = {rule.target_kwargs["batcher"] for rule in application.wildcard_router.rules}
        http.stop()
        client.close()
        return answers, batcher.batches

    return asyncio.run(talk())


def request(task: str, x: torch.Tensor) -> tuple[str, dict]:
    return "/run", {"task": task, "inputs": {"input": x.tolist()}}


def named(module):
    """The module with the name of its input as the requests have it."""
    module.forward = lambda input: type(module).forward(module, input)
    return module


def test_samples_of_several_tasks_that_come_together_are_one_batch_and_each_its_experts(shop):
    server, x, wanted = shop
    named(server.base.module)
    tasks = [f"task {i % 4}" for i in range(8)]
    answers, batches = ask(server, *(request(task, x[i]) for i, task in enumerate(tasks)), most=8, wait=5.0)
    for i, (code, answer) in enumerate(answers):
        assert code == 200
        assert torch.allclose(torch.tensor(answer["outputs"]), wanted[tasks[i]][i], atol=1e-5)
    assert batches == 1


def test_a_batch_that_is_not_full_starts_when_the_time_is_up_and_shapes_are_not_mixed(shop):
    server, x, _ = shop
    named(server.base.module)
    rows = torch.randn(3, 24)
    answers, batches = ask(server, request("task 0", x[0]), request("task 1", rows), request("task 2", x[1]), wait=0.2)
    assert [code for code, _ in answers] == [200] * 3
    assert torch.tensor(answers[1][1]["outputs"]).shape == (3, 16)
    assert batches == 2


def test_the_tasks_are_named_and_what_cannot_be_answered_is_refused_while_the_others_are_answered(shop, tmp_path):
    server, x, wanted = shop
    named(server.base.module)
    (tmp_path / "task 3.dts.safetensors").write_bytes(b"damaged")
    asked = [
        ("/tasks", None),
        request("task 0", x[0]),
        request("task 3", x[1]),
        request("nothing", x[0]),
        request("task 1", torch.zeros(25)),
        ("/run", {"task": "task 0", "inputs": {"output": [1.0]}}),
        ("/run", {"task": "task 0", "inputs": {"input": ["a"]}}),
        ("/run", {"task": "task 0"}),
        ("/run", "{"),
        ("/run", "[]"),
    ]
    answers, _ = ask(server, *asked, wait=0.2)
    assert answers[0] == (200, {"tasks": [f"task {i}" for i in range(4)]})
    assert torch.allclose(torch.tensor(answers[1][1]["outputs"]), wanted["task 0"][0], atol=1e-5)
    assert [code for code, _ in answers[2:]] == [409, 404, 400, 400, 400, 400, 400, 400]
    assert answers[2][1] == "the task's file cannot be served"
