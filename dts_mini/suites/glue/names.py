"""What stands on the Hub: bases, experts, GLUE's tasks and columns, and the commits that the suites were written for.

The seven tasks, their splits and the experts of GPT-2 are those of fusion_bench (arXiv 2406.03280). GLUE is Wang et
al. (arXiv 1804.07461); its test labels are not public, so that everybody measures on the validation sets.
"""

from dataclasses import dataclass

BASES = {"gpt2-glue": "openai-community/gpt2", "roberta-glue": "FacebookAI/roberta-base"}
DATA = "nyu-mll/glue"
LENGTH = 512  # tokens of a text at most, as the experts were trained and measured

# Commits as the Hub's own pages show them. Of three experts only the first digits are known: the commit that begins
# so is looked up when it is first needed.
COMMITS = {
    "openai-community/gpt2": "607a30d783dfa663caf39e06633721c8d4cfcd7e",
    "FacebookAI/roberta-base": "e2da8e2f811d1448a5b465c236feacd80ffbac7b",
    "datasets/nyu-mll/glue": "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c",
    "tanganke/gpt2_cola": "a1a84de",
    "tanganke/gpt2_mnli": "ee44b64fbe09e98ec85794ebf5affe3ec6438829",
    "tanganke/gpt2_mrpc": "dc5522322037890084840125254dbc5e2d33df64",
    "tanganke/gpt2_qnli": "99e207bddd552edd9852d3061594cffb87821c12",
    "tanganke/gpt2_qqp": "073ac0c",
    "tanganke/gpt2_rte": "dcd99d3",
    "tanganke/gpt2_sst2": "5a012c98f02128385034cafcb9559df9df2a5c63",
}


@dataclass(frozen=True)
class GlueTask:
    """A task of GLUE: a text or two, and a class."""

    name: str
    columns: tuple[str, ...]  # of the texts
    classes: tuple[str, ...]  # in the order of the labels
    size: int  # test texts as published, to estimate times; what counts is what the files hold
    published: float  # accuracy of the expert of GPT-2, in %
    test: str = "validation"  # what the repository calls the split that is measured on
    templates: tuple[str, ...] = ()  # heads are trained: no prompts
    mirror: str = ""
    real: bool = True

    @property
    def mirrors(self) -> str:
        return self.name


_SENTENCES, _ENTAILS = ("sentence1", "sentence2"), ("entailment", "not_entailment")
TASKS = {
    task.name: task
    for task in (
        GlueTask("cola", ("sentence",), ("unacceptable", "acceptable"), 1_043, 76.8),
        GlueTask(
            "mnli", ("premise", "hypothesis"), ("entailment", "neutral", "contradiction"), 9_815, 82.1,
            test="validation_matched",
        ),
        GlueTask("mrpc", _SENTENCES, ("not_equivalent", "equivalent"), 408, 80.4),
        GlueTask("qnli", ("question", "sentence"), _ENTAILS, 5_463, 88.3),
        GlueTask("qqp", ("question1", "question2"), ("not_duplicate", "duplicate"), 40_430, 89.6),
        GlueTask("rte", _SENTENCES, _ENTAILS, 277, 65.3),
        GlueTask("sst2", ("sentence",), ("negative", "positive"), 872, 91.2),
    )
}  # fmt: skip
# Held out, as in the paper; it has stsb among the seen ones, which is no classification.
UNSEEN = ("sst2", "qqp", "rte")


def expert_repo(task: str) -> str:
    """The repository of a task's expert of GPT-2."""
    return f"tanganke/gpt2_{task}"
