"""The parts of `bench/scale.py`: each measures one thing on recorded flows, or beside a system under load."""
