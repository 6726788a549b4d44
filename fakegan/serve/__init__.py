"""A web page and a JSON API that give verdicts on pictures, by the detector of a run; nothing uploaded is kept."""
