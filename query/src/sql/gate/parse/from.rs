//! FROM: tables, subqueries and joins.

use super::Parser;
use crate::error::Refusal;
use crate::sql::gate::lex::Lexeme;
use crate::sql::gate::tree::{ArrayJoin, Constraint, From, JoinKind};

impl Parser<'_> {
    /// What follows FROM, with its joins.
    pub(super) fn from(&mut self) -> Result<(Option<From>, Vec<ArrayJoin>), Refusal> {
        let mut from = self.table()?;
        let mut arrays = Vec::new();
        loop {
            if self.symbol(",") {
                let right = self.table()?;
                from = join(JoinKind::Cross, from, right, Constraint::None);
                continue;
            }
            let left = self.words(&["LEFT", "ARRAY", "JOIN"]);
            if left || self.words(&["ARRAY", "JOIN"]) {
                for array in self.list(Self::item)? {
                    arrays.push(ArrayJoin { array, left });
                }
                continue;
            }
            let Some(kind) = self.join_kind()? else { return Ok((Some(from), arrays)) };
            if !arrays.is_empty() {
                return Err(self.unsupported("A JOIN after ARRAY JOIN"));
            }
            let right = self.table()?;
            let constraint = self.constraint(kind)?;
            from = join(kind, from, right, constraint);
        }
    }

    fn join_kind(&mut self) -> Result<Option<JoinKind>, Refusal> {
        let mut words: Vec<String> = Vec::new();
        let mut ahead = 0;
        while let Lexeme::Word(word) = self.peek_at(ahead) {
            let word = word.to_ascii_uppercase();
            ahead += 1;
            match word.as_str() {
                "JOIN" => {
                    self.next += ahead;
                    let words: Vec<&str> =
                        words.iter().map(String::as_str).filter(|word| !matches!(*word, "GLOBAL" | "ALL")).collect();
                    return join_of(&words)
                        .map(Some)
                        .ok_or_else(|| self.unsupported(&format!("{} JOIN", words.join(" "))));
                }
                "GLOBAL" | "LOCAL" | "ANY" | "ALL" | "ASOF" | "SEMI" | "ANTI" | "INNER" | "LEFT" | "RIGHT" | "FULL"
                | "OUTER" | "CROSS" | "NATURAL" | "PASTE" => words.push(word),
                _ => return Ok(None),
            }
        }
        Ok(None)
    }

    fn constraint(&mut self, kind: JoinKind) -> Result<Constraint, Refusal> {
        if kind == JoinKind::Cross {
            return Ok(Constraint::None);
        }
        if self.word("ON") {
            return Ok(Constraint::On(self.expression()?));
        }
        if !self.word("USING") {
            return Err(self.unexpected("ON or USING"));
        }
        let parenthesised = self.symbol("(");
        let names = self.list(|parser| parser.name("a column"))?;
        if parenthesised {
            self.expect_symbol(")")?;
        }
        Ok(Constraint::Using(names))
    }

    fn table(&mut self) -> Result<From, Refusal> {
        self.nodes += 1;
        if self.is_symbol_at(0, "(") {
            let query = self.holds_query();
            self.advance();
            if !query {
                let table = self.nested(Self::table)?;
                self.expect_symbol(")")?;
                return Ok(table);
            }
            let query = Box::new(self.query()?);
            self.expect_symbol(")")?;
            return self.with_alias(|alias| From::Query { query, alias });
        }
        if self.is_word_at(0, "LATERAL") && self.is_symbol_at(1, "(") {
            return Err(self.unsupported("LATERAL"));
        }
        let reserved = matches!(self.peek(), Lexeme::Word(word) if super::expression::is_reserved(word));
        if reserved {
            return Err(self.unexpected("a table"));
        }
        let mut name = self.name("a table")?;
        let mut plain = true;
        while self.symbol(".") {
            plain = false;
            name = format!("{name}.{}", self.name("a table")?);
        }
        if self.is_symbol_at(0, "(") {
            self.skip_parentheses()?;
            return self.with_alias(|_| From::Function { name });
        }
        self.with_alias(|alias| From::Table { name, plain, alias })
    }

    fn with_alias(&mut self, table: impl FnOnce(Option<String>) -> From) -> Result<From, Refusal> {
        let table = table(self.table_alias()?);
        for modifier in ["FINAL", "SAMPLE"] {
            if self.word(modifier) {
                return Err(self.unsupported(modifier));
            }
        }
        Ok(table)
    }
}

fn join(kind: JoinKind, left: From, right: From, constraint: Constraint) -> From {
    From::Join { kind, left: Box::new(left), right: Box::new(right), constraint }
}

/// The join that these words before JOIN stand for, in either order; `None` for those that are not supported.
fn join_of(words: &[&str]) -> Option<JoinKind> {
    let mut words = words.to_vec();
    words.sort_unstable();
    Some(match words.as_slice() {
        [] | ["INNER"] => JoinKind::Inner,
        ["LEFT"] | ["LEFT", "OUTER"] => JoinKind::Left,
        ["RIGHT"] | ["OUTER", "RIGHT"] => JoinKind::Right,
        ["FULL"] | ["FULL", "OUTER"] => JoinKind::Full,
        ["CROSS"] => JoinKind::Cross,
        ["SEMI"] | ["LEFT", "SEMI"] => JoinKind::LeftSemi,
        ["ANTI"] | ["ANTI", "LEFT"] => JoinKind::LeftAnti,
        ["ANY"] | ["ANY", "INNER"] => JoinKind::AnyInner,
        ["ANY", "LEFT"] => JoinKind::AnyLeft,
        ["ANY", "RIGHT"] => JoinKind::AnyRight,
        ["ASOF"] | ["ASOF", "INNER"] => JoinKind::Asof,
        ["ASOF", "LEFT"] => JoinKind::AsofLeft,
        ["RIGHT", "SEMI"] => JoinKind::RightSemi,
        ["ANTI", "RIGHT"] => JoinKind::RightAnti,
        _ => return None,
    })
}

/// Levels of nodes in the subqueries of FROM.
pub(super) fn depth(from: &From) -> u16 {
    match from {
        From::Table { .. } | From::Function { .. } => 0,
        From::Query { query, alias: _ } => query.depth,
        From::Join { kind: _, left, right, constraint: _ } => 1 + depth(left).max(depth(right)),
    }
}
