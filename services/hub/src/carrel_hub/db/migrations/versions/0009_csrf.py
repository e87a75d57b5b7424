"""Who refuses what pages of other origins send to a server."""

from alembic import op
import sqlalchemy as sa

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "servers",
        sa.Column("csrf", sa.String(length=8), nullable=False, server_default="origin"),
    )
