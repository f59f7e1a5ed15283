"""Small real programs; `dalsegno demo` runs the first of them."""
