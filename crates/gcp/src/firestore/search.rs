//! Queries: documents of one collection in order, page by page.
//!
//! Owns: the form of a query, cursors, the size of a page. Refuses to know: what documents hold.

use engine::ports::ReadError;
use serde_json::{Value, json};

use super::client::{Client, NAMES_MAX, Page};
use super::wire::{self, Document};

/// Documents in one page.
pub(super) const PAGE: usize = NAMES_MAX;

/// Documents of a collection in order of one field, page by page.
pub(super) struct Search<'a> {
    pub(super) collection: &'static str,
    /// The field; the documents' names where `None`.
    pub(super) by: Option<&'static str>,
    pub(super) descending: bool,
    /// Conditions, each as a `fieldFilter`.
    pub(super) filters: Vec<Value>,
    /// A moment to look at, as the server wrote it.
    pub(super) read_time: Option<&'a str>,
}

impl Search<'_> {
    /// A page behind the document `last`.
    fn page(
        &self,
        client: &Client,
        last: Option<&Document>,
        limit: usize,
    ) -> Result<Page, ReadError> {
        let direction = if self.descending { "DESCENDING" } else { "ASCENDING" };
        // Names as well: of two equal values one would be lost between two pages.
        let order: Vec<_> = (self.by.into_iter().chain(["__name__"]))
            .map(|field| json!({"field": {"fieldPath": field}, "direction": direction}))
            .collect();
        let mut query = json!({
            "from": [{"collectionId": self.collection}],
            "orderBy": order,
            "limit": limit,
        });
        if !self.filters.is_empty() {
            query["where"] = json!({"compositeFilter": {"op": "AND", "filters": self.filters}});
        }
        if let Some(last) = last {
            let value = self.by.and_then(|field| last.fields.get(field));
            let name = json!({"referenceValue": last.name});
            let values: Vec<_> =
                value.map(|value| json!(value)).into_iter().chain([name]).collect();
            query["startAt"] = json!({"values": values, "before": false});
        }
        let mut body = json!({"structuredQuery": query});
        if let Some(read_time) = self.read_time {
            body["readTime"] = json!(read_time);
        }
        client.query(&body)
    }

    /// Hands up to `limit` documents on, one by one, until `take` has enough.
    pub(super) fn each(
        &self,
        client: &Client,
        limit: usize,
        mut take: impl FnMut(&Document) -> Result<bool, ReadError>,
    ) -> Result<(), ReadError> {
        let mut left = limit;
        let mut last: Option<Document> = None;
        while left > 0 {
            let asked = left.min(PAGE);
            let mut documents = self.page(client, last.as_ref(), asked)?.documents;
            for document in &documents {
                if !take(document)? {
                    return Ok(());
                }
            }
            if documents.len() < asked {
                break;
            }
            left -= asked;
            last = documents.pop();
        }
        Ok(())
    }
}

pub(super) fn condition(field: &str, op: &str, value: &wire::Value) -> Value {
    json!({"fieldFilter": {"field": {"fieldPath": field}, "op": op, "value": value}})
}
