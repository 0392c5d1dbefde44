"""Looking into networks: against formulas, planted patterns and models whose answer is known."""

import pytest
import torch
from torch import nn

from dlbook.interpret import (
    activations,
    exciting_patches,
    footprints,
    grad_cam,
    linear_probe,
    receptive_field,
    saliency,
)
from dlbook.models.resnet import SIZES, ResNet


def chain():
    return nn.Sequential(
        nn.Conv2d(2, 3, 5, padding=2),
        nn.BatchNorm2d(3),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(3, 4, 3, stride=2, padding=1),
        nn.AvgPool2d(3, stride=1),
    )


def test_activations_are_what_the_layer_gave_even_if_the_next_works_in_place():
    model, x = chain().train(), torch.randn(7, 2, 16, 12)
    found = activations(model, x, ["0", "1", "4"], batch_size=3)
    model.eval()
    torch.testing.assert_close(found["0"], model[0](x))
    torch.testing.assert_close(found["1"], model[1](model[0](x)))
    assert found["1"].min() < 0
    assert found["4"].shape == (7, 4, 4, 3)


def test_activations_put_the_mode_back_and_leave_no_hook():
    model = chain().train()
    activations(model, torch.zeros(1, 2, 16, 12), ["2"])
    assert model.training
    assert not model[2]._forward_hooks


def test_receptive_field_is_that_of_the_formula():
    # r grows by (kernel - 1) times the product of the strides before it.
    fields = {"0": 5, "2": 5, "3": 6, "4": 6 + 2 * 2, "5": 10 + 2 * 4}
    for layer, r in fields.items():
        assert receptive_field(chain(), layer, (2, 64, 48)) == (r, r)


def test_receptive_field_of_kernels_that_are_not_square_and_pictures_that_end():
    model = nn.Sequential(nn.Conv2d(1, 2, (1, 3)), nn.Conv2d(2, 2, (7, 3)))
    assert receptive_field(model, "1", (1, 20, 30)) == (7, 5)
    assert receptive_field(nn.Conv2d(1, 1, 9, padding=4), "", (1, 6, 7)) == (6, 7)


def test_footprints_at_the_border():
    rows, columns = footprints(nn.Conv2d(1, 1, 3, stride=2, padding=1), "", (1, 5, 8))
    assert rows.tolist() == [[0, 2], [1, 4], [3, 5]]
    assert columns.tolist() == [[0, 2], [1, 4], [3, 6], [5, 8]]


def test_footprints_leave_the_model_as_it_was():
    model = ResNet(SIZES["resnet_small"], in_channels=1, num_classes=3)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert receptive_field(model, "layer1", (1, 40, 40)) == (11, 11)  # 3, then twice 3 x 3 at stride 2
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert model.training


def test_exciting_patches_finds_what_was_planted():
    pattern = torch.tensor([[0.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 0.0]])
    model = nn.Conv2d(1, 2, 3, padding=1, bias=False)
    with torch.no_grad():
        model.weight[0, 0], model.weight[1, 0] = pattern - 0.5, -pattern
    images = torch.zeros(5, 1, 9, 7)
    images[3, 0, 4:7, 2:5] = pattern
    images[1, 0, 0:2, 0:2] = pattern[1:, 1:]  # cut off by the border
    patches, strengths = exciting_patches(model, "", images, channels=[0], count=2)
    assert torch.equal(patches[0, 0, 0], pattern)
    assert torch.equal(
        patches[0, 1, 0], torch.cat([torch.zeros(3, 1), torch.cat([torch.zeros(1, 2), pattern[1:, 1:]])], 1)
    )
    assert strengths.tolist() == [[2.5, 1.5]]


def test_exciting_patches_needs_enough_pictures():
    with pytest.raises(ValueError, match="got 2"):
        exciting_patches(nn.Conv2d(1, 1, 3), "", torch.zeros(2, 1, 5, 5), channels=[0], count=3)


def test_probe_equals_logistic_regression_of_scikit_learn():
    from sklearn.linear_model import LogisticRegression

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 4, generator=generator)
    y = (x @ torch.randn(4, 3, generator=generator) + 0.5 * torch.randn(300, 3, generator=generator)).argmax(1)
    scaled = (x - x[:200].mean(0)) / x[:200].std(0)
    theirs = LogisticRegression(C=1 / (2 * 200 * 0.01), tol=1e-8, max_iter=1000).fit(scaled[:200], y[:200])
    ours = linear_probe(x[:200].view(200, 2, 2), y[:200], x[200:].view(100, 2, 2), y[200:], decay=0.01)
    assert ours == pytest.approx(theirs.score(scaled[200:], y[200:]), abs=0.011)
    assert 0.6 < ours < 1


def test_probe_reads_no_exclusive_or_and_survives_a_constant_feature():
    x = torch.tensor([[0.0, 0.0, 7.0], [0.0, 1.0, 7.0], [1.0, 0.0, 7.0], [1.0, 1.0, 7.0]])
    assert linear_probe(x, torch.tensor([0, 1, 1, 0]), x, torch.tensor([0, 1, 1, 0])) < 1
    with pytest.raises(ValueError, match="4 rows of features for 3 labels"):
        linear_probe(x, torch.tensor([0, 1, 1]), x, torch.tensor([0, 1, 1, 0]))


def test_saliency_of_a_linear_model_is_the_size_of_its_weights():
    model = nn.Sequential(nn.Flatten(), nn.Linear(2 * 3 * 4, 5))
    found = saliency(model, torch.randn(2, 2, 3, 4), torch.tensor([4, 1]))
    weights = model[1].weight.detach().view(5, 2, 3, 4)
    torch.testing.assert_close(found, weights[[4, 1]].abs().amax(1))


def test_grad_cam_of_a_mean_and_a_linear_layer_is_the_class_activation_map():
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4)
    )
    x, classes = torch.rand(2, 1, 6, 5), torch.tensor([3, 0])
    maps = model[:2](x).detach()
    expected = torch.relu(torch.einsum("nk,nkpq->npq", model[4].weight.detach()[classes], maps)) / 30
    torch.testing.assert_close(grad_cam(model, "1", x, classes), expected)


def test_grad_cam_passes_layers_that_work_in_place_and_frozen_weights():
    model = chain().append(nn.Flatten()).append(nn.Linear(4 * 2 * 3, 4)).requires_grad_(False).train()
    found = grad_cam(model, "1", torch.randn(3, 2, 16, 20), torch.tensor([0, 1, 2]))
    assert found.shape == (3, 16, 20)
    assert found.isfinite().all()
    assert model.training


def test_wrong_names_and_classes_are_refused():
    with pytest.raises(ValueError, match="no layer '9'"):
        activations(chain(), torch.zeros(1, 2, 16, 12), ["9"])
    with pytest.raises(ValueError, match="one class each"):
        saliency(nn.Flatten(), torch.zeros(2, 1, 2, 2), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match="no map"):
        footprints(nn.Sequential(nn.Flatten()), "0", (1, 2, 2))
