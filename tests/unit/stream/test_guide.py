"""The guide's definitions are definitions: they load, and its decision decides by the view that it shows."""

from __future__ import annotations

import re
from pathlib import Path

import headrace as hr
from headrace.catalog.run import load_definitions
from headrace.runtime.definitions import CLASSES, Definitions

GUIDE = Path(__file__).parents[3] / "docs" / "guides" / "derived-topics.md"


def test_the_guides_definitions_load(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "definitions.py").write_text("\n".join(blocks), encoding="utf-8")
    found = Definitions.of(load_definitions(tmp_path, CLASSES))
    found.check_joint()
    (view,) = found.views.values()
    (topic,) = view.topics
    assert topic.derivation is not None and topic.derivation.of == "applications"
    assert found.decision("lending").views == ("merchant_risk",)
    assert found.topic(topic.name).key == view.entity[0]
    assert isinstance(view, hr.FeatureView)
