"""The first page: what needs a person, how flows, agents and the coordinator are."""
