//! What a person reads from inside the program, with no other host in reach: the documentation at `/docs`, and a page for
//! each error code at `/errors/…`.
//!
//! The documents are the files of `packaging/docs`, compiled in. A page is made when it is asked for: they are read rarely,
//! and making one takes less than sending it.
//!
//! `error.type` stays what clients switch on, an address under `https://unkey.com/docs/errors/`. The page of a code is at
//! the same path of this server: `/docs/errors/unkey/data/key_not_found`, and at `/errors/…` for short.

mod markdown;

use std::fmt::Write as _;

use crate::api::OPERATIONS;
use crate::api::problem::{Code, help};
use markdown::Escaped;

/// The look of the pages; the reference page has its own, of the same colours.
const STYLE: &str = include_str!("help/style.css");

/// A document: its name in the address, and its text.
struct Document {
    name: &'static str,
    text: &'static str,
}

/// Compiles the documents in.
macro_rules! documents {
    ($($name:literal),* $(,)?) => {
        &[$(Document { name: $name, text: include_str!(concat!("../packaging/docs/", $name, ".md")) }),*]
    };
}

/// Every document, in the order of the list at the side. `errors` is not among them: it is made from the codes.
const DOCUMENTS: &[Document] = documents![
    "index",
    "install",
    "configure",
    "settings",
    "operate",
    "followers",
    "metrics",
    "telemetry",
    "security",
    "migrate",
    "clients-without-base-url"
];

/// What a document or page may be asked for as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subject {
    Document(usize),
    Errors,
    Error(Code),
}

/// A page of the documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    subject: Subject,
    is_source: bool,
}

/// The page at a path, if there is one: `/docs`, `/docs/NAME`, `/errors`, `/errors/CODE` and `/docs/errors/CODE`; with `.md`
/// behind it, as it was written.
pub fn find(path: &str) -> Option<Page> {
    let (path, is_source) = path.strip_suffix(".md").map_or((path, false), |path| (path, true));
    let at = |subject| Some(Page { subject, is_source });
    if let Some(rest) = path.strip_prefix("/docs/errors").or_else(|| path.strip_prefix("/errors")) {
        return match rest.strip_prefix('/') {
            None if rest.is_empty() => at(Subject::Errors),
            None => None,
            Some(code) => at(Subject::Error(*Code::ALL.iter().find(|one| one.path() == code)?)),
        };
    }
    let name = match path.strip_prefix("/docs")? {
        "" => "index",
        // It has one address.
        "/index" if !is_source => return None,
        rest => rest.strip_prefix('/')?,
    };
    at(Subject::Document(DOCUMENTS.iter().position(|document| document.name == name)?))
}

impl Page {
    /// Its content type and text.
    pub fn render(self) -> (&'static str, String) {
        if self.is_source {
            return ("text/markdown; charset=utf-8", self.source());
        }
        let source = self.source();
        let mut html = String::with_capacity(source.len() * 2 + STYLE.len());
        let title = Escaped(markdown::title(&source)).to_string();
        // Writing into a string does not fail.
        let _ = write!(
            html,
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title} - keyward</title>\n\
             <style>{STYLE}</style>\n</head>\n<body>\n<nav aria-label=\"Documentation\">\n\
             <a class=\"brand\" href=\"/docs\">keyward</a>\n<ul>\n"
        );
        for document in &DOCUMENTS[1..] {
            let (name, title) = (document.name, Escaped(markdown::title(document.text)));
            let _ = writeln!(html, "<li><a href=\"/docs/{name}\">{title}</a></li>");
        }
        html.push_str(
            "<li><a href=\"/errors\">Errors</a></li>\n<li><a href=\"/reference\">API reference</a></li>\n</ul>\n</nav>\n<main>\n",
        );
        html.push_str(&markdown::html(&source, local));
        html.push_str("</main>\n</body>\n</html>\n");
        ("text/html; charset=utf-8", html)
    }

    /// The page in Markdown.
    fn source(self) -> String {
        match self.subject {
            Subject::Document(at) => DOCUMENTS[at].text.to_owned(),
            Subject::Errors => errors_index(),
            Subject::Error(code) => format!("# {}\n\n{}", code.path(), error_section(code)),
        }
    }
}

/// Where a link of a document leads on this server: `configure.md#tls` to `/docs/configure#tls`.
fn local(target: &str) -> String {
    let (path, anchor) = target.find('#').map_or((target, ""), |at| target.split_at(at));
    match path.strip_suffix(".md").filter(|name| !name.contains('/')) {
        Some("index") => format!("/docs{anchor}"),
        Some("errors") if anchor.is_empty() => "/errors".to_owned(),
        Some(name) => format!("/docs/{name}{anchor}"),
        None => target.to_owned(),
    }
}

/// What stands above the codes, in the file and on the page.
const ERRORS_HEAD: &str = "# Errors\n\n\
    Every refusal and every failure has the same form. `error.type` says which of the codes below it is and is what programs \
    switch on; `error.detail` is for people; `error.errors` lists what is wrong with a body that fails validation; \
    `meta.requestId` is in the server's log, too.\n\n\
    `error.type` is an address under `https://unkey.com/docs/errors/`, as Unkey's SDKs expect it. The same path on your own \
    server, `/docs/errors/…`, or `/errors/…` for short, is a page that explains it, without any other host in reach; \
    every such reply names it in its header `Link` (`rel=\"help\"`).\n\n";

/// The list of all codes.
fn errors_index() -> String {
    let mut text = format!("{ERRORS_HEAD}| code | status | what happened |\n| --- | --- | --- |\n");
    for code in Code::ALL {
        let (path, status) = (code.path(), code.status());
        let _ = writeln!(text, "| [{path}](/errors/{path}) | {status} | {} |", help::of(*code).happened);
    }
    text
}

/// What the page of a code says below its heading.
fn error_section(code: Code) -> String {
    let help = help::of(code);
    let mut text = format!(
        "{} {}. `{}`\n\n{}\n\n**Why.** {}\n\n**What to do.** {}\n\n",
        code.status(),
        code.title(),
        code.url(),
        help.happened,
        help.why,
        help.what_to_do
    );
    let declaring: Vec<String> = OPERATIONS
        .iter()
        .filter(|entry| entry.fails.contains(&code))
        .map(|entry| format!("`{}`", entry.name))
        .collect();
    if !declaring.is_empty() {
        let _ = write!(text, "**Operations that answer with it:** {}.\n\n", declaring.join(", "));
    }
    let _ = writeln!(text, "A reply:\n\n```json\n{}\n```", help::example(code));
    text
}

/// The text of `packaging/docs/errors.md`: all codes in one document.
pub fn errors_document() -> String {
    let mut text =
        format!("<!-- Made from src/api/problem/help.rs; a test keeps the two the same. -->\n\n{ERRORS_HEAD}");
    for code in Code::ALL {
        let _ = write!(text, "## {}\n\n{}\n", code.path(), error_section(*code));
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::problem::TYPE_BASE;

    fn folder() -> std::path::PathBuf {
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/docs")
    }

    /// Each code has its page at the path of its `error.type`, at the short one, and as text; nothing else has.
    #[test]
    fn every_error_type_has_its_page() {
        assert!(TYPE_BASE.ends_with("/docs/errors/"), "the path of a type is the path of its page");
        for code in Code::ALL {
            let of_type = code.url().replace("https://unkey.com", "");
            let page = find(&of_type).unwrap_or_else(|| panic!("{of_type} has no page"));
            assert_eq!(find(&format!("/errors/{}", code.path())), Some(page));
            let (content_type, html) = page.render();
            assert_eq!(content_type, "text/html; charset=utf-8");
            for wanted in [code.path(), code.title(), "What to do.", "<pre><code>", "requestId"] {
                assert!(html.contains(wanted), "{of_type} lacks {wanted}");
            }
            let source = find(&format!("{of_type}.md")).expect("its text").render();
            assert!(source.0.starts_with("text/markdown") && source.1.contains(&code.url()));
        }
        for nothing in
            ["/errors/", "/errors/unkey", "/errorsx", "/docs/", "/docs/index", "/docs/../x", "/docs/x", "/doc"]
        {
            assert_eq!(find(nothing), None, "{nothing}");
        }
    }

    /// The file for readers without a server says what the pages say. `KEYWARD_REGENERATE=1` rewrites it.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "a switch of this test")]
    fn the_published_errors_are_those_of_the_code() {
        let path = folder().join("errors.md");
        let generated = errors_document();
        if std::env::var_os("KEYWARD_REGENERATE").is_some() {
            std::fs::write(&path, &generated).expect("packaging/docs/errors.md can be written");
        }
        let published = std::fs::read_to_string(&path).expect("packaging/docs/errors.md is there");
        assert!(published == generated, "run this test with KEYWARD_REGENERATE=1");
    }

    /// A document that is not compiled in would be missing offline; a link that leads nowhere would not be noticed.
    #[test]
    fn every_document_is_served_and_every_link_leads_somewhere() {
        let mut files: Vec<String> = std::fs::read_dir(folder())
            .expect("packaging/docs is there")
            .map(|entry| entry.expect("list it").file_name().into_string().expect("names are text"))
            .filter_map(|name| name.strip_suffix(".md").map(str::to_owned))
            .filter(|name| name != "errors")
            .collect();
        files.sort();
        let mut served: Vec<&str> = DOCUMENTS.iter().map(|document| document.name).collect();
        served.sort_unstable();
        assert_eq!(files, served, "DOCUMENTS lists the files of packaging/docs");

        let pages = DOCUMENTS.iter().map(|document| (document.name, document.text.to_owned()));
        for (name, text) in pages.chain([("errors", errors_index())]) {
            assert!(text.contains("\n# ") || text.starts_with("# "), "{name} has a title");
            assert_eq!(text.lines().filter(|line| line.starts_with("```")).count() % 2, 0, "{name}: an open fence");
            for target in markdown::targets(&text) {
                if target.starts_with("https://") {
                    continue;
                }
                let there = local(&target);
                let (path, anchor) = there.split_once('#').unwrap_or((&there, ""));
                let page = if path.is_empty() { find(&format!("/docs/{name}")) } else { find(path) };
                let page = page.unwrap_or_else(|| panic!("{name}: {target} leads nowhere"));
                let html = page.render().1;
                assert!(anchor.is_empty() || html.contains(&format!("id=\"{anchor}\"")), "{name}: no {target}");
            }
        }
    }

    /// Nothing is loaded from anywhere, and nothing runs.
    #[test]
    fn pages_need_nothing_else() {
        let all = DOCUMENTS.iter().map(|document| match document.name {
            "index" => "/docs".to_owned(),
            name => format!("/docs/{name}"),
        });
        for path in all.chain(["/errors".to_owned()]) {
            let html = find(&path).unwrap_or_else(|| panic!("{path} is a page")).render().1;
            for forbidden in ["<script", "<img", "<link", "<iframe", " src=", "@import", "url(", " style="] {
                assert!(!html.contains(forbidden), "{path}: {forbidden}");
            }
            assert_eq!(html.matches("<style").count(), 1);
            for element in ["h1", "h2", "p", "ul", "li", "table", "tr", "td", "code", "pre", "a", "strong"] {
                let opened =
                    html.matches(&format!("<{element}>")).count() + html.matches(&format!("<{element} ")).count();
                assert_eq!(opened, html.matches(&format!("</{element}>")).count(), "{path}: {element}");
            }
        }
    }
}
