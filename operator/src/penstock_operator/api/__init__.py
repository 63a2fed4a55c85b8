"""The run API, for pods, and the read API, for people and tools. Stateless: any replica can answer any call."""
