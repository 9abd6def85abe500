"""What stands on the Hub: models, tasks, their data sets and columns, class names and prompts.

The names and splits are those of fusion_bench (arXiv 2406.03280), whose checkpoints are protocol P3; the lists of 8, 14
and 20 tasks are those of Ilharco et al. (arXiv 2212.04089) and Wang et al. (arXiv 2405.07813). Prompts and class
names are CLIP's (arXiv 2103.00020). A repository's content is pinned elsewhere: ``dts_mini.suites.hub``.
"""

from dataclasses import dataclass

BASES = {
    "clip-vit-b-32": "openai/clip-vit-base-patch32",
    "clip-vit-b-16": "openai/clip-vit-base-patch16",
    "clip-vit-l-14": "openai/clip-vit-large-patch14",
}
OPEN_CLIP = {"clip-vit-b-32": "ViT-B-32", "clip-vit-b-16": "ViT-B-16", "clip-vit-l-14": "ViT-L-14"}
COUNTS = (8, 14, 20)


@dataclass(frozen=True)
class ClipTask:
    """A data set of photographs or scans on the Hub, and how its classes are put into prompts.

    ``classes`` are in the order of the labels. Where they are not given here they are read from the data set itself,
    underscores made spaces; ``number`` is how many there must be.
    """

    name: str
    expert: str  # the end of the expert's repository name
    repo: str  # of the data set
    number: int  # classes
    size: int  # test images as published, to estimate times; what counts is what the files hold
    templates: tuple[str, ...]  # prompts, "{c}" standing for the class name
    classes: tuple[str, ...] = ()
    config: str = ""  # the data set's configuration, a folder of its repository
    image: str = "image"  # column names
    label: str = "label"
    test: str = "test"  # what the repository calls the split
    format: str = "parquet"  # or webdataset
    mirror: str = ""  # the task of the mini suite that mirrors this one
    torchvision: str = ""  # the class of torchvision.datasets that holds the same images in the same splits
    leak: bool = False  # whether its splits are known to have been mixed up in published checkpoints
    real: bool = True

    @property
    def mirrors(self) -> str:
        return self.name


def expert_repo(architecture: str, task: ClipTask) -> str:
    """The repository of a task's expert."""
    return f"tanganke/{BASES[architecture].removeprefix('openai/')}_{task.expert}"


def _each(articles: tuple[str, ...], *phrases: str) -> tuple[str, ...]:
    """Every phrase with every article before the class name, articles outermost."""
    return tuple(phrase.replace("{c}", article + "{c}") for article in articles for phrase in phrases)


_DIGITS = tuple("0123456789")
_NUMBER = ('a photo of the number: "{c}".',)
_PHOTO = _each(("a ", "the "), "a photo of {c}.")
_CAR = tuple(f"a photo of my {state}{{c}}." for state in ("", "dirty ", "clean ", "new ", "old "))
_AERIAL = tuple(f"{view} {kind} of {{c}}." for kind in ("imagery", "photo", "view") for view in ("satellite", "aerial"))
_TEXTURE = tuple(f"a photo of {{c}} {what}." for what in ("texture", "pattern", "thing", "object"))
_SMALL = tuple(
    f"a {how}photo of a {{c}}." for how in ("", "blurry ", "black and white ", "low contrast ", "high contrast ")
) + tuple(f"a photo of a {size} {{c}}." for size in ("big", "small"))

_CROP = (
    "annual crop land, forest, brushland or shrubland, highway or road, industrial buildings or commercial buildings, "
    "pasture land, permanent crop land, residential buildings or homes or apartments, river, lake or sea"
)
_ROUND, _TRIANGLE, _BLUE, _GREY = (
    "red and white circle",
    "red and white triangle",
    "blue circle with white",
    "white circle with gray strike bar",
)
_SIGNS = (
    *(f"{_ROUND} {speed} kph speed limit" for speed in (20, 30, 50, 60, 70, 80)),
    "end / de-restriction of 80 kph speed limit",
    *(f"{_ROUND} {speed} kph speed limit" for speed in (100, 120)),
    *(f"{_ROUND} red {vehicle} and black car no passing" for vehicle in ("car", "truck")),
    f"{_TRIANGLE} road intersection warning",
    "white and yellow diamond priority road",
    "red and white upside down triangle yield right-of-way",
    "stop",
    f"empty {_ROUND}",
    f"{_ROUND} no truck entry",
    "red circle with white horizonal stripe no entry",  # spelt as CLIP's prompts spell it, and so "bicyle"
    f"{_TRIANGLE} with exclamation mark warning",
    *(f"{_TRIANGLE} with black {side} curve approaching warning" for side in ("left", "right", "double")),
    *(f"{_TRIANGLE} {what} warning" for what in ("rough / bumpy road", "car skidding / slipping")),
    *(
        f"{_TRIANGLE} with {what} warning"
        for what in (
            "merging / narrow lanes",
            "person digging / construction / road work",
            "traffic light approaching",
            "person walking",
            "child and person walking",
            "bicyle",
            "snowflake / ice",
            "deer",
        )
    ),
    f"{_GREY} no speed limit",
    *(
        f"{_BLUE} {way} mandatory"
        for way in (
            "right turn arrow",
            "left turn arrow",
            "forward arrow",
            "forward or right turn arrow",
            "forward or left turn arrow",
            "keep right arrow",
            "keep left arrow",
        )
    ),
    f"{_BLUE} arrows indicating a traffic circle",
    *(f"{_GREY} indicating no passing for {vehicles} has ended" for vehicles in ("cars", "trucks")),
)

TASKS = (
    ClipTask("SUN397", "sun397", "tanganke/sun397", 397, 19_850, _PHOTO, mirror="scenes"),
    ClipTask(
        "Cars",
        "stanford-cars",
        "tanganke/stanford_cars",
        196,
        8_041,
        (*_PHOTO, _CAR[0], "i love my {c}!", *_CAR[1:]),
        mirror="vehicles",
    ),
    ClipTask(
        "RESISC45", "resisc45", "tanganke/resisc45", 45, 6_300, _each(("", "a ", "the "), *_AERIAL), mirror="aerial"
    ),
    ClipTask(
        "EuroSAT",
        "eurosat",
        "tanganke/eurosat",
        10,
        2_700,
        _each(("", "a ", "the "), "a centered satellite photo of {c}."),
        classes=tuple(_CROP.split(", ")),
        mirror="land cover",
    ),
    ClipTask(
        "SVHN",
        "svhn",
        "ufldl-stanford/svhn",
        10,
        26_032,
        _NUMBER,
        classes=_DIGITS,
        config="cropped_digits",
        mirror="house numbers",
        torchvision="SVHN",
    ),
    ClipTask(
        "GTSRB",
        "gtsrb",
        "tanganke/gtsrb",
        43,
        12_630,
        tuple(f'a {how} photo of a "{{c}}" traffic sign.' for how in ("zoomed in", "centered", "close up")),
        classes=_SIGNS,
        mirror="signs",
        torchvision="GTSRB",
    ),
    ClipTask(
        "MNIST",
        "mnist",
        "ylecun/mnist",
        10,
        10_000,
        _NUMBER,
        classes=_DIGITS,
        config="mnist",
        mirror="digits",
        torchvision="MNIST",
    ),
    ClipTask("DTD", "dtd", "tanganke/dtd", 47, 1_880, _each(("a ", "the "), *_TEXTURE), mirror="textures", leak=True),
    ClipTask(
        "Flowers102",
        "oxford_flowers102",
        "dpdl-benchmark/oxford_flowers102",
        102,
        6_149,
        ("a photo of a {c}, a type of flower.",),
    ),
    ClipTask(
        "PCAM",
        "pcam",
        "1aurent/PatchCamelyon",
        2,
        32_768,
        ("this is a photo of {c}",),
        classes=("lymph node", "lymph node containing metastatic tumor tissue"),
        torchvision="PCAM",
    ),
    ClipTask(
        "FER2013",
        "fer2013",
        "clip-benchmark/wds_fer2013",
        7,
        7_178,
        (
            "a photo of a {c} looking face.",
            "a photo of a face showing the emotion: {c}.",
            "a photo of a face looking {c}.",
            "a face that looks {c}.",
            "they look {c}.",
            "look at how {c} they are.",
        ),
        classes=("angry", "disgusted", "fearful", "happy", "neutral", "sad", "surprised"),
        image="jpg",
        label="cls",
        format="webdataset",
    ),
    ClipTask(
        "OxfordIIITPet",
        "oxford-iiit-pet",
        "timm/oxford-iiit-pet",
        37,
        3_669,
        ("a photo of a {c}, a type of pet.",),
    ),
    ClipTask("STL10", "stl10", "tanganke/stl10", 10, 8_000, _PHOTO),
    ClipTask(
        "CIFAR100",
        "cifar100",
        "uoft-cs/cifar100",
        100,
        10_000,
        _SMALL,
        image="img",
        label="fine_label",
        config="cifar100",
        torchvision="CIFAR100",
    ),
    ClipTask(
        "CIFAR10",
        "cifar10",
        "uoft-cs/cifar10",
        10,
        10_000,
        _SMALL,
        image="img",
        config="plain_text",
        torchvision="CIFAR10",
    ),
    ClipTask(
        "Food101", "food101", "ethz/food101", 101, 25_250, ("a photo of {c}, a type of food.",), test="validation"
    ),
    ClipTask(
        "FashionMNIST",
        "fashion_mnist",
        "zalando-datasets/fashion_mnist",
        10,
        10_000,
        _PHOTO,
        config="fashion_mnist",
        torchvision="FashionMNIST",
    ),
    ClipTask(
        "EMNIST",
        "emnist_letters",
        "tanganke/emnist_letters",
        26,
        20_800,
        ('a photo of the digit character: "{c}".',),
        classes=tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
    ),
    ClipTask(
        "KMNIST",
        "kmnist",
        "tanganke/kmnist",
        10,
        10_000,
        ("a photo of the character {c}.",),
        classes=tuple("おきすつなはまやれを"),
        torchvision="KMNIST",
    ),
    ClipTask(
        "RenderedSST2",
        "rendered-sst2",
        "nateraw/rendered-sst2",
        2,
        1_821,
        ("a {c} review of a movie.",),
        classes=("negative", "positive"),
    ),
)
