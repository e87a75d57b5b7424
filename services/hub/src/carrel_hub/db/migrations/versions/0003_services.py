"""Services, tokens that services own, display names of servers, codes for any client."""

from alembic import op
import sqlalchemy as sa

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "services",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("admin", sa.Boolean(), nullable=False),
        sa.Column("from_settings", sa.Boolean(), nullable=False),
        sa.Column("url", sa.String(), nullable=True),
        sa.Column("command", sa.JSON(), nullable=False),
        sa.Column("info", sa.JSON(), nullable=False),
        sa.Column("display", sa.Boolean(), nullable=False),
        sa.Column("client_id", sa.String(length=255), nullable=True),
        sa.Column("secret_hash", sa.String(length=64), nullable=False),
        sa.Column("redirect_uri", sa.String(), nullable=True),
        sa.Column("allowed_scopes", sa.JSON(), nullable=False),
        sa.Column("no_confirm", sa.Boolean(), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_services_name", "services", ["name"], unique=True)
    op.create_index("ix_services_client_id", "services", ["client_id"], unique=True)

    # Added, not made anew: SQLite would take what refers to a server with the old table.
    op.add_column(
        "servers",
        sa.Column("display_name", sa.String(length=255), nullable=False, server_default=""),
    )
    op.add_column(
        "servers",
        sa.Column("remove_when_stopped", sa.Boolean(), nullable=False, server_default=sa.false()),
    )
    op.add_column(
        "servers",
        sa.Column("contract", sa.String(length=16), nullable=False, server_default="carrel"),
    )

    with op.batch_alter_table("tokens") as tokens:
        tokens.alter_column("user_id", existing_type=sa.Integer(), nullable=True)
        tokens.add_column(sa.Column("service_id", sa.Integer(), nullable=True))
        tokens.create_foreign_key(
            "fk_tokens_service_id", "services", ["service_id"], ["id"], ondelete="CASCADE"
        )
        tokens.create_index("ix_tokens_service_id", ["service_id"], unique=False)

    with op.batch_alter_table("oauth_codes") as codes:
        codes.add_column(sa.Column("service_id", sa.Integer(), nullable=True))
        codes.add_column(
            sa.Column("challenge_method", sa.String(length=8), nullable=False, server_default="S256")
        )
        codes.add_column(sa.Column("scopes", sa.JSON(), nullable=False, server_default="[]"))
        codes.create_foreign_key(
            "fk_oauth_codes_service_id", "services", ["service_id"], ["id"], ondelete="CASCADE"
        )
        codes.create_index("ix_oauth_codes_service_id", ["service_id"], unique=False)
