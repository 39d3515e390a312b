"""Manifests: one for each corpus that is known, and templates for one's own. `rho init` copies them."""
