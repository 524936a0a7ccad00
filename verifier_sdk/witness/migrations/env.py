"""Run by Alembic, on the connection that `coin_protocol.database.migrate` gives it."""

from alembic import context

from verifier_sdk.witness.tables import METADATA, VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    version_table=VERSION_TABLE,
    render_as_batch=True,
    transactional_ddl=False,  # the caller's transaction is the only one
)
context.run_migrations()
