//! Words: what text is broken into, and what it means that a query finds a text.
//!
//! A **word** is a run of letters and digits, in lower case, without accents. Everything else separates, so `ada@example.com`
//! is three words and `prod_4fKx` two. A text is a sequence of words; a query is a list of **phrases**, and finds what has
//! each of them: its words, one behind the other, in one text. What stands between white space, or in quotation marks, is one
//! phrase; the last word of a query that ends in it may go on in the text, so that an address or the start of a key is found
//! while it is being typed.
//!
//! There is no query language: whatever is no letter and no digit separates, and a quotation mark holds words together.

use tantivy::tokenizer::{AsciiFoldingFilter, RawTokenizer, TextAnalyzer, TokenStream};

/// Most words of one row that are indexed and looked at; the rest of a huge metadata object is not found.
pub const WORDS_MAX: usize = 2000;
/// Letters of a key behind its prefix that are kept, and by which one is found that is told with more of them.
pub const START_LETTERS: usize = 4;
/// Most phrases of a query; more are ignored.
const PHRASES_MAX: usize = 32;

/// Breaks text into words.
#[derive(Default)]
struct Breaker {
    /// Made when the first letter beyond ASCII comes.
    folding: Option<TextAnalyzer>,
}

impl Breaker {
    fn break_up(&mut self, text: &str, mut most: usize, out: &mut Vec<String>) {
        let mut word = String::new();
        for sign in text.chars() {
            if sign.is_ascii_alphanumeric() {
                word.push(sign.to_ascii_lowercase());
            } else if is_combining(sign) {
                // An accent written apart from its letter.
            } else if !sign.is_ascii() && sign.is_alphanumeric() {
                word.extend(sign.to_lowercase().filter(|sign| !is_combining(*sign)));
            } else if !word.is_empty() {
                if most == 0 {
                    return;
                }
                most -= 1;
                out.push(self.fold(std::mem::take(&mut word)));
            }
        }
        if !word.is_empty() && most > 0 {
            out.push(self.fold(word));
        }
    }

    /// Letters without their accents.
    fn fold(&mut self, word: String) -> String {
        if word.is_ascii() {
            return word;
        }
        let make = || TextAnalyzer::builder(RawTokenizer::default()).filter(AsciiFoldingFilter).build();
        let analyzer = self.folding.get_or_insert_with(make);
        let mut stream = analyzer.token_stream(&word);
        let folded = stream.next().map(|token| token.text.to_lowercase());
        drop(stream);
        folded.unwrap_or(word)
    }
}

/// A mark that changes the letter before it.
fn is_combining(sign: char) -> bool {
    matches!(sign, '\u{300}'..='\u{36f}')
}

/// The texts of a row, as words.
#[derive(Default)]
pub struct Texts {
    texts: Vec<Text>,
    left: Option<usize>,
    breaker: Breaker,
}

struct Text {
    words: Vec<String>,
    role: Role,
}

/// What a text is, where that matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Plain,
    /// Its first word says what kind of id it is, which is no reason to find it.
    Id,
    /// The beginning of something longer, which a query may have more of.
    Start,
}

impl Texts {
    /// Adds a text.
    pub fn push(&mut self, text: &str) {
        self.add(text, Role::Plain);
    }

    /// Adds the start of a key: it is also found by its prefix with more of the key than was kept.
    pub fn push_start(&mut self, start: &str) {
        self.add(start, Role::Start);
    }

    /// Adds an id: it is found by what stands behind its prefix, with it or without, and not by the prefix alone.
    pub fn push_id(&mut self, id: &str) {
        self.add(id, Role::Id);
    }

    /// Adds each name, text and number of a metadata object; `json` is compact JSON text.
    pub fn push_meta(&mut self, json: &str) {
        let mut text = String::new();
        let mut signs = json.chars();
        while let Some(sign) = signs.next() {
            match sign {
                '"' | ',' | ':' | '{' | '}' | '[' | ']' => {}
                sign => {
                    text.push(sign);
                    continue;
                }
            }
            if !text.is_empty() {
                self.push(&text);
                text.clear();
            }
            if sign == '"' {
                read_string(&mut signs, &mut text);
                self.push(&text);
                text.clear();
            }
        }
        self.push(&text);
    }

    fn add(&mut self, text: &str, role: Role) {
        let left = self.left.get_or_insert(WORDS_MAX);
        if text.is_empty() || *left == 0 {
            return;
        }
        let mut words = Vec::new();
        self.breaker.break_up(text, *left, &mut words);
        *left -= words.len();
        if !words.is_empty() {
            self.texts.push(Text { words, role });
        }
    }

    /// Every word that a search may begin at.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        let skipped = |text: &Text| usize::from(text.role == Role::Id && text.words.len() > 1);
        self.texts.iter().flat_map(move |text| text.words[skipped(text)..].iter().map(String::as_str))
    }
}

/// The rest of a JSON string, its quotation mark included.
fn read_string(signs: &mut std::str::Chars<'_>, out: &mut String) {
    while let Some(sign) = signs.next() {
        match sign {
            '"' => return,
            '\\' => match signs.next() {
                Some('u') => {
                    let digits: String = signs.by_ref().take(4).collect();
                    let code = u32::from_str_radix(&digits, 16).ok();
                    // Halves of a pair stand for signs beyond the basic plane, which compact JSON writes as they are.
                    out.push(code.and_then(char::from_u32).unwrap_or(' '));
                }
                Some(plain @ ('"' | '\\' | '/')) => out.push(plain),
                Some(_) => out.push(' '),
                None => return,
            },
            sign => out.push(sign),
        }
    }
}

/// A phrase of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Phrase {
    /// Its words, at least one.
    pub words: Vec<String>,
    /// Whether its last word may go on in the text.
    pub open: bool,
}

impl Phrase {
    fn is_in(&self, text: &Text) -> bool {
        let (last, before) = self.words.split_last().expect("a phrase has a word");
        text.words.windows(self.words.len()).enumerate().any(|(at, found)| {
            let (end, rest) = found.split_last().expect("a window has the phrase's length");
            let goes_on = text.role == Role::Start
                && at + self.words.len() == text.words.len()
                && !rest.is_empty()
                && end.chars().count() >= START_LETTERS
                && last.starts_with(end.as_str());
            let ends = end == last || self.open && end.starts_with(last.as_str()) || goes_on;
            let is_prefix_alone = text.role == Role::Id && at == 0 && rest.is_empty() && text.words.len() > 1;
            ends && !is_prefix_alone && rest == before
        })
    }
}

/// What is searched for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Words {
    phrases: Vec<Phrase>,
}

impl Words {
    /// Takes a query apart. Any text is one; one without a letter or digit finds nothing.
    pub fn new(query: &str) -> Words {
        let query = query.trim();
        let mut breaker = Breaker::default();
        let mut phrases: Vec<Phrase> = Vec::new();
        let mut add = |text: &str, open: bool| {
            let mut words = Vec::new();
            breaker.break_up(text, WORDS_MAX, &mut words);
            if !words.is_empty() && phrases.len() < PHRASES_MAX {
                phrases.push(Phrase { words, open });
            }
        };
        let mut quoted = false;
        let pieces: Vec<&str> = query.split('"').collect();
        for (number, piece) in pieces.iter().enumerate() {
            let is_last = number + 1 == pieces.len();
            // A text goes on behind a letter or digit only: what ends in anything else is complete.
            let open =
                is_last && piece.chars().next_back().is_some_and(|sign| sign.is_alphanumeric() || is_combining(sign));
            if quoted {
                add(piece, open);
            } else {
                let mut words = piece.split_whitespace().peekable();
                while let Some(word) = words.next() {
                    add(word, open && words.peek().is_none());
                }
            }
            quoted = !quoted;
        }
        Words { phrases }
    }

    /// Whether nothing can be found by it.
    pub fn is_empty(&self) -> bool {
        self.phrases.is_empty()
    }

    /// Its phrases.
    pub fn phrases(&self) -> &[Phrase] {
        &self.phrases
    }

    /// Whether the texts have every phrase. An empty query finds nothing.
    pub fn find_in(&self, texts: &Texts) -> bool {
        !self.phrases.is_empty() && self.phrases.iter().all(|phrase| texts.texts.iter().any(|text| phrase.is_in(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(texts: &[&str]) -> Texts {
        let mut made = Texts::default();
        texts.iter().for_each(|text| made.push(text));
        made
    }

    fn finds(query: &str, of: &[&str]) -> bool {
        Words::new(query).find_in(&texts(of))
    }

    /// EXT-16: a key is found from whatever the customer can tell: the start of it, a part of its name, an address.
    #[test]
    fn a_query_finds_what_a_customer_can_tell() {
        let of = ["Billing – Crème Brûlée GmbH", "prod_4fKx", "ada.lovelace@example.com", "Straße 12"];
        for query in [
            "billing",
            "BILL",
            "creme",
            "CRÈME brulee",
            "cre\u{300}me",
            "prod_4fKx",
            "prod_4fk",
            "4fkx",
            "prod",
            "ada.lovelace@example.com",
            "ada.lovelace@exa",
            "lovelace",
            "example.com",
            "@example.com",
            "gmbh billing",
            "~billing*",
            "\"creme brulee\"",
            "\"creme brul",
            "billing \"brulee gmbh\" 4f",
            "strasse 12",
            "  billing  ",
            "prod_",
            "prod-",
        ] {
            assert!(finds(query, &of), "{query}");
        }
        for query in [
            "",
            "   ",
            "\"",
            "***",
            "bil gmbh",
            "4fkx prod_4fky",
            "lovelace.ada",
            "\"brulee creme\"",
            "gmbh.prod",
            "example.co.uk",
            "\"creme brul\" ",
            "workspace:1",
            "bill*ng",
            "billing OR nothing",
            "pro_",
        ] {
            assert!(!finds(query, &of), "{query}");
        }
    }

    /// EXT-16: an id is found with its prefix and without, and the prefix alone is no reason to find every key.
    #[test]
    fn the_prefix_of_an_id_finds_nothing() {
        let mut of = Texts::default();
        of.push_id("key_Ab12Cd34Ef56Gh78");
        for (query, found) in [
            ("key_ab12cd34ef56gh78", true),
            ("key_ab1", true),
            ("ab12", true),
            ("key", false),
            ("ke", false),
            ("key_", false),
            ("b12", false),
        ] {
            assert_eq!(Words::new(query).find_in(&of), found, "{query}");
        }
        assert_eq!(of.words().collect::<Vec<_>>(), ["ab12cd34ef56gh78"]);
    }

    /// EXT-16: whoever has the prefix and more of a key than was kept of it finds it, too.
    #[test]
    fn a_key_is_found_by_more_than_its_start() {
        let mut of = Texts::default();
        of.push_start("my_app_4fKx");
        for (query, found) in [
            ("my_app_4fKx9aB", true),
            ("app_4fkx9 ", true),
            ("app_4fk", true),
            ("4fkx9ab", false),
            ("app_4fKy9", false),
            ("my_application", false),
            ("my_app9", false),
        ] {
            assert_eq!(Words::new(query).find_in(&of), found, "{query}");
        }
    }

    /// EXT-16: of metadata every name, text and number is a text of its own.
    #[test]
    fn metadata_is_taken_apart() {
        let mut of = Texts::default();
        of.push_meta(
            r#"{"plan":"pro \"max\"","seats":25,"deep":[{"e":"\u00e9t\u00e9\nvoila"},true,null],"u":"日本 語"}"#,
        );
        let words: Vec<&str> = of.words().collect();
        assert_eq!(
            words,
            ["plan", "pro", "max", "seats", "25", "deep", "e", "ete", "voila", "true", "null", "u", "日本", "語"]
        );
        assert!(Words::new("\"pro max\" 25").find_in(&of) && !Words::new("\"plan pro\"").find_in(&of));
    }

    /// Whatever comes in, it comes out as bounded words; a row has so many words and no more.
    #[test]
    fn odd_input_is_bounded() {
        let long = "x".repeat(100_000);
        for query in [&*"a ".repeat(10_000), &*long, "\u{0}\u{ffff}\u{202e}", "\"\"\"\"", "\u{300}\u{301}", "İ ſ ﬁ ⑴"]
        {
            let words = Words::new(query);
            assert!(
                words.phrases().len() <= PHRASES_MAX && words.phrases().iter().all(|phrase| !phrase.words.is_empty())
            );
        }
        let of = texts(&["a ".repeat(5000).as_str(), "beyond"]);
        assert_eq!(of.words().count(), WORDS_MAX);
        assert!(!Words::new("beyond").find_in(&of));
        let mut odd = Texts::default();
        for json in ["", "\"", "{\"a\":\"\\", "{\"a\":\"\\u12", "\"\\ud83d\\ude00\"", "[[[["] {
            odd.push_meta(json);
        }
    }
}
