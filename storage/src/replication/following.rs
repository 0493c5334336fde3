//! The follower's side: introduces itself, checks what comes, says what to apply.

use crate::position::{Position, Term};
use crate::replication::messages::{Hello, Message, Received, Refusal, WireError};
use crate::replication::{History, NodeId, PROTOCOL, PROTOCOL_OLDEST};

/// What is to be done after a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Order {
    /// Apply this frame, after all before it; then say [`Following::reached`].
    Apply(Received),
    /// The leader stands here, and everything up to here has come.
    Heard(Position),
    /// The logs part after this position: set aside what comes after it, and take all records anew.
    Part(Position),
    /// The leader's log does not reach back: take all records anew.
    Fetch,
    /// The leader does not let this node in. The text says what to do.
    Refused(Refusal, String),
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
    /// What came last, whether or not it is applied yet.
    came: Position,
    term: Term,
    /// The newest term of the leader, once it has said so.
    leader_term: Option<Term>,
}

impl Following {
    /// Begins with what this node has; gives the first message.
    pub fn begin(store: [u8; 16], node: NodeId, name: &str, history: &History) -> (Following, Message) {
        let hello = Message::Hello(Hello {
            protocol: PROTOCOL,
            oldest: PROTOCOL_OLDEST,
            store,
            node,
            name: name.to_owned(),
            position: history.last(),
            reigns: history.reigns().to_vec(),
        });
        (Following { store, came: history.last(), term: history.term(), leader_term: None }, hello)
    }

    /// The term the leader leads in, once it has said so. It may be newer than that of any record that has come: whoever is promoted
    /// has to begin a newer one than that.
    pub fn leader_term(&self) -> Option<Term> {
        self.leader_term
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
            Message::Parted(common) if self.leader_term.is_none() && common < self.came => Ok(Order::Part(common)),
            Message::Welcome { after, position, reigns, protocol } if self.leader_term.is_none() => {
                if after != self.came {
                    return Err(Offence::Gap { expected: self.came.next(), found: after.next() });
                }
                let told = History::told(reigns, position).ok_or(Offence::Nonsense)?;
                if !(PROTOCOL_OLDEST..=PROTOCOL).contains(&protocol) {
                    return Err(Offence::Nonsense);
                }
                if told.term() < self.term {
                    return Err(Offence::Term { newest: self.term, found: told.term() });
                }
                self.leader_term = Some(told.term());
                Ok(Order::Heard(position))
            }
            Message::Frame(bytes) if self.leader_term.is_some() => {
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
            Message::Beat(position) if self.leader_term.is_some() => Ok(Order::Heard(position)),
            _ => Err(Offence::Nonsense),
        }
    }

    /// What is said once everything up to `position` is on this node's disk.
    pub fn reached(&self, position: Position) -> Message {
        Message::Reached(position.min(self.came))
    }
}
