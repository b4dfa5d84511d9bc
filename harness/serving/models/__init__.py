"""Language models to be served: what one must offer (`seam`), and those that do."""
