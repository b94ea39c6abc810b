"""What is on the wire: subjects, ids and the envelope. Every subject and filter is built and parsed here."""
