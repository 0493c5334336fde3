//! What changes that other nodes handed on were answered, for as long as one of them may come again.
//!
//! A follower whose link is cut before the leader's reply came sends the change again under the same id. Here it finds the first
//! reply - or the change still under way, and waits for it - so that it gets that one, plaintexts of keys included, and nothing
//! happens twice. Replies are in memory alone, for two minutes, and wiped when they go; what a repeat is told after the leader
//! itself went away is in the records ([`keyward_storage::records::change`]).

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use keyward_storage::records::change::ChangeId;
use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::api::wire::Outbound;

/// Replies that are kept, and the sum of their bytes; beyond it the oldest go.
const REPLIES_MAX: usize = 16_384;
const BYTES_MAX: usize = 64 << 20;
/// How long one is kept.
const KEPT_FOR: Duration = Duration::from_secs(120);

/// Replies by the ids of changes.
#[derive(Default, Clone)]
pub struct Replies(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    by_id: HashMap<ChangeId, Told>,
    /// In the order in which they began.
    order: VecDeque<(ChangeId, Instant)>,
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
    id: ChangeId,
    tell: watch::Sender<Option<Arc<Reply>>>,
    done: bool,
}

impl Replies {
    /// Looks a change up, and notes it where it is new.
    pub fn begin(&self, id: ChangeId) -> Standing {
        let mut kept = self.kept();
        let now = Instant::now();
        kept.forget_old(now);
        if let Some(told) = kept.by_id.get(&id) {
            return Standing::Known(told.clone());
        }
        let (tell, told) = watch::channel(None);
        kept.by_id.insert(id, told);
        kept.order.push_back((id, now));
        Standing::New(Ticket { replies: self.clone(), id, tell, done: false })
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn forget_old(&mut self, now: Instant) {
        while let Some((id, began)) = self.order.front().copied() {
            let is_old = now.duration_since(began) >= KEPT_FOR;
            if !is_old && self.order.len() < REPLIES_MAX && self.bytes <= BYTES_MAX {
                return;
            }
            self.order.pop_front();
            self.remove(&id);
        }
    }

    fn remove(&mut self, id: &ChangeId) {
        if let Some(told) = self.by_id.remove(id) {
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
        if kept.by_id.contains_key(&self.id) {
            kept.bytes += body.len();
        }
        self.tell.send_replace(Some(Arc::new(Reply { bare, body })));
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.done {
            let mut kept = self.replies.kept();
            kept.remove(&self.id);
            kept.order.retain(|(id, _)| *id != self.id);
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

    fn is_new(replies: &Replies, id: ChangeId) -> bool {
        matches!(replies.begin(id), Standing::New(_))
    }

    /// A change is carried out once however often it comes, whoever comes late hears the first reply, and one that was given up
    /// may be begun again.
    #[tokio::test]
    async fn a_repeat_hears_the_first_reply() {
        let replies = Replies::default();
        let Standing::New(ticket) = replies.begin([1; 16]) else { panic!("it is new") };
        let Standing::Known(early) = replies.begin([1; 16]) else { panic!("it is under way") };
        let waiting = tokio::spawn(told(early));
        ticket.answer(&Outbound { status: 409, ..Outbound::ok("the reply") });
        let Standing::Known(late) = replies.begin([1; 16]) else { panic!("it is done") };
        for heard in [waiting.await.expect("it ends"), told(late).await] {
            let heard = heard.expect("a reply");
            assert_eq!((heard.status, &heard.body[..]), (409, &b"the reply"[..]));
        }
        let Standing::New(ticket) = replies.begin([2; 16]) else { panic!("it is new") };
        let Standing::Known(early) = replies.begin([2; 16]) else { panic!("it is under way") };
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
            if let Standing::New(ticket) = replies.begin(id) {
                ticket.answer(&Outbound::ok(vec![0; bytes]));
            }
        };
        (0..2 * REPLIES_MAX as u64).for_each(|number| answer(number, 1));
        let sizes = || {
            let kept = replies.kept();
            (kept.by_id.len(), kept.order.len(), kept.bytes)
        };
        let (known, ordered, bytes) = sizes();
        assert!(known <= REPLIES_MAX && ordered == known && bytes == known, "{known} {ordered} {bytes}");
        (0..40).for_each(|number| answer(1 << 40 | number, BYTES_MAX / 16));
        let (known, _, bytes) = sizes();
        assert!(bytes <= BYTES_MAX + BYTES_MAX / 16 && known < 40, "{known} {bytes}");
        assert!(is_new(&replies, [0; 16]), "the first went long ago");
    }
}
