"""What Prometheus is told: durations this process measured, and counts read from the database."""
