"""What changes from one state of the contracts to another, and whom it hits."""
