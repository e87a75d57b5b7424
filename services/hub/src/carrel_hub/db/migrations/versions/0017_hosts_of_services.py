"""Which host a managed service is reached on, through that one's relay."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    column = sa.Column("host", sa.String(length=255), nullable=False, server_default="")
    op.add_column("services", column)
