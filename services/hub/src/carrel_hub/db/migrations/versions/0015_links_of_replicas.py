"""Which process of PostgreSQL a replica's heartbeat comes through."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("replicas", sa.Column("link", sa.Integer(), nullable=True))
