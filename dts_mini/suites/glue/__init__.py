"""The language suites: GPT-2 and RoBERTa fine-tuned on GLUE, checkpoints and data sets of the Hub."""

from dts_mini.core.errors import needs

needs("full", "a language suite", "sklearn", "transformers", "huggingface_hub", "datasets", "pyarrow")
