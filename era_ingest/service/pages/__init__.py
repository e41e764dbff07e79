"""The page of `era serve`: the corpus, its jobs, its quarantine and a search, for people in a browser.

Made on the server, whole at every request; it reads only. What changes while it is looked at (jobs) is fetched again
as a piece of HTML by a few lines of script; without them, reloading does the same.
"""
