"""Lists of users by their last activity, however many there are."""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_users_last_activity", "users", ["last_activity"])
