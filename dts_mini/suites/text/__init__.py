"""The text suite: a sentence encoder that others pretrained, fine-tuned here on tasks made of real words and texts."""

from dts_mini.core.errors import needs

needs("text", "the text suite", "tokenizers", "transformers", "sklearn")
