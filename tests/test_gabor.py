"""The Gabor fit, beside functions whose numbers are known."""

import numpy as np
import pytest

from dlbook.gabor import _projected, _slopes, fit_gabor, waves


@pytest.mark.parametrize(
    ("x0", "y0", "angle", "frequency", "across", "along"),
    [(1.0, -0.5, 0.6, 0.15, 2.0, 3.0), (-2.0, 1.5, 2.2, 0.22, 2.5, 1.5), (0.5, 0.0, 0.0, 0.1, 2.2, 4.0)],
)
def test_finds_the_numbers_of_a_gabor_function(x0, y0, angle, frequency, across, along):
    cosine, sine = waves(13, x0, y0, angle, frequency, across, along)
    found = fit_gabor(0.7 * cosine - 1.9 * sine + 5.0)  # the mean does not count
    assert found.r2 > 0.9999
    turned = abs(found.angle - angle)
    assert min(turned, np.pi - turned) < 1e-2  # pi and 0 are one direction
    np.testing.assert_allclose([found.frequency, found.across, found.along], [frequency, across, along], rtol=2e-2)


def test_values_and_r2_belong_together():
    picture = np.random.default_rng(0).normal(size=(9, 9))
    found = fit_gabor(picture)
    centred = picture - picture.mean()
    assert abs(found.values.mean()) < 1e-9
    assert found.r2 == pytest.approx(1 - ((centred - found.values) ** 2).sum() / (centred**2).sum(), abs=1e-6)
    assert 0 < found.r2 < 0.5  # six numbers do not follow 81 of noise


def test_scale_and_sign_do_not_matter():
    picture = waves(10, 0.5, 1.0, 1.1, 0.18, 2.0, 2.0)[0] + 0.3 * np.random.default_rng(1).normal(size=(10, 10))
    once, other = fit_gabor(picture), fit_gabor(-40 * picture)
    assert other.r2 == pytest.approx(once.r2, abs=1e-4)
    np.testing.assert_allclose(other.values, -40 * once.values, atol=0.4)


def test_a_turned_filter_turns_the_angle():
    picture = waves(12, 1.0, 0.0, 0.3, 0.15, 2.0, 3.0)[0]
    turned = fit_gabor(picture.T).angle  # transposing mirrors at the diagonal
    assert turned == pytest.approx(np.pi / 2 - 0.3, abs=1e-2)


def test_waves_are_what_they_say():
    cosine, sine = waves(7, 0.0, 0.0, 0.0, 0.25, 1.5, 2.5)
    for u, v in ((0, 0), (1, 0), (2, -1), (-3, 3)):
        bell = np.exp(-0.5 * (u / 1.5) ** 2 - 0.5 * (v / 2.5) ** 2)
        assert cosine[3 + v, 3 + u] == pytest.approx(bell * np.cos(2 * np.pi * 0.25 * u))
        assert sine[3 + v, 3 + u] == pytest.approx(bell * np.sin(2 * np.pi * 0.25 * u))


@pytest.mark.parametrize("picture", [np.zeros((3, 3)), np.zeros((5, 6)), np.zeros(25)])
def test_refuses_what_is_no_filter(picture):
    with pytest.raises(ValueError, match="square of at least 4"):
        fit_gabor(picture)


@pytest.mark.parametrize("value", [0.0, 2.5, np.nan])
def test_refuses_what_is_the_same_everywhere(value):
    with pytest.raises(ValueError, match="not finite, or the same everywhere"):
        fit_gabor(np.full((6, 6), value))


def test_slopes_give_the_gradient_of_the_squares():
    picture = np.random.default_rng(2).normal(size=(11, 11))
    picture -= picture.mean()
    numbers = np.array([0.3, -0.4, 0.6, 0.15, 2.0, 3.0])

    def squares(p):
        return 0.5 * (_projected(picture, p)[0] ** 2).sum()

    differences = [(squares(numbers + 1e-5 * e) - squares(numbers - 1e-5 * e)) / 2e-5 for e in np.eye(6)]
    np.testing.assert_allclose(_slopes(picture, numbers).T @ _projected(picture, numbers)[0], differences, rtol=1e-4)
