"""Logs of attempts: read live from the pod, stored in the bucket, and read again from there."""
