"""The audit: one append-only table of every action, refusal, state change, admission and credential write."""
