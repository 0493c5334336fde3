//! Environment variables of Unkey's own server, and of OpenTelemetry where that server reads them: those that mean the same here are taken, so that a set-up can be moved as it
//! is; those that mean nothing here are named in the log, once, with what takes their place.
//!
//! `KEYWARD_…` beats them, and they beat the settings file.

/// A variable that is taken.
pub(super) struct Alias {
    /// Its name.
    pub variable: &'static str,
    /// The setting it gives.
    pub setting: &'static str,
    /// Its value as the setting's; `Err` says what is wrong with it.
    pub take: fn(&str) -> Result<String, String>,
    /// What is made of it, for the page.
    pub meaning: &'static str,
}

/// Those that are taken.
pub(super) static ALIASES: &[Alias] = &[
    Alias {
        variable: "UNKEY_HTTP_PORT",
        setting: "listen",
        take: |text| port(text).map(everywhere),
        meaning: "a port, on all addresses of the machine: 0.0.0.0:PORT",
    },
    Alias {
        variable: "UNKEY_PROMETHEUS_PORT",
        setting: "metrics.listen",
        take: |text| Ok(Some(port(text)?).filter(|port| *port > 0).map(everywhere).unwrap_or_default()),
        meaning: "a port, on all addresses of the machine; 0 means none",
    },
    Alias { variable: "UNKEY_REGION", setting: "region", take: as_it_is, meaning: "the same" },
    Alias { variable: "UNKEY_TEST_MODE", setting: "test_mode", take: as_it_is, meaning: "the same" },
    Alias {
        variable: "UNKEY_MAX_REQUEST_BODY_SIZE",
        setting: "http.max_body_bytes",
        take: |text| match text.parse::<i64>() {
            Ok(..=0) => Err("means no limit there, and here there is always one: name a number of bytes".to_owned()),
            _ => Ok(text.to_owned()),
        },
        meaning: "the same; 0 is refused, since here there is always a limit",
    },
    Alias {
        variable: "OTEL_EXPORTER_OTLP_ENDPOINT",
        setting: "telemetry.otlp_endpoint",
        take: as_it_is,
        meaning: "the same: the URL that stands before /v1/traces and /v1/metrics",
    },
    Alias {
        variable: "UNKEY_OTEL_OTLP_ENDPOINT",
        setting: "telemetry.otlp_endpoint",
        take: as_it_is,
        meaning: "the same",
    },
    Alias {
        variable: "UNKEY_OTEL_TRACE_SAMPLING_RATE",
        setting: "telemetry.sampling_ratio",
        take: as_it_is,
        meaning: "the same",
    },
    Alias {
        variable: "OTEL_METRIC_EXPORT_INTERVAL",
        setting: "telemetry.metrics_interval_ms",
        take: as_it_is,
        meaning: "the same",
    },
];

/// Those that mean nothing here, and why not.
pub(super) static UNUSED: &[(&str, &str)] = &[
    ("UNKEY_DATABASE_PRIMARY", "keyward keeps its records in data_dir and needs no database"),
    ("UNKEY_DATABASE_REPLICA", "keyward keeps its records in data_dir and needs no database"),
    ("UNKEY_REDIS_URL", "keyward counts rate limits in memory and needs no Redis"),
    ("UNKEY_CLICKHOUSE_URL", "keyward keeps its events in data_dir and needs no ClickHouse"),
    ("UNKEY_CLICKHOUSE_ANALYTICS_URL", "keyward answers analytics itself; see analytics.*"),
    ("UNKEY_CHPROXY_AUTH_TOKEN", "keyward keeps its events in data_dir and needs no ClickHouse"),
    (
        "UNKEY_VAULT_MASTER_KEYS",
        "keyward's vault has keys of another form: `keyward vault generate-key`, master_key_file",
    ),
    ("UNKEY_VAULT_S3_URL", "keyward's vault keeps what it encrypts in data_dir"),
    ("UNKEY_VAULT_S3_BUCKET", "keyward's vault keeps what it encrypts in data_dir"),
    ("UNKEY_VAULT_S3_ACCESS_KEY_ID", "keyward's vault keeps what it encrypts in data_dir"),
    ("UNKEY_VAULT_S3_ACCESS_KEY_SECRET", "keyward's vault keeps what it encrypts in data_dir"),
    ("UNKEY_LOGS_COLOR", "logs are coloured on a terminal, unless NO_COLOR is set"),
    ("UNKEY_OTEL", "telemetry is exported where telemetry.otlp_endpoint names a collector"),
    (
        "OTEL_EXPORTER_OTLP_HEADERS",
        "headers for the collector stand in the file of telemetry.otlp_headers_file, in a systemd credential, or in KEYWARD_OTLP_HEADERS",
    ),
];

fn as_it_is(text: &str) -> Result<String, String> {
    Ok(text.to_owned())
}

fn port(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| format!("`{text}` is no port; ports are 0 to 65535"))
}

fn everywhere(port: u16) -> String {
    format!("0.0.0.0:{port}")
}
