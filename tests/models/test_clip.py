import math

import pytest
import torch

from dlbook.models.clip import CLIP, SIZES, CLIPConfig, TowerConfig, contrastive_loss

CONFIG = CLIPConfig(TowerConfig(20, 3, 5), TowerConfig(12, 2, 3), 12, 4, 2, 23, 9, 10)
IMAGES = torch.randn(4, 2, 12, 12, generator=torch.Generator().manual_seed(0))
TOKENS = torch.tensor([[5, 3, 8, 2, 9, 11, 22], [1, 4, 22, 22, 22, 22, 22], [7, 7, 1, 3, 22, 0, 0]])


@pytest.fixture
def model():
    torch.manual_seed(0)
    return CLIP(CONFIG)


@pytest.mark.parametrize(
    ("name", "count"),
    {"clip_vit_b_32": 151_277_313, "clip_vit_b_16": 149_620_737, "clip_vit_l_14": 427_616_513}.items(),
)
def test_published_sizes(name, count):
    with torch.device("meta"):
        model = CLIP(SIZES[name])
    assert sum(p.numel() for p in model.parameters()) == count


def test_points_have_length_1_and_the_logit_is_their_product(model):
    images, texts = model.embed_images(IMAGES), model.embed_texts(TOKENS)
    for points in (images, texts):
        torch.testing.assert_close(points.norm(dim=-1), torch.ones(len(points)))
    torch.testing.assert_close(model(IMAGES, TOKENS), images @ texts.t() / 0.07)


def test_what_comes_behind_the_last_token_changes_nothing(model):
    changed = TOKENS.clone()
    changed[2, 5:] = torch.tensor([4, 9])
    torch.testing.assert_close(model.embed_texts(changed), model.embed_texts(TOKENS))
    torch.testing.assert_close(model.embed_texts(TOKENS[1:2, :3]), model.embed_texts(TOKENS)[1:2])
    changed[2, 1] = 9
    assert not torch.allclose(model.embed_texts(changed)[2], model.embed_texts(TOKENS)[2])


def test_a_text_that_is_all_padding_gives_no_nan(model):
    valid = torch.ones_like(TOKENS, dtype=torch.bool)
    valid[1] = False
    logits = model(IMAGES, TOKENS, valid)
    assert logits.isfinite().all()
    logits.square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_the_loss_by_its_equation():
    logits = torch.randn(3, 3, dtype=torch.float64)
    p, q = logits.softmax(1), logits.softmax(0)
    wanted = -sum(p[i, i].log() + q[i, i].log() for i in range(3)) / 6
    torch.testing.assert_close(contrastive_loss(logits), wanted)
    assert contrastive_loss(100 * torch.eye(3)) < 1e-6


def test_pairs_are_learned_by_heart(model):
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        loss = contrastive_loss(model(IMAGES[:3], TOKENS))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.05  # guessing gives log 3 = 1.1
    assert model(IMAGES[:3], TOKENS).argmax(1).tolist() == [0, 1, 2]


def test_weights_start_as_published():
    torch.manual_seed(0)
    model = CLIP(CLIPConfig(TowerConfig(100, 2, 5), TowerConfig(64, 2, 4), 28, 4, 3, 500, 50, 32))
    block = model.image_blocks[1]
    for weight, std in (
        (block.attention.qkv.weight, 0.1),
        (block.feedforward.expand.weight, 200**-0.5),
        (block.attention.out.weight, 0.05),
        (block.feedforward.reduce.weight, 0.05),
        (model.embedding.weight, 0.02),
        (model.text_position.weight, 0.01),
        (model.image_position.weight, 0.1),
        (model.text_out.weight, 0.125),
    ):
        assert abs(weight.std() / std - 1) < 0.05
    assert model.log_factor.item() == pytest.approx(math.log(1 / 0.07))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: TowerConfig(10, 1, 3), "num_heads divide width"),
        (lambda model: CLIPConfig(patch_size=30), "patch_size=30 does not divide image_size=224"),
        (lambda model: CLIPConfig(shared=0), "shared must be at least 1, got 0"),
        (lambda model: model(IMAGES[:, :1], TOKENS), r"images must be \(batch, 2, 12, 12\), got \(4, 1, 12, 12\)"),
        (lambda model: model(IMAGES, TOKENS[0]), r"tokens must be \(batch, length\).*\(7,\)"),
        (lambda model: model(IMAGES, TOKENS.repeat(1, 2)), "14 tokens are more than the context of 9"),
        (lambda model: contrastive_loss(model(IMAGES, TOKENS)), r"logits must be \(batch, batch\), got \(4, 3\)"),
    ],
)
def test_what_does_not_fit_is_named(model, call, message):
    with pytest.raises(ValueError, match=message):
        call(model)
