"""The fog node: gateway, ledger and API of the consortium's daemon."""
