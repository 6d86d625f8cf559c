"""What kind of street it is: its measures, its light and its weather."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zmask_export.data.scene.colours import BRIGHT, CLEAR, DULL, OVERCAST, Colour, mix

FAR = 130.0
"""How far ahead the street ends, in metres."""

OUTWARDS = (-1, 1)
"""Which way along ``x`` leads off the road, on the left and on the right."""


@dataclass(frozen=True, eq=False)
class Street:
    """A street; arrays (2,) hold the left side and the right side."""

    parked: NDArray[np.bool_]
    """Whether cars are parked along the kerb."""
    kerbs: NDArray[np.float64]
    """``x`` of the kerbs, in metres."""
    pavements: NDArray[np.float64]
    """Widths of the pavements, in metres."""
    sun: NDArray[np.float64]
    """How brightly each side is lit; 1 leaves colours as they are."""
    exposure: float
    """How much of the light the sensor takes; 1 is neutral."""
    cloud: float
    """How much of the sky clouds cover, 0 to 1."""
    leafy: float
    """How many leaves the trees have, 0 to 1."""
    wooded: float
    """How many trees there are, 0 to 1."""
    zenith: Colour
    """Colour (3,) of the clear sky at the top of the image."""
    haze: Colour
    """Colour (3,) of the sky at the horizon, which distant things take on."""
    asphalt: Colour
    """Colour (3,) of the road."""

    @classmethod
    def choose(cls, rng: np.random.Generator) -> Street:
        """Draw a street at random."""
        parked = rng.random(2) < 0.55
        kerbs = rng.uniform((-2.6, 4.8), (-2.0, 6.2)) + 2.2 * np.array(OUTWARDS) * parked
        pavements = rng.uniform(1.8, 4.2, 2)
        sun = rng.permuted(rng.uniform((0.9, 0.55), (1.15, 0.85)))
        exposure, cloud, leafy = rng.uniform((0.85, 0, 0), (1.3, 1, 1))
        brightness, wooded = rng.random(2)
        return cls(
            parked=parked,
            kerbs=kerbs,
            pavements=pavements,
            sun=sun,
            exposure=exposure,
            cloud=cloud,
            leafy=leafy,
            wooded=wooded,
            zenith=mix(CLEAR, OVERCAST, brightness),
            haze=mix(DULL, BRIGHT, brightness),
            asphalt=rng.uniform(64, 86) * np.array((0.98, 1.0, 1.04)),
        )
