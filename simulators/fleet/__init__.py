"""A fleet to try against: many devices in few processes, for whoever operates one.

Each device is a whole agent: its journal in a file of its own, keys, roster, trust, bundles, config trials,
commands, uplink and downlink, wired as `agent.app` wires them, on a connection of its own. Several share a
process and its event loop, as no device would. Made up are the devices at their ports (`synthetic`), which
say what a driver would say, and civil time: every device has a wall clock of its own that is wrong by its own
amount. Time does not run faster here: what an agent waits for is timed by the loop's clock, and an agent
whose clocks disagree shows nothing that a device would.

This package is the second that knows the agent, beside the demo: what it plays is the fleet of agents itself,
and a copy of their logic would prove nothing about them. It imports no driver.
"""
