"""On the fly: one expert, or a batch of many, gives what its own weights give, and the base is never written."""

import functools
import threading
from collections import deque
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from served import MODELS, Recurrent, apart, bits, experts_of, image_tower, make, materialised, same, sample, samples
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from dts_mini import compress, rebuild
from dts_mini.core.errors import DTSError, StateError
from dts_mini.core.parts import Factors, Unchanged
from dts_mini.core.state import fingerprint
from dts_mini.serving import Base, Expert, Swapper, run
from dts_mini.serving import live as live_module

MIXED = (0, 2, 1, 0, 0, 2)
SETTINGS = {"dts": {"keep_ratio": 0.1}, "dts, all ranks": {"keep_ratio": 1.0}, "drc": {"method": "drc", "notch": 384}}


def decoded(module: nn.Module, deltas) -> list[Expert]:
    base = Base(module)
    return [Expert(base, delta) for delta in deltas]


def assert_one_answer(module: nn.Module, deltas, inputs: list, within: float = 1e-5) -> None:
    """On the fly, for the whole batch and for samples of three tasks, against the experts' own weights."""
    experts, before = decoded(module, deltas), bits(module)
    for expert, delta in zip(experts, deltas, strict=True):
        assert apart(run(expert, *inputs), materialised(module, delta)(*inputs)) < within
    found = run([experts[i] for i in MIXED], *inputs)
    for place, i in enumerate(MIXED):
        alone = materialised(module, deltas[i])(*(x[place : place + 1] for x in inputs))
        assert apart(sample(found, place), alone) < within
    assert same(module, before)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("name", MODELS)
def test_every_kind_of_module_answers_as_with_the_experts_own_weights(name, settings):
    module = make(name)
    assert_one_answer(module, experts_of(module, 3, **settings), samples(name, len(MIXED)))


def test_experts_differ_by_much_more_than_the_ways_do():
    module = make("linear")
    deltas = experts_of(module, 2)
    x = samples("linear", 4)
    assert apart(materialised(module, deltas[0])(*x), materialised(module, deltas[1])(*x)) > 0.1


@pytest.mark.parametrize(
    "name",
    ["linear", "attention", "attention with its weights", "embedding, tied", "bare parameters", "transformer layer"],
)
def test_no_matrix_that_has_thin_factors_is_ever_laid_out(name):
    module = make(name)
    experts = decoded(module, experts_of(module, 3, keep_ratio=0.1))
    held = [expert.nbytes for expert in experts]
    assert all(expert.factors for expert in experts)
    laid_out = [set(expert._whole) for expert in experts]
    for seed in (1, 2):
        inputs = samples(name, len(MIXED), seed)
        run(experts[0], *inputs)
        run([experts[i] for i in MIXED], *inputs)
    bare = {"bare parameters": {"turned", "mixed"}}.get(name, set())  # used by functions without a side path
    assert all(expert._whole.keys() - before <= bare for expert, before in zip(experts, laid_out, strict=True))
    if not bare:
        assert [expert.nbytes for expert in experts] == held


@pytest.mark.parametrize("layout", ["nchw", "channels last"])
def test_convolutions_have_side_paths_in_any_memory_layout(layout):
    module = make("convolutions 2d")
    (x,) = samples("convolutions 2d", len(MIXED))
    thin = {name: tensor.shape for name, tensor in module.state_dict().items() if tensor.dim() == 4}
    draw = lambda *shape: 0.1 * torch.randn(*shape, generator=generator)
    deltas, generator = experts_of(module, 3), torch.Generator().manual_seed(0)
    for i, delta in enumerate(deltas):
        parts = {name: Factors(draw(shape[0], 2), draw(2, shape[1:].numel())) for name, shape in thin.items()}
        deltas[i] = replace(delta, parts=delta.parts | parts)
    assert decoded(module, deltas)[0].factors.keys() == thin.keys()
    assert_one_answer(module, deltas, [x if layout == "nchw" else x.to(memory_format=torch.channels_last)])


def test_open_clips_image_tower_answers_as_with_the_experts_own_weights():
    tower = image_tower()
    x = torch.randn(len(MIXED), 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for settings in SETTINGS.values():
        assert_one_answer(tower, experts_of(tower, 3, size=0.02, **settings), [x])


@pytest.mark.slow
def test_open_clips_image_tower_with_a_block_of_the_shapes_of_vit_b_32_does():
    tower = image_tower(width=768, layers=1, heads=12, patch=32, size=224, out=512)
    x = torch.randn(len(MIXED), 3, 224, 224, generator=torch.Generator().manual_seed(0))
    assert_one_answer(tower, experts_of(tower, 3, size=0.01, keep_ratio=0.1), [x])


@pytest.mark.zoo
@pytest.mark.parametrize("settings", [{"keep_ratio": 0.1}, {"method": "drc"}], ids=["dts", "drc"])
def test_the_experts_of_the_mini_suite_answer_alike_in_all_three_ways(settings):
    from dts_mini.suites import load_suite

    suite, tasks = load_suite("mini"), ("digits", "signs", "textures")
    tower, base = suite.tower(), suite.pretrained()
    tower.load_state_dict(base)
    deltas = [compress(base, suite.expert(task), **settings) for task in tasks]
    x = torch.stack([suite.images(tasks[i], "validation")[0][place] for place, i in enumerate(MIXED)])
    assert_one_answer(tower.eval(), deltas, [x], within=1e-4)


def test_a_function_that_takes_a_list_of_weights_is_given_the_experts():
    torch.manual_seed(0)
    module = Recurrent().eval().requires_grad_(False)
    deltas = experts_of(module, 3)
    assert_one_answer(module, deltas, [torch.randn(len(MIXED), 5, 24)])  # in a mixed batch one task after another


class Choosing(nn.Module):
    """A module that vmap cannot take: what it does depends on what a sample holds; it also counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.calls = nn.Linear(8, 8), 0

    def forward(self, x: torch.Tensor, *, sign: bool = True) -> dict:
        self.calls += 1
        y = self.inner(x)
        if sign and (x.abs().amax() > 1e9).item():
            raise ValueError("too large")
        return {"y": y, "kind": "linear", "none": None}


def test_what_vmap_cannot_take_runs_task_by_task():
    torch.manual_seed(0)
    module = Choosing().eval().requires_grad_(False)
    deltas, x = experts_of(module, 3), torch.randn(len(MIXED), 8)
    experts = decoded(module, deltas)
    for sign, calls in ((True, 1 + 3), (False, 1)):
        run([experts[i] for i in MIXED], x, sign=sign)  # looks once whether a sample's answer hangs on others
        module.calls = 0
        found = run([experts[i] for i in MIXED], x, sign=sign)
        assert module.calls == calls
        assert found["kind"] == "linear" and found["none"] is None
        for place, i in enumerate(MIXED):
            assert apart(found["y"][place], materialised(module, deltas[i])(x[place : place + 1])["y"][0]) < 1e-5


def test_a_module_with_a_vmap_of_its_own_answers_as_well():
    class Each(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.func.vmap(self.inner)(x)

    torch.manual_seed(0)
    module = Each().eval().requires_grad_(False)
    assert_one_answer(module, experts_of(module, 3), [torch.randn(len(MIXED), 8)])


def test_an_error_of_the_module_is_its_own_and_leaves_nothing_behind():
    torch.manual_seed(0)
    module = Choosing().eval().requires_grad_(False)
    experts, before = decoded(module, experts_of(module, 2)), bits(module)
    with pytest.raises(ValueError, match="too large"):
        run(experts[0], torch.full((2, 8), 1e10))
    with pytest.raises(RuntimeError, match=r"shapes|size"):
        run(experts, torch.ones(2, 9))
    assert same(module, before)
    x = torch.ones(2, 8)
    assert torch.equal(module(x)["y"], nn.functional.linear(x, before["inner.weight"], before["inner.bias"]))


@pytest.fixture(scope="module")
def four() -> SimpleNamespace:
    """Four experts of one module, and what their own weights make of twelve samples."""
    module = make("linear")
    deltas, (x,) = experts_of(module, 4), samples("linear", 12)
    alone = [materialised(module, delta)(x) for delta in deltas]
    return SimpleNamespace(module=module, x=x, alone=alone, experts=decoded(module, deltas))


@given(mixture=st.lists(st.integers(0, 3), min_size=1, max_size=12))
def test_any_mixture_in_any_order_is_each_sample_alone(four, mixture):
    found = run([four.experts[i] for i in mixture], four.x[: len(mixture)])
    for place, i in enumerate(mixture):
        assert apart(found[place], four.alone[i][place]) < 1e-5


def test_a_batch_of_one_task_takes_no_detour(four, monkeypatch):
    monkeypatch.setattr(live_module, "_at_once", None)
    assert torch.equal(run([four.experts[1]] * 12, four.x), run(four.experts[1], four.x))


def test_a_delta_of_some_of_a_modules_tensors_leaves_the_others_as_they_are():
    module = make("linear")
    body = {name: x for name, x in module.state_dict().items() if not name.startswith("layers.3")}
    expert = {name: x + 0.1 for name, x in body.items()}
    (x,) = samples("linear", 4)
    found = run(decoded(module, [compress(body, expert, keep_ratio=1.0)])[0], x)
    wanted = make("linear")
    wanted.load_state_dict(expert, strict=False)
    assert apart(found, wanted(x)) < 1e-4


def test_an_expert_that_equals_the_base_answers_as_the_base():
    module = make("attention")
    base = module.state_dict()
    (x,) = samples("attention", 2)
    expert = Expert(Base(module), compress(base, base))
    assert expert.nbytes == 0
    assert apart(run(expert, x), module(x)) < 1e-6  # PyTorch has a fast path of its own for the plain module
    other = decoded(module, experts_of(module, 1))[0]
    mixed = run([Expert(other.base, compress(base, base)), other], x)
    assert apart(sample(mixed, 0), sample(run(expert, x), 0)) < 1e-6


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_number_formats_are_served_in_their_own(dtype):
    module = make("attention").to(dtype)
    deltas = experts_of(module, 3)
    x = [samples("attention", len(MIXED))[0].to(dtype)]
    assert_one_answer(module, deltas, x, within=1e-6 if dtype == torch.float64 else 2e-2)


def test_threads_run_several_experts_over_one_module_at_once():
    module = make("transformer layer")
    deltas = experts_of(module, 4)
    experts, inputs = decoded(module, deltas), samples("transformer layer", 4)
    wanted = [run(expert, *inputs) for expert in experts]
    wrong = []

    def work(i: int) -> None:
        for _ in range(30):
            if not torch.equal(run(experts[i], *inputs), wanted[i]):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# --- autocast, derived weights, tables that shorten their rows, outputs of other shapes ---


@pytest.fixture
def slow_paths():
    """PyTorch's fast paths do not heed autocast on a CPU, and answer in other formats than its own functions."""
    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.backends.mha.set_fastpath_enabled(True)


def formats(output) -> list:
    return [x.dtype for x in torch.utils._pytree.tree_leaves(output) if isinstance(x, torch.Tensor)]


@pytest.mark.usefixtures("slow_paths")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_under_autocast_an_expert_answers_near_its_own_weights_in_the_formats_of_the_base(name, dtype):
    module = make(name)
    deltas, inputs = experts_of(module, 3, keep_ratio=0.1), samples(name, len(MIXED))
    experts = decoded(module, deltas)
    with torch.autocast("cpu", dtype):
        base, found, mixed = module(*inputs), run(experts[0], *inputs), run([experts[i] for i in MIXED], *inputs)
        wanted = materialised(module, deltas[0])(*inputs)
        assert formats(found) == formats(mixed) == formats(base)
        assert apart(found, wanted) < 0.02
        for place, i in enumerate(MIXED):
            alone = materialised(module, deltas[i])(*(x[place : place + 1] for x in inputs))
            assert apart(sample(mixed, place), alone) < 0.02
    assert apart(run(experts[0], *inputs), materialised(module, deltas[0])(*inputs)) < 1e-5, "nothing rounded is kept"


@pytest.mark.parametrize("name", ["linear", "cross-attention"])
def test_an_expert_decoded_under_autocast_is_not_rounded(name):
    module = make(name)
    (delta,) = experts_of(module, 1, method="drc", notch=384)
    with torch.autocast("cpu", torch.bfloat16):
        (expert,) = decoded(module, [delta])
    inputs = samples(name, 4)
    assert apart(run(expert, *inputs), materialised(module, delta)(*inputs)) < 1e-5


class Parametrized(nn.Module):
    """A layer whose weight is computed from others, in each of PyTorch's ways, and one that is not."""

    def __init__(self, way) -> None:
        super().__init__()
        self.first, self.last = way(nn.Linear(24, 40)), nn.Linear(40, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.first(x).relu())


@pytest.mark.parametrize("way", ["weight_norm", "spectral_norm", "orthogonal"])
def test_weights_that_a_parametrization_computes_are_the_experts(way):
    torch.manual_seed(0)
    module = Parametrized(getattr(nn.utils.parametrizations, way)).eval().requires_grad_(False)
    assert_one_answer(module, experts_of(module, 3), [torch.randn(len(MIXED), 24)])


@pytest.mark.parametrize(
    "way",
    [nn.utils.weight_norm, nn.utils.spectral_norm, lambda layer: prune.l1_unstructured(layer, "weight", 0.3)],
    ids=["weight_norm", "spectral_norm", "prune"],
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_module_that_writes_its_weight_whenever_it_runs_is_refused_and_may_be_swapped(way):
    torch.manual_seed(0)
    module, x = Parametrized(way).eval().requires_grad_(False), torch.randn(4, 24)
    module(x)
    before = {name: vars(part).get("weight") for name, part in module.named_modules()}
    (delta,) = experts_of(module, 1)
    with pytest.raises(
        StateError, match=r"'first', a Linear, writes its weight anew whenever it runs.*parametrizations"
    ):
        decoded(module, [delta])
    assert all(vars(part).get("weight") is before[name] for name, part in module.named_modules())
    wanted = materialised(module, delta)(x)
    Swapper(module).to(delta)
    assert apart(module(x), wanted) < 1e-6


class Table(nn.Module):
    def __init__(self, table) -> None:
        super().__init__()
        self.table, self.last = table, nn.Linear(24, 8)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.last(self.table(ids))


@pytest.mark.parametrize("kind", [nn.Embedding, nn.EmbeddingBag])
@pytest.mark.parametrize("norm", [1.0, 2.0])
@pytest.mark.parametrize("changed", ["", "last"], ids=["all", "not the table"])
def test_a_table_that_shortens_its_rows_is_read_and_not_written(kind, norm, changed):
    torch.manual_seed(0)
    module = Table(kind(50, 24, max_norm=3.0, norm_type=norm)).eval().requires_grad_(False)
    deltas, ids = experts_of(module, 3), torch.randint(50, (len(MIXED), 5))
    only = lambda delta: {n: p if changed in n else Unchanged() for n, p in delta.parts.items()}
    assert_one_answer(module, [replace(delta, parts=only(delta)) for delta in deltas], [ids])


def test_a_table_that_shortens_rows_which_others_use_is_refused():
    words = make("embedding, tied")
    words.table.max_norm = 1.0
    with pytest.raises(
        StateError, match="'table', a Embedding, shortens rows of a weight that others use too: untie them"
    ):
        decoded(words, experts_of(words, 1))


def test_a_module_built_under_inference_mode_answers_as_any():
    with torch.inference_mode():
        module = make("attention")
    deltas, inputs = experts_of(module, 3), samples("attention", len(MIXED))
    assert_one_answer(module, deltas, inputs)
    with torch.inference_mode():
        assert_one_answer(module, deltas, inputs)


class Summed(nn.Module):
    """A loss beside the answer, of no dimension or of the wrong one."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.inner, self.shape = nn.Linear(8, 8), shape

    def forward(self, x: torch.Tensor, *, choose: bool = False) -> tuple:
        y = self.inner(x)
        if choose and (x.abs().amax() > 1e9).item():  # runs task by task
            return y, y
        return y, y.mean().expand(self.shape)


@pytest.mark.parametrize("choose", [False, True], ids=["at once", "task by task"])
@pytest.mark.parametrize("shape", [(), (8,)], ids=["no dimension", "another dimension"])
def test_an_output_that_does_not_count_the_samples_is_given_to_one_expert_and_refused_to_several(shape, choose):
    torch.manual_seed(0)
    module, x = Summed(*shape).eval().requires_grad_(False), torch.randn(len(MIXED), 8)
    deltas, before = experts_of(module, 3), bits(module)
    experts = decoded(module, deltas)
    assert apart(run(experts[0], x, choose=choose), materialised(module, deltas[0])(x)) < 1e-5
    with pytest.raises(DTSError, match=r"output 1 of the module has shape \(8?,?\) for .*dimension 0 must count them"):
        run([experts[i] for i in MIXED], x, choose=choose)
    assert same(module, before)


class Kept:
    """What a module may give beside its output: an object that holds tensors, as a cache of keys and values does."""

    def __init__(self, layers: list) -> None:
        self.layers, self.count = layers, len(layers)


class WithCache(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> tuple:
        y = self.inner(x)
        return y, Kept([{"keys": y * 2}, y[:, None] + 1])


def test_objects_that_hold_tensors_hold_those_of_each_sample():
    torch.manual_seed(0)
    module, x = WithCache().eval().requires_grad_(False), torch.randn(len(MIXED), 8)
    experts = decoded(module, experts_of(module, 3))
    y, kept = run([experts[i] for i in MIXED], x)
    assert isinstance(kept, Kept) and kept.count == 2
    assert torch.equal(kept.layers[0]["keys"], y * 2) and torch.equal(kept.layers[1], y[:, None] + 1)


class Holding(nn.Module):
    """A module whose functions are given what it holds itself: learned tokens, masks, weights of samples."""

    def __init__(self, use) -> None:
        super().__init__()
        draw = lambda *shape: nn.Parameter(torch.randn(*shape))
        self.tokens, self.image, self.mask = draw(5, 1, 16), draw(1, 16, 3, 3), draw(5, 5)
        self.heads, self.biases, self.table = draw(1, 2, 5, 8), draw(1, 2, 5, 5), nn.Embedding(9, 16)
        self.linear, self.convolution, self.attention = (
            nn.Linear(16, 16),
            nn.Conv2d(16, 16, 3),
            nn.MultiheadAttention(16, 2, bias=False),
        )
        self.shares = draw(1, 4)
        self.use = use

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.use(self, x)


HELD = {
    "a linear layer": lambda m, x: x @ m.linear(m.tokens).squeeze(1).T,
    "addmm": lambda m, x: x @ torch.addmm(m.linear.bias, m.mask @ m.tokens[:, 0], m.linear.weight).T,
    "matmul": lambda m, x: x @ torch.matmul(m.tokens, m.linear.weight).squeeze(1).T,
    "a convolution": lambda m, x: x * m.convolution(m.image).flatten(1),
    "attention": lambda m, x: x * m.attention(m.tokens, m.tokens, m.tokens)[0].sum(0),
    "a learned mask": lambda m, x: m.attention(*[m.tokens[:, :1] * x] * 3, attn_mask=m.mask)[0].transpose(0, 1),
    "scaled dot products": lambda m, x: nn.functional.scaled_dot_product_attention(
        *[x.view(-1, 1, 2, 8).transpose(1, 2).expand(-1, -1, 5, -1) * m.heads] * 2, m.heads.expand(len(x), -1, -1, -1)
    ),
    "learned queries": lambda m, x: (
        x[:, None]
        * nn.functional.scaled_dot_product_attention(m.heads, m.heads, m.heads).transpose(1, 2).reshape(1, 5, 16)
    ),
    "learned biases": lambda m, x: nn.functional.scaled_dot_product_attention(
        *[x.view(-1, 1, 2, 8).transpose(1, 2) * m.heads] * 3, attn_mask=m.biases
    ),
    "shares of a bag": lambda m, x: (
        x
        * nn.functional.embedding_bag(
            torch.arange(4)[None], m.table.weight, max_norm=1.0, mode="sum", per_sample_weights=m.shares
        )
    ),
}


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("use", HELD.values(), ids=HELD)
def test_what_a_module_holds_itself_and_gives_to_a_function_is_the_experts(use):
    torch.manual_seed(0)
    module, x = Holding(use).eval().requires_grad_(False), torch.randn(len(MIXED), 16)
    assert_one_answer(module, experts_of(module, 3, size=0.5), [x])


class Decoding(nn.Module):
    """Attention over what came before, which it keeps in an object that it is given: ``Kept``, a dict or a subclass."""

    def __init__(self) -> None:
        super().__init__()
        self.key, self.value = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor, before: Kept | None = None) -> tuple[torch.Tensor, Kept]:
        now = {"keys": self.key(x), "values": self.value(x)}
        if before is not None:
            now = {name: torch.cat([before.layers[0][name], y], 1) for name, y in now.items()}
        scores = x @ now["keys"].mT
        return scores.softmax(-1) @ now["values"], Kept([now])


def test_what_an_object_holds_goes_in_sample_by_sample_as_it_came_out():
    torch.manual_seed(0)
    module, x = Decoding().eval().requires_grad_(False), torch.randn(len(MIXED), 3, 8)
    deltas = experts_of(module, 3, size=0.5)
    experts = decoded(module, deltas)
    chosen = [experts[i] for i in MIXED]
    _, before = run(chosen, x[:, :2])
    kept = before.layers[0]["keys"]
    found, after = run(chosen, x[:, 2:], before=before)
    assert before.layers[0]["keys"] is kept and kept.shape[1] == 2, "the object that went in is as it was"
    for place, i in enumerate(MIXED):
        own, one = materialised(module, deltas[i]), x[place : place + 1]
        wanted, cache = own(one[:, 2:], own(one[:, :2])[1])
        assert apart(found[place : place + 1], wanted) < 1e-5
        assert apart(after.layers[0]["values"][place : place + 1], cache.layers[0]["values"]) < 1e-5


GIVEN = {
    "a list": ([3, 1, 2, 5, 4, 1], "an input is a list of 6, which may be one for each sample"),
    "an array": (np.arange(6.0), "an input is an array of NumPy of 6, which may be"),
    "an array of another length": (np.arange(3.0), "an input is an array of NumPy of 3"),
    "a class of its own": (type("Bag", (dict,), {})(y=torch.ones(6)), "an input is a Bag that holds tensors"),
}


@pytest.mark.parametrize(("given", "message"), GIVEN.values(), ids=GIVEN)
def test_what_may_hold_a_thing_for_each_sample_and_is_no_tensor_is_refused_to_several(four, given, message):
    with pytest.raises(DTSError, match=message):
        run([four.experts[i] for i in MIXED], four.x[: len(MIXED)], given)


class Giving(nn.Module):
    def __init__(self, give) -> None:
        super().__init__()
        self.inner, self.give = nn.Linear(8, 8), give

    def forward(self, x: torch.Tensor) -> object:
        return self.give(self.inner(x))


class Slotted:
    __slots__ = ("y",)

    def __init__(self, y) -> None:
        self.y = y


NOT_BY_SAMPLE = {
    "all with all": lambda y: y @ y.T,
    "a list of numbers": lambda y: y.argmax(-1).tolist(),
    "a list of texts": lambda y: [f"class {i}" for i in y.argmax(-1)],
    "a list of tensors": lambda y: list(y[:, :1].unbind(0)),
    "how many": lambda y: (y, len(y)),
    "a number of all": lambda y: (y, y.sum().item()),
    "an array": lambda y: y.numpy(),
    "an object that hides tensors": Slotted,
    "layers first": lambda y: torch.stack([y, y, y]),
    "a generator": lambda y: (x for x in y),
}


@pytest.mark.parametrize("count", [3, 7])  # of three every expert has one
@pytest.mark.parametrize("give", NOT_BY_SAMPLE.values(), ids=NOT_BY_SAMPLE)
def test_what_is_not_given_sample_by_sample_is_refused_to_several_and_given_to_one(give, count):
    torch.manual_seed(0)
    module, x = Giving(give).eval().requires_grad_(False), torch.randn(count, 8)
    deltas = experts_of(module, 3, size=1.0)
    experts = decoded(module, deltas)
    alone = run(experts[0], x)
    if isinstance(alone, torch.Tensor):
        assert apart(alone, materialised(module, deltas[0])(x)) < 1e-5
    for _ in range(2):
        with pytest.raises(DTSError, match=r"run each task by itself$"):
            run([experts[i % 3] for i in range(count)], x)


def test_what_is_the_same_for_all_is_given_with_a_batch_of_several():
    torch.manual_seed(0)
    give = lambda y: {"y": y, "kind": ("linear", 8, None), "about": Kept([1, [2.5]])}
    for module in (Giving(give), Giving(lambda y: give(y) if y.sum().item() < 1e9 else y)):  # at once, task by task
        experts = decoded(module.eval().requires_grad_(False), experts_of(module, 3))
        found = run([experts[i] for i in MIXED], torch.randn(len(MIXED), 8))
        assert found["kind"] == ("linear", 8, None) and found["about"].layers == [1, [2.5]]
        assert found["y"].shape == (len(MIXED), 8)


def _slopes(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        return torch.autograd.grad(module(x).tanh().square().sum(), x)[0]


VMAP_CANNOT = {
    "a gradient": _slopes,
    "a functional gradient": lambda m, x: torch.func.grad(lambda x: m(x).tanh().square().sum())(x),
    "a storage": lambda m, x: x @ torch.tensor([]).set_(m.weight.untyped_storage(), 0, (8, 8)),
    "a copied tensor": lambda m, x: x @ torch.tensor(m.weight),
    "a sum over windows": lambda m, x: nn.functional.scaled_dot_product_attention(
        *[m(x).view(len(x) * 2, 1, 2, 2)] * 3, attn_mask=torch.zeros(1, 1, 2, 2)
    ).reshape(len(x), 8),
    "packed sequences": lambda m, x: nn.utils.rnn.pad_packed_sequence(
        nn.utils.rnn.pack_padded_sequence(m(x)[:, :, None], 8 - x[:, 0].abs().long(), True, False), True, total_length=8
    )[0],
}


@pytest.mark.filterwarnings("ignore:(There is a performance drop|To copy construct|TypedStorage)")
@pytest.mark.parametrize("use", VMAP_CANNOT.values(), ids=VMAP_CANNOT)
def test_whatever_vmap_says_of_what_it_cannot_take_the_answer_is_the_experts(use):
    class Using(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(8, 8, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return use(self.inner, x)

    torch.manual_seed(0)
    module = Using().eval().requires_grad_(False)
    assert_one_answer(module, experts_of(module, 3), [torch.randn(len(MIXED), 8)])


class Remembering(nn.Module):
    """A module that keeps what it has computed from its weights, in one way or other."""

    def __init__(self, keep) -> None:
        super().__init__()
        self.inner, self.ready, self.kept, self.by_device, self.seen = nn.Linear(8, 8), False, None, {}, [[]]
        self.register_buffer("buffer", None)
        self.register_buffer("table", torch.zeros(8, 8), persistent=False)
        self.keep = keep

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.keep(self, self.inner.weight * 2), self.inner.bias)


def _noted(module: Remembering, weight: torch.Tensor) -> torch.Tensor:
    if not module.ready:
        module.kept, module.ready = weight, True
    return module.kept


def _in_a_pair(module: Remembering, weight: torch.Tensor) -> torch.Tensor:
    module.kept = module.kept or ("the weight", weight)
    return module.kept[1]


def _in_a_buffer(module: Remembering, weight: torch.Tensor) -> torch.Tensor:
    module.buffer = weight if module.buffer is None else module.buffer
    return module.buffer


def _in_a_list(module: Remembering, weight: torch.Tensor) -> torch.Tensor:
    module.seen[0] or module.seen[0].append(weight)
    return module.seen[0][0]


def _in_place(module: Remembering, weight: torch.Tensor) -> torch.Tensor:
    if not module.ready:
        module.table.copy_(weight)
        module.ready = True
    return module.table


KEEPING = {
    "an attribute": _noted,
    "a pair": _in_a_pair,
    "a buffer": _in_a_buffer,
    "a dict": lambda module, weight: module.by_device.setdefault("cpu", weight),
    "a list in a list": _in_a_list,
    "in place": _in_place,
}


@pytest.mark.parametrize("keep", KEEPING.values(), ids=KEEPING)
def test_what_a_module_keeps_of_one_expert_does_not_reach_the_next(keep):
    torch.manual_seed(0)
    module, x = Remembering(keep).eval().requires_grad_(False), torch.randn(len(MIXED), 8)
    assert_one_answer(module, experts_of(module, 3), [x])
    assert (module.kept, module.buffer, module.ready, module.by_device, module.seen) == (None, None, False, {}, [[]])
    assert not module.table.any()


class Elsewhere(nn.Module):
    """Keeps what it has computed where nobody looks: in what ``keep`` makes, anew for each module."""

    def __init__(self, keep) -> None:
        super().__init__()
        self.inner, self.keep = nn.Linear(8, 8), keep()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.keep(self.inner.weight))


def _kept_in(place, put, get):
    def keep():
        kept = place()

        def doubled(weight: torch.Tensor) -> torch.Tensor:
            if get(kept) is None:
                put(kept, weight * 2)
            return get(kept)

        return doubled

    return keep


def _over(kept: list, weight: torch.Tensor) -> None:
    kept[0].copy_(weight)
    kept.append(kept[0])


HIDDEN = {
    "a cache of functools": lambda: functools.lru_cache(lambda weight: weight * 2),
    "a view in a cache": lambda: functools.lru_cache(lambda weight: weight.T),
    "a closure": _kept_in(dict, lambda kept, x: kept.update(x=x), lambda kept: kept.get("x")),
    "an object": _kept_in(lambda: Slotted(None), lambda kept, x: setattr(kept, "y", x), lambda kept: kept.y),
    "a queue": _kept_in(deque, deque.append, lambda kept: kept[0] if kept else None),
    "in place": _kept_in(lambda: [torch.zeros(8, 8)], _over, lambda kept: kept[1] if kept[1:] else None),
}


@pytest.mark.parametrize("keep", HIDDEN.values(), ids=HIDDEN)
def test_a_module_that_keeps_an_experts_weights_where_they_cannot_be_taken_back_is_refused_from_then_on(keep):
    torch.manual_seed(0)
    x = torch.randn(len(MIXED), 8)
    for several in (False, True):
        module = Elsewhere(keep).eval().requires_grad_(False)
        experts = decoded(module, experts_of(module, 3))
        for _ in range(2):
            with pytest.raises(StateError, match="keeps what it computed from one expert's weights where it cannot"):
                run([experts[i] for i in MIXED] if several else experts[0], x)


def test_what_is_kept_elsewhere_of_inputs_or_of_constants_is_nobodys_weight():
    class Noting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(8, 8)
            self.places = functools.lru_cache(lambda n: torch.arange(n) / n)

        def forward(self, x: torch.Tensor) -> tuple:
            weight = self.inner.weight.T + 0
            return self.inner(x) + self.places(8), weight.expand(len(x), 8, 8)

    torch.manual_seed(0)
    module, x, seen = Noting().eval().requires_grad_(False), torch.randn(len(MIXED), 8), []
    module.inner.register_forward_hook(lambda module, given, made: seen.append(made))
    assert_one_answer(module, experts_of(module, 3), [x])
    assert seen


# --- what is refused ---


@torch.jit.script
def _hidden(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return torch.mm(x, weight.t())


class Hiding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _hidden(x, self.inner.weight) + self.inner.bias


class Compiled(nn.Module):
    """Calls functions that torch.compile makes anew, which are given a weight, or come by it themselves."""

    def __init__(self, backend: str) -> None:
        super().__init__()
        self.inner, self.other = nn.Linear(8, 8), nn.Linear(8, 8, bias=False)
        self.given = torch.compile(lambda x, weight: nn.functional.linear(x, weight * 2), backend=backend)
        self.part = torch.compile(lambda x: self.inner(x).relu(), backend=backend)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.given(self.part(x), self.other.weight)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_functions_that_are_compiled_within_a_module_answer_as_each_expert(backend):
    torch.manual_seed(0)
    torch._dynamo.reset()
    module = Compiled(backend).eval().requires_grad_(False)
    deltas, x = experts_of(module, 4, size=0.5), torch.randn(4, 8)
    experts, plain = decoded(module, deltas), [rebuild(module.state_dict(), delta) for delta in deltas]
    wanted = [
        nn.functional.linear(x, w["inner.weight"], w["inner.bias"]).relu() @ w["other.weight"].T * 2 for w in plain
    ]
    for _ in range(2):
        for expert, y in zip(experts, wanted, strict=True):
            assert apart(run(expert, x), y) < 1e-5
    assert apart(run(experts, x), torch.stack([y[i] for i, y in enumerate(wanted)])) < 1e-5


def test_a_function_that_hides_what_it_does_with_a_weight_is_refused_by_the_weights_name():
    torch.manual_seed(0)
    module, x = Hiding().eval().requires_grad_(False), torch.randn(len(MIXED), 8)
    experts, before = decoded(module, experts_of(module, 3)), bits(module)
    for some in (experts[0], [experts[i] for i in MIXED]):
        with pytest.raises(StateError, match=r"'inner\.weight' where an expert cannot be put in its place"):
            run(some, x)
    assert same(module, before)


def test_a_function_that_hides_a_weight_is_refused_whenever_an_expert_is_the_first_to_change_it():
    torch.manual_seed(0)
    module = Hiding().eval().requires_grad_(False)
    base, state, x = Base(module), module.state_dict(), torch.randn(4, 8)
    other = Expert(base, compress(state, state | {"inner.bias": state["inner.bias"] + 1}))
    run(other, x)
    expert = Expert(base, *experts_of(module, 1))
    for some in (expert, [expert, other, other, expert], expert):
        with pytest.raises(StateError, match=r"'inner\.weight' where an expert cannot be put in its place"):
            run(some, x)
    run(other, x)


class CompiledForward(nn.Linear):
    @torch.compile(backend="eager")
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x)


def test_a_function_that_hides_a_weight_is_refused_whatever_call_first_leads_to_it():
    class Sometimes(Hiding):
        def forward(self, x: torch.Tensor, *, hide: bool = False) -> torch.Tensor:
            return super().forward(x) if hide else self.inner(x)

    torch.manual_seed(0)
    module, x = Sometimes().eval().requires_grad_(False), torch.randn(2, 8)
    experts = decoded(module, experts_of(module, 2))
    for chosen in (experts[0], experts):
        run(chosen, x)
        with pytest.raises(StateError, match=r"of 'inner\.weight' where an expert cannot be put in its place"):
            run(chosen, x, hide=True)


@pytest.mark.parametrize("how", ["in place", "in part", "forward"])
def test_a_compiled_module_is_refused(how):
    module = nn.Sequential(CompiledForward(8, 8) if how == "forward" else nn.Linear(8, 8)).eval().requires_grad_(False)
    if how != "forward":
        (module if how == "in place" else module[0]).compile(backend="eager")
    with pytest.raises(StateError, match="is compiled, which hides its functions: pass the module before it was"):
        decoded(module, experts_of(module, 1))


@pytest.mark.parametrize(
    ("wrap", "within"),
    [(lambda m: torch.compile(m, backend="eager"), "_orig_mod"), (lambda m: nn.DataParallel(m).eval(), "module")],
    ids=["compiled", "in parallel"],
)
def test_a_module_in_a_wrapper_is_refused_with_the_one_within(wrap, within):
    with pytest.raises(StateError, match=f"pass the module within it, its {within}"):
        Base(wrap(make("linear")))


@pytest.mark.parametrize("module", [nn.LazyLinear(3), nn.Linear(2, 2, device="meta")], ids=["lazy", "meta"])
@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_a_module_without_values_is_refused(module):
    with pytest.raises(StateError, match=r"tensor 'weight' of the module has no values yet"):
        Base(module.eval())


def test_an_untied_expert_of_a_tied_module_is_refused_with_both_names():
    module = make("embedding, tied")
    base = {name: x.clone() for name, x in module.state_dict().items()}
    for names in (["table.weight"], ["out.weight"], ["table.weight", "out.weight"]):
        delta = compress(base, base | {name: base[name] + torch.randn(50, 24) for name in names})
        with pytest.raises(StateError, match=r"'table.weight' and 'out.weight' apart.*untie them before"):
            Expert(Base(module), delta)


@pytest.mark.parametrize("name", ["table.weight", "out.weight"])
def test_a_delta_that_names_a_tie_once_changes_both_ends(name):
    module = make("embedding, tied")
    state = {key: x for key, x in module.state_dict().items() if key in (name, "inner.weight", "inner.bias")}
    moved = {
        key: x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1)) for key, x in state.items()
    }
    delta, wanted = compress(state, moved, keep_ratio=1.0), make("embedding, tied")
    wanted.load_state_dict(rebuild(state, delta), strict=False)
    expert = Expert(Base(module), delta)
    (ids,) = samples("embedding, tied", 4)
    assert apart(run(expert, ids), wanted(ids)) < 1e-5 and apart(run(expert, ids), module(ids)) > 1e-1


def test_a_module_in_training_mode_is_refused():
    with pytest.raises(StateError, match=r"training mode: call module.eval\(\)"):
        Base(nn.Linear(2, 2))


def test_a_module_that_is_put_in_training_mode_afterwards_or_in_part_is_refused():
    module = nn.Sequential(make("linear"), nn.Dropout(0.5)).eval()
    experts = decoded(module, experts_of(module, 2))
    (x,) = samples("linear", 2)
    for part in (module, module[1]):
        part.train()
        for chosen in (experts[0], experts):
            with pytest.raises(StateError, match=r"is in training mode: call module.eval\(\)"):
                run(chosen, x)
        with pytest.raises(StateError, match="in training mode"):
            Base(module)
        module.eval()
    assert torch.equal(run(experts[0], x), run(experts[0], x))


CHANGES = {
    "a swap": lambda module, delta: Swapper(module).to(delta),
    "a step of training": lambda module, delta: module.weight.add_(1),
    "other values loaded": lambda module, delta: module.load_state_dict({"weight": module.weight + 1}, strict=False),
    "another parameter": lambda module, delta: setattr(module, "weight", nn.Parameter(module.weight + 1)),
    "the same values in another": lambda module, delta: setattr(module, "weight", nn.Parameter(module.weight.clone())),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@torch.no_grad()
def test_a_module_whose_weights_have_changed_is_no_base_any_more_until_they_are_put_back(change):
    torch.manual_seed(0)
    module = nn.Linear(8, 6).eval()
    deltas, x, own = experts_of(module, 2, keep_ratio=1.0), torch.randn(4, 8), module.weight
    experts, base = decoded(module, deltas), {name: x.clone() for name, x in module.state_dict().items()}
    before = run(experts[0], x)
    change(module, deltas[1])
    for chosen in (experts[0], [experts[0], experts[1]] * 2):
        with pytest.raises(StateError, match=r"'weight' of the module is not what it was .*anew"):
            run(chosen, x)
    module.weight = own
    module.load_state_dict(base)
    assert torch.equal(run(experts[0], x), before)


PARTS = {
    "a layer replaced": lambda module: module.__setitem__(0, nn.Linear(8, 8).eval()),
    "a layer removed": lambda module: module.__delitem__(1),
    "a layer added": lambda module: module.append(nn.Linear(8, 8).eval()),
    "half precision": lambda module: module.half(),
    "double precision": lambda module: module.double(),
    "a buffer replaced": lambda module: setattr(module[1], "running_mean", torch.ones(8)),
    "a buffer written to": lambda module: module[1].running_mean.fill_(3.0),
    "a weight's data replaced": lambda module: setattr(module[0].weight, "data", module[0].weight.data + 1),
}


@pytest.mark.parametrize("change", PARTS.values(), ids=PARTS)
@torch.no_grad()
def test_a_module_of_which_a_part_a_buffer_or_a_dtype_has_changed_is_no_base_any_more(change):
    torch.manual_seed(0)
    module, x = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8)).eval().requires_grad_(False), torch.randn(2, 8)
    deltas = experts_of(module, 2)
    experts, swapper = decoded(module, deltas), Swapper(module)
    wanted = materialised(module, deltas[0])(x)
    run(experts[0], x)
    change(module)
    for chosen in (experts[0], experts):
        with pytest.raises(StateError, match=r"(is not what it was|has other parts than) when .*anew"):
            run(chosen, x)
    try:
        swapper.to(deltas[0])
    except StateError as error:
        assert "is another than it was" in str(error)
    else:  # written over
        assert torch.equal(module(x), wanted)


def test_a_base_that_lies_elsewhere_with_the_same_values_is_the_base():
    module = make("convolutions 2d")
    (x,), experts = samples("convolutions 2d", 2), decoded(module, experts_of(module, 2))
    before = run(experts[0], x)
    module.to(memory_format=torch.channels_last)
    assert apart(run(experts[0], x), before) < 1e-5
    module.share_memory()
    assert apart(run(experts[0], x), before) < 1e-5


def test_a_swap_there_and_back_leaves_the_base_as_it_was():
    module = make("linear")
    deltas, x = experts_of(module, 2), samples("linear", 4)
    experts, swapper = decoded(module, deltas), Swapper(module)
    before = run(experts[0], *x)
    for _ in range(2):
        swapper.to(deltas[1])
        with pytest.raises(StateError, match="is not what it was"):
            run(experts[0], *x)
        swapper.to(None)
        assert torch.equal(run(experts[0], *x), before)


class Keeps(nn.Module):
    """Holds a view of its weight, beside it."""

    def __init__(self, hold) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)
        self.kept = hold(self.layer.requires_grad_(False).weight.T)

    def forward(self, x):
        return x @ (self.kept if isinstance(self.kept, torch.Tensor) else self.kept[0])


@pytest.mark.parametrize("hold", [lambda x: x, lambda x: [x], lambda x: (x.detach(),)])
def test_a_module_that_keeps_a_view_of_a_weight_is_refused_and_may_be_swapped(hold):
    module = Keeps(hold).eval()
    (delta,), x = experts_of(module, 1, keep_ratio=1.0), torch.randn(3, 6)
    with pytest.raises(StateError, match=r"keeps a view of 'layer\.weight'.*swap the weights"):
        Expert(Base(module), delta)
    own = rebuild(module.state_dict(), delta)["layer.weight"]
    Swapper(module).to(delta)
    assert torch.equal(module(x), x @ own.T)


class IntoGiven(nn.Module):
    """Uses a weight by functions with arguments that no side path knows, and outside of PyTorch."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.layer, self.how = nn.Linear(6, 6), how

    def forward(self, x):
        weight = self.layer.weight
        match self.how:
            case "out of addmm":
                return torch.addmm(self.layer.bias, x, weight.t(), out=torch.empty(0))
            case "out of matmul":
                return torch.matmul(x, weight, out=torch.empty(0))
            case "numpy":
                return x @ torch.from_numpy(weight.detach().numpy().copy()).T
        raise NotImplementedError


@pytest.mark.parametrize("how", ["out of addmm", "out of matmul", "numpy"])
def test_functions_with_an_output_that_is_given_and_numpy_are_given_the_expert(how):
    module = IntoGiven(how).requires_grad_(False).eval()
    assert_one_answer(module, experts_of(module, 3), [torch.randn(len(MIXED), 6)])


def test_an_expert_may_run_within_another_of_its_module():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.inner = nn.Linear(6, 6), None

        def forward(self, x):
            expert, self.inner = self.inner, None
            if expert is not None:
                x, self.inner = run(expert, x), expert
            return self.layer(x)

    module, x = Twice().requires_grad_(False).eval(), torch.randn(3, 6)
    deltas = experts_of(module, 2)
    inner, outer = decoded(module, deltas)
    wanted = materialised(module, deltas[1])(materialised(module, deltas[0])(x))
    module.inner = inner
    assert apart(run(outer, x), wanted) < 1e-5
    module.inner = inner
    assert apart(run([outer, outer, inner], x)[:2], wanted[:2]) < 1e-5


@pytest.mark.parametrize("wrong", [None, 3, "cola", ["cola"], [None]])
def test_what_is_no_expert_is_refused_as_such(wrong):
    with pytest.raises(DTSError, match=r"give an Expert, or a list of them"):
        run(wrong, torch.randn(1, 6))


def test_a_module_compiled_by_torchscript_is_refused():
    with pytest.raises(StateError, match="compiled by TorchScript"):
        Base(torch.jit.trace(nn.Linear(2, 2).eval(), torch.ones(1, 2)))


def test_a_delta_of_another_base_is_refused_by_its_fingerprint():
    module, other = make("linear"), make("linear")
    other.layers[0].weight += 1
    (delta,) = experts_of(other, 1)
    with pytest.raises(StateError, match=rf"fingerprint {fingerprint(module.state_dict())}.*made for \({delta.base}\)"):
        Expert(Base(module), delta)


@pytest.mark.parametrize(
    ("other", "message"),
    [("attention", "has no tensor 'inner"), ("linear, wider", r"'layers.0.weight' has shape \(40, 24\)")],
)
def test_a_module_without_a_matching_weight_is_refused_by_the_tensors_name(other, message):
    module = make("linear")
    wider = nn.ModuleDict({"layers": nn.Sequential(nn.Linear(25, 40))}).eval().requires_grad_(False)
    (delta,) = experts_of(wider if other == "linear, wider" else make(other), 1)
    with pytest.raises(StateError, match=message):
        Expert(Base(module), delta)


@pytest.mark.parametrize(
    ("count", "inputs", "message"),
    [
        (0, [torch.ones(3, 24)], "no experts"),
        (2, [torch.ones(3, 24)], "2 experts and 3 samples"),
        (3, [torch.ones(24)], "3 experts and 24 samples"),
        (3, [], "3 experts and no samples"),
        (3, [torch.tensor(1.0)], "3 experts and 0 samples"),
        (3, [torch.ones(3, 24), torch.ones(2, 24)], "3 experts and 2 or 3 samples"),
    ],
)
def test_as_many_experts_as_samples_are_asked_for(four, count, inputs, message):
    before = bits(four.module)
    with pytest.raises(DTSError, match=message):
        run(four.experts[:1] * count, *inputs)
    assert same(four.module, before)


def test_experts_of_several_modules_are_refused_in_one_batch():
    one, other = (decoded(make("linear"), experts_of(make("linear"), 1))[0] for _ in range(2))
    with pytest.raises(DTSError, match="several modules; decode them over one Base"):
        run([one, other], torch.ones(2, 24))


@torch.no_grad()
def test_where_weights_are_kept_from_one_call_to_the_next_nothing_is_run_or_written():
    """``parametrize.cached()`` would give one expert's weights to the next, and to the base."""
    module = nn.Sequential(parametrizations.weight_norm(nn.Linear(6, 6))).eval()
    (delta,) = experts_of(module, 1)
    expert, swapper, x = Expert(Base(module), delta), Swapper(module), torch.randn(3, 6)
    wanted, base = run(expert, x), module(x)
    with parametrize.cached():
        for act in (lambda: run(expert, x), lambda: run([expert] * 3, x), lambda: swapper.to(delta)):
            with pytest.raises(StateError, match=r"parametrize\.cached\(\) is on.*leave it"):
                act()
        assert torch.equal(module(x), base)
    assert torch.equal(run(expert, x), wanted)


class Renamed(nn.Module):
    """A module whose state is made of its weights: one fused inside is three outside."""

    def __init__(self) -> None:
        super().__init__()
        self.fused = nn.Linear(8, 24, bias=False)
        self._register_state_dict_hook(self._split)

    def _split(self, module: nn.Module, state: dict, prefix: str, _: dict) -> None:
        fused = state.pop(prefix + "fused.weight")
        state.update((prefix + name, part.clone()) for name, part in zip("qkv", fused.chunk(3), strict=True))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fused(x)


def test_a_module_whose_state_is_made_of_its_weights_is_refused_wherever_it_lies():
    for module in (Renamed().eval(), nn.Sequential(nn.Linear(8, 8), Renamed()).eval()):
        for use in (Base, Swapper):
            with pytest.raises(StateError, match=r"q' of the module's state dict is none of its parameters"):
                use(module)


@pytest.mark.filterwarnings("ignore")  # deprecated
@pytest.mark.parametrize("static", [False, True], ids=["dynamic", "static"])
def test_a_quantised_module_is_refused(static):
    module = nn.Sequential(torch.ao.quantization.QuantStub(), nn.Linear(8, 8)).eval()
    if static:
        module.qconfig = torch.ao.quantization.default_qconfig
        ready = torch.ao.quantization.prepare(module)
        ready(torch.randn(4, 8))
        module = torch.ao.quantization.convert(ready).eval()
    else:
        module = torch.ao.quantization.quantize_dynamic(module, {nn.Linear}).eval()
    for use in (Base, Swapper):
        with pytest.raises(StateError, match=r"scale' of the module's state dict is none of .*as in a quantised layer"):
            use(module)


@pytest.mark.parametrize("state", [{"any": "thing"}, torch.ones(3)], ids=["a dict", "a tensor"])
def test_extra_state_is_no_weight(state):
    class Extra(nn.Linear):
        def get_extra_state(self):
            return state

        def set_extra_state(self, _):
            pass

    torch.manual_seed(0)
    module, plain, x = Extra(8, 8).eval().requires_grad_(False), nn.Linear(8, 8).eval(), torch.randn(2, 8)
    plain.load_state_dict({name: x for name, x in module.state_dict().items() if "_extra" not in name})
    delta = experts_of(plain, 1)[0]
    wanted = materialised(plain, delta)(x)
    assert apart(run(Expert(Base(module), delta), x), wanted.detach()) < 1e-5
    Swapper(module).to(delta)
    assert torch.equal(module(x), wanted)
