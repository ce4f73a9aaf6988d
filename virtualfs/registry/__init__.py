"""What is remembered: definitions, their versions, and the revisions that changed them."""
