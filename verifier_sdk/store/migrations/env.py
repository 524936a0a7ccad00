"""Run by Alembic, on the connection that `coin_protocol.database.migrate` gives it."""

from alembic import context

from verifier_sdk.store.all_tables import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    # A provider's tables may lie in the same database, under versions of their own.
    version_table="verifier_alembic_version",
    render_as_batch=True,
    transactional_ddl=False,  # the caller's transaction is the only one
)
context.run_migrations()
