"""Which arithmetic this machine is fast in."""

import torch


def bf16_is_fast_on_cpu() -> bool:
    """Whether this processor multiplies bfloat16 itself (AMX, AVX-512 BF16)."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("amx_bf16", "avx512_bf16"))
