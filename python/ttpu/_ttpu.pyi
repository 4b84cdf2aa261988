import os
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, TypeAlias, final, overload

__version__: str

_Prompt: TypeAlias = str | Sequence[int] | Sequence[Mapping[str, Any]]

class Error(RuntimeError):
    """What went wrong; the message says what was expected and what to do."""

    code: str
    """"INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED" and so on: the codes of PJRT."""

@final
class Generation:
    """A finished answer."""

    @property
    def text(self) -> str: ...
    @property
    def token_ids(self) -> list[int]: ...
    @property
    def prompt_token_ids(self) -> list[int]: ...
    @property
    def finish_reason(self) -> Literal["stop", "length", "abort"]: ...

@final
class TextStream(Iterator[str]):
    """Pieces of an answer, as they come. Closing it ends the answer."""

    def __iter__(self) -> TextStream: ...
    def __next__(self) -> str: ...
    def __enter__(self) -> TextStream: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
    def close(self) -> None:
        """Cancels what is still running and waits for it. No pieces come after this."""
    def result(self) -> Generation:
        """The whole answer; waits for its end."""

@final
class AutoModelForTPU:
    """A model that is loaded and compiled. It answers one request at a time; others wait."""

    @staticmethod
    def from_pretrained(
        name_or_path: str | os.PathLike[str],
        *,
        backend: Literal["jax"] = "jax",
        task: Literal["inference"] = "inference",
        parallelism_strategy: Literal["auto"] = "auto",
        enable_paged_attention: bool = True,
        dtype: Literal["bf16", "f32"] = "bf16",
        device: str = "cpu",
        max_model_len: int = 0,
    ) -> AutoModelForTPU:
        """Loads a folder in Hugging Face layout, a .gguf file, or a hub id such as
        "HuggingFaceTB/SmolLM2-135M-Instruct".

        backend: "jax", StableHLO through PJRT as JAX runs it; no jax is imported.
        parallelism_strategy: "auto"; a model runs on one device.
        enable_paged_attention: allows a paged cache. One sequence at a time needs no pages, so
            both values give the same text.
        dtype: of activations. "f32" also expands quantized weights (to bf16) when they are loaded.
        device: "cpu", "tpu", "cuda", or the path of a PJRT plugin.
        max_model_len: most tokens of prompt and answer together; 0 is what the model allows, to
            4096.
        """
    @overload
    def generate(
        self,
        prompt: _Prompt,
        *,
        max_tokens: int = 256,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        seed: int = 0,
        stop: str | Sequence[str] = (),
        stream: Literal[False] = False,
    ) -> Generation:
        """Goes on from a text, from token ids, or answers chat messages ({"role", "content"}).

        A temperature of 0 is greedy. The text ends before the first of `stop`. With stream=True
        the pieces come from an iterator while the model works.
        """
    @overload
    def generate(
        self,
        prompt: _Prompt,
        *,
        max_tokens: int = 256,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        seed: int = 0,
        stop: str | Sequence[str] = (),
        stream: Literal[True],
    ) -> TextStream: ...
    def encode(self, prompt: _Prompt) -> list[int]:
        """The token ids that generate() starts from."""

# What ttpu/llm.py stands on.

@final
class _SamplingParams:
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    frequency_penalty: float
    presence_penalty: float
    logit_bias: list[tuple[int, float]]
    seed: int
    max_tokens: int
    min_tokens: int
    stop_token_ids: list[int]
    stop: list[str]
    include_stop_str_in_output: bool
    ignore_eos: bool
    logprobs: int
    skip_special_tokens: bool
    def __init__(self) -> None: ...
    def set_structured_outputs(
        self,
        *,
        json: str | None,
        regex: str | None,
        choice: Sequence[str],
        grammar: str | None,
        json_object: bool,
    ) -> None: ...

@final
class _TokenLogprobs:
    @property
    def token(self) -> int: ...
    @property
    def logprob(self) -> float: ...
    @property
    def top(self) -> list[tuple[int, float]]: ...

@final
class _BatchResult:
    @property
    def prompt_token_ids(self) -> list[int]: ...
    @property
    def text(self) -> str: ...
    @property
    def token_ids(self) -> list[int]: ...
    @property
    def logprobs(self) -> list[_TokenLogprobs]: ...
    @property
    def finish_reason(self) -> str: ...

@final
class _EngineOptions:
    device: str
    dtype: str
    quantization: str
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    enable_prefix_caching: bool
    kv_cache_dtype: str
    num_speculative_tokens: int
    speculative_model: str
    tensor_parallel_size: int
    pipeline_parallel_size: int
    data_parallel_size: int
    enable_expert_parallel: bool
    strategy: str
    def __init__(self) -> None: ...

@final
class _BatchEngine:
    def __init__(self, model: str, options: _EngineOptions) -> None: ...
    def encode(self, text: str) -> list[int]: ...
    def encode_chat(self, messages: str) -> list[int]: ...
    def generate(
        self, prompts: Sequence[Sequence[int]], params: Sequence[_SamplingParams]
    ) -> list[_BatchResult]: ...
    def decode(self, tokens: Sequence[int]) -> str: ...
    def beam_search(
        self,
        prompt: Sequence[int],
        *,
        beam_width: int,
        max_tokens: int,
        length_penalty: float,
        early_stopping: bool,
        ignore_eos: bool,
    ) -> list[tuple[list[int], float]]: ...

@final
class _Embedder:
    def __init__(self, model: str, *, dtype: str, device: str, max_model_len: int) -> None: ...
    def embed(self, texts: Sequence[str | Sequence[int]]) -> list[list[float]]: ...
