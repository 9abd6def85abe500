"""The course's figures: each function returns (figure, data), the data plain lists that a test can read."""

from dts_mini.course.figures.decomposition import (
    component,
    described,
    layer_errors,
    rank_accuracy,
    same_error,
    singular_values,
    truncation_error,
)
from dts_mini.course.figures.full_scale import storage_shares
from dts_mini.course.figures.language import descriptor_cosines, where_bytes_go
from dts_mini.course.figures.merging import (
    base_choice,
    mean_accuracies,
    storage_by_tasks,
    task_strips,
    two_measures,
    two_suites,
)
from dts_mini.course.figures.routing import routed_accuracies, routing_maps
from dts_mini.course.figures.scaling import (
    delta_bytes,
    file_bytes,
    group_error,
    length_and_answers,
    scaling_costs,
    stairs,
    trial_rows,
)
from dts_mini.course.figures.serving import drift, served_memory, serving_cost, serving_times
from dts_mini.course.figures.size_accuracy import (
    ablation_bars,
    bound_tightness,
    component_errors,
    every_method,
    layer_ranks,
    rate_distortion,
    size_curves,
)
from dts_mini.course.figures.suite import accuracies, confusion, contact_sheet, size_and_accuracy, storage_bars
from dts_mini.course.figures.thresholding import (
    cut_curve,
    group_histogram,
    groups_traded,
    kept_parts,
    numbers_and_codes,
)
from dts_mini.course.figures.tower import tower
from dts_mini.course.figures.unseen import (
    descriptor_map,
    fusion_plane,
    nearness_gains,
    sharpness_curves,
    unseen_accuracies,
    unseen_gains,
    weight_bars,
)
from dts_mini.course.figures.vectors import cosine_map, layer_lengths, similarity_scatter, triangle

__all__ = [
    "ablation_bars",
    "accuracies",
    "base_choice",
    "bound_tightness",
    "component",
    "component_errors",
    "confusion",
    "contact_sheet",
    "cosine_map",
    "cut_curve",
    "delta_bytes",
    "described",
    "descriptor_cosines",
    "descriptor_map",
    "drift",
    "every_method",
    "file_bytes",
    "fusion_plane",
    "group_error",
    "group_histogram",
    "groups_traded",
    "kept_parts",
    "layer_errors",
    "layer_lengths",
    "layer_ranks",
    "length_and_answers",
    "mean_accuracies",
    "nearness_gains",
    "numbers_and_codes",
    "rank_accuracy",
    "rate_distortion",
    "routed_accuracies",
    "routing_maps",
    "same_error",
    "scaling_costs",
    "served_memory",
    "serving_cost",
    "serving_times",
    "sharpness_curves",
    "similarity_scatter",
    "singular_values",
    "size_and_accuracy",
    "size_curves",
    "stairs",
    "storage_bars",
    "storage_by_tasks",
    "storage_shares",
    "task_strips",
    "tower",
    "trial_rows",
    "triangle",
    "truncation_error",
    "two_measures",
    "two_suites",
    "unseen_accuracies",
    "unseen_gains",
    "weight_bars",
    "where_bytes_go",
]
