"""Log-probabilities to numbers: what an item's score is, what metrics say of it, estimates over many; pure.

answers ─scores─▶ ItemScore ─metrics─▶ Verdict ─estimates, summaries─▶ Estimate
                      ▲
                   asides: what is asked beside an item, where a metric needs it
"""
