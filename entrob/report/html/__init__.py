"""One HTML file that works offline: for an experiment, a leaderboard, the theory, or an export.

Charts are Vega-Lite specifications made by altair, tables are itables', text is set by Jinja2; all
come with the extra ``[html]``.  A page holds one bundle of each library and its data, and its
content security policy forbids every request.

`page` knows what a page is made of, `charts` what charts share; `leaderboard`, `experiment`,
`theory` and `exported` each write one kind of page.
"""
