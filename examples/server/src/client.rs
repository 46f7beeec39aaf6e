//! One HTTP client of the load: a connection that is kept, one request at a time.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::HOST;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// A reply that takes longer than this counts as missing.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A connection to the service.
pub(crate) struct Client {
    host: String,
    sender: SendRequest<Full<Bytes>>,
    connection: JoinHandle<()>,
    broken: bool,
}

/// What the service answered.
pub(crate) struct Reply {
    /// The status.
    pub(crate) status: StatusCode,
    /// The whole body.
    pub(crate) body: Bytes,
}

impl Client {
    /// Connects to the service at `address`.
    pub(crate) async fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let connection = tokio::spawn(async move {
            // An error here also reaches the request that it breaks.
            let _ = connection.await;
        });
        Ok(Self { host: address.to_string(), sender, connection, broken: false })
    }

    /// Sends one request and reads the whole reply, or says why there is none. After that the
    /// client [is broken](Self::is_broken).
    pub(crate) async fn send(&mut self, method: Method, path: &str, body: Vec<u8>) -> Result<Reply, String> {
        let exchange = async {
            self.sender.ready().await.map_err(|error| error.to_string())?;
            let request = Request::builder()
                .method(method)
                .uri(path)
                .header(HOST, &self.host)
                .body(Full::from(body))
                .map_err(|error| error.to_string())?;
            let reply = self.sender.send_request(request).await;
            let (head, body) = reply.map_err(|error| error.to_string())?.into_parts();
            let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
            Ok(Reply { status: head.status, body })
        };
        let result = tokio::time::timeout(TIMEOUT, exchange)
            .await
            .unwrap_or_else(|_elapsed| Err(format!("no reply in {} s", TIMEOUT.as_secs())));
        self.broken |= result.is_err();
        result
    }

    /// Whether the connection cannot be used any more.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Closes the connection and waits until it is closed.
    pub(crate) async fn close(self) {
        drop(self.sender);
        if self.broken {
            self.connection.abort();
        }
        // A connection that failed has ended all the same.
        let _ = self.connection.await;
    }
}
