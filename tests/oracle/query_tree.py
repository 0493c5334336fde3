"""Trees of queries whose parts can be replaced: what random queries are made of, and made small by."""


class Node:
    """An expression: its type, and text and expressions in turn."""

    def __init__(self, kind, *parts):
        self.kind, self.parts = kind, list(parts)

    def text(self):
        return "".join(part if isinstance(part, str) else part.text() for part in self.parts)

    def nodes(self):
        """(holder, index) of every expression below."""
        for at, part in enumerate(self.parts):
            if isinstance(part, Node):
                yield self.parts, at
                yield from part.nodes()
            elif isinstance(part, Query):
                yield from part.nodes()

    def queries(self):
        for part in self.parts:
            if isinstance(part, Query):
                yield part
            if isinstance(part, (Node, Query)):
                yield from part.queries()


class Item:
    """A column of a select list."""

    def __init__(self, node, alias, nullable=False, settled=False):
        self.node, self.alias, self.nullable = [node], alias, nullable
        # An array whose elements may come in any order.
        self.settled = settled

    @property
    def kind(self):
        return self.node[0].kind

    def text(self):
        return f"{self.node[0].text()} AS {self.alias}"


class Query:
    """A SELECT. Members that are None or empty are left out of the text."""

    def __init__(self):
        # (name, query), and (name, expression) of scalars.
        self.ctes = []
        # True, or the columns of DISTINCT ON.
        self.distinct = False
        self.items = []
        # Strings, and queries that stand in parentheses.
        self.source = []
        self.where = [None]
        self.group = None
        # "", ROLLUP, CUBE, GROUPING SETS, TOTALS or ALL.
        self.sets = ""
        self.having = [None]
        self.order = []
        self.fill = None
        # Which sort key is filled, and what INTERPOLATE says.
        self.fill_at, self.interpolate = 0, ""
        # What WINDOW defines.
        self.window = ""
        self.limit_by = None
        self.limit = None
        # What stands for the items instead of them: `*`, `t.*`.
        self.star = ""
        # Whether GROUP BY and ORDER BY name columns by their positions, and whether WHERE is PREWHERE.
        self.positions, self.prewhere = False, False
        # (operator, Query)
        self.branch = None

    def text(self):
        found = []
        if self.ctes:
            found.append("WITH " + ", ".join(f"{name} AS ({value.text()})" if isinstance(value, Query)
                                             else f"{value.text()} AS {name}" for name, value in self.ctes))
        distinct = f"DISTINCT ON ({self.distinct}) " if isinstance(self.distinct, str) else "DISTINCT " if self.distinct else ""
        found.append(f"SELECT {distinct}{self.star or self.text_of_items()}")
        source = "".join(part if isinstance(part, str) else f"({part.text()})" if isinstance(part, Query) else part.text()
                         for part in self.source)
        found.append(f"FROM {source}")
        if self.where[0]:
            found.append(f"{'PREWHERE' if self.prewhere else 'WHERE'} {self.where[0].text()}")
        if self.group is not None:
            keys = ", ".join(self.named(node.text()) for node in self.group)
            found.append({"": f"GROUP BY {keys}", "ALL": "GROUP BY ALL", "TOTALS": f"GROUP BY {keys} WITH TOTALS",
                          "GROUPING SETS": f"GROUP BY GROUPING SETS (({keys}), ({self.named(self.group[0].text())}), ())"}.get(
                              self.sets, f"GROUP BY {self.sets}({keys})"))
        if self.having[0]:
            found.append(f"HAVING {self.having[0].text()}")
        if self.window:
            found.append(f"WINDOW {self.window}")
        if self.order:
            found.append("ORDER BY " + ", ".join(
                f"{self.named(alias)}{way}{' ' + self.fill if self.fill and at == self.fill_at else ''}"
                for at, (alias, way) in enumerate(self.order)))
            if self.fill and self.interpolate:
                found.append(self.interpolate)
        if self.limit_by:
            found.append(f"LIMIT {self.limit_by[0]} BY {self.limit_by[1]}")
        if self.limit:
            found.append(self.limit)
        if self.branch:
            found.append(f"{self.branch[0]} {self.branch[1].text()}")
        return " ".join(found)

    def named(self, alias):
        """A column in GROUP BY and ORDER BY."""
        aliases = [item.alias for item in self.items]
        return str(aliases.index(alias) + 1) if self.positions and alias in aliases else alias

    def text_of_items(self):
        return ", ".join(item.text() for item in self.items)

    def holders(self):
        """Lists that hold expressions of this very query."""
        yield from (item.node for item in self.items)
        yield self.where
        yield self.having
        if self.group:
            yield self.group
        yield self.source

    def nodes(self):
        for holder in self.holders():
            for at, part in enumerate(holder):
                if isinstance(part, Node):
                    yield holder, at
                    yield from part.nodes()
                elif isinstance(part, Query):
                    yield from part.nodes()
        for _, query in self.ctes:
            yield from query.nodes()
        if self.branch:
            yield from self.branch[1].nodes()

    def queries(self):
        yield self
        for holder in self.holders():
            for part in holder:
                if isinstance(part, (Node, Query)):
                    yield from part.queries()
        for _, query in self.ctes:
            yield from query.queries()
        if self.branch:
            yield from self.branch[1].queries()

    def case(self, endpoint):
        """The query as a case, or None when its answer is not decided by its text."""
        aliases = [item.alias for item in self.items]
        total = bool(self.order) and {alias for alias, _ in self.order} >= set(aliases) and not self.branch
        cut = lambda query: query.limit or query.limit_by or isinstance(query.distinct, str)
        if any(map(cut, self.queries())):
            for query in self.queries():
                names = {item.alias for item in query.items}
                if cut(query) and not {alias for alias, _ in query.order} >= names:
                    return None
        settled = [item.alias for item in self.items if item.settled]
        if self.branch:
            settled += [one.alias for one, other in zip(self.items, self.branch[1].items) if other.settled]
        return {"endpoint": endpoint, "sql": self.text(), "ordered": total, "set_columns": settled, "absolute": 1e-6,
                "tolerance": {}}


class Column:
    """What an expression may name."""

    def __init__(self, name, kind, nullable=False):
        self.name, self.kind, self.nullable = name, kind, nullable
