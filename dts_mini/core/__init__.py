"""Floor 1: the core, to be read in this order. A module imports none that stands below it.

The paper
    paper       the whole method on one page: read it first; the rest does the same, packed, checked and to a budget

One tensor
    errors      what a caller can mend
    registry    what is known by name, and what adds to it
    state       state dicts: what must hold of them, what is no weight in them, how one is recognised
    svd         decomposition: how it is computed, and how far it is from the matrix
    file        files written at once or not at all
    container   one file: a manifest, a few big tensors, one digest
    parts       what a delta holds of one tensor, and how that lies in a file
    codes       thresholding and scaling; two bits an element
    layout      what of a tensor is coded by itself: no frozen rows, each matrix of a stack

One task
    budget      bytes asked for, and the largest choice that fits
    delta       a task's remainder: saved, loaded, added back
    frame       two state dicts looked at: what is kept as it is, and the differences that a method gets
    dts         the paper's method on a frame, with ours that keep its format
    compress    the way in, above the methods

Many tasks
    merging     seven base merges
    personal    a delta a task over one base; a model for a task that nobody fine-tuned

``paper`` and the defaults of ``dts`` are the paper's; ``Settings`` from ``levels`` on are ours, as are budgets, bounds,
the file and what is kept. What is ours and no part of the method stands beside the core: ``dts_mini.ours``,
``dts_mini.streaming``.
"""
