"""TTPU: Hugging Face transformers models through PJRT and StableHLO, on CPU here and on TPU."""

from ._ttpu import AutoModelForTPU, Generation, TextStream, Error, __version__

__all__ = ["AutoModelForTPU", "Generation", "TextStream", "Error", "__version__"]
