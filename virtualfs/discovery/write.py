"""A scan as a definition file that a person would have written: Python or YAML, doubts as comments.

The text says again what the definitions are, so reading it back gives equal ones (tested).
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from virtualfs.definitions.feature_view import Feature
from virtualfs.discovery import names
from virtualfs.discovery.findings import KINDS, Finding, Scan
from virtualfs.discovery.python_text import WIDTH, call, commented, mapping, text

__all__ = ["to_python", "to_yaml"]

_HEAD = (
    "Features proposed from the tables of warehouse {warehouse!r}. Read the "
    "comments, which are doubts, and edit; then `virtualfs plan` and `virtualfs apply`."
)


def to_python(scan: Scan) -> str:
    """Return a scan as the text of a ``features.py``."""
    head = textwrap.fill(_HEAD.format(warehouse=scan.warehouse), WIDTH - 4)
    lines = [f'"""{head}\n"""', "", "import virtualfs as vfs", ""]
    taken = {"vfs"}
    variables = {}
    if scan.entities:
        lines += ["# Entities: what the rows describe.", ""]
    for name, entity in scan.entities.items():
        variables[name] = names.variable(name, taken)
        taken.add(variables[name])
        parts = [text(name), f"join_keys={mapping(entity.join_keys)}", *_for_people(entity)]
        lines += [f"{variables[name]} = {call('vfs.Entity', parts)}"]
    for finding in scan.proposed:
        variable = names.variable(finding.name, taken)
        taken.add(variable)
        lines += ["", "", *_comments(finding), f"{variable} = {_view(scan, finding, variables)}"]
    lines += _left_out(scan)
    return "\n".join(lines) + "\n"


def _view(scan: Scan, finding: Finding, variables: Mapping[str, str]) -> str:
    view, source = scan.view_of(finding), scan.source_of(finding)
    given = {name: getattr(source, name) for name in ("table", *finding.times)}
    parts = [text(source.name), *(f"{name}={text(value)}" for name, value in given.items())]
    parts += [f"warehouse={text(source.warehouse)}"] * (source.warehouse != "default")
    parts += [f"timezone={text(source.timezone)}"] * (source.timezone != "UTC")
    parts += [f"columns={mapping(source.columns)}"] * bool(source.columns)
    entities = ", ".join(variables[name] for name in finding.entities)
    features = [
        call("vfs.Feature", _feature(feature), 8)
        for feature in view.features
        if isinstance(feature, Feature)
    ]
    listed = "".join(f"\n        {feature}," for feature in features)
    parts_of_view = [
        text(view.name),
        f"source={call('vfs.Source', parts, 4)}",
        f"entities=[{entities}]",
        f"features=[{listed}\n    ]",
        *_for_people(view),
    ]
    return "vfs.FeatureView(\n" + "".join(f"    {part},\n" for part in parts_of_view) + ")"


def _feature(feature: Feature) -> list[str]:
    return [text(feature.name), f"dtype={text(feature.dtype or '')}", *_for_people(feature)]


def _for_people(item: Any) -> list[str]:
    """Return the arguments that carry no meaning for values."""
    parts = [f"description={text(item.description)}"] * bool(item.description)
    owner = getattr(item, "owner", "")
    parts += [f"owner={text(owner)}"] * bool(owner)
    return parts + [f"tags={mapping(item.tags)}"] * bool(item.tags)


def _comments(finding: Finding) -> list[str]:
    """Return what is known of a table and what is doubtful, as comment lines."""
    table = finding.table
    facts: list[str] = [finding.kind]
    if table.rows is not None:
        facts.append(f"about {table.rows:,} rows")
    if finding.distinct is not None and finding.times:
        facts.append(f"{finding.distinct:,} different keys in the sample")
    if finding.span is not None:
        start, end = (str(end)[:10] for end in finding.span)
        facts.append(f"{start} to {end}")
    lines = [f"{table.label}: {', '.join(facts)}."]
    if not finding.times:
        lines.append(f"A {finding.kind} table has {KINDS[finding.kind]}.")
    lines += [f"DOUBT: {doubt}." for doubt in finding.doubts]
    if finding.left_out:
        listed = "; ".join(f"{name} ({why})" for name, why in finding.left_out.items())
        lines.append(f"Left out: {listed}.")
    return commented(lines)


def _left_out(scan: Scan) -> list[str]:
    left = [finding for finding in scan.findings if finding.kind == "left out"]
    if not left:
        return []
    lines = [f"{finding.table.label}: {'; '.join(finding.notes)}." for finding in left]
    return ["", "", "# Tables without a view:", *commented(lines)]


def to_yaml(scan: Scan) -> str:
    """Return a scan as the text of a ``features.yaml``."""
    import yaml

    def dumped(items: list[dict[str, Any]]) -> str:
        return yaml.safe_dump(items, sort_keys=False, allow_unicode=True, width=WIDTH)

    lines = commented([_HEAD.format(warehouse=scan.warehouse)])
    if scan.entities:
        lines += ["", "entities:"]
        lines += [dumped([_fields(entity)]).rstrip() for entity in scan.entities.values()]
    for section in ("sources", "feature_views"):
        if scan.proposed:
            lines += ["", f"{section}:"]
        for finding in scan.proposed:
            if section == "sources":
                lines += [dumped([_fields(scan.source_of(finding))]).rstrip()]
                continue
            view = _fields(scan.view_of(finding))
            view |= {"source": finding.name, "entities": list(finding.entities)}
            lines += ["", *_comments(finding), dumped([view]).rstrip()]
    return "\n".join(lines + _left_out(scan)) + "\n"


def _fields(definition: Any) -> dict[str, Any]:
    """Return a definition's fields that are not what they would be anyway."""
    fields: dict[str, Any] = definition.model_dump(mode="json", exclude_defaults=True)
    if "features" in fields:
        fields["features"] = [
            {key: value for key, value in feature.items() if value}
            for feature in fields["features"]
        ]
    return fields
