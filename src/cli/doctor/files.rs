//! Who may read what only the server should.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::Finding;
use crate::app::ROOT_KEY_FILE;
use crate::config::Settings;
use crate::http::admin::Operator;
use crate::telemetry::error_chain;
use crate::vault::Vault;

/// Rights of anybody but the owner.
const OTHERS: u32 = 0o077;

pub(super) fn look(settings: &Settings) -> Vec<Finding> {
    let mut findings = vec![data_dir(&settings.data_dir)];
    findings.extend(root_key(&settings.data_dir.join(ROOT_KEY_FILE)));
    findings.push(master_key(settings));
    findings
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
    if mode & OTHERS != 0 {
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
    Some(if mode & OTHERS != 0 {
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
        for (mode, state) in [(0o700, State::Ok), (0o750, State::Warning)] {
            set(home.path(), mode);
            assert_eq!(data_dir(home.path()).state, state, "{mode:o}");
        }
        assert_eq!(data_dir(&home.path().join("none")).state, State::Note);
    }
}
