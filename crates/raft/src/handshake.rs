//! How two ends of a connection come to know each other.
//!
//! ```text
//! asker                                     answerer
//!   Hello { nonce, who, whom, members }  ->
//!                                        <- Challenge { nonce }
//!   Proof { of the asker }               ->            a wrong one is refused here
//!                                        <- Welcome { proof of the answerer } | Refused
//!   a wrong one is refused here
//! ```
//!
//! Both proofs are codes, under a key made of the password, over everything said before; the password
//! itself is never sent. The asker, who calls only addresses it was told, proves itself first: whoever
//! scans ports gets nothing to guess passwords with. From both nonces comes a key for each direction that
//! proves every later frame. What is said is not encrypted.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::RaftConfig;
use crate::command::Blob;
use crate::config::canonical;
use crate::frame::{FrameError, Key, Receiver, Sender};

/// Slows down guessing the password from a recorded handshake.
const KEY_ROUNDS: u32 = 4096;

/// Who speaks: made of the configuration once.
#[derive(Clone)]
pub(crate) struct Identity {
    /// The member's address; `None` for a client.
    pub(crate) addr: Option<String>,
    /// All members.
    pub(crate) members: Vec<String>,
    key: Key,
    has_password: bool,
    patience: Duration,
}

/// A connection whose other end is known.
pub(crate) struct Link {
    pub(crate) receiver: Receiver,
    pub(crate) sender: Sender,
    /// The other end, if it is a member.
    pub(crate) member: Option<String>,
}

/// Why there is no connection.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    /// Nobody there, or it went away.
    #[error("{0}")]
    Lost(String),
    /// Either end does not want the other: trying again helps only when a configuration is corrected.
    #[error("{0}")]
    Refused(String),
}

#[derive(Serialize, Deserialize)]
struct Hello {
    nonce: String,
    who: Option<String>,
    whom: String,
    members: Vec<String>,
    has_password: bool,
}

#[derive(Serialize, Deserialize)]
struct Challenge {
    nonce: String,
}

#[derive(Serialize, Deserialize)]
struct Proof {
    code: Blob,
}

#[derive(Serialize, Deserialize)]
enum Verdict {
    Welcome { code: Blob },
    Refused { reason: String },
}

impl Identity {
    pub(crate) fn new(config: &RaftConfig, addr: Option<&str>) -> Identity {
        let password = config.password.as_deref().unwrap_or_default();
        Identity {
            addr: addr.map(canonical),
            members: config.members(),
            key: stretch(password),
            has_password: !password.is_empty(),
            patience: config.timings.connection_timeout,
        }
    }

    /// Connects to a member.
    pub(crate) async fn dial(&self, addr: &str) -> Result<Link, HandshakeError> {
        timeout(self.patience, self.dial_patiently(addr))
            .await
            .unwrap_or_else(|_| {
                Err(HandshakeError::Lost(format!(
                    "no answer within {:?}",
                    self.patience
                )))
            })
    }

    async fn dial_patiently(&self, addr: &str) -> Result<Link, HandshakeError> {
        let stream = TcpStream::connect(addr)
            .await
            .map_err(|error| HandshakeError::Lost(error.to_string()))?;
        let (mut receiver, mut sender) = halves(stream)?;
        let hello = serde_json::to_vec(&Hello {
            nonce: nonce(),
            who: self.addr.clone(),
            whom: canonical(addr),
            members: self.members.clone(),
            has_password: self.has_password,
        })
        .map_err(FrameError::from)?;
        sender.send_bytes(&hello).await?;
        let challenge = receiver.receive_bytes().await?;
        let _: Challenge = serde_json::from_slice(&challenge).map_err(FrameError::from)?;
        let code = Blob(self.key.sign(&[b"asker", &hello, &challenge]).to_vec());
        sender.send(&Proof { code }).await?;
        match receiver.receive().await? {
            Verdict::Refused { reason } => return Err(HandshakeError::Refused(reason)),
            Verdict::Welcome { code } => {
                if !self.key.verify(&[b"answerer", &hello, &challenge], &code.0) {
                    return Err(HandshakeError::Refused(
                        "it has another password than we have".into(),
                    ));
                }
            }
        }
        let [asks, answers] = self.session_keys(&hello, &challenge);
        sender.prove(asks);
        receiver.demand(answers);
        Ok(Link {
            receiver,
            sender,
            member: Some(canonical(addr)),
        })
    }

    /// Answers whoever connected.
    pub(crate) async fn welcome(&self, stream: TcpStream) -> Result<Link, HandshakeError> {
        timeout(self.patience, self.welcome_patiently(stream))
            .await
            .unwrap_or_else(|_| {
                Err(HandshakeError::Lost(format!(
                    "it did not introduce itself within {:?}",
                    self.patience
                )))
            })
    }

    async fn welcome_patiently(&self, stream: TcpStream) -> Result<Link, HandshakeError> {
        let (mut receiver, mut sender) = halves(stream)?;
        let greeting = receiver.receive_bytes().await?;
        let hello: Hello = serde_json::from_slice(&greeting).map_err(FrameError::from)?;
        let challenge =
            serde_json::to_vec(&Challenge { nonce: nonce() }).map_err(FrameError::from)?;
        sender.send_bytes(&challenge).await?;
        let proof: Proof = receiver.receive().await?;
        let proved = self
            .key
            .verify(&[b"asker", &greeting, &challenge], &proof.code.0);
        if let Some((here, there)) = self.objection(&hello, proved) {
            sender.send(&Verdict::Refused { reason: there }).await?;
            return Err(HandshakeError::Refused(here));
        }
        let code = Blob(
            self.key
                .sign(&[b"answerer", &greeting, &challenge])
                .to_vec(),
        );
        sender.send(&Verdict::Welcome { code }).await?;
        let [asks, answers] = self.session_keys(&greeting, &challenge);
        sender.prove(answers);
        receiver.demand(asks);
        Ok(Link {
            receiver,
            sender,
            member: hello.who,
        })
    }

    /// Why the asker is not welcome: in words for this end's log, and for the asker.
    fn objection(&self, hello: &Hello, proved: bool) -> Option<(String, String)> {
        let same = |reason: String| Some((reason.clone(), reason));
        if !proved {
            let (here, there) = match (self.has_password, hello.has_password) {
                (true, false) => (
                    "it has no raft password, this member has one",
                    "a raft password is required",
                ),
                (false, true) => (
                    "it has a raft password, this member has none",
                    "the member has no raft password",
                ),
                _ => (
                    "it has another raft password than this member",
                    "wrong raft password",
                ),
            };
            return Some((here.to_owned(), there.to_owned()));
        }
        let who = hello.who.as_ref()?;
        let members = self.members.join(", ");
        if hello.members != self.members {
            let theirs = hello.members.join(", ");
            return same(format!(
                "the members must be configured alike: {who} has {theirs}; {} has {members}",
                self.addr.as_deref().unwrap_or_default()
            ));
        }
        if !self.members.contains(who) {
            return same(format!("{who} is not one of the members {members}"));
        }
        if self.addr.as_ref() != Some(&hello.whom) {
            let addr = self.addr.as_deref().unwrap_or_default();
            return same(format!("{who} wants {}, but this is {addr}", hello.whom));
        }
        None
    }

    fn session_keys(&self, hello: &[u8], challenge: &[u8]) -> [Key; 2] {
        [b"frames of the asker".as_slice(), b"frames of the answerer"]
            .map(|label| Key::new(&self.key.sign(&[label, hello, challenge])))
    }
}

impl From<FrameError> for HandshakeError {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Io(error) => HandshakeError::Lost(error.to_string()),
            error => HandshakeError::Refused(error.to_string()),
        }
    }
}

fn halves(stream: TcpStream) -> Result<(Receiver, Sender), HandshakeError> {
    stream
        .set_nodelay(true)
        .map_err(|error| HandshakeError::Lost(error.to_string()))?;
    let (read, write) = stream.into_split();
    Ok((Receiver::new(read), Sender::new(write)))
}

fn nonce() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// The key of a password, in the manner of PBKDF2.
fn stretch(password: &str) -> Key {
    let key = Key::new(password.as_bytes());
    let mut round = key.sign(&[b"primacy-raft"]);
    let mut mixed = round;
    for _ in 1..KEY_ROUNDS {
        round = key.sign(&[&round]);
        mixed
            .iter_mut()
            .zip(round)
            .for_each(|(mixed, byte)| *mixed ^= byte);
    }
    Key::new(&mixed)
}
