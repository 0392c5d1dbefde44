"""What every model in dlbook/models keeps, on sizes small enough for a laptop."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from dlbook.layers.mixture_of_experts import MixtureOfExperts
from dlbook.models import alexnet, efficientnet, resnet, vgg, yolo
from dlbook.models.alexnet import AlexNet
from dlbook.models.bart import Bart, BartConfig
from dlbook.models.bert import Bert, BertClassifier, BertConfig, BertMaskedLM
from dlbook.models.bump import BumpNetwork
from dlbook.models.clip import CLIP, CLIPConfig, TowerConfig
from dlbook.models.convnext import ConvNeXt, ConvNeXtConfig
from dlbook.models.deeplab import DeepLabV3
from dlbook.models.efficientnet import EfficientNet
from dlbook.models.faster_rcnn import FasterRCNN, FasterRCNNConfig
from dlbook.models.gpt import GPT, GPTBlock, GPTConfig
from dlbook.models.gru import GRU
from dlbook.models.lenet import LeNet
from dlbook.models.llama import Llama, LlamaBlock, LlamaConfig
from dlbook.models.lstm import LSTM
from dlbook.models.mae import MAE, MAEConfig
from dlbook.models.mamba import Mamba, MambaBlock, MambaConfig
from dlbook.models.mlp import MLP
from dlbook.models.modernize import Modernized, path
from dlbook.models.resnet import ResNet, ResNetConfig
from dlbook.models.rnn import RNN
from dlbook.models.rwkv import RWKV, RWKVBlock, RWKVConfig
from dlbook.models.sawtooth import Sawtooth
from dlbook.models.swin import Swin, SwinConfig
from dlbook.models.t5 import T5, T5Config
from dlbook.models.transformer import Transformer, TransformerConfig
from dlbook.models.unet import UNet
from dlbook.models.vgg import VGG
from dlbook.models.vit import ViT, ViTConfig
from dlbook.models.yolo import YOLO

GREY = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
TEN = {"in_channels": 1, "num_classes": 10}


def inverted_bottleneck(c, expand, kernel, d):
    """Parameters of a block of EfficientNet from c to d channels: widen, look around, squeeze, excite, narrow."""
    e, s = c * expand, c // 4
    return (c * e + 2 * e if expand > 1 else 0) + kernel**2 * e + 2 * e + (e * s + s + s * e + e) + e * d + 2 * d


IMAGES = torch.rand(2, 3, 8, 12, generator=torch.Generator().manual_seed(0))
SQUARES = IMAGES[:, :, :, :8]
VIT = ViTConfig(image_size=8, patch_size=4, width=12, depth=2, num_heads=3, mlp_ratio=2)
# Of width w, perceptron r w wide: two norms, q, k, v and their output, perceptron.
VIT_BLOCK = 2 * 2 * 12 + 4 * (12 * 12 + 12) + (12 * 24 + 24 + 24 * 12 + 12)


class OneMask(torch.nn.Module):
    """A masked autoencoder whose masks are not drawn: its prediction alone, so that it can be compared."""

    def __init__(self) -> None:
        super().__init__()
        self.model = MAE(MAEConfig(VIT, decoder_width=8, decoder_depth=1, decoder_heads=2, mask_ratio=0.5))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.model(images, torch.arange(4, device=images.device).expand(images.shape[0], -1))[0]


class FixedBoxes(nn.Module):
    """All of a Faster R-CNN that has parameters, on boxes that are given, since its own depend on values."""

    def __init__(self) -> None:
        super().__init__()
        config = FasterRCNNConfig(
            ResNetConfig((1, 1), (8, 12)), frozen_norm=False, pyramid_channels=10, anchor_sizes=(16, 24, 36),
            bins=3, hidden=24, canonical=32.0,
        )  # fmt: skip
        self.model = FasterRCNN(config, num_classes=4)
        self.register_buffer("boxes", torch.tensor([[[2.0, 3, 40, 30], [10, 5, 18, 16]]]))

    def forward(self, x):
        maps = self.model.backbone(x)
        proposed = [part.flatten(1) for pair in self.model.rpn["head"](maps) for part in pair]
        decided = self.model.classify(maps, self.boxes.expand(x.shape[0], -1, -1), (x.shape[2], x.shape[3]))
        return torch.cat([*proposed, *(part.flatten(1) for part in decided)], dim=1)


class Outputs(nn.Module):
    """A recurrent network without its last state."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)[0]


SEQUENCES = torch.randn(4, 7, 5, generator=torch.Generator().manual_seed(0))


class OneHot(nn.Module):
    """A language model that takes its tokens as numbers of which the largest counts, so that they have a dtype."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x.argmax(dim=-1))


# of a width of 6, in a Mamba that doubles it: norm, to u and z, convolution, to step sizes, B and C, step sizes, A, D, out
MAMBA_BLOCK = 6 + 6 * 24 + (12 * 3 + 12) + 12 * (2 + 2 * 5) + (2 * 12 + 12) + 12 * 5 + 12 + 12 * 6

# of a width of 6: two norms; decay, bonus, three mixtures, four products; two mixtures, to 24 and back, receptance
RWKV_BLOCK = 2 * 2 * 6 + 5 * 6 + 4 * 36 + 2 * 6 + 2 * 6 * 24 + 36

# of a width of 6, 3 queries' heads to 1 of keys: q, k and v, out; gate, up and down between 6 and 5; two norms
LLAMA_BLOCK = 6 * (6 + 2 * 2) + 6 * 6 + 3 * 6 * 5 + 2 * 6

# of a width of 6: two norms; q, k, v and out; to 5 and back
GPT_BLOCK = 2 * 2 * 6 + 4 * (6 * 6 + 6) + (6 * 5 + 5 + 5 * 6 + 6)

# of a width of 6, all with biases: an attention; from 6 to 5 and back; normalisations of two numbers for each feature
ATTENTION, BETWEEN, NORM = 4 * (6 * 6 + 6), 6 * 5 + 5 + 5 * 6 + 6, 2 * 6
ENCODER_BLOCK = ATTENTION + BETWEEN + 2 * NORM
DECODER_BLOCK = 2 * ATTENTION + BETWEEN + 3 * NORM
BERT = BertConfig(8, 6, num_layers=2, num_heads=3, hidden=5, context=7, num_kinds=1)
BERT_COUNT = 8 * 6 + 7 * 6 + 6 + NORM + 2 * ENCODER_BLOCK


class Pooled(nn.Module):
    """A BERT, with its pooled output beside the features, so that all parameters take part."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Bert(BERT)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        features = self.model(tokens)
        return torch.cat([features, self.model.pooled(features).unsqueeze(1)], dim=1)


class ThreeTexts(nn.Module):
    """A CLIP that says how well each picture fits three texts."""

    def __init__(self) -> None:
        super().__init__()
        self.model = CLIP(CLIPConfig(TowerConfig(6, 2, 3), TowerConfig(4, 1, 2), 8, 4, 3, 9, 5, shared=7))
        self.register_buffer("texts", torch.tensor([[1, 3, 8, 8, 8], [5, 2, 0, 8, 8], [1, 2, 4, 3, 8]]))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.model(images, self.texts)


class TwoTexts(nn.Module):
    """A model of two texts that gets one after the other, cut behind the fourth token."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = x.argmax(dim=-1)
        return self.model(tokens[:, :4], tokens[:, 4:])


# name: (how to make it, an input, parameters counted by hand)
CASES = {
    "mlp": (
        lambda: MLP((7, 5, 3)),
        torch.randn(4, 7, generator=torch.Generator().manual_seed(0)),
        7 * 5 + 5 + 5 * 3 + 3,
    ),
    "bump": (lambda: BumpNetwork(9), torch.linspace(0, 1, 4).unsqueeze(1), 3 * 9 + 1),
    "yolo": (
        lambda: YOLO(yolo.SIZES["yolo_tiny"], num_classes=5),
        torch.randn(4, 3, 48, 32, generator=torch.Generator().manual_seed(0)),
        # stages, the residual block, context, merged, two heads; 2 for each channel that is normalised
        (3 * 4 + 4 * 6 + 6 * 8 + 2 * 8 * 8 + 8 * 10) * 9
        + 2 * (4 + 6 + 8 + 16 + 10)
        + 10 * 8
        + 16
        + 16 * 7 * 9
        + 14
        + 2 * (7 * 7 * 9 + 14)
        + (7 * 4 + 4)
        + (7 * 5 + 5),
    ),
    "faster_rcnn": (
        FixedBoxes,
        torch.randn(3, 3, 40, 64, generator=torch.Generator().manual_seed(0)),
        # stem and two stages, pyramid, proposals of 3 anchors, box head, K + 1 = 5 columns
        3 * 8 * 49
        + 16
        + 2 * (8 * 8 * 9 + 16)
        + (8 * 12 + 12 * 12) * 9
        + 48
        + 8 * 12
        + 24
        + (8 + 12) * 10
        + 20
        + 2 * (10 * 10 * 9 + 10)
        + 10 * 10 * 9
        + 10
        + 10 * 15
        + 15
        + 10 * 9 * 24
        + 24
        + 24 * 24
        + 24
        + 24 * 25
        + 25,
    ),
    "sawtooth": (lambda: Sawtooth(3), torch.linspace(0, 1, 4).unsqueeze(1), 6 * 3 + 1),
    "lenet": (LeNet, GREY, 25 * 6 + 6 + 25 * 6 * 16 + 16 + 400 * 120 + 120 + 120 * 84 + 84 + 84 * 10 + 10),
    "alexnet": (
        lambda: AlexNet(alexnet.SIZES["alexnet_small"], **TEN),
        GREY,
        (25 * 32 + 32)
        + (25 * 32 * 64 + 64)
        + (9 * 64 * 96 + 96)
        + (9 * 96 * 64 + 64)
        + (9 * 64 * 64 + 64)
        + (64 * 256 + 256)
        + (256 * 256 + 256)
        + (256 * 10 + 10),
    ),
    "alexnet two towers": (
        lambda: AlexNet(replace(alexnet.SIZES["alexnet_small"], two_towers=True), **TEN),
        GREY,
        (25 * 32 + 32)
        + (25 * 16 * 64 + 64)
        + (9 * 64 * 96 + 96)
        + (9 * 48 * 64 + 64)
        + (9 * 32 * 64 + 64)
        + (64 * 256 + 256)
        + (256 * 256 + 256)
        + (256 * 10 + 10),
    ),
    "vgg": (
        lambda: VGG(vgg.SIZES["vgg_small"], **TEN),
        GREY,
        (9 * 16 + 3 * 16)
        + (9 * 16 * 32 + 3 * 32)
        + (9 * 32 * 64 + 3 * 64)
        + (9 * 64 * 64 + 3 * 64)
        + (9 * 64 * 128 + 128)
        + (128 * 128 + 128)
        + (128 * 10 + 10),
    ),
    "resnet": (
        lambda: ResNet(resnet.SIZES["resnet_small"], **TEN),
        GREY,
        (9 * 32 + 2 * 32)
        + 2 * (9 * 32 * 32 + 2 * 32)
        + (9 * 32 * 64 + 9 * 64 * 64 + 32 * 64 + 3 * 2 * 64)
        + (9 * 64 * 96 + 9 * 96 * 96 + 64 * 96 + 3 * 2 * 96)
        + (96 * 10 + 10),
    ),
    "resnet padded": (
        lambda: ResNet(resnet.cifar_config(8, widths=(4, 6, 10)), **TEN),
        GREY,
        (9 * 4 + 2 * 4)
        + 2 * (9 * 4 * 4 + 2 * 4)
        + 9 * 4 * 6
        + 9 * 6 * 6
        + 2 * 2 * 6
        + 9 * 6 * 10
        + 9 * 10 * 10
        + 2 * 2 * 10
        + (10 * 10 + 10),
    ),
    "efficientnet": (
        lambda: EfficientNet(efficientnet.SIZES["efficientnet_small"], **TEN),
        GREY,
        (9 * 16 + 2 * 16)
        + inverted_bottleneck(16, 1, 3, 16)
        + inverted_bottleneck(16, 4, 3, 24)
        + inverted_bottleneck(24, 4, 3, 24)
        + inverted_bottleneck(24, 4, 5, 48)
        + inverted_bottleneck(48, 4, 5, 48)
        + (48 * 256 + 2 * 256)
        + (256 * 10 + 10),
    ),
    "vit": (
        lambda: ViT(VIT, num_classes=5),
        SQUARES,
        (48 * 12 + 12) + 12 + 5 * 12 + 2 * VIT_BLOCK + 2 * 12 + (12 * 5 + 5),
    ),
    "mae": (
        OneMask,
        SQUARES,
        (48 * 12 + 12)
        + 12
        + 2 * VIT_BLOCK
        + 2 * 12  # encoder
        + (12 * 8 + 8)
        + 8
        + (2 * 2 * 8 + 4 * (8 * 8 + 8) + (8 * 32 + 32 + 32 * 8 + 8))
        + 2 * 8
        + (8 * 48 + 48),
    ),
    "swin": (
        lambda: Swin(SwinConfig(8, (2, 1), (2, 4), window=3, patch_size=2), num_classes=5),
        IMAGES,
        (12 * 8 + 8)
        + 2 * 8
        + 2 * (2 * 2 * 8 + 4 * (8 * 8 + 8) + 25 * 2 + (8 * 32 + 32 + 32 * 8 + 8))
        + (2 * 32 + 32 * 16)  # merging
        + (2 * 2 * 16 + 4 * (16 * 16 + 16) + 25 * 4 + (16 * 64 + 64 + 64 * 16 + 16))
        + 2 * 16
        + (16 * 5 + 5),
    ),
    "convnext": (
        lambda: ConvNeXt(ConvNeXtConfig((1, 2), (6, 8), patch_size=2, layer_scale=0.1), num_classes=5),
        IMAGES,
        (12 * 6 + 6)
        + 2 * 6
        + (49 * 6 + 6 + 2 * 6 + 6 * 24 + 24 + 24 * 6 + 6 + 6)
        + 2 * 6
        + (4 * 6 * 8 + 8)  # downsampling
        + 2 * (49 * 8 + 8 + 2 * 8 + 8 * 32 + 32 + 32 * 8 + 8 + 8)
        + 2 * 8
        + (8 * 5 + 5),
    ),
    "modernize": (
        lambda: Modernized(path((1, 1), (1, 2))["resnet"], width=4, patch_size=2, num_classes=5),
        IMAGES,
        (27 * 4 + 2 * 4)
        + (4 * 4 + 2 * 4 + 9 * 4 * 4 + 2 * 4 + 4 * 16 + 2 * 16)
        + (4 * 16 + 2 * 16)  # with its shortcut
        + (16 * 8 + 2 * 8 + 9 * 8 * 8 + 2 * 8 + 8 * 32 + 2 * 32)
        + (16 * 32 + 2 * 32)
        + (32 * 5 + 5),
    ),
    "unet": (
        lambda: UNet(2, 3, widths=(4, 5), padded=True, norm=True),
        torch.randn(4, 2, 8, 6, generator=torch.Generator().manual_seed(0)),
        # weights of the pairs on both ways, two numbers a channel of each normalisation, the step up, the classifier
        9 * (2 * 4 + 4 * 4 + 4 * 5 + 5 * 5 + 8 * 4 + 4 * 4) + 2 * (4 * 4 + 2 * 5) + (5 * 4 * 4 + 4) + (4 * 3 + 3),
    ),
    "deeplab": (
        lambda: DeepLabV3(
            ResNetConfig((1, 1), (4, 5), stem="cifar"), in_channels=2, num_classes=3, rates=(2,), width=6
        ),
        torch.randn(4, 2, 8, 6, generator=torch.Generator().manual_seed(0)),
        # stem, two blocks, the shortcut between them; pyramid of 1 x 1, 3 x 3 and mean; project, 3 x 3, classifier
        (9 * 2 * 4 + 8)
        + (2 * 9 * 4 * 4 + 2 * 8)
        + (9 * 4 * 5 + 9 * 5 * 5 + 2 * 10)
        + (4 * 5 + 10)
        + (5 * 6 + 9 * 5 * 6 + 5 * 6 + 3 * 12)
        + (18 * 6 + 12)
        + (9 * 6 * 6 + 12)
        + (6 * 3 + 3),
    ),
    # for each gate: weights for the input, for the state, two biases
    "rnn": (lambda: Outputs(RNN(5, 3, 2, fused=False)), SEQUENCES, (5 * 3 + 3 * 3 + 2 * 3) + (2 * 3 * 3 + 2 * 3)),
    "lstm": (lambda: Outputs(LSTM(5, 3)), SEQUENCES, 4 * (5 * 3 + 3 * 3 + 2 * 3)),
    "gru": (
        lambda: Outputs(GRU(5, 3, 2, bidirectional=True)),
        SEQUENCES,
        2 * 3 * (5 * 3 + 3 * 3 + 2 * 3) + 2 * 3 * (6 * 3 + 3 * 3 + 2 * 3),
    ),
    "mamba": (
        lambda: OneHot(
            Mamba(MambaConfig(vocab_size=8, hidden_size=6, num_layers=2, state_size=5, conv_kernel=3, dt_rank=2))
        ),
        torch.randn(4, 7, 8, generator=torch.Generator().manual_seed(0)),
        8 * 6 + 2 * MAMBA_BLOCK + 6,
    ),
    "mamba block": (
        lambda: MambaBlock(6, state_size=5, conv_kernel=3, dt_rank=2),
        torch.randn(4, 7, 6, generator=torch.Generator().manual_seed(0)),
        MAMBA_BLOCK,
    ),
    "rwkv": (
        lambda: OneHot(RWKV(RWKVConfig(vocab_size=8, hidden_size=6, num_layers=2))),
        torch.randn(4, 7, 8, generator=torch.Generator().manual_seed(0)),
        8 * 6 + 12 + 2 * RWKV_BLOCK + 12 + 6 * 8,
    ),
    "rwkv block": (
        lambda: RWKVBlock(6, layer=1, num_layers=3),
        torch.randn(4, 7, 6, generator=torch.Generator().manual_seed(0)),
        RWKV_BLOCK,
    ),
    "llama": (
        lambda: OneHot(Llama(LlamaConfig(8, 6, num_layers=2, num_heads=3, num_kv_heads=1, hidden=5, context=9))),
        torch.randn(4, 7, 8, generator=torch.Generator().manual_seed(0)),
        8 * 6 + 2 * LLAMA_BLOCK + 6 + 6 * 8,
    ),
    "llama block": (
        lambda: LlamaBlock(6, 3, num_kv_heads=1, hidden=5),
        torch.randn(4, 7, 6, generator=torch.Generator().manual_seed(0)),
        LLAMA_BLOCK,
    ),
    "gpt": (
        lambda: OneHot(GPT(GPTConfig(8, 6, num_layers=2, num_heads=3, hidden=5, context=7))),
        torch.randn(4, 7, 8, generator=torch.Generator().manual_seed(0)),
        8 * 6 + 7 * 6 + 2 * GPT_BLOCK + 2 * 6,
    ),
    "gpt block": (
        lambda: GPTBlock(6, 3, hidden=5),
        torch.randn(4, 7, 6, generator=torch.Generator().manual_seed(0)),
        GPT_BLOCK,
    ),
    "transformer": (
        lambda: TwoTexts(Transformer(TransformerConfig(8, 6, num_layers=2, num_heads=3, hidden=5, context=9))),
        torch.randn(4, 7, 8, generator=torch.Generator().manual_seed(0)),
        8 * 6 + 2 * (ENCODER_BLOCK + DECODER_BLOCK),
    ),
    "bert": (
        lambda: OneHot(Pooled()),
        torch.randn(4, 7, 8, generator=torch.Generator().manual_seed(0)),
        BERT_COUNT + 6 * 6 + 6,
    ),
    "bert masked": (
        lambda: OneHot(BertMaskedLM(BERT)),
        torch.randn(4, 7, 8, generator=torch.Generator().manual_seed(0)),
        BERT_COUNT + 6 * 6 + 6 + NORM + 8,
    ),
    "bert classifier": (
        lambda: OneHot(BertClassifier(BERT, num_classes=3)),
        torch.randn(4, 7, 8, generator=torch.Generator().manual_seed(0)),
        BERT_COUNT + 6 * 6 + 6 + 6 * 3 + 3,
    ),
    "bart": (
        lambda: TwoTexts(Bart(BartConfig(8, 6, num_layers=2, num_heads=3, hidden=5, context=9))),
        torch.randn(4, 7, 8, generator=torch.Generator().manual_seed(0)),
        8 * 6 + 2 * (11 * 6 + NORM) + 2 * (ENCODER_BLOCK + DECODER_BLOCK),
    ),
    "t5": (
        lambda: TwoTexts(T5(T5Config(8, 6, num_layers=2, num_heads=3, head_size=4, hidden=5, num_buckets=4))),
        torch.randn(4, 7, 8, generator=torch.Generator().manual_seed(0)),
        # embedding, biases, last norms; attention in each encoder block, two in each decoder block; to 5 and back; norms
        8 * 6 + 2 * 4 * 3 + 2 * 6 + 2 * (3 * 4 * 6 * 12 + 2 * 2 * 6 * 5 + 5 * 6),
    ),
    "clip": (
        ThreeTexts,
        torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)),
        # patches, start, positions, two norms, two blocks, out; embedding, positions, norm, a block, out; factor
        (48 * 6 + 6 + 5 * 6 + 2 * NORM + 2 * (ATTENTION + 6 * 24 + 24 + 24 * 6 + 6 + 2 * NORM) + 6 * 7)
        + (9 * 4 + 5 * 4 + 8 + (4 * (4 * 4 + 4) + 4 * 16 + 16 + 16 * 4 + 4 + 2 * 8) + 4 * 7)
        + 1,
    ),
    "mixture of experts": (
        lambda: Outputs(MixtureOfExperts(6, 4, hidden=5)),
        torch.randn(4, 7, 6, generator=torch.Generator().manual_seed(0)),
        6 * 4 + 4 * 3 * 6 * 5,
    ),
}


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def case(request):
    torch.manual_seed(0)
    return request.param


def test_parameter_count(case):
    make, _, count = case
    assert sum(p.numel() for p in make().parameters()) == count


def test_every_parameter_gets_a_finite_gradient(case):
    make, x, _ = case
    model = make()
    model(x).square().sum().backward()
    for name, p in model.named_parameters():
        assert p.grad is not None, name
        assert p.grad.isfinite().all(), name


def test_rows_do_not_mix(case):
    make, x, _ = case
    model = make().eval()
    torch.testing.assert_close(model(x)[:1], model(x[:1]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtype_is_kept(case, dtype):
    make, x, _ = case
    assert make().to(dtype)(x.to(dtype)).dtype == dtype


def test_runs_on_another_device(case):
    make, x, _ = case
    assert make().to("meta")(x.to("meta")).device.type == "meta"


def test_state_dict_round_trip(case):
    make, x, _ = case
    one, two = make().eval(), make().eval()
    two.load_state_dict(one.state_dict())
    assert torch.equal(one(x), two(x))


def test_can_be_exported(case):
    make, x, _ = case
    model = make().eval()
    exported = torch.export.export(model, (x,)).module()
    torch.testing.assert_close(exported(x), model(x))


def test_can_be_exported_and_compiled_for_batches_of_any_size(case):
    make, x, _ = case
    model = make().eval()
    more = torch.cat([x, x, x])
    exported = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()
    compiled = torch.compile(model, backend="eager", fullgraph=True, dynamic=True)
    for runs in (exported, compiled):
        for batch in (x, more):
            torch.testing.assert_close(runs(batch), model(batch))
