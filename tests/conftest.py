"""Settings for every test."""

from hypothesis import settings

# A loaded machine is no bug: examples are bounded by their number, never by the time one takes.
settings.register_profile("handrail", deadline=None)
settings.load_profile("handrail")
