"""The page of a flow: why it is where it is, what comes next, and all that happened."""
