//! The self-load: starts the service, drives it with clients over loopback, measures, and leaves
//! everything as it was, so that it can be repeated.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::client::Client;
use crate::interrupt::Interrupt;
use crate::progress::Progress;
use crate::report::{Memory, Report, mebibytes};
use crate::service::Service;
use crate::store::Store;
use crate::tally::Tally;
use crate::worker::{Shared, Worker};

/// How often the memory is looked at.
const SAMPLE_EVERY: Duration = Duration::from_millis(50);
/// How long the process stays idle before the memory after the load is taken: by then the
/// allocator, which takes up to a second, has given back what is free.
const SETTLE: Duration = Duration::from_secs(2);

/// How to drive the service.
pub(crate) struct Load {
    /// For how long; an interrupt ends it earlier.
    pub(crate) duration: Duration,
    /// How many clients send requests at the same time.
    pub(crate) clients: u64,
    /// How many threads the runtime has; only for the report.
    pub(crate) threads: usize,
}

/// What one burst of load came to.
pub(crate) struct Burst {
    /// How long the clients sent requests.
    pub(crate) elapsed: Duration,
    /// The requests of all clients.
    pub(crate) tally: Tally,
    /// The highest values seen, each by itself.
    pub(crate) peak: Memory,
    /// Whether the user ended it.
    pub(crate) interrupted: bool,
}

/// Starts a service without documents on a free port of this machine, which nobody else reaches.
pub(crate) async fn start_service() -> io::Result<(Service, Arc<Store>)> {
    let store = Arc::new(Store::default());
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let service = Service::start(any_port, Arc::clone(&store)).await?;
    Ok((service, store))
}

impl Load {
    /// Drives a service of its own, from its start to its end.
    ///
    /// Calls `started` with the address of the service before the load begins.
    pub(crate) async fn run(
        &self,
        mut interrupt: Interrupt,
        started: impl FnOnce(SocketAddr) -> io::Result<()>,
    ) -> io::Result<Report> {
        let (service, store) = start_service().await?;
        started(service.address())?;
        let Burst { elapsed, tally, peak, .. } = self.burst(&service, &store, &mut interrupt).await?;
        tokio::time::sleep(SETTLE).await;
        let after = Memory::now();
        service.stop().await?;
        let (clients, threads) = (self.clients, self.threads);
        Ok(Report { elapsed, clients, threads, tally, peak, after })
    }

    /// Drives `service` once, and leaves its `store` without documents.
    pub(crate) async fn burst(&self, service: &Service, store: &Store, interrupt: &mut Interrupt) -> io::Result<Burst> {
        let shared = Arc::new(Shared::default());
        let workers = self.start_workers(service.address(), &shared).await?;
        let begin = Instant::now();
        let (peak, interrupted) = self.watch(begin, &shared, interrupt).await;
        // ordering: Relaxed, the flag publishes nothing.
        shared.stop.store(true, Ordering::Relaxed);
        let elapsed = begin.elapsed();

        let mut tally = Tally::new();
        for worker in workers {
            tally.add(worker.await.map_err(io::Error::other)?);
        }
        if store.len() != 0 {
            tally.fault(format!("{} documents are left", store.len()));
        }
        Ok(Burst { elapsed, tally, peak, interrupted })
    }

    /// Connects all clients first, so that the load begins with all of them.
    async fn start_workers(&self, address: SocketAddr, shared: &Arc<Shared>) -> io::Result<Vec<JoinHandle<Tally>>> {
        let mut clients = Vec::new();
        for _ in 0..self.clients {
            clients.push(Client::connect(address).await?);
        }
        let start = |(client, number)| {
            let shared = Arc::clone(shared);
            tokio::spawn(async move { Worker::new(client, number).run(&shared).await })
        };
        Ok(clients.into_iter().zip(0..).map(start).collect())
    }

    /// Samples the memory and shows the progress until the time is over or the user interrupts:
    /// the highest values, and whether it was the user.
    async fn watch(&self, begin: Instant, shared: &Shared, interrupt: &mut Interrupt) -> (Memory, bool) {
        let mut progress = Progress::new(self.duration);
        let mut ticks = tokio::time::interval(SAMPLE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut peak = Memory::default();
        let interrupted = loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = interrupt.wait() => break true,
            }
            let now = Memory::now();
            peak = peak.max(now);
            let elapsed = begin.elapsed();
            progress.show(elapsed, || {
                // ordering: Relaxed, a count to show.
                let requests = shared.requests.load(Ordering::Relaxed);
                let rate = requests as f64 / elapsed.as_secs_f64();
                let (live, committed) = (mebibytes(now.live), mebibytes(now.committed));
                format!("{rate:.0} requests/s, live {live}, committed {committed}")
            });
            if elapsed >= self.duration {
                break false;
            }
        };
        progress.finish();
        (peak, interrupted)
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use tokio::net::TcpListener;

    use super::*;

    /// What one worker says of a service whose every reply is `{}`, or that hangs up.
    async fn tally_of(hangs_up: bool) -> Tally {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let service = tokio::spawn(async move {
            if hangs_up {
                drop(listener.accept().await);
            } else {
                let router = Router::new().fallback(async || "{}");
                axum::serve(listener, router).await.expect("it serves");
            }
        });
        let shared = Arc::new(Shared::default());
        let client = Client::connect(address).await.expect("it accepts");
        let worker = tokio::spawn({
            let shared = Arc::clone(&shared);
            async move { Worker::new(client, 0).run(&shared).await }
        });
        while !worker.is_finished() && shared.requests.load(Ordering::Relaxed) < 100 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        shared.stop.store(true, Ordering::Relaxed);
        let tally = worker.await.expect("it does not panic");
        service.abort();
        tally
    }

    #[tokio::test]
    async fn wrong_replies_are_counted_as_errors() {
        let tally = tally_of(false).await;
        assert!(tally.latency.len() >= 100);
        assert_eq!(tally.errors, tally.latency.len());
        let first = tally.first_error.expect("there were errors");
        assert!(first.contains("/documents/c0000-0000"), "{first}");
        assert!(first.contains("status 200 OK, expected "), "{first}");
    }

    #[tokio::test]
    async fn lost_connection_ends_the_worker_with_one_error() {
        let tally = tally_of(true).await;
        assert_eq!(tally.errors, 1);
    }
}
