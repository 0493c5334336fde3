//! Who may read what only the server should.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::Finding;
use crate::app::{RIGHTS_OF_OTHERS, ROOT_KEY_FILE, WRITE_OF_OTHERS};
use crate::audit::file;
use crate::config::Settings;
use crate::http::admin::Operator;
use crate::otlp::headers::Headers;
use crate::pepper::Configured;
use crate::telemetry::error_chain;
use crate::vault::Vault;

pub(super) fn look(settings: &Settings) -> Vec<Finding> {
    let mut findings = vec![data_dir(&settings.data_dir)];
    findings.extend(root_key(&settings.data_dir.join(ROOT_KEY_FILE)));
    findings.push(master_key(settings));
    findings.push(pepper(settings));
    findings.extend(telemetry_headers(settings));
    findings.extend(audit_export(settings));
    findings
}

/// Who may write the settings chooses where keys are kept, and which secrets are used.
pub(super) fn settings(path: &Path) -> Option<Finding> {
    let check = "files.settings";
    let mode = fs::metadata(path).ok()?.mode() & 0o7777;
    let shown = path.display();
    Some(if mode & WRITE_OF_OTHERS != 0 {
        Finding::warning(
            check,
            format!("{shown} has mode {mode:04o}: other users may change the settings"),
            format!("chmod go-w {shown}"),
        )
    } else {
        Finding::ok(check, format!("{shown} is changed by its owner alone"))
    })
}

fn data_dir(path: &Path) -> Finding {
    let check = "files.data_dir";
    let shown = path.display();
    let found = match fs::metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Finding::note(check, format!("{shown} is not there yet"), "the first `keyward serve` makes it");
        }
        Err(error) => {
            return Finding::problem(
                check,
                format!("{shown} cannot be looked at: {error}"),
                "run this as the server's user",
            );
        }
    };
    let mode = found.mode() & 0o7777;
    let me = Operator::current();
    if mode & WRITE_OF_OTHERS != 0 {
        Finding::problem(
            check,
            format!("{shown} has mode {mode:04o}: other users may change and replace what is in it"),
            format!("who writes there decides which keys are valid: chmod 700 {shown}"),
        )
    } else if mode & RIGHTS_OF_OTHERS != 0 {
        let advice = format!("it holds hashes of keys and the audit trail: chmod 700 {shown}");
        Finding::warning(check, format!("{shown} has mode {mode:04o}: other users may look into it"), advice)
    } else if found.uid() != me.uid && me.uid != 0 {
        let owner = Operator::of_uid(found.uid()).name.unwrap_or_else(|| format!("#{}", found.uid()));
        Finding::problem(
            check,
            format!("{shown} belongs to the user {owner}"),
            format!("run this, and the server, as that user: sudo -u {owner} keyward doctor"),
        )
    } else {
        Finding::ok(check, format!("{shown} is for its owner alone"))
    }
}

fn root_key(path: &Path) -> Option<Finding> {
    let check = "files.root_key";
    let mode = fs::metadata(path).ok()?.mode() & 0o7777;
    let shown = path.display();
    Some(if mode & RIGHTS_OF_OTHERS != 0 {
        Finding::problem(
            check,
            format!("{shown} has mode {mode:04o}: other users may read a key that opens everything"),
            format!(
                "chmod 600 {shown}, and replace the key if that was ever exploited (keyward root-key create, then revoke)"
            ),
        )
    } else {
        Finding::ok(
            check,
            format!("{shown} is for its owner alone; once you have stored it elsewhere it may be deleted"),
        )
    })
}

fn master_key(settings: &Settings) -> Finding {
    let check = "files.master_key";
    match Vault::open(&settings.secrets, &settings.data_dir) {
        Ok(vault) if vault.is_set_up() => {
            Finding::ok(check, "a master key is set up; keep a copy of it where no backup goes")
        }
        Ok(_) => Finding::ok(check, "none is set up: no key can be made recoverable"),
        Err(error) => Finding::problem(check, error_chain(&error), "the server would not start with it"),
    }
}

fn pepper(settings: &Settings) -> Finding {
    let check = "files.pepper";
    match Configured::open(&settings.secrets, &settings.data_dir) {
        Ok(pepper) => match pepper.place {
            Some(place) => {
                Finding::ok(check, format!("a pepper is in {place}; keep a copy of it where no backup goes"))
            }
            None => Finding::ok(check, "none is set up: hashes are stored without one"),
        },
        Err(error) => Finding::problem(check, error_chain(&error), "the server would not start with it"),
    }
}

fn telemetry_headers(settings: &Settings) -> Option<Finding> {
    let check = "files.telemetry_headers";
    settings.telemetry.otlp_endpoint.as_ref()?;
    Some(match Headers::read(&settings.secrets, &settings.data_dir) {
        Ok(headers) if headers.is_empty() => Finding::ok(check, "the collector of telemetry is sent no credential"),
        Ok(_) => Finding::ok(check, "the headers for the collector of telemetry can be used"),
        Err(error) => Finding::problem(check, error_chain(&error), "the server would not start with it"),
    })
}

fn audit_export(settings: &Settings) -> Option<Finding> {
    let check = "files.audit_export";
    let path = settings.audit.export_file.as_deref()?;
    let found = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    let (mode, shown) = (found.mode() & 0o7777, path.display());
    Some(if file::is_too_open(mode) {
        Finding::warning(check, format!("{shown} has mode {mode:04o}"), file::rights_advice(path))
    } else {
        Finding::ok(check, format!("{shown} is written by its owner alone"))
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::State;
    use super::*;

    /// A root key that others may read is wrong, a directory that they may look into is worth a word.
    #[test]
    fn what_others_may_read_is_told() {
        let home = tempfile::tempdir().expect("a directory");
        let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set");
        let key = home.path().join(ROOT_KEY_FILE);
        assert!(root_key(&key).is_none());
        fs::write(&key, "x").expect("written");
        for (mode, state) in [(0o600, State::Ok), (0o640, State::Problem), (0o604, State::Problem)] {
            set(&key, mode);
            assert_eq!(root_key(&key).expect("it is there").state, state, "{mode:o}");
        }
        for (mode, state) in
            [(0o700, State::Ok), (0o750, State::Warning), (0o720, State::Problem), (0o777, State::Problem)]
        {
            set(home.path(), mode);
            assert_eq!(data_dir(home.path()).state, state, "{mode:o}");
        }
        assert_eq!(data_dir(&home.path().join("none")).state, State::Note);
        for (mode, state) in [(0o644, State::Ok), (0o664, State::Warning), (0o646, State::Warning)] {
            set(&key, mode);
            assert_eq!(settings(&key).expect("it is there").state, state, "{mode:o}");
        }
    }
}
