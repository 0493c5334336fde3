//! Settings as people and programs see them: each with its value and where it came from; what differs between two; and the
//! page `packaging/docs/settings.md`. Secrets have no part in it.

use std::fmt::Write as _;

use super::table::{Kind, RELOADED, SETTINGS, Setting, describe, find, in_toml};
use super::typed::{OWN_FLAGS, flag_name};
use super::unkey::{ALIASES, UNUSED};
use super::{Reading, Settings};

/// A setting in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Its name.
    pub key: &'static str,
    /// Its value, as a file would have it.
    pub value: String,
    /// Where it was typed; `None` is the default.
    pub place: Option<String>,
}

/// A setting that is not what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Its name.
    pub key: &'static str,
    /// What it was, as a file would have it.
    pub from: String,
    /// What it is.
    pub to: String,
    /// Whether it can take effect without a restart.
    pub now: bool,
}

/// A flag that stands for a setting and has no declaration of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flag {
    /// The setting's name.
    pub key: &'static str,
    /// The flag, without its dashes.
    pub long: String,
    /// What its value is, in capitals.
    pub value: &'static str,
    /// What it means, on one line.
    pub help: String,
}

impl Reading {
    /// Every setting, in the order of the settings file.
    pub fn shown(&self) -> Vec<Shown> {
        let of = |setting: &Setting| Shown {
            key: setting.key,
            value: in_toml((setting.get)(&self.settings)),
            place: self.places.get(setting.key).cloned(),
        };
        SETTINGS.iter().copied().map(of).collect()
    }
}

impl Settings {
    /// What differs in `other`.
    pub fn differences(&self, other: &Settings) -> Vec<Difference> {
        let differ = SETTINGS.iter().copied().filter_map(|setting| {
            let (from, to) = ((setting.get)(self), (setting.get)(other));
            let now = RELOADED.contains(&setting.key);
            (from != to).then(|| Difference { key: setting.key, from: in_toml(from), to: in_toml(to), now })
        });
        differ.collect()
    }

    /// These settings, with those of `other` that can take effect without a restart.
    #[must_use]
    pub fn reloaded(&self, other: &Settings) -> Settings {
        let mut settings = self.clone();
        for setting in RELOADED.iter().filter_map(|key| find(key)) {
            // What one reading has accepted, another accepts.
            let _ = (setting.put)(&mut settings, (setting.get)(other));
        }
        settings
    }
}

/// A flag for every setting that has none of its own.
pub fn flags() -> Vec<Flag> {
    let own = |key: &str| OWN_FLAGS.iter().any(|(other, _)| *other == key);
    let of = |setting: &Setting| {
        let value = match setting.kind {
            Kind::Text => "TEXT",
            Kind::Boolean => "true|false",
            Kind::Integer { .. } | Kind::Ratio => "NUMBER",
            Kind::Choice(_) => "WORD",
            Kind::List => "A,B,…",
        };
        let help = setting.meaning.replace('\n', " ");
        Flag { key: setting.key, long: flag_name(setting.key), value, help }
    };
    SETTINGS.iter().copied().filter(|setting| !own(setting.key)).map(of).collect()
}

/// What stands before the table of settings.
const HEAD: &str = "\
# Settings

A setting can be given, from the strongest to the weakest,

1. as a flag of `keyward serve`: `http.max_connections` is `--http-max-connections`;
2. in the environment: `KEYWARD_HTTP_MAX_CONNECTIONS`; lists are separated by commas;
3. in the environment by the names of Unkey and of OpenTelemetry, for the few below;
4. in the settings file, which `--config` or `KEYWARD_CONFIG` names: `max_connections` in the table `[http]`;
5. not at all: then its default holds.

`keyward config check` says what is wrong with them, and `keyward config show` prints each with its value and where it came
from; both take the same flags as `keyward serve`. A name that is not known is refused in a file and on the command line,
with the name that was probably meant; in the environment, where others leave variables, it is a warning.

Secrets are no settings: `KEYWARD_ROOT_KEY` (the first root key, at least 20 characters), `KEYWARD_MASTER_KEY`,
`KEYWARD_PEPPER` and `KEYWARD_OTLP_HEADERS` stand in the environment alone and are shown nowhere.

SIGHUP (`systemctl kill --signal HUP keyward`) reads everything again. Settings marked with *yes* take effect at once and the log says
which changed; of others that changed it says that they wait for a restart. When anything at all is wrong, everything stays as
it was, and the log says what.

This page is made from `src/config/`; a test keeps the two the same. `config/keyward.toml` is the same as a file.

| setting | default | is | reload | means |
| --- | --- | --- | --- | --- |
";

/// The page's text.
pub fn page() -> String {
    let defaults = Settings::default();
    let mut page = HEAD.to_owned();
    for setting in SETTINGS.iter() {
        let default = in_toml((setting.get)(&defaults));
        let kind = describe(&setting.kind);
        let reload = if RELOADED.contains(&setting.key) { "yes" } else { "" };
        let meaning = setting.meaning.replace('\n', " ").replace('|', "\\|");
        // Writing into a string does not fail.
        let _ = writeln!(page, "| `{}` | `{default}` | {kind} | {reload} | {meaning} |", setting.key);
    }
    page.push_str("\n## Names of Unkey and of OpenTelemetry\n\n| variable | gives | as |\n| --- | --- | --- |\n");
    for alias in ALIASES {
        let _ = writeln!(page, "| `{}` | `{}` | {} |", alias.variable, alias.setting, alias.meaning);
    }
    page.push_str("\nThese are left without effect, and the log says so:\n\n| variable | because |\n| --- | --- |\n");
    for (variable, why) in UNUSED {
        let _ = writeln!(page, "| `{variable}` | {why} |");
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Typed;
    use crate::config::typed::variable_name;

    /// The published page is the one the code generates. `KEYWARD_REGENERATE=1` rewrites it.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "a switch of this test")]
    fn the_published_page_says_what_the_code_does() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/docs/settings.md");
        if std::env::var_os("KEYWARD_REGENERATE").is_some() {
            std::fs::write(path, page()).expect("the page can be written");
        }
        assert_eq!(std::fs::read_to_string(path).expect("it is there"), page(), "run with KEYWARD_REGENERATE=1");
    }

    /// Names made from a setting's differ from each other and from the flags that are written out, and what is said to be
    /// reloaded is a setting.
    #[test]
    fn names_do_not_collide() {
        let mut names: Vec<String> = flags().into_iter().map(|flag| flag.long).collect();
        names.extend(OWN_FLAGS.iter().map(|(_, flag)| flag.trim_start_matches("--").to_owned()));
        assert_eq!(names.len(), SETTINGS.len());
        let mut variables: Vec<String> = SETTINGS.iter().map(|setting| variable_name(setting.key)).collect();
        for list in [&mut names, &mut variables] {
            list.sort();
            list.dedup();
            assert_eq!(list.len(), SETTINGS.len());
        }
        assert!(RELOADED.iter().all(|key| find(key).is_some()));
        assert!(ALIASES.iter().all(|alias| find(alias.setting).is_some()));
    }

    /// Each setting is shown with its value and the place it was typed at, and a secret in no form.
    #[test]
    fn a_setting_is_shown_with_its_place() {
        let secret = "a-root-key-of-thirty-characters";
        let pairs = [
            ("KEYWARD_LOG_LEVEL", "debug"),
            ("UNKEY_REGION", "lost"),
            ("KEYWARD_REGION", "here"),
            ("UNKEY_HTTP_PORT", "8080"),
            ("KEYWARD_ROOT_KEY", secret),
            ("KEYWARD_MASTER_KEY", secret),
            ("KEYWARD_PEPPER", secret),
        ];
        let environment = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let file = Some(("a.toml".to_owned(), "listen = \"127.0.0.1:1\"\n[http]\nidle_timeout_ms = 200".to_owned()));
        let given = vec![("http.max_connections", "7".to_owned())];
        let reading = Typed { environment, file, flags: given, ..Typed::default() }.read().expect("all of it is right");
        let shown = reading.shown();
        let of = |key: &str| {
            let shown = shown.iter().find(|shown| shown.key == key).expect("every setting is shown");
            (shown.value.clone(), shown.place.clone().unwrap_or_default())
        };
        for (key, value, place) in [
            ("log.level", "\"debug\"", "the environment variable KEYWARD_LOG_LEVEL"),
            ("region", "\"here\"", "the environment variable KEYWARD_REGION"),
            ("listen", "[\"0.0.0.0:8080\"]", "the environment variable UNKEY_HTTP_PORT"),
            ("http.idle_timeout_ms", "200", "a.toml"),
            ("http.max_connections", "7", "the flag --http-max-connections"),
            ("test_mode", "false", ""),
        ] {
            assert_eq!(of(key), (value.to_owned(), place.to_owned()), "{key}");
        }
        assert!(!format!("{shown:?}").contains(secret));
    }

    /// What can change at once changes at once, what cannot is told, and nothing else is touched.
    #[test]
    fn differences_say_what_waits_for_a_restart() {
        let old = Settings::default();
        let mut new = old.clone();
        new.log.level = crate::config::LogLevel::Debug;
        new.http.max_body_bytes = 2048;
        new.region = "elsewhere".to_owned();
        let differences = old.differences(&new);
        let told: Vec<(&str, bool)> = differences.iter().map(|one| (one.key, one.now)).collect();
        assert_eq!(told, [("region", false), ("log.level", true), ("http.max_body_bytes", true)]);
        assert_eq!((differences[2].from.as_str(), differences[2].to.as_str()), ("10485760", "2048"));
        let next = old.reloaded(&new);
        assert_eq!(next.differences(&new).iter().map(|one| one.key).collect::<Vec<_>>(), ["region"]);
        assert!(old.differences(&old).is_empty());
    }
}
