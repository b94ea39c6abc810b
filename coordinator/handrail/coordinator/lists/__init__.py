"""Lists of flows and divergences, read straight from the streams: exact, and slower the larger a stream is."""
