//! What went wrong in DataFusion, told by kind: an error's words never decide its code (AN-ERR-15).

use std::error::Error;

use datafusion::arrow::error::ArrowError;
use datafusion::common::DataFusionError;

use crate::error::Refusal;

/// A refusal on its way through DataFusion: what a kernel or a scan found wrong keeps its kind and its words.
impl From<Refusal> for DataFusionError {
    fn from(refusal: Refusal) -> DataFusionError {
        DataFusionError::External(Box::new(refusal))
    }
}

/// What an error means for whoever asked. `memory` is the refusal for want of memory.
///
/// Errors that only a bug of ours can make are told in general words, since their own would show the plan; they are logged.
pub fn refusal(error: &DataFusionError, memory: impl Fn() -> Refusal + Copy) -> Refusal {
    match error {
        DataFusionError::ResourcesExhausted(_) => memory(),
        DataFusionError::External(cause) => foreign(&**cause, memory).unwrap_or_else(|| bug(error)),
        DataFusionError::ArrowError(cause, _) => arrow(cause, memory).unwrap_or_else(|| bug(error)),
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => refusal(inner, memory),
        DataFusionError::Shared(inner) => refusal(inner, memory),
        DataFusionError::Collection(all) => all.first().map_or_else(|| bug(error), |first| refusal(first, memory)),
        DataFusionError::ParquetError(cause) => match &**cause {
            datafusion::parquet::errors::ParquetError::External(cause) => {
                foreign(&**cause, memory).unwrap_or_else(|| unreadable(error))
            }
            _ => unreadable(error),
        },
        DataFusionError::ObjectStore(_) | DataFusionError::IoError(_) => unreadable(error),
        DataFusionError::ExecutionJoin(join) if join.is_cancelled() => Refusal::Cancelled,
        _ => bug(error),
    }
}

/// Whether reading files failed: where a condition is computed while they are read, that may be what it says.
pub fn is_of_files(error: &DataFusionError) -> bool {
    match error {
        DataFusionError::ParquetError(_) => true,
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => is_of_files(inner),
        DataFusionError::Shared(inner) => is_of_files(inner),
        DataFusionError::Collection(all) => all.first().is_some_and(is_of_files),
        DataFusionError::External(cause) => cause.downcast_ref::<DataFusionError>().is_some_and(is_of_files),
        _ => false,
    }
}

/// What came from elsewhere: a refusal, or another layer's error around one.
fn foreign(cause: &(dyn Error + 'static), memory: impl Fn() -> Refusal + Copy) -> Option<Refusal> {
    if let Some(refusal) = cause.downcast_ref::<Refusal>() {
        return Some(refusal.clone());
    }
    if let Some(inner) = cause.downcast_ref::<DataFusionError>() {
        return Some(refusal(inner, memory));
    }
    arrow(cause.downcast_ref::<ArrowError>()?, memory)
}

/// What arithmetic and conversions say of values.
fn arrow(error: &ArrowError, memory: impl Fn() -> Refusal + Copy) -> Option<Refusal> {
    match error {
        ArrowError::ExternalError(cause) => foreign(&**cause, memory),
        ArrowError::DivideByZero => Some(Refusal::query("Division by zero.")),
        ArrowError::ArithmeticOverflow(_) => {
            Some(Refusal::query("A number is too large for the type that it is computed in."))
        }
        ArrowError::OffsetOverflowError(_) | ArrowError::MemoryError(_) => Some(memory()),
        _ => None,
    }
}

fn unreadable(error: &DataFusionError) -> Refusal {
    tracing::error!(%error, "events cannot be read");
    Refusal::Unavailable
}

/// An error that nothing a client says should lead to.
fn bug(error: &DataFusionError) -> Refusal {
    tracing::error!(%error, "a query failed in a way that nobody foresaw; its client was told to ask differently");
    unforeseen()
}

/// The words for what nobody foresaw.
pub fn unforeseen() -> Refusal {
    Refusal::query("The query cannot be computed in this form. Please ask it in another one, or in several steps.")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn memory() -> Refusal {
        Refusal::Memory("memory".to_owned())
    }

    /// AN-ERR-15: the kind decides, however deep it is wrapped and whatever its words are; nothing of a plan is shown.
    #[test]
    fn the_kind_decides_and_not_the_words() {
        let said = Refusal::Rows("too many".to_owned());
        let within = |error: DataFusionError| {
            DataFusionError::Shared(Arc::new(DataFusionError::Context("at __c1".to_owned(), Box::new(error))))
        };
        let unforeseen = unforeseen();
        for (error, wanted) in [
            (DataFusionError::ResourcesExhausted("x".to_owned()), memory()),
            (DataFusionError::from(said.clone()), said.clone()),
            (
                DataFusionError::ArrowError(
                    Box::new(ArrowError::ExternalError(Box::new(DataFusionError::from(said.clone())))),
                    None,
                ),
                said.clone(),
            ),
            (
                DataFusionError::ArrowError(Box::new(ArrowError::DivideByZero), None),
                Refusal::query("Division by zero."),
            ),
            (DataFusionError::Execution("memory quota timeout of __c1".to_owned()), unforeseen.clone()),
            (DataFusionError::Plan("No field named c1".to_owned()), unforeseen.clone()),
            (DataFusionError::Internal("x".to_owned()), unforeseen),
            (DataFusionError::IoError(std::io::Error::other("memory")), Refusal::Unavailable),
            (DataFusionError::Collection(vec![DataFusionError::from(said.clone())]), said),
        ] {
            let text = error.to_string();
            assert_eq!(refusal(&error, memory), wanted, "{text}");
            assert_eq!(refusal(&within(error), memory), wanted, "{text}");
        }
    }
}
