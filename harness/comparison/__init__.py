"""Is one endpoint really better than another? Paired statistics, item by item.

    Columns of each endpoint ─matching─▶ Matched pair ─measures─▶ differences ─paired─▶ mean, error, tests
                                                                                             │
                   gate ◀─ rows with verdicts ◀─verdicts─ corrected for the family ◀─families┘

Everything here is pure: arrays in, records out. Formulas are those of Miller (2024), "Adding Error Bars to
Evals", and of the papers that the functions name. Nothing here knows where scores come from.
"""
