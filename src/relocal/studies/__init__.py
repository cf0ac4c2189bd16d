"""Studies: losses on the same scenes with several seeds, and what may be said of them."""
