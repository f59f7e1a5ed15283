"""`replay show --html`: a run and its children as one page that needs nothing else, drawn as a Gantt chart.

`contents` turns a family of runs into data, `payloads` what its events carry into text; `document` puts data, style
and script into one file. `page.html`, `page.css` and the scripts beside them are the page itself: the scripts are
joined, in the order `document` names, into one that runs in the reader's browser.

Everything from a history is data there as well: it stands in blocks of JSON that no browser runs, is put on the page as
text only, and is cleaned of what acts on a reader's eyes (control characters, turned directions of writing). The page's
own policy lets nothing run but its script, and nothing be fetched at all.
"""
