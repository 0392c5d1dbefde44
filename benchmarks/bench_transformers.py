"""Chapter 6's transformers: training steps and writing, against transformers' and a plain loop with the same weights."""

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.bench_sequence import step
from benchmarks.harness import Row, compare
from dlbook.generate import generate
from dlbook.models import bert, gpt, llama

VOCABULARY, WIDTH, LAYERS, HEADS = 128, 128, 4, 4
# The largest ratios wanted, by what is compared with. What takes most of the time is the same everywhere, matrix products
# and fused attention; GPT-2 there also evaluates its GELU in several steps.
GPT_TRANSFORMERS, GPT_PLAIN, LLAMA_TRANSFORMERS, BERT_TRANSFORMERS = 1 / 1.1, 1.05, 1.05, 1.05
WRITING = 1 / 1.5


class PlainGPT(nn.Module):
    """A GPT as short as one writes it for one purpose: no padding, no cache, no checks; names as ours."""

    def __init__(self, context: int) -> None:
        super().__init__()
        self.embedding, self.position = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(context, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "norm1": nn.LayerNorm(WIDTH),
                    "attention": nn.ModuleDict({"qkv": nn.Linear(WIDTH, 3 * WIDTH), "out": nn.Linear(WIDTH, WIDTH)}),
                    "norm2": nn.LayerNorm(WIDTH),
                    "feedforward": nn.ModuleDict(
                        {"expand": nn.Linear(WIDTH, 4 * WIDTH), "reduce": nn.Linear(4 * WIDTH, WIDTH)}
                    ),
                }
            )
            for _ in range(LAYERS)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        B, T = tokens.shape
        x = self.embedding(tokens) + self.position(torch.arange(T, device=tokens.device))
        for block in self.blocks:
            qkv = block["attention"]["qkv"](block["norm1"](x)).split(WIDTH, dim=2)
            q, k, v = (part.view(B, T, HEADS, WIDTH // HEADS).transpose(1, 2) for part in qkv)
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).contiguous().view(B, T, WIDTH)
            x = x + block["attention"]["out"](y)
            hidden = F.gelu(block["feedforward"]["expand"](block["norm2"](x)), approximate="tanh")
            x = x + block["feedforward"]["reduce"](hidden)
        return F.linear(self.norm(x), self.embedding.weight)


def run(rounds: int, length: int = 64, batch: int = 12) -> list[Row]:
    """Training steps of GPT-2, LLaMA and BERT, and tokens that GPT-2 and LLaMA write one by one."""
    from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"vocab_size": VOCABULARY, "bos_token_id": None, "eos_token_id": None}
    dropped = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    their_gpt = GPT2LMHeadModel(
        GPT2Config(n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS, n_positions=length, **sizes, **dropped)
    )
    our_gpt = gpt.GPT(gpt.GPTConfig(VOCABULARY, WIDTH, LAYERS, HEADS, length))
    our_gpt.load_state_dict(gpt.convert_transformers(their_gpt.state_dict()))
    plain = PlainGPT(length)
    plain.load_state_dict(our_gpt.state_dict())
    common = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS}
    their_llama = LlamaForCausalLM(
        LlamaConfig(
            **common, num_key_value_heads=2, intermediate_size=344, max_position_embeddings=length, rms_norm_eps=1e-5,
            **sizes,
        )
    )  # fmt: skip
    our_llama = llama.Llama(llama.LlamaConfig(VOCABULARY, WIDTH, LAYERS, HEADS, 2, 344, length))
    our_llama.load_state_dict(llama.convert_transformers(their_llama.state_dict()))
    their_bert = BertForMaskedLM(
        BertConfig(
            **common, vocab_size=VOCABULARY, intermediate_size=512, max_position_embeddings=length,
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        )
    )  # fmt: skip
    our_bert = bert.BertMaskedLM(bert.BertConfig(VOCABULARY, WIDTH, LAYERS, HEADS, 512, length))
    our_bert.load_state_dict(bert.convert_transformers(their_bert.state_dict()))

    rows = []
    for name, ours, peer, target in (
        ("GPT-2 / transformers", our_gpt, their_gpt, GPT_TRANSFORMERS),
        ("GPT-2 / plain loop", our_gpt, plain, GPT_PLAIN),
        ("LLaMA / transformers", our_llama, their_llama, LLAMA_TRANSFORMERS),
        ("BERT / transformers", our_bert, their_bert, BERT_TRANSFORMERS),
    ):
        rows.append(training_step(name, ours, peer, target, rounds, length, batch))
    for name, ours, peer in (("GPT-2", our_gpt, their_gpt), ("LLaMA", our_llama, their_llama)):
        rows.append(writing(f"{name} / transformers", ours, peer, rounds, length))
    return rows


def training_step(
    name: str, ours: nn.Module, peer: nn.Module, target: float, rounds: int, length: int, batch: int
) -> Row:
    """Forward, backward and optimiser of both, after a look whether they agree."""
    x, y = torch.randint(VOCABULARY, (2, batch, length))

    def logits(model: nn.Module) -> Tensor:
        if "transformers." not in type(model).__module__:
            return model(x)
        return model(x, **({} if "Bert" in type(model).__name__ else {"use_cache": False})).logits

    ours, peer = deepcopy(ours).train(), deepcopy(peer).train()  # others compare the same weights
    with torch.no_grad():
        torch.testing.assert_close(logits(ours), logits(peer), rtol=1e-4, atol=1e-4)
    functions = (
        step(model, lambda model=model: F.cross_entropy(logits(model).flatten(0, 1), y.flatten()))
        for model in (ours, peer)
    )
    label = f"{name} ({WIDTH} wide, {LAYERS} layers, {length} tokens, batch {batch}), training step"
    return compare(label, *functions, target=target, rounds=rounds)


def writing(name: str, ours: nn.Module, peer: nn.Module, rounds: int, length: int) -> Row:
    """Greedy text with a cache, one token at a time, after a look whether they write the same."""
    prompt = torch.randint(VOCABULARY, (1, length // 8))
    new = length - prompt.shape[1]
    peer.eval()

    def mine() -> Tensor:
        return generate(ours, prompt, new)

    def theirs() -> Tensor:
        mask = torch.ones_like(prompt)
        return peer.generate(prompt, attention_mask=mask, max_new_tokens=new, do_sample=False, use_cache=True)

    assert torch.equal(mine(), theirs())
    row = compare(
        f"{name} ({WIDTH} wide, {LAYERS} layers), {new} tokens one by one", mine, theirs, target=WRITING, rounds=rounds
    )
    print(f"{name}: {new / (row.ours or 1):.0f} and {new / (row.peer or 1):.0f} tokens a second")
    return row
