"""Shapes of random queries that people and dashboards write: aliases that hide columns, keys by position, `*`, filters that a
scan can use, tables joined as they are, conditions of one side in ON, aggregates in windows and in ORDER BY."""

from query_tree import Column, Item, Node, Query

HOURS = ["'2024-03-18 00:00:00'", "'2024-03-20 10:00:00'", "'2024-02-29 12:00:00'"]
DAYS = ["'2024-03-18'", "'2024-03-01'", "'2024-02-20'", "'2024-01-31'"]
# Unix milliseconds of some moments among the events.
MOMENTS = ["1709209845678", "1710720000000", "1710892800000", "1710900000000"]
PARTS = ["'VALID'", "'RATE_LIMITED'", "'EXPIRED'", "'USAGE_EXCEEDED'", "'api'", "'gateway'", "'us-east-1'", "'user_123'", "''", "'10.0.0.1'"]


class Shapes:
    """A part of Maker, which has the expressions."""

    def shape(self):
        return self.pick(self.hidden, self.hidden, self.dashboard, self.dashboard, self.pruned, self.pruned, self.starred, self.tables_joined,
                         self.one_sided, self.filtered_outer, self.window_of_aggregates, self.ranges, self.arrays_of_all, self.many_arguments,
                         self.labelled, self.found_in, self.mixed_types, self.two_arrays, self.operators, self.short_times)()

    def base(self):
        query = Query()
        query.source, scope = self.source(0)
        return query, scope

    def bare(self):
        """A table without an alias."""
        query = Query()
        table, scope = self.table()
        query.source = [table]
        return query, scope

    def columns_of(self, scope, kinds):
        return [column for column in scope if column.kind in kinds]

    # Filters

    def simple(self, scope):
        """A comparison of a column with a literal, as scans understand them."""
        column = self.dice.choice(scope)
        name, kind = column.name, column.kind
        sign = self.pick("=", "!=", "<", ">", "<=", ">=", "==", "<>")
        if kind == "S":
            values = ", ".join(self.dice.sample(PARTS, 2))
            return Node("B", f"({name} " + self.pick(f"{sign} {self.dice.choice(PARTS)}", f"IN ({values})", f"NOT IN ({values})", f"IN [{values}]",
                                                     f"LIKE {self.pick(chr(39) + 'VAL%' + chr(39), chr(39) + '%_1%' + chr(39))}") + ")")
        if kind == "A":
            return self.pick(Node("B", f"has({name}, {self.dice.choice(PARTS)})"), Node("B", f"(length({name}) {sign} {self.pick(0, 1, 2)})"))
        if kind == "P":
            return self.pick(Node("B", f"({name})"), Node("B", f"(NOT {name})"), Node("B", f"({name} {self.pick('=', '!=')} true)"))
        if kind == "I" and name.endswith("time"):
            low, high = sorted(self.dice.sample(MOMENTS, 2))
            back = f"toUnixTimestamp64Milli(now64() - INTERVAL {self.pick(1, 7, 30)} {self.pick('DAY', 'HOUR')})"
            return self.pick(Node("B", f"({name} {sign} {low})"), Node("B", f"({name} BETWEEN {low} AND {high})"), Node("B", f"({name} >= {back})"),
                             Node("B", f"({name} >= {low} AND {name} < {high})"), Node("B", f"(toDate(fromUnixTimestamp64Milli({name})) = today())"),
                             Node("B", f"(fromUnixTimestamp64Milli({name}) {sign} now() - INTERVAL {self.pick(1, 7)} DAY)"))
        if kind == "T":
            return self.pick(Node("B", f"({name} {sign} {self.dice.choice(HOURS)})"), Node("B", f"({name} {sign} {self.dice.choice(DAYS)})"),
                             Node("B", f"({name} >= now() - INTERVAL {self.pick(1, 7)} {self.pick('DAY', 'HOUR', 'WEEK')})"),
                             Node("B", f"(toDate({name}) {sign} {self.dice.choice(DAYS)})"), Node("B", f"(toDate({name}) = today())"),
                             Node("B", f"({name} BETWEEN {self.dice.choice(DAYS)} AND now())"), Node("B", f"(toStartOfDay({name}) = {name})"))
        if kind == "D":
            return self.pick(Node("B", f"({name} {sign} {self.dice.choice(DAYS)})"), Node("B", f"({name} >= today() - {self.pick(7, 30, 60)})"),
                             Node("B", f"({name} >= today() - INTERVAL 1 {self.pick('WEEK', 'MONTH')})"), Node("B", f"({name} >= toStartOfMonth(today()))"),
                             Node("B", f"({name} < now())"))
        return Node("B", f"({name} {sign} {self.pick('0', '1', '2', '5', '100', '0.5', '-1')})")

    def simples(self, scope, depth=2):
        """Comparisons under AND, OR and NOT."""
        if depth == 0 or self.chance(3):
            return self.simple(scope)
        if self.chance(5):
            return Node("B", "(NOT ", self.simples(scope, depth - 1), ")")
        return Node("B", "(", self.simples(scope, depth - 1), f" {self.pick('AND', 'AND', 'OR')} ", self.simples(scope, depth - 1), ")")

    def pruned(self):
        """Sums, groups and rows behind filters that a scan may use to skip what it holds."""
        query, scope = self.bare()
        query.where = [self.simples(scope, self.dice.randint(1, 3))]
        query.prewhere = self.chance(6)
        form = self.dice.randrange(3)
        texts = self.columns_of(scope, "S")
        if form == 0:
            query.items = [Item(Node("U", "count()"), self.name()), self.settled_aggregate(scope)]
            return query
        if form == 1:
            key = Item(Node("S", self.dice.choice(texts).name), self.name())
            query.items = [key, Item(Node("U", "count()"), self.name()), self.settled_aggregate(scope)]
            query.group = [Node("S", key.alias)]
        else:
            chosen = self.dice.sample(scope, 3)
            query.items = [Item(Node(column.kind, column.name), self.name()) for column in chosen]
            query.distinct = True
        query.order = [(item.alias, self.pick("", " DESC")) for item in query.items]
        query.limit = self.pick(None, "LIMIT 10", "LIMIT 5 OFFSET 5")
        return query

    # Names

    def hidden(self):
        """Aliases that are names of columns, in every clause (AN-SEM-01)."""
        query, scope = self.bare()
        texts = [column.name for column in self.columns_of(scope, "S")]
        one, other = self.dice.sample(texts, 2)
        time = next(column for column in scope if column.name == "time")
        moment = "fromUnixTimestamp64Milli(time)" if time.kind == "I" else "time"
        grain = self.pick("toDate", "toStartOfMonth", "toStartOfWeek") if time.kind == "D" else self.pick("toStartOfHour", "toStartOfDay", "toDate", "toStartOfMonth")
        keys = [Item(Node("S", self.pick(f"lower({one})", f"substring({one}, 1, 4)", f"concat({one}, '!')", f"if({one} = '', 'none', {one})", one)), one)]
        if self.chance(2):
            keys.append(Item(Node("X", f"{grain}({moment})"), "time"))
        elif self.chance(3):
            keys.append(Item(Node("S", one), other))
        numbers = [column.name for column in self.columns_of(scope, "IUF") if column.name != "time"]
        number = self.dice.choice(numbers)
        values = [Item(Node("X", self.pick(f"sum({number})", f"max({number})", f"avg({number})", f"uniqExact({number})", f"countIf({number} > 1)")), number)]
        if self.chance(2):
            values.append(Item(Node("U", "count()"), self.pick("total", "n")))
        query.items = keys + values
        if len({item.alias for item in query.items}) < len(query.items):
            query.items = keys[:1] + values[:1]
        query.group = [Node(item.kind, item.alias) for item in query.items if item in keys]
        if self.chance(2):
            query.where = [Node("B", f"({one} {self.pick('!=', '>', '<')} {self.dice.choice(PARTS)})")]
        if self.chance(3):
            query.having = [Node("B", f"({values[0].alias} {self.pick('>', '<=')} {self.pick(0, 1, 10)})")]
        self.ends(query)
        if self.chance(3):
            outer = Query()
            query.order, query.limit, query.limit_by = [], None, None
            outer.source = [query]
            outer.items = [Item(Node("S", f"upper({one})"), one), Item(Node("F", f"sum({values[0].alias})"), values[0].alias)]
            outer.group = [Node("S", one)]
            return self.ends(outer)
        return query

    def dashboard(self):
        """Groups over time with keys by position, ORDER BY of aggregates that are no columns, LIMIT BY."""
        query, scope = self.bare()
        time = next(column for column in scope if column.name == "time")
        moment = "fromUnixTimestamp64Milli(time)" if time.kind == "I" else "time"
        grains = ["toDate(%s)", "toStartOfMonth(%s)", "toStartOfWeek(%s, 1)", "date_trunc('week', %s)", "formatDateTime(%s, '%%Y-%%m')"]
        if time.kind != "D":
            grains += ["toStartOfHour(%s)", "toStartOfDay(%s)", "date_trunc('hour', %s)", "formatDateTime(%s, '%%H:00')"]
        bucket = Item(Node("X", self.dice.choice(grains) % moment), self.name("t"))
        texts = self.columns_of(scope, "S")
        split = Item(Node("S", self.dice.choice(texts).name), self.name("k"))
        keys = self.pick([bucket], [bucket, split], [split], [split, bucket])
        values = []
        for _ in range(self.dice.randint(1, 3)):
            values.append(self.settled_aggregate(scope))
        query.items = keys + values if self.chance(2) else values[:1] + keys + values[1:]
        query.group = [Node(item.kind, item.alias) for item in query.items if item in keys]
        query.where = [self.simples(scope) if self.chance(2) else None]
        query.having = [Node("B", f"count() {self.pick('>', '>=')} {self.pick(1, 3, 10)}") if self.chance(4) else None]
        query.sets = self.pick("", "", "", "ALL", "ROLLUP", "TOTALS")
        first = [(self.pick("count()", "uniqExact(workspace_id)", f"length({split.alias})" if split in keys else "count() % 7", f"max({moment})"),
                  self.pick("", " DESC"))] if self.chance(2) else []
        query.order = first + [(item.alias, self.pick("", " DESC", " ASC")) for item in query.items]
        query.positions = self.chance(2)
        if self.chance(3):
            query.limit_by = (self.pick("1", "2", "1, 2", "2 OFFSET 1"), ", ".join(self.dice.choice([[item.alias for item in keys], [keys[0].alias]])))
        query.limit = self.pick(None, None, "LIMIT 10", "LIMIT 3, 4")
        return query

    def starred(self):
        """`*` and `t.*` of subqueries, and of tables."""
        inner = self.side(self.pick("S", "D"))
        alias = self.name("s")
        query = Query()
        query.items = [Item(Node(item.kind, item.alias), item.alias, item.nullable) for item in inner.items]
        form = self.dice.randrange(4)
        if form == 0:
            query.source, query.star = [inner], "*"
        elif form == 1:
            query.source, query.star = [inner, f" AS {alias}"], f"{alias}.*"
        elif form == 2:
            other, name = self.side(inner.items[0].kind), self.name("s")
            how = self.pick("JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN")
            query.source = [inner, f" AS {alias} {how} ", other, f" AS {name} ON {alias}.{inner.items[0].alias} = {name}.{other.items[0].alias}"]
            query.star = self.pick("*", f"{alias}.*, {name}.*", f"{alias}.*")
            if "*" == query.star or "," in query.star:
                query.items += [Item(Node(item.kind, item.alias), item.alias, item.nullable) for item in other.items]
        else:
            table, scope = self.table()
            query.source, query.star = [table], self.pick("*", f"{table}.*" if self.chance(2) else "*")
            query.items = [Item(Node(column.kind, column.name), column.name) for column in scope]
            query.where = [self.simples(scope)]
        query.order = [(item.alias, self.pick("", " DESC")) for item in query.items]
        if self.chance(2):
            query.limit = "LIMIT 6"
        return query

    # Joins

    def rollup(self):
        """A table with few rows, under an alias: (text, columns)."""
        name = self.dice.choice([table for table in self.tables if table.endswith(("day_v1", "month_v1"))])
        alias = self.name("t")
        return f"{name} AS {alias}", [Column(f"{alias}.{column}", kind) for column, kind in self.tables[name].items()]

    def matched(self, one, other):
        """An equality of a column that both sides have, and its kind."""
        shared = [(a, b) for a in one for b in other if a.name.split(".")[1] == b.name.split(".")[1] and a.kind == b.kind and a.kind in "SD"
                  and not a.name.endswith(("workspace_id", "source", "app_id"))]
        a, b = self.dice.choice(shared)
        return f"{a.name} = {b.name}"

    def tables_joined(self):
        """Tables joined as they are, also one with itself."""
        (left, one), (right, other) = self.rollup(), self.rollup()
        how = self.pick("JOIN", "INNER JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "LEFT ANY JOIN", "LEFT SEMI JOIN", "LEFT ANTI JOIN")
        on = [self.matched(one, other) for _ in range(self.dice.randint(1, 2))]
        if self.chance(2):
            on.append(f"toStartOfMonth({one[0].name}) = {self.pick('toStartOfMonth', 'toDate')}({other[0].name})")
        query = Query()
        scope = one + ([] if "SEMI" in how or "ANTI" in how or "ANY" in how else other)
        query.source = [f"{left} {how} {right} ON {' AND '.join(on)}"]
        keys = [Item(Node(column.kind, column.name), self.name()) for column in self.dice.sample(self.columns_of(scope, "SD"), self.dice.randint(0, 2))]
        numbers = self.columns_of(scope, "I")
        query.items = [*keys, Item(Node("U", "count()"), self.name()), Item(Node("I", f"sum({self.dice.choice(numbers).name})"), self.name())]
        query.group = [Node(item.kind, item.alias) for item in keys] or None
        if self.chance(2):
            query.where = [self.simples(scope, 1)]
        return self.ends(query) if keys else query

    def one_sided(self):
        """ON with conditions of one side, of both and of none."""
        kind = self.pick("S", "D")
        sides = [self.side(kind), self.side(kind)]
        for side in sides:
            side.items.insert(1, Item(Node("U", "count()"), self.name("n")))
        one, other = self.name("l"), self.name("r")
        how = self.pick("JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "LEFT SEMI JOIN", "LEFT ANTI JOIN")
        (key, n), (other_key, m) = ([f"{name}.{item.alias}" for item in side.items[:2]] for name, side in zip((one, other), sides))
        more = self.pick(f"{n} > {self.pick(2, 20)}", f"{m} > {self.pick(2, 20)}", f"{n} % 2 = 0 AND {m} > 1", f"{n} > {m}", f"{n} + {m} > 10",
                         f"{other_key} != {self.leaf(kind, []).text()}", f"{key} < {self.leaf(kind, []).text()}", f"({n} > 9 OR {m} > 9)", "1 = 1")
        scope = self.columns(one, sides[0]) + ([] if "SEMI" in how or "ANTI" in how else self.columns(other, sides[1]))
        return self.over([sides[0], f" AS {one} {how} ", sides[1], f" AS {other} ON {key} = {other_key} AND {more}"], scope)

    def filtered_outer(self):
        """WHERE, GROUP BY and ORDER BY of columns that an outer join may lack, some of them constants of their side."""
        kind = self.pick("S", "D")
        sides = [self.side(kind), self.side(kind)]
        for side in sides:
            side.items.append(Item(self.pick(Node("S", "'mark'"), Node("U", "7"), Node("D", "toDate('2024-02-29')"), Node("S", "concat('a', 'b')")), self.name("m")))
            texts = [column for column in self.table_scope(side) if column.kind == "S"]
            column = self.dice.choice(texts).name
            side.items.append(Item(Node("S", column), self.name("f")))
            side.where = [Node("B", f"({column} = {self.pick(*PARTS)})")]
            side.group.append(Node("S", side.items[-1].alias))
        one, other = self.name("l"), self.name("r")
        how = self.pick("LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "LEFT ANY JOIN")
        scope = self.columns(one, sides[0]) + self.columns(other, sides[1])
        source = [sides[0], f" AS {one} {how} ", sides[1], f" AS {other} ON {one}.{sides[0].items[0].alias} = {other}.{sides[1].items[0].alias}"]
        query = Query()
        query.source = source
        marks = [column for column in scope if column.name.split(".")[1][0] in "mfk"]
        chosen = self.dice.sample(marks, self.dice.randint(1, 3))
        query.items = [Item(Node(column.kind, column.name), self.name()) for column in chosen]
        if self.chance(2):
            query.items.append(Item(Node("U", "count()"), self.name()))
            query.group = [Node(item.kind, item.alias) for item in query.items[:-1]]
        else:
            query.distinct = self.chance(2)
        if self.chance(2):
            mark = self.dice.choice(marks)
            query.where = [Node("B", f"({mark.name} {self.pick('=', '!=')} ", self.pick(simple_default(mark.kind), self.leaf(mark.kind, [])), ")")]
        query.order = [(item.alias, self.pick("", " DESC")) for item in query.items]
        query.limit = self.pick(None, "LIMIT 10")
        return query

    # Constants of a part

    def labelled(self):
        """Branches that each give their rows a label, grouped and sorted by it."""
        labels = self.dice.sample(["'a'", "'b'", "'z'", "''", "'VALID'"], self.dice.randint(2, 3))
        branches = []
        for label in labels:
            branch, scope = self.base()
            branch.items = [Item(Node("S", label), self.name()), Item(self.leaf("S", scope), self.name()),
                            Item(Node("I", self.pick("1", "2")) if self.chance(2) else self.leaf("I", scope), self.name())]
            form = self.dice.randrange(3)
            if form == 0:
                branch.distinct = True
            elif form == 1:
                branch.items[1:] = [Item(self.settled_aggregate([column for column in scope if column.kind == "S"]).node[0], self.name())]
                branch.items[1].node = [Node("S", "toString(", branch.items[1].node[0], ")")]
                branch.items.append(Item(Node("U", "count()"), self.name()))
            if self.chance(2):
                branch.where = [self.simples(scope, 1)]
            branches.append(branch)
        for one, other in zip(branches, branches[1:]):
            one.branch = ("UNION ALL", other)
        label, text, number = (item.alias for item in branches[0].items)
        query = Query()
        query.source = [branches[0]]
        form = self.dice.randrange(3)
        if form == 0:
            query.items = [Item(Node("S", label), self.name()), Item(Node("U", "count()"), self.name()), Item(Node("S", f"max({text})"), self.name())]
            query.group = [Node("S", query.items[0].alias)]
        elif form == 1:
            query.items = [Item(Node("S", text), self.name()), Item(Node("U", f"countIf({label} = {labels[0]})"), self.name()),
                           Item(Node("I", f"sumIf({number}, {label} != {labels[1]})"), self.name())]
            query.group = [Node("S", query.items[0].alias)]
        else:
            query.items = [Item(Node("X", name), self.name()) for name in (label, text, number)]
            query.distinct = True
        if self.chance(2):
            query.where = [Node("B", f"({label} {self.pick('=', '!=', '<')} {self.dice.choice(labels)})")]
        query.order = [(item.alias, self.pick("", " DESC")) for item in query.items]
        query.limit = self.pick(None, "LIMIT 12")
        return query

    def found_in(self):
        """Whether a value is in a subquery, as a key, in ORDER BY and in aggregates."""
        query, scope = self.base()
        inner, other = self.bare()
        column = self.dice.choice(self.columns_of(other, "S")).name
        inner.items, inner.where = [Item(Node("S", column), self.name())], [self.simples(other, 1)]
        if self.chance(2):
            inner.group = [Node("S", inner.items[0].alias)]
        value = self.dice.choice([one for one in self.columns_of(scope, "S") if one.name.endswith(column)] or self.columns_of(scope, "S")).name
        test = Node("B", f"({value} {self.pick('IN', 'NOT IN')} (", inner, "))")
        query.items = [Item(test, self.name()), self.pick(Item(Node("U", "count()"), self.name()), Item(Node("U", "countIf(", test, ")"), self.name()))]
        query.group = [Node("B", query.items[0].alias)]
        if self.chance(2):
            query.items.insert(1, Item(Node("S", value), self.name()))
            query.group.append(Node("S", query.items[1].alias))
        if self.chance(2):
            query.where = [self.simples(scope, 1)]
        query.order = [(item.alias, self.pick("", " DESC")) for item in query.items]
        query.limit = self.pick(None, "LIMIT 5")
        return query

    # Windows

    def window_of_aggregates(self):
        """Aggregates of groups as arguments and as sort keys of windows (AN-WIN-01)."""
        query, scope = self.base()
        key = Item(self.expression(self.pick("S", "D"), scope, 1), self.name("k"))
        split = Item(Node("S", self.dice.choice(self.columns_of(scope, "S")).name), self.name("s"))
        query.items = [key, split, Item(Node("U", "count()"), self.name("n"))]
        query.group = [Node(key.kind, key.alias), Node("S", split.alias)]
        for _ in range(self.dice.randint(1, 2)):
            call, kind = self.pick(("sum(count())", "U"), ("max(count())", "U"), ("avg(count())", "F"), ("count()", "U"), (f"sum({query.items[2].alias})", "U"),
                                   ("sum(uniqExact(workspace_id))", "U"))
            order = self.pick(f"ORDER BY {key.alias}, {split.alias}", f"ORDER BY count() DESC, {key.alias}, {split.alias}", "")
            partition = self.pick("", f"PARTITION BY {split.alias} ")
            frame = self.pick("", " ROWS BETWEEN 1 PRECEDING AND CURRENT ROW", " ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING") if order else ""
            query.items.append(Item(Node(kind, f"{call} OVER ({partition}{order}{frame})"), self.name()))
        if self.chance(2):
            query.items.append(Item(Node("F", "count() / sum(count()) OVER ()"), self.name()))
        if self.chance(3):
            query.where = [self.filter(scope, 1)]
        if self.chance(3):
            query.having = [Node("B", f"count() > {self.pick(1, 5)}")]
        return self.ends(query)

    def ranges(self):
        """RANGE frames with offsets over numbers, days and seconds, both ways."""
        inner, scope = self.base()
        kind = self.pick("D", "T", "I", "U")
        key = Item(self.expression(kind, scope, 1), self.name("k"))
        inner.items = [key, Item(Node("U", "count()"), self.name("n"))]
        inner.group = [Node(kind, key.alias)]
        query = Query()
        query.source = [inner]
        far = self.pick(*{"D": (1, 7, 31), "T": (60, 3600, 86400), "I": (1, 10, 1000), "U": (1, 3, 50)}[kind])
        way = self.pick("", " DESC")
        query.items = [Item(Node(kind, key.alias), self.name())]
        for _ in range(2):
            frame = self.pick(f"{far} PRECEDING AND CURRENT ROW", f"{far} PRECEDING AND {far} FOLLOWING", f"CURRENT ROW AND {far} FOLLOWING",
                              f"UNBOUNDED PRECEDING AND {far} PRECEDING", f"{far} FOLLOWING AND UNBOUNDED FOLLOWING", f"{far} PRECEDING AND 1 PRECEDING")
            call, kind = self.pick((f"sum({inner.items[1].alias})", "U"), ("count()", "U"), (f"max({inner.items[1].alias})", "U"), (f"avg({inner.items[1].alias})", "F"))
            query.items.append(Item(Node(kind, f"{call} OVER (ORDER BY {key.alias}{way} RANGE BETWEEN {frame})"), self.name()))
        return self.ends(query)

    # Values

    def arrays_of_all(self):
        """Arrays as keys, as arguments of aggregates, and of other types than text."""
        query, scope = self.base()
        arrays = self.columns_of(scope, "A")
        if not arrays:
            return self.mixed_types()
        tags = arrays[0].name
        query.items = [Item(self.pick(Node("A", tags), Node("A", f"arrayFilter(x -> x != '', {tags})"), Node("A", f"if(length({tags}) > 1, {tags}, [])")), self.name()),
                       Item(self.pick(Node("A", f"max({tags})"), Node("A", f"min({tags})"), Node("U", f"uniqExact({tags})"), Node("U", f"count(DISTINCT {tags})"),
                                      Node("S", f"toString(max({tags}))"), Node("U", f"sum(length({tags}))")), self.name()),
                       Item(self.pick(Node("U", "length(groupUniqArray(toDate('2024-02-29')))"), Node("U", f"length(groupArray({tags}))"),
                                      Node("B", f"has(groupUniqArray({self.leaf('S', scope).text()}), 'VALID')"),
                                      Node("U", f"length(arrayFilter(x -> x % 2 = 0, groupArray(length({tags}))))"),
                                      Node("B", "has([1, 2, NULL], count() % 4)"), Node("U", f"length(groupUniqArray({tags}))")), self.name())]
        query.group = [Node("A", query.items[0].alias)]
        if self.chance(2):
            query.where = [self.simples(scope, 1)]
        return self.ends(query)

    def many_arguments(self):
        """Calls with more arguments than most have, or fewer, and in another case."""
        query, scope = self.base()
        text = lambda: self.leaf("S", scope).text()
        key = Item(Node("S", text()), self.name())
        calls = [("U", f"uniqExact({text()}, {text()})"), ("U", f"count(DISTINCT {text()}, {text()})"), ("U", f"uniq({text()}, {text()}, {text()})"),
                 ("S", f"max(concat({text()}, '-', {text()}, '-', {self.leaf('I', scope).text()}))"), ("S", f"min(coalesce(NULL, if({text()} = '', NULL, {text()}), 'x'))"),
                 ("U", f"COUNT({text()})"), ("I", f"Sum(toInt64({self.leaf('I', scope).text()}))"), ("F", f"quantile({self.leaf('F', scope).text()})"),
                 ("U", f"length(groupArray(DISTINCT {text()}))"), ("U", f"countIf({text()} LIKE {text()})"), ("U", f"countIf({text()} LIKE concat('%', {text()}))"),
                 ("U", f"count(DISTINCT if({text()} = '', NULL, {text()}))"), ("F", f"avg({self.leaf('B', scope).text()})"),
                 ("S", f"any(CASE WHEN 1 = 2 THEN {text()} WHEN 1 = 1 THEN 'b' ELSE {text()} END)"), ("U", f"sumIf({self.leaf('U', scope).text()}, {text()} = {text()})")]
        query.items = [key, *(Item(Node(kind, call), self.name()) for kind, call in self.dice.sample(calls, 3))]
        query.group = [Node("S", key.alias)]
        if self.chance(3):
            query.where = [self.simples(scope, 1)]
        return self.ends(query)

    def mixed_types(self):
        """Types that meet in one column: in conditionals, in UNION and in comparisons."""
        query, scope = self.base()
        number = lambda: self.expression(self.pick("I", "F", "B", "U"), scope, 1)
        test = self.condition(scope, 1)
        kinds = self.pick(("D", "T"), ("T", "M"), ("D", "M"), ("B", "I"), ("U", "F"), ("B", "P"))
        one, other = (self.expression(kind, scope, 1) for kind in kinds)
        query.items = [Item(self.pick(Node("X", "if(", test, ", ", number(), ", ", number(), ")"), Node("X", "CASE WHEN ", test, " THEN ", number(), " ELSE 0 END"),
                                      Node("X", "coalesce(if(", test, ", NULL, ", number(), "), ", number(), ")"),
                                      Node("X", "if(", test, ", ", one, ", ", other, ")")), self.name()),
                       Item(Node("B", "(", one, f" {self.pick('=', '<', '>=', '!=')} ", other, ")"), self.name())]
        query.distinct = True
        if self.chance(2):
            branch, inner = self.base()
            branch.items = [Item(self.expression(self.pick("I", "U", "F", "B"), inner, 1), self.name()), Item(self.expression("B", inner, 1), self.name())]
            branch.distinct = True
            query.branch = (self.pick("UNION ALL", "UNION DISTINCT", "EXCEPT", "INTERSECT"), branch)
        return query

    def two_arrays(self):
        """ARRAY JOIN of arrays of one length side by side, and of the array under its own name."""
        table, scope = self.table()
        if not self.columns_of(scope, "A"):
            return self.operators()
        query = Query()
        one, other = self.name("e"), self.name("e")
        how = self.pick("ARRAY JOIN", "LEFT ARRAY JOIN")
        form = self.dice.randrange(3)
        if form == 0:
            query.source = [f"{table} {how} tags AS {one}, arrayFilter(x -> 1 = 1, tags) AS {other}"]
            keys = [one, other]
        elif form == 1:
            query.source = [f"{table} {how} tags"]
            keys = ["tags"]
        else:
            query.source = [f"{table} {how} [1, 2, 3] AS {one}"]
            keys = [one]
        query.items = [Item(Node("X", key), self.name()) for key in keys] + [Item(Node("U", "count()"), self.name()), Item(Node("U", "uniqExact(key_id)"), self.name())]
        query.group = [Node("X", item.alias) for item in query.items[:-2]]
        if self.chance(2):
            query.where = [Node("B", f"{keys[0]} {self.pick('!=', '=', '>')} {'2' if form == 2 else self.dice.choice(PARTS)}")]
        return self.ends(query)

    def operators(self):
        """Operators beside the usual ones."""
        query, scope = self.base()
        text, whole = (lambda: self.expression("S", scope, 1)), (lambda: self.leaf("I", scope))
        query.items = [
            Item(self.pick(Node("S", "(", text(), " || ", text(), ")"), Node("S", "`", self.pick(*self.columns_of(scope, "S")).name.replace(".", "`.`"), "`")), self.name()),
            Item(self.pick(Node("B", "(", whole(), " NOT BETWEEN ", whole(), " AND ", whole(), ")"),
                           Node("B", "(", whole(), " == ", whole(), ")"), Node("B", "(", text(), " <> ", text(), ")"),
                           Node("B", "(", text(), f" {self.pick('IS DISTINCT FROM', 'IS NOT DISTINCT FROM')} ", text(), ")"),
                           Node("B", "(", whole(), " IN [1, 2, 5])")), self.name()),
            Item(Node("U", "countIf(", self.condition(scope, 1), ")"), self.name())]
        query.group = [Node(item.kind, item.alias) for item in query.items[:2]]
        self.ends(query)
        query.order = [(alias, way + self.pick("", " NULLS FIRST", " NULLS LAST")) for alias, way in query.order]
        return query

    def short_times(self):
        """Intervals below the second, clocks of other zones and precisions, arithmetic of fractions."""
        query, scope = self.base()
        moment = lambda: self.expression(self.pick("M", "T"), scope, 1)
        unit = self.pick("Millisecond", "Microsecond", "Nanosecond", "Second")
        query.items = [Item(self.pick(Node("S", "toString(", moment(), f" {self.pick('+', '-')} toInterval{unit}({self.pick(1, 1500, -3)}))"),
                                      Node("S", "toString(", moment(), f" - INTERVAL {self.pick(1, 250)} MILLISECOND)"),
                                      Node("S", "toString(toDateTime64(", moment(), f", {self.pick(0, 1, 6, 9)}))"),
                                      Node("S", f"toString(now64({self.pick(0, 3, 6)}, {self.pick(chr(39) + 'Asia/Kolkata' + chr(39), chr(39) + 'UTC' + chr(39))}))"),
                                      Node("S", "toString(now('Europe/Berlin'))")), self.name()),
                       Item(self.pick(Node("X", "toStartOfMinute(", moment(), f" + toIntervalMillisecond({self.pick(1, 999)}))"), Node("X", "toDate(", moment(), ")"),
                                      Node("X", "date_trunc('second', ", self.expression("T", scope, 1), ")"),
                                      Node("X", "toDateTime(", self.expression("M", scope, 1), ")")), self.name()),
                       Item(Node("U", "count()"), self.name())]
        query.group = [Node(item.kind, item.alias) for item in query.items[:2]]
        return self.ends(query)


def simple_default(kind):
    """What a column holds in a row that lacks it (AN-SEM-05)."""
    return Node(kind, {"S": "''", "U": "0", "I": "0", "D": "'1970-01-01'"}.get(kind, "0"))
