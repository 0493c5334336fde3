//! SIGHUP: settings are read again, and those that can change while the server runs do.
//!
//! Certificates and headers for telemetry are read again in any case. Settings are taken all or not at all: when anything is wrong with what is typed now, everything stays as it was.

use std::sync::Arc;

use crate::app::Services;
use crate::config::{ConfigError, Reading, Settings};
use crate::http::limits::Limits;
use crate::otlp::Changes;
use crate::telemetry::Level;
use crate::tls::Tls;

/// Reads what is typed now: the same file, flags and environment that the server was started with.
pub type Read = Box<dyn Fn() -> Result<Reading, ConfigError> + Send>;

/// What a reload changes.
pub struct Reloader {
    /// Reads the settings.
    pub read: Read,
    /// Those in force.
    pub settings: Settings,
    /// The least important lines of the log.
    pub level: Level,
    /// Limits of the HTTP layer.
    pub limits: Arc<Limits>,
    /// What the operations work on.
    pub services: Arc<Services>,
    /// TLS, where it is set up.
    pub tls: Option<Arc<Tls>>,
    /// The export of telemetry, where there is one.
    pub otlp: Option<Changes>,
}

impl Reloader {
    /// Reads the settings and puts those in force that can be. The log says what changed, what waits for a restart, and what
    /// is wrong. Blocks on the settings file.
    pub fn reload(&mut self) {
        // What could not be read again, for the last line.
        let mut kept = Vec::new();
        if self.tls.as_ref().is_some_and(|tls| !tls.reload()) {
            kept.push("the certificate");
        }
        let reading = match (self.read)() {
            Ok(reading) => reading,
            Err(ConfigError(problems)) => {
                for problem in problems {
                    tracing::error!("reload: {problem}");
                }
                tracing::error!("the settings were not reloaded: everything stays as it was");
                return;
            }
        };
        reading.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        let differences = self.settings.differences(&reading.settings);
        self.settings = self.settings.reloaded(&reading.settings);
        self.level.set(&self.settings.log);
        self.limits.change(&self.settings);
        self.services.guesses.set_delay_max(self.settings.auth.guess_delay_max);
        if let Some(otlp) = &self.otlp {
            let (telemetry, secrets) = (&self.settings.telemetry, &self.settings.secrets);
            if !otlp.reload(telemetry, secrets, &self.settings.data_dir) {
                kept.push("the headers for telemetry");
            }
        }
        for one in &differences {
            let (setting, from, to) = (one.key, one.from.as_str(), one.to.as_str());
            if one.now {
                tracing::info!(setting, from, to, "a setting has changed");
            } else {
                tracing::warn!(setting, from, to, "a setting has changed that takes effect with a restart");
            }
        }
        let changed = differences.iter().filter(|one| one.now).count();
        let waiting = differences.len() - changed;
        if kept.is_empty() {
            tracing::info!(changed, waiting, "the settings were reloaded");
        } else {
            let kept = kept.join(" and ");
            tracing::error!(
                changed,
                waiting,
                kept,
                "the settings were reloaded, but not all that they name: the lines above say why"
            );
        }
    }
}
