"""The index: one row a flow, and rows for what people look for. In SQLite, or in PostgreSQL for several machines.

It holds no bodies and no row for each message. Whoever writes it stores rows and position in one transaction, so a
crash loses nothing and counts nothing twice. An index of another schema, of another stream, or that can't be read is
thrown away and computed anew.
"""
