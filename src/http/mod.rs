//! HTTP: the only place that knows hyper, and the operator's socket.
//!
//! [`sockets`] opens what is listened on. [`listen`] accepts connections within limits and drains them at the end.
//! `exchange` turns one request into a call of an operation and its answer into a reply. [`service_routes`] answers what is
//! no operation: liveness, health, the API's documents. [`client_ip`] says who is calling. [`limits`] can change while it
//! runs. [`observe`] is the address of metrics alone, [`admin`] the operator's socket. [`link`] asks another node, [`peers`]
//! answers them; [`forward`] hands requests on, [`parcels`] events.
//!
//! What an operation does, which it is and who may call it stay behind [`Application`]; nothing in here knows a JSON
//! shape of the API or a permission.

mod accept;
pub mod admin;
mod bell;
mod bodies;
pub mod client_ip;
mod exchange;
pub mod forward;
pub mod limits;
pub mod link;
pub mod listen;
pub mod observe;
pub mod parcels;
mod peer_routes;
pub mod peers;
mod reply_body;
pub mod service_routes;
pub mod sockets;
pub mod streams;

use std::pin::Pin;
use std::sync::Arc;

use crate::api::operation::Pace;
use crate::api::wire::{Inbound, Outbound};
use crate::app::Services;
use crate::health::{self, Fit, Reason};
use crate::metrics::Metrics;
use crate::otlp::trace::Tracer;

/// An answer in the making. Unless its operation [stops](Application::stops) it is never dropped half-way: whoever stops
/// waiting for it lets it run to its end elsewhere.
pub type Answer = Pin<Box<dyn Future<Output = Outbound> + Send>>;

/// What stands behind HTTP: the operations. Its second implementer is the HTTP layer's own test.
pub trait Application: Send + Sync + 'static {
    /// One of its operations.
    type Operation: Copy + Send + Sync + 'static;

    /// The operation at exactly this path, such as `/v2/keys.verifyKey`.
    fn find(&self, path: &str) -> Option<Self::Operation>;

    /// Whether the operation only looks something up and bounds its own time: then no deadline holds for its answer, which is
    /// dropped when nobody waits for it any more.
    fn stops(&self, operation: Self::Operation) -> bool;

    /// Begins to answer a request. A panic in it becomes a 500.
    fn respond(&self, operation: Self::Operation, inbound: Inbound) -> Answer;

    /// The operation's number among all of them, for its counters.
    fn number(&self, operation: Self::Operation) -> usize;

    /// Why it does not keep all that it promises. Requests are taken all the same.
    fn degraded(&self) -> Vec<Reason>;

    /// What it is good for.
    fn fit(&self) -> Fit;

    /// Its counters.
    fn metrics(&self) -> &Metrics;

    /// What begins traces, where requests are traced at all.
    fn tracer(&self) -> Option<&Arc<Tracer>>;

    /// All its metrics, as Prometheus reads them.
    fn exposition(&self) -> Pin<Box<dyn Future<Output = String> + Send>>;
}

/// The operations of this program, on its storage, and what traces requests for them.
pub struct Api(pub Arc<Services>, pub Option<Arc<Tracer>>);

impl Application for Api {
    type Operation = (usize, &'static crate::api::Entry);

    fn find(&self, path: &str) -> Option<Self::Operation> {
        crate::api::find_numbered(path)
    }

    fn stops(&self, (_, operation): Self::Operation) -> bool {
        operation.pace == Pace::Stops
    }

    fn respond(&self, (_, operation): Self::Operation, inbound: Inbound) -> Answer {
        crate::api::respond(Arc::clone(&self.0), operation, inbound)
    }

    fn number(&self, (number, _): Self::Operation) -> usize {
        number
    }

    fn degraded(&self) -> Vec<Reason> {
        health::reasons(&self.0)
    }

    fn fit(&self) -> Fit {
        health::fit(&self.0)
    }

    fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    fn tracer(&self) -> Option<&Arc<Tracer>> {
        self.1.as_ref()
    }

    fn exposition(&self) -> Pin<Box<dyn Future<Output = String> + Send>> {
        Box::pin(Metrics::scrape(Arc::clone(&self.0)))
    }
}

#[cfg(test)]
mod tests;
