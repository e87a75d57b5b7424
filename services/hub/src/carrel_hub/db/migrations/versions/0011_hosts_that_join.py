"""Hosts that join, what they have, and who people are on them."""

from alembic import op
import sqlalchemy as sa

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    for column in (
        sa.Column("labels", sa.JSON(), nullable=False, server_default="{}"),
        sa.Column("homes", sa.String(255), nullable=False, server_default=""),
        sa.Column("clock_off", sa.Float(), nullable=False, server_default="0"),
        sa.Column("trouble", sa.String(), nullable=False, server_default=""),
        sa.Column("trouble_at", TIME, nullable=True),
        sa.Column("draining", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("joined_at", TIME, nullable=True),
        sa.Column("removed_at", TIME, nullable=True),
        sa.Column("credentials", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("address", sa.String(255), nullable=False, server_default=""),
        sa.Column("agent_port", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("relay_port", sa.Integer(), nullable=False, server_default="0"),
    ):
        op.add_column("agents", column)
    for name, kind, default in (
        ("reserved_memory", sa.BigInteger(), "0"),
        ("reserved_cores", sa.Float(), "0"),
        ("reserved_gpus", sa.Integer(), "0"),
    ):
        op.add_column("servers", sa.Column(name, kind, nullable=False, server_default=default))
    op.create_table(
        "join_tokens",
        sa.Column("token_hash", sa.String(64), primary_key=True),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("created", TIME, nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
    )
    op.create_index("ix_join_tokens_host", "join_tokens", ["host"])
    op.create_table(
        "host_accounts",
        sa.Column(
            "user_id",
            sa.Integer(),
            sa.ForeignKey("users.id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("host", sa.String(255), primary_key=True),
        sa.Column("account", sa.String(255), nullable=False),
        sa.Column("uid", sa.Integer(), nullable=False),
        sa.Column("gid", sa.Integer(), nullable=False),
        sa.Column("home", sa.String(), nullable=False),
        sa.Column("used_at", TIME, nullable=False),
    )
    op.create_index("ix_host_accounts_used_at", "host_accounts", ["used_at"])
