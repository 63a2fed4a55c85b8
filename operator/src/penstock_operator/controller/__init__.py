"""The controller: brings what the resources ask for about, level-triggered; memory is only a cache."""
