"""Runs as every `--json` shows them. Events, runs and messages as they travel are in `dalsegno.core.forms`."""

from __future__ import annotations

from dalsegno.core.forms import BY_NAME, Data, DoesNotFit, RunForm, event_form, event_from, payload_form
from dalsegno.core.store import RunRecord
from dalsegno.tools.text import iso

__all__ = ["BY_NAME", "DoesNotFit", "RunForm", "event_form", "event_from", "payload_form", "run_data"]


def run_data(record: RunRecord) -> Data:
    """A run as every `--json` shows it."""
    return {
        "id": record.workflow_id,
        "run_id": record.run_id,
        "generation": record.generation,
        "workflow": record.workflow,
        "status": record.status.value,
        "active": record.active,
        "reason": record.reason,
        "created_at": iso(record.created_at_us),
        "closed_at": iso(record.closed_at_us),
        "tags": dict(record.tags),
        "parent": f"{record.parent[0]}#{record.parent[1]}" if record.parent else None,
        "queue": record.queue or None,
        "queued": record.queued,
    }
