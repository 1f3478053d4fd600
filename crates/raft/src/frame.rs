//! Frames: a length, the protocol's version, a JSON text, and a proof that its sender knows the key.
//!
//! ```text
//! length (4 bytes, big-endian: of all that follows) | version (1 byte) | JSON | HMAC-SHA256 (32 bytes)
//! ```
//!
//! The proof covers the frame's number on its connection, so that nothing on the way can inject, change,
//! drop, repeat or reorder a frame unnoticed. The frames of the handshake carry none.

use hmac::{Hmac, Mac};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::Sha256;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// Raised when an older member could not understand what is said.
pub(crate) const PROTOCOL: u8 = 1;

/// The largest frame: a snapshot of [`crate::machine::MAX_TOTAL_BYTES`] as base64, with room for the rest.
const MAX_FRAME_BYTES: usize = 40 << 20;

/// The largest frame of somebody who has not proved anything yet.
const MAX_HANDSHAKE_BYTES: usize = 16 << 10;

const PROOF_BYTES: usize = 32;

/// A secret known to both ends.
#[derive(Clone)]
pub(crate) struct Key(Hmac<Sha256>);

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("connection lost: {0}")]
    Io(#[from] std::io::Error),
    #[error("it speaks protocol {0}, this release speaks {PROTOCOL}")]
    Protocol(u8),
    #[error("a frame of {0} bytes is out of bounds")]
    Size(usize),
    #[error("a frame was forged or damaged on the way")]
    Forged,
    #[error("a frame is not understood: {0}")]
    Json(#[from] serde_json::Error),
}

impl Key {
    /// HMAC-SHA256 with this secret.
    pub(crate) fn new(secret: &[u8]) -> Key {
        // The only error is a key of the wrong length, and HMAC takes every length.
        Key(Hmac::new_from_slice(secret)
            .unwrap_or_else(|_| unreachable!("HMAC takes keys of every length")))
    }

    /// The code of these parts; their lengths go into it, so that no two lists of parts look the same.
    pub(crate) fn sign(&self, parts: &[&[u8]]) -> [u8; PROOF_BYTES] {
        self.mac(parts).finalize().into_bytes().into()
    }

    /// Compares in constant time.
    pub(crate) fn verify(&self, parts: &[&[u8]], code: &[u8]) -> bool {
        self.mac(parts).verify_slice(code).is_ok()
    }

    fn mac(&self, parts: &[&[u8]]) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        for part in parts {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac
    }
}

/// The receiving half of a connection.
pub(crate) struct Receiver {
    half: OwnedReadHalf,
    proof: Option<(Key, u64)>,
}

impl Receiver {
    pub(crate) fn new(half: OwnedReadHalf) -> Self {
        Receiver { half, proof: None }
    }

    /// From now on every frame must be proved.
    pub(crate) fn demand(&mut self, key: Key) {
        self.proof = Some((key, 0));
    }

    /// The next frame. Not cancel safe: a receiver that was cancelled here is good for nothing.
    pub(crate) async fn receive<T: DeserializeOwned>(&mut self) -> Result<T, FrameError> {
        Ok(serde_json::from_slice(&self.receive_bytes().await?)?)
    }

    pub(crate) async fn receive_bytes(&mut self) -> Result<Vec<u8>, FrameError> {
        let size = self.half.read_u32().await? as usize;
        let (least, most) = match self.proof {
            Some(_) => (1 + PROOF_BYTES, MAX_FRAME_BYTES),
            None => (1, MAX_HANDSHAKE_BYTES),
        };
        if !(least..=most).contains(&size) {
            return Err(FrameError::Size(size));
        }
        let version = self.half.read_u8().await?;
        if version != PROTOCOL {
            return Err(FrameError::Protocol(version));
        }
        let mut bytes = vec![0; size - 1];
        self.half.read_exact(&mut bytes).await?;
        if let Some((key, number)) = &mut self.proof {
            let code = bytes.split_off(bytes.len() - PROOF_BYTES);
            if !key.verify(&[&number.to_be_bytes(), &bytes], &code) {
                return Err(FrameError::Forged);
            }
            *number += 1;
        }
        Ok(bytes)
    }
}

/// The sending half of a connection.
pub(crate) struct Sender {
    half: OwnedWriteHalf,
    proof: Option<(Key, u64)>,
}

impl Sender {
    pub(crate) fn new(half: OwnedWriteHalf) -> Self {
        Sender { half, proof: None }
    }

    /// From now on every frame is proved.
    pub(crate) fn prove(&mut self, key: Key) {
        self.proof = Some((key, 0));
    }

    pub(crate) async fn send(&mut self, message: &impl Serialize) -> Result<(), FrameError> {
        self.send_bytes(&serde_json::to_vec(message)?).await
    }

    /// Sends a frame. Not cancel safe.
    pub(crate) async fn send_bytes(&mut self, json: &[u8]) -> Result<(), FrameError> {
        let size = 1 + json.len() + self.proof.as_ref().map_or(0, |_| PROOF_BYTES);
        let length = u32::try_from(size).ok().filter(|_| size <= MAX_FRAME_BYTES);
        let length = length.ok_or(FrameError::Size(size))?;
        let mut frame = Vec::with_capacity(4 + size);
        frame.extend_from_slice(&length.to_be_bytes());
        frame.push(PROTOCOL);
        frame.extend_from_slice(json);
        if let Some((key, number)) = &mut self.proof {
            frame.extend_from_slice(&key.sign(&[&number.to_be_bytes(), json]));
            *number += 1;
        }
        Ok(self.half.write_all(&frame).await?)
    }
}
