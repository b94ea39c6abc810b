"""The language in which lists are filtered: AIP-160, as people type it (docs/filters.md).

    condition = check(parse(text), Scope(now=now, attributes=declared, flow_types=names))
    order = parse_order(order_by)
    query = select(flow).where(where(condition), order.after(place)).order_by(*order.by()).limit(size)

1. `parse` gives the tree of a filter, and `text_of` its canonical text.
2. `check` knows the fields. Give it the attributes and flow types of all stored templates that the caller may read.
3. `where` knows the tables. A page continues with `order.after(the place of the last row)`.

Whatever a stranger types, `parse`, `check` and `parse_order` raise nothing but BAD_FILTER, printable and with a column.
"""

from handrail.visibility.filter.check import check
from handrail.visibility.filter.condition import Condition
from handrail.visibility.filter.fields import Scope
from handrail.visibility.filter.order import NEWEST_FIRST, Order, Place, parse_order
from handrail.visibility.filter.sql import where
from handrail.visibility.filter.syntax import parse, text_of

__all__ = ["NEWEST_FIRST", "Condition", "Order", "Place", "Scope", "check", "parse", "parse_order", "text_of", "where"]
