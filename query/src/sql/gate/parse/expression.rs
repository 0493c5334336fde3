//! Expressions. Binding strengths are those of ClickHouse's parser.

use super::{Parser, parameter, types};
use crate::error::Refusal;
use crate::sql::gate::lex::Lexeme;
use crate::sql::gate::tree::{At, Bound, Call, Expr, Frame, Kind, Operator, Over, Set, SortKey, Window};
use crate::sql::operators::Part;
use crate::sql::types::Unit;

/// How tightly operators bind, loosest first.
mod binds {
    pub const TERNARY: u8 = 2;
    pub const OR: u8 = 3;
    pub const AND: u8 = 4;
    pub const NOT: u8 = 5;
    pub const IS: u8 = 6;
    pub const BETWEEN: u8 = 7;
    pub const COMPARISON: u8 = 9;
    pub const CONCAT: u8 = 10;
    pub const SUM: u8 = 11;
    pub const PRODUCT: u8 = 12;
    pub const SIGN: u8 = 13;
    pub const ELEMENT: u8 = 14;
}

/// Words that end an expression: none of them is an alias without AS.
const NO_ALIAS: &[&str] = &[
    "AND",
    "ANTI",
    "ANY",
    "ARRAY",
    "AS",
    "ASC",
    "ASCENDING",
    "ASOF",
    "BETWEEN",
    "BY",
    "COLLATE",
    "CROSS",
    "DESC",
    "DESCENDING",
    "DIV",
    "ELSE",
    "END",
    "EXCEPT",
    "FETCH",
    "FILTER",
    "FINAL",
    "FORMAT",
    "FROM",
    "FULL",
    "GLOBAL",
    "GROUP",
    "HAVING",
    "ILIKE",
    "IN",
    "INNER",
    "INTERPOLATE",
    "INTERSECT",
    "INTO",
    "IS",
    "JOIN",
    "LEFT",
    "LIKE",
    "LIMIT",
    "LOCAL",
    "MOD",
    "NATURAL",
    "NOT",
    "NULLS",
    "OFFSET",
    "ON",
    "OR",
    "ORDER",
    "OVER",
    "PASTE",
    "PREWHERE",
    "QUALIFY",
    "REGEXP",
    "RIGHT",
    "SAMPLE",
    "SELECT",
    "SEMI",
    "SETTINGS",
    "STALENESS",
    "STEP",
    "THEN",
    "TO",
    "UNION",
    "USING",
    "WHEN",
    "WHERE",
    "WINDOW",
    "WITH",
    "XOR",
];

/// Words that begin no expression: no column is called so without quotes.
const RESERVED: &[&str] = &[
    "AND",
    "AS",
    "BETWEEN",
    "ELSE",
    "END",
    "EXCEPT",
    "FROM",
    "HAVING",
    "ILIKE",
    "IN",
    "INTERSECT",
    "IS",
    "JOIN",
    "LIKE",
    "OR",
    "PREWHERE",
    "SELECT",
    "THEN",
    "UNION",
    "USING",
    "WHEN",
    "WHERE",
    "WITH",
];

/// Whether a word begins no expression.
pub fn is_reserved(word: &str) -> bool {
    RESERVED.iter().any(|reserved| reserved.eq_ignore_ascii_case(word))
}

impl Parser<'_> {
    /// An expression without an alias.
    pub(super) fn expression(&mut self) -> Result<Expr, Refusal> {
        self.binding(0)
    }

    /// The alias behind an expression, without AS where that is allowed.
    pub(super) fn alias(&mut self, value: Expr, bare: bool) -> Result<Expr, Refusal> {
        let named = self.word("AS")
            || (bare
                && match self.peek() {
                    Lexeme::Word(word) => !NO_ALIAS.iter().any(|reserved| reserved.eq_ignore_ascii_case(word)),
                    Lexeme::Quoted(_) => true,
                    _ => false,
                });
        if !named {
            return Ok(value);
        }
        let at = value.at;
        let name = self.name("an alias")?;
        self.node(Kind::Alias(Box::new(value), name), at)
    }

    /// An alias of a table, which follows the same rules.
    pub(super) fn table_alias(&mut self) -> Result<Option<String>, Refusal> {
        let named = self.word("AS")
            || match self.peek() {
                Lexeme::Word(word) => !NO_ALIAS.iter().any(|reserved| reserved.eq_ignore_ascii_case(word)),
                Lexeme::Quoted(_) => true,
                _ => false,
            };
        if named { Ok(Some(self.name("an alias")?)) } else { Ok(None) }
    }

    /// An expression whose operators bind at least so tightly.
    fn binding(&mut self, least: u8) -> Result<Expr, Refusal> {
        self.nested(|parser| {
            let mut left = parser.operand()?;
            while let Some(next) = parser.operator(least, &mut left)? {
                left = next;
            }
            Ok(left)
        })
    }

    /// Takes the operator that comes next, where it binds at least so tightly, with what stands behind it.
    fn operator(&mut self, least: u8, left: &mut Expr) -> Result<Option<Expr>, Refusal> {
        let at = left.at;
        let binary = |symbol: &str| {
            Some(match symbol {
                "+" => (Operator::Plus, binds::SUM),
                "-" => (Operator::Minus, binds::SUM),
                "*" => (Operator::Multiply, binds::PRODUCT),
                "/" => (Operator::Divide, binds::PRODUCT),
                "%" => (Operator::Modulo, binds::PRODUCT),
                "=" | "==" => (Operator::Equals, binds::COMPARISON),
                "!=" | "<>" => (Operator::NotEquals, binds::COMPARISON),
                "<" => (Operator::Less, binds::COMPARISON),
                "<=" => (Operator::LessOrEquals, binds::COMPARISON),
                ">" => (Operator::Greater, binds::COMPARISON),
                ">=" => (Operator::GreaterOrEquals, binds::COMPARISON),
                "||" => (Operator::Concat, binds::CONCAT),
                _ => return None,
            })
        };
        let take = |left: &mut Expr| Box::new(std::mem::replace(left, Expr { kind: Kind::Null, at, depth: 1 }));
        match self.peek() {
            Lexeme::Symbol("?") if least <= binds::TERNARY => {
                self.advance();
                let then = self.binding(binds::OR)?;
                self.expect_symbol(":")?;
                let otherwise = self.binding(binds::TERNARY)?;
                self.node(Kind::If(Box::new([*take(left), then, otherwise])), at).map(Some)
            }
            Lexeme::Symbol("[") if least <= binds::ELEMENT => {
                self.advance();
                let index = self.expression()?;
                self.expect_symbol("]")?;
                self.node(Kind::Element(take(left), Box::new(index)), at).map(Some)
            }
            Lexeme::Symbol("::") if least <= binds::ELEMENT => {
                self.advance();
                let target = types::read(self)?;
                self.node(Kind::Cast(take(left), target), at).map(Some)
            }
            Lexeme::Symbol(symbol) => match binary(symbol) {
                Some((operator, strength)) if least <= strength => {
                    self.advance();
                    let right = self.binding(strength + 1)?;
                    self.node(Kind::Binary(operator, take(left), Box::new(right)), at).map(Some)
                }
                _ => Ok(None),
            },
            Lexeme::Word(_) => self.word_operator(least, left, take),
            _ => Ok(None),
        }
    }

    fn word_operator(
        &mut self,
        least: u8,
        left: &mut Expr,
        take: impl Fn(&mut Expr) -> Box<Expr>,
    ) -> Result<Option<Expr>, Refusal> {
        let at = left.at;
        if least <= binds::OR && self.is_word_at(0, "OR") {
            return self.chain(left, "OR", binds::OR, Kind::Or).map(Some);
        }
        if least <= binds::AND && self.is_word_at(0, "AND") {
            return self.chain(left, "AND", binds::AND, Kind::And).map(Some);
        }
        if least <= binds::IS && self.is_word_at(0, "IS") {
            self.advance();
            let negated = self.word("NOT");
            if self.word("DISTINCT") {
                return Err(self.unsupported("IS DISTINCT FROM"));
            }
            self.expect_word("NULL")?;
            return self.node(Kind::IsNull { value: take(left), negated }, at).map(Some);
        }
        let global = usize::from(self.is_word_at(0, "GLOBAL"));
        let negated = self.is_word_at(global, "NOT");
        let ahead = global + usize::from(negated);
        if least <= binds::BETWEEN && global == 0 && self.is_word_at(ahead, "BETWEEN") {
            self.next += ahead + 1;
            let low = Box::new(self.binding(binds::BETWEEN + 1)?);
            self.expect_word("AND")?;
            let high = Box::new(self.binding(binds::BETWEEN + 1)?);
            return self.node(Kind::Between { value: take(left), low, high, negated }, at).map(Some);
        }
        if least > binds::COMPARISON {
            return Ok(None);
        }
        if self.is_word_at(ahead, "IN") {
            self.next += ahead + 1;
            let set = self.set()?;
            return self.node(Kind::In { value: take(left), set, negated }, at).map(Some);
        }
        let like = |plain, negative| if negated { negative } else { plain };
        let operator = if global > 0 {
            return Ok(None);
        } else if self.is_word_at(ahead, "LIKE") {
            like(Operator::Like, Operator::NotLike)
        } else if self.is_word_at(ahead, "ILIKE") {
            like(Operator::Ilike, Operator::NotIlike)
        } else {
            return Ok(None);
        };
        self.next += ahead + 1;
        let right = self.binding(binds::COMPARISON + 1)?;
        self.node(Kind::Binary(operator, take(left), Box::new(right)), at).map(Some)
    }

    /// `a OR b OR c` is one node with three parts, however long it gets.
    fn chain(
        &mut self,
        left: &mut Expr,
        word: &str,
        strength: u8,
        kind: fn(Vec<Expr>) -> Kind,
    ) -> Result<Expr, Refusal> {
        let at = left.at;
        let mut parts = vec![std::mem::replace(left, Expr { kind: Kind::Null, at, depth: 1 })];
        while self.word(word) {
            parts.push(self.binding(strength + 1)?);
        }
        self.node(kind(parts), at)
    }

    /// The right side of IN (AN-GT-05).
    fn set(&mut self) -> Result<Set, Refusal> {
        if self.holds_query() {
            self.advance();
            let query = self.query()?;
            self.expect_symbol(")")?;
            return Ok(Set::Query(Box::new(query)));
        }
        let array = self.is_symbol_at(0, "[");
        if array || self.is_symbol_at(0, "(") {
            self.advance();
            let list = self.list(Self::expression)?;
            self.expect_symbol(if array { "]" } else { ")" })?;
            self.nodes += list.len();
            return Ok(if array { Set::Array(list) } else { Set::List(list) });
        }
        match self.peek() {
            Lexeme::Word(word) if is_reserved(word) => Err(self.unexpected("a list")),
            Lexeme::Word(_) | Lexeme::Quoted(_) => {
                let mut name = self.name("a list")?;
                while self.symbol(".") {
                    name = format!("{name}.{}", self.name("a name")?);
                }
                if self.is_symbol_at(0, "(") {
                    self.skip_parentheses()?;
                }
                Ok(Set::Table(name))
            }
            Lexeme::Text(_) | Lexeme::Number(_) => Ok(Set::List(vec![self.operand()?])),
            _ => Err(self.unexpected("a list in parentheses, an array or a subquery")),
        }
    }

    /// Reads over what stands in parentheses, whatever it is.
    pub(super) fn skip_parentheses(&mut self) -> Result<(), Refusal> {
        let mut open = 0_usize;
        loop {
            match self.peek() {
                Lexeme::Symbol("(") => open += 1,
                Lexeme::Symbol(")") => open -= 1,
                Lexeme::End => return Err(self.unexpected("`)`")),
                _ => {}
            }
            self.advance();
            if open == 0 {
                return Ok(());
            }
        }
    }

    fn operand(&mut self) -> Result<Expr, Refusal> {
        let at = self.at();
        match self.peek().clone() {
            Lexeme::Number(number) => {
                self.advance();
                self.node(Kind::Number(number.to_owned()), at)
            }
            Lexeme::Text(text) => {
                self.advance();
                self.node(Kind::Text(text), at)
            }
            Lexeme::Symbol("-") => {
                self.advance();
                if let Lexeme::Number(number) = *self.peek() {
                    self.advance();
                    return self.node(Kind::Number(format!("-{number}")), at);
                }
                let value = Box::new(self.binding(binds::SIGN)?);
                self.node(Kind::Negate(value), at)
            }
            Lexeme::Symbol("+") => {
                self.advance();
                self.binding(binds::SIGN)
            }
            Lexeme::Symbol("(") => self.parentheses(at),
            Lexeme::Symbol("[") => {
                self.advance();
                let items = if self.is_symbol_at(0, "]") { Vec::new() } else { self.list(Self::aliased)? };
                self.expect_symbol("]")?;
                self.node(Kind::Array(items), at)
            }
            Lexeme::Symbol("{" | "?") => Err(parameter()),
            Lexeme::Quoted(_) => self.named(at),
            Lexeme::Word(word) => self.word_operand(word, at),
            Lexeme::Symbol(_) | Lexeme::End => Err(self.unexpected("an expression")),
        }
    }

    fn parentheses(&mut self, at: At) -> Result<Expr, Refusal> {
        if let Some(parameters) = self.lambda_parameters() {
            let body = self.expression()?;
            return self.node(Kind::Lambda(parameters, Box::new(body)), at);
        }
        let query = self.holds_query();
        self.advance();
        if query {
            let query = self.query()?;
            self.expect_symbol(")")?;
            return self.node(Kind::Subquery(Box::new(query)), at);
        }
        let first = self.aliased()?;
        if self.symbol(")") {
            return Ok(first);
        }
        let mut parts = vec![first];
        while self.symbol(",") {
            parts.push(self.aliased()?);
        }
        self.expect_symbol(")")?;
        self.node(Kind::Tuple(parts), at)
    }

    /// Reads `(x, y) ->`, where that is what comes.
    fn lambda_parameters(&mut self) -> Option<Vec<String>> {
        let mut parameters = Vec::new();
        let mut ahead = 1;
        loop {
            match self.peek_at(ahead) {
                Lexeme::Word(name) => parameters.push((*name).to_owned()),
                Lexeme::Quoted(name) => parameters.push(name.clone()),
                _ => return None,
            }
            ahead += 2;
            if self.is_symbol_at(ahead - 1, ")") {
                break;
            }
            if !self.is_symbol_at(ahead - 1, ",") {
                return None;
            }
        }
        if !self.is_symbol_at(ahead, "->") {
            return None;
        }
        self.next += ahead + 1;
        Some(parameters)
    }

    fn aliased(&mut self) -> Result<Expr, Refusal> {
        let value = self.expression()?;
        self.alias(value, false)
    }

    fn word_operand(&mut self, word: &str, at: At) -> Result<Expr, Refusal> {
        let called = self.is_symbol_at(1, "(");
        let qualifies = self.is_symbol_at(1, ".");
        let is = |keyword: &str| word.eq_ignore_ascii_case(keyword);
        if is("NOT") && !qualifies {
            self.advance();
            let value = Box::new(self.binding(binds::NOT)?);
            return self.node(Kind::Not(value), at);
        }
        if is_reserved(word) {
            return Err(self.unexpected("an expression"));
        }
        if !called && !qualifies {
            if is("NULL") {
                self.advance();
                return self.node(Kind::Null, at);
            }
            if is("TRUE") || is("FALSE") {
                self.advance();
                return self.node(Kind::Bool(is("TRUE")), at);
            }
            if is("CURRENT_DATE") {
                self.advance();
                return self.call_of("today", Vec::new(), at);
            }
            if let (true, Lexeme::Text(text)) = (is("DATE") || is("TIMESTAMP"), self.peek_at(1).clone()) {
                let text_at = self.tokens[self.next + 1].at;
                self.next += 2;
                let text = self.node(Kind::Text(text), text_at)?;
                return self.call_of(if is("DATE") { "toDate" } else { "toDateTime" }, vec![text], at);
            }
        }
        if is("CASE") && !qualifies && !self.is_symbol_at(1, ",") && !self.is_symbol_at(1, ")") {
            self.advance();
            return self.case(at);
        }
        if is("INTERVAL") && self.starts_interval() {
            self.advance();
            return self.interval(at);
        }
        if called && is("CAST") {
            self.advance();
            self.advance();
            let value = self.expression()?;
            let target = if self.symbol(",") {
                let Lexeme::Text(name) = self.peek().clone() else { return Err(self.unexpected("a type in quotes")) };
                let read = types::read_text(&name)?;
                self.advance();
                read
            } else {
                self.expect_word("AS")?;
                types::read(self)?
            };
            self.expect_symbol(")")?;
            return self.node(Kind::Cast(Box::new(value), target), at);
        }
        if called
            && is("EXTRACT")
            && self.is_word_at(3, "FROM")
            && let Lexeme::Word(unit) = *self.peek_at(2)
        {
            let part = Part::find(unit).ok_or_else(|| Refusal::query(format!("EXTRACT knows no unit `{unit}`.")))?;
            self.next += 4;
            let value = self.expression()?;
            self.expect_symbol(")")?;
            return self.node(Kind::Extract(part, Box::new(value)), at);
        }
        if self.is_symbol_at(1, "->") {
            let parameter = word.to_owned();
            self.next += 2;
            let body = self.expression()?;
            return self.node(Kind::Lambda(vec![parameter], Box::new(body)), at);
        }
        self.named(at)
    }

    /// A column, an alias or a call.
    fn named(&mut self, at: At) -> Result<Expr, Refusal> {
        let first = self.name("a name")?;
        if self.is_symbol_at(0, "(") {
            return self.call(first, at);
        }
        let mut path = vec![first];
        while self.is_symbol_at(0, ".") && !self.is_symbol_at(1, "*") {
            self.advance();
            path.push(self.name("a column")?);
        }
        self.node(Kind::Name(path), at)
    }

    fn call_of(&mut self, name: &str, arguments: Vec<Expr>, at: At) -> Result<Expr, Refusal> {
        let call = Call { name: name.to_owned(), parameters: None, arguments, distinct: false, over: None };
        self.node(Kind::Call(Box::new(call)), at)
    }

    fn call(&mut self, name: String, at: At) -> Result<Expr, Refusal> {
        let mut call = Call { name, parameters: None, arguments: Vec::new(), distinct: false, over: None };
        self.arguments(&mut call)?;
        if self.is_symbol_at(0, "(") {
            if call.distinct {
                return Err(self.unexpected("no second list of arguments behind DISTINCT"));
            }
            call.parameters = Some(std::mem::take(&mut call.arguments));
            self.arguments(&mut call)?;
        }
        if self.is_word_at(0, "FILTER") && self.is_symbol_at(1, "(") {
            return Err(self.unsupported("FILTER"));
        }
        if self.word("OVER") {
            call.over = Some(if self.is_symbol_at(0, "(") {
                Over::Window(self.window()?)
            } else {
                Over::Named(self.name("a window")?)
            });
        }
        self.node(Kind::Call(Box::new(call)), at)
    }

    fn arguments(&mut self, call: &mut Call) -> Result<(), Refusal> {
        self.expect_symbol("(")?;
        if self.symbol(")") {
            return Ok(());
        }
        if self.is_symbol_at(0, "*") && self.is_symbol_at(1, ")") {
            if !call.name.eq_ignore_ascii_case("count") {
                let star = self.at();
                self.advance();
                call.arguments.push(self.node(Kind::Star, star)?);
            } else {
                self.advance();
            }
            return self.expect_symbol(")");
        }
        if self.starts_query(0) {
            // `EXISTS (SELECT ..)` and its like read as calls, so that the gate can name them (AN-FN-04).
            let at = self.at();
            let query = self.query()?;
            call.arguments.push(self.node(Kind::Subquery(Box::new(query)), at)?);
            return self.expect_symbol(")");
        }
        if self.is_word_at(0, "DISTINCT") && !self.is_symbol_at(1, ")") && !self.is_symbol_at(1, ",") {
            self.advance();
            call.distinct = true;
        }
        call.arguments = self.list(Self::aliased)?;
        self.expect_symbol(")")
    }

    fn case(&mut self, at: At) -> Result<Expr, Refusal> {
        let operand = if self.is_word_at(0, "WHEN") { None } else { Some(Box::new(self.expression()?)) };
        let mut branches = Vec::new();
        while self.word("WHEN") {
            let when = self.expression()?;
            self.expect_word("THEN")?;
            branches.push((when, self.expression()?));
        }
        if branches.is_empty() {
            return Err(self.unexpected("WHEN"));
        }
        let otherwise = if self.word("ELSE") { Some(Box::new(self.expression()?)) } else { None };
        self.expect_word("END")?;
        self.node(Kind::Case { operand, branches, otherwise }, at)
    }

    /// Whether INTERVAL is followed by an amount; otherwise it is a column of that name.
    fn starts_interval(&self) -> bool {
        match self.peek_at(1) {
            Lexeme::Number(_) | Lexeme::Text(_) | Lexeme::Symbol("(") => true,
            Lexeme::Symbol("-") => {
                matches!(self.peek_at(2), Lexeme::Number(_))
                    && matches!(self.peek_at(3), Lexeme::Word(word) if unit(word).is_some())
            }
            Lexeme::Word(word) => {
                !NO_ALIAS.iter().any(|reserved| reserved.eq_ignore_ascii_case(word)) && !is_reserved(word)
            }
            _ => false,
        }
    }

    fn interval(&mut self, at: At) -> Result<Expr, Refusal> {
        // `INTERVAL '1 day'`, and `INTERVAL '1' DAY`.
        if let Lexeme::Text(text) = self.peek().clone() {
            let amount_at = self.at();
            let text = text.trim();
            let (amount, named) =
                text.split_once(' ').map_or((text, None), |(amount, name)| (amount, Some(name.trim())));
            if amount.parse::<i64>().is_err() {
                return Err(self.unexpected("a whole number in INTERVAL"));
            }
            let amount = amount.to_owned();
            let named = named.map(str::to_owned);
            self.advance();
            let amount = Box::new(self.node(Kind::Number(amount), amount_at)?);
            let unit = match named {
                Some(name) => unit(&name).ok_or_else(|| Refusal::query(format!("INTERVAL knows no unit `{name}`.")))?,
                None => self.unit()?,
            };
            return self.node(Kind::Interval(amount, unit), at);
        }
        let amount = Box::new(self.binding(binds::CONCAT)?);
        let unit = self.unit()?;
        self.node(Kind::Interval(amount, unit), at)
    }

    fn unit(&mut self) -> Result<Unit, Refusal> {
        let found = match *self.peek() {
            Lexeme::Word(word) => unit(word),
            _ => None,
        };
        let Some(unit) = found else { return Err(self.unexpected("a unit of time")) };
        self.advance();
        Ok(unit)
    }

    // Windows.

    pub(super) fn named_window(&mut self) -> Result<(String, Window), Refusal> {
        let name = self.name("a window")?;
        self.expect_word("AS")?;
        Ok((name, self.window()?))
    }

    fn window(&mut self) -> Result<Window, Refusal> {
        self.expect_symbol("(")?;
        let mut window = Window::default();
        let keyword = ["PARTITION", "ORDER", "ROWS", "RANGE", "GROUPS"].iter().any(|word| self.is_word_at(0, word));
        if !keyword && !self.is_symbol_at(0, ")") {
            window.base = Some(self.name("a window")?);
        }
        if self.word("PARTITION") {
            self.expect_word("BY")?;
            window.partition_by = self.list(Self::expression)?;
        }
        if self.word("ORDER") {
            self.expect_word("BY")?;
            window.order_by = self.list(Self::sort_key)?;
            if window.order_by.iter().any(|SortKey { fill, .. }| fill.is_some()) {
                return Err(self.unsupported("WITH FILL inside a window"));
            }
        }
        let range = self.word("RANGE");
        if range || self.word("ROWS") {
            let (start, end) = if self.word("BETWEEN") {
                let start = self.bound()?;
                self.expect_word("AND")?;
                (start, self.bound()?)
            } else {
                (self.bound()?, Bound::Current)
            };
            window.frame = Some(Frame { range, start, end });
        }
        self.expect_symbol(")")?;
        Ok(window)
    }

    fn bound(&mut self) -> Result<Bound, Refusal> {
        if self.words(&["CURRENT", "ROW"]) {
            return Ok(Bound::Current);
        }
        let by = if self.word("UNBOUNDED") { None } else { Some(Box::new(self.binding(binds::CONCAT)?)) };
        let following = self.word("FOLLOWING");
        if !following {
            self.expect_word("PRECEDING")?;
        }
        Ok(match by {
            None => Bound::Unbounded { following },
            Some(by) => Bound::Offset { by, following },
        })
    }
}

/// The unit a word names, in singular or plural.
fn unit(word: &str) -> Option<Unit> {
    let word = word.to_ascii_lowercase();
    Some(match word.strip_suffix('s').unwrap_or(&word) {
        "nanosecond" => Unit::Nanosecond,
        "microsecond" => Unit::Microsecond,
        "millisecond" => Unit::Millisecond,
        "second" => Unit::Second,
        "minute" => Unit::Minute,
        "hour" => Unit::Hour,
        "day" => Unit::Day,
        "week" => Unit::Week,
        "month" => Unit::Month,
        "quarter" => Unit::Quarter,
        "year" => Unit::Year,
        _ => return None,
    })
}
