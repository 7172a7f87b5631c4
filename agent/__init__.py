"""The edge agent: decides, remembers, and tells the fleet."""

VERSION = "0.1.0"
