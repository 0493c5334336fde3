//! migrations.*: what keys of another system are taken over by (EXT-13). `keys.migrateKeys` fills one.

pub mod create_migration;
pub mod list_migrations;

use keyward_storage::records::migration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the hashes of a migration were made (KEYS-MIGRATE-4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Algorithm {
    /// SHA-256 of the whole key, in base64 with padding. Such keys verify at once.
    #[serde(rename = "sha256")]
    Sha256,
    /// SHA-256, in lower-case hex, of the long token of `<prefix>_<short token>_<long token>`. Such a key is verified with
    /// the migration's id until it was presented once.
    #[serde(rename = "github.com/seamapi/prefixed-api-key")]
    PrefixedApiKey,
}

impl From<Algorithm> for migration::Algorithm {
    fn from(algorithm: Algorithm) -> migration::Algorithm {
        match algorithm {
            Algorithm::Sha256 => migration::Algorithm::Sha256,
            Algorithm::PrefixedApiKey => migration::Algorithm::PrefixedApiKey,
        }
    }
}

impl From<migration::Algorithm> for Algorithm {
    fn from(algorithm: migration::Algorithm) -> Algorithm {
        match algorithm {
            migration::Algorithm::Sha256 => Algorithm::Sha256,
            migration::Algorithm::PrefixedApiKey => Algorithm::PrefixedApiKey,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// EXT-13: a request's name of an algorithm is the one that stored hashes are made with.
    #[test]
    fn an_algorithm_has_one_name() {
        for algorithm in [Algorithm::Sha256, Algorithm::PrefixedApiKey] {
            let stored = migration::Algorithm::from(algorithm);
            assert_eq!(serde_json::to_value(algorithm).expect("JSON"), stored.name());
            assert_eq!(Algorithm::from(stored), algorithm);
        }
    }
}
