"""The course's figures: each function returns (figure, data), the data plain lists that a test can read."""

from dts_mini.course.figures.decomposition import matrices, singular_values, truncation_error
from dts_mini.course.figures.merging import accuracy_against_storage, family, mean_accuracies, task_accuracies
from dts_mini.course.figures.scaling import delta_bytes, file_bytes
from dts_mini.course.figures.suite import accuracies, confusion, contact_sheet, storage_bars
from dts_mini.course.figures.thresholding import code_image, group_histogram
from dts_mini.course.figures.unseen import unseen_accuracies, weight_bars
from dts_mini.course.figures.vectors import cosine_map, layer_lengths, similarity_scatter, triangle

__all__ = [
    "accuracies",
    "accuracy_against_storage",
    "code_image",
    "confusion",
    "contact_sheet",
    "cosine_map",
    "delta_bytes",
    "family",
    "file_bytes",
    "group_histogram",
    "layer_lengths",
    "matrices",
    "mean_accuracies",
    "similarity_scatter",
    "singular_values",
    "storage_bars",
    "task_accuracies",
    "triangle",
    "truncation_error",
    "unseen_accuracies",
    "weight_bars",
]
