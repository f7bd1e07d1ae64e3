"""Fast implementations of equation (2) and its gradient; the definition is `ugmm_ppl.neuron.activation`.

Four of them, with one signature and one result:

- "native": the fused C++ kernel of `cpu.cpp`, on the CPU, float32 and float64. Extra memory O(B K + J K + B J).
- "triton": fused kernels on an NVIDIA GPU, by Triton for torch and by Pallas for JAX; float32, bfloat16 and float16.
- "chunked": the formula of `neuron.py` on a few rows at a time, recomputed in the backward pass. Any device and dtype.
- "reference": the formula of `neuron.py` on everything at once, with temporaries of B x J x K.

The environment variable `UGMM_PPL_KERNEL` chooses: "auto" (default: "native" on the CPU and "triton" on a GPU where
they can run, "chunked" elsewhere), "native" (an error where it cannot run), "triton" (an error where it cannot run on a
GPU; on the CPU as "auto"), "chunked" or "reference". `info` tells what is in use.
"""

from ugmm_ppl.kernels.library import Info, info

__all__ = ["Info", "info"]
