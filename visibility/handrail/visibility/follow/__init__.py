"""Follows FLOW: reads it in stream order, folds what is new, and has the rows written."""
