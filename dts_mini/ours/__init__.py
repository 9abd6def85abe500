"""What is ours, beside the paper's method and over its deltas; nothing of the core needs it.

``weightings``: shares of seen tasks for an unseen one, beside the paper's, and how far to trust them.
``router``: which task an input belongs to, from the deltas alone.
"""
