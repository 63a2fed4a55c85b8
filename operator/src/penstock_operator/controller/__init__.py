"""The controller: makes the registry and the runs agree with the resources. It is level-triggered, and memory is only a cache."""
