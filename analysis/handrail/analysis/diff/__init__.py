"""What changes from one template to another, in sentences."""
