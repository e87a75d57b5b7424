"""Which servers run here: the journal, one state machine for each server, reports to the hub."""
