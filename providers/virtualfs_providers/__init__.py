"""One file per warehouse or online store; see providers/README.md."""
