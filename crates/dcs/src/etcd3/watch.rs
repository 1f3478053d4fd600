//! A watch that lives on through lost connections and lost members.

use std::sync::Arc;
use std::time::Duration;

use primacy_model::Version;
use primacy_net::{Bytes, HeaderMap, Method};
use serde_json::{Deserializer, Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::call::{Failure, Gateway};
use super::endpoints::Freshness;
use super::wire::{self, ServerError};
use crate::WatchEvent;

/// For opening the stream at one endpoint.
const OPENING: Duration = Duration::from_secs(5);

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(500);

/// After so much silence the member is asked whether it is there: a frozen one keeps its connections.
const SILENCE: Duration = Duration::from_secs(30);

/// More than this in one message is not a cluster's state any more.
const LONGEST_MESSAGE: usize = 16 * 1024 * 1024;

/// What has been seen up to now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Position {
    cluster: u64,
    next_revision: u64,
}

/// Reports until nobody listens. A slow listener slows the stream down and loses nothing.
pub(super) async fn run(gateway: Arc<Gateway>, prefix: String, events: mpsc::Sender<WatchEvent>) {
    let mut watch = Watch {
        gateway,
        prefix,
        events: events.clone(),
        position: None,
    };
    let watching = async {
        loop {
            if let Err(reason) = watch.follow().await {
                tracing::debug!(%reason, "the watch of etcd was interrupted");
                sleep(PAUSE).await;
            }
        }
    };
    tokio::select! {
        () = events.closed() => {}
        () = watching => {}
    }
}

struct Watch {
    gateway: Arc<Gateway>,
    prefix: String,
    events: mpsc::Sender<WatchEvent>,
    /// `None` before the first answer, and when what came between can no longer be had.
    position: Option<Position>,
}

impl Watch {
    /// Follows the changes at one endpoint, until it fails or another one is the better one to ask.
    async fn follow(&mut self) -> Result<(), String> {
        let mut current = self.gateway.endpoints.current();
        let endpoint = current.borrow_and_update().clone();
        let ended = self.follow_at(&endpoint, &mut current).await;
        if ended.is_err() {
            self.gateway.endpoints.avoid(&endpoint);
        }
        ended
    }

    async fn follow_at(
        &mut self,
        endpoint: &str,
        current: &mut tokio::sync::watch::Receiver<String>,
    ) -> Result<(), String> {
        let mut request = wire::range(&self.prefix);
        request["progress_notify"] = json!(true);
        if let Some(position) = self.position {
            request["start_revision"] = json!(position.next_revision.to_string());
        }
        let request = json!({"create_request": request});
        let limit = Instant::now() + OPENING;
        let opened = self
            .gateway
            .stream(endpoint, "/watch", &request, limit)
            .await;
        let mut stream = opened.map_err(|failure| match failure {
            Failure::NotDone(reason)
            | Failure::MaybeDone(reason)
            | Failure::NotAuthenticated(reason)
            | Failure::Refused { reason, .. } => reason,
        })?;
        let mut received = Vec::new();
        loop {
            let piece = tokio::select! {
                _ = current.changed() => return Ok(()),
                piece = timeout(SILENCE, stream.next()) => piece,
            };
            match piece {
                Ok(Some(Ok(piece))) => received.extend_from_slice(&piece),
                Ok(Some(Err(error))) => return Err(error.to_string()),
                Ok(None) => return Err(format!("{endpoint} has ended the stream")),
                Err(_) => self.is_there(endpoint).await?,
            }
            for message in take_messages(&mut received)? {
                self.take(endpoint, &message).await?;
            }
        }
    }

    async fn take(&mut self, endpoint: &str, message: &Value) -> Result<(), String> {
        if let Some(error) = ServerError::from_answer(message) {
            self.gateway.forget_login();
            return Err(format!("{endpoint}: {}", error.message));
        }
        let result = &message["result"];
        let header = wire::header(result);
        if self.gateway.endpoints.judge(header) == Freshness::Stale {
            return Err(format!("{endpoint} has missed an election"));
        }
        if self
            .position
            .is_some_and(|position| position.cluster != header.cluster)
        {
            self.position = None;
            return Err(format!("{endpoint} belongs to another cluster"));
        }
        if result["canceled"] == json!(true) {
            if wire::number(&result["compact_revision"]) > 0 {
                self.position = None;
            }
            self.gateway.forget_login();
            let reason = result["cancel_reason"]
                .as_str()
                .unwrap_or("no reason given");
            return Err(format!("{endpoint} has canceled the watch: {reason}"));
        }
        let cluster = header.cluster;
        if self.position.is_none() {
            // The stream begins here; who listens may have read before.
            self.position = Some(Position {
                cluster,
                next_revision: header.revision.saturating_add(1),
            });
            self.report(WatchEvent::Resync).await;
        }
        let mut last = None;
        for event in result["events"].as_array().into_iter().flatten() {
            let pair = &event["kv"];
            last = last.max(Some(wire::number(&pair["mod_revision"])));
            let event = match event["type"].as_str() {
                Some("DELETE") => WatchEvent::Delete {
                    key: wire::key(pair),
                },
                _ => WatchEvent::Put(wire::entry(pair)),
            };
            self.report(event).await;
        }
        if let Some(last) = last {
            // A message has all changes of each revision in it, since it was not asked for in fragments.
            self.report(WatchEvent::Reached(Version(last))).await;
            self.position = Some(Position {
                cluster,
                next_revision: last.saturating_add(1),
            });
        }
        Ok(())
    }

    async fn report(&self, event: WatchEvent) {
        // An error means that nobody listens any more, which ends the watch elsewhere.
        let _ = self.events.send(event).await;
    }

    async fn is_there(&self, endpoint: &str) -> Result<(), String> {
        let url = format!("{endpoint}/version");
        let limit = Instant::now() + OPENING;
        let http = &self.gateway.http;
        let asked = http
            .request(Method::GET, &url, HeaderMap::new(), Bytes::new(), limit)
            .await;
        asked.map(drop).map_err(|error| error.to_string())
    }
}

/// Takes the whole messages from the front. They need not align with the pieces they come in.
pub(super) fn take_messages(received: &mut Vec<u8>) -> Result<Vec<Value>, String> {
    let mut stream = Deserializer::from_slice(received).into_iter::<Value>();
    let mut messages = Vec::new();
    let mut taken = 0;
    loop {
        match stream.next() {
            Some(Ok(message)) => {
                messages.push(message);
                taken = stream.byte_offset();
            }
            Some(Err(error)) if error.is_eof() => break,
            Some(Err(error)) => return Err(format!("the watch is not JSON: {error}")),
            None => break,
        }
    }
    received.drain(..taken);
    match received.len() > LONGEST_MESSAGE {
        true => Err("a message of the watch is too long".into()),
        false => Ok(messages),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_do_not_align_with_pieces() {
        let text = "{\"result\":{\"a\":\"}\"}}\n{\"result\":{\"b\":2}}\n";
        for size in 1..text.len() {
            let mut received = Vec::new();
            let mut messages = Vec::new();
            for piece in text.as_bytes().chunks(size) {
                received.extend_from_slice(piece);
                messages.extend(take_messages(&mut received).unwrap());
            }
            assert_eq!(messages.len(), 2, "pieces of {size}");
            assert_eq!(messages[1]["result"]["b"], json!(2));
        }
        assert!(take_messages(&mut b"<html>".to_vec()).is_err());
    }
}
