"""The gateway: takes packs in from boards, admits or refuses them, and answers."""
