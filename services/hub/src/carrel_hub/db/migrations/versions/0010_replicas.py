"""Several hubs on one database, and routes that a new epoch keeps for a while."""

from alembic import op
import sqlalchemy as sa

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "replicas",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("address", sa.String(), nullable=False),
        sa.Column("version", sa.String(length=64), nullable=False),
        sa.Column("agreed", sa.JSON(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("holder", sa.String(length=16), nullable=False),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.add_column(
        "servers",
        sa.Column("driver", sa.String(length=16), nullable=False, server_default=""),
    )
    op.add_column(
        "servers", sa.Column("fence", sa.Integer(), nullable=False, server_default="0")
    )
    op.add_column(
        "route_counter", sa.Column("begun_at", sa.DateTime(timezone=True), nullable=True)
    )
    op.add_column(
        "proxies", sa.Column("kept", sa.JSON(), nullable=False, server_default="[]")
    )
