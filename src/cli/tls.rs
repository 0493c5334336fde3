//! `keyward tls …`: certificates where nobody else makes them, and what a certificate says.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::json;

use super::ask::{Output, print_answer};
use super::{EXIT_ERROR, fail, text};
use crate::outside::Outside;
use crate::telemetry::error_chain;
use crate::tls::certificates::{self, Certificate, Expiry};
use crate::tls::issue::{self, Issued, Purpose};

/// Bytes of a file that is shown.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// How long a server's certificate holds unless something else is asked for: Apple's systems take none that holds longer.
const DAYS_DEFAULT: u64 = 825;
/// What the authority is called begins with this.
const AUTHORITY: &str = "keyward authority";
/// Rights of files that everybody may read, and of those that nobody else may.
const OPEN: u32 = 0o644;
const CLOSED: u32 = 0o600;

const AUTHORITY_CERTIFICATE: &str = "ca.pem";
const AUTHORITY_KEY: &str = "ca.key";

/// `keyward tls`.
#[derive(Debug, clap::Args)]
pub struct TlsArguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Make an authority of your own, and a certificate for this server that it has signed
    #[command(after_help = SELF_SIGNED_HELP)]
    SelfSigned(SelfSignedArguments),
    /// Show what the certificates in a file say
    Show(ShowArguments),
}

const SELF_SIGNED_HELP: &str = "The first run makes the authority (ca.pem, ca.key) and the server's certificate (server.pem, \
    server.key). Clients are told to trust ca.pem, once. Further runs in the same directory use the same authority: run it again \
    to renew the server's certificate or to change its names, and no client notices; a running server takes it within seconds. \
    ca.key is needed for that alone: whoever has it can pretend to be any server to whoever trusts ca.pem, so keep it elsewhere.";

#[derive(Debug, clap::Args)]
struct SelfSignedArguments {
    /// A name or IP address that clients reach the server by; the more the better
    #[arg(long = "name", value_name = "HOST", value_delimiter = ',', required_unless_present = "client")]
    names: Vec<String>,
    /// Make a certificate for a client of this name instead, for tls.client_ca_file
    #[arg(long, value_name = "NAME", conflicts_with = "names")]
    client: Option<String>,
    /// Where the files go
    #[arg(long, value_name = "DIR", default_value = "tls")]
    dir: PathBuf,
    /// How long the certificate holds
    #[arg(long, value_name = "DAYS", default_value_t = DAYS_DEFAULT, value_parser = clap::value_parser!(u64).range(1..=3650))]
    days: u64,
    /// What to print: a text for people, or one JSON object for programs
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, clap::Args)]
struct ShowArguments {
    /// A file of certificates, PEM
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// What to print: a text for people, or one JSON object for programs
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// Runs `keyward tls`.
pub fn run(arguments: TlsArguments) -> ExitCode {
    let outcome = match arguments.action {
        Action::SelfSigned(arguments) => self_signed(&arguments),
        Action::Show(arguments) => show(&arguments),
    };
    match outcome {
        Ok(answer) => print_answer(answer.as_bytes()),
        Err(reason) => fail(EXIT_ERROR, [reason]),
    }
}

/// The authority of a directory.
struct Authority {
    name: String,
    key: zeroize::Zeroizing<String>,
    is_new: bool,
}

fn self_signed(arguments: &SelfSignedArguments) -> Result<String, String> {
    let SelfSignedArguments { names, client, dir, days, output } = arguments;
    for name in names {
        issue::check_name(name)?;
    }
    let (purpose, names, base) = match client {
        Some(name) => (Purpose::Client, vec![name.clone()], file_name(name)?),
        None => (Purpose::Server, names.clone(), "server".to_owned()),
    };
    let now_ms = Outside::system().clock.now_ms();
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(dir)
        .map_err(|error| format!("cannot make the directory {}: {error}", dir.display()))?;
    let authority = authority(dir, now_ms)?;
    let (certificate, key) = (dir.join(format!("{base}.pem")), dir.join(format!("{base}.key")));
    let is_renewed = certificate.exists();
    if is_renewed && purpose == Purpose::Server {
        let before = read_certificates(&certificate)?.swap_remove(0).names;
        let lost: Vec<String> = before.into_iter().filter(|name| !names.contains(name)).collect();
        if !lost.is_empty() {
            return Err(format!(
                "the certificate in {} is also for {}, and whoever uses such a name would refuse one that is not: name all of \
                 them again, or move that file away first",
                certificate.display(),
                lost.join(", ")
            ));
        }
    }
    let issued = issue::issue((&authority.name, &authority.key), &names, purpose, *days, now_ms)
        .map_err(|error| format!("cannot make the certificate: {}", error_chain(&error)))?;
    write_pair(&certificate, &key, &issued)?;
    let whole = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let (ca, certificate, key) = (whole(&dir.join(AUTHORITY_CERTIFICATE)), whole(&certificate), whole(&key));
    let ends = certificates::read_pem(issued.certificate.as_bytes())
        .ok()
        .and_then(|all| all.first().map(|one| one.not_after_ms))
        .unwrap_or_default();
    if *output == Output::Json {
        return Ok(format!(
            "{}\n",
            json!({
                "caFile": ca, "certFile": certificate, "keyFile": key, "names": names, "notAfterMs": ends,
                "authorityIsNew": authority.is_new, "isRenewed": is_renewed,
            })
        ));
    }
    let (ca, certificate, key) = (ca.display(), certificate.display(), key.display());
    let ends = certificates::date(ends);
    let names = names.join(", ");
    Ok(match purpose {
        Purpose::Client => format!(
            "Made a certificate for the client {names}, good until {ends}:\n  {certificate}\n  {key}\n\n\
             The server asks every client for one of this authority when it has in its settings:\n\n\
             [tls]\nclient_ca_file = \"{ca}\"\n\n\
             The client:\n  curl --cacert {ca} --cert {certificate} --key {key} https://…\n"
        ),
        Purpose::Server if is_renewed && !authority.is_new => format!(
            "Renewed the certificate for {names}, good until {ends}:\n  {certificate}\n  {key}\n\n\
             A server that runs with these files takes them within seconds. Clients notice nothing.\n"
        ),
        Purpose::Server => {
            let host = arguments.names.first().map_or("localhost", String::as_str);
            let host = if host.contains(':') { format!("[{host}]") } else { host.replacen('*', "www", 1) };
            format!(
                "Made a certificate for {names}, good until {ends}:\n  {certificate}\n  {key}\n\n\
                 The server, in its settings (the user it runs as must be able to read both files):\n\n\
                 [tls]\ncert_file = \"{certificate}\"\nkey_file = \"{key}\"\n\n\
                 Clients trust one file, which is no secret; copy it to them:\n  {ca}\n\n\
                 curl     curl --cacert {ca} https://{host}:7070/health/ready\n\
                 Node     NODE_EXTRA_CA_CERTS={ca} node app.js\n\
                 Python   SSL_CERT_FILE={ca} python app.py          (httpx, which unkey.py uses)\n\
                 \x20        REQUESTS_CA_BUNDLE={ca} python app.py     (requests)\n\
                 Go       SSL_CERT_FILE={ca} ./app                  (Linux; it replaces the system's list)\n\
                 Debian   cp {ca} /usr/local/share/ca-certificates/keyward.crt && update-ca-certificates\n\
                 Fedora   cp {ca} /etc/pki/ca-trust/source/anchors/keyward.pem && update-ca-trust\n\n\
                 Keep ca.key where the server is not: it is needed to renew, by the same command, and for nothing else.\n"
            )
        }
    })
}

/// The authority of a directory; a new one where there is none.
fn authority(dir: &Path, now_ms: u64) -> Result<Authority, String> {
    let (certificate, key) = (dir.join(AUTHORITY_CERTIFICATE), dir.join(AUTHORITY_KEY));
    match (certificate.exists(), key.exists()) {
        (true, true) => {
            let own = read_certificates(&certificate)?.swap_remove(0);
            if own.expiry(now_ms) == Expiry::Over {
                return Err(format!(
                    "the authority in {} has ended; make a new one in another directory, and let clients trust that one, too",
                    certificate.display()
                ));
            }
            let name = own.subject.strip_prefix("CN=").filter(|name| name.starts_with(AUTHORITY));
            let Some(name) = name.filter(|_| own.is_authority) else {
                return Err(format!(
                    "{} is no authority that this command has made; use another directory",
                    certificate.display()
                ));
            };
            let text = zeroize::Zeroizing::new(read_text(&key)?);
            if issue::key_fingerprint(&text).map_err(|error| format!("{}: {error}", key.display()))?
                != own.key_fingerprint
            {
                return Err(format!("{} and {} do not belong together", certificate.display(), key.display()));
            }
            Ok(Authority { name: name.to_owned(), key: text, is_new: false })
        }
        (true, false) => Err(format!(
            "{} is there and {} is not; put the authority's key there for as long as this command runs, or make a new \
             authority in another directory",
            certificate.display(),
            key.display()
        )),
        (false, true) => Err(format!("{} is there and {} is not", key.display(), certificate.display())),
        (false, false) => {
            let name = format!("{AUTHORITY} {}", certificates::date(now_ms));
            let issued = issue::authority(&name, now_ms)
                .map_err(|error| format!("cannot make an authority: {}", error_chain(&error)))?;
            write_pair(&certificate, &key, &issued)?;
            Ok(Authority { name, key: issued.key, is_new: true })
        }
    }
}

/// The front of a client's files: its name, where that can be one.
fn file_name(name: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let taken = ["ca", "server"].contains(&name);
    if name.is_empty() || name.len() > 64 || name.starts_with('.') || taken || !name.chars().all(plain) {
        return Err(format!(
            "`{name}` cannot name a client: 1 to 64 letters, digits, `-`, `_` and `.`, and not `ca` or `server`"
        ));
    }
    Ok(name.to_owned())
}

/// Writes a certificate and its key, each whole or not at all. The key goes first: a server that looks in between sees a
/// certificate that does not fit, and waits for the other.
fn write_pair(certificate: &Path, key: &Path, issued: &Issued) -> Result<(), String> {
    write(key, issued.key.as_bytes(), CLOSED)?;
    write(certificate, issued.certificate.as_bytes(), OPEN)
}

#[expect(clippy::disallowed_methods, reason = "what a crash loses here is made again by the same command")]
fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), String> {
    let fail = |error: io::Error| format!("cannot write {}: {error}", path.display());
    let new = path.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail(error)),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new).map_err(fail)?;
    // Whatever the umask takes away.
    file.set_permissions(Permissions::from_mode(mode)).map_err(fail)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(fail)?;
    fs::rename(&new, path).map_err(fail)
}

fn read_text(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let read = fs::File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text));
    read.map(|_| text).map_err(|error| format!("cannot read {}: {error}", path.display()))
}

fn read_certificates(path: &Path) -> Result<Vec<Certificate>, String> {
    certificates::read_pem(read_text(path)?.as_bytes()).map_err(|error| format!("{}: {error}", path.display()))
}

fn show(ShowArguments { file, output }: &ShowArguments) -> Result<String, String> {
    let all = read_certificates(file)?;
    if *output == Output::Json {
        return Ok(format!("{}\n", json!({ "certificates": all })));
    }
    let now_ms = Outside::system().clock.now_ms();
    let shown: Vec<String> = all
        .iter()
        .map(|one| {
            let left = match one.expiry(now_ms) {
                Expiry::Over => "it has ended".to_owned(),
                Expiry::NotYet => format!("it begins to hold at {}", text::time(one.not_before_ms)),
                _ => format!("{} days left", one.days_left(now_ms)),
            };
            text::fields(&[
                ("subject", one.subject.clone()),
                ("names", one.names.join(", ")),
                ("issuer", if one.issuer == one.subject { "itself".to_owned() } else { one.issuer.clone() }),
                ("from", text::time(one.not_before_ms)),
                ("until", format!("{} ({left})", text::time(one.not_after_ms))),
                ("signs others", if one.is_authority { "yes" } else { "no" }.to_owned()),
                ("SHA-256", one.fingerprint.clone()),
            ])
        })
        .collect();
    Ok(shown.join("\n"))
}
