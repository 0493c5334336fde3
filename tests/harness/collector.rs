//! A collector of OpenTelemetry, made for tests: it takes what comes over HTTP, answers as it is told, and reads OTLP's messages
//! by the field numbers of opentelemetry-proto.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What is waited for at most.
const PATIENCE: Duration = Duration::from_secs(60);

/// A POST as it came.
#[derive(Clone, Debug)]
pub struct Post {
    pub path: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
    /// What it was answered.
    pub status: u16,
}

/// The collector. It ends with the process.
pub struct Collector {
    pub addr: SocketAddr,
    posts: Arc<Mutex<Vec<Post>>>,
    status: Arc<AtomicU16>,
}

/// In place of a status: never answer.
pub const SILENT: u16 = 0;

impl Collector {
    /// One that answers everything with this status.
    pub fn start(status: u16) -> Collector {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (posts, status) = (Arc::<Mutex<Vec<Post>>>::default(), Arc::new(AtomicU16::new(status)));
        let (to, answers) = (Arc::clone(&posts), Arc::clone(&status));
        std::thread::spawn(move || {
            let mut silent = Vec::new();
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                match answers.load(Ordering::SeqCst) {
                    SILENT => silent.push(stream),
                    status => drop(serve(stream, status).map(|post| to.lock().unwrap().push(post))),
                }
            }
        });
        Collector { addr, posts, status }
    }

    /// Answers with this status from now on.
    pub fn answer(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    /// As the setting has it.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Everything that came so far.
    pub fn posts(&self) -> Vec<Post> {
        self.posts.lock().unwrap().clone()
    }

    /// All spans that it took.
    pub fn spans(&self) -> Vec<Span> {
        let taken = self.posts().into_iter().filter(|post| post.path == "/v1/traces" && post.status == 200);
        taken.flat_map(|post| spans(&post.body)).collect()
    }

    /// The metrics of the last post of them.
    pub fn metrics(&self) -> Option<BTreeMap<String, Metric>> {
        self.posts().iter().rfind(|post| post.path == "/v1/metrics").map(|post| metrics(&post.body))
    }

    /// Waits until what came makes something of it.
    pub fn wait_for<R>(&self, what: &str, mut look: impl FnMut(&Collector) -> Option<R>) -> R {
        let begun = Instant::now();
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            assert!(begun.elapsed() < PATIENCE, "never: {what}; so far {:#?}", self.spans());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn serve(stream: TcpStream, status: u16) -> Option<Post> {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).ok()?;
    let mut words = line.split(' ');
    assert_eq!(words.next(), Some("POST"));
    let path = words.next()?.to_owned();
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok()?;
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':')?;
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let mut body = vec![0; headers["content-length"].parse().unwrap()];
    stream.read_exact(&mut body).ok()?;
    let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    stream.get_mut().write_all(answer.as_bytes()).ok()?;
    Some(Post { path, headers, body, status })
}

/// A value on the wire.
#[derive(Clone, Debug, PartialEq)]
enum Wire {
    Number(u64),
    Bytes(Vec<u8>),
}

/// The fields of a message, in order.
struct Fields(Vec<(u64, Wire)>);

impl Fields {
    fn of(mut bytes: &[u8]) -> Fields {
        fn varint(bytes: &mut &[u8]) -> u64 {
            let mut value = 0;
            for shift in 0.. {
                let byte = bytes[0];
                *bytes = &bytes[1..];
                value |= u64::from(byte & 0x7f) << (7 * shift);
                if byte < 0x80 {
                    break;
                }
            }
            value
        }
        fn front(bytes: &mut &[u8], length: usize) -> Vec<u8> {
            let (front, rest) = bytes.split_at(length);
            *bytes = rest;
            front.to_vec()
        }
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let tag = varint(&mut bytes);
            let value = match tag & 7 {
                0 => Wire::Number(varint(&mut bytes)),
                1 => Wire::Number(u64::from_le_bytes(front(&mut bytes, 8).try_into().unwrap())),
                2 => {
                    let length = usize::try_from(varint(&mut bytes)).unwrap();
                    Wire::Bytes(front(&mut bytes, length))
                }
                5 => Wire::Number(u64::from(u32::from_le_bytes(front(&mut bytes, 4).try_into().unwrap()))),
                other => panic!("wire type {other}"),
            };
            fields.push((tag >> 3, value));
        }
        Fields(fields)
    }

    fn all(&self, field: u64) -> impl Iterator<Item = &Wire> {
        self.0.iter().filter(move |(number, _)| *number == field).map(|(_, value)| value)
    }

    fn messages(&self, field: u64) -> impl Iterator<Item = Fields> {
        self.all(field).map(|value| match value {
            Wire::Bytes(bytes) => Fields::of(bytes),
            Wire::Number(number) => panic!("{number} is no message"),
        })
    }

    fn bytes(&self, field: u64) -> Vec<u8> {
        match self.all(field).next() {
            Some(Wire::Bytes(bytes)) => bytes.clone(),
            _ => Vec::new(),
        }
    }

    fn text(&self, field: u64) -> String {
        String::from_utf8(self.bytes(field)).unwrap()
    }

    fn number(&self, field: u64) -> Option<u64> {
        self.all(field).find_map(|value| if let Wire::Number(number) = value { Some(*number) } else { None })
    }

    fn packed(&self, field: u64) -> Vec<u64> {
        self.bytes(field).chunks_exact(8).map(|eight| u64::from_le_bytes(eight.try_into().unwrap())).collect()
    }

    /// `KeyValue`s as text.
    fn attributes(&self, field: u64) -> BTreeMap<String, String> {
        self.messages(field)
            .map(|pair| {
                let any = pair.messages(2).next().unwrap();
                (pair.text(1), any.number(3).map_or_else(|| any.text(1), |number| number.to_string()))
            })
            .collect()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A span as a collector sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    pub trace: String,
    pub id: String,
    pub parent: String,
    pub name: String,
    pub kind: u64,
    pub from: u64,
    pub until: u64,
    pub attributes: BTreeMap<String, String>,
    pub is_error: bool,
    pub flags: u64,
}

impl Span {
    /// An attribute; empty where it is not there.
    pub fn of(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}

/// The spans of an `ExportTraceServiceRequest`.
pub fn spans(body: &[u8]) -> Vec<Span> {
    let mut found = Vec::new();
    for resource in Fields::of(body).messages(1) {
        assert_eq!(resource.messages(1).next().unwrap().attributes(1)["service.name"], "keyward");
        for scope in resource.messages(2) {
            found.extend(scope.messages(2).map(|span| Span {
                trace: hex(&span.bytes(1)),
                id: hex(&span.bytes(2)),
                parent: hex(&span.bytes(4)),
                name: span.text(5),
                kind: span.number(6).unwrap(),
                from: span.number(7).unwrap(),
                until: span.number(8).unwrap(),
                attributes: span.attributes(9),
                is_error: span.messages(15).next().is_some_and(|status| status.number(3) == Some(2)),
                flags: span.number(16).unwrap(),
            }));
        }
    }
    found
}

/// A metric as a collector sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// `gauge`, `counter` or `histogram`.
    pub kind: &'static str,
    pub help: String,
    pub unit: String,
    pub points: Vec<Point>,
}

/// One series of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    pub labels: BTreeMap<String, String>,
    /// The value, or a histogram's sum.
    pub value: f64,
    /// Of a histogram: its bounds, and how many were in each bucket.
    pub buckets: (Vec<f64>, Vec<u64>),
}

/// The metrics of an `ExportMetricsServiceRequest`, by name.
pub fn metrics(body: &[u8]) -> BTreeMap<String, Metric> {
    let mut found = BTreeMap::new();
    for metric in Fields::of(body)
        .messages(1)
        .flat_map(|resource| resource.messages(2).collect::<Vec<_>>())
        .flat_map(|scope| scope.messages(2).collect::<Vec<_>>())
    {
        let (kind, data) = [(5, "gauge"), (7, "counter"), (9, "histogram")]
            .into_iter()
            .find_map(|(field, kind)| Some((kind, metric.messages(field).next()?)))
            .unwrap();
        if kind != "gauge" {
            assert_eq!(data.number(2), Some(2), "it counts from the start");
            assert_eq!(data.number(3).unwrap_or(1), 1, "it only grows");
        }
        let points = data.messages(1).map(|point| {
            assert!(point.number(2) <= point.number(3) && point.number(2) > Some(1 << 60), "times in nanoseconds");
            if kind == "histogram" {
                let counts = point.packed(6);
                assert_eq!(counts.iter().sum::<u64>(), point.number(4).unwrap());
                let bounds: Vec<f64> = point.packed(7).into_iter().map(f64::from_bits).collect();
                assert_eq!(bounds.len() + 1, counts.len());
                let value = f64::from_bits(point.number(5).unwrap());
                return Point { labels: point.attributes(9), value, buckets: (bounds, counts) };
            }
            let value = point.number(6).map_or_else(|| f64::from_bits(point.number(4).unwrap()), |whole| whole as f64);
            Point { labels: point.attributes(7), value, buckets: Default::default() }
        });
        let seen = Metric { kind, help: metric.text(2), unit: metric.text(3), points: points.collect() };
        assert!(found.insert(metric.text(1), seen).is_none(), "{} is there twice", metric.text(1));
    }
    found
}
