//! What a statement that was read may consist of: a form that is not here cannot be accepted, and what is here is honoured
//! by the binder or refused by the gate (AN-GATE-09).

use crate::sql::operators::Part;
use crate::sql::types::{Type, Unit};

/// A byte of the text. All places are equal, so that trees compare by what they say and not by where they say it.
#[derive(Debug, Clone, Copy, Default)]
pub struct At(pub usize);

impl PartialEq for At {
    fn eq(&self, _: &At) -> bool {
        true
    }
}

/// A SELECT or several, joined by set operators, with what WITH defines for all of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// In the order of the text: each sees those before it.
    pub with: Vec<With>,
    /// What is selected.
    pub body: Body,
    /// Levels of nodes in it.
    pub depth: u16,
}

/// One definition of WITH.
#[derive(Debug, Clone, PartialEq)]
pub enum With {
    /// `name AS (SELECT ..)`.
    Table {
        /// As written.
        name: String,
        /// What it stands for.
        query: Query,
    },
    /// `expression AS name`.
    Scalar {
        /// As written.
        name: String,
        /// What it stands for.
        value: Expr,
    },
}

/// The SELECTs of a query.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// One.
    Select(Box<Select>),
    /// In parentheses, possibly with a WITH of its own.
    Query(Box<Query>),
    /// Two, whose columns match by position.
    Set {
        /// How they combine.
        operator: SetOperator,
        /// The first.
        left: Box<Body>,
        /// The second.
        right: Box<Body>,
    },
}

/// How the rows of two SELECTs combine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetOperator {
    /// UNION ALL.
    UnionAll,
    /// UNION DISTINCT.
    UnionDistinct,
    /// EXCEPT: keeps duplicates of the left side (AN-SEM-22).
    Except,
    /// EXCEPT DISTINCT.
    ExceptDistinct,
    /// INTERSECT: keeps duplicates of the left side.
    Intersect,
    /// INTERSECT DISTINCT.
    IntersectDistinct,
}

/// One SELECT with all of its clauses.
#[derive(Debug, Clone, PartialEq)]
pub struct Select {
    /// Whether and by what equal rows are dropped.
    pub distinct: Distinct,
    /// What is selected.
    pub items: Vec<Expr>,
    /// From where; `None` without FROM.
    pub from: Option<From>,
    /// ARRAY JOIN.
    pub array_join: Vec<ArrayJoin>,
    /// PREWHERE: another WHERE.
    pub prewhere: Option<Expr>,
    /// WHERE.
    pub filter: Option<Expr>,
    /// GROUP BY.
    pub group_by: GroupBy,
    /// HAVING.
    pub having: Option<Expr>,
    /// WINDOW.
    pub windows: Vec<(String, Window)>,
    /// ORDER BY.
    pub order_by: OrderBy,
    /// LIMIT n BY.
    pub limit_by: Option<LimitBy>,
    /// LIMIT.
    pub limit: Option<Expr>,
    /// OFFSET.
    pub offset: Option<Expr>,
    /// Whether a SETTINGS clause stands here, which the gate refuses.
    pub settings: bool,
}

/// DISTINCT.
#[derive(Debug, Clone, PartialEq)]
pub enum Distinct {
    /// All rows.
    No,
    /// No two equal rows.
    Rows,
    /// One row for each of these values.
    On(Vec<Expr>),
}

/// What FROM names.
#[derive(Debug, Clone, PartialEq)]
pub enum From {
    /// A table or a CTE.
    Table {
        /// Its name as written, dots included.
        name: String,
        /// Whether it is one name, not a qualified one.
        plain: bool,
        /// What its columns may be qualified with.
        alias: Option<String>,
    },
    /// A subquery.
    Query {
        /// The subquery.
        query: Box<Query>,
        /// What its columns may be qualified with.
        alias: Option<String>,
    },
    /// A table function, which the gate refuses.
    Function {
        /// Its name as written.
        name: String,
    },
    /// A join.
    Join {
        /// Which rows it keeps.
        kind: JoinKind,
        /// The left side.
        left: Box<From>,
        /// The right side: never itself a join.
        right: Box<From>,
        /// Which rows match.
        constraint: Constraint,
    },
}

/// Which rows a join keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinKind {
    /// Matches.
    Inner,
    /// And the left side's others.
    Left,
    /// And the right side's others.
    Right,
    /// And those of both sides.
    Full,
    /// Every pair.
    Cross,
    /// Left rows with a match, once each.
    LeftSemi,
    /// Left rows without a match.
    LeftAnti,
    /// Right rows with a match, once each.
    RightSemi,
    /// Right rows without a match.
    RightAnti,
    /// As Inner, but each key once.
    AnyInner,
    /// As Left, with one match at most.
    AnyLeft,
    /// As Right, with one match at most.
    AnyRight,
    /// Left rows with the match that is nearest by an inequality.
    Asof,
    /// And the left side's others.
    AsofLeft,
}

/// Which rows of a join match.
#[derive(Debug, Clone, PartialEq)]
pub enum Constraint {
    /// All: CROSS JOIN and the comma.
    None,
    /// Those for which it is true.
    On(Expr),
    /// Those with equal columns of these names.
    Using(Vec<String>),
}

/// One array of ARRAY JOIN.
#[derive(Debug, Clone, PartialEq)]
pub struct ArrayJoin {
    /// The array, with its alias.
    pub array: Expr,
    /// Whether rows with an empty array stay.
    pub left: bool,
}

/// GROUP BY.
#[derive(Debug, Clone, PartialEq)]
pub enum GroupBy {
    /// None.
    No,
    /// By these.
    Keys(Vec<Expr>),
    /// ALL: by whatever is selected and not aggregated.
    All,
    /// ROLLUP: by ever shorter prefixes as well.
    Rollup(Vec<Expr>),
    /// CUBE: by every subset.
    Cube(Vec<Expr>),
    /// GROUPING SETS: by each of these.
    Sets(Vec<Vec<Expr>>),
}

/// ORDER BY.
#[derive(Debug, Clone, PartialEq)]
pub enum OrderBy {
    /// By these, possibly none.
    Keys(Vec<SortKey>, Option<Vec<Interpolate>>),
    /// ALL: by every column in order.
    All {
        /// DESC.
        descending: bool,
    },
}

/// One key of ORDER BY.
#[derive(Debug, Clone, PartialEq)]
pub struct SortKey {
    /// By what.
    pub value: Expr,
    /// DESC.
    pub descending: bool,
    /// NULLS FIRST.
    pub nulls_first: bool,
    /// WITH FILL.
    pub fill: Option<Fill>,
}

/// WITH FILL.
#[derive(Debug, Clone, PartialEq)]
pub struct Fill {
    /// FROM: inclusive.
    pub from: Option<Expr>,
    /// TO: exclusive.
    pub to: Option<Expr>,
    /// STEP.
    pub step: Option<Expr>,
}

/// One column of INTERPOLATE.
#[derive(Debug, Clone, PartialEq)]
pub struct Interpolate {
    /// The column that is filled.
    pub column: String,
    /// From the row before; the column itself where absent.
    pub value: Option<Expr>,
    /// Where it stands.
    pub at: At,
}

/// LIMIT n BY.
#[derive(Debug, Clone, PartialEq)]
pub struct LimitBy {
    /// How many rows per group.
    pub limit: Expr,
    /// After how many.
    pub offset: Option<Expr>,
    /// What makes a group.
    pub keys: Vec<Expr>,
}

/// A window.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Window {
    /// Another one that this one adds to.
    pub base: Option<String>,
    /// PARTITION BY.
    pub partition_by: Vec<Expr>,
    /// ORDER BY.
    pub order_by: Vec<SortKey>,
    /// The frame, where one is given.
    pub frame: Option<Frame>,
}

/// OVER.
#[derive(Debug, Clone, PartialEq)]
pub enum Over {
    /// A window of the WINDOW clause.
    Named(String),
    /// Written out.
    Window(Window),
}

/// The frame of a window.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// RANGE rather than ROWS.
    pub range: bool,
    /// Its first row.
    pub start: Bound,
    /// Its last row.
    pub end: Bound,
}

/// An end of a frame.
#[derive(Debug, Clone, PartialEq)]
pub enum Bound {
    /// The partition's end in this direction.
    Unbounded {
        /// FOLLOWING rather than PRECEDING.
        following: bool,
    },
    /// The current row, with its peers in a RANGE.
    Current,
    /// So many rows or so much of the sort key away.
    Offset {
        /// How far.
        by: Box<Expr>,
        /// FOLLOWING rather than PRECEDING.
        following: bool,
    },
}

/// An expression.
#[derive(Debug, Clone, PartialEq)]
pub struct Expr {
    /// What it is.
    pub kind: Kind,
    /// Where it begins.
    pub at: At,
    /// Levels of nodes, its own included.
    pub depth: u16,
}

/// What an expression is.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// NULL.
    Null,
    /// `true` and `false`.
    Bool(bool),
    /// As written, with its sign.
    Number(String),
    /// Text.
    Text(String),
    /// A column or alias, with its qualifiers before it.
    Name(Vec<String>),
    /// `*`.
    Star,
    /// `t.*`.
    QualifiedStar(String),
    /// A function.
    Call(Box<Call>),
    /// `-x`.
    Negate(Box<Expr>),
    /// NOT.
    Not(Box<Expr>),
    /// Two operands or more.
    And(Vec<Expr>),
    /// Two operands or more.
    Or(Vec<Expr>),
    /// An operator with two operands.
    Binary(Operator, Box<Expr>, Box<Expr>),
    /// IS NULL and IS NOT NULL.
    IsNull {
        /// What is looked at.
        value: Box<Expr>,
        /// NOT.
        negated: bool,
    },
    /// BETWEEN.
    Between {
        /// What is compared.
        value: Box<Expr>,
        /// With this lower end
        low: Box<Expr>,
        /// and this upper one.
        high: Box<Expr>,
        /// NOT.
        negated: bool,
    },
    /// IN.
    In {
        /// What is looked for.
        value: Box<Expr>,
        /// In what.
        set: Set,
        /// NOT.
        negated: bool,
    },
    /// A subquery as a value.
    Subquery(Box<Query>),
    /// CAST and `::`.
    Cast(Box<Expr>, Target),
    /// CASE.
    Case {
        /// What the conditions are compared with, where they are values.
        operand: Option<Box<Expr>>,
        /// WHEN and THEN.
        branches: Vec<(Expr, Expr)>,
        /// ELSE.
        otherwise: Option<Box<Expr>>,
    },
    /// `a ? b : c`.
    If(Box<[Expr; 3]>),
    /// `[a, b]`.
    Array(Vec<Expr>),
    /// `(a, b)`.
    Tuple(Vec<Expr>),
    /// `a[i]`.
    Element(Box<Expr>, Box<Expr>),
    /// `x -> e`.
    Lambda(Vec<String>, Box<Expr>),
    /// INTERVAL.
    Interval(Box<Expr>, Unit),
    /// EXTRACT.
    Extract(Part, Box<Expr>),
    /// `e AS name`.
    Alias(Box<Expr>, String),
}

/// What CAST makes of a value.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// Its type.
    pub ty: Type,
    /// The bytes that a text has to have: FixedString.
    pub width: Option<u8>,
    /// As written.
    pub written: String,
}

/// The right side of IN.
#[derive(Debug, Clone, PartialEq)]
pub enum Set {
    /// `(a, b)`, or one value.
    List(Vec<Expr>),
    /// `[a, b]`.
    Array(Vec<Expr>),
    /// A subquery.
    Query(Box<Query>),
    /// A table, which the gate refuses.
    Table(String),
}

/// A function with its arguments.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// As written.
    pub name: String,
    /// The first of two pairs of parentheses.
    pub parameters: Option<Vec<Expr>>,
    /// The arguments; for `f(*)` none.
    pub arguments: Vec<Expr>,
    /// DISTINCT.
    pub distinct: bool,
    /// OVER.
    pub over: Option<Over>,
}

/// An operator with two operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// `+`
    Plus,
    /// `-`
    Minus,
    /// `*`
    Multiply,
    /// `/`
    Divide,
    /// `%`
    Modulo,
    /// `=` and `==`
    Equals,
    /// `!=` and `<>`
    NotEquals,
    /// `<`
    Less,
    /// `<=`
    LessOrEquals,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEquals,
    /// LIKE
    Like,
    /// NOT LIKE
    NotLike,
    /// ILIKE
    Ilike,
    /// NOT ILIKE
    NotIlike,
    /// `||`
    Concat,
}

impl Operator {
    /// What ClickHouse calls it as a function (AN-NAME-04).
    pub fn name(self) -> &'static str {
        match self {
            Operator::Plus => "plus",
            Operator::Minus => "minus",
            Operator::Multiply => "multiply",
            Operator::Divide => "divide",
            Operator::Modulo => "modulo",
            Operator::Equals => "equals",
            Operator::NotEquals => "notEquals",
            Operator::Less => "less",
            Operator::LessOrEquals => "lessOrEquals",
            Operator::Greater => "greater",
            Operator::GreaterOrEquals => "greaterOrEquals",
            Operator::Like => "like",
            Operator::NotLike => "notLike",
            Operator::Ilike => "ilike",
            Operator::NotIlike => "notILike",
            Operator::Concat => "concat",
        }
    }
}

impl Expr {
    /// Its direct parts, subqueries excepted.
    pub fn children(&self) -> Vec<&Expr> {
        match &self.kind {
            Kind::Null
            | Kind::Bool(_)
            | Kind::Number(_)
            | Kind::Text(_)
            | Kind::Name(_)
            | Kind::Star
            | Kind::QualifiedStar(_)
            | Kind::Subquery(_) => Vec::new(),
            Kind::Call(call) => {
                let mut children: Vec<&Expr> = call.parameters.iter().flatten().chain(&call.arguments).collect();
                if let Some(Over::Window(window)) = &call.over {
                    children.extend(window.expressions());
                }
                children
            }
            Kind::Negate(value)
            | Kind::Not(value)
            | Kind::IsNull { value, negated: _ }
            | Kind::Cast(value, _)
            | Kind::Lambda(_, value)
            | Kind::Interval(value, _)
            | Kind::Extract(_, value)
            | Kind::Alias(value, _) => vec![value],
            Kind::And(parts) | Kind::Or(parts) | Kind::Array(parts) | Kind::Tuple(parts) => parts.iter().collect(),
            Kind::Binary(_, left, right) | Kind::Element(left, right) => vec![left, right],
            Kind::Between { value, low, high, negated: _ } => vec![value, low, high],
            Kind::In { value, set, negated: _ } => {
                let mut children: Vec<&Expr> = vec![value];
                match set {
                    Set::List(list) | Set::Array(list) => children.extend(list),
                    Set::Query(_) | Set::Table(_) => {}
                }
                children
            }
            Kind::Case { operand, branches, otherwise } => {
                let mut children: Vec<&Expr> = operand.iter().map(AsRef::as_ref).collect();
                for (when, then) in branches {
                    children.extend([when, then]);
                }
                children.extend(otherwise.iter().map(AsRef::as_ref));
                children
            }
            Kind::If(parts) => parts.iter().collect(),
        }
    }

    /// The subquery that stands right here, as a value or as a set.
    pub fn query(&self) -> Option<&Query> {
        match &self.kind {
            Kind::Subquery(query) | Kind::In { set: Set::Query(query), .. } => Some(query),
            _ => None,
        }
    }

    /// The expression without aliases around it.
    pub fn bare(&self) -> &Expr {
        match &self.kind {
            Kind::Alias(value, _) => value.bare(),
            _ => self,
        }
    }
}

impl Window {
    /// All expressions in it.
    pub fn expressions(&self) -> Vec<&Expr> {
        let Window { base: _, partition_by, order_by, frame } = self;
        let mut all: Vec<&Expr> = partition_by.iter().collect();
        all.extend(order_by.iter().flat_map(SortKey::expressions));
        for bound in frame.iter().flat_map(|frame| [&frame.start, &frame.end]) {
            if let Bound::Offset { by, following: _ } = bound {
                all.push(by);
            }
        }
        all
    }
}

impl SortKey {
    /// All expressions in it.
    pub fn expressions(&self) -> Vec<&Expr> {
        let SortKey { value, descending: _, nulls_first: _, fill } = self;
        let mut all = vec![value];
        if let Some(Fill { from, to, step }) = fill {
            all.extend(from.iter().chain(to).chain(step));
        }
        all
    }
}

impl Select {
    /// All expressions in it, those of FROM included, subqueries excepted.
    pub fn expressions(&self) -> Vec<&Expr> {
        let Select {
            distinct,
            items,
            from,
            array_join,
            prewhere,
            filter,
            group_by,
            having,
            windows,
            order_by,
            limit_by,
            limit,
            offset,
            settings: _,
        } = self;
        let mut all: Vec<&Expr> = Vec::new();
        match distinct {
            Distinct::No | Distinct::Rows => {}
            Distinct::On(keys) => all.extend(keys),
        }
        all.extend(items);
        if let Some(from) = from {
            from.expressions(&mut all);
        }
        all.extend(array_join.iter().map(|join| &join.array));
        all.extend(prewhere.iter().chain(filter));
        match group_by {
            GroupBy::No | GroupBy::All => {}
            GroupBy::Keys(keys) | GroupBy::Rollup(keys) | GroupBy::Cube(keys) => all.extend(keys),
            GroupBy::Sets(sets) => all.extend(sets.iter().flatten()),
        }
        all.extend(having);
        all.extend(windows.iter().flat_map(|(_, window)| window.expressions()));
        match order_by {
            OrderBy::All { descending: _ } => {}
            OrderBy::Keys(keys, interpolate) => {
                all.extend(keys.iter().flat_map(SortKey::expressions));
                all.extend(interpolate.iter().flatten().filter_map(|one| one.value.as_ref()));
            }
        }
        if let Some(LimitBy { limit, offset, keys }) = limit_by {
            all.push(limit);
            all.extend(offset.iter().chain(keys));
        }
        all.extend(limit.iter().chain(offset));
        all
    }
}

impl From {
    fn expressions<'a>(&'a self, all: &mut Vec<&'a Expr>) {
        if let From::Join { kind: _, left, right, constraint } = self {
            left.expressions(all);
            right.expressions(all);
            match constraint {
                Constraint::None | Constraint::Using(_) => {}
                Constraint::On(condition) => all.push(condition),
            }
        }
    }
}

/// Walks an expression and everything in it, subqueries excepted.
pub fn walk<'a>(root: &'a Expr, visit: &mut dyn FnMut(&'a Expr)) {
    let mut left = vec![root];
    while let Some(next) = left.pop() {
        visit(next);
        left.extend(next.children().into_iter().rev());
    }
}
