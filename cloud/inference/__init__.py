"""Models at work beside a fog node: what they say of images becomes transactions."""
