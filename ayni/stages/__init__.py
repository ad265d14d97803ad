"""One file a stage: one Config, one run(). Stages never import stages."""
