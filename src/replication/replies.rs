//! What changes that other nodes handed on were answered, for as long as one of them may come again.
//!
//! A follower whose link is cut before the leader's reply came sends the change again under the same id. Here it finds the first
//! reply - or the change still under way, and waits for it - so that it gets that one, plaintexts of keys included, and nothing
//! happens twice. Replies are in memory alone, for two minutes, and wiped when they go; what a repeat is told after the leader
//! itself went away is in the records ([`keyward_storage::records::change`]).
//!
//! A change is known by its id and by who sent it to which operation: whoever learns another's id learns nothing by it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use keyward_storage::records::change::{self, ChangeId};
use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::api::wire::{Authorization, Inbound, Outbound};

/// Replies that are kept, and the sum of their bytes; beyond it the oldest go.
const REPLIES_MAX: usize = 16_384;
const BYTES_MAX: usize = 64 << 20;
/// How long one is kept.
const KEPT_FOR: Duration = Duration::from_secs(120);

/// A change as it is known here: its id, its operation and the credential that it came with, as one digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Name([u8; 32]);

impl Name {
    /// The name of the change with this id that a request asks of the operation at this path.
    pub fn new(id: ChangeId, path: &str, inbound: &Inbound) -> Name {
        let (kind, credential) = match &inbound.authorization {
            Authorization::Absent => ("absent", ""),
            Authorization::One(text) => ("one", &**text),
            Authorization::NotText => ("not text", ""),
            Authorization::Several => ("several", ""),
        };
        let (is_session, session) = inbound.portal_session.as_deref().map_or(("", ""), |session| ("session", session));
        Name(change::digest(id, &[path, kind, credential, is_session, session]))
    }
}

/// Replies by the names of changes.
#[derive(Default, Clone)]
pub struct Replies(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    by_name: HashMap<Name, Told>,
    /// In the order in which they began.
    order: VecDeque<(Name, Instant)>,
    bytes: usize,
}

/// Where a change's reply is told.
type Told = watch::Receiver<Option<Arc<Reply>>>;

/// A reply whose body is wiped when it goes.
pub struct Reply {
    /// The reply but for its body.
    bare: Outbound,
    body: Zeroizing<Vec<u8>>,
}

impl Reply {
    /// As it was first given.
    pub fn outbound(&self) -> Outbound {
        Outbound { body: Bytes::copy_from_slice(&self.body), ..self.bare.clone() }
    }
}

/// How a change stands when it comes.
pub enum Standing {
    /// It is new; whoever has this carries it out.
    New(Ticket),
    /// It came before: its reply is told here.
    Known(Told),
}

/// The right to carry a change out. Dropped without a reply - its task was ended - it leaves the change as if it had never come.
pub struct Ticket {
    replies: Replies,
    name: Name,
    tell: watch::Sender<Option<Arc<Reply>>>,
    done: bool,
}

impl Replies {
    /// Looks a change up, and notes it where it is new.
    pub fn begin(&self, name: Name) -> Standing {
        let mut kept = self.kept();
        let now = Instant::now();
        kept.forget_old(now);
        if let Some(told) = kept.by_name.get(&name) {
            return Standing::Known(told.clone());
        }
        let (tell, told) = watch::channel(None);
        kept.by_name.insert(name, told);
        kept.order.push_back((name, now));
        Standing::New(Ticket { replies: self.clone(), name, tell, done: false })
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn forget_old(&mut self, now: Instant) {
        while let Some((name, began)) = self.order.front().copied() {
            let is_old = now.duration_since(began) >= KEPT_FOR;
            if !is_old && self.order.len() < REPLIES_MAX && self.bytes <= BYTES_MAX {
                return;
            }
            self.order.pop_front();
            self.remove(&name);
        }
    }

    fn remove(&mut self, name: &Name) {
        if let Some(told) = self.by_name.remove(name) {
            let bytes = told.borrow().as_ref().map_or(0, |reply| reply.body.len());
            self.bytes -= bytes.min(self.bytes);
        }
    }
}

impl Ticket {
    /// The change has its reply.
    pub fn answer(mut self, outbound: &Outbound) {
        self.done = true;
        let body = Zeroizing::new(outbound.body.to_vec());
        let bare = Outbound { body: Bytes::new(), ..outbound.clone() };
        let mut kept = self.replies.kept();
        if kept.by_name.contains_key(&self.name) {
            kept.bytes += body.len();
        }
        self.tell.send_replace(Some(Arc::new(Reply { bare, body })));
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.done {
            let mut kept = self.replies.kept();
            kept.remove(&self.name);
            kept.order.retain(|(name, _)| *name != self.name);
        }
    }
}

/// Waits for a change's reply; `None` where whoever carried it out was ended.
pub async fn told(mut told: Told) -> Option<Outbound> {
    let reply = told.wait_for(Option::is_some).await.ok()?;
    reply.as_ref().map(|reply| reply.outbound())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::wire::{ContentType, RequestId};

    const PATH: &str = "/v2/keys.createKey";

    fn inbound(credential: &str) -> Inbound {
        Inbound {
            request_id: RequestId::parse(b"req_0000000aaaaaaaaaa").expect("an id"),
            now_ms: 5,
            deadline_ms: 6,
            test_time_ms: None,
            authorization: Authorization::One(credential.into()),
            portal_session: None,
            content_type: ContentType::Json,
            client_ip: None,
            user_agent: None,
            metrics_disabled: false,
            body: Bytes::new(),
            forwarded: None,
        }
    }

    fn name(id: ChangeId) -> Name {
        Name::new(id, PATH, &inbound("Bearer a"))
    }

    fn is_new(replies: &Replies, id: ChangeId) -> bool {
        matches!(replies.begin(name(id)), Standing::New(_))
    }

    /// A change is carried out once however often it comes, whoever comes late hears the first reply, and one that was given up
    /// may be begun again.
    #[tokio::test]
    async fn a_repeat_hears_the_first_reply() {
        let replies = Replies::default();
        let Standing::New(ticket) = replies.begin(name([1; 16])) else { panic!("it is new") };
        let Standing::Known(early) = replies.begin(name([1; 16])) else { panic!("it is under way") };
        let waiting = tokio::spawn(told(early));
        ticket.answer(&Outbound { status: 409, ..Outbound::ok("the reply") });
        let Standing::Known(late) = replies.begin(name([1; 16])) else { panic!("it is done") };
        for heard in [waiting.await.expect("it ends"), told(late).await] {
            let heard = heard.expect("a reply");
            assert_eq!((heard.status, &heard.body[..]), (409, &b"the reply"[..]));
        }
        let Standing::New(ticket) = replies.begin(name([2; 16])) else { panic!("it is new") };
        let Standing::Known(early) = replies.begin(name([2; 16])) else { panic!("it is under way") };
        drop(ticket);
        assert!(told(early).await.is_none() && is_new(&replies, [2; 16]));
    }

    /// Neither their number nor their bytes grow without bound; the oldest go first.
    #[test]
    fn they_are_bounded() {
        let replies = Replies::default();
        let answer = |number: u64, bytes: usize| {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&number.to_be_bytes());
            if let Standing::New(ticket) = replies.begin(name(id)) {
                ticket.answer(&Outbound::ok(vec![0; bytes]));
            }
        };
        (0..2 * REPLIES_MAX as u64).for_each(|number| answer(number, 1));
        let sizes = || {
            let kept = replies.kept();
            (kept.by_name.len(), kept.order.len(), kept.bytes)
        };
        let (known, ordered, bytes) = sizes();
        assert!(known <= REPLIES_MAX && ordered == known && bytes == known, "{known} {ordered} {bytes}");
        (0..40).for_each(|number| answer(1 << 40 | number, BYTES_MAX / 16));
        let (known, _, bytes) = sizes();
        assert!(bytes <= BYTES_MAX + BYTES_MAX / 16 && known < 40, "{known} {bytes}");
        assert!(is_new(&replies, [0; 16]), "the first went long ago");
    }

    /// Whoever knows the id of another's change, and sends it under a credential of their own or to another operation, asks for
    /// something new: the stored reply, which may hold a key's plaintext, is not theirs.
    #[test]
    fn a_reply_is_for_who_asked() {
        let replies = Replies::default();
        let Standing::New(ticket) = replies.begin(name([1; 16])) else { panic!("it is new") };
        ticket.answer(&Outbound::ok("a plaintext"));
        let with = |change: &dyn Fn(&mut Inbound)| {
            let mut inbound = inbound("Bearer a");
            change(&mut inbound);
            Name::new([1; 16], PATH, &inbound)
        };
        let strangers = [
            with(&|inbound| inbound.authorization = Authorization::One("Bearer b".into())),
            with(&|inbound| inbound.authorization = Authorization::Absent),
            with(&|inbound| inbound.authorization = Authorization::NotText),
            with(&|inbound| inbound.authorization = Authorization::Several),
            with(&|inbound| inbound.portal_session = Some("".into())),
            with(&|inbound| inbound.portal_session = Some("a".into())),
            Name::new([1; 16], "/v2/keys.deleteKey", &inbound("Bearer a")),
            Name::new([2; 16], PATH, &inbound("Bearer a")),
        ];
        for (at, stranger) in strangers.into_iter().enumerate() {
            assert!(matches!(replies.begin(stranger), Standing::New(_)), "{at}");
        }
        assert!(!is_new(&replies, [1; 16]), "it is known to who asked");
    }
}
