"""What-if over recorded flows: read from the stream, replayed in processes of their own."""
