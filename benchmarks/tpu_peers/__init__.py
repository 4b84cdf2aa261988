"""Programs of others for tpu_programs.py. Each file here but `table.py` runs in a Python environment with jax."""
