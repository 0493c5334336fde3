//! Comma-separated values, record by record (RFC 4180), each with the number of the line that it begins in.

use std::io::BufRead;

/// Bytes of one record: a key's metadata may have a mebibyte.
const RECORD_BYTES_MAX: usize = 4 * 1024 * 1024;
/// What some programs write before a text's first letter, to say that it is UTF-8.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// One record.
#[derive(Debug, PartialEq, Eq)]
pub struct Record {
    /// The line it begins in; the first of the file is 1.
    pub line: u64,
    /// Its fields; at least one.
    pub fields: Vec<String>,
}

/// A record that cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub struct Bad {
    /// The line it begins in.
    pub line: u64,
    /// What is wrong with it.
    pub why: String,
}

/// Reads records. Empty lines are none.
pub struct Reader<R> {
    from: R,
    line: u64,
    bytes: u64,
    ended: bool,
}

impl<R: BufRead> Reader<R> {
    /// Reads from there.
    pub fn new(from: R) -> Reader<R> {
        Reader { from, line: 0, bytes: 0, ended: false }
    }

    /// Bytes read so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds a line to the text; whether there was one.
    fn read_line(&mut self, text: &mut Vec<u8>) -> Result<bool, String> {
        let room = (RECORD_BYTES_MAX + 1).saturating_sub(text.len()) as u64;
        let mut bounded = std::io::Read::take(&mut self.from, room);
        let read = bounded.read_until(b'\n', text).map_err(|error| format!("cannot be read: {error}"))?;
        if text.len() > RECORD_BYTES_MAX {
            return Err(format!("is longer than {RECORD_BYTES_MAX} bytes; is a quote missing?"));
        }
        self.bytes += read as u64;
        self.line += u64::from(read > 0);
        Ok(read > 0)
    }

    fn read(&mut self) -> Option<Result<Record, Bad>> {
        let mut text = Vec::new();
        loop {
            let line = self.line + 1;
            text.clear();
            // A quoted field goes on in the next line: quotes within one are doubled, so their number is odd.
            let mut is_open = false;
            let whole = loop {
                let seen = text.len();
                match self.read_line(&mut text) {
                    Ok(true) => is_open ^= text[seen..].iter().filter(|byte| **byte == b'"').count() % 2 == 1,
                    Ok(false) if text.is_empty() => return None,
                    Ok(false) => {
                        self.ended = true;
                        break if is_open { Err("has a quote that is never closed".to_owned()) } else { Ok(()) };
                    }
                    Err(why) => {
                        self.ended = true;
                        break Err(why);
                    }
                }
                if !is_open {
                    break Ok(());
                }
            };
            let read = whole.and_then(|()| fields(trimmed(&text, line)));
            return Some(match read {
                Ok(fields) if fields == [""] => continue,
                Ok(fields) => Ok(Record { line, fields }),
                Err(why) => Err(Bad { line, why }),
            });
        }
    }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<Record, Bad>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended { None } else { self.read() }
    }
}

fn trimmed(text: &[u8], line: u64) -> &[u8] {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    if line == 1 { text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text) } else { text }
}

fn fields(text: &[u8]) -> Result<Vec<String>, String> {
    let text = std::str::from_utf8(text).map_err(|_| "is not UTF-8".to_owned())?;
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            Some(quoted) => {
                let mut field = String::new();
                let mut rest = quoted;
                loop {
                    let (part, after) = rest.split_once('"').ok_or("has a quote that is never closed")?;
                    field.push_str(part);
                    match after.strip_prefix('"') {
                        Some(more) => {
                            field.push('"');
                            rest = more;
                        }
                        None => break (field, after),
                    }
                }
            }
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                let (field, after) = rest.split_at(end);
                if field.contains('"') {
                    return Err("has a quote within a field that does not begin with one: quote the whole field, and \
                                double the quotes in it"
                        .to_owned());
                }
                (field.to_owned(), after)
            }
        };
        fields.push(field);
        match after.strip_prefix(',') {
            Some(more) => rest = more,
            None if after.is_empty() => return Ok(fields),
            None => return Err("has text behind a closing quote".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record's line and fields, or its line and what is wrong with it.
    type Read = Result<(u64, Vec<String>), (u64, String)>;

    fn read(text: &[u8]) -> Vec<Read> {
        let each = |read: Result<Record, Bad>| {
            read.map(|record| (record.line, record.fields)).map_err(|bad| (bad.line, bad.why))
        };
        Reader::new(text).map(each).collect()
    }

    fn fields_of(line: u64, fields: &[&str]) -> Read {
        Ok((line, fields.iter().map(|field| (*field).to_owned()).collect()))
    }

    #[test]
    fn records_keep_their_lines() {
        let text = "\u{feff}a,b\r\n\n\"x,\"\"y\"\"\nz\",\r\n,\nlast,one";
        assert_eq!(
            read(text.as_bytes()),
            [
                fields_of(1, &["a", "b"]),
                fields_of(3, &["x,\"y\"\nz", ""]),
                fields_of(5, &["", ""]),
                fields_of(6, &["last", "one"]),
            ]
        );
        assert_eq!(read(b""), []);
    }

    /// A record that is wrong costs itself alone, unless its end cannot be found.
    #[test]
    fn a_bad_record_costs_itself() {
        let told = read(b"ok\nsay \"hi\"\n\"a\"b\n\xff\nok\n\"open\nand so on");
        let whys: Vec<_> = told.iter().map(|one| one.as_ref().err().map(|(line, why)| (*line, why.as_str()))).collect();
        assert_eq!(whys.len(), 6);
        assert_eq!((whys[0], whys[4]), (None, None));
        for (at, line, why) in
            [(1, 2, "within a field"), (2, 3, "behind a closing"), (3, 4, "UTF-8"), (5, 6, "never closed")]
        {
            let (told_line, told_why) = whys[at].expect("refused");
            assert!(told_line == line && told_why.contains(why), "{told_line}: {told_why}");
        }
        let endless = format!("\"{}", "x\n".repeat(RECORD_BYTES_MAX));
        let told = read(endless.as_bytes());
        assert!(told.len() == 1 && told[0].as_ref().is_err_and(|(line, why)| *line == 1 && why.contains("longer")));
    }
}
