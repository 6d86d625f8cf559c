"""Street scenes drawn from a number: images to show, verify and test with where no dataset is.

A scene is a small three-dimensional street. Positions are metres, ``x`` to the right of the camera,
``y`` above the road and ``z`` ahead; one pinhole camera projects them. The ground comes first, then
both rows of buildings, then everything that stands on the ground, each from far to near. It is
drawn at twice the size and shrunk, then goes through a lens and a sensor: blur, vignette, noise.
"""

from zmask_export.data.scene.composition import MIN_SIDE, draw_scene

__all__ = ["MIN_SIDE", "draw_scene"]
