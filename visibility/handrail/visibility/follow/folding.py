"""Folds flows on from what is at hand: the flows that are kept, and the templates that are known. Reads nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from handrail.mesh.bus import RawMessage
from handrail.mesh.flow import Flow
from handrail.mesh.fold import Versions, advance, fold, migration_of
from handrail.mesh.fold.outcomes import why_not_first
from handrail.mesh.streams.history import History, decoded, with_malformed
from handrail.mesh.template import Template
from handrail.mesh.wire.subjects import Kind
from handrail.visibility.follow.open_flows import FlowKey, OpenFlows
from handrail.visibility.index.changes import NEW, Changes
from handrail.visibility.index.rows import rows_of

Templates = Callable[[str, int], Template | None]
"""Finds a version of a template among those that are known."""


class Folding:
    """Folds flows on, and keeps those that are open. `changes` collects what is to be stored of them."""

    def __init__(self, templates: Templates, flows: OpenFlows) -> None:
        self._templates = templates
        self.flows = flows
        self.changes = Changes()

    def take(self, key: FlowKey, messages: Sequence[RawMessage], *, is_new: bool) -> bool:
        """Folds the next messages of a flow. Returns False if it has to be read: it is not kept although the index may
        have something of it, a template is not known, or it can't be folded.
        """
        kept = self.flows.get(key)
        if kept is None and not is_new:
            return False
        before = None if kept is None else kept.flow
        if before is not None:
            messages = [each for each in messages if each.sequence > before.last_sequence]
            if not messages:
                return True
        history = decoded(messages)
        try:
            flow = self._folded(key[0], before, history)
        except Exception:
            flow = None  # whoever reads the flow finds the same, and says why
        if flow is None:
            self.flows.drop(key)
            return False
        rows = rows_of(flow, history)
        self.changes.add(rows, NEW if kept is None else kept.rows)
        self.flows.keep(key, flow, rows)
        return True

    def taken(self) -> Changes:
        """The changes so far, which are forgotten here."""
        changes, self.changes = self.changes, Changes()
        return changes

    def _folded(self, flow_type: str, before: Flow | None, history: History) -> Flow | None:
        versions = self._versions(flow_type, history)
        template = self._pinned(flow_type, history) if before is None else before.template
        if versions is None or template is None:
            return None
        after = fold(template, history, versions) if before is None else advance(before, history, versions)
        return with_malformed(after, history)

    def _pinned(self, flow_type: str, history: History) -> Template | None:
        """The template of a flow that begins; see `FlowStore.pinned_template`."""
        for recorded in history:
            if recorded.kind is Kind.EVENT and not recorded.event.step:
                template = self._templates(flow_type, recorded.event.template_version)
                if template is None or why_not_first(template, recorded) is None:
                    return template
        return self._templates(flow_type, history[0].event.template_version) if history else None

    def _versions(self, flow_type: str, history: History) -> Versions | None:
        """The versions that a flow migrates to; None if one of them is not known."""
        versions: dict[int, Template] = {}
        for recorded in history:
            moved = migration_of(recorded)
            if moved is not None:
                template = self._templates(flow_type, moved.to_version)
                if template is None:
                    return None
                versions[moved.to_version] = template
        return versions
