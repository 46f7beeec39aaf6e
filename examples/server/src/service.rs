//! The HTTP service: routes over the store, errors as JSON, a start and an orderly end.
//!
//! | request                                          | reply                                  |
//! |--------------------------------------------------|----------------------------------------|
//! | `PUT /documents/{id}` with a JSON object         | 201 or 200, `{"id", "created"}`        |
//! | `GET /documents/{id}`                            | 200, the document                      |
//! | `DELETE /documents/{id}`                         | 204                                    |
//! | `GET /documents?after=ID&limit=N`                | 200, `{"documents": [...], "next"}`    |
//! | `GET /search?text=T&field=F&after=ID&limit=N`    | 200, the same                          |
//! | `GET /metrics`                                   | 200, the allocator's figures, as text  |
//!
//! What a client does wrong is answered with a 4xx status and `{"error": "the reason"}`.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::ListenerExt;
use axum::{Json, Router};
use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::store::{Page, Store};

/// Longest body of a request, in bytes. Larger ones are answered with 413.
const BODY_LIMIT: usize = 1 << 20;
/// How much of a body that is too large is read all the same, in bytes.
const DISCARD_LIMIT: usize = 64 << 20;
/// Longest id of a document, in bytes.
const ID_LIMIT: usize = 256;
/// Documents on a page when the client does not say.
const PAGE_DEFAULT: usize = 100;
/// Most documents on a page.
const PAGE_LIMIT: usize = 1000;
/// How long the end of the service waits for requests that are under way.
const GRACE: Duration = Duration::from_secs(5);

/// A service that is accepting connections.
pub(crate) struct Service {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<io::Result<()>>,
}

impl Service {
    /// Listens on `address` (port 0: any free one) and serves `store` from then on.
    pub(crate) async fn start(address: SocketAddr, store: Arc<Store>) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let listener = listener.tap_io(|stream| {
            // Small replies must not wait for a full packet. If it fails they are only slower.
            let _ = stream.set_nodelay(true);
        });
        let (stop, stopped) = oneshot::channel::<()>();
        let serve = axum::serve(listener, router(store)).with_graceful_shutdown(async {
            // An error means that the sender is gone, which is a reason to stop as well.
            let _ = stopped.await;
        });
        let task = tokio::spawn(serve.into_future());
        Ok(Self { address, stop, task })
    }

    /// Where the service listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts no more connections and waits until the present requests are answered, though no
    /// longer than [`GRACE`]: a client that never sends its whole request must not hold the
    /// process. What is left then ends with the runtime.
    pub(crate) async fn stop(self) -> io::Result<()> {
        // An error means that the service has ended already; the task says why.
        let _ = self.stop.send(());
        match tokio::time::timeout(GRACE, self.task).await {
            Ok(Ok(result)) => result,
            Ok(Err(panicked)) => Err(io::Error::other(panicked)),
            Err(_elapsed) => {
                let seconds = GRACE.as_secs();
                eprintln!("magalloc-server: connections still busy after {seconds} s are cut");
                Ok(())
            }
        }
    }
}

fn router(store: Arc<Store>) -> Router {
    let document = get(get_document).put(put_document).delete(delete_document);
    Router::new()
        .route("/documents", get(list))
        .route("/documents/{id}", document)
        .route("/search", get(search))
        .route("/metrics", get(metrics))
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        .with_state(store)
}

/// What a client did wrong.
struct Refusal {
    status: StatusCode,
    reason: String,
}

impl Refusal {
    fn new(status: StatusCode, reason: impl Into<String>) -> Self {
        Self { status, reason: reason.into() }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(json!({ "error": self.reason }))).into_response()
    }
}

impl From<PathRejection> for Refusal {
    fn from(rejection: PathRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl From<QueryRejection> for Refusal {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

/// Reads the whole body of a request. One that is too large is read on, without keeping it: a
/// client that is still sending when the connection closes often does not see the reply.
async fn read_body(mut body: Body) -> Result<Vec<u8>, Refusal> {
    let mut kept = Vec::new();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, format!("the body is cut: {error}")))?;
        // Frames without data are trailers, which mean nothing here.
        let Ok(data) = frame.into_data() else {
            continue;
        };
        length += data.len();
        if length <= BODY_LIMIT {
            kept.extend_from_slice(&data);
        } else if length > DISCARD_LIMIT {
            break;
        }
    }
    if length > BODY_LIMIT {
        let reason = format!("the body is larger than {BODY_LIMIT} bytes");
        return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, reason));
    }
    Ok(kept)
}

/// The id of a path, or the reason why it is none.
type PathId = Result<Path<String>, PathRejection>;

fn checked_id(path: PathId) -> Result<String, Refusal> {
    let Path(id) = path?;
    if id.len() > ID_LIMIT {
        let reason = format!("the id is longer than {ID_LIMIT} bytes");
        return Err(Refusal::new(StatusCode::BAD_REQUEST, reason));
    }
    Ok(id)
}

fn unknown_id(id: &str) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, format!("no document has the id {id:?}"))
}

async fn put_document(
    State(store): State<Arc<Store>>,
    path: PathId,
    body: Body,
) -> Result<(StatusCode, Json<Value>), Refusal> {
    let id = checked_id(path)?;
    let document: Value = serde_json::from_slice(&read_body(body).await?)
        .map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, format!("the body is not JSON: {error}")))?;
    if !document.is_object() {
        let reason = "a document must be a JSON object";
        return Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, reason));
    }
    let created = store.put(&id, document);
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(json!({ "id": id, "created": created }))))
}

async fn get_document(State(store): State<Arc<Store>>, path: PathId) -> Result<Json<Arc<Value>>, Refusal> {
    let id = checked_id(path)?;
    store.get(&id).map(Json).ok_or_else(|| unknown_id(&id))
}

async fn delete_document(State(store): State<Arc<Store>>, path: PathId) -> Result<StatusCode, Refusal> {
    let id = checked_id(path)?;
    if store.delete(&id) { Ok(StatusCode::NO_CONTENT) } else { Err(unknown_id(&id)) }
}

#[derive(Deserialize)]
struct ListQuery {
    after: Option<String>,
    limit: Option<usize>,
}

async fn list(
    State(store): State<Arc<Store>>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<Page>, Refusal> {
    let Query(query) = query?;
    let limit = checked_limit(query.limit)?;
    Ok(Json(store.list(query.after.as_deref(), limit)))
}

#[derive(Deserialize)]
struct SearchQuery {
    text: String,
    field: Option<String>,
    after: Option<String>,
    limit: Option<usize>,
}

async fn search(
    State(store): State<Arc<Store>>,
    query: Result<Query<SearchQuery>, QueryRejection>,
) -> Result<Json<Page>, Refusal> {
    let Query(query) = query?;
    let limit = checked_limit(query.limit)?;
    if query.text.is_empty() {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "the text to search for is empty"));
    }
    let (field, after) = (query.field.as_deref(), query.after.as_deref());
    Ok(Json(store.search(&query.text, field, after, limit)))
}

/// What the allocator holds, for Prometheus.
async fn metrics() -> impl IntoResponse {
    let text = magalloc::stats().metrics(&magalloc::class_stats()).to_string();
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text)
}

fn checked_limit(limit: Option<usize>) -> Result<usize, Refusal> {
    let limit = limit.unwrap_or(PAGE_DEFAULT);
    if !(1..=PAGE_LIMIT).contains(&limit) {
        let reason = format!("limit must be from 1 to {PAGE_LIMIT}");
        return Err(Refusal::new(StatusCode::BAD_REQUEST, reason));
    }
    Ok(limit)
}

async fn unknown_route(uri: Uri) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, format!("there is nothing at {}", uri.path()))
}

async fn wrong_method(method: Method, uri: Uri) -> Refusal {
    let reason = format!("{method} is not possible at {}", uri.path());
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, reason)
}
