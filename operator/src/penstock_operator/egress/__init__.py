"""The egress gateway: run pods reach the hosts of their manifest through it, and nothing else."""
