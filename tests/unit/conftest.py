"""One thread: the tensors here are small, and on a busy machine threads that wait for each other cost far more."""

import torch

torch.set_num_threads(1)
