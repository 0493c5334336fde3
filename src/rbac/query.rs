//! The permission query of `keys.verifyKey` (PM-QRY, KEYS-PERMQ).
//!
//! ```text
//! expr    := and ( OR and )*
//! and     := primary ( AND primary )*
//! primary := PERMISSION | "(" expr ")"
//! ```
//!
//! The parser is Dijkstra's shunting yard: one pass with a stack of operators instead of recursion, which leaves the
//! query in postfix order. Both stacks are bounded by [`NESTING_MAX`].

use std::fmt;

/// Code points a query may have (KEYS-PERMQ-3). The request's schema refuses longer ones first.
pub const QUERY_CHARS_MAX: usize = 1_000;

/// How deep parentheses may nest (PM-QRY-06).
pub const NESTING_MAX: usize = 64;

/// A query that follows the grammar. It borrows its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query<'a> {
    /// Postfix order: operands before their operator.
    steps: Vec<Step<'a>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step<'a> {
    Permission(&'a str),
    And,
    Or,
}

/// Why a query does not parse. Its text is what clients read (KEYS-PERMQ-4, KEYS-PERMQ-5); positions are byte offsets,
/// the first byte being 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueryError {
    /// Nothing but white space.
    Empty,
    /// It ends where an operand is due.
    EndsEarly,
    /// An opening parenthesis is not closed where its expression ends.
    Unclosed {
        /// Where the closing parenthesis was expected.
        position: usize,
    },
    /// `()`.
    EmptyParentheses {
        /// Where the closing parenthesis stands.
        position: usize,
    },
    /// An operator or a closing parenthesis where an operand is due.
    OperandExpected {
        /// What stands there instead, as written.
        token: String,
        /// Where it stands.
        position: usize,
    },
    /// Something follows a complete expression.
    ExtraContent {
        /// The first token that is too much, as written.
        token: String,
        /// Where it stands.
        position: usize,
    },
    /// A character that no query may hold.
    InvalidCharacter {
        /// The first such character.
        character: char,
        /// Where it stands.
        position: usize,
    },
    /// Parentheses nest deeper than [`NESTING_MAX`].
    TooDeep {
        /// Where the first parenthesis stands that is too deep.
        position: usize,
    },
    /// More than [`QUERY_CHARS_MAX`] code points.
    TooLong,
}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const OPERAND: &str = "Expected a permission identifier or opening parenthesis.";
        match self {
            QueryError::Empty => f.write_str("Unexpected end of input. Please provide a valid permission query."),
            QueryError::EndsEarly => write!(f, "Unexpected end of query. {OPERAND}"),
            QueryError::Unclosed { position } => write!(
                f,
                "Missing closing parenthesis ')' at position {position}. Every opening parenthesis must have a \
                 matching closing parenthesis."
            ),
            QueryError::EmptyParentheses { position } => write!(
                f,
                "Empty parentheses found at position {position}. Parentheses must contain at least one permission or \
                 expression."
            ),
            QueryError::OperandExpected { token, position } => {
                write!(f, "Unexpected token '{token}' at position {position}. {OPERAND}")
            }
            QueryError::ExtraContent { token, position } => write!(
                f,
                "Unexpected token '{token}' at position {position}. The query appears to have extra content after a \
                 valid expression."
            ),
            QueryError::InvalidCharacter { character, position } => {
                f.write_str("Invalid character '")?;
                if character.is_control() {
                    // A NUL or an escape sequence has no business in a reply or a terminal.
                    write!(f, "U+{:04X}", u32::from(*character))?;
                } else {
                    write!(f, "{character}")?;
                }
                write!(
                    f,
                    "' found in query at position {position}. Only letters, numbers, dots, underscores, hyphens, \
                     slashes, colons, asterisks, and parentheses are allowed."
                )
            }
            QueryError::TooDeep { position } => write!(
                f,
                "Parentheses nest deeper than {NESTING_MAX} levels at position {position}. Please simplify the query."
            ),
            QueryError::TooLong => {
                write!(f, "The query is too long. At most {QUERY_CHARS_MAX} characters are allowed.")
            }
        }
    }
}

impl std::error::Error for QueryError {}

/// What waits on the operator stack.
#[derive(Clone, Copy)]
enum Waiting {
    And,
    Or,
    Open,
}

impl<'a> Query<'a> {
    /// Parses a query. Time and memory grow linearly with its length.
    pub fn parse(text: &'a str) -> Result<Query<'a>, QueryError> {
        let invalid = text.char_indices().find(|(_, character)| !may_stand_in_query(*character));
        if text.chars().nth(QUERY_CHARS_MAX).is_some() {
            return Err(QueryError::TooLong);
        }
        if let Some((position, character)) = invalid {
            return Err(QueryError::InvalidCharacter { character, position });
        }

        let mut steps = Vec::new();
        let mut waiting: Vec<Waiting> = Vec::new();
        let mut open = 0usize;
        // Whether an operand is due next; if not, an operator, a closing parenthesis or the end is.
        let mut operand_due = true;
        let mut just_opened = false;
        for (position, token) in tokens(text) {
            let opened = std::mem::take(&mut just_opened);
            match (Kind::of(token), operand_due) {
                (Kind::Permission, true) => {
                    steps.push(Step::Permission(token));
                    operand_due = false;
                }
                (Kind::Open, true) if open == NESTING_MAX => return Err(QueryError::TooDeep { position }),
                (Kind::Open, true) => {
                    waiting.push(Waiting::Open);
                    open += 1;
                    just_opened = true;
                }
                (Kind::Close, true) if opened => return Err(QueryError::EmptyParentheses { position }),
                (_, true) => return Err(QueryError::OperandExpected { token: token.to_owned(), position }),
                (Kind::And, false) => {
                    while let Some(Waiting::And) = waiting.last() {
                        waiting.pop();
                        steps.push(Step::And);
                    }
                    waiting.push(Waiting::And);
                    operand_due = true;
                }
                (Kind::Or, false) => {
                    settle(&mut waiting, &mut steps);
                    waiting.push(Waiting::Or);
                    operand_due = true;
                }
                (Kind::Close, false) if open > 0 => {
                    settle(&mut waiting, &mut steps);
                    waiting.pop();
                    open -= 1;
                }
                (_, false) if open > 0 => return Err(QueryError::Unclosed { position }),
                (_, false) => return Err(QueryError::ExtraContent { token: token.to_owned(), position }),
            }
        }
        if operand_due {
            let blank = steps.is_empty() && waiting.is_empty();
            return Err(if blank { QueryError::Empty } else { QueryError::EndsEarly });
        }
        settle(&mut waiting, &mut steps);
        if waiting.is_empty() { Ok(Query { steps }) } else { Err(QueryError::Unclosed { position: text.len() }) }
    }

    /// Whether the query is met by whoever holds exactly the permissions that `holds` says yes to.
    pub fn holds(&self, holds: impl Fn(&str) -> bool) -> bool {
        // A parenthesis keeps at most one OR and one AND waiting, so this many results wait at most, and one is on top.
        let mut results = BitStack::default();
        for step in &self.steps {
            match step {
                Step::Permission(permission) => results.push(holds(permission)),
                Step::And => {
                    let (right, left) = (results.pop(), results.pop());
                    results.push(left && right);
                }
                Step::Or => {
                    let (right, left) = (results.pop(), results.pop());
                    results.push(left || right);
                }
            }
        }
        results.pop()
    }

    /// The permissions the query names, in its order, repeated ones repeated.
    pub fn permissions(&self) -> impl Iterator<Item = &'a str> {
        self.steps.iter().filter_map(|step| match step {
            Step::Permission(permission) => Some(*permission),
            Step::And | Step::Or => None,
        })
    }
}

/// Moves the operators above the innermost open parenthesis to the output.
fn settle(waiting: &mut Vec<Waiting>, steps: &mut Vec<Step<'_>>) {
    while let Some(operator) = waiting.last() {
        match operator {
            Waiting::And => steps.push(Step::And),
            Waiting::Or => steps.push(Step::Or),
            Waiting::Open => return,
        }
        waiting.pop();
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Permission,
    And,
    Or,
    Open,
    Close,
}

impl Kind {
    fn of(token: &str) -> Kind {
        match token {
            "(" => Kind::Open,
            ")" => Kind::Close,
            _ if token.eq_ignore_ascii_case("and") => Kind::And,
            _ if token.eq_ignore_ascii_case("or") => Kind::Or,
            _ => Kind::Permission,
        }
    }
}

/// Splits a text of valid characters into words and parentheses, with their byte offsets.
fn tokens(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        at += text[at..].find(|character| !is_space(character))?;
        let rest = &text[at..];
        let length = match rest.find(|character| !is_permission_character(character)) {
            Some(0) => 1,
            Some(length) => length,
            None => rest.len(),
        };
        let token = (at, &rest[..length]);
        at += length;
        Some(token)
    })
}

/// PM-QRY-03: white space.
fn is_space(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\r' | '\n')
}

/// PM-QRY-03, PM-QRY-05: what a permission consists of.
fn is_permission_character(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '.' | '_' | '-' | '*' | ':' | '/')
}

fn may_stand_in_query(character: char) -> bool {
    is_permission_character(character) || is_space(character) || matches!(character, '(' | ')')
}

/// A stack of booleans in place, large enough for any query that [`Query::parse`] lets through.
#[derive(Default)]
struct BitStack {
    bits: [u64; 4],
    length: usize,
}

/// Two waiting results per level of nesting, outside of all parentheses included, and the newest.
const WAITING_RESULTS_MAX: usize = 2 * (NESTING_MAX + 1) + 1;
const _: () = assert!(WAITING_RESULTS_MAX <= 256, "the bit stack holds the deepest query");

impl BitStack {
    fn push(&mut self, bit: bool) {
        let (word, mask) = (self.length / 64, 1 << (self.length % 64));
        self.bits[word] = if bit { self.bits[word] | mask } else { self.bits[word] & !mask };
        self.length += 1;
    }

    fn pop(&mut self) -> bool {
        self.length -= 1;
        self.bits[self.length / 64] & (1 << (self.length % 64)) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn detail(query: &str) -> String {
        Query::parse(query).expect_err(query).to_string()
    }

    /// KEYS-PERMQ-4, KEYS-PERMQ-5: every detail, the pinned ones verbatim.
    #[test]
    fn what_a_syntax_error_says() {
        for (query, wanted) in [
            ("", "Unexpected end of input. Please provide a valid permission query."),
            (" \t\r\n", "Unexpected end of input. Please provide a valid permission query."),
            ("permission_1 AND", "Unexpected end of query. Expected a permission identifier or opening parenthesis."),
            ("a OR ", "Unexpected end of query. Expected a permission identifier or opening parenthesis."),
            ("(", "Unexpected end of query. Expected a permission identifier or opening parenthesis."),
            (
                "(permission_1 AND permission_2",
                "Missing closing parenthesis ')' at position 30. Every opening parenthesis must have a matching \
                 closing parenthesis.",
            ),
            (
                "(a b)",
                "Missing closing parenthesis ')' at position 3. Every opening parenthesis must have a matching closing \
                 parenthesis.",
            ),
            (
                "permission_1 AND ()",
                "Empty parentheses found at position 18. Parentheses must contain at least one permission or \
                 expression.",
            ),
            (
                "AND permission_1",
                "Unexpected token 'AND' at position 0. Expected a permission identifier or opening parenthesis.",
            ),
            (
                "a or Or b",
                "Unexpected token 'Or' at position 5. Expected a permission identifier or opening parenthesis.",
            ),
            ("(a OR )", "Unexpected token ')' at position 6. Expected a permission identifier or opening parenthesis."),
            (
                "a b",
                "Unexpected token 'b' at position 2. The query appears to have extra content after a valid expression.",
            ),
            (
                "a )",
                "Unexpected token ')' at position 2. The query appears to have extra content after a valid expression.",
            ),
            (
                "a (b)",
                "Unexpected token '(' at position 2. The query appears to have extra content after a valid expression.",
            ),
            (
                "permission@1",
                "Invalid character '@' found in query at position 10. Only letters, numbers, dots, underscores, \
                 hyphens, slashes, colons, asterisks, and parentheses are allowed.",
            ),
            (
                "a OR \u{e9} AND",
                "Invalid character '\u{e9}' found in query at position 5. Only letters, numbers, dots, underscores, \
                 hyphens, slashes, colons, asterisks, and parentheses are allowed.",
            ),
            (
                "a\0 OR b",
                "Invalid character 'U+0000' found in query at position 1. Only letters, numbers, dots, underscores, \
                 hyphens, slashes, colons, asterisks, and parentheses are allowed.",
            ),
        ] {
            assert_eq!(detail(query), wanted, "{query:?}");
        }
    }

    /// PM-QRY-01 to PM-QRY-03, PM-QRY-07, KEYS-PERMQ-2: precedence, whole words, literal stars.
    #[test]
    fn queries_mean_what_the_contract_says() {
        for (query, held, wanted) in [
            ("a OR b AND c", "a", true),
            ("a OR b AND c", "b", false),
            ("(a OR b) AND c", "a", false),
            ("(a OR b) AND c", "b c", true),
            ("a and b Or c", "c", true),
            ("a AND b AND c", "a b", false),
            ("((a))", "a", true),
            ("android", "android", true),
            ("and.x OR ORacle", "ORacle", true),
            ("api.*", "api.read", false),
            ("api.*", "api.*", true),
            ("documents.read", "documents.*", false),
            ("api.*.*.read", "api.*.*.read", true),
            ("system:admin:* AND api_v2-test:read", "system:admin:* api_v2-test:read", true),
            ("A.b", "a.b", false),
            ("unkey:v1:ws:keyspaces/ks", "unkey:v1:ws:keyspaces/ks", true),
            ("a\tOR\r\n(b)", "b", true),
        ] {
            let query = Query::parse(query).expect(query);
            assert_eq!(query.holds(|slug| held.split(' ').any(|one| one == slug)), wanted, "{query:?} with {held}");
        }
    }

    /// PM-QRY-06: length and nesting are bounded; the number of operands is not (KEYS-PERMQ-3).
    #[test]
    fn length_and_nesting_are_bounded() {
        let nested = |depth: usize| format!("{}a{}", "(".repeat(depth), ")".repeat(depth));
        assert!(Query::parse(&nested(NESTING_MAX)).is_ok());
        assert_eq!(Query::parse(&nested(NESTING_MAX + 1)), Err(QueryError::TooDeep { position: NESTING_MAX }));
        assert!(Query::parse(&"a".repeat(QUERY_CHARS_MAX)).is_ok());
        assert_eq!(Query::parse(&"\u{e9}".repeat(QUERY_CHARS_MAX + 1)), Err(QueryError::TooLong));
        // The most results that can wait at once: an OR and an AND at every level.
        let deepest = format!("{}x{}", "n OR y AND (".repeat(64), ")".repeat(64));
        assert!(Query::parse(&deepest).expect("it nests 64 deep").holds(|slug| slug != "n"));
        let many = vec!["a"; 200].join(" OR ");
        assert_eq!(Query::parse(&many).expect("200 operands").permissions().count(), 200);
    }

    /// A query as a tree: what the parser must agree with.
    #[derive(Debug, Clone)]
    enum Tree {
        Leaf(u8),
        And(Box<Tree>, Box<Tree>),
        Or(Box<Tree>, Box<Tree>),
    }

    impl Tree {
        fn holds(&self, held: u8) -> bool {
            match self {
                Tree::Leaf(bit) => held & (1 << bit) != 0,
                Tree::And(left, right) => left.holds(held) && right.holds(held),
                Tree::Or(left, right) => left.holds(held) || right.holds(held),
            }
        }

        /// Writes the tree with the parentheses it needs, and with all of them where `noisy`.
        fn write(&self, noisy: bool, text: &mut String) {
            let child = |tree: &Tree, parentheses: bool, text: &mut String| {
                text.push_str(if parentheses { "(" } else { "" });
                tree.write(noisy, text);
                text.push_str(if parentheses { " )" } else { "" });
            };
            match self {
                Tree::Leaf(bit) => text.push(char::from(b'a' + bit)),
                Tree::And(left, right) => {
                    child(left, noisy || matches!(**left, Tree::Or(..)), text);
                    text.push_str(if noisy { "\tand " } else { " AND " });
                    child(right, noisy || !matches!(**right, Tree::Leaf(_)), text);
                }
                Tree::Or(left, right) => {
                    child(left, noisy, text);
                    text.push_str(if noisy { " oR\n" } else { " OR " });
                    child(right, noisy || matches!(**right, Tree::Or(..)), text);
                }
            }
        }
    }

    fn trees() -> impl Strategy<Value = Tree> {
        let leaf = (0u8..8).prop_map(Tree::Leaf);
        leaf.prop_recursive(6, 48, 2, |inner| {
            let pair = (inner.clone(), inner);
            prop_oneof![
                pair.clone().prop_map(|(left, right)| Tree::And(Box::new(left), Box::new(right))),
                pair.prop_map(|(left, right)| Tree::Or(Box::new(left), Box::new(right))),
            ]
        })
    }

    proptest! {
        /// Written out and parsed back, a query means the same, however it is spaced and parenthesised.
        #[test]
        fn parsing_undoes_writing(tree in trees(), noisy: bool) {
            let mut text = String::new();
            tree.write(noisy, &mut text);
            prop_assume!(text.len() <= QUERY_CHARS_MAX);
            let query = Query::parse(&text).expect("a written tree parses");
            for held in 0..=u8::MAX {
                let naive = tree.holds(held);
                prop_assert_eq!(query.holds(|slug| held & (1 << (slug.as_bytes()[0] - b'a')) != 0), naive, "{}", text);
            }
        }

        /// Whatever a stranger sends is an answer, and never a panic; an accepted query can be asked.
        #[test]
        fn any_text_is_answered(text in "[ab ()@\u{e9}\t]{0,40}|(a|b|AND|or| |\\(|\\)){0,24}") {
            match Query::parse(&text) {
                Ok(query) => { query.holds(|slug| slug == "a"); }
                Err(error) => prop_assert!(!error.to_string().is_empty()),
            }
        }
    }
}
