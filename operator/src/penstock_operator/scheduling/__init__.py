"""When a connection is due: cron in the connection's own time zone, and the claim that makes one run of one tick."""
