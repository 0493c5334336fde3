//! A TCP proxy between two nodes that does to their connections what networks do: cuts them, holds back one way or both, delays.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// How long a pump waits before it looks again whether it may go on.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What becomes of bytes at the moment.
#[derive(Default)]
struct Weather {
    /// No connection lives, and none comes about.
    cut: AtomicBool,
    /// Bytes from whoever connects stay here, as they do where packets are lost and sent again.
    holds_up: AtomicBool,
    /// Bytes to whoever connects stay here.
    holds_down: AtomicBool,
    /// Each piece comes so much later, ms.
    delay_ms: AtomicU64,
    /// Bytes of a piece at most, and so a rate where there is a delay; 0 = as many as come.
    piece: AtomicU64,
    /// Counts cuts: connections from before one are dead.
    cuts: AtomicU64,
}

/// A proxy in front of an address.
pub struct Proxy {
    pub port: u16,
    weather: Arc<Weather>,
}

impl Proxy {
    /// Leads to this port of the machine.
    pub fn to(port: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Proxy { port: listener.local_addr().unwrap().port(), weather: Arc::default() };
        let weather = Arc::clone(&proxy.weather);
        let to = SocketAddr::from(([127, 0, 0, 1], port));
        // It ends with the process: `accept` is waiting in the system.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(near) = stream else { return };
                if weather.cut.load(Ordering::Acquire) {
                    continue;
                }
                let Ok(far) = TcpStream::connect(to) else { continue };
                let of = weather.cuts.load(Ordering::Acquire);
                for (from, into, up) in [(&near, &far, true), (&far, &near, false)] {
                    let (from, into) = (from.try_clone().unwrap(), into.try_clone().unwrap());
                    let weather = Arc::clone(&weather);
                    std::thread::spawn(move || pump(from, into, &weather, up, of));
                }
            }
        });
        proxy
    }

    /// Cuts every connection and lets none come about.
    pub fn cut(&self) {
        self.weather.cut.store(true, Ordering::Release);
        self.weather.cuts.fetch_add(1, Ordering::AcqRel);
    }

    /// Cuts every connection; new ones may come about.
    pub fn blink(&self) {
        self.weather.cuts.fetch_add(1, Ordering::AcqRel);
    }

    /// Holds back what goes up (from whoever connects), and what goes down.
    pub fn hold(&self, up: bool, down: bool) {
        self.weather.holds_up.store(up, Ordering::Release);
        self.weather.holds_down.store(down, Ordering::Release);
    }

    /// Lets each piece come later.
    pub fn delay(&self, by: Duration) {
        self.weather.delay_ms.store(u64::try_from(by.as_millis()).unwrap(), Ordering::Release);
    }

    /// Lets only so many bytes through in each second, about.
    pub fn slow(&self, bytes_per_second: u64) {
        self.weather.piece.store(bytes_per_second / 50, Ordering::Release);
        self.delay(Duration::from_millis(20));
    }

    /// All is well again.
    pub fn heal(&self) {
        self.hold(false, false);
        self.delay(Duration::ZERO);
        self.weather.piece.store(0, Ordering::Release);
        self.weather.cut.store(false, Ordering::Release);
    }
}

/// Moves bytes one way for as long as the connection lives.
fn pump(mut from: TcpStream, mut into: TcpStream, weather: &Weather, up: bool, of: u64) {
    let _ = from.set_read_timeout(Some(LOOK_EVERY));
    let _ = into.set_nodelay(true);
    let is_dead = || weather.cuts.load(Ordering::Acquire) != of;
    let mut buffer = vec![0; 64 * 1024];
    while !is_dead() {
        let most = match weather.piece.load(Ordering::Acquire) {
            0 => buffer.len(),
            piece => buffer.len().min(usize::try_from(piece).unwrap()),
        };
        let read = match from.read(&mut buffer[..most]) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                continue;
            }
            Err(_) => break,
        };
        std::thread::sleep(Duration::from_millis(weather.delay_ms.load(Ordering::Acquire)));
        let holds = if up { &weather.holds_up } else { &weather.holds_down };
        while holds.load(Ordering::Acquire) && !is_dead() {
            std::thread::sleep(LOOK_EVERY);
        }
        if is_dead() || into.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = into.shutdown(Shutdown::Both);
}
