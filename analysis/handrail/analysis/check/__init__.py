"""The flow type-check: finds errors of a template before it is stored, such as stranded flows and bypassed gates."""
