//! The load generator: plain threads, epoll and rendered requests, so that it costs as little as a client can.
//!
//! **Closed loop**: every connection sends its next request as soon as it has an answer. That finds the capacity; its
//! latencies say little, because a server that stalls is also asked less while it stalls.
//!
//! **Open loop**: requests are due at times fixed beforehand, whatever the server does. Latency is counted from the
//! time a request was *due*, so the wait for a free connection counts, and a stall is felt by every request that was
//! due during it ("coordinated omission", Gil Tene's term, cannot hide it). A request that is never answered is recorded
//! with the age it had when the run gave up on it.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use memchr::memmem::Finder;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, clock_gettime, timerfd_create,
    timerfd_settime,
};

use crate::wire::{Framed, Target, frame};
use crate::{Error, Result};

/// Longest run, warm-up included.
pub const LONGEST_RUN: Duration = Duration::from_secs(600);
/// Most connections of a run.
pub const MOST_CONNECTIONS: usize = 10_000;
/// Highest rate of an open loop, in requests a second.
pub const HIGHEST_RATE: f64 = 2_000_000.0;
/// How long a run waits for outstanding answers after its last request was due.
const DRAIN: Duration = Duration::from_secs(5);
/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(5);
/// So many failures with no success between them end a run: it would measure nothing.
const FAILURES_IN_A_ROW: u32 = 1_000;
/// Latencies are recorded in nanoseconds up to here; a longer one counts as this.
const LONGEST_LATENCY: Duration = Duration::from_secs(120);
/// The timer's name among the connections' indexes.
const TIMER: u64 = u64::MAX;

/// When requests are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// As soon as the connection is free.
    Closed,
    /// At `rate` requests a second, all connections together.
    Open {
        /// Requests a second.
        rate: f64,
        /// How they are spread.
        arrivals: Arrivals,
    },
}

/// How an open loop spreads its requests over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrivals {
    /// At equal distances: the least noisy comparison.
    Even,
    /// Independently of each other (a Poisson process): what many unrelated clients look like; bursts are part of it.
    Poisson,
}

/// In which order the rendered requests are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// One after the other.
    RoundRobin,
    /// Uniformly at random.
    Random,
}

/// A run to make.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Whom to load.
    pub target: Target,
    /// Rendered requests ([`crate::wire::render`]), at least one.
    pub requests: Vec<Vec<u8>>,
    /// Which of them is next.
    pub order: Order,
    /// Connections, all threads together: 1 to [`MOST_CONNECTIONS`].
    pub connections: usize,
    /// Threads of the generator: 1 to `connections`.
    pub threads: usize,
    /// When requests are sent.
    pub pace: Pace,
    /// Not measured.
    pub warm_up: Duration,
    /// Measured.
    pub measure: Duration,
    /// An open loop waits by spinning, not by a timer: exact, and it takes a whole core. For a generator with a core of
    /// its own.
    pub spin: bool,
    /// What the body of every answer must hold; others are counted.
    pub must_contain: Option<Vec<u8>>,
    /// Seed of everything random.
    pub seed: u64,
}

impl Plan {
    /// A closed loop of one thread over `connections`, one second of it not measured.
    pub fn closed(target: Target, requests: Vec<Vec<u8>>, connections: usize, measure: Duration) -> Plan {
        Plan {
            target,
            requests,
            order: Order::Random,
            connections,
            threads: 1,
            pace: Pace::Closed,
            warm_up: Duration::from_secs(1),
            measure,
            spin: false,
            must_contain: None,
            seed: 0x6b65_7977_6172_6421,
        }
    }

    fn check(&self) -> Result<()> {
        let usage = |what: String| Err(Error::Usage(what));
        if self.requests.is_empty() {
            return usage("there is no request to send".into());
        }
        if !(1..=MOST_CONNECTIONS).contains(&self.connections) {
            return usage(format!("connections must be 1 to {MOST_CONNECTIONS}"));
        }
        if !(1..=self.connections).contains(&self.threads) {
            return usage("threads must be 1 to the number of connections".into());
        }
        if self.measure.is_zero() || self.warm_up.saturating_add(self.measure) > LONGEST_RUN {
            return usage(format!("a run must take more than 0 and at most {} s", LONGEST_RUN.as_secs()));
        }
        if let Pace::Open { rate, .. } = self.pace
            && !(rate > 0.0 && rate <= HIGHEST_RATE)
        {
            return usage(format!("the rate must be above 0 and at most {HIGHEST_RATE}/s"));
        }
        Ok(())
    }
}

/// What a run found.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Latencies in nanoseconds, of requests that began (closed) or were due (open) in the measured time.
    pub latency: Histogram<u64>,
    /// How long after its due time a request of an open loop was written, in nanoseconds: waiting for a free connection
    /// is the server's doing; the rest is the generator's.
    pub lateness: Histogram<u64>,
    /// Answers that came in the measured time.
    pub completed: u64,
    /// The measured time.
    pub measured: Duration,
    /// Answers by status, over the whole run, warm-up included.
    pub statuses: Vec<u64>,
    /// Requests that failed below HTTP, over the whole run.
    pub failures: u64,
    /// The last of those failures.
    pub last_failure: Option<String>,
    /// Connections that were made anew.
    pub reconnects: u64,
    /// Answers without [`Plan::must_contain`], over the whole run.
    pub wrong_answers: u64,
    /// Requests of the measured time that got no answer.
    pub unanswered: u64,
    /// CPU time of the generator's threads, over the whole run.
    pub generator_cpu: Duration,
    /// Requests sent over the whole run.
    pub sent: u64,
}

impl Outcome {
    fn empty() -> Outcome {
        Outcome {
            latency: histogram(),
            lateness: histogram(),
            completed: 0,
            measured: Duration::ZERO,
            statuses: vec![0; 1000],
            failures: 0,
            last_failure: None,
            reconnects: 0,
            wrong_answers: 0,
            unanswered: 0,
            generator_cpu: Duration::ZERO,
            sent: 0,
        }
    }

    /// Answers a second in the measured time.
    pub fn throughput(&self) -> f64 {
        if self.measured.is_zero() { 0.0 } else { self.completed as f64 / self.measured.as_secs_f64() }
    }

    /// Takes another run's figures in, as if the two had been one longer run.
    pub fn add_run(&mut self, other: &Outcome) {
        self.measured += other.measured;
        self.add_thread(other);
    }

    /// Takes the figures of another thread of the same run in.
    fn add_thread(&mut self, other: &Outcome) {
        self.latency.add(&other.latency).expect("both histograms are made by histogram()");
        self.lateness.add(&other.lateness).expect("both histograms are made by histogram()");
        self.completed += other.completed;
        for (sum, count) in self.statuses.iter_mut().zip(&other.statuses) {
            *sum += count;
        }
        self.failures += other.failures;
        if self.last_failure.is_none() {
            self.last_failure.clone_from(&other.last_failure);
        }
        self.reconnects += other.reconnects;
        self.wrong_answers += other.wrong_answers;
        self.unanswered += other.unanswered;
        self.generator_cpu += other.generator_cpu;
        self.sent += other.sent;
    }

    /// Every request was answered, with `status` and with the wanted body.
    ///
    /// # Errors
    ///
    /// [`Error::Unexpected`] says what came instead.
    pub fn expect_all(&self, status: u16) -> Result<()> {
        let others: Vec<String> = self
            .statuses
            .iter()
            .enumerate()
            .filter(|(code, count)| **count > 0 && *code != usize::from(status))
            .map(|(code, count)| format!("{count} x {code}"))
            .collect();
        let counts = [
            (!others.is_empty()).then(|| format!("answers other than {status}: {}", others.join(", "))),
            (self.failures > 0).then(|| {
                format!(
                    "{} failed requests, one of them: {}",
                    self.failures,
                    self.last_failure.as_deref().unwrap_or("?")
                )
            }),
            (self.wrong_answers > 0).then(|| format!("{} answers without the wanted text", self.wrong_answers)),
            (self.unanswered > 0).then(|| format!("{} requests without an answer", self.unanswered)),
            (self.completed == 0).then(|| "no answer at all".to_owned()),
        ];
        let complaints: Vec<String> = counts.into_iter().flatten().collect();
        if complaints.is_empty() { Ok(()) } else { Err(Error::Unexpected(complaints.join("; "))) }
    }
}

/// A histogram of nanoseconds up to two minutes.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, nanoseconds(LONGEST_LATENCY), 3).expect("constant bounds that the crate accepts")
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Makes a run.
///
/// # Errors
///
/// [`Error::Usage`] for a plan out of its bounds; [`Error::Io`] when no connection can be made; [`Error::Unexpected`]
/// when nothing but failures happen. Failures of single requests are counted, not returned.
pub fn run(plan: &Plan) -> Result<Outcome> {
    plan.check()?;
    let mut workers = Vec::with_capacity(plan.threads);
    for index in 0..plan.threads {
        workers.push(Worker::connect(plan, index)?);
    }
    // All connections exist: from here the clock runs, the same for all threads.
    let epoch = Instant::now();
    let mut total = Outcome::empty();
    total.measured = plan.measure;
    let parts: Vec<Result<Outcome>> = std::thread::scope(|scope| {
        let mut workers = workers.into_iter();
        let first = workers.next();
        let others: Vec<_> = workers.map(|worker| scope.spawn(move || worker.run(epoch))).collect();
        // The first runs here, so that a one-thread generator inherits the caller's affinity and nothing else moves.
        let first = first.map(|worker| worker.run(epoch));
        first.into_iter().chain(others.into_iter().map(|thread| thread.join().expect("a worker panicked"))).collect()
    });
    for part in parts {
        total.add_thread(&part?);
    }
    Ok(total)
}

/// A small random generator: `SplitMix64` (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `0..bound`; its bias is far below what a load could show.
    fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }

    /// Uniform in (0, 1].
    fn unit(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }
}

/// The due times of one thread's share of an open loop, in nanoseconds since the run's beginning.
struct Schedule {
    next: f64,
    gap: f64,
    arrivals: Arrivals,
    end: u64,
}

impl Schedule {
    fn new(rate: f64, arrivals: Arrivals, index: usize, threads: usize, end: u64) -> Schedule {
        let gap = 1e9 / rate;
        // Threads take turns: their schedules together are one even schedule.
        Schedule { next: gap * index as f64, gap: gap * threads as f64, arrivals, end }
    }

    /// The next due time, while there is one.
    fn peek(&self) -> Option<u64> {
        let due = self.next as u64;
        (due < self.end).then_some(due)
    }

    fn advance(&mut self, random: &mut Random) {
        self.next += match self.arrivals {
            Arrivals::Even => self.gap,
            Arrivals::Poisson => -random.unit().ln() * self.gap,
        };
    }
}

/// A request under way.
#[derive(Clone, Copy)]
struct Pending {
    /// When it was sent (closed) or due (open), in nanoseconds since the run's beginning.
    since: u64,
    /// Its index among the requests.
    request: usize,
    /// How many of its bytes the socket has taken.
    written: usize,
}

struct Connection {
    stream: TcpStream,
    pending: Option<Pending>,
    /// The beginning of an answer that did not come in one piece.
    received: Vec<u8>,
    /// The socket was full: epoll watches for room, too.
    wants_room: bool,
}

struct Worker<'p> {
    plan: &'p Plan,
    finder: Option<Finder<'p>>,
    epoll: OwnedFd,
    timer: OwnedFd,
    connections: Vec<Connection>,
    /// Connections with nothing under way, the longest idle first, so that all of them are used.
    idle: VecDeque<usize>,
    /// `None` in a closed loop.
    schedule: Option<Schedule>,
    random: Random,
    next_request: usize,
    failures_in_a_row: u32,
    scratch: Box<[u8]>,
    outcome: Outcome,
    /// Beginning and end of the measured time.
    window: (u64, u64),
    epoch: Instant,
}

impl<'p> Worker<'p> {
    fn connect(plan: &'p Plan, index: usize) -> Result<Worker<'p>> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(Error::io("create an epoll"))?;
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags).map_err(Error::io("create a timer"))?;
        epoll::add(&epoll, &timer, epoll::EventData::new_u64(TIMER), epoll::EventFlags::IN)
            .map_err(Error::io("watch the timer"))?;
        let share = plan.connections / plan.threads + usize::from(index < plan.connections % plan.threads);
        let begin = nanoseconds(plan.warm_up);
        let window = (begin, begin + nanoseconds(plan.measure));
        let schedule = match plan.pace {
            Pace::Closed => None,
            Pace::Open { rate, arrivals } => Some(Schedule::new(rate, arrivals, index, plan.threads, window.1)),
        };
        let mut worker = Worker {
            plan,
            finder: plan.must_contain.as_deref().map(Finder::new),
            epoll,
            timer,
            connections: Vec::with_capacity(share),
            idle: (0..share).collect(),
            schedule,
            random: Random(plan.seed ^ (index as u64) << 32),
            // Threads begin at different requests, so that round robin does not send the same one everywhere.
            next_request: index * plan.requests.len() / plan.threads,
            failures_in_a_row: 0,
            scratch: vec![0; 64 * 1024].into_boxed_slice(),
            outcome: Outcome::empty(),
            window,
            epoch: Instant::now(),
        };
        for token in 0..share {
            let stream = worker.open(token)?;
            worker.connections.push(Connection { stream, pending: None, received: Vec::new(), wants_room: false });
        }
        Ok(worker)
    }

    fn open(&self, token: usize) -> Result<TcpStream> {
        let address = self.plan.target.address;
        let stream =
            TcpStream::connect_timeout(&address, CONNECT).map_err(Error::io(format!("connect to {address}")))?;
        stream.set_nodelay(true).and_then(|()| stream.set_nonblocking(true)).map_err(Error::io("set up a socket"))?;
        epoll::add(&self.epoll, &stream, epoll::EventData::new_u64(token as u64), epoll::EventFlags::IN)
            .map_err(Error::io("watch a socket"))?;
        Ok(stream)
    }

    fn now(&self) -> u64 {
        nanoseconds(self.epoch.elapsed())
    }

    fn run(mut self, epoch: Instant) -> Result<Outcome> {
        self.epoch = epoch;
        let cpu_before = thread_cpu();
        let give_up = self.window.1 + nanoseconds(DRAIN);
        let mut events = Vec::with_capacity(256);
        let mut armed = None;
        loop {
            let now = self.now();
            let next_due = self.send_what_is_due(now)?;
            let nothing_left = next_due.is_none() && self.idle.len() == self.connections.len();
            if now >= self.window.1 && (nothing_left || now >= give_up) {
                break;
            }
            let timeout = self.arm(now, next_due, &mut armed)?;
            match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&timeout)) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(Error::io("wait for events")(error)),
            }
            for event in events.drain(..) {
                let token = event.data.u64();
                if token != TIMER {
                    self.ready(token as usize, event.flags)?;
                }
            }
        }
        self.count_unanswered(self.now());
        self.outcome.generator_cpu = thread_cpu().saturating_sub(cpu_before);
        Ok(self.outcome)
    }

    /// Sends on idle connections; says when the next request is due that a free connection could take.
    fn send_what_is_due(&mut self, now: u64) -> Result<Option<u64>> {
        if self.schedule.is_none() {
            while now < self.window.1
                && let Some(token) = self.idle.pop_front()
            {
                self.send(token, now)?;
            }
            return Ok(None);
        }
        while let Some(due) = self.schedule.as_ref().and_then(Schedule::peek) {
            if due > now {
                return Ok(Some(due));
            }
            let Some(token) = self.idle.pop_front() else { return Ok(Some(due)) };
            if let Some(schedule) = &mut self.schedule {
                schedule.advance(&mut self.random);
            }
            if self.measures(due) {
                self.outcome.lateness.saturating_record(now.saturating_sub(due).max(1));
            }
            self.send(token, due)?;
        }
        Ok(None)
    }

    /// How long to wait for events, with the timer set for a due time that comes earlier. Epoll itself waits in
    /// milliseconds, far too coarse for the distances of an open loop.
    fn arm(&self, now: u64, next_due: Option<u64>, armed: &mut Option<u64>) -> Result<Timespec> {
        let waits_for_time = next_due.filter(|_| !self.idle.is_empty());
        if let Some(due) = waits_for_time {
            if self.plan.spin || due <= now {
                return Ok(Timespec { tv_sec: 0, tv_nsec: 0 });
            }
            if *armed != Some(due) {
                let wait = due - now;
                let it_value =
                    Timespec { tv_sec: (wait / 1_000_000_000) as i64, tv_nsec: (wait % 1_000_000_000) as i64 };
                let it_interval = Timespec { tv_sec: 0, tv_nsec: 0 };
                timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &Itimerspec { it_interval, it_value })
                    .map_err(Error::io("set the timer"))?;
                *armed = Some(due);
            }
        } else if armed.take().is_some() {
            // An expired timer would make every wait return at once.
            let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
            let off = Itimerspec { it_interval: zero, it_value: zero };
            timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &off).map_err(Error::io("set the timer"))?;
        }
        Ok(Timespec { tv_sec: 0, tv_nsec: 20_000_000 })
    }

    fn measures(&self, at: u64) -> bool {
        (self.window.0..self.window.1).contains(&at)
    }

    fn send(&mut self, token: usize, since: u64) -> Result<()> {
        let request = match self.plan.order {
            Order::Random => self.random.below(self.plan.requests.len()),
            Order::RoundRobin => {
                let request = self.next_request;
                self.next_request = (request + 1) % self.plan.requests.len();
                request
            }
        };
        self.outcome.sent += 1;
        self.connections[token].pending = Some(Pending { since, request, written: 0 });
        self.write(token)
    }

    /// Writes as much of the pending request as the socket takes.
    fn write(&mut self, token: usize) -> Result<()> {
        let connection = &mut self.connections[token];
        let Some(pending) = &mut connection.pending else { return Ok(()) };
        let bytes = &self.plan.requests[pending.request];
        match connection.stream.write(&bytes[pending.written..]) {
            Ok(count) => pending.written += count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return self.fail(token, &format!("write: {error}")),
        }
        let wants_room = pending.written < bytes.len();
        if wants_room != connection.wants_room {
            connection.wants_room = wants_room;
            let room = if wants_room { epoll::EventFlags::OUT } else { epoll::EventFlags::empty() };
            let data = epoll::EventData::new_u64(token as u64);
            epoll::modify(&self.epoll, &connection.stream, data, epoll::EventFlags::IN | room)
                .map_err(Error::io("watch a socket"))?;
        }
        Ok(())
    }

    fn ready(&mut self, token: usize, flags: epoll::EventFlags) -> Result<()> {
        if flags.contains(epoll::EventFlags::OUT) {
            self.write(token)?;
        }
        if !flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR) {
            return Ok(());
        }
        let connection = &mut self.connections[token];
        let count = match connection.stream.read(&mut self.scratch) {
            Ok(0) => return self.fail(token, "closed by the server"),
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return Ok(()),
            Err(error) => return self.fail(token, &format!("read: {error}")),
        };
        let received = if connection.received.is_empty() {
            &self.scratch[..count]
        } else {
            connection.received.extend_from_slice(&self.scratch[..count]);
            &connection.received[..]
        };
        let Some(pending) = connection.pending else { return self.fail(token, "an answer to no request") };
        match frame(received) {
            Framed::Partial => {
                if connection.received.is_empty() {
                    connection.received.extend_from_slice(&self.scratch[..count]);
                }
                Ok(())
            }
            Framed::Broken => self.fail(token, "an answer that cannot be framed"),
            Framed::Whole(response) if response.end < received.len() => self.fail(token, "more than one answer"),
            Framed::Whole(response) => {
                let right =
                    self.finder.as_ref().is_none_or(|finder| finder.find(&received[response.body_at..]).is_some());
                connection.received.clear();
                connection.pending = None;
                self.answered(pending, response.status, right);
                if response.closes {
                    self.reopen(token)?;
                }
                // In a closed loop the next request leaves at once; what cannot leave now is sent from `idle`.
                let now = self.now();
                if self.schedule.is_none() && now < self.window.1 { self.send(token, now) } else { self.rest(token) }
            }
        }
    }

    fn rest(&mut self, token: usize) -> Result<()> {
        self.idle.push_back(token);
        Ok(())
    }

    fn answered(&mut self, pending: Pending, status: u16, right: bool) {
        let now = self.now();
        self.failures_in_a_row = 0;
        self.outcome.statuses[usize::from(status).min(999)] += 1;
        self.outcome.wrong_answers += u64::from(!right);
        self.outcome.completed += u64::from(self.measures(now));
        if self.measures(pending.since) {
            self.outcome.latency.saturating_record(now.saturating_sub(pending.since).max(1));
        }
    }

    /// Gives a connection up and makes it anew. A server may close an idle connection at any time: only one with a
    /// request under way is a failure.
    fn fail(&mut self, token: usize, why: &str) -> Result<()> {
        if self.connections[token].pending.take().is_some() {
            self.outcome.failures += 1;
            self.outcome.last_failure = Some(why.to_owned());
            self.failures_in_a_row += 1;
            if self.failures_in_a_row >= FAILURES_IN_A_ROW {
                return Err(Error::Unexpected(format!(
                    "{FAILURES_IN_A_ROW} requests in a row failed; the last: {why}"
                )));
            }
            self.idle.push_back(token);
        }
        self.reopen(token)
    }

    fn reopen(&mut self, token: usize) -> Result<()> {
        self.outcome.reconnects += 1;
        let stream = self.open(token)?;
        // Dropping the old socket takes it off the epoll as well.
        let connection = &mut self.connections[token];
        connection.stream = stream;
        connection.received.clear();
        connection.wants_room = false;
        Ok(())
    }

    /// What is still under way or was never sent counts with the age it has now.
    fn count_unanswered(&mut self, now: u64) {
        let mut ages: Vec<u64> = Vec::new();
        for connection in &self.connections {
            ages.extend(connection.pending.map(|pending| pending.since));
        }
        if let Some(schedule) = &mut self.schedule {
            while let Some(due) = schedule.peek() {
                schedule.advance(&mut self.random);
                ages.push(due);
            }
        }
        for since in ages {
            if self.measures(since) {
                self.outcome.unanswered += 1;
                self.outcome.latency.saturating_record(now.saturating_sub(since).max(1));
            }
        }
    }
}

fn thread_cpu() -> Duration {
    let spent = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(spent.tv_sec).unwrap_or(0), u32::try_from(spent.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::wire::render;

    /// A server of one thread for one connection that answers what `answer` says to request number n.
    fn serve(answer: impl Fn(u64) -> Option<Vec<u8>> + Send + Clone + 'static) -> Target {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let count = std::sync::Arc::new(AtomicU64::new(0));
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let (answer, count) = (answer.clone(), count.clone());
                std::thread::spawn(move || {
                    let mut reader = BufReader::new(stream.try_clone().unwrap());
                    let mut writer = stream;
                    loop {
                        let mut line = String::new();
                        while line != "\r\n" {
                            line.clear();
                            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                                return;
                            }
                        }
                        match answer(count.fetch_add(1, Ordering::SeqCst)) {
                            Some(bytes) => writer.write_all(&bytes).unwrap(),
                            None => return,
                        }
                    }
                });
            }
        });
        Target { address }
    }

    fn reply(body: &str) -> Option<Vec<u8>> {
        Some(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes())
    }

    fn plan(target: Target, pace: Pace) -> Plan {
        let requests = vec![render(target, "GET", "/", &[], b"").unwrap()];
        let mut plan = Plan::closed(target, requests, 2, Duration::from_millis(300));
        plan.warm_up = Duration::from_millis(50);
        plan.pace = pace;
        plan
    }

    #[test]
    fn a_closed_loop_counts_what_it_asked() {
        let target = serve(|_| reply("hello"));
        let mut plan = plan(target, Pace::Closed);
        plan.must_contain = Some(b"hell".to_vec());
        let outcome = run(&plan).unwrap();
        outcome.expect_all(200).unwrap();
        assert_eq!(outcome.statuses[200], outcome.sent);
        plan.must_contain = Some(b"heaven".to_vec());
        let outcome = run(&plan).unwrap();
        assert_eq!(outcome.wrong_answers, outcome.sent);
        assert!(outcome.expect_all(200).is_err());
    }

    #[test]
    fn an_open_loop_asks_as_often_as_it_was_told() {
        for arrivals in [Arrivals::Even, Arrivals::Poisson] {
            let target = serve(|_| reply(""));
            let outcome = run(&plan(target, Pace::Open { rate: 1000.0, arrivals })).unwrap();
            outcome.expect_all(200).unwrap();
            let tolerance = if arrivals == Arrivals::Even { 0 } else { 90 };
            assert!(outcome.sent.abs_diff(350) <= tolerance, "{arrivals:?}: {}", outcome.sent);
        }
    }

    /// A closed loop would see one slow request here; an open one must see all that were due meanwhile.
    #[test]
    fn a_stall_is_felt_by_every_request_that_was_due_during_it() {
        let target = serve(|number| {
            if number == 100 {
                std::thread::sleep(Duration::from_millis(200));
            }
            reply("")
        });
        let mut plan = plan(target, Pace::Open { rate: 1000.0, arrivals: Arrivals::Even });
        plan.connections = 1;
        let outcome = run(&plan).unwrap();
        outcome.expect_all(200).unwrap();
        // Due within the first half of the stall: waited for at least the other half.
        let slow = outcome.latency.count_between(100_000_000, 120_000_000_000);
        assert!(slow >= 90, "only {slow} requests felt the stall");
    }

    #[test]
    fn failures_and_silence_are_not_overlooked() {
        let target = serve(|number| if number % 10 == 3 { None } else { reply("") });
        let outcome = run(&plan(target, Pace::Closed)).unwrap();
        assert!(outcome.failures > 0 && outcome.reconnects >= outcome.failures);
        assert!(outcome.expect_all(200).is_err());

        let target = serve(|_| None);
        assert!(matches!(run(&plan(target, Pace::Closed)), Err(Error::Unexpected(_))));
    }

    #[test]
    fn a_run_is_bounded() {
        let target = Target::parse("http://127.0.0.1:1").unwrap();
        let good = plan(target, Pace::Closed);
        let bad = [
            Plan { measure: LONGEST_RUN, ..good.clone() },
            Plan { measure: Duration::ZERO, ..good.clone() },
            Plan { connections: MOST_CONNECTIONS + 1, ..good.clone() },
            Plan { threads: 3, ..good.clone() },
            Plan { requests: Vec::new(), ..good.clone() },
            Plan { pace: Pace::Open { rate: f64::NAN, arrivals: Arrivals::Even }, ..good.clone() },
        ];
        for plan in bad {
            assert!(matches!(run(&plan), Err(Error::Usage(_))), "{plan:?}");
        }
    }
}
