"""tpu-inference's own Llama with its own attention kernel, shardings, page size, block sizes and compiler options.

Its model class, its logits and its `sample` (`greedy`: the largest logit; `sampling`: temperature, top-k and top-p) make one program here; its
runner makes three of them, one after the other. What the package imports and a program does not need (vLLM, torch) is replaced by stand-ins.
"""

import importlib.abc
import importlib.machinery
import sys
import types
from types import SimpleNamespace
from unittest import mock

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from work import Work, pretend_chip, shape

STANDINS = ("vllm", "torch", "torchvision", "torchax", "jaxtyping", "qwix", "pathwaysutils", "tpu_info", "transformers", "safetensors",
            "runai_model_streamer", "gcsfs", "tokamax", "huggingface_hub", "requests", "sympy", "filelock", "tqdm")


class AnyClass(type):
    """Of a class that may be inherited from, and that has any attribute."""

    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return mock.MagicMock()


class StandIn(types.ModuleType):
    """A module with any name in it: classes where it is written as one."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        made = AnyClass(name, (), {}) if name[0].isupper() else mock.MagicMock()
        setattr(self, name, made)
        return made


class StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Any module of these packages, with any name in it."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in STANDINS:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        module = StandIn(spec.name)
        module.__path__ = []
        return module

    def exec_module(self, module):
        pass


def load():
    """The package's own code, as far as the model needs it."""
    sys.meta_path.insert(0, StandIns())
    import vllm.distributed.utils

    vllm.distributed.utils.get_pp_indices = lambda layers, rank, ranks: (0, layers)
    from tpu_inference.models.jax import llama3

    alone = SimpleNamespace(is_first_rank=True, is_last_rank=True, rank_in_group=0, world_size=1)
    llama3.get_pp_group = lambda: alone
    sys.modules["tpu_inference.layers.jax.pp_utils"].get_pp_group = lambda: alone
    return llama3


LLAMA = load()  # before the compiler starts: the package sets its flags


def page_size(max_model_len: int) -> int:
    """As its platform chooses it."""
    power = 1 << (max_model_len - 1).bit_length()
    return 16 if max_model_len > 8192 else min(256, max(16, power // 16))


def sampler(mesh, kind: str, rows: int):
    """(what makes tokens of logits, shapes of what else it reads)."""
    from tpu_inference.layers.jax.sample import sampling

    def array(dtype, *dims):
        return shape(mesh, P(), dtype, *dims)

    settings = sampling.TPUSupportedSamplingMetadata(do_sampling=kind == "sampling")
    if kind == "sampling":
        settings.temperature, settings.top_k, settings.top_p = (array(dtype, rows) for dtype in (jnp.float32, jnp.int32, jnp.float32))
    return lambda logits, seed, settings: sampling.sample.__wrapped__(seed, mesh, logits, settings)[0], (array(jnp.uint32, 2), settings)


def build(work: Work, mesh, kind: str):
    """(function, shapes of its arguments, numbers of those that are donated, options of the compiler)."""
    from flax import nnx
    from tpu_inference.kernels.ragged_paged_attention.v3 import kernel
    from tpu_inference.layers.common.attention_metadata import AttentionMetadata
    from tpu_inference.models.common.compiler_options import get_step_fn_compiler_options

    pretend_chip(work, mesh.size)
    config = SimpleNamespace(**work.config | {"num_hidden_layers": work.layers})
    model_config = SimpleNamespace(hf_config=config, dtype=jnp.bfloat16, get_vocab_size=lambda: config.vocab_size)
    vllm_config = SimpleNamespace(model_config=model_config, cache_config=SimpleNamespace(cache_dtype="auto"), speculative_config=None)
    with nnx.use_eager_sharding(False):
        abstract = nnx.eval_shape(lambda: LLAMA.LlamaForCausalLM(vllm_config, jax.random.key(0), mesh))
    graph, state = nnx.split(abstract)
    specs = nnx.get_partition_spec(state)
    weights = jax.tree.map(lambda one, spec: shape(mesh, spec, one.dtype, *one.shape), state, specs)

    page = page_size(work.max_model_len)
    per, n = work.max_model_len // page, work.sequences
    dims = kernel.get_kv_cache_shape(work.cached * per, page, config.num_key_value_heads, work.head_dim, jnp.bfloat16)
    caches = [shape(mesh, P("data", None, "model", None, None), jnp.bfloat16, *dims)] * work.layers

    def i32(*dims):
        return shape(mesh, P(), jnp.int32, *dims)

    metadata = AttentionMetadata(input_positions=i32(work.tokens), block_tables=i32(n * per), seq_lens=i32(n),
                                 query_start_loc=i32(n + 1), request_distribution=i32(3))

    sample, extra = sampler(mesh, kind, n)

    def step(state, caches, ids, metadata, rows, seed, settings):
        model = nnx.merge(graph, state)
        caches, hidden, *_ = model(caches, ids, metadata)
        logits = model.compute_logits(hidden[rows])
        logits = jax.lax.with_sharding_constraint(logits, jax.NamedSharding(mesh, P("data", "model")))
        return sample(logits, seed, settings), caches

    return step, (weights, caches, i32(work.tokens), metadata, i32(n), *extra), (1,), get_step_fn_compiler_options()
