"""What is watched: data that breaks what features assume of it."""
