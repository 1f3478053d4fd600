//! What etcd answers, spoiled; `make fuzz`.

use serde_json::Value;

use super::{watch, wire};

#[test]
#[ignore = "long: make fuzz"]
fn answers_of_etcd() {
    let samples = [
        r#"{"header":{"cluster_id":"14841639068965178418","revision":"7","raft_term":"2"},"kvs":[{"key":"L3NlcnZpY2U=","value":"e30=","create_revision":"2","mod_revision":"3","version":"1","lease":"7587869"}],"count":"1"}"#,
        r#"{"result":{"header":{"revision":"18446744073709551615"},"events":[{"type":"DELETE","kv":{"key":"YQ==","mod_revision":"18446744073709551615"}}],"canceled":true,"compact_revision":"5"}}"#,
        r#"{"error":{"grpc_code":14,"http_code":503,"message":"etcdserver: no leader"}}"#,
        r#"{"code":16,"message":"etcdserver: invalid auth token","details":[]}"#,
        r#"{"ID":"7587869","TTL":"20","succeeded":true,"responses":[{"response_range":{}}]}"#,
    ];
    let samples = samples.map(str::as_bytes);
    primacy_fuzz::bytes(&samples, |input| {
        let mut received = input.to_vec();
        let Ok(messages) = watch::take_messages(&mut received) else {
            return false;
        };
        for message in &messages {
            read(message);
        }
        !messages.is_empty()
    });
}

fn read(message: &Value) {
    for answer in [message, &message["result"]] {
        let _ = (
            wire::header(answer),
            wire::number(&answer["TTL"]),
            wire::text_number(&answer["ID"]),
        );
        if let Some(error) = wire::ServerError::from_answer(answer) {
            let _ = error.meaning();
        }
        let pairs = answer["kvs"]
            .as_array()
            .into_iter()
            .chain(answer["events"].as_array());
        for pair in pairs.flatten() {
            let _ = (wire::entry(pair), wire::entry(&pair["kv"]), wire::key(pair));
        }
    }
}
