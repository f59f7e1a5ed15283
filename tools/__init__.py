"""The `replay` and `dalsegno` commands."""
