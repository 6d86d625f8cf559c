"""What MkDocs asks of us while it builds: pages and tables that the code itself knows best.

Of these lines of a page, a table of what the code says takes the place:

- ``<!-- form: package.module.Class -->``: the class's fields;
- ``<!-- call: package.module.function -->``: signature, arguments and errors;
- ``<!-- class: package.module.Class -->``: attributes and methods;
- ``<!-- errors -->``, ``<!-- exit-codes -->``: the tree of errors, and what exit codes mean.

Every verb of the command line gets a page of its own, and JSON schemas lie beside the pages.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from generated import failures, forms, verbs
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

SCHEMAS = {
    "manifest": "zmask_export.artifacts.manifest.Manifest",
    "calibration": "zmask_export.artifacts.calibration.CalibrationHeader",
    "parity": "zmask_export.verify.parity.ParityReport",
    "latency": "zmask_export.profiling.record.LatencyReport",
    "results": "zmask_export.pipeline.run.ImageRecord",
    "monitor": "zmask_export.pipeline.monitor.MonitorReport",
    "study": "zmask_export.evaluate.report.StudyReport",
    "preset": "zmask_export.spec.Preset",
}
"""JSON schemas that go beside the pages, as ``schemas/NAME.json``."""

_WRITERS: dict[str, Callable[[str], str]] = {
    "form": forms.table,
    "call": forms.call,
    "class": forms.members,
    "errors": failures.table,
    "exit-codes": failures.exit_codes,
}
_PLACE = re.compile(rf"^<!-- ({'|'.join(_WRITERS)})(?:: (\S+))? -->$", re.MULTILINE)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the verbs into the navigation."""
    listed = [{"All verbs": "verbs/index.md"}]
    listed += [{name: f"verbs/{name}.md"} for name in verbs.names()]
    config.nav = [
        {title: listed} if title == "Verbs" else {title: page}
        for item in config.nav or []
        for title, page in item.items()
    ]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the verbs, and the schemas."""
    made = {"verbs/index.md": verbs.index()}
    made |= {f"verbs/{name}.md": verbs.page(name) for name in verbs.names()}
    made |= {
        f"schemas/{name}.json": json.dumps(forms.find(path).model_json_schema(), indent=2) + "\n"
        for name, path in SCHEMAS.items()
    }
    for path, content in made.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill the places of a page."""
    return _PLACE.sub(lambda found: _WRITERS[found[1]](found[2] or ""), markdown)
