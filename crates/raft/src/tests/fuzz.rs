//! What comes over the wire and from the disk, spoiled; `make fuzz`.

use openraft::Entry;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use crate::command::Command;
use crate::disk::{Standing, StoredSnapshot};
use crate::frame::{Key, Receiver};
use crate::machine::State;
use crate::message::{Question, Request, Response};
use crate::types::Group;

/// Whether it is such a message. One that is reads the same when it is written again.
fn reads<T: DeserializeOwned + Serialize>(input: &[u8]) -> bool {
    let Ok(message) = serde_json::from_slice::<T>(input) else {
        return false;
    };
    let written = serde_json::to_vec(&message).unwrap();
    let again: T = serde_json::from_slice(&written).unwrap();
    assert_eq!(serde_json::to_vec(&again).unwrap(), written);
    true
}

fn samples() -> Vec<String> {
    let id = json!({"client": "c", "settled": 3, "number": 4});
    let op = json!({"Put": {"key": "a", "value": "YQ==", "condition": "Always", "lease": null}});
    let log_id = json!({"leader_id": {"term": 1, "node_id": 2}, "index": 5});
    let vote = json!({"leader_id": {"term": 1, "node_id": 2}, "committed": true});
    let command = json!({"reign": 1, "at": 5, "action": {"Lead": {"group": "g"}}});
    let entry = json!({"log_id": log_id, "payload": {"Normal": command}});
    let append =
        json!({"vote": vote, "prev_log_id": log_id, "entries": [entry], "leader_commit": null});
    let ask = |request: serde_json::Value| json!({"id": 1, "budget_ms": 5, "request": request});
    let all = [
        ask(json!({"Append": {"group": "g", "rpc": append}})),
        ask(json!({"Vote": {"group": null, "rpc": {"vote": vote, "last_log_id": null}}})),
        ask(
            json!({"Call": {"body": {"Change": {"id": id, "op": op}}, "forwarded": false, "group": null}}),
        ),
        ask(json!("Probe")),
        json!({"id": 1, "reply": {"Lost": {"reason": "x"}}}),
        json!({"id": 2, "reply": "Resync"}),
        json!({"vote": vote, "last_log": log_id}),
        serde_json::to_value(State::default()).unwrap(),
        entry,
        command,
    ];
    all.map(|value| value.to_string()).to_vec()
}

#[test]
#[ignore = "long: make fuzz"]
fn messages_and_records() {
    let samples = samples();
    let samples: Vec<&[u8]> = samples.iter().map(|sample| sample.as_bytes()).collect();
    primacy_fuzz::bytes(&samples, |input| {
        let read = [
            reads::<Question<Request>>(input),
            reads::<Response>(input),
            reads::<Standing>(input),
            reads::<StoredSnapshot>(input),
            reads::<State>(input),
            reads::<Entry<Group>>(input),
        ];
        read.contains(&true)
    });
}

/// A log of commands, a line each, on whatever state: members that apply the same have the same.
#[test]
#[ignore = "long: make fuzz"]
fn logs() {
    let serve = |op: &str| {
        format!(
            r#"{{"reign":1,"at":7,"action":{{"Serve":{{"id":{{"client":"c","settled":0,"number":1}},"op":{op}}}}}}}"#
        )
    };
    let log = [
        r#"{"reign":0,"at":5,"action":{"Lead":{"group":"g"}}}"#.to_owned(),
        serve(r#"{"Put":{"key":"a","value":"YQ==","condition":"Always","lease":null}}"#),
        r#"{"reign":1,"at":18446744073709551615,"action":"Tick"}"#.to_owned(),
    ]
    .join("\n");
    primacy_fuzz::text(&[&log], |input| {
        let mut state = State::default();
        let mut applied = 0;
        for (index, line) in (1..).zip(input.lines()) {
            if let Ok(command) = serde_json::from_str::<Command>(line) {
                let mut twin = state.clone();
                let (mut events, mut twins) = (Vec::new(), Vec::new());
                let answer = state.apply(index, command.clone(), &mut events);
                assert_eq!(twin.apply(index, command, &mut twins), answer);
                assert_eq!((&state, &events), (&twin, &twins));
                applied += 1;
            }
        }
        let _ = state.next_deadline();
        applied > 0
    });
}

/// Bytes of a connection, before the other end has proved itself and after.
#[test]
#[ignore = "long: make fuzz"]
fn frames() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let hello = br#"{"nonce":"n","who":"a:1","whom":"b:2","members":["a:1"],"has_password":true}"#;
    let frame = |body: &[u8]| {
        let size = u32::try_from(body.len() + 1).unwrap();
        [&size.to_be_bytes()[..], &[1], body].concat()
    };
    let (short, long) = (frame(hello), frame(&[b'x'; 40]));
    primacy_fuzz::bytes(&[&short, &long, b"\xff\xff\xff\xff\x01"], |input| {
        runtime.block_on(async {
            let mut read = false;
            for proved in [false, true] {
                let (writer, accepted) =
                    tokio::join!(TcpStream::connect(address), listener.accept());
                let (mut writer, (reader, _)) = (writer.unwrap(), accepted.unwrap());
                let mut receiver = Receiver::new(reader.into_split().0);
                if proved {
                    receiver.demand(Key::new(b"secret"));
                }
                // It may have hung up already.
                let _ = writer.write_all(input).await;
                drop(writer);
                while let Ok(bytes) = receiver.receive_bytes().await {
                    assert!(!proved, "nobody can prove a frame without the key");
                    read |= serde_json::from_slice::<serde_json::Value>(&bytes).is_ok();
                }
            }
            read
        })
    });
}
