"""Learning across sites: updates leave a site, readings do not."""
