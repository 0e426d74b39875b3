"""What a reader of a chart has to know beside its title."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from cnn_reg.config import Config, as_dict, preset
from cnn_reg.results.published import published_accuracy
from cnn_reg.results.records import Record
from cnn_reg.results.wording import AXES, SWITCHED_OFF, words
from tensornet import __version__

MOST_REASONS = 3  # of failures, the most frequent ones
LONGEST_REASON = 200  # characters
_TOLD_ELSEWHERE = ("seed", "data_seed", "dataset", "source", "matched", "model")  # in the title


def chart_notes(
    configs: Sequence[Config], records: Sequence[Record], done: Mapping[Config, Record], fields: Sequence[str], *, published: bool
) -> list[str]:
    """What all runs of a chart have in common, where they are not as published, and which of them are missing and why.

    Args:
        configs: All runs of the chart.
        records: Of these and others.
        done: Those that are finished.
        fields: In which the runs differ, beside seeds.
        published: Whether the chart has the paper's accuracies.

    Example:
        >>> chart_notes([Config(width=0.5)], [], {}, [], published=False)
        ['All runs: path length 7, coefficient 9.', "Not the paper's recipe: width 0.5.", 'Missing: 1 of 1 runs (1 not begun).']
    """
    values = as_dict(configs[0])
    told = [name for name in (*AXES, "coefficient", *SWITCHED_OFF) if name in values and name not in fields]
    common = words((name, values[name]) for name in told if values[name] or name not in SWITCHED_OFF)
    notes = [f"All runs: {common}."] if common else []
    paper = as_dict(preset("paper", dataset=configs[0].dataset, model=configs[0].model))
    left_out = (*fields, *told, *_TOLD_ELSEWHERE)
    other = words((name, value) for name, value in values.items() if name not in left_out and value != paper[name])
    notes += [f"Not the paper's recipe: {other}."] if other else []
    if published and any(published_accuracy(config) is not None for config in configs):
        notes.append("Faint: the paper's Figure 6, five seeds, read off its plots.")
    return [*notes, *_missing(configs, records, done), *_copies_and_versions(set(configs), records, done)]


def _missing(configs: Sequence[Config], records: Sequence[Record], done: Mapping[Config, Record]) -> list[str]:
    missing = [config for config in configs if config not in done]
    if not missing:
        return []
    begun = {record.config: record for record in records if record.state != "finished"}
    states = [begun.get(config) for config in missing]
    counted = Counter("not begun" if record is None else record.state for record in states)
    reasons = Counter(record.reason for record in states if record is not None and record.state == "failed")
    parts = [f"{count} {state}" for state, count in counted.items()]
    text = f"Missing: {len(missing)} of {len(configs)} runs ({', '.join(parts)})."
    often = reasons.most_common(MOST_REASONS)
    return [text, *(f"Failed {count} time{'s' if count > 1 else ''}: {reason[:LONGEST_REASON]}" for reason, count in often)]


def _copies_and_versions(configs: set[Config], records: Sequence[Record], done: Mapping[Config, Record]) -> list[str]:
    counted = [record for config, record in done.items() if config in configs]
    notes = []
    copies = sum(record.state == "finished" and record.config in configs for record in records) - len(counted)
    if copies:
        notes.append(f"{copies} further run{'s' if copies > 1 else ''} of a configuration that is finished already not counted.")
    versions = sorted({record.version for record in counted if record.version != __version__})
    if versions:
        notes.append(f"Runs of version {', '.join(versions)} are among them.")
    return notes
