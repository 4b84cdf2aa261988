"""OpenVINO GenAI with continuous batching, all prompts at once."""

import os

from common import MODEL, TASK, answer_all

import numpy as np
import openvino as ov
import openvino_genai as genai

scheduler = genai.SchedulerConfig()
scheduler.enable_prefix_caching = False
scheduler.max_num_seqs = len(TASK["prompts"])
scheduler.cache_size = 2  # GB
pipeline = genai.ContinuousBatchingPipeline(MODEL, scheduler, "CPU", {"CACHE_DIR": os.path.join(MODEL, "cache")})


def generate(prompts, count):
    config = genai.GenerationConfig()
    config.max_new_tokens = config.min_new_tokens = count
    config.ignore_eos = True
    config.do_sample = False
    config.apply_chat_template = False
    handles = [pipeline.add_request(number, ov.Tensor(np.array([ids], dtype=np.int64)), config) for number, ids in enumerate(prompts)]
    while pipeline.has_non_finished_requests():
        pipeline.step()
    return sum(len(handle.read_all()[0].generated_ids) for handle in handles)


answer_all(generate, f"OpenVINO GenAI {genai.get_version().split('-')[0]}")
