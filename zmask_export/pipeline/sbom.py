"""A bundle's bill of materials: the packages that made it, as CycloneDX says it in JSON.

No time and no random number: equal builds give equal bytes, and the serial number is a hash of the rest.
"""

from __future__ import annotations

import platform
import uuid
from collections.abc import Iterable
from datetime import datetime
from importlib import metadata
from typing import cast

from cyclonedx.model import Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import LicenseExpression
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from zmask_export import __version__
from zmask_export.artifacts.calibration import CalibrationHeader

SCHEMA = SchemaVersion.V1_6
TOOL = "zmask-export"


def bill_of_materials(name: str, header: CalibrationHeader, flavours: Iterable[str] = ()) -> str:
    """The text of sbom.cdx.json.

    Args:
        name: of the bundle.
        header: of its calibration, which names the network and its weights.
        flavours: of its engines; an extra of that name brings a compiler.
    """
    bill = Bom()
    # The format leaves the time open, and the library's type does not say so.
    bill.metadata.timestamp = cast(datetime, None)
    bill.metadata.tools.components.add(
        Component(name=TOOL, version=__version__, type=ComponentType.APPLICATION)
    )
    bundle = Component(
        name=name,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref="bundle",
        description=f"{header.model}, protected by Z-Mask",
        properties=[Property(name=f"{TOOL}:weights_sha256", value=header.weights_sha256)],
    )
    bill.metadata.component = bundle
    python = Component(
        name="python",
        version=platform.python_version(),
        type=ComponentType.PLATFORM,
        bom_ref="python",
    )
    needs = installed(TOOL, ("build", *flavours)) if _is_installed(TOOL) else {}
    made = {package: _component(package) for package in needs}
    for component in (python, *made.values()):
        bill.components.add(component)
    bill.register_dependency(bundle, [python, *made.values()])
    for package, component in made.items():
        bill.register_dependency(component, [made[need] for need in needs[package]])
    bill.serial_number = uuid.UUID(int=0)
    bill.serial_number = uuid.uuid5(uuid.NAMESPACE_URL, _text(bill))
    return _text(bill)


def installed(root: str, extras: Iterable[str]) -> dict[str, list[str]]:
    """Installed packages that a package with some extras needs, itself left out: package to its needs.

    Markers decide as pip decides them here; what a marker asks for and is not installed is left out.
    """
    needs: dict[str, set[str]] = {}
    left, seen = [(root, extra) for extra in ("", *extras)], set()
    while left:
        package, extra = left.pop()
        if (package, extra) in seen:
            continue
        seen.add((package, extra))
        known = needs.setdefault(package, set())
        for requirement in map(Requirement, metadata.requires(package) or ()):
            if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
                continue
            name = canonicalize_name(requirement.name)
            if _is_installed(name):
                known.add(name)
                left += [(name, more) for more in ("", *requirement.extras)]
    return {name: sorted(needs[name] - {name, root}) for name in sorted(needs.keys() - {root})}


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _component(name: str) -> Component:
    version = metadata.version(name)
    url = PackageURL("pypi", name=name, version=version)
    licenses = metadata.metadata(name).get_all("License-Expression") or ()
    return Component(
        name=name,
        version=version,
        type=ComponentType.LIBRARY,
        bom_ref=url.to_string(),
        purl=url,
        licenses=[LicenseExpression(text) for text in licenses],
    )


def _text(bill: Bom) -> str:
    outputter = make_outputter(bill, OutputFormat.JSON, SCHEMA)
    return outputter.output_as_string(indent=2) + "\n"
