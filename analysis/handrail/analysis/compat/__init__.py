"""What changes between two states of the contracts, and whom it affects."""
