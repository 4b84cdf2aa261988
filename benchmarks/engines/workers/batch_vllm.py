"""vLLM's CPU build, its engine in this process, all prompts at once."""

from common import MODEL, TASK, answer_all

import vllm
from vllm import LLM, SamplingParams

if __name__ == "__main__":
    model = LLM(model=MODEL, dtype="bfloat16", max_model_len=TASK["context"], max_num_seqs=len(TASK["prompts"]),
                enable_prefix_caching=False, disable_log_stats=True)

    def generate(prompts, count):
        sampling = SamplingParams(temperature=0, max_tokens=count, min_tokens=count, ignore_eos=True)
        outputs = model.generate([{"prompt_token_ids": ids} for ids in prompts], sampling, use_tqdm=False)
        return sum(len(output.outputs[0].token_ids) for output in outputs)

    answer_all(generate, f"vLLM {vllm.__version__}")
