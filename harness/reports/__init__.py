"""Reports of runs: what they show (`records`), its plots, its items, and the page that holds them all.

| Module | Does |
| --- | --- |
| `records` | says what a report is made of: records only |
| `palette` | colours of light and dark pages, and the look of plots |
| `drawing` | draws plots: SVG, PNG, and SVG that may stand in a page |
| `axes` | what plots share |
| `accuracies`, `changes`, `spreads` | the plots, a function each; each is a row of `plots` |
| `pace` | reads how fast a run went: latencies from journals, pace from its log file |
| `settled` | says settings and hashes for people |
| `wording` | ids of tokens to texts, with the tokenizer that the run used, if it is at hand |
| `documents` | what was asked of single items and what came back, token by token |
| `itemdata` | all items for the browser: in columns, compressed, within a budget |
| `page` | the page, out of `templates/` |
| `joining`, `gathered` | read runs into records |
| `writing` | all of it, from folders to `report.html` and `plots/` |
"""
