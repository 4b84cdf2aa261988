"""OpenVINO GenAI, on a folder that convert_openvino.py has made."""

import os

from common import MODEL, answer

import numpy as np
import openvino as ov
import openvino_genai as genai

scheduler = genai.SchedulerConfig()
scheduler.enable_prefix_caching = False
pipeline = genai.LLMPipeline(MODEL, "CPU", scheduler_config=scheduler, CACHE_DIR=os.path.join(MODEL, "cache"))


def generate(ids, count, on_token):
    config = genai.GenerationConfig()
    config.max_new_tokens = config.min_new_tokens = count
    config.ignore_eos = True
    config.do_sample = False
    config.apply_chat_template = False

    class Streamer(genai.StreamerBase):
        def write(self, token):
            for _ in token if isinstance(token, list) else [token]:
                on_token()
            return genai.StreamingStatus.RUNNING

        def end(self):
            pass

    inputs = genai.TokenizedInputs(ov.Tensor(np.array([ids], dtype=np.int64)),
                                   ov.Tensor(np.ones((1, len(ids)), dtype=np.int64)))
    pipeline.generate(inputs, config, Streamer())


answer(generate, f"OpenVINO GenAI {genai.get_version().split('-')[0]}")
