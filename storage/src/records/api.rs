//! APIs: named containers of keys, each with a key space of its own.

use ipnet::IpNet;

use super::codec::row;
use super::{Row, row_key};
use crate::error::ReadError;
use crate::ids::{ApiId, KeyspaceId, WorkspaceNo};
use crate::store::Read;
use crate::tx::Tx;

row! {
    /// An API.
    pub struct ApiRow in API version 1 {
        /// Its key space.
        keyspace: KeyspaceId,
        /// Its name, as given (APIS-GEN-3).
        name: String,
        /// Unix ms.
        created_at: u64,
        /// Unix ms of its deletion. Its keys are no longer live (APIS-DELETE-4).
        deleted_at: Option<u64>,
        /// Prefix of keys whose request names none.
        default_prefix: Option<String>,
        /// Bytes of keys whose request names no length, 16..255.
        default_bytes: Option<u8>,
        /// Whether keys may be made recoverable.
        store_encrypted_keys: bool,
        /// Whether `apis.deleteApi` is refused.
        delete_protection: bool,
        /// Addresses and CIDR ranges allowed to verify; empty = any.
        ip_whitelist: Vec<String>,
    }
}

/// What a verify needs of an API, in memory. A deleted API has none.
#[derive(Debug)]
pub struct ApiView {
    /// Its id.
    pub id: ApiId,
    /// Its key space.
    pub keyspace: KeyspaceId,
    /// See [`ApiRow::ip_whitelist`]; an address stands as a range of one.
    pub ip_whitelist: Box<[IpNet]>,
}

impl ApiView {
    pub(crate) fn new(id: ApiId, row: &ApiRow) -> Option<ApiView> {
        row.deleted_at.is_none().then(|| ApiView {
            id,
            keyspace: row.keyspace,
            // Entries were checked when they were set; one that no longer parses admits nobody.
            ip_whitelist: row.ip_whitelist.iter().filter_map(|entry| parse_range(entry)).collect(),
        })
    }
}

/// Reads an address or CIDR range in canonical form, an IPv4-mapped IPv6 one as IPv4 (KEYS-IP-2).
pub fn parse_range(text: &str) -> Option<IpNet> {
    let text = text.trim();
    let net = match text.parse::<IpNet>() {
        Ok(net) => net,
        Err(_) => IpNet::from(text.parse::<std::net::IpAddr>().ok()?),
    };
    Some(match net {
        IpNet::V6(v6) if v6.prefix_len() >= 96 => match v6.addr().to_ipv4_mapped() {
            Some(v4) => ipnet::Ipv4Net::new(v4, v6.prefix_len() - 96).ok()?.trunc().into(),
            None => net.trunc(),
        },
        _ => net.trunc(),
    })
}

/// Reads an API, deleted ones included.
pub fn get(read: &impl Read, workspace: WorkspaceNo, id: ApiId) -> Result<Option<ApiRow>, ReadError> {
    read.row(&row_key(workspace, &[id.as_bytes()]))
}

/// Reads an API that is not deleted.
pub fn get_live(read: &impl Read, workspace: WorkspaceNo, id: ApiId) -> Result<Option<ApiRow>, ReadError> {
    Ok(get(read, workspace, id)?.filter(|row| row.deleted_at.is_none()))
}

/// Puts an API.
pub fn put(tx: &mut Tx<'_>, workspace: WorkspaceNo, id: ApiId, row: &ApiRow) {
    tx.put_bytes(ApiRow::TABLE, &row_key(workspace, &[id.as_bytes()]), row.to_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{hex, id};

    /// Frozen: see `records::codec`.
    #[test]
    fn row_bytes_are_frozen() {
        let row = ApiRow {
            keyspace: KeyspaceId(id('k')),
            name: "api".into(),
            created_at: 2,
            deleted_at: Some(3),
            default_prefix: Some("p".into()),
            default_bytes: Some(24),
            store_encrypted_keys: true,
            delete_protection: false,
            ip_whitelist: vec!["10.0.0.0/8".into()],
        };
        assert_eq!(
            hex(&row.to_bytes()),
            "016b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b03000000617069020000000000000001030000000000000001010000007001180100\
             010000000a00000031302e302e302e302f38"
        );
        assert_eq!(ApiRow::from_bytes(&row.to_bytes()), Ok(row));
    }

    /// KEYS-IP-2: ranges in canonical form, mapped addresses as IPv4.
    #[test]
    fn ranges_are_canonical() {
        for (text, canonical) in [
            ("10.1.2.3", "10.1.2.3/32"),
            (" 10.1.2.3/8 ", "10.0.0.0/8"),
            ("::ffff:1.2.3.4", "1.2.3.4/32"),
            ("::ffff:1.2.3.4/120", "1.2.3.0/24"),
            ("2001:db8::1/32", "2001:db8::/32"),
        ] {
            assert_eq!(parse_range(text).map(|net| net.to_string()).as_deref(), Some(canonical), "{text}");
        }
        assert_eq!(parse_range("example.com"), None);
    }
}
