"""Infers a template from recorded traffic: the common structure of the flows of a type, with notes on the evidence.

It reads only messages of flows and their contracts, never a stored template. Envelopes name the steps, roots show their
triggers, decisions name gates and rules. Nothing can be inferred about cases that never occurred; the notes say so.
"""

from handrail.analysis.infer.notes import Notes
from handrail.analysis.infer.proposal import Inferred, infer
from handrail.analysis.infer.traffic import Traffic

__all__ = ["Inferred", "Notes", "Traffic", "infer"]
