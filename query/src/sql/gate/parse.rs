//! Tokens into a tree: ClickHouse's SELECT by recursive descent, expressions by precedence climbing (Pratt, "Top down
//! operator precedence", 1973).
//!
//! The grammar is the allowlist of forms: it reads nothing that the tree cannot hold, so no clause can be read and then be
//! forgotten (AN-GATE-09). How deep it recurses is bounded before it recurses (AN-GATE-08).

mod expression;
mod from;
mod types;

use super::lex::{Lexeme, Token, syntax};
use super::tree::{
    At, Body, Distinct, Expr, Fill, GroupBy, Interpolate, Kind, LimitBy, OrderBy, Query, Select, SetOperator, SortKey,
    With,
};
use crate::error::Refusal;

/// Deepest nesting of parentheses, calls, CASEs, subqueries and prefix operators, and deepest tree of operators.
pub const DEPTH_MAX: u16 = 100;

/// A text that was read.
pub struct Parsed {
    /// What it says.
    pub query: Query,
    /// Its syntax nodes (AN-GATE-08).
    pub nodes: usize,
    /// Its select items, over all of its SELECTs (AN-GATE-07).
    pub items: usize,
    /// Whether SETTINGS stand anywhere (AN-GATE-06).
    pub settings: bool,
}

/// Reads the only statement of a text.
pub fn parse(text: &str, tokens: &[Token<'_>]) -> Result<Parsed, Refusal> {
    let mut parser = Parser::new(text, tokens);
    let query = parser.query()?;
    if parser.word("INTO") {
        return Err(parser.unsupported("INTO OUTFILE"));
    }
    if parser.word("FORMAT") {
        return Err(parser.unsupported("FORMAT"));
    }
    while parser.symbol(";") {}
    parser.end()?;
    Ok(Parsed { query, nodes: parser.nodes, items: parser.items, settings: parser.settings })
}

struct Parser<'a> {
    text: &'a str,
    tokens: &'a [Token<'a>],
    next: usize,
    nesting: u16,
    nodes: usize,
    items: usize,
    settings: bool,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str, tokens: &'a [Token<'a>]) -> Parser<'a> {
        Parser { text, tokens, next: 0, nesting: 0, nodes: 0, items: 0, settings: false }
    }

    // Tokens.

    fn peek(&self) -> &Lexeme<'a> {
        self.peek_at(0)
    }

    fn peek_at(&self, ahead: usize) -> &Lexeme<'a> {
        self.tokens.get(self.next + ahead).map_or(&Lexeme::End, |token| &token.kind)
    }

    fn at(&self) -> At {
        self.tokens.get(self.next).or(self.tokens.last()).map_or(At(0), |token| token.at)
    }

    fn advance(&mut self) {
        self.next += 1;
    }

    fn is_word_at(&self, ahead: usize, word: &str) -> bool {
        matches!(self.peek_at(ahead), Lexeme::Word(found) if found.eq_ignore_ascii_case(word))
    }

    fn is_symbol_at(&self, ahead: usize, symbol: &str) -> bool {
        matches!(self.peek_at(ahead), Lexeme::Symbol(found) if *found == symbol)
    }

    fn word(&mut self, word: &str) -> bool {
        let found = self.is_word_at(0, word);
        self.next += usize::from(found);
        found
    }

    fn words(&mut self, words: &[&str]) -> bool {
        let found = words.iter().enumerate().all(|(ahead, word)| self.is_word_at(ahead, word));
        self.next += if found { words.len() } else { 0 };
        found
    }

    fn symbol(&mut self, symbol: &str) -> bool {
        let found = self.is_symbol_at(0, symbol);
        self.next += usize::from(found);
        found
    }

    fn expect_word(&mut self, word: &str) -> Result<(), Refusal> {
        if self.word(word) { Ok(()) } else { Err(self.unexpected(word)) }
    }

    fn expect_symbol(&mut self, symbol: &str) -> Result<(), Refusal> {
        if self.symbol(symbol) { Ok(()) } else { Err(self.unexpected(&format!("`{symbol}`"))) }
    }

    fn end(&mut self) -> Result<(), Refusal> {
        match self.peek() {
            Lexeme::End => Ok(()),
            _ => Err(self.unexpected("the end of the query")),
        }
    }

    // Refusals.

    fn unexpected(&self, wanted: &str) -> Refusal {
        let found = match self.peek() {
            Lexeme::End => {
                return syntax(self.text, self.at(), &format!("expected {wanted}, found the end of the query"));
            }
            Lexeme::Word(word) => format!("`{word}`"),
            Lexeme::Quoted(name) => format!("`{name}`"),
            Lexeme::Number(number) => format!("`{number}`"),
            Lexeme::Text(_) => "a text".to_owned(),
            Lexeme::Symbol("{") => return parameter(),
            Lexeme::Symbol(symbol) => format!("`{symbol}`"),
        };
        syntax(self.text, self.at(), &format!("expected {wanted}, found {found}"))
    }

    fn unsupported(&self, what: &str) -> Refusal {
        Refusal::query(format!("{what} is not supported in analytics queries."))
    }

    /// One level deeper, where that is still allowed.
    fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Refusal>) -> Result<T, Refusal> {
        if self.nesting >= DEPTH_MAX {
            return Err(too_deep());
        }
        self.nesting += 1;
        let value = read(self);
        self.nesting -= 1;
        value
    }

    fn node(&mut self, kind: Kind, at: At) -> Result<Expr, Refusal> {
        self.nodes += 1;
        let mut expr = Expr { kind, at, depth: 1 };
        let below = expr.children().iter().map(|child| child.depth).max().unwrap_or(0);
        let query = expr.query().map_or(0, |query| query.depth);
        expr.depth = 1 + below.max(query);
        if expr.depth > DEPTH_MAX { Err(too_deep()) } else { Ok(expr) }
    }

    fn name(&mut self, what: &str) -> Result<String, Refusal> {
        let name = match self.peek() {
            Lexeme::Word(word) => (*word).to_owned(),
            Lexeme::Quoted(name) => name.clone(),
            _ => return Err(self.unexpected(what)),
        };
        self.advance();
        Ok(name)
    }

    // Queries.

    fn starts_query(&self, ahead: usize) -> bool {
        self.is_word_at(ahead, "SELECT") || (self.is_word_at(ahead, "WITH") && !self.is_symbol_at(ahead + 1, "."))
    }

    /// Whether the parenthesis here holds a query and nothing else: `((SELECT 1) + 1)` is an expression,
    /// `((SELECT 1) UNION ALL SELECT 2)` is a query.
    fn holds_query(&self) -> bool {
        let mut leading = 0;
        while self.is_symbol_at(leading, "(") {
            leading += 1;
        }
        if leading == 0 || !self.starts_query(leading) {
            return false;
        }
        // Outwards from the innermost one, each must end where the next does, or a set operator must follow it.
        let mut open = leading;
        let mut ahead = leading;
        while open > 1 {
            match self.peek_at(ahead) {
                Lexeme::End => return false,
                Lexeme::Symbol("(") => open += 1,
                Lexeme::Symbol(")") => {
                    open -= 1;
                    if open < leading {
                        leading = open;
                        let set = ["UNION", "EXCEPT", "INTERSECT"].iter().any(|word| self.is_word_at(ahead + 1, word));
                        if set || open == 0 {
                            return true;
                        }
                        if !self.is_symbol_at(ahead + 1, ")") {
                            return false;
                        }
                    }
                }
                _ => {}
            }
            ahead += 1;
        }
        true
    }

    fn query(&mut self) -> Result<Query, Refusal> {
        self.nested(|parser| {
            let with = parser.with()?;
            let body = parser.body()?;
            parser.finish(with, body)
        })
    }

    fn finish(&mut self, with: Vec<With>, body: Body) -> Result<Query, Refusal> {
        let below = with.iter().map(|with| match with {
            With::Table { name: _, query } => query.depth,
            With::Scalar { name: _, value } => value.depth,
        });
        let depth = 1 + below.max().unwrap_or(0).max(body_depth(&body));
        if depth > DEPTH_MAX { Err(too_deep()) } else { Ok(Query { with, body, depth }) }
    }

    fn with(&mut self) -> Result<Vec<With>, Refusal> {
        let mut with = Vec::new();
        if !self.word("WITH") {
            return Ok(with);
        }
        if self.is_word_at(0, "RECURSIVE") && !self.is_word_at(1, "AS") {
            return Err(self.unsupported("WITH RECURSIVE"));
        }
        loop {
            let names = matches!(self.peek(), Lexeme::Word(_) | Lexeme::Quoted(_));
            if names && self.is_word_at(1, "AS") && self.is_symbol_at(2, "(") {
                let name = self.name("a name")?;
                self.advance();
                self.advance();
                let query = self.query()?;
                self.expect_symbol(")")?;
                with.push(With::Table { name, query });
            } else {
                let value = self.expression()?;
                self.expect_word("AS")?;
                let name = self.name("a name")?;
                with.push(With::Scalar { name, value });
            }
            if !self.symbol(",") {
                return Ok(with);
            }
        }
    }

    fn body(&mut self) -> Result<Body, Refusal> {
        let mut left = self.intersections()?;
        loop {
            let operator = if self.word("UNION") {
                if self.word("ALL") {
                    SetOperator::UnionAll
                } else if self.word("DISTINCT") {
                    SetOperator::UnionDistinct
                } else {
                    return Err(self.unexpected("ALL or DISTINCT after UNION"));
                }
            } else if self.word("EXCEPT") {
                match self.distinct_or_all() {
                    true => SetOperator::ExceptDistinct,
                    false => SetOperator::Except,
                }
            } else {
                return Ok(left);
            };
            let right = self.intersections()?;
            left = Body::Set { operator, left: Box::new(left), right: Box::new(right) };
        }
    }

    /// INTERSECT binds closer than the others.
    fn intersections(&mut self) -> Result<Body, Refusal> {
        let mut left = self.branch()?;
        while self.word("INTERSECT") {
            let operator = match self.distinct_or_all() {
                true => SetOperator::IntersectDistinct,
                false => SetOperator::Intersect,
            };
            let right = self.branch()?;
            left = Body::Set { operator, left: Box::new(left), right: Box::new(right) };
        }
        Ok(left)
    }

    fn distinct_or_all(&mut self) -> bool {
        self.word("DISTINCT") || {
            self.word("ALL");
            false
        }
    }

    fn branch(&mut self) -> Result<Body, Refusal> {
        if self.symbol("(") {
            let query = self.query()?;
            self.expect_symbol(")")?;
            return Ok(Body::Query(Box::new(query)));
        }
        let with = self.with()?;
        let select = Body::Select(Box::new(self.select()?));
        if with.is_empty() {
            return Ok(select);
        }
        Ok(Body::Query(Box::new(self.finish(with, select)?)))
    }

    fn select(&mut self) -> Result<Select, Refusal> {
        self.expect_word("SELECT")?;
        let distinct = self.distinct()?;
        let items = self.list(Self::item)?;
        self.items += items.len();
        self.nodes += items.len();
        let (from, array_join) = if self.word("FROM") { self.from()? } else { (None, Vec::new()) };
        let prewhere = if self.word("PREWHERE") { Some(self.expression()?) } else { None };
        let filter = if self.word("WHERE") { Some(self.expression()?) } else { None };
        let group_by = self.group_by()?;
        let having = if self.word("HAVING") { Some(self.expression()?) } else { None };
        let windows = if self.word("WINDOW") { self.list(Self::named_window)? } else { Vec::new() };
        if self.word("QUALIFY") {
            return Err(self.unsupported("QUALIFY"));
        }
        let order_by = self.order_by()?;
        let mut select = Select {
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
            limit_by: None,
            limit: None,
            offset: None,
            settings: false,
        };
        self.limits(&mut select)?;
        if self.word("SETTINGS") {
            select.settings = true;
            self.settings = true;
            self.skip_settings()?;
        }
        Ok(select)
    }

    fn distinct(&mut self) -> Result<Distinct, Refusal> {
        if !self.word("DISTINCT") {
            // `SELECT ALL x` says what is meant anyway; ALL may also be a column.
            if self.is_word_at(0, "ALL")
                && matches!(self.peek_at(1), Lexeme::Word(word) if !expression::is_reserved(word))
            {
                self.advance();
            }
            return Ok(Distinct::No);
        }
        if self.is_word_at(0, "ON") && self.is_symbol_at(1, "(") {
            self.advance();
            self.advance();
            let keys = self.list(Self::expression)?;
            self.expect_symbol(")")?;
            return Ok(Distinct::On(keys));
        }
        Ok(Distinct::Rows)
    }

    fn list<T>(&mut self, one: impl Fn(&mut Self) -> Result<T, Refusal>) -> Result<Vec<T>, Refusal> {
        let mut all = vec![one(self)?];
        while self.symbol(",") {
            all.push(one(self)?);
        }
        Ok(all)
    }

    fn item(&mut self) -> Result<Expr, Refusal> {
        let at = self.at();
        let star = if self.symbol("*") {
            Some(Kind::Star)
        } else if matches!(self.peek(), Lexeme::Word(_) | Lexeme::Quoted(_))
            && self.is_symbol_at(1, ".")
            && self.is_symbol_at(2, "*")
        {
            let table = self.name("a table")?;
            self.advance();
            self.advance();
            Some(Kind::QualifiedStar(table))
        } else {
            None
        };
        let Some(star) = star else {
            let value = self.expression()?;
            return self.alias(value, true);
        };
        for modifier in ["EXCEPT", "REPLACE", "APPLY"] {
            let follows = self.is_word_at(0, modifier);
            // `SELECT * EXCEPT SELECT ..` is a set operator.
            if follows && !self.is_word_at(1, "SELECT") && !self.is_word_at(1, "WITH") && !self.starts_query(2) {
                return Err(Refusal::Function(format!(
                    "The function `{}` is not allowed.",
                    modifier.to_ascii_lowercase()
                )));
            }
        }
        self.node(star, at)
    }

    fn group_by(&mut self) -> Result<GroupBy, Refusal> {
        let mut group_by = GroupBy::No;
        if self.words(&["GROUP", "BY"]) {
            group_by = if self.is_word_at(0, "ALL") && !self.is_symbol_at(1, "(") && !self.is_symbol_at(1, ",") {
                self.advance();
                GroupBy::All
            } else if self.is_word_at(0, "ROLLUP") && self.is_symbol_at(1, "(") {
                self.advance();
                GroupBy::Rollup(self.parenthesised()?)
            } else if self.is_word_at(0, "CUBE") && self.is_symbol_at(1, "(") {
                self.advance();
                GroupBy::Cube(self.parenthesised()?)
            } else if self.words(&["GROUPING", "SETS"]) {
                self.expect_symbol("(")?;
                let sets = self.list(|parser| {
                    if parser.is_symbol_at(0, "(") { parser.parenthesised() } else { Ok(vec![parser.expression()?]) }
                })?;
                self.expect_symbol(")")?;
                GroupBy::Sets(sets)
            } else {
                GroupBy::Keys(self.list(Self::expression)?)
            };
        }
        loop {
            if self.words(&["WITH", "TOTALS"]) {
                // The row of totals is computed beside the answer and is no part of it (AN-SEM-02).
                continue;
            }
            let rollup = self.words(&["WITH", "ROLLUP"]);
            if !rollup && !self.words(&["WITH", "CUBE"]) {
                return Ok(group_by);
            }
            group_by = match group_by {
                GroupBy::Keys(keys) if rollup => GroupBy::Rollup(keys),
                GroupBy::Keys(keys) => GroupBy::Cube(keys),
                _ => return Err(self.unsupported("ROLLUP or CUBE without a list of keys")),
            };
        }
    }

    fn parenthesised(&mut self) -> Result<Vec<Expr>, Refusal> {
        self.expect_symbol("(")?;
        if self.symbol(")") {
            return Ok(Vec::new());
        }
        let list = self.list(Self::expression)?;
        self.expect_symbol(")")?;
        Ok(list)
    }

    fn order_by(&mut self) -> Result<OrderBy, Refusal> {
        if !self.words(&["ORDER", "BY"]) {
            return Ok(OrderBy::Keys(Vec::new(), None));
        }
        if self.is_word_at(0, "ALL") && !self.is_symbol_at(1, ",") && !self.is_symbol_at(1, "(") {
            self.advance();
            let descending = self.descending();
            return Ok(OrderBy::All { descending });
        }
        let keys = self.list(Self::sort_key)?;
        let mut interpolate = None;
        if self.word("INTERPOLATE") {
            let mut columns = Vec::new();
            if self.symbol("(") && !self.symbol(")") {
                columns = self.list(Self::interpolated)?;
                self.expect_symbol(")")?;
            }
            interpolate = Some(columns);
        }
        Ok(OrderBy::Keys(keys, interpolate))
    }

    fn interpolated(&mut self) -> Result<Interpolate, Refusal> {
        let at = self.at();
        let column = self.name("a column")?;
        let value = if self.word("AS") { Some(self.expression()?) } else { None };
        Ok(Interpolate { column, value, at })
    }

    fn descending(&mut self) -> bool {
        if self.word("DESC") || self.word("DESCENDING") {
            return true;
        }
        let _ = self.word("ASC") || self.word("ASCENDING");
        false
    }

    fn sort_key(&mut self) -> Result<SortKey, Refusal> {
        let value = self.expression()?;
        let descending = self.descending();
        let nulls_first = self.words(&["NULLS", "FIRST"]);
        if !nulls_first {
            self.words(&["NULLS", "LAST"]);
        }
        if self.word("COLLATE") {
            return Err(self.unsupported("COLLATE"));
        }
        let mut fill = None;
        if self.words(&["WITH", "FILL"]) {
            let from = if self.word("FROM") { Some(self.expression()?) } else { None };
            let to = if self.word("TO") { Some(self.expression()?) } else { None };
            let step = if self.word("STEP") { Some(self.expression()?) } else { None };
            if self.word("STALENESS") {
                return Err(self.unsupported("STALENESS"));
            }
            fill = Some(Fill { from, to, step });
        }
        Ok(SortKey { value, descending, nulls_first, fill })
    }

    fn limits(&mut self, select: &mut Select) -> Result<(), Refusal> {
        while self.word("LIMIT") {
            if self.is_word_at(0, "ALL") {
                self.advance();
                break;
            }
            let first = self.expression()?;
            let (limit, offset) = if self.symbol(",") {
                (self.expression()?, Some(first))
            } else if self.word("OFFSET") {
                (first, Some(self.expression()?))
            } else {
                (first, None)
            };
            if self.word("BY") {
                if select.limit_by.is_some() {
                    return Err(self.unsupported("A second LIMIT BY"));
                }
                if self.is_word_at(0, "ALL") {
                    return Err(self.unsupported("LIMIT BY ALL"));
                }
                select.limit_by = Some(LimitBy { limit, offset, keys: self.list(Self::expression)? });
                continue;
            }
            select.limit = Some(limit);
            select.offset = offset;
            break;
        }
        if select.offset.is_none() && self.word("OFFSET") {
            select.offset = Some(self.expression()?);
            let _ = self.word("ROWS") || self.word("ROW");
        }
        if self.word("FETCH") {
            return Err(self.unsupported("FETCH"));
        }
        if self.words(&["WITH", "TIES"]) {
            return Err(self.unsupported("WITH TIES"));
        }
        Ok(())
    }

    /// `name = value, ..`: only read so that the refusal can say what is wrong.
    fn skip_settings(&mut self) -> Result<(), Refusal> {
        loop {
            self.name("a setting")?;
            if self.symbol("=") {
                self.expression()?;
            }
            if !self.symbol(",") {
                return Ok(());
            }
        }
    }
}

fn body_depth(body: &Body) -> u16 {
    match body {
        Body::Select(select) => {
            let expressions = select.expressions().into_iter().map(|expr| expr.depth).max().unwrap_or(0);
            let from = select.from.as_ref().map_or(0, from::depth);
            1 + expressions.max(from)
        }
        Body::Query(query) => 1 + query.depth,
        Body::Set { operator: _, left, right } => 1 + body_depth(left).max(body_depth(right)),
    }
}

/// The refusal of a text that is nested too deep.
pub fn too_deep() -> Refusal {
    Refusal::query(format!("The query is too complex: it is nested deeper than {DEPTH_MAX} levels."))
}

/// The refusal of `{x:String}` and `?` (AN-FORM-05).
fn parameter() -> Refusal {
    Refusal::query("Query parameters are not supported: write the value itself.")
}
