"""PSNR, worked out by hand."""

import math

import numpy as np
import pytest

from rendering.psnr import psnr


def test_psnr_by_hand():
    black = np.zeros((2, 2, 3), np.uint8)
    one_off = black.copy()
    one_off[0, 0, 0] = 255  # a twelfth of the values is off by everything: 10·log10(12)
    assert psnr(one_off, black) == pytest.approx(10.7918, abs=1e-4)
    assert psnr(black + 255, black) == 0  # no wrap-around of 8-bit differences
    assert psnr(black, black) == math.inf


def test_peak_is_the_range_of_the_values():
    assert psnr(np.full((2, 4, 4, 3), 0.6), np.full((2, 4, 4, 3), 0.5), peak=1) == pytest.approx(20)
