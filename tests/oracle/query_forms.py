"""Forms of random queries beyond one SELECT over one table: what joins, WITH, set operators, arrays, windows, WITH FILL,
GROUP BY and time zones have besides what random_queries.py makes itself."""

from query_tree import Column, Item, Node, Query

ZONES = ["'America/New_York'", "'Asia/Kolkata'", "'Europe/Berlin'", "'Pacific/Auckland'", "'UTC'"]


class Forms:
    """A part of Maker, which has the expressions."""

    def other_form(self):
        return self.pick(self.asof, self.comma, self.using, self.any_or_semi, self.three_sides, self.two_conditions, self.cte_twice,
                         self.scalar_with, self.scalars, self.many_branches, self.array_join_clause, self.array_joins, self.lambdas,
                         self.filled_more, self.windows, self.grouping, self.distinct_on, self.zoned, self.tuples, self.nulls)()

    # Joins

    def side(self, kind, key=None, plain=False):
        """A query with one row for each value of its first column: (query, its columns)."""
        side = Query()
        side.source, scope = self.source(0)
        side.items = [Item(self.expression(kind, scope, 1), key or self.name("k"))]
        side.items += [self.settled_aggregate(scope) for _ in range(1 if plain else self.dice.randint(1, 2))]
        side.group = [Node(kind, side.items[0].alias)]
        if self.chance(3):
            side.where = [self.filter(scope, 1)]
        return side

    def settled_aggregate(self, scope):
        """An aggregate whose value is decided."""
        while True:
            item = self.aggregate(scope, 1)
            if not item.settled:
                return item

    @staticmethod
    def columns(alias, query):
        prefix = f"{alias}." if alias else ""
        return [Column(f"{prefix}{item.alias}", item.kind, item.nullable) for item in query.items if not item.settled]

    def over(self, source, scope, where=None):
        """A SELECT of columns, of expressions over them, or of groups."""
        query = Query()
        query.source, query.where = source, [where]
        form = self.dice.randrange(4)
        if form == 0:
            keys = [self.item(self.any_kind(scope), scope, 1)]
            query.items = keys + [self.aggregate(scope, 1) for _ in range(2)]
            query.group = [Node(item.kind, item.alias) for item in keys]
        elif form == 1:
            query.items = [self.item(self.any_kind(scope), scope, 2) for _ in range(2)]
            query.distinct = True
        else:
            query.items = [Item(Node(column.kind, column.name), self.name(), column.nullable) for column in scope]
        return self.ends(query)

    def asof(self):
        """The nearest row of the other side; of each side there is one row for a key and a moment."""
        sides, moment = [], self.pick("T", "D", "I")
        for _ in range(2):
            side = Query()
            side.source, scope = self.source(0)
            side.items = [Item(self.expression("S", scope, 0), self.name("k")), Item(self.expression(moment, scope, 0), self.name("t")),
                          self.settled_aggregate(scope)]
            side.group = [Node("S", side.items[0].alias), Node(moment, side.items[1].alias)]
            if self.chance(2):
                side.where = [self.filter(scope, 1)]
            sides.append(side)
        one, other = self.name("l"), self.name("r")
        how, sign = self.pick("ASOF JOIN", "ASOF LEFT JOIN"), self.pick(">=", ">", "<", "<=")
        (key, time), (other_key, other_time) = ([item.alias for item in side.items[:2]] for side in sides)
        on = f" ON {one}.{key} = {other}.{other_key} AND {one}.{time} {sign} {other}.{other_time}"
        source = [sides[0], f" AS {one} {how} ", sides[1], f" AS {other}{on}"]
        return self.over(source, self.columns(one, sides[0]) + self.columns(other, sides[1]))

    def comma(self):
        kind = self.pick("S", "D", "I")
        sides = [self.side(kind), self.side(kind)]
        one, other = self.name("l"), self.name("r")
        keys = [side.items[0].alias for side in sides]
        scope = self.columns(one, sides[0]) + self.columns(other, sides[1])
        where = Node("B", f"({one}.{keys[0]} = {other}.{keys[1]})")
        if self.chance(2):
            where = Node("B", "(", where, " AND ", self.condition(scope, 1), ")")
        return self.over([sides[0], f" AS {one}, ", sides[1], f" AS {other}"], scope, where)

    def using(self):
        kind, key = self.pick("S", "S", "D", "T"), self.name("k")
        sides = [self.side(kind, key), self.side(kind, key)]
        one, other = self.name("l"), self.name("r")
        how = self.pick("JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN")
        scope = [column for column in self.columns(one, sides[0]) + self.columns(other, sides[1]) if not column.name.endswith(f".{key}")]
        scope.append(Column(key, kind))
        on = self.pick(f"USING ({key})", f"USING {key}")
        return self.over([sides[0], f" AS {one} {how} ", sides[1], f" AS {other} {on}"], scope)

    def any_or_semi(self):
        kind = self.pick("S", "D", "I")
        sides = [self.side(kind), self.side(kind)]
        one, other = self.name("l"), self.name("r")
        how = self.pick("ANY JOIN", "ANY LEFT JOIN", "ANY RIGHT JOIN", "RIGHT SEMI JOIN", "RIGHT ANTI JOIN", "SEMI LEFT JOIN", "ANTI LEFT JOIN",
                        "LEFT ANY JOIN", "GLOBAL JOIN", "LEFT OUTER JOIN", "FULL OUTER JOIN")
        on = f" ON {one}.{sides[0].items[0].alias} = {other}.{sides[1].items[0].alias}"
        scope = self.columns(one, sides[0]) + self.columns(other, sides[1])
        if "SEMI" in how or "ANTI" in how:
            left = "LEFT" in how
            scope = self.columns(one, sides[0]) if left else self.columns(other, sides[1])
        return self.over([sides[0], f" AS {one} {how} ", sides[1], f" AS {other}{on}"], scope)

    def three_sides(self):
        sides = [self.side("S", plain=True) for _ in range(3)]
        names = [self.name("j") for _ in sides]
        keys = [f"{name}.{side.items[0].alias}" for name, side in zip(names, sides)]
        hows = [self.pick("JOIN", "LEFT JOIN", "INNER JOIN") for _ in range(2)]
        source = [sides[0], f" AS {names[0]} {hows[0]} ", sides[1], f" AS {names[1]} ON {keys[0]} = {keys[1]} {hows[1]} ", sides[2],
                  f" AS {names[2]} ON {keys[0]} = {keys[2]}"]
        scope = [column for name, side in zip(names, sides) for column in self.columns(name, side)]
        return self.over(source, scope, self.condition(scope, 1) if self.chance(3) else None)

    def two_conditions(self):
        """ON with more than an equality."""
        kind = self.pick("S", "D")
        sides = [self.side(kind), self.side(kind)]
        for side in sides:
            side.items.insert(1, Item(Node("U", "count()"), self.name("n")))
        one, other = self.name("l"), self.name("r")
        how = self.pick("JOIN", "LEFT JOIN", "INNER JOIN")
        on = (f" ON {one}.{sides[0].items[0].alias} = {other}.{sides[1].items[0].alias} AND "
              f"{one}.{sides[0].items[1].alias} {self.pick('=', '=', '>', '<=')} {other}.{sides[1].items[1].alias}")
        return self.over([sides[0], f" AS {one} {how} ", sides[1], f" AS {other}{on}"],
                         self.columns(one, sides[0]) + self.columns(other, sides[1]))

    # WITH and subqueries

    def cte_twice(self):
        """CTEs over each other, read more than once."""
        first = self.side(self.pick("S", "D"))
        name, other = self.name("w"), self.name("w")
        second = Query()
        second.source = [name]
        scope = self.columns("", first)
        second.items = [Item(Node(first.items[0].kind, first.items[0].alias), self.name("k")), self.settled_aggregate(scope)]
        second.group = [Node(first.items[0].kind, second.items[0].alias)]
        query = None
        if self.chance(2):
            one, two = self.name("l"), self.name("r")
            query = self.over([f"{name} AS {one} JOIN {other} AS {two} ON {one}.{first.items[0].alias} = {two}.{second.items[0].alias}"],
                              self.columns(one, first) + self.columns(two, second))
        else:
            query = self.over([name], scope)
            inner = Query()
            inner.source, inner.items = [other], [Item(Node(second.items[0].kind, second.items[0].alias), self.name())]
            test = Node("B", Node(first.items[0].kind, first.items[0].alias), f" {self.pick('IN', 'NOT IN')} (", inner, ")")
            query.where = [test]
        query.ctes = [(name, first), (other, second)]
        return query

    def scalar_query(self, kind):
        inner = Query()
        inner.source, scope = self.source(0)
        inner.items = [Item(Node(kind, f"{self.pick('max', 'min')}(", self.expression(kind, scope, 1), ")"), self.name())]
        if self.chance(2):
            inner.where = [self.filter(scope, 1)]
        return inner

    def scalar_with(self):
        """`WITH 5 AS n` and `WITH (SELECT ..) AS m`, as expressions and in WHERE."""
        kind = self.pick("I", "F", "S", "T")
        number, scalar = self.name("n"), self.name("m")
        query = Query()
        query.source, scope = self.source(0)
        query.ctes = [(number, self.leaf("I", [])), (scalar, Node(kind, "(", self.scalar_query(kind), ")"))]
        scope = [*scope, Column(number, "I"), Column(scalar, kind, True)]
        key = self.item(self.any_kind(scope), scope, 1)
        query.items = [key, self.aggregate(scope, 1), Item(Node("I", f"count() + {number}"), self.name())]
        query.group = [Node(key.kind, key.alias)]
        sign = self.pick("<", ">=", "!=")
        query.where = [Node("B", "(", self.expression(kind, scope[:-1], 1), f" {sign} {scalar})")]
        return self.ends(query)

    def scalars(self):
        """Scalar subqueries as columns and in expressions."""
        query = Query()
        query.source, scope = self.source(0)
        kind = self.pick("I", "F", "S")
        key = self.item(self.any_kind(scope), scope, 1)
        scalar = Node(kind, "(", self.scalar_query(kind), ")")
        query.items = [key, Item(scalar, self.name(), True),
                       Item(Node("U", "countIf(", self.expression(kind, scope, 1), " < ", Node(kind, "(", self.scalar_query(kind), ")"), ")"), self.name())]
        query.group = [Node(key.kind, key.alias)]
        return self.ends(query)

    def many_branches(self):
        """Three branches of one width, or a set operator inside FROM or IN."""
        kinds = [self.pick("S", "I", "D", "F") for _ in range(self.dice.randint(1, 3))]

        def branch():
            query = Query()
            query.source, scope = self.source(0)
            query.items = [Item(self.expression(kind, scope, 1), self.name()) for kind in kinds]
            query.distinct = True
            if self.chance(2):
                query.where = [self.condition(scope, 1)]
            return query

        one, two, three = branch(), branch(), branch()
        operator = self.pick("UNION ALL", "UNION DISTINCT", "EXCEPT", "INTERSECT")
        two.branch = (operator if operator.startswith("UNION") else self.pick("UNION ALL", "UNION DISTINCT"), three) if self.chance(2) else None
        one.branch = (two.branch[0] if two.branch else operator, two)
        if self.chance(2):
            return one
        if self.chance(2):
            return self.over([one], self.columns("", one))
        query = Query()
        query.source, scope = self.source(0)
        query.items = [self.aggregate(scope, 1) for _ in range(2)]
        for each in (one, two, three):
            each.items = each.items[:1]
        query.where = [Node("B", self.expression(kinds[0], scope, 1), f" {self.pick('IN', 'NOT IN')} (", one, ")")]
        return query

    # Arrays

    def array_join_clause(self):
        query = Query()
        table, scope = self.table()
        if not any(column.kind == "A" for column in scope):
            return self.scalars()
        element = self.name("e")
        how = self.pick("ARRAY JOIN", "ARRAY JOIN", "LEFT ARRAY JOIN")
        scope = [*scope, Column(element, "S")]
        query = self.over([f"{table} {how} ", self.expression("A", scope[:-1], 1), f" AS {element}"], scope)
        if len(query.items) > 6:
            query.items, query.distinct = [Item(Node("S", element), self.name()), self.item("S", scope, 1)], True
            query.order, query.limit_by, query.limit = [], None, None
        if not query.where[0] and self.chance(2):
            query.where = [self.condition(scope, 1)]
        return query

    def array_joins(self):
        """arrayJoin of two arrays, in aggregates and in WHERE."""
        query = Query()
        query.source, scope = self.source(0)
        if not any(column.kind == "A" for column in scope):
            return self.scalars()
        one = self.expression("A", scope, 1)
        again = Node("S", "arrayJoin(", one, ")")
        form = self.dice.randrange(3)
        query.items = [Item(Node("S", "arrayJoin(", one, ")"), self.name())]
        if form == 0:
            query.items.append(Item(Node("S", "arrayJoin(", self.expression("A", scope, 1), ")"), self.name()))
            query.items.append(Item(Node("U", "count()"), self.name()))
            query.group = [Node("S", item.alias) for item in query.items[:2]]
        elif form == 1:
            query.items.append(Item(Node("U", "length(", again, ")"), self.name()))
            query.where = [Node("B", again, f" {self.pick('!=', '>', 'LIKE')} ", self.leaf("S", []))]
            query.distinct = True
        else:
            query.items = [Item(Node("U", f"{self.pick('uniqExact', 'count')}(", again, ")"), self.name()), self.settled_aggregate(scope)]
        return self.ends(query)

    def lambdas(self):
        """Lambdas of two parameters, inside each other, and arrays of numbers."""
        query = Query()
        query.source, scope = self.source(0)
        if not any(column.kind == "A" for column in scope):
            return self.scalars()
        array = self.leaf("A", scope)
        x, y, z = self.name("x"), self.name("y"), self.name("z")
        inner = [*scope, Column(x, "S"), Column(y, "S")]
        query.items = [
            Item(Node("A", f"arrayFilter(({x}, {y}) -> ", self.condition(inner, 1), ", ", array, ", ", array, ")"), self.name()),
            Item(Node("A", f"arrayFilter({z} -> has(", self.expression("A", scope, 1), f", {z}), ", self.expression("A", scope, 1), ")"), self.name()),
            Item(Node("B", f"{self.pick('has', 'has')}([", self.expression("I", scope, 1), ", ", self.expression("I", scope, 1), "], ",
                      self.expression("I", scope, 1), ")"), self.name()),
            Item(Node("I", "[", self.expression("I", scope, 1), ", ", self.expression("I", scope, 1), f"][{self.pick(1, 2, 3, -1)}]"), self.name())]
        query.distinct = True
        if self.chance(2):
            query.where = [Node("B", "length(", query.items[0].node[0], f") {self.pick('>', '=')} {self.pick(0, 1)}")]
        return query

    # GROUP BY, windows, WITH FILL

    def filled_more(self):
        """WITH FILL backwards, behind another key, with INTERPOLATE."""
        query = Query()
        query.source, scope = self.source(0)
        time = next(column for column in scope if column.name.endswith("time"))
        moment = f"fromUnixTimestamp64Milli({time.name})" if time.kind == "I" else time.name
        key = Item(Node("D", f"{self.pick('toDate', 'toStartOfMonth')}({moment})"), self.name())
        values = [self.settled_aggregate(scope) for _ in range(2)]
        texts = [column for column in scope if column.kind == "S" and not column.nullable]
        prefix = Item(Node("S", self.dice.choice(texts).name), self.name("p")) if self.chance(2) and texts else None
        query.items = ([prefix] if prefix else []) + [key, *values]
        query.group = [Node(item.kind, item.alias) for item in query.items if item not in values]
        query.where = [Node("B", f"{moment} >= toDate('2024-02-20')")]
        down = self.chance(3)
        query.order = ([(prefix.alias, self.pick("", " DESC"))] if prefix else []) + [(key.alias, " DESC" if down else "")]
        query.fill_at = 1 if prefix else 0
        low, high = "toDate('2024-02-25')", "toDate('2024-03-24')"
        first, last = (high, low) if down else (low, high)
        bounds = self.pick("", f" FROM {first}", f" TO {last}", f" FROM {first} TO {last}")
        step = self.pick("1", "3", "INTERVAL 1 WEEK", "INTERVAL 1 DAY", "toIntervalDay(2)")
        step = f" STEP {'-' if down else ''}{step}" if not down or "(" not in step else " STEP -2"
        if down and "INTERVAL" in step:
            step = step.replace("-INTERVAL 1", "INTERVAL -1")
        query.fill = f"WITH FILL{bounds}{step if down or self.chance(2) else ''}"
        if self.chance(2):
            value = values[0]
            kinds = {"I": f"{value.alias} + 1", "U": f"{value.alias} + 1", "S": f"concat({value.alias}, '.')", "F": f"{value.alias} * 2"}
            query.interpolate = self.pick("INTERPOLATE", f"INTERPOLATE ({value.alias})",
                                          f"INTERPOLATE ({value.alias} AS {kinds.get(value.kind, value.alias)})")
            if any(item.nullable for item in values):
                query.interpolate = f"INTERPOLATE ({value.alias})"
        return query

    def windows(self):
        """Windows with names, of aggregates that keep rows, over NULLs, by several keys."""
        inner = Query()
        inner.source, scope = self.source(0)
        kind = self.pick("S", "D", "I")
        key, other = Item(self.expression(kind, scope, 1), self.name("k")), Item(self.expression("S", scope, 0), self.name("k"))
        count, nullable = Item(Node("U", "count()"), self.name("n")), Item(Node("I", "min(", self.nullable("I", scope), ")"), self.name("m"), True)
        inner.items = [key, other, count, nullable]
        inner.group = [Node(kind, key.alias), Node("S", other.alias)]
        query = Query()
        query.source = [inner]
        query.items = [Item(Node(kind, key.alias), self.name()), Item(Node("S", other.alias), self.name())]
        partition = self.pick("", f"PARTITION BY {other.alias} ", f"PARTITION BY {count.alias} % 2, {other.alias} = '' ")
        way = self.pick("", " DESC")
        frame = self.pick("", " ROWS BETWEEN 3 PRECEDING AND 1 PRECEDING", " ROWS BETWEEN 1 PRECEDING AND 2 FOLLOWING",
                          " ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING", " ROWS BETWEEN 2 FOLLOWING AND UNBOUNDED FOLLOWING")
        window = f"{partition}ORDER BY {key.alias}{way}, {other.alias}{frame}"
        name = self.name("win")
        named = self.chance(2)
        over = name if named else f"({window})"
        if named:
            query.window = f"{name} AS ({window})"
        n, m = count.alias, nullable.alias
        for _ in range(self.dice.randint(1, 3)):
            call, result, null = self.pick(
                (f"sum({m})", "I", True), (f"avg({m})", "F", True), (f"max({m})", "I", True), (f"count({m})", "U", False),
                (f"groupArray({n})", "X", False), (f"groupUniqArray({n} % 3)", "X", False), (f"quantile(0.5)({n})", "F", False),
                (f"uniqExact({n})", "U", False), (f"min({other.alias})", "S", False), (f"any({n})", "U", False), (f"countIf({m} IS NULL)", "U", False),
                (f"sum({n}) / count()", "F", False))
            if result == "X":
                call, result = f"length({call} OVER {over})", "U"
            elif " / " in call:
                call = f"sum({n}) OVER {over} / count() OVER {over}"
            else:
                call = f"{call} OVER {over}"
            query.items.append(Item(Node(result, call), self.name(), null))
        if self.chance(2):
            query.where = [Node("B", f"{n} {self.pick('>', '!=')} {self.pick(1, 2)}")]
        return self.ends(query)

    def grouping(self):
        query = Query()
        query.source, scope = self.source(0)
        keys = [Item(self.expression(self.pick("S", "D", "I"), scope, 1), self.name()) for _ in range(2)]
        query.items = keys + [self.settled_aggregate(scope) for _ in range(2)]
        query.group = [Node(item.kind, item.alias) for item in keys]
        query.sets = self.pick("ROLLUP", "CUBE", "GROUPING SETS", "TOTALS", "ALL")
        if self.chance(3):
            query.where = [self.filter(scope, 1)]
        if self.chance(2):
            value = query.items[2]
            query.having = [Node("B", f"{value.alias} {self.pick('!=', '=')} ", self.leaf(value.kind, []))
                            if value.kind in "SDT" else Node("B", f"count() {self.pick('>', '<')} {self.pick(1, 5, 40)}")]
        return self.ends(query)

    def distinct_on(self):
        query = Query()
        query.source, scope = self.source(0)
        query.items = [self.item(self.pick("S", "D", "I", "T"), scope, 1) for _ in range(3)]
        query.distinct = self.pick(query.items[0].alias, f"{query.items[0].alias}, {query.items[1].alias}")
        query.order = [(item.alias, self.pick("", " DESC")) for item in query.items]
        if self.chance(3):
            query.limit = "LIMIT 5"
        return query

    # Types

    def zoned(self):
        """Time zones as arguments, and values of a type that has one."""
        query = Query()
        query.source, scope = self.source(0)

        def moment():
            zone, time = self.dice.choice(ZONES), self.expression("T", scope, 1)
            fraction = self.expression("M", scope, 0)
            return self.pick(
                Node("Z", f"{self.pick('toStartOfHour', 'toStartOfDay', 'toStartOfMinute')}(", time, f", {zone})"), Node("Z", "toDateTime(", time, f", {zone})"),
                Node("Z", f"date_trunc('{self.pick('day', 'hour')}', ", time, f", {zone})"), Node("D", "toDate(", time, f", {zone})"),
                Node("D", f"{self.pick('toStartOfMonth', 'toStartOfYear', 'toStartOfQuarter')}(", time, f", {zone})"),
                Node("D", "toStartOfWeek(", time, f", {self.pick(0, 1)}, {zone})"), Node("D", f"date_trunc('{self.pick('week', 'month')}', ", time, f", {zone})"),
                Node("S", "toString(", time, f", {zone})"), Node("S", "formatDateTime(", fraction, f", '%F %T %j', {zone})"),
                Node("Z", "toDateTime64(", fraction, f", 3, {zone})"), Node("Z", f"toDateTime('2024-03-31 0{self.pick(1, 2, 3)}:30:00', {zone})"),
                Node("I", "toUnixTimestamp64Milli(toDateTime64(", fraction, f", 3, {zone}))"),
                Node("S", "toString(toDateTime(", time, f", {zone}) {self.pick('+', '-')} INTERVAL {self.pick(1, 5)} {self.pick('HOUR', 'DAY', 'MONTH')})"))

        query.items = [Item(moment(), self.name()), Item(moment(), self.name()), Item(Node("U", "count()"), self.name())]
        query.group = [Node(item.kind, item.alias) for item in query.items[:2]]
        return self.ends(query)

    def tuples(self):
        """Tuples with IN, casts, and comparisons of types that differ."""
        query = Query()
        query.source, scope = self.source(0)
        one, other = self.leaf("S", scope), self.leaf("S", scope)
        inner = Query()
        inner.source, inner_scope = self.source(0)
        inner.items = [Item(self.leaf("S", inner_scope), self.name()), Item(self.leaf("S", inner_scope), self.name())]
        inner.where = [self.condition(inner_scope, 1)]
        test = self.pick(Node("B", "((", one, ", ", other, f") {self.pick('IN', 'NOT IN')} (", inner, "))"),
                         Node("B", "((", one, ", ", other, ") IN (('VALID', 'api'), ('', ''), ('EXPIRED', 'api'), ('user_123', 'VALID')))"),
                         Node("B", "((", one, ", ", other, f") {self.pick('=', '<', '!=')} (", self.leaf("S", scope), ", ", self.leaf("S", scope), "))"))
        cast = self.pick(lambda: Node("I", "CAST(", self.expression(self.pick("I", "F", "U"), scope, 1), f" AS {self.pick('Int64', 'Int32', 'Int8')})"),
                         lambda: Node("U", self.expression("U", scope, 1), f"::{self.pick('UInt64', 'UInt8', 'UInt32')}"),
                         lambda: Node("F", "CAST(", self.expression("I", scope, 1), " AS Float64)"),
                         lambda: Node("D", "CAST(", self.expression(self.pick("T", "D"), scope, 1), " AS Date)"),
                         lambda: Node("S", "toString(", self.expression("F", scope, 2), ")"),
                         lambda: Node("I", "toInt64(toString(", self.expression("I", scope, 1), "))"))()
        query.items = [Item(cast, self.name()), Item(test, self.name()), self.aggregate(scope, 1)]
        query.group = [Node(item.kind, item.alias) for item in query.items[:2]]
        return self.ends(query)

    def nulls(self):
        """Columns with NULLs under every operator."""
        inner = Query()
        inner.source, scope = self.source(0)
        kinds = [self.pick("S", "I", "F", "D", "T", "B", "U") for _ in range(3)]
        for kind in kinds:
            node = Node(kind, "if(", self.condition(scope, 1), ", NULL, ", self.expression(kind, scope, 1), ")")
            inner.items.append(Item(node, self.name(), nullable=True))
        inner.distinct = True
        visible = [Column(item.alias, item.kind) for item in inner.items]
        query = Query()
        query.source = [inner]
        form = self.dice.randrange(3)
        if form == 0:
            query.items = [Item(self.expression(self.any_kind(visible), visible, 2), self.name(), True) for _ in range(3)]
        elif form == 1:
            query.items = [Item(Node(column.kind, column.name), self.name(), True) for column in visible[:1]]
            query.items += [self.settled_aggregate(visible) for _ in range(2)]
            query.group = [Node(query.items[0].kind, query.items[0].alias)]
        else:
            query.items = [self.aggregate(visible, 1) for _ in range(3)]
        if self.chance(2):
            query.where = [self.condition(visible, 2)]
        return self.ends(query)
