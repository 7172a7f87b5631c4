"""The fleet's side: what receives entries. It never runs on a device."""
