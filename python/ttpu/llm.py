"""Offline inference, shaped like vLLM's: many prompts at once, or sentence embeddings."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import _ttpu

Prompt = str | Sequence[int]
Messages = Sequence[Mapping[str, Any]]


@dataclass
class StructuredOutputsParams:
    """What an answer must be: one of these. `json` is a JSON schema, `grammar` is in Lark's notation."""

    json: str | Mapping[str, Any] | None = None
    regex: str | None = None
    choice: Sequence[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None


@dataclass
class SamplingParams:
    """How tokens are chosen, with vLLM's names, meanings and defaults.

    A temperature of 0 is greedy. Without a seed every call draws another one. `n` answers to one prompt have the seeds
    seed, seed + 1, and so on. `logprobs`: the log probability of each token, and of so many of the likeliest (0 to 20).
    """

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None
    stop: str | Sequence[str] = ()
    stop_token_ids: Sequence[int] = ()
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    max_tokens: int = 16
    min_tokens: int = 0
    logprobs: int | None = None
    skip_special_tokens: bool = True
    structured_outputs: StructuredOutputsParams | None = None

    def _native(self, seed: int) -> _ttpu._SamplingParams:
        native = _ttpu._SamplingParams()
        for name in ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "frequency_penalty",
                     "presence_penalty", "include_stop_str_in_output", "ignore_eos", "max_tokens", "min_tokens",
                     "skip_special_tokens"):
            setattr(native, name, getattr(self, name))
        native.logit_bias = list(self.logit_bias.items())
        native.seed = seed % 2**64
        native.stop = [self.stop] if isinstance(self.stop, str) else list(self.stop)
        native.stop_token_ids = list(self.stop_token_ids)
        native.logprobs = -1 if self.logprobs is None else self.logprobs
        if (outputs := self.structured_outputs) is not None:
            schema = outputs.json if isinstance(outputs.json, str | None) else json.dumps(outputs.json)
            native.set_structured_outputs(json=schema, regex=outputs.regex, choice=list(outputs.choice or ()),
                                          grammar=outputs.grammar, json_object=bool(outputs.json_object))
        return native


@dataclass
class BeamSearchParams:
    """Beam search: `beam_width` (1 to 10) answers, best first. An answer's score is its log probability, divided by
    its tokens to the power of `length_penalty`; `early_stopping` ends with the first `beam_width` answers."""

    beam_width: int
    max_tokens: int
    ignore_eos: bool = False
    length_penalty: float = 1.0
    early_stopping: bool = False


@dataclass
class BeamSearchSequence:
    tokens: list[int]  # of prompt and answer
    cum_logprob: float
    text: str  # of the answer


@dataclass
class BeamSearchOutput:
    sequences: list[BeamSearchSequence]


@dataclass
class Logprob:
    logprob: float
    rank: int | None = None  # 1 is the likeliest; None: a sampled token that is not among those asked for


@dataclass
class CompletionOutput:
    """One answer."""

    index: int
    text: str
    token_ids: list[int]
    finish_reason: str
    logprobs: list[dict[int, Logprob]] | None = None


@dataclass
class RequestOutput:
    """The answers to one prompt."""

    request_id: str
    prompt: str | None
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    finished: bool = True


@dataclass
class EmbeddingOutput:
    embedding: list[float]


@dataclass
class EmbeddingRequestOutput:
    request_id: str
    outputs: EmbeddingOutput
    finished: bool = True


class LLM:
    """A model that is loaded and compiled, for many prompts at once. One call at a time."""

    def __init__(self, model: str | os.PathLike[str], *, task: str = "generate", dtype: str = "", device: str = "cpu",
                 max_model_len: int = 0, max_num_seqs: int = 16, max_num_batched_tokens: int = 2048,
                 enable_prefix_caching: bool = True, num_speculative_tokens: int = 0,
                 kv_cache_dtype: str = "auto", speculative_model: str = "", quantization: str = "",
                 tensor_parallel_size: int = 1, pipeline_parallel_size: int = 1, data_parallel_size: int = 1,
                 enable_expert_parallel: bool = False, strategy: str = ""):
        """model: a folder in Hugging Face layout, a .gguf file, or a hub id.

        task: "generate", or "embed" for vectors, of an encoder (BERT, RoBERTa) or a decoder.
        dtype: of activations, "bf16" or "f32"; without it bf16, and f32 for embeddings.
        max_model_len: most tokens of prompt and answer together; 0 is what the model allows, to 4096.
        max_num_seqs: prompts that are answered at the same time.
        num_speculative_tokens: tokens that are guessed a step; the answers stay the same.
        speculative_model: a smaller model with the same vocabulary that makes the guesses; without it they are looked
            up in what was said before.
        kv_cache_dtype: "auto" (that of the activations), "bf16", "f32", "int8" or "fp8".
        quantization: "int8", "fp8" or "int4": linear layers are quantized when they are loaded.
        tensor_parallel_size: devices that share each layer (with device="cpu" so many are made).
        pipeline_parallel_size: stages, each with as many of the layers and their part of the cache.
        data_parallel_size: replicas of the model, each with max_num_seqs prompts of its own.
        enable_expert_parallel: whole experts on different devices, instead of parts of all of them.
        strategy: how layers are divided, of docs/parallel.md, or "auto".

        All but task and dtype concern task="generate"; "embed" takes device and max_model_len too.
        """
        if task not in ("generate", "embed"):
            raise ValueError(f"task is {task!r}, expected 'generate' or 'embed'")
        self._engine: _ttpu._BatchEngine | None = None
        self._embedder: _ttpu._Embedder | None = None
        if task == "embed":
            self._embedder = _ttpu._Embedder(os.fspath(model), dtype=dtype or "f32", device=device,
                                             max_model_len=max_model_len)
        else:
            options = _ttpu._EngineOptions()
            options.device = device
            options.dtype = dtype or "bf16"
            options.quantization = quantization
            options.max_model_len = max_model_len
            options.max_num_seqs = max_num_seqs
            options.max_num_batched_tokens = max_num_batched_tokens
            options.enable_prefix_caching = enable_prefix_caching
            options.kv_cache_dtype = kv_cache_dtype
            options.num_speculative_tokens = num_speculative_tokens
            options.speculative_model = speculative_model
            options.tensor_parallel_size = tensor_parallel_size
            options.pipeline_parallel_size = pipeline_parallel_size
            options.data_parallel_size = data_parallel_size
            options.enable_expert_parallel = enable_expert_parallel
            options.strategy = strategy
            self._engine = _ttpu._BatchEngine(os.fspath(model), options)
        self._requests = 0

    def generate(self, prompts: Prompt | Sequence[Prompt],
                 sampling_params: SamplingParams | Sequence[SamplingParams] | None = None) -> list[RequestOutput]:
        """Goes on from each prompt, a text or its token ids; the answers stand in the order of the prompts."""
        engine = self._generator()
        listed = _as_list(prompts)
        tokens = [engine.encode(prompt) if isinstance(prompt, str) else list(prompt) for prompt in listed]
        texts = [prompt if isinstance(prompt, str) else None for prompt in listed]
        return self._run(texts, tokens, sampling_params)

    def beam_search(self, prompts: Prompt | Sequence[Prompt], params: BeamSearchParams) -> list[BeamSearchOutput]:
        """The likeliest answers to each prompt, best first."""
        engine = self._generator()
        outputs = []
        for prompt in _as_list(prompts):
            ids = engine.encode(prompt) if isinstance(prompt, str) else list(prompt)
            answers = engine.beam_search(ids, beam_width=params.beam_width, max_tokens=params.max_tokens,
                                         length_penalty=params.length_penalty, early_stopping=params.early_stopping,
                                         ignore_eos=params.ignore_eos)
            outputs.append(BeamSearchOutput([BeamSearchSequence(ids + tokens, logprob, engine.decode(tokens))
                                             for tokens, logprob in answers]))
        return outputs

    def chat(self, messages: Messages | Sequence[Messages],
             sampling_params: SamplingParams | Sequence[SamplingParams] | None = None) -> list[RequestOutput]:
        """Answers one conversation ({"role", "content"} messages), or several."""
        engine = self._generator()
        conversations = [messages] if messages and isinstance(messages[0], Mapping) else messages
        tokens = [engine.encode_chat(json.dumps(list(conversation))) for conversation in conversations]
        return self._run([None] * len(tokens), tokens, sampling_params)

    def embed(self, prompts: Prompt | Sequence[Prompt]) -> list[EmbeddingRequestOutput]:
        """The embedding of each text, or list of token ids. Texts that are too long are cut."""
        if self._embedder is None:
            raise ValueError("the model was loaded to generate; load it with LLM(model, task='embed')")
        vectors = self._embedder.embed([p if isinstance(p, str) else list(p) for p in _as_list(prompts)])
        return [EmbeddingRequestOutput(self._next_id(), EmbeddingOutput(vector)) for vector in vectors]

    def _generator(self) -> _ttpu._BatchEngine:
        if self._engine is None:
            raise ValueError("the model was loaded for embeddings (task='embed'); it does not generate")
        return self._engine

    def _next_id(self) -> str:
        self._requests += 1
        return str(self._requests - 1)

    def _run(self, texts: list[str | None], tokens: list[list[int]],
             sampling_params: SamplingParams | Sequence[SamplingParams] | None) -> list[RequestOutput]:
        if sampling_params is None or isinstance(sampling_params, SamplingParams):
            params = [sampling_params or SamplingParams()] * len(tokens)
        else:
            params = list(sampling_params)
        if len(params) != len(tokens):
            raise ValueError(f"{len(params)} sampling parameters for {len(tokens)} prompts")
        prompts: list[list[int]] = []
        native: list[_ttpu._SamplingParams] = []
        for ids, param in zip(tokens, params):
            if param.n < 1:
                raise ValueError(f"n is {param.n}, expected 1 or more")
            seed = random.getrandbits(63) if param.seed is None else param.seed
            for index in range(param.n):
                prompts.append(ids)
                native.append(param._native(seed + index))
        results = iter(self._generator().generate(prompts, native))
        return [RequestOutput(self._next_id(), text, ids, [_completion(i, next(results)) for i in range(param.n)])
                for text, ids, param in zip(texts, tokens, params)]


def _as_list(prompts: Prompt | Sequence[Prompt]) -> list[Prompt]:
    if isinstance(prompts, str):
        return [prompts]
    if prompts and isinstance(prompts[0], int):
        return [prompts]  # type: ignore[list-item]  # the ids of one prompt
    return list(prompts)  # type: ignore[arg-type]


def _completion(index: int, result: _ttpu._BatchResult) -> CompletionOutput:
    logprobs = None
    if result.logprobs:
        logprobs = []
        for step in result.logprobs:
            ranked = {token: Logprob(value, rank + 1) for rank, (token, value) in enumerate(step.top)}
            ranked.setdefault(step.token, Logprob(step.logprob))
            logprobs.append(ranked)
    return CompletionOutput(index, result.text, result.token_ids, result.finish_reason, logprobs)
