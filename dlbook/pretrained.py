"""Published weights in the architectures of `dlbook.models`: what others trained on millions of pictures.

The files are torchvision's. Each carries the first eight digits of its SHA-256 in its name, and is refused if it differs;
it is read as tensors only, so that nothing in it can run.

Chapter: chapters/03-convolutional-networks.ipynb
"""

import pickle
import urllib.error
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dlbook.data.files import DownloadError, cache_folder
from dlbook.models import alexnet, convnext, deeplab, efficientnet, faster_rcnn, resnet, swin, vgg, vit

FOLDER = "https://download.pytorch.org/models/"
State = dict[str, Tensor]


def _as_it_is(state: State) -> State:
    return state


def _without_auxiliary(state: State) -> State:
    return {name: tensor for name, tensor in state.items() if not name.startswith("aux_classifier.")}


@dataclass(frozen=True)
class Weights:
    """One file of weights.

    Attributes:
        file: Its name in ``FOLDER``.
        make: Makes the network that they fit.
        score: What they reach, as torchvision states it.
        convert: From the file's names to ours.
    """

    file: str
    make: Callable[[], nn.Module]
    score: str
    convert: Callable[[State], State] = _as_it_is


def _classifiers(
    make: Callable[[Any], nn.Module],
    sizes: Mapping[str, Any],
    files: dict[str, tuple[str, float]],
    convert: Callable[[State], State] = _as_it_is,
) -> dict[str, Weights]:
    """Entries of one family: for each size the file and the top-1 accuracy on ImageNet's validation pictures, in %."""
    return {
        name: Weights(f"{file}.pth", partial(make, sizes[name]), f"{score} % of ImageNet", convert)
        for name, (file, score) in files.items()
    }


#: Every file, by the name of its size in `dlbook.models`.
WEIGHTS: dict[str, Weights] = {
    **_classifiers(alexnet.AlexNet, alexnet.SIZES, {"alexnet": ("alexnet-owt-7be5be79", 56.522)}),
    **_classifiers(
        vgg.VGG,
        vgg.SIZES,
        {
            "vgg11": ("vgg11-8a719046", 69.020),
            "vgg13": ("vgg13-19584684", 69.928),
            "vgg16": ("vgg16-397923af", 71.592),
            "vgg19": ("vgg19-dcbb9e9d", 72.376),
            "vgg16_bn": ("vgg16_bn-6c64b313", 73.360),
        },
    ),
    **_classifiers(
        resnet.ResNet,
        resnet.SIZES,
        {
            "resnet18": ("resnet18-f37072fd", 69.758),
            "resnet34": ("resnet34-b627a593", 73.314),
            "resnet50": ("resnet50-11ad3fa6", 80.858),
            "resnet101": ("resnet101-cd907fc2", 81.886),
            "resnet152": ("resnet152-f82ba261", 82.284),
        },
    ),
    **_classifiers(
        efficientnet.EfficientNet,
        efficientnet.SIZES,
        {
            "efficientnet_b0": ("efficientnet_b0_rwightman-7f5810bc", 77.692),
            "efficientnet_b1": ("efficientnet_b1-c27df63c", 79.838),
            "efficientnet_b2": ("efficientnet_b2_rwightman-c35c1473", 80.608),
            "efficientnet_b3": ("efficientnet_b3_rwightman-b3899882", 82.008),
            "efficientnet_b4": ("efficientnet_b4_rwightman-23ab8bcd", 83.384),
            "efficientnet_b7": ("efficientnet_b7_lukemelas-c5b4e57e", 84.122),
        },
    ),
    **_classifiers(
        vit.ViT,
        vit.SIZES,
        {
            "vit_b_16": ("vit_b_16-c867db91", 81.072),
            "vit_b_32": ("vit_b_32-d86f8d99", 75.912),
            "vit_l_16": ("vit_l_16-852ce7e3", 79.662),
        },
        vit.convert_torchvision,
    ),
    **_classifiers(
        swin.Swin,
        swin.SIZES,
        {
            "swin_t": ("swin_t-704ceda3", 81.474),
            "swin_s": ("swin_s-5e29d889", 83.196),
            "swin_b": ("swin_b-68c6b09e", 83.582),
        },
        swin.convert_torchvision,
    ),
    **_classifiers(
        convnext.ConvNeXt,
        convnext.SIZES,
        {
            "convnext_tiny": ("convnext_tiny-983f1562", 82.520),
            "convnext_small": ("convnext_small-0c510722", 83.616),
            "convnext_base": ("convnext_base-6075fbad", 84.062),
        },
        convnext.convert_torchvision,
    ),
    "deeplabv3_resnet50": Weights(
        "deeplabv3_resnet50_coco-cd0a2569.pth",
        deeplab.DeepLabV3,
        "mean IoU 66.4 on the pictures of COCO that have VOC's classes",
        _without_auxiliary,
    ),
    "fasterrcnn_resnet50_fpn": Weights(
        "fasterrcnn_resnet50_fpn_coco-258fb6c6.pth",
        partial(faster_rcnn.FasterRCNN, faster_rcnn.SIZES["fasterrcnn_resnet50_fpn"], num_classes=90),
        "AP 37.0 on COCO val2017",
        faster_rcnn.convert_torchvision,
    ),
}


def from_pretrained(name: str) -> nn.Module:
    """The network with its published weights, in evaluation mode; downloaded the first time.

    The networks expect pictures from 0 to 1 less (0.485, 0.456, 0.406), over (0.229, 0.224, 0.225): ImageNet's mean and
    standard deviation of red, green and blue.

    Args:
        name: One of `WEIGHTS`, which also says what each reaches.

    Raises:
        ValueError: If there is none of that name.
        DownloadError: If the file cannot be downloaded, or is not the published one.

    Example:
        >>> WEIGHTS["resnet50"].score
        '80.858 % of ImageNet'

    Source: torchvision 0.29, its tables of weights.
    """
    if name not in WEIGHTS:
        raise ValueError(f"there are no published weights {name!r}; there are {', '.join(WEIGHTS)}")
    weights = WEIGHTS[name]
    url, folder = FOLDER + weights.file, cache_folder() / "weights"
    model = weights.make()
    try:
        state = torch.hub.load_state_dict_from_url(
            url, str(folder), map_location="cpu", progress=False, check_hash=True, weights_only=True
        )
    except (urllib.error.URLError, OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise DownloadError(
            f"could not get {url} (its SHA-256 begins with {weights.file.rpartition('-')[2].removesuffix('.pth')}): "
            f"{error}\nCheck the network and try again, or put the file into {folder} yourself."
        ) from error
    model.load_state_dict(weights.convert(state))
    return model.eval()
