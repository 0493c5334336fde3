//! TLS towards another node: who may vouch for it, and what this node shows of itself.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::client;
use crate::config;

/// An encrypted connection to another node.
pub type Stream = tokio_rustls::client::TlsStream<TcpStream>;

/// Makes encrypted connections to one host.
pub struct Connector {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Connector {
    /// Connections to `host`, whose certificate must come from the authorities in `ca_file`, or from those that this machine
    /// trusts. Where `own` is set up, its certificate is shown to whoever asks for one.
    ///
    /// # Errors
    /// A sentence: a file cannot be used, or no certificate can be for this host.
    pub fn new(host: &str, ca_file: Option<&Path>, own: &config::Tls) -> Result<Connector, String> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| format!("no certificate can be for {host:?}"))?;
        let bundle = ca_file.map_or_else(client::bundle, |path| Ok(path.to_owned()))?;
        let mut config = client::towards(&bundle, own)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Connector { connector: TlsConnector::from(Arc::new(config)), name })
    }

    /// Agrees with the node at the other end of a stream on an encrypted connection.
    ///
    /// # Errors
    /// Its certificate is not to be trusted, or the connection ended.
    pub async fn connect(&self, stream: TcpStream) -> io::Result<Stream> {
        self.connector.connect(self.name.clone(), stream).await
    }
}
