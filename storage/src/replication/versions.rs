//! Which protocol two nodes speak: the newest one that both know.

/// The protocols that a program knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    /// The oldest of them.
    pub oldest: u16,
    /// The newest.
    pub newest: u16,
}

/// The protocols of two nodes have nothing in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Apart {
    /// The other node is too old.
    OtherIsOlder,
    /// This one is.
    OtherIsNewer,
    /// The other one names a range that is none.
    Nonsense,
}

impl Versions {
    /// Those of this program. A skew of one release is allowed, once there are two.
    pub const OWN: Versions = Versions { oldest: 1, newest: 1 };

    /// The protocol for this program and another one.
    ///
    /// # Errors
    /// There is none.
    pub fn common(self, other: Versions) -> Result<u16, Apart> {
        if other.oldest > other.newest {
            return Err(Apart::Nonsense);
        }
        if other.newest < self.oldest {
            return Err(Apart::OtherIsOlder);
        }
        if other.oldest > self.newest {
            return Err(Apart::OtherIsNewer);
        }
        Ok(self.newest.min(other.newest))
    }

    /// Whether a protocol is among them.
    pub fn has(self, protocol: u16) -> bool {
        (self.oldest..=self.newest).contains(&protocol)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever two programs know, both come to the same: the newest protocol that is in both lists, or the older one to upgrade.
    #[test]
    fn two_nodes_speak_the_newest_that_both_know() {
        let ranges = || (0..6).flat_map(|oldest| (oldest..6).map(move |newest| Versions { oldest, newest }));
        for one in ranges() {
            for other in ranges() {
                let expected = (0..6).filter(|protocol| one.has(*protocol) && other.has(*protocol)).max();
                assert_eq!(one.common(other).ok(), expected, "{one:?} {other:?}");
                assert_eq!(one.common(other).ok(), other.common(one).ok());
                if expected.is_none() {
                    let older = if other.newest < one.oldest { Apart::OtherIsOlder } else { Apart::OtherIsNewer };
                    assert_eq!(one.common(other), Err(older));
                }
            }
            assert_eq!(one.common(Versions { oldest: 2, newest: 1 }), Err(Apart::Nonsense));
        }
    }
}
