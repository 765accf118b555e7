import os
import sys

import torch

# Tests run side by side on few cores and their tensors are tiny: more threads would only wait for one another. So each
# worker keeps to a core, and with it every process that it starts.
torch.set_num_threads(1)
# All but test_gpu.py compute on the CPU: they fork, start more processes than there are GPUs, and compare bit by bit.
if "PYTEST_XDIST_WORKER" not in os.environ and not any("test_gpu" in argument for argument in sys.argv):
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
if (worker := os.environ.get("PYTEST_XDIST_WORKER", "")).startswith("gw"):
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(worker[2:]) % len(cores)]})
