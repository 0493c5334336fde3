//! Which requests are traced, and as part of which trace: W3C Trace Context (<https://www.w3.org/TR/trace-context/>).

use crate::outside::Entropy;

/// Names a trace; never all zero.
pub type TraceId = [u8; 16];
/// Names a span within its trace; never all zero.
pub type SpanId = [u8; 8];

/// Random bits of a trace's id by which it is chosen (Trace Context level 2, 7.3).
const RANDOM_BITS: u32 = 56;

/// What a caller says of the trace that its request belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parent {
    /// Its trace.
    pub trace: TraceId,
    /// Its span.
    pub span: SpanId,
    /// Whether it records it.
    pub is_sampled: bool,
}

impl Parent {
    /// Reads a `traceparent`; `None` where it is none, in which case a new trace begins (3.2.2).
    pub fn parse(text: &str) -> Option<Parent> {
        let mut parts = text.trim().split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let [version] = hex::<1>(version)?;
        let [flags] = hex::<1>(flags)?;
        // Later versions may have more parts behind these; ff is none.
        if version == 0xff || (version == 0 && parts.next().is_some()) {
            return None;
        }
        let (trace, span) = (hex::<16>(trace)?, hex::<8>(span)?);
        (trace != [0; 16] && span != [0; 8]).then_some(Parent { trace, span, is_sampled: flags & 1 == 1 })
    }
}

/// So many bytes as lower-case hexadecimal digits.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// An id as it is written.
pub fn spell(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Draws an id.
pub fn draw<const N: usize>(entropy: &Entropy) -> [u8; N] {
    let mut id = [0; N];
    entropy.fill(&mut id);
    if id == [0; N] {
        id[N - 1] = 1;
    }
    id
}

/// A ratio as the smallest random part of a trace's id that is traced: all services that choose in this way choose the same
/// traces (OpenTelemetry's "consistent probability sampling").
pub fn threshold(ratio: f64) -> u64 {
    let all = (1_u64 << RANDOM_BITS) as f64;
    // A number beyond the range becomes its nearest end.
    ((1.0 - ratio.clamp(0.0, 1.0)) * all) as u64
}

/// Whether a trace that begins here is traced.
pub fn is_chosen(trace: &TraceId, threshold: u64) -> bool {
    let mut low = [0; 8];
    low.copy_from_slice(&trace[8..]);
    u64::from_be_bytes(low) & ((1 << RANDOM_BITS) - 1) >= threshold
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of the recommendation, and everything it says makes a header none.
    #[test]
    fn a_traceparent_is_read_strictly() {
        let own = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let parent = Parent::parse(own).expect("it is one");
        assert_eq!((spell(&parent.trace).as_str(), spell(&parent.span).as_str()), (&own[3..35], &own[36..52]));
        assert!(parent.is_sampled);
        for (text, sampled) in [
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", false),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03", true),
            ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-the-future-will-be-like", true),
        ] {
            assert_eq!(Parent::parse(text).map(|parent| parent.is_sampled), Some(sampled), "{text}");
        }
        for text in [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            "00-4bf92f3577b34da6a3ce929d0e0e47é-00f067aa0ba902b7-01",
        ] {
            assert_eq!(Parent::parse(text), None, "{text}");
        }
    }

    /// A ratio chooses its part of all traces, none of them at 0, all at 1, and whoever is chosen at a smaller ratio is
    /// chosen at a larger one.
    #[test]
    fn a_ratio_chooses_its_part() {
        let entropy = Entropy::seeded(5);
        let traces: Vec<TraceId> = (0..20_000).map(|_| draw(&entropy)).collect();
        let chosen = |ratio| traces.iter().map(|trace| is_chosen(trace, threshold(ratio))).collect::<Vec<_>>();
        let count = |chosen: &[bool]| chosen.iter().filter(|is| **is).count();
        assert_eq!((count(&chosen(0.0)), count(&chosen(1.0))), (0, traces.len()));
        let (tenth, half) = (chosen(0.1), chosen(0.5));
        assert!((1_800..2_200).contains(&count(&tenth)) && (9_700..10_300).contains(&count(&half)));
        assert!(tenth.iter().zip(&half).all(|(small, large)| !small || *large));
        assert_eq!((threshold(f64::NAN), threshold(7.0)), (0, 0));
    }
}
