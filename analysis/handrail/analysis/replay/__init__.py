"""What-if: a template's gates and rules, run over flows that were recorded under another version.

Pure. `docs/what-if.md` says what is replayed and what is not.
"""
