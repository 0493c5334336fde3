//! Every fuzz target over its corpus, and over seeded mutations of it, on stable and in seconds. A finding of the real
//! fuzzer joins the corpus and is a test from then on.

use keyward_fuzz::TARGETS;
use keyward_fuzz::mutate::{run_corpus, run_mutations};

#[test]
fn every_corpus_is_read_without_a_broken_promise() {
    for target in TARGETS {
        run_corpus(target);
    }
}

#[test]
fn mutations_of_every_corpus_are_read_without_a_broken_promise() {
    std::thread::scope(|scope| {
        for target in TARGETS {
            scope.spawn(|| run_mutations(target, 0x6b65_7977));
        }
    });
}
