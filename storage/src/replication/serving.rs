//! The leader's side of one follower: who it is, where its stream begins, how far it has come.

use crate::log::Frame;
use crate::position::{Position, Term};
use crate::replication::messages::{Hello, Message, Refusal, Word, seal};
use crate::replication::versions::Apart;
use crate::replication::{CHAIN_MAX, History, NodeId, Parting, Role, Standing, Versions};

/// What a node knows of itself when a message comes from one that wants to follow it.
#[derive(Debug, Clone, Copy)]
pub struct Own<'a> {
    /// Which node it is.
    pub node: NodeId,
    /// Its role, and whom it has its log from.
    pub standing: &'a Standing,
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
        let common = match Versions::OWN.common(Versions { oldest, newest: protocol }) {
            Ok(common) => common,
            Err(apart) => return refuse(Refusal::Protocol, &apart_text(apart, Versions { oldest, newest: protocol })),
        };
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
            let text = match own.standing.role() {
                Role::Follower => format!(
                    "this node follows another one and has not come further than term {}, while the follower is in term {}; \
                     it is tried again",
                    own.history.term().0,
                    term.0
                ),
                Role::Leader | Role::Fenced => format!(
                    "this node's reign is over: it was in term {}, and the follower has seen term {}",
                    own.history.term().0,
                    term.0
                ),
            };
            deeds.extend(refuse(Refusal::NotLeader, &text));
            return deeds;
        }
        let Some(mut above) = own.standing.serves() else {
            return refuse(
                Refusal::NotLeader,
                match own.standing.role() {
                    Role::Follower => {
                        "this node follows another one that has not welcomed it yet, so it has no log to give; it is tried again"
                    }
                    Role::Leader | Role::Fenced => "this node is no leader; follow the one that is",
                },
            );
        };
        above.push(own.node);
        if above.contains(&node) {
            return refuse(
                Refusal::Chain,
                "the nodes would follow each other in a circle: this one has its log from the node that wants to follow it; name \
                 the leader in replication.follow of one of them",
            );
        }
        if above.len() > CHAIN_MAX {
            return refuse(
                Refusal::Chain,
                &format!(
                    "there are {CHAIN_MAX} nodes before this one already; follow one that is nearer to the leader"
                ),
            );
        }
        match parting {
            Parting::Follows => {
                (self.sent, self.reached, self.streams) = (position, position, true);
                let welcome = Message::Welcome {
                    protocol: common,
                    after: position,
                    position: own.history.last(),
                    reigns: own.history.reigns().to_vec(),
                    above,
                    seen: own.standing.seen().max(own.history.term()),
                };
                vec![Deed::Send(welcome), Deed::Stream(position), Deed::Reached(position)]
            }
            Parting::After(common) => {
                let twin = own.history.twin(&history);
                vec![Deed::Send(Message::Parted { common, twin }), Deed::Close]
            }
            Parting::LeaderLost(last) if own.standing.role() == Role::Follower => refuse(
                Refusal::NotLeader,
                &format!(
                    "this node follows another one and has come to {last}, while the follower has {position}; it is tried again"
                ),
            ),
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

    /// A sign of life, once everything up to the word's position was sent.
    pub fn beat(&self, word: Word) -> Option<Message> {
        (self.streams && self.sent >= word.position).then_some(Message::Beat(word))
    }
}

/// What an operator is told of two releases that do not know each other's protocol.
fn apart_text(apart: Apart, theirs: Versions) -> String {
    let own = Versions::OWN;
    let advice = match apart {
        Apart::OtherIsOlder => "upgrade the follower first",
        Apart::OtherIsNewer => "upgrade this node first, to the release before the follower's at least",
        Apart::Nonsense => "that is no range; is it keyward at all?",
    };
    format!(
        "this node speaks protocol {} to {} and the follower {} to {}: {advice}",
        own.oldest, own.newest, theirs.oldest, theirs.newest
    )
}

fn refuse(why: Refusal, text: &str) -> Vec<Deed> {
    vec![Deed::Send(Message::Refused(why, text.to_owned())), Deed::Close]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replication::{Following, Order, Reign};

    const NODE: NodeId = [1; 16];
    const STORE: [u8; 16] = [9; 16];

    fn history(last: u64) -> History {
        let reigns = vec![Reign { term: 1, first: 1, id: [0; 16] }, Reign { term: 2, first: 3, id: [7; 16] }];
        History::told(reigns, Position(last)).expect("a history")
    }

    /// What a node with this standing says to a hello, but for the closing.
    fn greeted(standing: &Standing, own: &History, hello: Hello) -> Message {
        let own = Own { node: NODE, standing, store: STORE, history: own };
        let deeds = Serving::default().receive(Message::Hello(hello), own);
        let said = deeds.into_iter().find_map(|deed| match deed {
            Deed::Send(message) => Some(message),
            _ => None,
        });
        said.expect("it says something")
    }

    fn hello(node: NodeId, protocol: u16, oldest: u16, last: u64) -> Hello {
        let reigns = history(last).reigns().to_vec();
        Hello { protocol, oldest, store: STORE, node, name: "x".to_owned(), position: Position(last), reigns }
    }

    /// Peers of other releases: the newest protocol that both know is spoken, or the words say which of the two to upgrade first.
    #[test]
    fn releases_agree_or_say_what_to_upgrade() {
        let (leader, own) = (Standing::new(Role::Leader), history(9));
        let ask = |oldest, newest| greeted(&leader, &own, hello([2; 16], newest, oldest, 5));
        for (oldest, newest) in [(1, 2), (0, 1), (1, 1), (0, 7)] {
            let Message::Welcome { protocol, .. } = ask(oldest, newest) else { panic!("{oldest} to {newest}") };
            assert_eq!(protocol, 1, "{oldest} to {newest}");
        }
        for (oldest, newest, words) in
            [(2, 2, "upgrade this node first"), (0, 0, "upgrade the follower first"), (2, 1, "no range")]
        {
            match ask(oldest, newest) {
                Message::Refused(Refusal::Protocol, text) => assert!(text.contains(words), "{text}"),
                other => panic!("{oldest} to {newest}: {other:?}"),
            }
        }
    }

    /// Through followers the log comes along one line: a node that is none of the leader's has none to give, nobody follows its own
    /// follower, and the line is not too long. What is known of terms goes down with it.
    #[test]
    fn the_log_comes_along_a_line() {
        let (middle, own) = (Standing::new(Role::Follower), history(9));
        let ask = |node, last| greeted(&middle, &own, hello(node, 1, 1, last));
        let refused = |message, why, words: &str| match message {
            Message::Refused(told, text) => assert!(told == why && text.contains(words), "{told:?}: {text}"),
            other => panic!("{other:?}"),
        };
        refused(ask([2; 16], 5), Refusal::NotLeader, "has not welcomed it yet");
        middle.welcomed(&[[3; 16], [4; 16]]);
        middle.see(Term(5));
        let welcome = ask([2; 16], 5);
        let (mut following, _) = Following::begin(STORE, [2; 16], "x", &history(5));
        match following.receive(welcome).expect("a welcome") {
            Order::Welcomed(welcome) => {
                assert_eq!((welcome.term, welcome.above), (Term(5), vec![[3; 16], [4; 16], NODE]));
            }
            other => panic!("{other:?}"),
        }
        refused(ask([4; 16], 5), Refusal::Chain, "in a circle");
        refused(ask(NODE, 5), Refusal::Chain, "in a circle");
        refused(ask([2; 16], 12), Refusal::NotLeader, "tried again");
        let changes = middle.changes();
        middle.welcomed(&[[3; 16], [4; 16]]);
        assert_eq!(middle.changes(), changes, "nothing that those below have to hear");
        middle.welcomed(&[[5; 16]; CHAIN_MAX]);
        assert_ne!(middle.changes(), changes);
        refused(ask([2; 16], 5), Refusal::Chain, "nearer to the leader");
        middle.parted();
        refused(ask([2; 16], 5), Refusal::NotLeader, "has not welcomed it yet");
        middle.set(Role::Fenced);
        refused(ask([2; 16], 5), Refusal::NotLeader, "no leader");
    }
}
