"""`replay lint`: finds in source what would make a workflow leave its recorded path, with line, reason and remedy.

Data flows one way: `sources` reads a file and knows what its names mean; `reach` finds the code that runs inside
workflows; `asking` and `flowing` look through that code; `linting` takes out what a comment excuses; `report` and
`command` show it. `rules` is the table of everything that can be found, from which docs/lint.md is made.

Nothing is imported or run: a file is read as text, so code can be checked that would not start here.
"""
