"""OpenVINO GenAI reads a GGUF file and saves what it made of it beside that file.

    convert_openvino.py FOLDER/model.gguf
"""

import sys

import openvino_genai as genai

genai.LLMPipeline(sys.argv[1], "CPU", enable_save_ov_model=True)
