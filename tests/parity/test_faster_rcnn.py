"""The layout of torchvision's fasterrcnn_resnet50_fpn.

Taken from torchvision 0.28.0 (with frozen batch normalisation, 91 columns). With the same random weights in float64,
features, anchors, proposals, logits, detections, the four losses and all gradients were equal to 1e-13 there.
"""

import hashlib

import torch

from dlbook.models.faster_rcnn import SIZES, FasterRCNN, convert_torchvision

# SHA-256 of the sorted lines "name shape" of the 295 tensors
DIGEST = "3b48f955f86cbb36c249dcc9bb3ae1caa97cf87961e7d2e6a63445c0632b1105"


def state_dict():
    with torch.device("meta"):
        return FasterRCNN(SIZES["fasterrcnn_resnet50_fpn"], num_classes=90).state_dict()


def test_names_and_shapes_are_torchvisions():
    lines = sorted(f"{name} {tuple(tensor.shape)}" for name, tensor in state_dict().items())
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == DIGEST


def test_files_from_before_names_changed():
    ours = state_dict()
    old = {}
    for name, tensor in ours.items():
        short = name.replace("conv.0.0.", "conv.") if name.startswith("rpn") else name
        if ".fpn." in name:
            short = name.replace(".0.weight", ".weight").replace(".0.bias", ".bias")
        old[short] = tensor
    assert old.keys() != ours.keys()
    assert convert_torchvision(old).keys() == ours.keys()
    assert convert_torchvision(ours | {"backbone.body.bn1.num_batches_tracked": torch.zeros(())}).keys() == ours.keys()
