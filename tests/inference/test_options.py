"""Options out of their range are refused by their own name, before anything is loaded."""

import pytest

from conf.options import UserError
from inference.config import DemoConfig, ReportConfig, SampleConfig, Sampling
from inference.reconstruction.config import ReconstructConfig


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"sampling": Sampling(guidance=150)}, "sampling.guidance=150: must be between 0 and 20"),
        ({"max_views": 1}, "max_views=1: must be between 2 and 1000"),
    ],
)
def test_the_demo_starts_with_settings_that_its_visitors_may_ask_for(options, sentence):
    with pytest.raises(UserError, match=sentence):
        DemoConfig(**options)


@pytest.mark.parametrize("options", [{"rows": -1}, {"rows": 0}, {"orbit_views": 0}, {"orbits": -1}, {"limit": -1}])
def test_a_report_names_the_option_that_is_out_of_range(options):
    ((name, value),) = options.items()
    with pytest.raises(UserError, match=f"^{name}={value}: must be between"):
        ReportConfig("views", "run", **options)


def test_an_empty_picture_is_not_the_working_folder():
    with pytest.raises(UserError, match="^image: is empty"):
        SampleConfig(image="")


def test_a_reconstruction_needs_an_elevation():
    with pytest.raises(UserError, match="elevation=none: .*; give degrees"):
        ReconstructConfig(image="chair.png", elevation="none")
