"""The changes from one template to another, as sentences for people."""
