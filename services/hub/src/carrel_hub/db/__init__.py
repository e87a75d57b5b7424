"""The hub's database: engines, models, migrations. The only truth the hub has lives here."""
