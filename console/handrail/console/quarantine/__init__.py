"""Messages that broke their contract, with their bytes."""
