//! What the tests have in common: one dependency called `model`, and how it is called.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use egress::{Dependency, Egress, Policy};
use engine::outbound::{
    Attempt, Clocks, DependencyState, Outbound, Reply, ReplyBody, SendError, Sent,
};
use telemetry::metrics::Metrics;

use crate::server::Server;

/// So long that no clock of a test that is not about clocks runs out.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// So short that nobody minds waiting for it.
pub(crate) const SHORT: Duration = Duration::from_millis(50);

pub(crate) struct World {
    pub(crate) egress: Egress,
    metrics: Arc<Metrics>,
}

pub(crate) fn dependency(base: String) -> Dependency {
    Dependency { name: "model", base, in_flight_max: 8, connect: LONG, is_private_allowed: false }
}

impl World {
    pub(crate) fn new(server: &Server) -> World {
        World::with(dependency(format!("http://{}/v1", server.address)), Policy::default())
    }

    pub(crate) fn with(dependency: Dependency, policy: Policy) -> World {
        World::trusting(dependency, policy, &[])
    }

    pub(crate) fn trusting(dependency: Dependency, policy: Policy, roots: &[u8]) -> World {
        let metrics = Arc::new(Metrics::new().unwrap());
        let egress = Egress::new(&[dependency], policy, roots, &metrics).unwrap();
        World { egress, metrics }
    }

    pub(crate) async fn send(&self, attempt: Attempt) -> Result<Reply, SendError> {
        self.egress.send(attempt).await
    }

    /// Sends an attempt that must fail before there is a head.
    pub(crate) async fn failure(&self, attempt: Attempt) -> SendError {
        match self.send(attempt).await {
            Ok(reply) => panic!("there is an answer, with status {}", reply.status),
            Err(error) => error,
        }
    }

    /// Sends an attempt and reads the whole answer.
    pub(crate) async fn call(&self) -> Result<String, SendError> {
        let mut reply = self.send(attempt()).await?;
        read(&mut *reply.body).await
    }

    pub(crate) fn state(&self) -> DependencyState {
        self.egress.dependencies().remove(0)
    }

    pub(crate) fn failures(&self) -> u32 {
        self.state().failures
    }

    pub(crate) fn scraped(&self, line: &str) {
        let text = self.metrics.render();
        assert!(text.lines().any(|found| found == line), "{line}\nis not in\n{text}");
    }
}

pub(crate) fn attempt() -> Attempt {
    Attempt {
        dependency: "model",
        path: "/chat".to_owned(),
        headers: vec![("authorization", "Bearer swordfish".to_owned())],
        body: Bytes::from_static(b"{\"q\":1}"),
        clocks: Clocks { head: LONG, gap: LONG, deadline: Instant::now() + LONG },
        sent: Sent::default(),
        is_retry: false,
    }
}

pub(crate) fn clocked(head: Duration, gap: Duration, whole: Duration) -> Attempt {
    Attempt { clocks: Clocks { head, gap, deadline: Instant::now() + whole }, ..attempt() }
}

pub(crate) async fn read(body: &mut dyn ReplyBody) -> Result<String, SendError> {
    let mut text = Vec::new();
    while let Some(chunk) = body.chunk().await {
        text.extend_from_slice(&chunk?);
    }
    Ok(String::from_utf8(text).unwrap())
}
