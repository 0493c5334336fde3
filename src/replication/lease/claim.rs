//! What the store of the lease holds: who leads, by which address, and what whoever leads next has to have.

use keyward_storage::replication::NodeId;
use serde::{Deserialize, Serialize};

use crate::config::Leader;

/// Bytes of a claim as text: far more than the followers and candidates there can be.
pub const BYTES_MAX: usize = 64 << 10;
/// Followers and candidates that are told of.
pub const NODES_MAX: usize = 64;

/// Where a node's log stands: the newest term first, for a log with a newer term has all that mattered of the older ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Reached {
    /// The newest term of its log.
    pub term: u64,
    /// The last record on its disk.
    pub position: u64,
}

/// How long a lease may be, ms: what its setting allows.
const DURATIONS_MS: std::ops::RangeInclusive<u64> = 3_000..=600_000;

/// What an operator is told of one that is no claim.
pub const NO_CLAIM: &str = "the lease holds what is none of keyward's claims: delete it if nothing else uses it, or give all nodes \
                            another replication.lease_name";

/// A node that would lead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// Which node.
    #[serde(with = "hex")]
    pub node: NodeId,
    /// Its name for people.
    pub name: String,
    /// What it has.
    pub reached: Reached,
}

/// What followers can be missing of what was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answered {
    /// Nothing was promised: answers waited for no follower.
    Alone,
    /// Some follower has it, nobody knows which.
    BySome,
    /// Every follower has it.
    ByAll,
}

/// A claim to lead, renewed for as long as its holder does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The holder's process: another one of the same node is another holder, since nobody knows what became of the first.
    #[serde(with = "hex")]
    pub session: [u8; 16],
    /// Its name for people.
    pub name: String,
    /// Where it answers other nodes: `http://HOST:PORT` or `https://HOST:PORT`.
    pub address: String,
    /// Whose records it has; `None` before the first ones are made.
    #[serde(with = "hex_or_none", default)]
    pub store: Option<[u8; 16]>,
    /// Whoever leads next needs as much; it was answered, or at least is known to have been there.
    pub reached: Reached,
    /// What followers can be missing beyond that.
    pub answered: Answered,
    /// Followers that may have more than that, the connected ones.
    #[serde(with = "hexes")]
    pub followers: Vec<NodeId>,
    /// Rises by one with each renewal.
    pub renewal: u64,
    /// How long each renewal lasts, ms.
    pub duration_ms: u64,
    /// Whether its holder has given it back.
    pub released: bool,
    /// Who would lead since it ran out.
    pub candidates: Vec<Candidate>,
}

impl Claim {
    /// Reads what a store gave; `None` where it is something else.
    pub fn parse(text: &str) -> Option<Claim> {
        if text.len() > BYTES_MAX {
            return None;
        }
        let claim: Claim = serde_json::from_str(text).ok()?;
        let few = claim.candidates.len() <= NODES_MAX && claim.followers.len() <= NODES_MAX;
        let plain = |text: &str| text.len() <= 1024 && !text.contains(char::is_control);
        let names = claim.candidates.iter().all(|candidate| plain(&candidate.name));
        // Sums of these are counted with; no node comes near.
        let reached = claim.candidates.iter().map(|candidate| candidate.reached).chain([claim.reached]);
        let small =
            reached.flat_map(|reached| [reached.term, reached.position]).chain([claim.renewal]).all(|n| n < 1 << 62);
        let counts = small && DURATIONS_MS.contains(&claim.duration_ms);
        let address = plain(&claim.address) && Leader::parse(&claim.address).is_ok();
        (few && names && counts && address && plain(&claim.name)).then_some(claim)
    }

    /// As a store keeps it.
    pub fn text(&self) -> String {
        // Structs of numbers and texts always have one.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// Bytes as two digits each.
fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<[u8; 16]> {
    let digits = text.len() == 32 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    u128::from_str_radix(text, 16).ok().filter(|_| digits).map(u128::to_be_bytes)
}

mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(id: &[u8; 16], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&super::to_hex(id))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<[u8; 16], D::Error> {
        super::from_hex(&String::deserialize(from)?).ok_or_else(|| D::Error::custom("no id"))
    }
}

mod hex_or_none {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub fn serialize<S: Serializer>(id: &Option<[u8; 16]>, to: S) -> Result<S::Ok, S::Error> {
        id.map(|id| super::to_hex(&id)).serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<[u8; 16]>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| super::from_hex(&text).ok_or_else(|| D::Error::custom("no id"))).transpose()
    }
}

mod hexes {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(ids: &[[u8; 16]], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(ids.iter().map(|id| super::to_hex(id)))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<[u8; 16]>, D::Error> {
        let texts = Vec::<String>::deserialize(from)?;
        texts.iter().map(|text| super::from_hex(text).ok_or_else(|| D::Error::custom("no id"))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever can write the lease gets no node to count with what no node writes, or to follow what is no address.
    #[test]
    fn what_no_node_writes_is_no_claim() {
        let good = |change: &dyn Fn(&mut Claim)| {
            let reached = Reached { term: 1, position: 1 };
            let mut claim = Claim {
                session: [1; 16],
                name: "a".to_owned(),
                address: "https://a:7071".to_owned(),
                store: None,
                reached,
                answered: Answered::Alone,
                followers: Vec::new(),
                renewal: 1,
                duration_ms: 10_000,
                released: false,
                candidates: vec![Candidate { node: [2; 16], name: "b".to_owned(), reached }],
            };
            change(&mut claim);
            Claim::parse(&claim.text()).is_some()
        };
        assert!(good(&|_| {}));
        assert!(!good(&|claim| claim.address = "nonsense".to_owned()));
        for duration in [0, 2_999, 600_001, u64::MAX] {
            assert!(!good(&|claim| claim.duration_ms = duration));
        }
        assert!(!good(&|claim| claim.renewal = u64::MAX));
        assert!(!good(&|claim| claim.reached.term = u64::MAX));
        assert!(!good(&|claim| claim.candidates[0].reached.position = u64::MAX));
    }

    /// The text is what nodes of several releases read: it stays as it is.
    #[test]
    fn the_text_of_a_claim_stays() {
        let claim = Claim {
            session: [0xa1; 16],
            name: "keys-1".to_owned(),
            address: "https://keys-1:7071".to_owned(),
            store: Some([2; 16]),
            reached: Reached { term: 3, position: 40 },
            answered: Answered::BySome,
            followers: vec![[5; 16]],
            renewal: 6,
            duration_ms: 10_000,
            released: false,
            candidates: vec![Candidate {
                node: [5; 16],
                name: "keys-2".to_owned(),
                reached: Reached { term: 3, position: 41 },
            }],
        };
        let text = concat!(
            r#"{"session":"a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1","name":"keys-1","address":"https://keys-1:7071","#,
            r#""store":"02020202020202020202020202020202","reached":{"term":3,"position":40},"answered":"bysome","#,
            r#""followers":["05050505050505050505050505050505"],"renewal":6,"duration_ms":10000,"released":false,"#,
            r#""candidates":[{"node":"05050505050505050505050505050505","name":"keys-2","reached":{"term":3,"position":41}}]}"#
        );
        assert_eq!(claim.text(), text);
        assert_eq!(Claim::parse(text), Some(claim.clone()));
        assert_eq!(
            Claim::parse(&text.replace("\"session\"", "\"later\":1,\"session\"")),
            Some(claim),
            "a field of later"
        );
        for strange in
            ["", "{}", "null", &text.replace("a1a1", "a1"), &text.replace("keys-1", "keys\\n1"), &text.repeat(9000)]
        {
            assert_eq!(Claim::parse(strange), None, "{strange:.80}");
        }
    }
}
