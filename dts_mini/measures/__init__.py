"""Floor 5: what measures a suite; read in this order.

``estimates``: numbers as they are stored, with their intervals.
``tables``: personalised merging beside every merge, and tasks that nobody fine-tuned: the two tables of the project.
``cells``, ``curves``: every method at the same bytes on disk, and what each switch is worth.
``honest``: the same table for a zoo whose captions misuse no name.
``cheap``: what costs next to nothing: heads from other names, a linear head, plain parts of a task vector.
``descriptors``, ``unseen``, ``cases``: every way to hold out one task or two, and what can be told beforehand.
``routing``: inputs whose task nobody says.
``text``: the same tables for the text suite.

Each is plain data for JSON, with an interval for every estimate. ``python -m dts_mini.measures.curves``, ``.unseen``
and ``.routing`` measure the mini suite and write ``data/mini``.
"""

from dts_mini.core.errors import needs

needs("suites", "measuring", "scipy", "sklearn", "joblib", "tqdm")
