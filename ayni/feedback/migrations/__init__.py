"""The schema's history, run by `open_store` through alembic: users need no alembic.ini."""
