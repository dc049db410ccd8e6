"""Lights of an object: the light of the released renders, and brighter ones as in photographs."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

LIGHTINGS = ("zero123", "uniform", "three_point", "lamps", "varied")
VARIED = ("zero123", "uniform", "three_point", "lamps")  # of which `varied` draws one for each object
WORLD_RANGE = (0.1, 0.9)  # scene-linear grey of the world under `lamps`
LAMP_COUNTS = (1, 3)
LAMP_POWER_RANGE = (40.0, 160.0)  # watts
LIGHT_STREAM = 1  # beside the seed of an object: the generator of its varied light
ELEVATION_RANGE = (0.0, 80.0)  # degrees above the horizon


@dataclass(frozen=True)
class AreaLight:
    """The area light of one object, as in the released renders."""

    power: float  # watts
    location: tuple[float, float, float]  # metres in the normalised world


@dataclass(frozen=True)
class Lamp:
    """A square lamp of one object size that is directed at the object."""

    azimuth: float  # degrees
    elevation: float  # degrees above the horizon
    power: float  # watts


@dataclass(frozen=True)
class Light:
    """The light of one object.

    Attributes:
        area: The area light, used if there is no `world`.
        world: Scene-linear grey of the world; None: the factory scene of Blender with its lamp, and `area`.
        lamps: Lamps beside the world.
    """

    area: AreaLight
    world: float | None = None
    lamps: tuple[Lamp, ...] = ()


# around the side that faces -y, the front of a glTF: key, fill and rim
THREE_POINT_LAMPS = (Lamp(-45.0, 40.0, 120.0), Lamp(-140.0, 15.0, 40.0), Lamp(90.0, 45.0, 80.0))


def sample_light(lighting: str, seed: int, rng: np.random.Generator) -> Light:
    """Return the light of one object.

    Args:
        lighting: One of `LIGHTINGS`.
        seed: Seed of the object, which decides lights that vary: they are equal whatever the cameras are.
        rng: The generator that drew the cameras; it then draws the area light of the released renders.
    """
    if lighting in ("lamps", "varied"):
        rng = np.random.default_rng([seed, LIGHT_STREAM])
    area = sample_area_light(rng)
    if lighting == "varied":
        lighting = VARIED[rng.integers(len(VARIED))]
    match lighting:
        case "zero123":
            return Light(area)
        case "uniform":
            return Light(area, world=1.0)
        case "three_point":
            return Light(area, world=0.05, lamps=THREE_POINT_LAMPS)
        case "lamps":
            return Light(area, float(rng.uniform(*WORLD_RANGE)), _sample_lamps(rng))
    raise AssertionError(lighting)


def light_record(lighting: str, light: Light) -> dict[str, Any]:
    """Return what meta.json records of a light: the area light, and the rest if it varies between objects."""
    return asdict(light.area) | (asdict(light) if lighting in ("lamps", "varied") else {})


def sample_area_light(rng: np.random.Generator) -> AreaLight:
    """Return a light of random power and location, as `randomize_lighting` of the original's `blender_script.py`."""
    power, x, y, z = rng.uniform([300, -1, -1, 0.5], [600, 1, 1, 1.5])
    return AreaLight(float(power), (float(x), float(y), float(z)))


def _sample_lamps(rng: np.random.Generator) -> tuple[Lamp, ...]:
    count = int(rng.integers(LAMP_COUNTS[0], LAMP_COUNTS[1], endpoint=True))
    azimuths = rng.uniform(-180, 180, count)
    elevations, powers = rng.uniform(*ELEVATION_RANGE, count), rng.uniform(*LAMP_POWER_RANGE, count)
    return tuple(Lamp(*lamp) for lamp in np.stack([azimuths, elevations, powers], axis=1).tolist())
