"""A recipe becomes finished stages: settings, recipes, execution, sealing, the pipeline."""
