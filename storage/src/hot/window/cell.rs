//! One subject's counter as a single word, and the sliding-window decision on it as a pure function.
//!
//! The algorithm is the sliding window over two fixed windows of the contract (RL-ALG-01 to 13): tokens of the window
//! before weigh in proportion to how much of it the last `duration` still covers. The word holds
//!
//! ```text
//! | claim: 1 | window number: 33 | tokens of that window: 47 | tokens of the one before: 47 |
//! ```
//!
//! so that reading, deciding and counting is one compare-and-swap, and of two words of a subject the one that is larger
//! as a number, claim aside, is the later one. 33 bits of windows of one second reach into the year 2242; beyond, the
//! number stays at its maximum and tokens only add up (it can deny, never over-admit). 47 bits are 140 million million
//! tokens per window: a cost that does not fit is denied (RL-ALG-11).
//!
//! The function is generic over the widths because schedule checkers stop at 64 bits.

/// The shortest duration a limit can have (ms); a shorter one is decided as this one. Requests are refused before (RL-LIMIT,
/// KEYS-RL-9): the clamp only keeps window numbers within the word.
pub const MIN_DURATION_MS: u64 = 1_000;

/// The widths of a word's fields; 1 + `WINDOW_BITS` + 2 * `COUNT_BITS` bits in all.
pub trait Layout {
    /// Bits of the window number.
    const WINDOW_BITS: u32;
    /// Bits of each count.
    const COUNT_BITS: u32;

    /// The largest number of tokens a window can hold.
    const MAX_COUNT: u64 = (1 << Self::COUNT_BITS) - 1;
    /// The largest window number; one less than fits, which keeps [`RETIRED`](Self::RETIRED) apart from every claim.
    const MAX_WINDOW: u64 = (1 << Self::WINDOW_BITS) - 2;
    /// Set while a batch holds the cell.
    const CLAIM: u128 = 1 << (Self::WINDOW_BITS + 2 * Self::COUNT_BITS);
    /// The word of a cell that was taken out of the map: whoever meets it looks the subject up again.
    const RETIRED: u128 = Self::CLAIM | (Self::CLAIM - 1);
}

/// The layout of the product: 128 bits.
pub struct Wide;

impl Layout for Wide {
    const WINDOW_BITS: u32 = 33;
    const COUNT_BITS: u32 = 47;
}

/// The layout under the schedule checker: 64 bits.
pub struct Narrow;

impl Layout for Narrow {
    const WINDOW_BITS: u32 = 15;
    const COUNT_BITS: u32 = 24;
}

/// What a limiter says to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Decision {
    /// Whether the cost fits into the limit.
    pub passed: bool,
    /// Tokens left after this decision; 0 where it was denied (RL-ALG-05).
    pub remaining: u64,
    /// The end of the current fixed window, Unix ms, at most `i64::MAX` (RL-ALG-06).
    pub reset_ms: u64,
    /// Tokens that counted against the limit before this request's cost, earlier entries of its batch included.
    pub used: u64,
}

/// Tokens accepted in a window and in the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// The window's number: its start divided by the duration (RL-ALG-01).
    pub window: u64,
    /// Tokens accepted in it.
    pub current: u64,
    /// Tokens accepted in the window before.
    pub previous: u64,
}

impl Counts {
    /// Reads a word, claimed or not.
    pub fn unpack<L: Layout>(word: u128) -> Counts {
        // Truncations are of fields already cut to their width.
        Counts {
            window: ((word & (L::CLAIM - 1)) >> (2 * L::COUNT_BITS)) as u64,
            current: (word >> L::COUNT_BITS) as u64 & L::MAX_COUNT,
            previous: word as u64 & L::MAX_COUNT,
        }
    }

    /// The unclaimed word of these counts, each of which fits its field.
    pub fn pack<L: Layout>(self) -> u128 {
        debug_assert!(self.window <= L::MAX_WINDOW && self.current.max(self.previous) <= L::MAX_COUNT);
        u128::from(self.window) << (2 * L::COUNT_BITS)
            | u128::from(self.current) << L::COUNT_BITS
            | u128::from(self.previous)
    }
}

/// A subject's counts as they stand at the time of a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moment {
    /// The counts, moved on to the window of the decision.
    pub counts: Counts,
    /// Tokens that count now: the current window's and the weight of the one before (RL-ALG-03, 04).
    pub used: u64,
    /// The end of the window, Unix ms, at most `i64::MAX`.
    pub reset_ms: u64,
}

impl Moment {
    /// Moves `counts` on to `now_ms`.
    ///
    /// A clock that went back does not move them back (RL-TIME-05): the decision then is one at the very start of the
    /// newest window used, where the window before weighs most. Window numbers stop at `max_window`.
    pub fn at(counts: Counts, now_ms: u64, duration_ms: u64, max_window: u64) -> Moment {
        let duration = duration_ms.max(MIN_DURATION_MS);
        let number = (now_ms / duration).min(max_window);
        let (window, elapsed) =
            if number >= counts.window { (number, now_ms - number * duration) } else { (counts.window, 0) };
        let (current, previous) = match window - counts.window {
            0 => (counts.current, counts.previous),
            1 => (0, counts.current),
            _ => (0, 0),
        };
        // `elapsed` is below the duration but for the last window number there is.
        let rest = duration.saturating_sub(elapsed);
        let weight = match previous.checked_mul(rest) {
            Some(product) => product / duration,
            // The quotient is at most `previous`.
            None => (u128::from(previous) * u128::from(rest) / u128::from(duration)) as u64,
        };
        Moment {
            counts: Counts { window, current, previous },
            used: current.saturating_add(weight),
            reset_ms: (window + 1).saturating_mul(duration).min(i64::MAX as u64),
        }
    }

    /// Decides on `cost` tokens after `earlier` tokens of the same batch; at most `max_count` fit into a window.
    pub fn judge(&self, limit: u64, earlier: u64, cost: u64, max_count: u64) -> Decision {
        let used = self.used.saturating_add(earlier);
        let effective = used.saturating_add(cost);
        let fits = self.counts.current.saturating_add(earlier).saturating_add(cost) <= max_count;
        let passed = fits && effective <= limit;
        let remaining = if passed { limit - effective } else { 0 };
        Decision { passed, remaining, reset_ms: self.reset_ms, used }
    }

    /// The counts after `cost` more tokens, which were judged to fit.
    pub fn plus(&self, cost: u64) -> Counts {
        Counts { current: self.counts.current + cost, ..self.counts }
    }

    /// Whether nothing counts any more, now or later (RL-ALG-12).
    pub fn is_blank(&self) -> bool {
        self.counts.current == 0 && self.counts.previous == 0
    }
}

/// The outcome of [`step`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// What to tell the request.
    pub decision: Decision,
    /// The word to store; none where nothing changes, as after a denial (RL-ALG-07) or at cost 0 (RL-ALG-08).
    pub next_word: Option<u128>,
}

/// Decides on one request for `cost` tokens of `limit` per `duration_ms`, given the subject's unclaimed word.
///
/// Integers throughout, the weight in 128 bits where 64 do not do: exactly RL-ALG-03 rather than upstream's doubles.
pub fn step<L: Layout>(word: u128, now_ms: u64, duration_ms: u64, limit: u64, cost: u64) -> Step {
    let moment = Moment::at(Counts::unpack::<L>(word), now_ms, duration_ms, L::MAX_WINDOW);
    let decision = moment.judge(limit, 0, cost, L::MAX_COUNT);
    let next_word = (decision.passed && cost > 0).then(|| moment.plus(cost).pack::<L>());
    Step { decision, next_word }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use proptest::test_runner::{Config, RngSeed};

    use super::*;

    const MINUTE: u64 = 60_000;

    fn word(window: u64, current: u64, previous: u64) -> u128 {
        Counts { window, current, previous }.pack::<Wide>()
    }

    /// RL-ALG written down a second time, as literally as it stands there: unbounded counters per window, 128-bit signed.
    #[derive(Default)]
    struct Plain {
        accepted: HashMap<i128, i128>,
    }

    impl Plain {
        /// `(passed, remaining, reset)`
        fn limit(&mut self, t: u64, d: u64, l: u64, c: u64) -> (bool, u64, u64) {
            let (t, d, l, c) = (i128::from(t), i128::from(d), i128::from(l), i128::from(c));
            let s = t.div_euclid(d);
            let cur = *self.accepted.get(&s).unwrap_or(&0);
            let prev = *self.accepted.get(&(s - 1)).unwrap_or(&0);
            let elapsed = t - s * d;
            let weight = (prev * (d - elapsed)).div_euclid(d);
            let effective = cur + weight + c;
            let reset = ((s + 1) * d).min(i128::from(i64::MAX)) as u64;
            if effective <= l {
                *self.accepted.entry(s).or_default() += c;
                (true, (l - effective) as u64, reset)
            } else {
                (false, 0, reset)
            }
        }
    }

    /// RL-ALG-01 to 08: the worked examples of the contract, each in a window far from the epoch.
    #[test]
    fn the_worked_examples() {
        /// cur, prev, elapsed ("any" is tried at both ends), duration, cost, limit, weight, passed, remaining.
        type Example = (u64, u64, &'static [u64], u64, u64, u64, u64, bool, u64);
        #[rustfmt::skip]
        let table: &[Example] = &[
            (0, 0, &[0], MINUTE, 1, 10, 0, true, 9),
            (9, 0, &[0, 59_999], MINUTE, 1, 10, 0, true, 0),
            (10, 0, &[0, 59_999], MINUTE, 0, 10, 0, true, 0),
            (10, 0, &[0, 59_999], MINUTE, 1, 10, 0, false, 0),
            (5, 10, &[30_000], MINUTE, 1, 10, 5, false, 0),
            (5, 10, &[59_400], MINUTE, 1, 10, 0, true, 4),
            (0, 0, &[0, 59_999], MINUTE, 100, 10, 0, false, 0),
            (0, 100, &[15_000], MINUTE, 1, 100, 75, true, 24),
            (20, 100, &[15_000], MINUTE, 5, 100, 75, true, 0),
            (20, 100, &[15_000], MINUTE, 6, 100, 75, false, 0),
            (0, 10, &[0], MINUTE, 1, 10, 10, false, 0),
            (0, 10, &[6_000], MINUTE, 1, 10, 9, true, 0),
            (0, 7, &[20_000], MINUTE, 1, 10, 4, true, 5),
            (3, 50, &[2_500], 10_000, 10, 60, 37, true, 10),
            (0, 1, &[0], 1_000, 1, 1, 1, false, 0),
            (0, 1, &[1], 1_000, 1, 1, 0, true, 0),
            (0, 10, &[48_000], MINUTE, 1, 10, 2, true, 7),
        ];
        for (row, &(cur, prev, times, d, cost, limit, weight, passed, remaining)) in table.iter().enumerate() {
            for &elapsed in times {
                let before = word(29_000_000, cur, prev);
                let step = step::<Wide>(before, 29_000_000 * d + elapsed, d, limit, cost);
                let reset_ms = 29_000_001 * d;
                let expected = Decision { passed, remaining, reset_ms, used: cur + weight };
                assert_eq!(step.decision, expected, "example {}", row + 1);
                let after = (passed && cost > 0).then(|| word(29_000_000, cur + cost, prev));
                assert_eq!(step.next_word, after, "example {}", row + 1);
            }
        }
    }

    /// The contract's timeline under the table: ten calls, a denial, the window's end, its weight, its oblivion.
    #[test]
    fn the_timeline() {
        let mut now = 0;
        let mut call = |t: u64| {
            let step = step::<Wide>(now, t, MINUTE, 10, 1);
            now = step.next_word.unwrap_or(now);
            (step.decision.passed, step.decision.remaining, step.decision.reset_ms)
        };
        for t in 0..10 {
            assert_eq!(call(t), (true, 9 - t, 60_000));
        }
        assert_eq!(call(30_000), (false, 0, 60_000));
        assert_eq!(call(60_000), (false, 0, 120_000));
        assert_eq!(call(66_000), (true, 0, 120_000));
        assert_eq!(call(66_000), (false, 0, 120_000));
        assert_eq!(call(120_000), (true, 8, 180_000));
        assert_eq!(call(240_000), (true, 9, 300_000));
    }

    /// RL-ALG-08: cost 0 asks without counting and passes exactly at the limit, and even under a limit of 0 (RL-OVR-08);
    /// a cost above the limit is denied with 0 left although tokens are.
    #[test]
    fn asking_and_asking_too_much() {
        let at_limit = step::<Wide>(word(5, 10, 0), 5 * MINUTE, MINUTE, 10, 0);
        assert!(at_limit.decision.passed && at_limit.next_word.is_none());
        assert!(!step::<Wide>(word(5, 11, 0), 5 * MINUTE, MINUTE, 10, 0).decision.passed);
        assert!(step::<Wide>(0, 5 * MINUTE, MINUTE, 0, 0).decision.passed);
        assert!(!step::<Wide>(0, 5 * MINUTE, MINUTE, 0, 1).decision.passed);
        let greedy = step::<Wide>(word(5, 1, 0), 5 * MINUTE, MINUTE, 10, 11);
        assert_eq!((greedy.decision.passed, greedy.decision.remaining, greedy.next_word), (false, 0, None));
    }

    /// RL-ALG-11: near 2^63 nothing wraps. A cost is denied where it does not fit the count, and poisons nothing.
    #[test]
    fn huge_costs_saturate() {
        let huge = i64::MAX as u64;
        let day = 86_400_000;
        for cost in [Wide::MAX_COUNT + 1, huge - 1, huge, u64::MAX] {
            let denied = step::<Wide>(word(20_000, 7, 0), 20_000 * day, day, huge, cost);
            assert_eq!((denied.decision.passed, denied.decision.remaining, denied.next_word), (false, 0, None));
        }
        let full = step::<Wide>(word(20_000, 7, 0), 20_000 * day, day, huge, Wide::MAX_COUNT - 7);
        assert_eq!(full.decision.remaining, huge - Wide::MAX_COUNT);
        let full = full.next_word.expect("the last token that fits");
        assert!(!step::<Wide>(full, 20_000 * day, day, huge, 1).decision.passed);
        // As the window before, that count weighs to the token: the product needs 90 bits.
        let half = step::<Wide>(full, 20_001 * day + day / 2, day, huge, 0).decision;
        assert_eq!(half.used, Wide::MAX_COUNT / 2);
        // An override's duration has no maximum (RL-OVR-01, RL-SETOV-06).
        let endless = step::<Wide>(0, 1_900_000_000_000, huge, 10, 1);
        assert_eq!((endless.decision.remaining, endless.decision.reset_ms), (9, huge));
        let later = step::<Wide>(endless.next_word.expect("counted"), huge, huge, 10, 1);
        assert_eq!((later.decision.used, later.decision.reset_ms), (1, huge));
    }

    /// Past the last window number, in the year 2242 at a second per window, tokens add up for ever: denied too often
    /// perhaps, admitted too often never.
    #[test]
    fn the_end_of_the_numbers_denies() {
        let past = (Wide::MAX_WINDOW + 3) * 1_000;
        let first = step::<Wide>(0, past, 1_000, 1, 1);
        assert!(first.decision.passed);
        assert!(!step::<Wide>(first.next_word.expect("counted"), u64::MAX, 1, 1, 1).decision.passed);
        assert_ne!(first.next_word.expect("counted") | Wide::CLAIM, Wide::RETIRED);
    }

    /// RL-TIME-05: a clock that steps back does not open the window before again.
    #[test]
    fn the_clock_goes_back() {
        let ten = step::<Wide>(0, 10 * MINUTE + 5, MINUTE, 10, 10).next_word.expect("counted");
        for back in [10 * MINUTE, 9 * MINUTE + 59_999, 8 * MINUTE, 0] {
            let denied = step::<Wide>(ten, back, MINUTE, 10, 1);
            assert_eq!((denied.decision.passed, denied.next_word), (false, None));
            assert_eq!(denied.decision.reset_ms, 11 * MINUTE);
        }
        // What is granted while it is back is counted in the newest window used, where the one before weighs in full.
        let more = step::<Wide>(ten, 0, MINUTE, 12, 2).next_word.expect("counted");
        assert_eq!(Counts::unpack::<Wide>(more), Counts { window: 10, current: 12, previous: 0 });
        let next = step::<Wide>(more, 11 * MINUTE + 30_000, MINUTE, 100, 1).next_word.expect("counted");
        assert_eq!(step::<Wide>(next, 10 * MINUTE + 59_000, MINUTE, 100, 0).decision.used, 13);
    }

    /// RL-ALG-13, pinned: over 50 windows the accepted share of what the limit allows stays within 0.95 and 1.2, and
    /// below the limit everything passes. The calls are evenly spaced and keep off the points where a weight is a whole
    /// number (RL-ALG-10).
    #[test]
    fn long_runs_are_accurate() {
        for limit in [5u64, 100] {
            for duration in [1_000u64, 5_000] {
                for load in [0.9f64, 1.0, 10.0] {
                    let (mut now, mut accepted, mut asked) = (0u128, 0u64, 0u64);
                    let calls = (limit as f64 * load * 50.0) as u64;
                    for call in 0..calls {
                        let t = 1_700_000_000_007 + call * 50 * duration / calls;
                        let step = step::<Wide>(now, t, duration, limit, 1);
                        now = step.next_word.unwrap_or(now);
                        accepted += u64::from(step.decision.passed);
                        asked += 1;
                    }
                    let share = accepted as f64 / (limit * 50) as f64;
                    if load < 1.0 {
                        assert_eq!(accepted, asked);
                    } else {
                        assert!((0.95..=1.2).contains(&share), "L {limit} D {duration} x{load}: {share}");
                    }
                }
            }
        }
    }

    /// A word of a tiny layout, for looking at all of them.
    struct Tiny;
    impl Layout for Tiny {
        const WINDOW_BITS: u32 = 4;
        const COUNT_BITS: u32 = 3;
    }

    /// Every word of a layout of 11 bits against every time, limit and cost: the step keeps to its fields, counts what it
    /// admits, never goes back, and admits nothing above the limit. So do claim and retirement: they cannot be mistaken.
    #[test]
    fn every_word_of_a_tiny_layout() {
        for window in 0..=Tiny::MAX_WINDOW {
            for (current, previous) in (0..8).flat_map(|c| (0..8).map(move |p| (c, p))) {
                let counts = Counts { window, current, previous };
                let word = counts.pack::<Tiny>();
                assert!(word < Tiny::CLAIM && word | Tiny::CLAIM != Tiny::RETIRED);
                assert_eq!(Counts::unpack::<Tiny>(word | Tiny::CLAIM), counts);
                for now in (0..18).flat_map(|w| [0, 1, 500, 999].map(|ms| w * 1_000 + ms)) {
                    for (limit, cost) in (0..10).flat_map(|l| (0..10).map(move |c| (l, c))) {
                        let step = step::<Tiny>(word, now, 1_000, limit, cost);
                        let d = step.decision;
                        assert_eq!(step.next_word.is_some(), d.passed && cost > 0);
                        if !d.passed {
                            let same = (now / 1_000).min(Tiny::MAX_WINDOW) <= window;
                            let current = if same { current } else { 0 };
                            assert!(d.used + cost > limit || current + cost > Tiny::MAX_COUNT);
                        }
                        if let Some(next) = step.next_word {
                            assert!(next > word && next < Tiny::CLAIM, "later words are larger");
                            let next = Counts::unpack::<Tiny>(next);
                            assert!(next.window >= window && next.current <= limit && next.current >= cost);
                            assert_eq!(d.remaining, limit - d.used - cost);
                        }
                    }
                }
            }
        }
    }

    proptest! {
        #![proptest_config(Config {
            cases: 400, failure_persistence: None, rng_seed: RngSeed::Fixed(0x6b65_7977), ..Config::default()
        })]

        /// RL-ALG as a whole: over random schedules of one subject, with limits that change from call to call (RL-ALG-09),
        /// every decision equals that of the plain big-integer reading of the contract.
        #[test]
        fn equals_the_plain_reading(
            duration in prop_oneof![1_000u64..5_000, 1_000u64..2_592_000_000, 1_000u64..(1 << 62)],
            start in 0u64..4_000_000_000_000,
            scale in prop_oneof![Just(10u64), Just(1 << 20), Just(1 << 46)],
            calls in prop::collection::vec((0.0f64..1.0, 0.0f64..1.0, 0.0f64..1.0), 1..80),
        ) {
            let mut plain = Plain::default();
            let (mut now, mut t) = (0u128, start);
            for (wait, limit, cost) in calls {
                // Mostly small steps, now and then more than two windows.
                t = t.saturating_add((wait.powi(6) * 3.0 * duration as f64) as u64).min(i64::MAX as u64);
                let limit = (limit * scale as f64) as u64;
                let cost = (cost.powi(3) * scale as f64 * 0.8) as u64;
                let step = step::<Wide>(now, t, duration, limit, cost);
                now = step.next_word.unwrap_or(now);
                let (passed, remaining, reset) = plain.limit(t, duration, limit, cost);
                let d = step.decision;
                prop_assert_eq!((d.passed, d.remaining, d.reset_ms), (passed, remaining, reset));
            }
        }
    }
}
