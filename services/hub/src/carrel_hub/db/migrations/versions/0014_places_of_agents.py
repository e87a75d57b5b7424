"""Where an agent keeps its state, so that its copy on the same kernel is known."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "agents", sa.Column("place", sa.String(length=64), nullable=False, server_default="")
    )
