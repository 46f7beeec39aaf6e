//! The documents in memory: a map from id to JSON, in shards.
//!
//! # Role
//! Used by the service (all of it) and by the load (`len`).
//!
//! # Invariants
//! - I1: an id lives in the one shard that its hash names.
//! - I2: a call holds the lock of at most one shard at a time.
//!
//! # Not here
//! HTTP and limits on sizes (see `service`).

use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use serde::Serialize;
use serde_json::Value;

/// More shards than a usual machine has cores, so that two writers seldom meet.
const SHARDS: usize = 16;

/// Ids in order, so that a page can start after any id, also one that is gone by now.
type Shard = BTreeMap<Arc<str>, Arc<Value>>;

/// A concurrent map of JSON documents.
#[derive(Default)]
pub(crate) struct Store {
    shards: [RwLock<Shard>; SHARDS],
    hasher: RandomState,
}

/// One document of a page.
#[derive(Debug, Serialize)]
pub(crate) struct Entry {
    /// The id under which the document was put.
    pub(crate) id: Arc<str>,
    /// The document.
    pub(crate) document: Arc<Value>,
}

/// Some documents in the order of their ids.
#[derive(Debug, Serialize)]
pub(crate) struct Page {
    /// At most as many as were asked for.
    pub(crate) documents: Vec<Entry>,
    /// The id to continue after, or `None` when there is nothing more.
    pub(crate) next: Option<Arc<str>>,
}

impl Store {
    /// Puts `document` under `id`. True if the id is new, false if an older document was replaced.
    pub(crate) fn put(&self, id: &str, document: Value) -> bool {
        let document = Arc::new(document);
        let replaced = self.write(id).insert(Arc::from(id), document);
        // The old document is freed here, when the lock is already released.
        replaced.is_none()
    }

    /// The document under `id`.
    pub(crate) fn get(&self, id: &str) -> Option<Arc<Value>> {
        read(self.shard(id)).get(id).cloned()
    }

    /// Deletes the document under `id`. False if there is none.
    pub(crate) fn delete(&self, id: &str) -> bool {
        let deleted = self.write(id).remove_entry(id);
        deleted.is_some()
    }

    /// How many documents there are.
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| read(shard).len()).sum()
    }

    /// The first `limit` documents whose id is greater than `after`.
    pub(crate) fn list(&self, after: Option<&str>, limit: usize) -> Page {
        self.page(after, limit, |_| true)
    }

    /// The first `limit` documents whose id is greater than `after` and that hold `text` in one
    /// of their strings; with a `field`, in the strings of this field only.
    pub(crate) fn search(&self, text: &str, field: Option<&str>, after: Option<&str>, limit: usize) -> Page {
        self.page(after, limit, |document| match field {
            None => holds(document, text),
            Some(field) => document.get(field).is_some_and(|value| holds(value, text)),
        })
    }

    /// Takes one more than `limit` of each shard: these surely have the first `limit` of all
    /// among them, and tell whether there is more. Documents that others put or delete during
    /// the call may be seen or not; all others are seen exactly.
    fn page(&self, after: Option<&str>, limit: usize, wanted: impl Fn(&Value) -> bool) -> Page {
        let range = (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        let mut documents: Vec<Entry> = Vec::new();
        for shard in &self.shards {
            let shard = read(shard);
            let found = shard.range::<str, _>(range).filter(|(_, document)| wanted(document));
            documents.extend(
                found
                    .take(limit + 1)
                    .map(|(id, document)| Entry { id: Arc::clone(id), document: Arc::clone(document) }),
            );
        }
        documents.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        let more = documents.len() > limit;
        documents.truncate(limit);
        let last = documents.last().filter(|_| more);
        let next = last.map(|entry| Arc::clone(&entry.id));
        Page { documents, next }
    }

    fn shard(&self, id: &str) -> &RwLock<Shard> {
        let hash = self.hasher.hash_one(id);
        &self.shards[(hash % SHARDS as u64) as usize]
    }

    fn write(&self, id: &str) -> RwLockWriteGuard<'_, Shard> {
        self.shard(id).write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A panic under a lock leaves a whole map behind (each change is one call), so the service goes
/// on with it.
fn read(shard: &RwLock<Shard>) -> RwLockReadGuard<'_, Shard> {
    shard.read().unwrap_or_else(PoisonError::into_inner)
}

/// Whether `text` is a part of any string in `value`. The names of fields do not count.
fn holds(value: &Value, text: &str) -> bool {
    match value {
        Value::String(string) => string.contains(text),
        Value::Array(items) => items.iter().any(|item| holds(item, text)),
        Value::Object(fields) => fields.values().any(|field| holds(field, text)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ids(page: &Page) -> Vec<&str> {
        page.documents.iter().map(|entry| &*entry.id).collect()
    }

    #[test]
    fn put_says_whether_the_id_is_new() {
        let store = Store::default();
        assert!(store.put("a", json!({"n": 1})));
        assert!(!store.put("a", json!({"n": 2})));
        assert_eq!(store.get("a").as_deref(), Some(&json!({"n": 2})));
        assert_eq!(store.len(), 1);
    }

    #[test]
    fn delete_finds_a_document_once() {
        let store = Store::default();
        store.put("a", json!({}));
        assert!(store.delete("a"));
        assert!(!store.delete("a"));
        assert!(store.get("a").is_none());
        assert_eq!(store.len(), 0);
    }

    #[test]
    fn pages_walk_all_ids_in_order() {
        let store = Store::default();
        let all: Vec<String> = (0..100).map(|n| format!("{n:03}")).collect();
        for id in all.iter().rev() {
            store.put(id, json!({}));
        }
        for limit in [1, 7, 50, 99, 100, 101] {
            let mut seen = Vec::new();
            let mut after: Option<Arc<str>> = None;
            loop {
                let page = store.list(after.as_deref(), limit);
                assert!(page.documents.len() <= limit);
                seen.extend(ids(&page).into_iter().map(String::from));
                let Some(next) = page.next else { break };
                assert_eq!(Some(&*next), seen.last().map(String::as_str));
                after = Some(next);
            }
            assert_eq!(seen, all, "limit {limit}");
        }
    }

    #[test]
    fn page_that_leaves_one_document_says_that_there_is_more() {
        // The shards differ from store to store; in some of these both ids share one.
        for _ in 0..200 {
            let store = Store::default();
            store.put("a", json!({}));
            store.put("b", json!({}));
            assert_eq!(store.list(None, 1).next.as_deref(), Some("a"));
        }
    }

    #[test]
    fn page_after_a_deleted_id_continues_behind_it() {
        let store = Store::default();
        for id in ["a", "b", "c"] {
            store.put(id, json!({}));
        }
        store.delete("b");
        assert_eq!(ids(&store.list(Some("b"), 10)), ["c"]);
    }

    #[test]
    fn search_looks_into_nested_strings_but_not_into_names() {
        let store = Store::default();
        store.put("deep", json!({"list": [1, {"inner": "red apple"}]}));
        store.put("name", json!({"apple": 1}));
        store.put("none", json!({"text": "pear"}));
        assert_eq!(ids(&store.search("apple", None, None, 10)), ["deep"]);
    }

    #[test]
    fn search_in_a_field_leaves_other_fields_out() {
        let store = Store::default();
        store.put("1", json!({"city": "Lima", "text": "none"}));
        store.put("2", json!({"city": "Oslo", "text": "Lima"}));
        store.put("3", json!({"city": ["Bern", "Lima"]}));
        assert_eq!(ids(&store.search("Lim", Some("city"), None, 10)), ["1", "3"]);
        let first = store.search("Lim", Some("city"), None, 1);
        assert_eq!((ids(&first), first.next.as_deref()), (vec!["1"], Some("1")));
        assert_eq!(ids(&store.search("Lim", Some("city"), Some("1"), 1)), ["3"]);
    }
}
