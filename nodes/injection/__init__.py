"""Load Reference Adapter, Inject References, and packs: references -> a model that sees them."""
