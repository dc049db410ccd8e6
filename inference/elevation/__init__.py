"""Estimate the elevation of the input camera from views that the model samples a few degrees aside.

Exported, each imported on first use:
    estimate_elevation, Elevation: sample the views, match them and fit the elevation.
    fit_elevation: fit the elevation to matched points.
    match_views: match points of a picture in views of the same object.
"""

from typing import TYPE_CHECKING

from conf.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from inference.elevation.estimate import Elevation, estimate_elevation, fit_elevation
    from inference.elevation.matching import match_views

__all__ = ["Elevation", "estimate_elevation", "fit_elevation", "match_views"]
__getattr__ = lazy_exports(
    __name__,
    {
        "Elevation": "estimate",
        "estimate_elevation": "estimate",
        "fit_elevation": "estimate",
        "match_views": "matching",
    },
)
