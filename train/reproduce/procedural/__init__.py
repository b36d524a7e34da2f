"""The procedural world: classes, how each is drawn, scenes, splits. Knows nothing of the experiment."""
