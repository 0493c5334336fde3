//! The follower's side: introduces itself, checks what comes, says what to apply.

use crate::position::{Position, Term};
use crate::replication::messages::{Hello, Message, Received, Refusal, WireError, Word};
use crate::replication::{CHAIN_MAX, History, NodeId, Versions};

/// What is to be done after a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Order {
    /// Apply this frame, after all before it; then say [`Following::reached`].
    Apply(Received),
    /// It follows from here on.
    Welcomed(Welcome),
    /// The node that is followed stands like this, and everything up to its position has come.
    Heard(Word),
    /// The logs part after this position: set aside what comes after it, and take all records anew. Where two nodes were promoted
    /// to the same term, that is how they came apart.
    Part(Position, Option<Term>),
    /// The leader's log does not reach back: take all records anew.
    Fetch,
    /// The leader does not let this node in. The text says what to do.
    Refused(Refusal, String),
}

/// What a follower is told where it is let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// The newest position of the node that is followed.
    pub position: Position,
    /// The term to remember before anything is applied: it may be newer than that of any record that has come, and whoever is
    /// promoted has to begin a newer one than that.
    pub term: Term,
    /// The nodes that the log comes through, the leader first; not empty.
    pub above: Vec<NodeId>,
}

/// What a leader did that no leader does: end the connection, and begin anew.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Offence {
    /// A frame, or a message, is damaged.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// Records are missing, or come twice.
    #[error("the leader sent record {found} where {expected} is next")]
    Gap {
        /// The next one.
        expected: Position,
        /// What came.
        found: Position,
    },
    /// A frame of an older term.
    #[error("the leader sent a frame of term {}, and this node is in term {}", found.0, newest.0)]
    Term {
        /// This node's.
        newest: Term,
        /// Of the frame.
        found: Term,
    },
    /// A message that cannot stand here.
    #[error("the leader sent a message that cannot stand here")]
    Nonsense,
}

/// The stream of a leader's log, as a follower takes it.
#[derive(Debug)]
pub struct Following {
    store: [u8; 16],
    node: NodeId,
    /// What came last, whether or not it is applied yet.
    came: Position,
    term: Term,
    welcomed: bool,
}

impl Following {
    /// Begins with what this node has; gives the first message.
    pub fn begin(store: [u8; 16], node: NodeId, name: &str, history: &History) -> (Following, Message) {
        let hello = Message::Hello(Hello {
            protocol: Versions::OWN.newest,
            oldest: Versions::OWN.oldest,
            store,
            node,
            name: name.to_owned(),
            position: history.last(),
            reigns: history.reigns().to_vec(),
        });
        (Following { store, node, came: history.last(), term: history.term(), welcomed: false }, hello)
    }

    /// What came last, whether or not it is applied yet.
    pub fn came(&self) -> Position {
        self.came
    }

    /// Takes a message of the leader's.
    ///
    /// # Errors
    /// It is none that a leader may send now. Nothing of it may be applied.
    pub fn receive(&mut self, message: Message) -> Result<Order, Offence> {
        match message {
            Message::Refused(why, text) => Ok(Order::Refused(why, text)),
            Message::Behind => Ok(Order::Fetch),
            Message::Parted { common, twin } if !self.welcomed && common < self.came => Ok(Order::Part(common, twin)),
            Message::Welcome { after, position, reigns, protocol, mut above, seen } if !self.welcomed => {
                if after != self.came {
                    return Err(Offence::Gap { expected: self.came.next(), found: after.next() });
                }
                let told = History::told(reigns, position).ok_or(Offence::Nonsense)?;
                if !Versions::OWN.has(protocol) || above.len() > CHAIN_MAX || above.contains(&self.node) {
                    return Err(Offence::Nonsense);
                }
                if told.term() < self.term {
                    return Err(Offence::Term { newest: self.term, found: told.term() });
                }
                if above.is_empty() {
                    // A release that had no chains: the leader itself, whichever node that is.
                    above.push([0; 16]);
                }
                self.welcomed = true;
                Ok(Order::Welcomed(Welcome { position, term: told.term().max(seen), above }))
            }
            Message::Frame(bytes) if self.welcomed => {
                let frame = Received::read(bytes, self.store)?;
                let header = frame.header();
                if header.first != self.came.next() {
                    return Err(Offence::Gap { expected: self.came.next(), found: header.first });
                }
                if header.term < self.term {
                    return Err(Offence::Term { newest: self.term, found: header.term });
                }
                (self.came, self.term) = (header.last(), header.term);
                Ok(Order::Apply(frame))
            }
            Message::Beat(word) if self.welcomed => Ok(Order::Heard(word)),
            _ => Err(Offence::Nonsense),
        }
    }

    /// What is said once everything up to `position` is on this node's disk.
    pub fn reached(&self, position: Position) -> Message {
        Message::Reached(position.min(self.came))
    }
}
