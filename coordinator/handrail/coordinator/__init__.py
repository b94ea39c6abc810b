"""The coordinator: it appends a decision where choreography alone fails. Needs `handrail[coordinator]`."""
