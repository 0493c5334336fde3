//! The leader's side of one follower: who it is, where its stream begins, how far it has come.

use crate::log::Frame;
use crate::position::{Position, Term};
use crate::replication::messages::{Hello, Message, Refusal, seal};
use crate::replication::{History, NodeId, PROTOCOL, PROTOCOL_OLDEST, Parting, Role};

/// What the leader knows of itself when a message comes.
#[derive(Debug, Clone, Copy)]
pub struct Own<'a> {
    /// Its role.
    pub role: Role,
    /// Whose records it has.
    pub store: [u8; 16],
    /// Its log.
    pub history: &'a History,
}

/// What is to be done after a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Deed {
    /// Say this to the follower.
    Send(Message),
    /// Read the log after this position from now on, and hand in its frames.
    Stream(Position),
    /// The follower's disk holds the log up to here.
    Reached(Position),
    /// Another node leads in this term: take no changes any more.
    Fence(Term),
    /// End the stream.
    Close,
}

/// One follower's stream.
#[derive(Debug, Default)]
pub struct Serving {
    follower: Option<(NodeId, String)>,
    /// What was sent last.
    sent: Position,
    reached: Position,
    streams: bool,
}

impl Serving {
    /// Who the follower is, once it has said so.
    pub fn follower(&self) -> Option<(NodeId, &str)> {
        self.follower.as_ref().map(|(node, name)| (*node, name.as_str()))
    }

    /// Up to here its disk holds the log.
    pub fn reached(&self) -> Position {
        self.reached
    }

    /// Up to here it was sent.
    pub fn sent(&self) -> Position {
        self.sent
    }

    /// Takes a message of the follower's.
    pub fn receive(&mut self, message: Message, own: Own<'_>) -> Vec<Deed> {
        match message {
            Message::Hello(hello) if self.follower.is_none() => self.hello(hello, own),
            message => self.receive_later(message),
        }
    }

    /// Takes a message of a follower that has introduced itself: what is answered then does not depend on the records.
    pub fn receive_later(&mut self, message: Message) -> Vec<Deed> {
        match message {
            Message::Reached(position) if self.streams && position <= self.sent => {
                // It may come again, or in another order.
                self.reached = self.reached.max(position);
                vec![Deed::Reached(self.reached)]
            }
            _ => refuse(Refusal::Nonsense, "a message came that cannot stand here"),
        }
    }

    fn hello(&mut self, hello: Hello, own: Own<'_>) -> Vec<Deed> {
        let Hello { protocol, oldest, store, node, name, position, reigns } = hello;
        self.follower = Some((node, name));
        if protocol < PROTOCOL_OLDEST || oldest > PROTOCOL {
            let text = format!(
                "this node speaks protocol {PROTOCOL_OLDEST} to {PROTOCOL} and the follower {oldest} to {protocol}; bring both \
                 to the same release, the follower first"
            );
            return refuse(Refusal::Protocol, &text);
        }
        if store != own.store {
            return refuse(
                Refusal::OtherStore,
                "the follower's data directory holds another store; give it an empty one to follow this node",
            );
        }
        let Some(history) = History::told(reigns, position) else {
            return refuse(Refusal::Nonsense, "the follower tells of terms that cannot follow each other");
        };
        // Whatever this node is, it must hear of a newer term.
        let parting = own.history.parting(&history);
        if let Parting::LeaderIsOver(term) = parting {
            let mut deeds = vec![Deed::Fence(term)];
            deeds.extend(refuse(
                Refusal::NotLeader,
                &format!(
                    "this node's reign is over: it was in term {}, and the follower has seen term {}",
                    own.history.term().0,
                    term.0
                ),
            ));
            return deeds;
        }
        if own.role != Role::Leader {
            return refuse(Refusal::NotLeader, "this node is no leader; follow the one that is");
        }
        match parting {
            Parting::Follows => {
                (self.sent, self.reached, self.streams) = (position, position, true);
                let welcome = Message::Welcome {
                    protocol: protocol.min(PROTOCOL),
                    after: position,
                    position: own.history.last(),
                    reigns: own.history.reigns().to_vec(),
                };
                vec![Deed::Send(welcome), Deed::Stream(position), Deed::Reached(position)]
            }
            Parting::After(common) => vec![Deed::Send(Message::Parted(common)), Deed::Close],
            Parting::LeaderLost(last) => refuse(
                Refusal::LeaderLost,
                &format!(
                    "this leader's log ends at {last} in a term in which the follower has {position}: it has lost records that \
                     were replicated, as after the restore of a backup; promote the follower, or empty its data directory to \
                     do without them"
                ),
            ),
            Parting::LeaderIsOver(_) => unreachable!("it was answered above"),
        }
    }

    /// The log does not go back to where the stream would begin, or its reader was cut loose.
    pub fn behind(&mut self) -> Vec<Deed> {
        self.streams = false;
        vec![Deed::Send(Message::Behind), Deed::Close]
    }

    /// The next frame of the log, to be sent.
    pub fn frame(&mut self, frame: &Frame<'_>, store: [u8; 16]) -> Message {
        let after = self.sent;
        self.sent = after.max(frame.header.last());
        seal(frame, after, store)
    }

    /// A sign of life, once everything up to `position` was sent.
    pub fn beat(&self, position: Position) -> Option<Message> {
        (self.streams && self.sent >= position).then_some(Message::Beat(position))
    }
}

fn refuse(why: Refusal, text: &str) -> Vec<Deed> {
    vec![Deed::Send(Message::Refused(why, text.to_owned())), Deed::Close]
}
