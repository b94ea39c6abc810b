"""The wire format: subjects, ids and the envelope. This package alone builds and parses subjects and filters."""
