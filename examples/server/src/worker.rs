//! What one client of the load does: a mix of requests on documents of its own, each reply
//! checked against what the client knows it must be.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::client::{Client, Reply};
use crate::document::{CITIES, Random, document, token};
use crate::tally::Tally;

/// How many documents a client keeps, once it has put so many.
const DOCUMENTS: usize = 500;
/// Documents asked for per page.
const PAGE: usize = 20;

/// What all clients share with the one who started them.
#[derive(Default)]
pub(crate) struct Shared {
    /// Set when the clients shall stop.
    pub(crate) stop: AtomicBool,
    /// Requests answered so far.
    pub(crate) requests: AtomicU64,
}

/// One client with its documents.
pub(crate) struct Worker {
    client: Client,
    /// First part of the ids of this client's documents. No other client touches these.
    prefix: String,
    random: Random,
    /// The seed of each document, by the serial number in its id.
    documents: BTreeMap<u64, u64>,
    next_serial: u64,
    tally: Tally,
}

impl Worker {
    /// Client `number`, without documents.
    pub(crate) fn new(client: Client, number: u64) -> Self {
        Self {
            client,
            prefix: format!("c{number:04}-"),
            random: Random::new(number),
            documents: BTreeMap::new(),
            next_serial: 0,
            tally: Tally::new(),
        }
    }

    /// Sends requests until `shared.stop`, then deletes the documents and closes the connection.
    pub(crate) async fn run(mut self, shared: &Shared) -> Tally {
        // ordering: Relaxed, the flag publishes nothing; it only has to be seen some time.
        while !shared.stop.load(Ordering::Relaxed) && !self.client.is_broken() {
            if let Err(reason) = self.step().await {
                self.tally.fault(reason);
            }
            // ordering: Relaxed, a count for the progress line.
            shared.requests.fetch_add(1, Ordering::Relaxed);
        }
        while let Some((serial, _)) = self.documents.pop_first() {
            if self.client.is_broken() {
                break;
            }
            // Not part of the measured load: sent without taking the time.
            let path = self.path(serial);
            let reply = self.client.send(Method::DELETE, &path, Vec::new()).await;
            let checked = reply.and_then(|reply| expect(&reply, StatusCode::NO_CONTENT));
            if let Err(reason) = checked {
                self.tally.fault(format!("DELETE {path}: {reason}"));
            }
        }
        self.client.close().await;
        self.tally
    }

    /// One request, of a random kind. The shares are in 1/1000.
    async fn step(&mut self) -> Result<(), String> {
        let own = self.pick_own();
        match (self.random.below(1000), own) {
            (0..300, _) if self.documents.len() < DOCUMENTS => self.put_new().await,
            (0..300, Some(serial)) => self.put_again(serial).await,
            (300..400, Some(serial)) => self.delete(serial).await,
            (400..410, _) => self.get_unknown().await,
            (410..415, _) => self.put_malformed().await,
            (415..445, Some(serial)) => self.list(serial).await,
            (445..455, _) => self.search_city().await,
            (455..457, Some(serial)) => self.search_token(serial).await,
            (_, Some(serial)) => self.get(serial).await,
            (_, None) => self.put_new().await,
        }
    }

    /// A random document of this client.
    fn pick_own(&mut self) -> Option<u64> {
        let oldest = *self.documents.first_key_value()?.0;
        let span = usize::try_from(self.next_serial - oldest).ok()?;
        let from = oldest + self.random.below(span) as u64;
        self.documents.range(from..).next().map(|(serial, _)| *serial)
    }

    fn id(&self, serial: u64) -> String {
        format!("{}{serial:012}", self.prefix)
    }

    fn path(&self, serial: u64) -> String {
        format!("/documents/{}", self.id(serial))
    }

    /// Sends a request, takes the time, and has `check` look at the reply. The reason in an error
    /// names the request.
    async fn request(
        &mut self,
        method: Method,
        path: &str,
        body: Vec<u8>,
        check: impl FnOnce(&Reply) -> Result<(), String>,
    ) -> Result<(), String> {
        let begin = Instant::now();
        let reply = self.client.send(method.clone(), path, body).await;
        self.tally.record(begin.elapsed());
        reply.and_then(|reply| check(&reply)).map_err(|reason| format!("{method} {path}: {reason}"))
    }

    async fn put_new(&mut self) -> Result<(), String> {
        let serial = self.next_serial;
        self.next_serial += 1;
        self.put(serial, StatusCode::CREATED).await
    }

    async fn put_again(&mut self, serial: u64) -> Result<(), String> {
        self.put(serial, StatusCode::OK).await
    }

    async fn put(&mut self, serial: u64, status: StatusCode) -> Result<(), String> {
        let seed = self.random.next();
        let body = document(seed).to_string().into_bytes();
        let answer = json!({ "id": self.id(serial), "created": status == StatusCode::CREATED });
        let check = |reply: &Reply| expect_json(reply, status, &answer);
        self.request(Method::PUT, &self.path(serial), body, check).await?;
        self.documents.insert(serial, seed);
        Ok(())
    }

    async fn get(&mut self, serial: u64) -> Result<(), String> {
        let expected = document(self.documents[&serial]);
        let check = |reply: &Reply| expect_json(reply, StatusCode::OK, &expected);
        self.request(Method::GET, &self.path(serial), Vec::new(), check).await
    }

    async fn delete(&mut self, serial: u64) -> Result<(), String> {
        let check = |reply: &Reply| expect(reply, StatusCode::NO_CONTENT);
        self.request(Method::DELETE, &self.path(serial), Vec::new(), check).await?;
        self.documents.remove(&serial);
        Ok(())
    }

    async fn get_unknown(&mut self) -> Result<(), String> {
        let path = self.path(self.next_serial);
        let check = |reply: &Reply| expect_refusal(reply, StatusCode::NOT_FOUND);
        self.request(Method::GET, &path, Vec::new(), check).await
    }

    async fn put_malformed(&mut self) -> Result<(), String> {
        let path = self.path(self.next_serial);
        let check = |reply: &Reply| expect_refusal(reply, StatusCode::BAD_REQUEST);
        self.request(Method::PUT, &path, br#"{"text": "no end"#.to_vec(), check).await
    }

    /// The page after an own document has all the own documents that follow it, or a whole page
    /// of them.
    async fn list(&mut self, serial: u64) -> Result<(), String> {
        let path = format!("/documents?limit={PAGE}&after={}", self.id(serial));
        let following = self.documents.range(serial + 1..).take(PAGE);
        let expected: Vec<Value> =
            following.map(|(serial, seed)| json!({ "id": self.id(*serial), "document": document(*seed) })).collect();
        let prefix = self.prefix.clone();
        let check = |reply: &Reply| {
            let mut entries = page(reply)?;
            entries.retain(|entry| entry["id"].as_str().is_some_and(|id| id.starts_with(&prefix)));
            if entries == expected { Ok(()) } else { Err("other documents than expected".into()) }
        };
        self.request(Method::GET, &path, Vec::new(), check).await
    }

    async fn search_city(&mut self) -> Result<(), String> {
        let city = self.random.pick(&CITIES);
        let path = format!("/search?limit={PAGE}&field=city&text={city}");
        let check = |reply: &Reply| {
            let fits = |entry: &Value| entry["document"]["city"] == city;
            if page(reply)?.iter().all(fits) { Ok(()) } else { Err("a wrong city".into()) }
        };
        self.request(Method::GET, &path, Vec::new(), check).await
    }

    /// Walks through every document of the service to find the one that has the token.
    async fn search_token(&mut self, serial: u64) -> Result<(), String> {
        let seed = self.documents[&serial];
        let path = format!("/search?limit={PAGE}&field=token&text={}", token(seed));
        let expected = [json!({ "id": self.id(serial), "document": document(seed) })];
        let check = |reply: &Reply| {
            let found = page(reply)?;
            if found == expected { Ok(()) } else { Err(format!("{} found, not 1", found.len())) }
        };
        self.request(Method::GET, &path, Vec::new(), check).await
    }
}

fn expect(reply: &Reply, status: StatusCode) -> Result<(), String> {
    if reply.status == status {
        return Ok(());
    }
    let body = String::from_utf8_lossy(&reply.body);
    let body: String = body.chars().take(200).collect();
    Err(format!("status {}, expected {status}: {body}", reply.status))
}

fn json_of(reply: &Reply) -> Result<Value, String> {
    serde_json::from_slice(&reply.body).map_err(|error| format!("the reply is not JSON: {error}"))
}

fn expect_json(reply: &Reply, status: StatusCode, expected: &Value) -> Result<(), String> {
    expect(reply, status)?;
    if json_of(reply)? == *expected { Ok(()) } else { Err("other content than expected".into()) }
}

fn expect_refusal(reply: &Reply, status: StatusCode) -> Result<(), String> {
    expect(reply, status)?;
    if json_of(reply)?["error"].is_string() { Ok(()) } else { Err("no reason given".into()) }
}

/// The entries of a page: not more than asked for, and in the order of their ids.
fn page(reply: &Reply) -> Result<Vec<Value>, String> {
    expect(reply, StatusCode::OK)?;
    let mut reply = json_of(reply)?;
    let Value::Array(entries) = reply["documents"].take() else {
        return Err("no documents in the reply".into());
    };
    let sorted = entries.is_sorted_by(|a, b| a["id"].as_str() < b["id"].as_str());
    if entries.len() > PAGE || !sorted {
        return Err("the page is too long or out of order".into());
    }
    Ok(entries)
}
