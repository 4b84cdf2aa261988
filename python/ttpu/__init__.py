"""TTPU: Hugging Face transformers models through PJRT and StableHLO, on CPU here and on TPU."""

from ._ttpu import AutoModelForTPU, Error, Generation, TextStream, __version__
from .llm import (LLM, BeamSearchOutput, BeamSearchParams, BeamSearchSequence, CompletionOutput,
                  EmbeddingRequestOutput, RequestOutput, SamplingParams, StructuredOutputsParams)

__all__ = ["AutoModelForTPU", "BeamSearchOutput", "BeamSearchParams", "BeamSearchSequence",
           "CompletionOutput", "EmbeddingRequestOutput", "Error", "Generation", "LLM", "RequestOutput",
           "SamplingParams", "StructuredOutputsParams", "TextStream", "__version__"]
