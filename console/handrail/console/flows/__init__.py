"""The list of flows: found by the API's filter language, which is in the page's address."""
