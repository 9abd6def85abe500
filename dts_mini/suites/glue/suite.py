"""The language suites: one pretrained model fine-tuned on tasks of GLUE, from the Hub."""

import contextlib
import functools
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from sklearn.metrics import matthews_corrcoef
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

from dts_mini.core.errors import DTSError, FileError, StateError
from dts_mini.core.file import read_json
from dts_mini.core.state import State, all_finite, check_same_layout
from dts_mini.suites.evaluation import logits
from dts_mini.suites.glue import keys
from dts_mini.suites.glue.names import BASES, COMMITS, DATA, LENGTH, TASKS, UNSEEN, GlueTask, expert_repo
from dts_mini.suites.hub import Hub, Repo, split_files
from dts_mini.suites.real import PRECISIONS, Files, RealSuite, Trial, check_choice, mixed
from dts_mini.suites.streams import held_out, stream
from dts_mini.suites.texts import in_batches, padded

# What a base's repository may have of a tokenizer; any that it has is fetched.
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "special_tokens_map.json")
TYPICAL = 32  # tokens of a text, to estimate times: GLUE's validation texts are about so long
DIFFERS = 0.5  # points between an expert's accuracy here and the published one that are not rounding
_TEXTS = ("data", "commit", "task", "split", "base", "length")  # of a split's identity, what its texts depend on
# The published models' shapes, for a plan before anything is here.
_CONFIGS = {
    "gpt2-glue": {"model_type": "gpt2", "pad_token_id": 50256},
    "roberta-glue": {
        "model_type": "roberta",
        "vocab_size": 50265,
        "max_position_embeddings": 514,
        "type_vocab_size": 1,
    },
}


class GlueSuite(RealSuite):
    """GPT-2's seven published experts, or experts that you name, on GLUE; see ``dts_mini.suites.suite.Suite``.

    Bodies are merged and compressed, each task keeps its own head. GLUE's validation sets are the ``test`` split, since
    the labels of its test sets are not public; ``validation`` is a seeded tenth of the training split. ``experts``
    names repositories of the Hub by task, ``{"cola": "OWNER/NAME"}``, or ``"OWNER/NAME/FOLDER"`` where one holds
    several, at least two; RoBERTa has no others. Their tokenizer is the base's. ``texts`` draws so many texts of a task
    at most, where all would take too long.
    """

    unit, kept = "texts", "token ids of texts"
    libraries = ("transformers", "tokenizers")

    def __init__(
        self,
        architecture: str = "gpt2-glue",
        *,
        experts: Mapping[str, str] | None = None,
        texts: int | None = None,
        device: str = "auto",
        precision: str = "float32",
        home: str | Path | None = None,
        hub: Hub | None = None,
        progress: Callable[[str], None] = lambda text: None,
    ) -> None:
        check_choice("suite", architecture, tuple(BASES))
        if experts is None and architecture != "gpt2-glue":
            raise DTSError(f"{architecture} has no published experts: name yours, --experts cola=OWNER/NAME rte=...")
        named = dict(experts or {task: expert_repo(task) for task in TASKS})
        for task in named:
            check_choice("task", task, tuple(TASKS))
        if len(named) < 2:
            raise DTSError("one expert is nothing to merge: name at least two, --experts cola=OWNER/NAME rte=...")
        if twice := [task for task, repo in named.items() if list(named.values()).count(repo) > 1]:
            raise DTSError(
                f"{named[twice[0]]} is named for {' and '.join(twice)}: its head is of one task; name one for each"
            )
        if texts is not None and texts < 1:
            raise DTSError(f"texts is {texts}: draw at least one of each task, or leave it out for all")
        super().__init__(
            architecture, BASES[architecture], home=home, device=device, precision=precision, hub=hub,
            protocol="own" if experts else "G1", known=COMMITS, progress=progress,
        )  # fmt: skip
        self.name, self.texts = architecture, texts
        self._tasks = {task: TASKS[task] for task in TASKS if task in named}
        placed = {task: named[task].split("/", 2) for task in self._tasks}
        self._experts = {task: Repo("/".join(parts[:2])) for task, parts in placed.items()}
        self._within = {task: "".join(f"{part.strip('/')}/" for part in parts[2:]) for task, parts in placed.items()}
        self.tasks, self.example = tuple(self._tasks), next(iter(self._tasks))
        held = tuple(task for task in UNSEEN if task in self._tasks)
        self.unseen = held if len(self.tasks) - len(held) > 1 else ()  # of one seen task there is no merge
        folder = f"{self.protocol}-{len(self.tasks)}" if experts is None else _folder(named)
        self.folder = self.home / (f"{folder}-{texts}-texts" if texts else folder)

    def task(self, name: str) -> GlueTask:
        return self._task(name)

    def classes(self, task: str) -> Sequence[str]:
        return self._task(task).classes

    # --- models ---

    @functools.cached_property
    def config(self) -> dict:
        """What the base's config.json says."""
        return read_json(self.hub.fetch(self.base, "config.json"))

    @functools.cached_property
    def pad(self) -> int:
        """The token that fills a batch: the tokenizer's, or where it has none, as GPT-2's, the one that ends a text."""
        own = self.tokenizer.pad_token_id
        return self.tokenizer.eos_token_id if own is None else own

    def _model(self, labels: int, config: Mapping | None = None, pad: int | None = None) -> PreTrainedModel:
        about = dict(config or self.config)
        about |= {"num_labels": labels, "pad_token_id": self.pad if pad is None else pad}
        kind = about.pop("model_type")
        about.pop("id2label", None), about.pop("label2id", None)
        settings = AutoConfig.for_model(kind, **about)
        return AutoModelForSequenceClassification.from_config(settings).eval().requires_grad_(False)

    @functools.cache  # noqa: B019 - suites live as long as the process
    def classifier(self, labels: int) -> PreTrainedModel:
        """A classifier to load state dicts into, on the suite's device."""
        return self._model(labels).to(self.device)

    @functools.cache  # noqa: B019
    def pretrained(self) -> State:
        found = keys.body(self._load(self.base), self.config)
        with torch.device("meta"):
            wanted = keys.body(self._model(2).state_dict(), self.config)
        check_same_layout(wanted, found, f"checkpoint {self.base}", "model of its config.json")
        return {name: found[name] for name in wanted}

    @functools.cache  # noqa: B019
    def _expert(self, task: str) -> tuple[State, State]:
        """Body and head of a task's expert."""
        repo, number, base = self._whose(task), len(self.classes(task)), self.pretrained()
        about, stored = self._about(task), self._load(self._experts[task], self._within[task])
        body, head = keys.body(stored, self.config, base), keys.head(stored, self.config)
        check_same_layout(base, body, f"expert of {task}, {repo}", f"base {self.base}")
        for name in keys.SETTINGS[self.config["model_type"]]:
            if name in about and name in self.config and about[name] != self.config[name]:
                raise StateError(
                    f"expert of {task}, {repo}: its config.json has {name} {about[name]!r}, that of {self.base} has "
                    f"{self.config[name]!r}; name an expert that was fine-tuned from {self.base}"
                )
        found = next((len(head[name]) for name in keys.LAST if name in head), 0)
        if found != number:
            raise StateError(
                f"expert of {task}, {repo}: its head has {found or 'no'} classes, {task} has {number}; name a "
                "classifier that was trained on it"
            )
        with torch.device("meta"):
            wanted = keys.head(self._model(number).state_dict(), self.config)
        check_same_layout(wanted, head, f"head of {repo}, the expert of {task},", "head of transformers' classifier")
        for name, tensor in [*body.items(), *head.items()]:
            if not all_finite(tensor):
                raise StateError(f"expert of {task}, {repo}: {name} holds NaN or infinity; name another expert")
        return {name: body[name] for name in base}, head

    def expert(self, task: str) -> State:
        return self._expert(self._task(task).name)[0]

    def head(self, task: str) -> State:
        """A task's head, named as its checkpoint names it: kept as it is, never merged."""
        return self._expert(self._task(task).name)[1]

    def order(self, task: str) -> list[int]:
        """Where each of GLUE's classes, in the order of its labels, stands in the head of the task's expert.

        An expert that names its classes (``id2label`` in its config.json) may have another order than the data.
        Names that are not GLUE's tell nothing: then the order is taken to be the data's.
        """
        found, numbers = self._about(self._task(task).name).get("id2label"), range(len(self.classes(task)))
        plain = lambda name: str(name).lower().replace("-", "_").replace(" ", "_")
        named = {plain(name): str(number) for number, name in found.items()} if isinstance(found, dict) else {}
        order = [named.get(plain(name)) for name in self.classes(task)]
        return [int(number) for number in order] if sorted(map(str, order)) == list(map(str, numbers)) else [*numbers]

    def _whose(self, task: str) -> str:
        """Where a task's expert lies: its repository, and the folder there if it has one."""
        return f"{self._experts[task]}/{self._within[task]}".rstrip("/")

    def _about(self, task: str) -> dict:
        """What the config.json of a task's expert says."""
        path = self.hub.fetch(self._experts[task], self._within[task] + "config.json")
        if not isinstance(found := read_json(path), dict):
            raise FileError(f"{path}: is no configuration of a model, but a {type(found).__name__}; was it changed?")
        return found

    def answers(self, state: State, task: str, inputs: Tensor) -> Tensor:
        """Logits (n, classes) of a body on texts (token ids), under the task's head, in the order of GLUE's labels."""
        model, order = self.classifier(len(self.classes(task))), self.order(task)
        model.load_state_dict(keys.whole(state, self.head(task), self.config))

        def answer(ids: Tensor, mask: Tensor) -> Tensor:
            with mixed(self.device, PRECISIONS[self.precision]):
                found = model(input_ids=ids.to(self.device), attention_mask=mask.to(self.device))
            return found.logits.float().cpu()

        return in_batches(answer, inputs, self.pad)[:, order]

    def descriptor(self, task: str) -> Tensor:
        """The paper's for GLUE: the head's dense layer, weight and bias, flattened. A head without one, as GPT-2's, has
        as many rows as the task has classes: of its rows' differences from their mean, H, it is H^T H, flattened,
        which has one size.
        """
        head = self.head(task)
        if dense := [x.flatten() for name, x in sorted(head.items()) if name.startswith("classifier.dense.")]:
            return F.normalize(torch.cat(dense), dim=0)
        rows = head["score.weight"] - head["score.weight"].mean(0)  # a shift of all logits changes no answer
        return F.normalize((rows.T @ rows).flatten(), dim=0)

    # --- texts ---

    @functools.cached_property
    def tokenizer(self):
        """The base's tokenizer."""
        there = [self.hub.fetch(*file) for file in [(self.base, "config.json"), *self._tokenizer_files()]]
        return AutoTokenizer.from_pretrained(there[0].parent, local_files_only=True)

    def _tokenizer_files(self) -> list[tuple[Repo, str]]:
        found = [(self.base, file) for file in TOKENIZER if file in self.hub.files(self.base)]
        if not found:
            raise FileError(f"{self.base} at {self.hub.commit(self.base)[:8]}: has no tokenizer; was it changed?")
        return found

    @functools.cache  # noqa: B019
    def inputs(self, task: str, split: str) -> tuple[Tensor, Tensor]:
        """Token ids int32 (n, longest), -1 after a text's end, and labels, of ``test`` or ``validation``.

        A pair of texts is one text, put together as the base's tokenizer does: GPT-2's sets nothing between the two.
        """
        check_choice("split", split, ("validation", "test"))
        about = self._task(task)
        key = {name: value for name, value in self.identity(task, split).items() if name in _TEXTS}
        kept = self.store.state("texts", key, lambda: self._tokenised(about, split))
        tokens, labels = kept["tokens"], kept["labels"].long()
        if self.texts and self.texts < len(labels):
            draw = torch.randperm(len(labels), generator=stream("glue", about.name, split))
            rows = draw[: self.texts].sort().values
            return tokens[rows], labels[rows]
        return tokens, labels

    def _tokenised(self, about: GlueTask, split: str) -> dict[str, Tensor]:
        from pyarrow import ArrowException
        from pyarrow.parquet import read_table

        self.progress(f"texts of {about.name}, {split}")
        rows = {name: [] for name in (*about.columns, "label")}
        for path in (self.hub.fetch(*file) for file in self._data_files(about, split)):
            try:
                table = read_table(path)
            except (ArrowException, OSError) as error:
                why = str(error).splitlines()[0]
                raise FileError(f"{path}: is no readable Parquet file ({why}); tell whoever keeps it") from error
            if missing := [name for name in rows if name not in table.column_names]:
                there = ", ".join(table.column_names)
                raise DTSError(f"{DATA}: {about.name} has no column {missing[0]!r}, only {there}")
            for name, values in rows.items():
                values += table[name].to_pylist()
        labels = torch.tensor(rows.pop("label"))
        if split == "validation":
            keep = held_out(len(labels), "glue", about.name, split)
            labels, rows = labels[keep], {name: [values[i] for i in keep] for name, values in rows.items()}
        if not len(labels) or labels.min() < 0 or labels.max() >= len(about.classes):
            found = f"from {labels.min()} to {labels.max()}" if len(labels) else "none"
            raise DTSError(f"{DATA}: labels of {about.name} are {found}, it has {len(about.classes)} classes")
        ids = self.tokenizer(*rows.values(), truncation=True, max_length=LENGTH)["input_ids"]
        return {"tokens": padded(ids), "labels": labels}

    def _data_files(self, about: GlueTask, split: str) -> list[tuple[Repo, str]]:
        name = about.test if split == "test" else "train"
        return split_files(self.hub, Repo(DATA, "dataset"), name, about.name, ".parquet")

    def identity(self, task: str, split: str) -> dict:
        about = self._task(task)
        return {
            "data": DATA,
            "commit": self.hub.commit(Repo(DATA, "dataset")),
            "task": about.name,
            "split": split,
            "base": f"{self.base}@{self.hub.commit(self.base)}",  # the tokenizer
            "expert": f"{self._whose(about.name)}@{self.hub.commit(self._experts[about.name])}",  # the head
            "length": LENGTH,
            "precision": self.precision,
            "texts": self.texts,
        }

    # --- what is needed, and whether it is sound ---

    def task_size(self, task: str) -> int:
        return min(super().task_size(task), self.texts or 10**9)

    def wanted_files(self) -> dict[Repo, Files]:
        """The base with its tokenizer, the experts, the test texts."""
        weights = lambda repo, folder="": [(repo, folder + "config.json"), *self._weights(repo, folder)]
        files: dict[Repo, Files] = {self.base: lambda: [*weights(self.base), *self._tokenizer_files()]}
        for repo in self._experts.values():  # one may hold several experts
            folders = [self._within[task] for task, other in self._experts.items() if other == repo]
            files[repo] = lambda repo=repo, folders=folders: [file for name in folders for file in weights(repo, name)]
        texts = lambda: [file for about in self._tasks.values() for file in self._data_files(about, "test")]
        return files | {Repo(DATA, "dataset"): texts}

    @property
    def input_bytes(self) -> int:
        """What a text takes on disk: its task's longest in four bytes a token, here four times a typical one."""
        return 4 * 4 * TYPICAL + 8

    def trial(self) -> Trial:
        """A model of the base's shape with random weights on texts of typical length, and its parts: to be timed."""
        config = _CONFIGS[self.architecture]
        with contextlib.suppress(FileError):
            config = self.config if self.hub.cached(self.base, "config.json") else config
        model = self._model(2, config, pad=0).to(self.device)
        texts = torch.ones(8 if self.device.type == "cpu" else 256, TYPICAL, dtype=torch.long, device=self.device)

        def run(n: int) -> Tensor:
            with torch.no_grad(), mixed(self.device, PRECISIONS[self.precision]):
                return model(input_ids=texts[:n], attention_mask=texts[:n]).logits.float().cpu()

        return Trial(run, len(texts), _parts(keys.body(model.state_dict(), config)))

    def check(self) -> dict[str, dict]:
        """Each expert's accuracy, beside the published one where there is one: where they differ, so do texts, padding
        or files. Else beside the share of the most frequent class, which takes no expert.
        """
        for task in self.tasks:  # what is wrong with them is said before anything is measured
            self.inputs(task, "test"), self.expert(task)
        found = {}
        for about in self._tasks.values():
            self.progress(f"expert of {about.name}")
            answers = logits(self, self.expert(about.name), about.name).argmax(1)
            labels = self.inputs(about.name, "test")[1]
            right, most = (answers == labels).sum().item(), labels.bincount().max().item()
            here, most_of = 100 * right / len(labels), 100 * most / len(labels)
            entry = {"accuracy": round(here, 2)}
            if self.protocol == "G1" and not self.texts:
                entry["published"], said = about.published, f"{about.published} % as published."
                if abs(here - about.published) > DIFFERS:
                    said += " They differ: find out why before you compare the tables above with published ones."
            else:
                entry["most frequent class"] = round(most_of, 2)
                said = f"their most frequent class is {most_of:.1f} % of them."
                if right <= most:
                    said += " It does no better than to name that one each time: is it an expert of this task, with "
                    said += "this base and tokenizer, and with its classes in GLUE's order?"
            if about.name == "cola":
                entry["Matthews correlation"] = round(100 * matthews_corrcoef(labels, answers), 2)
                said += f" Its Matthews correlation is {entry['Matthews correlation']:.1f}."
            found[about.name] = entry | {"said": f"its expert gets {here:.1f} % of its texts right, {said}"}
        return found

    def notes(self) -> list[str]:
        heads = {task: 4 * sum(tensor.numel() for tensor in self.head(task).values()) for task in self.tasks}
        size = 4 * sum(tensor.numel() for tensor in self.pretrained().values())
        largest = max(heads.values())
        found = [
            "Every task is measured by accuracy, CoLA too, on GLUE's validation set (MNLI: the matched one). Bodies "
            f"are merged and compressed; each task keeps its own head in float32, {largest:,} bytes at most "
            f"({100 * largest / size:.3f} % of a body), which *storage* leaves out. The zero-shot row is the "
            "pretrained body under the experts' heads, with which it was not trained."
        ]
        if self.texts:
            found.append(f"Of each task at most {self.texts:,} texts were drawn; published numbers are of all texts.")
        return found


def _folder(named: Mapping[str, str]) -> str:
    """A folder's name for experts of one's own: other experts, another folder."""
    return "own-" + hashlib.sha256(json.dumps(dict(sorted(named.items()))).encode()).hexdigest()[:8]


def _parts(body: State) -> list[tuple[State, float]]:
    """One block of a model, and an eighth of its word embeddings, with how often the model has each."""
    blocks: dict[str, dict[str, Tensor]] = {}
    rest = {}
    for name, tensor in body.items():
        block = re.match(r"(.*?\d+)\.", name)
        (blocks.setdefault(block[1], {}) if block else rest)[name] = tensor.cpu()
    words = max(rest, key=lambda name: rest[name].numel())
    few = rest[words][: len(rest[words]) // 8]
    return [(next(iter(blocks.values())), len(blocks)), ({words: few}, 8)]
