"""Attempts: launched, watched, and ended when their pods do not report their own end."""
