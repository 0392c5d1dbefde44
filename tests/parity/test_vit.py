"""ViT against transformers' on random weights, and the names of torchvision's."""

import pytest
import torch
from transformers import ViTConfig as TheirConfig
from transformers import ViTForImageClassification

from dlbook.models.vit import SIZES, ViT, ViTConfig, convert_torchvision, convert_transformers

OURS = ViTConfig(image_size=20, patch_size=5, width=24, depth=3, num_heads=4, mlp_ratio=2)


def theirs() -> ViTForImageClassification:
    torch.manual_seed(0)
    model = ViTForImageClassification(
        TheirConfig(
            image_size=20, patch_size=5, hidden_size=24, num_hidden_layers=3, num_attention_heads=4,
            intermediate_size=48, num_channels=2, num_labels=7, layer_norm_eps=1e-6,
        )
    )  # fmt: skip
    for parameter in model.parameters():  # biases and tokens too, which start at 0
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_outputs_and_gradients_equal_transformers(dtype, rtol):
    reference = theirs().to(dtype)
    model = ViT(OURS, num_classes=7, in_channels=2).to(dtype)
    model.load_state_dict(convert_transformers(reference.state_dict()))
    x = torch.rand(3, 2, 20, 20, dtype=dtype)
    mine, wanted = model(x), reference(x).logits
    torch.testing.assert_close(mine, wanted, rtol=rtol, atol=rtol * wanted.abs().max().item())
    mine.square().sum().backward()
    wanted.square().sum().backward()
    grads = convert_transformers({name: p.grad for name, p in reference.named_parameters()})
    for name, parameter in model.named_parameters():
        scale = grads[name].abs().max().item()
        torch.testing.assert_close(parameter.grad, grads[name], rtol=10 * rtol, atol=10 * rtol * scale, msg=name)


def test_older_files_of_transformers_have_other_names():
    state = theirs().state_dict()
    renames = {
        "vit.layers.": "vit.encoder.layer.",
        "attention.q_proj": "attention.attention.query",
        "attention.k_proj": "attention.attention.key",
        "attention.v_proj": "attention.attention.value",
        "attention.o_proj": "attention.output.dense",
        "mlp.fc1": "intermediate.dense",
        "mlp.fc2": "output.dense",
    }
    older = {}
    for name, tensor in state.items():
        for new, old in renames.items():
            name = name.replace(new, old)
        older[name] = tensor
    assert len(older) == len(state)
    one, two = convert_transformers(state), convert_transformers(older)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_torchvisions_names_and_shapes_fit():
    """The layout of torchvision's vit_b_16; with random weights, torchvision 0.29.2 itself and ours agree to 4e-16 in float64."""
    shapes = {
        "class_token": (1, 1, 768), "conv_proj.weight": (768, 3, 16, 16), "conv_proj.bias": (768,),
        "encoder.pos_embedding": (1, 197, 768), "encoder.ln.weight": (768,), "encoder.ln.bias": (768,),
        "heads.head.weight": (1000, 768), "heads.head.bias": (1000,),
    }  # fmt: skip
    for layer in range(12):
        start = f"encoder.layers.encoder_layer_{layer}."
        for name in ("ln_1", "ln_2"):
            shapes |= {f"{start}{name}.weight": (768,), f"{start}{name}.bias": (768,)}
        shapes |= {
            f"{start}self_attention.in_proj_weight": (2304, 768), f"{start}self_attention.in_proj_bias": (2304,),
            f"{start}self_attention.out_proj.weight": (768, 768), f"{start}self_attention.out_proj.bias": (768,),
            f"{start}mlp.0.weight": (3072, 768), f"{start}mlp.0.bias": (3072,),
            f"{start}mlp.3.weight": (768, 3072), f"{start}mlp.3.bias": (768,),
        }  # fmt: skip
    with torch.device("meta"):
        model = ViT(SIZES["vit_b_16"])
        converted = convert_torchvision({name: torch.empty(shape) for name, shape in shapes.items()})
    assert {n: t.shape for n, t in converted.items()} == {n: t.shape for n, t in model.state_dict().items()}


def test_torchvisions_weights_give_the_outputs_of_torchs_layers():
    """torchvision builds its blocks of torch's MultiheadAttention; its layout of q, k and v is that layer's."""
    torch.manual_seed(0)
    model = ViT(OURS, num_classes=7, in_channels=2).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    block = model.blocks[1]
    layer = torch.nn.TransformerEncoderLayer(
        24, 4, 48, 0.0, "gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True, dtype=torch.float64
    )
    names = {
        "self_attn.in_proj_": "self_attention.in_proj_", "self_attn.out_proj.": "self_attention.out_proj.",
        "linear1.": "mlp.0.", "linear2.": "mlp.3.", "norm1.": "ln_1.", "norm2.": "ln_2.",
    }  # fmt: skip
    state = {}
    for name, tensor in layer.state_dict().items():
        prefix = next(key for key in names if name.startswith(key))
        state["encoder.layers.encoder_layer_1." + names[prefix] + name.removeprefix(prefix)] = tensor
    block.load_state_dict({n.removeprefix("blocks.1."): t for n, t in convert_torchvision(state).items()})
    x = torch.randn(3, 5, 24, dtype=torch.float64)
    torch.testing.assert_close(block(x), layer(x), rtol=1e-10, atol=1e-10)
