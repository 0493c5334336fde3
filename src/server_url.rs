//! Where a server of somebody else's is: a URL, read strictly.
//!
//! People put names and passwords into URLs. They have no place in ours: URLs are shown in status, logs and settings. So they are
//! refused, and not shown when that is said ([`without_credentials`]).

use std::fmt;

/// Where a server is: an `http://` or `https://` URL, which may have a path that stands before the operations' own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerUrl {
    is_encrypted: bool,
    /// As in a `Host` header: an IPv6 address is in brackets, and the port is there unless it is the scheme's own.
    authority: String,
    host: String,
    port: u16,
    /// Begins with `/` where there is one, and never ends with one.
    prefix: String,
}

impl ServerUrl {
    /// Reads a URL.
    ///
    /// # Errors
    /// A sentence that says what to type instead.
    pub fn parse(text: &str) -> Result<ServerUrl, String> {
        let refuse = |why: &str| Err(format!("the server's URL {:?} {why}", shown(text)));
        if text.contains('@') {
            return refuse(
                "holds a name or a password, which would be shown wherever the URL is: leave out what stands before the @",
            );
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return refuse("has no scheme: write it as http://HOST:PORT");
        };
        let (is_encrypted, usual_port) = match scheme.to_ascii_lowercase().as_str() {
            "http" => (false, 80),
            "https" => (true, 443),
            _ => return refuse("is not of the form http://HOST:PORT or https://HOST:PORT"),
        };
        if rest.contains(['?', '#']) || rest.chars().any(|c| c.is_control() || c.is_whitespace() || !c.is_ascii()) {
            return refuse("holds more than a host, a port and a path");
        }
        let (authority, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
        let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, rest)) => match rest.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None => return refuse("is not of the form http://HOST:PORT"),
            },
            None => authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
        };
        let port = match port.map(|port| (port.bytes().all(|byte| byte.is_ascii_digit()), port.parse::<u16>())) {
            None => usual_port,
            Some((true, Ok(port))) if port > 0 => port,
            Some(_) => return refuse("has no port from 1 to 65535 behind its host"),
        };
        if host.is_empty() || host.contains(['[', ']']) {
            return refuse("names no host");
        }
        let host = host.to_ascii_lowercase();
        let shown = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let authority = if port == usual_port { shown } else { format!("{shown}:{port}") };
        let prefix = path.trim_end_matches('/').to_owned();
        Ok(ServerUrl { is_encrypted, authority, host, port, prefix })
    }

    /// Whether what is sent there can be read by nobody on the way.
    pub fn is_encrypted(&self) -> bool {
        self.is_encrypted
    }

    /// Its host as a name or an address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Host and port, as one connects to them: an IPv6 address is in brackets.
    pub fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// As a `Host` header has it.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// What stands before each path of a request: nothing, or a path without a `/` at its end.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether what is sent there stays on this machine, as far as the name tells.
    pub fn is_loopback(&self) -> bool {
        let address = self.host.parse::<std::net::IpAddr>();
        address.map_or_else(|_| self.host == "localhost", |address| address.is_loopback())
    }
}

/// What took the place of a part that may be secret.
const HIDDEN: &str = "[...]";

/// A URL that is refused, without what may be secret in it: what stands before its last `@`, and behind its first `?` or `#`.
fn shown(text: &str) -> String {
    let without_query = |text: &str| match text.find(['?', '#']) {
        Some(at) => format!("{}{HIDDEN}", &text[..=at]),
        None => text.to_owned(),
    };
    match text.rsplit_once('@') {
        None => without_query(text),
        // These may be of a password, or of a query with an `@` in it: nobody knows what to show.
        Some((before, _)) if before.contains(['?', '#']) => format!("{}{HIDDEN}", scheme(text)),
        Some((_, rest)) => format!("{}{HIDDEN}@{}", scheme(text), without_query(rest)),
    }
}

/// What a URL begins with: its scheme and `://`; nothing where it has none.
fn scheme(text: &str) -> &str {
    text.find("://").map_or("", |at| &text[..at + 3])
}

/// Lines for people that may quote URLs, without what stands in these before an `@`: more may go with it, but no name and no password
/// stays.
pub fn without_credentials(text: &str) -> String {
    let of_line = |line: &str| match (line.find("://"), line.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => format!("{}{HIDDEN}{}", &line[..scheme + 3], &line[at..]),
        _ => line.to_owned(),
    };
    text.split_inclusive('\n').map(of_line).collect()
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_encrypted { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_strictly_and_shown_alike() {
        for (typed, shown) in [
            ("http://127.0.0.1:7070", "http://127.0.0.1:7070"),
            ("HTTP://LocalHost:7070/", "http://localhost:7070"),
            ("http://keys.internal", "http://keys.internal"),
            ("http://keys.internal:80/", "http://keys.internal"),
            ("http://[::1]:7070", "http://[::1]:7070"),
            ("http://gate:8080/keyward/", "http://gate:8080/keyward"),
            ("https://Keys.Example.com:443", "https://keys.example.com"),
            ("https://keys.example.com:80", "https://keys.example.com:80"),
            ("http://keys.example.com:443", "http://keys.example.com:443"),
        ] {
            let url = ServerUrl::parse(typed).expect(typed);
            assert_eq!(url.to_string(), shown);
            assert_eq!(ServerUrl::parse(shown).as_ref(), Ok(&url), "what is shown can be typed");
        }
        for (typed, why) in [
            ("127.0.0.1:7070", "no scheme"),
            ("localhost", "no scheme"),
            ("ftp://x", "http://HOST:PORT"),
            ("http://", "no host"),
            ("http://:7070", "no host"),
            ("http://x:0", "port"),
            ("http://x:99999", "port"),
            ("http://x:+80", "port"),
            ("http://[::1", "port"),
            ("http://[::1]7", "http://HOST:PORT"),
            ("http://user@x", "before the @"),
            ("http://x/?a=1", "more than"),
            ("http://x/\r\nEvil: 1", "more than"),
            ("http://exämple", "more than"),
        ] {
            let told = ServerUrl::parse(typed).expect_err(typed);
            assert!(told.contains(why), "{typed}: {told}");
        }
        let loopback = |url: &str| ServerUrl::parse(url).expect(url).is_loopback();
        assert!(loopback("http://127.0.0.2") && loopback("http://[::1]:1") && loopback("http://localhost"));
        assert!(!loopback("http://10.0.0.1") && !loopback("http://localhost.example"));
    }

    /// Names and passwords are refused and shown in no form, and neither is a query that is refused; whoever reads what was wrong still
    /// knows which URL it was.
    #[test]
    fn what_may_be_secret_in_a_url_is_not_shown() {
        let secret = "s3cret";
        for (typed, stays) in [
            ("https://me:s3cret@keys-1:7071", "https://[...]@keys-1:7071"),
            ("https://s3cret@keys-1:7071", "https://[...]@keys-1:7071"),
            ("https://me:a@s3cret@keys-1:7071/x", "https://[...]@keys-1:7071/x"),
            ("me:s3cret@keys-1:7071", "[...]@keys-1:7071"),
            ("https://me:s3?cret@keys-1:7071", "https://[...]"),
            ("https://me:s3#s3cret@keys-1:7071", "https://[...]"),
            ("https://keys-1:7071/?token=s3cret", "https://keys-1:7071/?[...]"),
            ("https://me@keys-1:7071/?token=s3cret", "https://[...]@keys-1:7071/?[...]"),
            ("https://keys-1/#s3cret", "https://keys-1/#[...]"),
        ] {
            let told = ServerUrl::parse(typed).expect_err(typed);
            assert!(!told.contains(secret) && !told.contains("cret@"), "{told}");
            assert!(told.contains(&format!("\"{stays}\"")), "{typed}: {told}");
            let line = format!("follow, from a.toml: `{typed}` is wrong\n1 | follow = \"{typed}\nthe end");
            let told = without_credentials(&line);
            let is_seen_as_a_url = typed.contains("://") && typed.contains('@') && !typed.contains("token=");
            assert!(!is_seen_as_a_url || !told.contains(secret) && !told.contains("cret@"), "{told}");
            assert!(told.ends_with("\nthe end") && told.contains("a.toml"), "{told}");
        }
        for plain in ["https://keys-1:7071 and ops", "ops@example.com, see https://keys-1", "", "a\nb\n"] {
            assert_eq!(without_credentials(plain), plain);
        }
    }
}
