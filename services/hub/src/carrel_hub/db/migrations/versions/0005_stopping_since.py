"""When a server was asked to end."""

from alembic import op
import sqlalchemy as sa

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("servers", sa.Column("stopping_since", sa.DateTime(timezone=True), nullable=True))
