"""From tables that exist to definitions that a person would have written."""
