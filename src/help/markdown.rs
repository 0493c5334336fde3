//! Markdown to HTML: the part of it that our own documents use, and no more.
//!
//! Headings, paragraphs, lists of one level, fenced code, tables, and within a line code, bold and links. What is not
//! understood is shown as it is written; everything is escaped, so that nothing in a document can become markup of its own.
//! The documents are compiled in, and a test holds each of them to this part (`help::tests`).

use std::fmt::{self, Write};

/// What stands for an element of a line.
const CODE: char = '`';

/// Renders a document. `link` says what a link's target becomes.
pub fn html(text: &str, link: fn(&str) -> String) -> String {
    let mut html = String::with_capacity(text.len() * 3 / 2);
    // Writing into a string does not fail.
    let _ = write_blocks(&mut text.lines().peekable(), link, &mut html);
    html
}

/// The text of the first heading.
pub fn title(text: &str) -> &str {
    text.lines().find_map(|line| line.strip_prefix("# ")).unwrap_or_default()
}

/// What a heading is called in a link to it: its letters and digits in lower case, with `-` between words.
pub fn anchor(heading: &str) -> String {
    let words = heading.split(|sign: char| !sign.is_alphanumeric() && sign != '_').filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect::<Vec<_>>().join("-")
}

type Lines<'a> = std::iter::Peekable<std::str::Lines<'a>>;

fn write_blocks(lines: &mut Lines<'_>, link: fn(&str) -> String, html: &mut String) -> fmt::Result {
    while let Some(line) = lines.next() {
        if let Some((level, heading)) = heading(line) {
            write!(html, "<h{level} id=\"{}\">", Escaped(&anchor(heading)))?;
            write_line(heading, link, html)?;
            writeln!(html, "</h{level}>")?;
        } else if line.starts_with("```") {
            html.push_str("<pre><code>");
            for code in lines.by_ref().take_while(|code| !code.starts_with("```")) {
                writeln!(html, "{}", Escaped(code))?;
            }
            html.push_str("</code></pre>\n");
        } else if line.starts_with('|') {
            write_table(line, lines, link, html)?;
        } else if item(line).is_some() {
            write_list(line, lines, link, html)?;
        } else if line.trim().is_empty() || line.starts_with("<!--") {
            // Between blocks; a comment is for whoever keeps the document.
        } else {
            let mut paragraph = line.trim().to_owned();
            while let Some(more) = lines.next_if(|line| continues(line)) {
                paragraph.push(' ');
                paragraph.push_str(more.trim());
            }
            html.push_str("<p>");
            write_line(&paragraph, link, html)?;
            html.push_str("</p>\n");
        }
    }
    Ok(())
}

fn heading(line: &str) -> Option<(usize, &str)> {
    let level = line.bytes().take_while(|byte| *byte == b'#').count();
    (1..=4).contains(&level).then(|| line[level..].strip_prefix(' ')).flatten().map(|heading| (level, heading))
}

/// Whether a line goes on with the paragraph or item above it.
fn continues(line: &str) -> bool {
    !(line.trim().is_empty()
        || line.starts_with("```")
        || line.starts_with('|')
        || line.starts_with("<!--")
        || heading(line).is_some()
        || item(line).is_some())
}

/// Of a line that begins an item: whether the list is numbered, and the item's text.
fn item(line: &str) -> Option<(bool, &str)> {
    if let Some(text) = line.strip_prefix("- ") {
        return Some((false, text));
    }
    let digits = line.bytes().take_while(u8::is_ascii_digit).count();
    (digits > 0).then(|| line[digits..].strip_prefix(". ")).flatten().map(|text| (true, text))
}

fn write_list(first: &str, lines: &mut Lines<'_>, link: fn(&str) -> String, html: &mut String) -> fmt::Result {
    let numbered = item(first).is_some_and(|(numbered, _)| numbered);
    let element = if numbered { "ol" } else { "ul" };
    writeln!(html, "<{element}>")?;
    let mut next = Some(first);
    while let Some((_, text)) = next.and_then(item) {
        let mut whole = text.to_owned();
        while let Some(more) = lines.next_if(|line| continues(line)) {
            whole.push(' ');
            whole.push_str(more.trim());
        }
        html.push_str("<li>");
        write_line(&whole, link, html)?;
        html.push_str("</li>\n");
        next = lines.next_if(|line| item(line).is_some_and(|(kind, _)| kind == numbered));
    }
    writeln!(html, "</{element}>")
}

/// The cells of a row. `\|` is a bar within a cell.
fn cells(line: &str) -> Vec<String> {
    let line = line.trim().trim_start_matches('|');
    let line = line.strip_suffix('|').unwrap_or(line);
    line.replace("\\|", "\u{1}").split('|').map(|cell| cell.trim().replace('\u{1}', "|")).collect()
}

fn write_table(first: &str, lines: &mut Lines<'_>, link: fn(&str) -> String, html: &mut String) -> fmt::Result {
    html.push_str("<table>\n");
    let mut element = "th";
    let mut next = Some(first);
    while let Some(line) = next {
        let row = cells(line);
        if !row.iter().all(|cell| !cell.is_empty() && cell.bytes().all(|byte| matches!(byte, b'-' | b':'))) {
            html.push_str("<tr>");
            for cell in &row {
                write!(html, "<{element}>")?;
                write_line(cell, link, html)?;
                write!(html, "</{element}>")?;
            }
            html.push_str("</tr>\n");
            element = "td";
        }
        next = lines.next_if(|line| line.starts_with('|'));
    }
    html.push_str("</table>\n");
    Ok(())
}

/// Code, bold and links of a line. An opening sign without its closing one is a sign like any other.
fn write_line(text: &str, link: fn(&str) -> String, html: &mut String) -> fmt::Result {
    let mut rest = text;
    while let Some(at) = rest.find([CODE, '*', '[']) {
        write!(html, "{}", Escaped(&rest[..at]))?;
        rest = &rest[at..];
        if let Some((code, after)) = rest.strip_prefix(CODE).and_then(|rest| rest.split_once(CODE)) {
            write!(html, "<code>{}</code>", Escaped(code))?;
            rest = after;
        } else if let Some((bold, after)) = rest.strip_prefix("**").and_then(|rest| rest.split_once("**")) {
            html.push_str("<strong>");
            write_line(bold, link, html)?;
            html.push_str("</strong>");
            rest = after;
        } else if let Some((shown, target, after)) = linked(rest) {
            write!(html, "<a href=\"{}\">", Escaped(&link(target)))?;
            write_line(shown, link, html)?;
            html.push_str("</a>");
            rest = after;
        } else {
            // All three are ASCII.
            write!(html, "{}", Escaped(&rest[..1]))?;
            rest = &rest[1..];
        }
    }
    write!(html, "{}", Escaped(rest))
}

/// `[shown](target)` and what follows.
fn linked(text: &str) -> Option<(&str, &str, &str)> {
    let (shown, rest) = text.strip_prefix('[')?.split_once("](")?;
    let (target, after) = rest.split_once(')')?;
    (!shown.contains('[')).then_some((shown, target, after))
}

/// The targets of all links outside of code, and where they lead by themselves.
#[cfg(test)]
pub fn targets(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut in_code = false;
    for line in text.lines() {
        in_code ^= line.starts_with("```");
        // Every second piece is code.
        for piece in line.split(CODE).step_by(2).filter(|_| !in_code) {
            let mut rest = piece;
            while let Some(at) = rest.find('[') {
                rest = &rest[at..];
                match linked(rest) {
                    Some((_, target, after)) => {
                        found.push(target.to_owned());
                        rest = after;
                    }
                    None => rest = &rest[1..],
                }
            }
        }
    }
    found
}

/// Text in HTML, in an element or a quoted attribute.
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for sign in self.0.chars() {
            match sign {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                sign => f.write_char(sign)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        html(text, |target| format!("to:{target}")).replace('\n', "")
    }

    #[test]
    fn each_block_is_what_it_says() {
        for (text, wanted) in [
            ("# A `b` c\ntext\nmore\n\nnext", "<h1 id=\"a-b-c\">A <code>b</code> c</h1><p>text more</p><p>next</p>"),
            (
                "- one\n  and more\n- two\n\n1. a\n2. b",
                "<ul><li>one and more</li><li>two</li></ul><ol><li>a</li><li>b</li></ol>",
            ),
            (
                "Text:\n```sh\na < b `c`\n# no\n```\nafter",
                "<p>Text:</p><pre><code>a &lt; b `c`# no</code></pre><p>after</p>",
            ),
            (
                "| a | b |\n| --- | :-: |\n| `x\\|y` | |",
                "<table><tr><th>a</th><th>b</th></tr><tr><td><code>x|y</code></td><td></td></tr></table>",
            ),
            (
                "see [the **page**](a.md#b), **bold**",
                "<p>see <a href=\"to:a.md#b\">the <strong>page</strong></a>, <strong>bold</strong></p>",
            ),
            ("<!-- a mark -->\n#no heading, 2 * 3, a[0], `open", "<p>#no heading, 2 * 3, a[0], `open</p>"),
        ] {
            assert_eq!(shown(text), wanted);
        }
        assert_eq!(title("x\n# The title\n## y"), "The title");
        assert_eq!(targets("[a](b) `[c](d)`\n```\n[e](f)\n```\n[g] [h](i)"), ["b", "i"]);
    }

    /// Nothing a text holds becomes markup.
    #[test]
    fn everything_is_escaped() {
        let text = "# <b>\n<script>x</script> `<i>` [<u>](\"><s>)\n- <li>\n```\n</code>\n```\n| <td> |";
        let html = shown(text);
        for forbidden in ["<b>", "<script", "<i>", "<u>", "<s>", "\"><s", "<li><li>", "</code></code>", "<td><td>"] {
            assert!(!html.contains(forbidden), "{forbidden}: {html}");
        }
    }
}
