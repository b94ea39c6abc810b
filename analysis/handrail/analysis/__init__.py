"""What judges templates and contracts, and never acts: checks, differences, proposals, replays, pictures."""
