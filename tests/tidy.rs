//! The house rules that a program can check. README, "Invariants", gives their reasons.

use std::path::{Path, PathBuf};

/// A source file, and its code without comments and the contents of literals.
struct Source {
    /// Relative to the root, with `/`.
    path: String,
    text: String,
    code: String,
}

impl Source {
    fn under(&self, folders: &[&str]) -> bool {
        folders.iter().any(|folder| self.path.starts_with(folder))
    }

    /// The part of the code that is not a `#[cfg(test)]` module at its end, empty for files that only tests use.
    fn product(&self) -> &str {
        let of_tests = self.path.split('/').any(|part| part == "tests" || part == "tests.rs" || part == "testing.rs")
            || self.under(&["fuzz/", "bench/"]);
        if of_tests {
            return "";
        }
        let module = self.code.match_indices("#[cfg(test)]").map(|(at, _)| at).find(|at| {
            let after = self.code[*at..].lines().skip(1).find(|line| !line.trim_start().starts_with("#["));
            after.is_some_and(|line| line.trim_start().starts_with("mod ") && line.contains('{'))
        });
        &self.code[..module.unwrap_or(self.code.len())]
    }
}

/// The text with comments gone and literals emptied; line breaks stay where they were.
fn code_of(text: &str) -> String {
    let signs: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    let keep_lines =
        |code: &mut String, part: &[char]| part.iter().filter(|sign| **sign == '\n').for_each(|_| code.push('\n'));
    while at < signs.len() {
        let rest = &signs[at..];
        let starts = |what: &str| {
            rest.iter().zip(what.chars()).filter(|(have, want)| **have == *want).count() == what.chars().count()
        };
        let after_word = at > 0 && (signs[at - 1].is_alphanumeric() || signs[at - 1] == '_');
        let length = if starts("//") {
            rest.iter().position(|sign| *sign == '\n').unwrap_or(rest.len())
        } else if starts("/*") {
            let mut depth = 0;
            let mut end = 0;
            while end < rest.len() {
                let pair = (rest[end], rest.get(end + 1).copied());
                end += match pair {
                    ('/', Some('*')) => {
                        depth += 1;
                        2
                    }
                    ('*', Some('/')) => {
                        depth -= 1;
                        2
                    }
                    _ => 1,
                };
                if depth == 0 {
                    break;
                }
            }
            end
        } else if !after_word && raw_string_hashes(rest).is_some() {
            let (lead, hashes) = raw_string_hashes(rest).unwrap();
            let closing: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
            let body = lead + hashes + 1;
            let end = rest[body..].windows(closing.len()).position(|part| part == closing).unwrap_or(0);
            code.push_str("\"\"");
            body + end + closing.len()
        } else if rest[0] == '"' {
            let mut end = 1;
            while end < rest.len() && rest[end] != '"' {
                end += if rest[end] == '\\' { 2 } else { 1 };
            }
            code.push_str("\"\"");
            end + 1
        } else if rest[0] == '\'' && (rest.get(1) == Some(&'\\') || rest.get(2) == Some(&'\'')) {
            let mut end = 1;
            while end < rest.len() && rest[end] != '\'' {
                end += if rest[end] == '\\' { 2 } else { 1 };
            }
            code.push_str("' '");
            end + 1
        } else {
            code.push(rest[0]);
            at += 1;
            continue;
        };
        let end = (at + length).min(signs.len());
        keep_lines(&mut code, &signs[at..end]);
        at = end;
    }
    code
}

/// Where a raw string starts: the length of its `r`, `br` or `cr`, and its number of hashes.
fn raw_string_hashes(rest: &[char]) -> Option<(usize, usize)> {
    let lead = if rest[0] == 'r' {
        1
    } else if matches!(rest[0], 'b' | 'c') && rest.get(1) == Some(&'r') {
        2
    } else {
        return None;
    };
    let hashes = rest[lead..].iter().take_while(|sign| **sign == '#').count();
    (rest.get(lead + hashes) == Some(&'"')).then_some((lead, hashes))
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> =
        ["src", "storage", "query", "bench", "fuzz", "tests"].iter().map(|name| root.join(name)).collect();
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.expect("list a folder").path();
            if path.is_dir() {
                if path.file_name().is_none_or(|name| name != "target") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("read a source file");
                let code = code_of(&text);
                let path = path.strip_prefix(root).unwrap().to_str().expect("paths are text").to_owned();
                found.push(Source { path, text, code });
            }
        }
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    assert!(found.len() > 20, "the sources were not found");
    found
}

/// Lines of the code that hold one of these words as whole words.
fn naming<'a>(code: &'a str, words: &'a [&str]) -> impl Iterator<Item = usize> + 'a {
    let whole = |line: &str, word: &str| {
        line.match_indices(word).any(|(at, _)| {
            let part = |sign: Option<char>| sign.is_some_and(|sign| sign.is_alphanumeric() || sign == '_');
            let (before, after) = (&line[..at], &line[at + word.len()..]);
            !part(before.chars().next_back())
                && (word.ends_with('(') || word.ends_with('!') || !part(after.chars().next()))
        })
    };
    code.lines()
        .enumerate()
        .filter(move |(_, line)| words.iter().any(|word| whole(line, word)))
        .map(|(number, _)| number + 1)
}

/// Fails with every place outside `allowed` whose product code (or all code) names one of the words.
fn only_in(rule: &str, words: &[&str], allowed: &[&str], product: bool) {
    let mut broken = Vec::new();
    for source in sources().iter().filter(|source| !source.under(allowed)) {
        let code = if product { source.product() } else { &source.code };
        broken.extend(naming(code, words).map(|line| format!("{}:{line}", source.path)));
    }
    assert!(broken.is_empty(), "{rule}\n  {}", broken.join("\n  "));
}

#[test]
fn only_http_names_hyper() {
    // bench/ has the floor server and the load generator, which are hyper's to measure.
    only_in("only src/http/ names hyper", &["hyper", "hyper_util", "http_body_util"], &["src/http/", "bench/"], false);
}

#[test]
fn only_api_and_cli_name_json() {
    // Two files of query/ read JSON that is data: a function of the dialect, and rows of an import.
    let data = ["query/src/sql/functions/json_extract_string.rs", "query/src/events/files/ndjson.rs"];
    let shapes = ["src/api/", "src/cli/", "src/http/admin", "src/app", "bench/", "fuzz/", "tests/"];
    // Whoever keeps a lease speaks JSON: etcd, and Kubernetes.
    let data = [&data[..], &["src/replication/lease/"]].concat();
    only_in("only src/api/ and src/cli/ name JSON", &["serde_json"], &[&shapes[..], &data[..]].concat(), true);
}

#[test]
fn only_storage_names_redb() {
    only_in("only storage/ names redb", &["redb"], &["storage/"], false);
}

#[test]
fn only_query_names_datafusion() {
    only_in("only query/ names DataFusion", &["datafusion", "arrow"], &["query/", "fuzz/", "bench/"], false);
}

#[test]
fn only_search_names_tantivy() {
    only_in("only query/src/search/ names tantivy", &["tantivy"], &["query/src/search/"], false);
}

#[test]
fn only_metrics_names_prometheus() {
    only_in("only src/metrics/ names prometheus_client", &["prometheus_client"], &["src/metrics"], false);
}

#[test]
fn only_tls_names_rustls() {
    let words = ["rustls", "tokio_rustls", "rustls_pki_types", "rcgen", "x509_cert"];
    only_in("only src/tls/ names rustls and what makes certificates", &words, &["src/tls", "tests/"], false);
}

#[test]
fn nobody_names_opentelemetry() {
    // src/otlp/ writes the few messages of OTLP itself: the SDK cannot observe histograms that exist already.
    let words = ["opentelemetry", "opentelemetry_sdk", "opentelemetry_otlp", "opentelemetry_proto", "prost"];
    only_in("src/otlp/ writes OTLP's messages itself", &words, &[], false);
}

#[test]
fn telemetry_knows_no_json_and_no_http_server() {
    for source in sources().iter().filter(|source| source.under(&["src/otlp"])) {
        let lines: Vec<usize> = naming(source.product(), &["serde_json", "hyper", "cli", "http"]).collect();
        assert!(lines.is_empty(), "{}:{lines:?} names a layer above", source.path);
    }
}

#[test]
fn only_cli_names_clap() {
    only_in("only src/cli/ names clap", &["clap"], &["src/cli/", "bench/"], false);
}

#[test]
fn storage_knows_no_http_json_or_runtime() {
    let words = ["hyper", "serde_json", "tokio", "clap", "keyward", "keyward_query", "datafusion"];
    for source in sources().iter().filter(|source| source.under(&["storage/"])) {
        let lines: Vec<usize> = naming(source.product(), &words).collect();
        assert!(lines.is_empty(), "{}:{lines:?} names a layer above", source.path);
    }
}

#[test]
fn unsafe_is_in_the_table_and_at_the_allocator() {
    let allowed = ["storage/src/hot/table.rs", "src/allocator.rs"];
    only_in("`unsafe` is for storage/src/hot/table.rs and one call of the allocator's", &["unsafe"], &allowed, false);
}

#[test]
fn unwrap_is_for_tests() {
    only_in("`expect` says why it cannot happen; `unwrap` is for tests", &["unwrap()"], &["tests/"], true);
}

#[test]
fn nothing_is_left_to_do() {
    only_in("finish it", &["todo!", "unimplemented!", "dbg!"], &[], false);
    for source in sources().iter().filter(|source| source.path != "tests/tidy.rs") {
        for word in ["FIXME", "TODO"] {
            assert!(!source.text.contains(word), "{} holds a {word}", source.path);
        }
    }
}

#[test]
fn only_outside_asks_for_time_and_randomness() {
    let allowed = ["src/outside.rs", "bench/", "fuzz/", "tests/"];
    let words =
        ["SystemTime::now", "UtcDateTime::now", "OffsetDateTime::now_utc", "rand::rng", "SysRng", "OsRng", "getrandom"];
    only_in("only src/outside.rs asks the system for the time or a random number", &words, &allowed, true);
}

#[test]
fn only_the_command_line_prints() {
    let allowed = ["src/cli/", "src/main.rs", "bench/", "fuzz/", "tests/"];
    only_in("answers are printed by src/cli/ alone", &["println!", "print!", "eprintln!", "eprint!"], &allowed, true);
}

#[test]
fn files_are_as_long_as_one_idea() {
    let long: Vec<String> = sources()
        .iter()
        .map(|source| (source.text.lines().count(), &source.path))
        .filter(|(lines, _)| *lines > 1000)
        .map(|(lines, path)| format!("{path}: {lines} lines"))
        .collect();
    assert!(long.is_empty(), "over 1000 lines: {long:?}");
}

#[test]
fn every_file_says_what_it_is() {
    let silent: Vec<String> = sources()
        .iter()
        .filter(|source| !source.under(&["fuzz/fuzz_targets/"]))
        .filter(|source| !source.text.lines().take(6).any(|line| line.starts_with("//!")))
        .map(|source| source.path.clone())
        .collect();
    assert!(silent.is_empty(), "no //! at the head of {silent:?}");
}

#[test]
fn the_code_is_seen_without_comments_and_literals() {
    let text = "let a = \"unsafe // \\\" x\"; // unsafe\n/* unsafe /* deep */ */ let b = r#\"uns\"afe\"#; let c = '\"'; let d: &'a str = \"\";\nfn x() {}";
    let code = code_of(text);
    assert!(!code.contains("unsafe") && !code.contains("uns"), "{code}");
    assert!(code.contains("fn x() {}") && code.contains("&'a str") && code.lines().count() == 3, "{code}");
}
