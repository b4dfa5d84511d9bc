"""From a model's logits to output: scored, drawn, searched, stopped. No threads, no HTTP."""
