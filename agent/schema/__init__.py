"""What goes over the wire and into files, described for others: JSON Schema and one AsyncAPI document.

`postern schema` prints it. Everything is made from the models and tables that the agent itself goes by; what
has no model, the data of entries, stands in the catalogue of entry types. No device needs any of this to run.
"""
