//! The service over plain sockets.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::{Value, json};

use crate::PATIENCE;
use crate::process::serve;

/// The limit that the service states for a body.
const BODY_LIMIT: usize = 1 << 20;

/// One request on a connection of its own: the head of the reply, and its body.
fn exchange(address: SocketAddr, method: &str, path: &str, body: &[u8]) -> (String, String) {
    let mut stream = TcpStream::connect(address).expect("the service accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("the timeout is not zero");
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
         Content-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).expect("the head is sent");
    stream.write_all(body).expect("the body is sent");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).expect("the reply is read");
    let (head, body) = reply.split_once("\r\n\r\n").expect("a head, then a body");
    (head.into(), body.into())
}

/// One request: the status, and the JSON of the body if there is one.
pub(crate) fn request(address: SocketAddr, method: &str, path: &str, body: &[u8]) -> (u16, Value) {
    let (head, body) = exchange(address, method, path, body);
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let json = match body.as_str() {
        "" => Value::Null,
        body => serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body:?}")),
    };
    (status.expect("a status"), json)
}

/// The ids on a page.
pub(crate) fn ids(page: &Value) -> Vec<&str> {
    let documents = page["documents"].as_array().expect("a page has documents");
    documents.iter().map(|entry| entry["id"].as_str().expect("an id")).collect()
}

/// The request is refused with `status` and a reason that has `part`.
#[track_caller]
fn assert_refused(reply: &(u16, Value), status: u16, part: &str) {
    let reason = reply.1["error"].as_str().unwrap_or_else(|| panic!("no reason in {reply:?}"));
    assert_eq!(reply.0, status, "{reason}");
    assert!(reason.contains(part), "{part:?} is not in {reason:?}");
}

#[test]
fn metrics_tell_what_documents_take() {
    let (_process, address, _stdout) = serve();
    let live = || {
        let (head, text) = exchange(address, "GET", "/metrics", b"");
        assert!(
            head.starts_with("HTTP/1.1 200 ") && head.contains("content-type: text/plain; version=0.0.4"),
            "{head}"
        );
        let live = text.lines().find_map(|line| line.strip_prefix("magalloc_live_bytes ")).expect("a live figure");
        live.parse::<u64>().expect("a number")
    };
    let before = live();
    let document = json!({ "text": "x".repeat(BODY_LIMIT / 2) });
    assert_eq!(request(address, "PUT", "/documents/a", document.to_string().as_bytes()).0, 201);
    assert!(live() >= before + BODY_LIMIT as u64 / 2, "{before} bytes were live before");
}

#[test]
fn documents_are_put_got_and_deleted() {
    let (_process, address, _stdout) = serve();
    let first = json!({ "name": "first", "nested": { "list": [1, null, "é\n"] } });
    let second = json!({ "name": "second" });
    let put = |document: &Value| request(address, "PUT", "/documents/a", document.to_string().as_bytes());
    let get = || request(address, "GET", "/documents/a", b"");

    assert_eq!(put(&first), (201, json!({ "id": "a", "created": true })));
    assert_eq!(get(), (200, first));
    assert_eq!(put(&second), (200, json!({ "id": "a", "created": false })));
    assert_eq!(get(), (200, second));
    assert_eq!(request(address, "DELETE", "/documents/a", b""), (204, Value::Null));
    assert_refused(&get(), 404, "\"a\"");
    assert_refused(&request(address, "DELETE", "/documents/a", b""), 404, "\"a\"");
}

#[test]
fn documents_are_listed_in_pages_and_searched() {
    let (_process, address, _stdout) = serve();
    for n in 0..25 {
        let city = ["Oslo", "Lima"][n % 2];
        let document = json!({ "city": city, "text": format!("number {n} of Lima") });
        let path = format!("/documents/d{n:02}");
        let reply = request(address, "PUT", &path, document.to_string().as_bytes());
        assert_eq!(reply.0, 201, "{reply:?}");
    }
    let page = |path: &str| {
        let (status, page) = request(address, "GET", path, b"");
        assert_eq!(status, 200, "{page}");
        page
    };

    let mut seen = 0;
    let mut path = String::from("/documents?limit=10");
    for (length, last) in [(10, Some("d09")), (10, Some("d19")), (5, None)] {
        let page = page(&path);
        let expected: Vec<String> = (seen..seen + length).map(|n| format!("d{n:02}")).collect();
        assert_eq!(ids(&page), expected);
        assert_eq!(page["next"].as_str(), last);
        seen += length;
        path = format!("/documents?limit=10&after={}", last.unwrap_or_default());
    }
    assert_eq!(ids(&page("/documents")).len(), 25);

    let found = page("/search?text=number%207%20of");
    assert_eq!(ids(&found), ["d07"]);
    let document = json!({ "city": "Lima", "text": "number 7 of Lima" });
    assert_eq!(found["documents"][0]["document"], document);
    assert_eq!(ids(&page("/search?text=Lima")).len(), 25);
    assert_eq!(ids(&page("/search?text=Lima&field=city")).len(), 12);
    let found = page("/search?text=Lima&field=city&limit=2&after=d03");
    assert_eq!((ids(&found), &found["next"]), (vec!["d05", "d07"], &json!("d07")));
    assert_eq!(ids(&page("/search?text=Lima&field=none")).len(), 0);
}

#[test]
fn service_goes_on_after_bad_requests() {
    let (_process, address, _stdout) = serve();
    let kept = json!({ "kept": true });
    let reply = request(address, "PUT", "/documents/kept", kept.to_string().as_bytes());
    assert_eq!(reply.0, 201);

    let too_large = vec![b' '; BODY_LIMIT + 1];
    let far_too_large = vec![b' '; 8 * BODY_LIMIT];
    let too_deep = [b"{\"a\":".repeat(100_000), b"1".to_vec()].concat();
    let long_id = format!("/documents/{}", "x".repeat(257));
    let cases: [(&str, &str, &[u8], u16, &str); 16] = [
        ("PUT", "/documents/x", br#"{"a": "#, 400, "not JSON: EOF"),
        ("PUT", "/documents/x", b"", 400, "not JSON: EOF"),
        ("PUT", "/documents/x", b"{\"a\": \"\xff\"}", 400, "not JSON"),
        ("PUT", "/documents/x", &too_deep, 400, "recursion limit"),
        ("PUT", "/documents/x", b"[1]", 422, "JSON object"),
        ("PUT", "/documents/x", &too_large, 413, "1048576 bytes"),
        ("PUT", "/documents/x", &far_too_large, 413, "1048576 bytes"),
        ("PUT", &long_id, b"{}", 400, "256 bytes"),
        ("GET", "/documents/%ff", b"", 400, "UTF-8"),
        ("GET", "/documents/x", b"", 404, "\"x\""),
        ("GET", "/documents?limit=0", b"", 400, "from 1 to 1000"),
        ("GET", "/documents?limit=many", b"", 400, "limit"),
        ("GET", "/search", b"", 400, "text"),
        ("GET", "/search?text=", b"", 400, "empty"),
        ("GET", "/elsewhere", b"", 404, "/elsewhere"),
        ("POST", "/documents/x", b"{}", 405, "POST"),
    ];
    for (method, path, body, status, part) in cases {
        assert_refused(&request(address, method, path, body), status, part);
        assert_eq!(request(address, "GET", "/documents/kept", b""), (200, kept.clone()));
    }
    // Not even HTTP.
    let mut stream = TcpStream::connect(address).expect("the service accepts");
    stream.write_all(b"\0\x01\x02 nonsense\r\n\r\n").expect("it is sent");
    drop(stream);
    let (status, page) = request(address, "GET", "/documents", b"");
    assert_eq!((status, ids(&page)), (200, vec!["kept"]));
}

#[test]
fn body_of_exactly_the_limit_is_taken() {
    let (_process, address, _stdout) = serve();
    let mut body = br#"{"full":true}"#.to_vec();
    body.resize(BODY_LIMIT, b' ');
    assert_eq!(request(address, "PUT", "/documents/full", &body).0, 201);
    assert_eq!(request(address, "GET", "/documents/full", b""), (200, json!({ "full": true })));
}
