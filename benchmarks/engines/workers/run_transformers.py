"""transformers on torch, as `model.generate` runs it."""

from common import MODEL, THREADS, answer

import torch
import transformers
from transformers import AutoModelForCausalLM
from transformers.generation.streamers import BaseStreamer

torch.set_num_threads(THREADS)
model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.bfloat16).eval()


@torch.inference_mode()
def generate(ids, count, on_token):
    class Streamer(BaseStreamer):
        prompt_seen = False  # generate() puts the prompt first

        def put(self, value):
            if self.prompt_seen:
                on_token()
            self.prompt_seen = True

        def end(self):
            pass

    inputs = torch.tensor([ids])
    model.generate(inputs, attention_mask=torch.ones_like(inputs), do_sample=False, min_new_tokens=count,
                   max_new_tokens=count, streamer=Streamer())


answer(generate, f"transformers {transformers.__version__}, torch {torch.__version__}")
