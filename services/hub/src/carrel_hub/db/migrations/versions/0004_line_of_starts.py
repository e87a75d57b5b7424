"""When a start was let in, for those that wait for their turn."""

from alembic import op
import sqlalchemy as sa

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("servers", sa.Column("admitted_at", sa.DateTime(timezone=True), nullable=True))
    # What is under way goes on; nobody waits yet.
    op.execute("UPDATE servers SET admitted_at = requested_at WHERE state IN ('queued', 'starting')")
