import pytest
import torch

from training.model.conditioning import CLIP_MEAN, CLIP_STD, CCProjection, clip_input, drop_out


def test_projection_starts_as_identity_and_ignores_the_pose():
    joined = torch.randn(5, 12, generator=torch.Generator().manual_seed(0))
    projection = CCProjection(12, 8)
    assert torch.equal(projection(joined), joined[:, :8])
    assert set(projection.state_dict()) == {"projection.weight", "projection.bias"}


def test_drop_out_at_the_boundaries_of_u():
    p = 0.05
    u = torch.tensor([0.0, 0.0499, 0.05, 0.0999, 0.1, 0.1499, 0.1501, 0.9])
    embedding, condition = drop_out(u, torch.ones(8, 2), torch.ones(8, 1, 2, 2), p)
    assert embedding[:, 0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]  # u < 2p
    assert condition[:, 0, 0, 0].tolist() == [1, 1, 0, 0, 0, 0, 1, 1]  # p <= u < 3p
    assert embedding.shape == (8, 2) and condition.shape == (8, 1, 2, 2)


def test_p_zero_drops_nothing():
    embedding, condition = drop_out(torch.zeros(1), torch.ones(1, 2), torch.ones(1, 1, 2, 2), 0.0)
    assert embedding.all() and condition.all()


def test_clip_input_normalises_white_and_black():
    white, black = clip_input(torch.ones(1, 3, 8, 8), 4), clip_input(-torch.ones(1, 3, 8, 8), 4)
    for c in range(3):
        assert white[0, c].flatten().tolist() == pytest.approx([(1 - CLIP_MEAN[c]) / CLIP_STD[c]] * 16, rel=1e-5)
        assert black[0, c].flatten().tolist() == pytest.approx([-CLIP_MEAN[c] / CLIP_STD[c]] * 16, rel=1e-5)


def test_clip_input_aligns_corners_and_does_not_antialias():
    g = torch.Generator().manual_seed(0)
    x = torch.rand(1, 3, 9, 9, generator=g) * 2 - 1
    small = clip_input(x, 3)
    mean, std = (torch.tensor(v)[:, None, None] for v in (CLIP_MEAN, CLIP_STD))
    # From 9 to 3 pixels with aligned corners the outputs are pixels 0, 4 and 8, without interpolation.
    assert torch.allclose(small[0], ((x[0, :, ::4, ::4] + 1) / 2 - mean) / std, atol=1e-5)
