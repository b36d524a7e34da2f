#!/usr/bin/env bash
# peft: LoRA on "all-linear" of a CLIP as open_clip builds it trains nothing in the attention.
# Guess, before running: the LoRA weights of the attention's output projection get gradients.
# Seen (peft 0.21.2, torch 2.14.1): they are made and counted, but torch's attention reads the projection's weight itself and
# never calls it as a layer: no gradient, and random LoRA weights leave the output as it was, to the bit. Naming the attention
# itself ("attn") as the target works.
# For us: after attaching LoRA, look for weights without a gradient before training for hours.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 peft==0.21.2 "numpy<3"
"$folder/venv/bin/python" - <<'PY'
import torch
from peft import LoraConfig, get_peft_model


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.attn = torch.nn.MultiheadAttention(16, 2, batch_first=True)
        self.mlp = torch.nn.Linear(16, 16)

    def forward(self, x):
        return self.mlp(self.attn(x, x, x, need_weights=False)[0])


def attention_learns(targets):
    torch.manual_seed(0)
    model = get_peft_model(Block(), LoraConfig(r=4, target_modules=targets))
    x = torch.randn(2, 3, 16)
    before = model(x)
    before.sum().backward()
    weights = [weight for name, weight in model.named_parameters() if "lora_B" in name and "attn" in name]
    gradients = [weight.grad is not None for weight in weights]
    for weight in weights:
        torch.nn.init.normal_(weight)
    return gradients, bool((model(x) != before).any())


all_linear, named = attention_learns("all-linear"), attention_learns(["attn"])
print("all-linear (gradient, output changes):", all_linear, "attn:", named)
assert all_linear == ([False], False) and all(named[0]) and named[1]
PY
