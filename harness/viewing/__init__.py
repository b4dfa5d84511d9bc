"""A local page over runs: which there are, reports, every item, two beside one another, one in progress.

| Module | Does |
| --- | --- |
| `settings` | the flags of `view` |
| `guarding` | lets nobody in but this machine's own browser, and says what pages may load |
| `folders` | finds the runs of a folder, and says in what state they are |
| `itemtable` | every item of some endpoints, in columns that stay in memory; filters and sorts them |
| `rows` | reads item tables, a few row groups at a time |
| `building` | joins endpoints to one table of items |
| `opened` | what single items ask, and one item whole |
| `live` | how far a run in progress has come, and its scores so far |
| `shelves` | keeps what takes long to make, within bounds |
| `picking` | the runs that a request names; reports and comparisons of them |
| `pages` | the pages, out of `templates/` and those of reports |
| `answers` | what requests are answered with |
| `app` | what is where: addresses to pages and data |
| `local` | serves it on loopback |

Nothing is written: whoever looks at a run changes nothing in it.
"""
