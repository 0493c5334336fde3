//! Events of a store that keeps them for another one: each is in one of the two, once, whatever happens to either and to what
//! travels between them.

#![allow(clippy::unwrap_used, reason = "a test's helpers")]

use std::collections::BTreeSet;
use std::io;

use keyward_query::Events;
use keyward_query::events::copy::File;
use keyward_query::events::{Event, Marks, Untaken};
use keyward_storage::disk::MemoryDisk;
use keyward_storage::disk::memory::SplitMix;

use super::events::{Reader, Source, found_of, options, record};

/// A store on a disk that can be taken from it.
struct Node {
    disk: MemoryDisk,
    events: Events,
}

impl Node {
    fn new() -> Node {
        let disk = MemoryDisk::new();
        Node { events: Events::open(options(&disk)).unwrap(), disk }
    }

    /// Ends as `kill -9` ends it, or as a loss of power does, and starts again.
    fn end(&mut self, power: Option<u64>) {
        let after = power.map_or_else(|| self.disk.kill(), |seed| self.disk.crash(seed));
        self.events = Events::open(options(&after)).unwrap();
        self.disk = after;
    }

    /// Goes on as what is restored from a backup of this moment.
    fn restore(&mut self) {
        let disk = MemoryDisk::new();
        let dir = options(&disk).dir;
        let put = |file: File<'_>| -> io::Result<()> {
            let mut bytes = Vec::new();
            file.bytes.read_to_end(&mut bytes)?;
            let path = dir.join(file.path);
            disk.plant(&path, &bytes);
            Ok(())
        };
        self.events.copy().unwrap().files(&mut { put }).unwrap();
        self.events = Events::open(options(&disk)).unwrap();
        self.disk = disk;
    }
}

/// Whoever carries parcels, and what it believes.
#[derive(Default)]
struct Carrier {
    marks: Option<Marks>,
}

/// Where a parcel is lost.
#[derive(Clone, Copy, PartialEq)]
enum Lost {
    Nowhere,
    OnTheWay,
    /// It arrives, and nobody hears of it.
    Acknowledgement,
}

impl Carrier {
    /// Carries one parcel. Whether there was one.
    fn carry(&mut self, from: &Events, to: &Events, lost: Lost) -> bool {
        let Some(source) = from.relays_as() else { return false };
        let marks = *self.marks.get_or_insert_with(|| {
            from.rewind();
            to.marks(source).unwrap()
        });
        let Some(parcel) = from.next_parcel(marks).unwrap() else { return false };
        if lost == Lost::OnTheWay {
            self.marks = None;
            return true;
        }
        match to.take_parcel(&parcel.bytes) {
            Ok(_) if lost == Lost::Acknowledgement => self.marks = None,
            Ok(taken) => {
                from.delivered(&parcel).unwrap();
                self.marks = Some(taken.marks);
            }
            Err(Untaken::Overlaps(_)) => self.marks = None,
            Err(error) => panic!("{error}"),
        }
        true
    }
}

/// Cut links, repeated parcels, ends of either side at any time, a leader restored from a backup: what the follower recorded is with the leader, in every
/// table, none missing and none doubled. What the leader has acknowledged survives a loss of its power.
#[test]
fn a_followers_events_are_with_the_leader_once() {
    let reader = Reader::new();
    for seed in 0..4 {
        let mut dice = SplitMix(seed * 11 + 3);
        let mut source = Source::new(seed);
        let mut recorded: Vec<Event> = Vec::new();
        let (mut leader, mut follower) = (Node::new(), Node::new());
        let mut carrier = Carrier::default();
        // What a leader records itself may be lost with its power, so there is none where that fails.
        let power_fails = seed % 2 == 1;
        record(&follower.events, &mut Vec::new(), &mut source, 0);
        follower.events.relay(u32::try_from(dice.below(1 << 32)).unwrap()).unwrap();
        for step in 0..30 {
            match dice.below(10) {
                0 | 1 => {
                    let count = dice.below(60);
                    record(&follower.events, &mut recorded, &mut source, count);
                    follower.events.flush();
                }
                2 if !power_fails => {
                    let count = dice.below(30);
                    record(&leader.events, &mut recorded, &mut source, count);
                    leader.events.flush();
                }
                3 => {
                    follower.end(None);
                    carrier = Carrier::default();
                }
                4 => {
                    leader.events.flush();
                    leader.end(power_fails.then_some(step));
                    // Its name is on a connection that is gone.
                    carrier = Carrier::default();
                }
                5 => leader.events.settle(),
                // A parcel whose arrival nobody heard of may be in it, and comes again.
                9 => {
                    leader.restore();
                    carrier = Carrier::default();
                }
                _ => {
                    let lost = [Lost::Nowhere, Lost::Nowhere, Lost::OnTheWay, Lost::Acknowledgement]
                        [usize::try_from(dice.below(4)).unwrap()];
                    carrier.carry(&follower.events, &leader.events, lost);
                }
            }
        }
        follower.events.flush();
        while carrier.carry(&follower.events, &leader.events, Lost::Nowhere) {}
        assert_eq!(follower.events.undelivered(), 0);
        leader.events.flush();
        reader.check(&leader.events, &recorded, &format!("seed {seed}, at the end"));
        leader.events.settle();
        reader.check(&leader.events, &recorded, &format!("seed {seed}, sealed"));
        follower.events.keep().unwrap();
        follower.events.settle();
        reader.check(&follower.events, &[], &format!("seed {seed}, nothing is left behind"));
    }
}

/// What has happened to a follower that is promoted, in order.
struct Story {
    recorded: Vec<Event>,
    /// Of these, the leader has so many, and is known to.
    delivered: usize,
    /// Of these, so many were journaled while the disk still worked.
    flushed: usize,
    leader: Events,
}

fn promotion(disk: &MemoryDisk) -> Story {
    let leader = Events::open(options(&MemoryDisk::new())).unwrap();
    let mut story = Story { recorded: Vec::new(), delivered: 0, flushed: 0, leader };
    let mut source = Source::narrow(5);
    let Ok(events) = Events::open(options(disk)) else { return story };
    let mut phase = |story: &mut Story, events: &Events| {
        record(events, &mut story.recorded, &mut source, 5);
        events.flush();
        if !disk.stopped() {
            story.flushed = story.recorded.len();
        }
    };
    if events.relay(6).is_err() {
        return story;
    }
    phase(&mut story, &events);
    if let Ok(Some(parcel)) = events.next_parcel(Marks::default())
        && story.leader.take_parcel(&parcel.bytes).is_ok()
        && events.delivered(&parcel).is_ok()
        && !disk.stopped()
    {
        story.delivered = story.recorded.len();
    }
    phase(&mut story, &events);
    if events.keep().is_err() {
        return story;
    }
    phase(&mut story, &events);
    events.settle();
    events.stop();
    story
}

/// A follower is promoted with events that it could not deliver, and is killed at any change of its disk: they are its own, once,
/// and what the leader has is not among them.
#[test]
fn a_promoted_node_keeps_what_it_could_not_deliver() {
    let reader = Reader::new();
    let whole = MemoryDisk::new();
    let story = promotion(&whole);
    assert_eq!((story.delivered, story.flushed), (5, 15));
    for stop in 0..=whole.sequence() {
        let disk = MemoryDisk::new();
        disk.stop_after(stop);
        let Story { recorded, delivered, flushed, leader } = promotion(&disk);
        let what = format!("killed at change {stop}");
        let events = Events::open(options(&disk.kill())).unwrap_or_else(|error| panic!("{what}: {error}"));
        events.keep().unwrap();
        events.settle();
        assert_eq!(events.relays_as(), None, "{what}");
        let ids = |found: Vec<Event>| -> BTreeSet<String> { found.iter().map(|event| format!("{event:?}")).collect() };
        let found = ids(found_of(&reader, &events, &recorded, &what));
        let gone = ids(recorded[..delivered].to_vec());
        assert!(found.is_disjoint(&gone), "{what}: the leader's events are here as well");
        leader.flush();
        let there = ids(found_of(&reader, &leader, &recorded, &what));
        assert!(there.is_superset(&gone), "{what}: acknowledged and not there");
        // Whether a delivery was noted before the end came, only the disk knows.
        let kept: BTreeSet<String> = found.union(&there).cloned().collect();
        assert!(kept.is_superset(&ids(recorded[..flushed].to_vec())), "{what}: events are lost");
    }
}
