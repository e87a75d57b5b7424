"""Which machine an agent runs on, so that its copy on another is known."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("machine", "other_machine"):
        op.add_column(
            "agents", sa.Column(name, sa.String(length=64), nullable=False, server_default="")
        )
